"""Cost per success, its ratio and pass^k, against figures reckoned by hand."""

import itertools

import numpy as np
import pytest

from helpers import CourseError
from helpers.play import costs


def test_failed_tries_are_paid_for():
    told = costs.cost_per_success([2.0, 4.0, 6.0, 8.0], [True, False, True, False])
    assert told.value == 10.0 and told.low <= 10.0 <= told.high and told.n == 4


def test_no_success_has_no_price():
    with pytest.raises(CourseError, match="no finite price"):
        costs.cost_per_success([1.0, 1.0], [False, False])
    with pytest.raises(CourseError, match="has no cost"):
        costs.cost_ratio([1.0, 1.0], [True, True], [1.0, 0.0], [True, True])
    with pytest.raises(CourseError, match="never succeeds"):
        costs.cost_ratio([1.0], [True], [1.0], [False])
    with pytest.raises(CourseError, match="at least two rows"):
        costs.cost_ratio([1.0], [True], [1.0], [True])
    with pytest.raises(CourseError, match="same tasks"):
        costs.cost_ratio([1.0], [True], [1.0, 2.0], [True, True])


def test_a_handful_of_successes_gives_no_upper_end():
    few, many = [n < 2 for n in range(40)], [n < 30 for n in range(40)]
    told = costs.cost_per_success([1.0] * 40, few)
    assert told.value == 20.0 and told.low < 20.0 and told.high == np.inf
    assert costs.cost_per_success([0.0] * 40, many).high == 0, "what costs nothing"
    assert costs.cost_ratio([1.0] * 40, few, [1.0] * 40, many).high == np.inf
    assert costs.cost_ratio([1.0] * 40, many, [1.0] * 40, many).high < 2


def test_the_ratio_is_of_prices_for_success():
    draws = np.random.default_rng(0)
    dear, cheap = draws.uniform(8, 12, 200), draws.uniform(0.4, 0.6, 200)
    told = costs.cost_ratio(dear, draws.random(200) < 0.5, cheap, draws.random(200) < 0.75)
    assert 20 < told.low < told.value < told.high < 45
    assert told.low < 10 * 1.5 / 0.5 < told.high


def test_pass_k_counts_every_choice_of_tries():
    table = np.random.default_rng(1).random((7, 5)) < 0.7
    for k in (1, 3, 5):
        choices = [table[:, list(c)].all(axis=1) for c in itertools.combinations(range(5), k)]
        assert costs.pass_k(table, k) == pytest.approx(np.mean(choices))
    assert costs.pass_k([[True, True, False]], 3) == 0.0
    with pytest.raises(CourseError, match="at least 6 tries"):
        costs.pass_k(table, 6)
