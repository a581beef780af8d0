"""Worlds to act in, episodes of them, and the filter that keeps the good ones."""
