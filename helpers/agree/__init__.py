"""Agree before looking: how many rows a question needs, the bar, its seal, its verdict."""
