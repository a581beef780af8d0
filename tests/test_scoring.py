"""Statistics against statsmodels and scipy, and records that must not count."""

import numpy as np
import pytest
from scipy.stats import binomtest

from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.measure import intervals, scoring


def test_wilson_against_the_published_table():
    share = intervals.share([True] * 180 + [False] * 20)
    assert (round(share.low, 3), round(share.high, 3)) == (0.851, 0.934)
    exact = binomtest(180, 200).proportion_ci(method="wilson")
    assert share.low == pytest.approx(exact.low, abs=1e-9) and share.high == pytest.approx(
        exact.high, abs=1e-9
    )


def test_mcnemar_is_the_binomial_test_on_discordant_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.random(200) < 0.6, rng.random(200) < 0.45
    found = intervals.compare(a, b)
    assert found.p == pytest.approx(
        binomtest(found.only_a, found.only_a + found.only_b).pvalue, abs=1e-12
    )
    assert found.low < found.difference < found.high


def test_comparing_a_strategy_with_itself_finds_nothing():
    found = intervals.compare([True, False, True], [True, False, True])
    assert found.p == 1.0 and found.difference == found.low == found.high == 0


def test_no_rows_and_unequal_rows_are_refused():
    with pytest.raises(CourseError, match="no rows"):
        intervals.share([])
    with pytest.raises(CourseError, match="same rows"):
        intervals.compare([True], [True, False])


@pytest.mark.parametrize(
    "answer, exact",
    [
        ('{"intent": "order", "product": "pump", "order_id": "PO-1000"}', True),
        ('{"order_id": "PO-1000", "intent": "order", "product": "pump"}', True),
        ('{"intent": "order", "product": "pump"}', False),
        ('{"intent": "order", "product": "pump", "order_id": "PO-1000", "note": "x"}', False),
        ('{"intent": "quote", "intent": "order", "product": "pump", "order_id": "PO-1000"}', False),
        ('Sure! {"intent": "order", "product": "pump", "order_id": "PO-1000"}', False),
        ('{"intent": "order", "product": ["pump"], "order_id": "PO-1000"}', False),
        ("[1]", False),
        ("", False),
        ("null", False),
        ("[" * 5000, False),
    ],
)
def test_what_counts_as_an_exact_record(folder, answer, exact):
    rows = [
        {
            "id": "1",
            "message": "pump, PO-1000",
            "intent": "order",
            "product": "pump",
            "order_id": "PO-1000",
        }
    ]
    assert bool(scoring.score(Pilot.load(folder), rows, [answer]).exact[0]) is exact


def test_invented_values_are_seen(folder):
    rows = [{"id": "1", "message": "pump", "intent": "order", "product": "pump", "order_id": None}]
    found = scoring.score(
        Pilot.load(folder), rows, ['{"intent": "order", "product": "valve", "order_id": null}']
    )
    assert found.invented[0] and found.right["order_id"][0] and not found.right["product"][0]


@pytest.mark.parametrize(
    "answer", [None, "", "Ġ{Ġ", "[1]", "{}", '{"intent": "order"}', {"intent": "order"}]
)
def test_a_run_in_which_every_answer_is_broken_has_no_score(folder, answer):
    pilot = Pilot.load(folder)
    rows = [{"id": "1", "message": "pump", "intent": "order", "product": "pump", "order_id": None}]
    with pytest.raises(CourseError, match="broken run and not a score of 0 %.*helpers.check"):
        scoring.score(pilot, rows * 4, [answer] * 4)
    # a few may all fail by chance, and one whole record among them is a score
    assert not scoring.score(pilot, rows * 3, [answer] * 3).exact.any()
    whole = {"intent": "quote", "product": None, "order_id": None}
    assert not scoring.score(pilot, rows * 4, [answer] * 3 + [whole]).exact.any()
