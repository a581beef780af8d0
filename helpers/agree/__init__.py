"""Agree before looking: the bar, its seal, its verdict."""
