"""Measurements of speed and scale, and rows made wrong on purpose; helpers need none of them."""

from helpers import share_processor

share_processor()  # before a benchmark imports torch
