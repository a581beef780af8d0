"""Measurements of speed and scale, and rows made wrong on purpose; helpers need none of them."""

import helpers  # before torch: how its threads wait is settled there  # noqa: F401
