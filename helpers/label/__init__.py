"""Label rows in a notebook, and keep every event."""
