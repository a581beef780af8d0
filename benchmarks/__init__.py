"""Measurements of speed and scale, and rows made wrong on purpose; helpers need none of them."""
