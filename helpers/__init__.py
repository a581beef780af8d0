"""The small package behind the course. Rooms import only from floors below their own."""

__version__ = "0.1.0"


class CourseError(Exception):
    """Something the reader can put right. The message is one plain sentence: what is wrong, where, what to do."""
