"""Measurements of speed and scale, and rows made wrong on purpose. A chapter shows them; nothing in helpers needs them."""
