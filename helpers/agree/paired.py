"""Tango's score interval of a paired difference: what a bar asks of two ways on the same rows."""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from helpers import CourseError


def tango_statistic(only_a, only_b, n: int, delta: float):
    """Tango's score statistic of the difference `delta` for counts or arrays of counts; it falls.

    Written out because no Python library has it.
    """
    b = -only_a - only_b + (2 * n - only_a + only_b) * delta
    root = np.sqrt(np.maximum(0.0, b * b + 8 * n * only_b * delta * (1 - delta)))
    only_b_share = (root - b) / (4 * n)  # the likeliest share of `only_b` under delta
    variance = np.maximum(1e-300, n * (2 * only_b_share + delta * (1 - delta)))
    return (only_a - only_b - n * delta) / np.sqrt(variance)


def paired_interval(only_a: int, only_b: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """(low, high) of a paired difference a - b in shares: Tango's score interval.

    Statistics in Medicine 1998, 17, 891. It stays honest when few rows differ or none do.
    """
    if n < 1 or min(only_a, only_b) < 0 or only_a + only_b > n:
        raise CourseError(f"{only_a} and {only_b} rows that differ do not fit into {n} rows.")
    z, edge = norm.isf(alpha / 2), 1 - 1e-9

    def end(target: float, otherwise: float) -> float:
        def distance(delta: float) -> float:
            return float(tango_statistic(only_a, only_b, n, delta)) - target

        if distance(-edge) > 0 > distance(edge):
            return float(brentq(distance, -edge, edge))
        return otherwise  # the statistic never comes so far

    return end(z, -1.0), end(-z, 1.0)
