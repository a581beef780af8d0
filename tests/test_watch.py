"""The drift alarm and the weekly sample: what they promise, held against simulated weeks."""

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from helpers import CourseError
from helpers.watch import bins, trials
from helpers.watch.bins import NOTHING, SharedBins, psi
from helpers.watch.drift import DriftAlarm, JointAlarm, alarm_points
from helpers.watch.sampling import (
    DOUBLE,
    GO_ON,
    STOP,
    UNFINISHED,
    SamplingPlan,
    most_wrong,
    rows_for,
    wrong_above,
)

SHARES = {"order": 0.4, "quote": 0.25, "complaint": 0.2, "invoice": 0.1, "other": 0.05}
LONG_TAIL = {f"kind {n}": 1 / n / 3.597739657143682 for n in range(1, 21)}
JAPANESE = {"注文": 0.5, "見積もり": 0.3, "苦情": 0.2}


def sure(rng, number):
    """How sure a model is of each of so many messages."""
    return rng.beta(8, 2, number)


def mail(rng, number):
    """Several things of one message that move together, as a drawn week has them."""
    labels = rng.choice(list(SHARES), number, p=list(SHARES.values()))
    chances = np.round(sure(rng, number) - 0.1 * (labels == "other"), 3)
    unknown = np.where(rng.random(number) < 0.8, 0.0, rng.random(number))
    return {"intent": labels, "sure": chances, "unknown": unknown}


# The alarm -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [200, 2000])
@pytest.mark.parametrize(
    ("truth", "rows"),
    [(SHARES, 200), (SHARES, 400), (LONG_TAIL, 200), (JAPANESE, 400), (sure, 400)],
    ids=["labels 200", "labels 400", "twenty labels", "Japanese", "number"],
)
def test_it_rings_in_about_five_of_a_hundred_weeks_without_drift(truth, rows, n):
    rate = trials.false_alarm_rate(truth, rows, n, seed=7, weeks=400, shuffles=300)
    assert 0.03 <= rate.value <= 0.07 and rate.n == 400
    assert rate.low <= 0.05 <= rate.high


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 2000])
def test_it_rings_in_about_five_of_a_hundred_weeks_as_it_is_recorded(n):
    for truth in (SHARES, sure):
        rate = trials.false_alarm_rate(truth, 200, n, seed=11)
        assert 0.03 <= rate.value <= 0.07 and rate.n == 1000


def test_a_threshold_that_takes_the_reference_for_the_truth_would_ring_far_too_often():
    """What the shuffle is for: a reference of 200 rows is itself off."""
    rng, rings = np.random.default_rng(0), []
    for _ in range(200):
        before, now = rng.multinomial(200, [0.2] * 5), rng.multinomial(2000, [0.2] * 5)
        naive = psi(before, rng.multinomial(2000, before / 200, size=300))
        rings.append(psi(before, now) > np.quantile(naive, 0.95))
    assert np.mean(rings) > 0.5
    ours = trials.false_alarm_rate(dict.fromkeys("abcde", 0.2), 200, 2000, weeks=200, shuffles=300)
    assert ours.value < 0.1


def test_several_things_share_one_alarm():
    together = trials.false_alarm_rate(mail, 300, 200, seed=3, weeks=300, shuffles=300)
    assert 0.025 <= together.value <= 0.08
    alarm = JointAlarm.fit(
        {k: list(v) for k, v in mail(np.random.default_rng(1), 300).items()}, 200
    )
    alone = DriftAlarm.fit(alarm.reference["intent"], 200)
    assert alarm.thresholds()["intent"] > alone.threshold, "each has a little less of the 5 %"


def test_what_moved_is_found_and_more_messages_find_more():
    moved = trials.with_share(SHARES, "invoice", 0.2)
    assert moved["invoice"] == 0.2 and sum(moved.values()) == pytest.approx(1)
    few = trials.power(SHARES, moved, 400, 100, weeks=150, shuffles=300)
    many = trials.power(SHARES, moved, 400, 1000, weeks=60, shuffles=300)
    assert 0.25 < few.value < 0.75 and many.value > 0.95
    lower = trials.power(sure, lambda rng, k: sure(rng, k) - 0.05, 400, 400, weeks=60, shuffles=300)
    assert lower.value > 0.9
    with pytest.raises(CourseError, match="cannot be"):
        trials.with_share(SHARES, "invoice", 1.2)


def test_the_fixed_rule_rings_always_or_never_by_the_number_of_messages():
    alarms = trials.fixed_rule_rates(sure, sure, 200, 200, weeks=200)
    assert alarms[0.1].value > 0.2 > alarms[0.25].value, "0.1 rings for nothing with few messages"
    moved = trials.with_share(SHARES, "invoice", 0.2)
    found = trials.fixed_rule_rates(SHARES, moved, 400, 2000, weeks=100)
    ours = trials.power(SHARES, moved, 400, 2000, weeks=60, shuffles=300)
    assert found[0.25].value == 0 and found[0.1].value < 0.6 < 0.95 < ours.value


def test_the_index_of_two_counts():
    assert psi([10, 10], [10, 10]) == 0
    p, q = np.array([30.5, 10.5]) / 41, np.array([10.5, 30.5]) / 41
    assert psi([30, 10], [10, 30]) == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    assert psi([[30, 10], [10, 10]], [[10, 30], [20, 20]]).shape == (2,)


def test_the_alarm_point_counts_equal_values_half():
    simulated = np.array([[0.0]] * 90 + [[1.0]] * 8 + [[2.0]] * 2)
    assert alarm_points(simulated, 0.05) == [2.0], "1 would ring in 2 and half of 8 of a hundred"
    assert alarm_points(simulated, 0.07) == [1.0]
    assert alarm_points(np.zeros((100, 1)), 0.05) == [np.inf], "a thing of one value never rings"


def test_a_number_has_ten_bins_and_a_frequent_one_its_own():
    numbers = list(np.arange(1000.0))
    assert len(set(bins.ranges_of(numbers))) == 10
    named = bins.ranges_of([0.0] * 95 + numbers[1:100:20] + [None, float("nan"), "x"])
    assert named[0] == "0" and set(named[:95]) == {"0"} and named[-3:] == [NOTHING] * 3
    assert set(bins.ranges_of([0.333] * 50 + [0.5])) == {"0.333", "0.5"}


REFERENCE = ["注文"] * 60 + ["見積もり"] * 100 + ["苦情"] * 40


def test_a_finding_is_one_plain_sentence():
    alarm = DriftAlarm.fit(REFERENCE, 100, name="intent")
    quiet = alarm.check(["注文"] * 30 + ["見積もり"] * 50 + ["苦情"] * 20)
    assert not quiet.rings and quiet.value == pytest.approx(0, abs=1e-3)
    assert str(quiet) == "Quiet: intent has a PSI of 0.000, below 0.102."
    loud = alarm.check(["注文"] * 70 + ["見積もり"] * 25 + ["苦情"] * 5)
    assert loud.rings and "most of all '注文', 30.0% before and 70.0% this week" in str(loud)
    assert next(iter(loud.by_value.values())) == (0.3, 0.7) and len(loud.by_value) == 3
    assert loud.value > loud.threshold > alarm.threshold / 3 > 0


def test_a_new_value_rings_and_is_named():
    alarm = DriftAlarm.fit(REFERENCE, 100, name="intent")
    found = alarm.check(
        ["注文"] * 30 + ["見積もり"] * 40 + ["苦情"] * 20 + ["<b>新しい</b>"] * 6 + [None] * 4
    )
    assert found.rings and found.unseen == {"<b>新しい</b>": 6, NOTHING: 4}
    assert "not in the reference: '(nothing)' (4), '<b>新しい</b>' (6)" in str(found)
    one = alarm.check([*REFERENCE, "新しい"])
    assert not one.rings and "not in the reference: '新しい' (1)" in str(one)
    assert alarm.check([None] * 40).rings and alarm.check([7, 8] * 20).rings
    hostile = str(alarm.check(["\u202e" + "x" * 90] * 50))
    assert "\u202e" not in hostile and "..." in hostile


@pytest.mark.parametrize("n", [0, 1, 29])
def test_few_messages_decide_nothing(n):
    finding = DriftAlarm.fit(REFERENCE, 100, name="intent").check(["新しい"] * n)
    assert not finding.rings and finding.value is finding.threshold is None
    assert str(finding) == f"intent: {n} messages are too few (30 at least); no alarm."
    numbers = JointAlarm.fit({"sure": [0.1 * k for k in range(50)]}, 100)
    assert not numbers.check({"sure": [9.0] * n}).rings


def test_numbers_that_are_missing_or_all_alike_are_handled():
    same = DriftAlarm.fit([0.5] * 100, 100)
    assert not same.check([0.5] * 100).rings and same.check([0.6] * 100).rings
    assert same.check([None] * 50 + [float("inf")] * 50).rings
    zeros = DriftAlarm.fit([0.0] * 190 + [0.1 * k for k in range(1, 21)], 200)
    assert zeros.check([0.0] * 150 + [0.1 * k for k in range(1, 21)] * 3).rings


def test_the_same_week_gives_the_same_finding():
    week = list(np.random.default_rng(5).choice(REFERENCE, 120))
    alarm = DriftAlarm.fit(REFERENCE, 100, seed=4)
    assert (
        alarm.check(week)
        == alarm.check(week[::-1])
        == DriftAlarm.fit(REFERENCE, 9, seed=4).check(week)
    )


def test_what_cannot_be_watched_is_refused_in_words():
    with pytest.raises(CourseError, match="The reference has 12 rows; an alarm needs 30"):
        DriftAlarm.fit(["a"] * 12, 100)
    with pytest.raises(CourseError, match="has 60 values in 60 rows; watch a label"):
        DriftAlarm.fit([f"text {n}" for n in range(60)], 100)
    with pytest.raises(CourseError, match="one value for each reference row"):
        JointAlarm.fit({"a": ["x"] * 40, "b": ["x"] * 41}, 100)
    alarm = JointAlarm.fit({"a": ["x"] * 40, "b": [1] * 40}, 100)
    with pytest.raises(CourseError, match="each of: a, b"):
        alarm.check({"a": ["x"] * 40})
    with pytest.raises(CourseError, match="1 together"):
        trials.false_alarm_rate({"a": 0.5}, 100, 100)
    part = SharedBins.of(["a"], [], False)
    assert part.shares() == {"a": (1.0, 0.0)} and part.unseen() == {}


# The sample ------------------------------------------------------------------------------------


def test_the_rows_without_an_error_that_show_a_bound():
    assert [rows_for(rate) for rate in (0.1, 0.05, 0.02, 0.01)] == [29, 59, 149, 299]
    assert [rows_for(0.02, errors=k) for k in (1, 2)] == [236, 313]
    # few messages: without replacement, and never more than there are
    sizes = [rows_for(0.02, messages=n) for n in (1, 20, 100, 500, 5000, 500_000)]
    assert sizes == sorted(sizes) and sizes[0] == 1 and sizes[2] == 63 and sizes[-1] == 149
    for messages in (20, 100, 500):
        n, wrong = rows_for(0.02, messages=messages), wrong_above(0.02, messages)
        assert (
            hypergeom.cdf(0, messages, wrong, n) <= 0.05 < hypergeom.cdf(0, messages, wrong, n - 1)
        )
    for rate, confidence in ((0, 0.95), (1, 0.95), (0.02, 1.0), (0.02, 0.2)):
        with pytest.raises(CourseError, match="cannot be planned"):
            SamplingPlan.for_bound(rate, confidence)
    with pytest.raises(CourseError, match="themselves be above the bound"):
        SamplingPlan.for_bound(0.02, messages=30, allowed=1)
    with pytest.raises(CourseError, match="nothing to sample"):
        SamplingPlan.for_bound(0.02, messages=0)


@pytest.mark.parametrize("messages", [None, 20, 150, 1000])
@pytest.mark.parametrize("highest", [0.1, 0.02])
@pytest.mark.parametrize("allowed", [0, 2])
def test_the_promise_holds_with_the_second_draw(messages, highest, allowed):
    if messages and wrong_above(highest, messages) <= allowed:
        with pytest.raises(CourseError, match="themselves be above the bound"):
            SamplingPlan.for_bound(highest, messages=messages, allowed=allowed)
        return
    plan = SamplingPlan.for_bound(highest, messages=messages, allowed=allowed)
    above = highest if messages is None else wrong_above(highest, messages) / messages
    assert plan.chance_to_pass(above) <= 0.05 + 1e-9
    passed = trials.promised_bound_holds(plan, seed=2)
    assert passed.n == 2000 and passed.low <= 0.05 and passed.value < 0.06
    assert plan.chance_to_pass(0) == pytest.approx(1) and plan.second >= 0


def test_a_person_who_stops_at_a_quiet_moment_has_no_bound():
    plan = SamplingPlan.for_bound(0.02)
    assert trials.accepted_by_peeking(plan, most=1000).low > 0.15
    assert trials.accepted_by_peeking(plan, most=plan.n).value < 0.07, "one look is no peeking"
    with pytest.raises(CourseError, match="Within 100 rows nothing is shown"):
        trials.accepted_by_peeking(plan, most=100)


def test_zero_one_and_more_errors_lead_to_three_things():
    plan = SamplingPlan.for_bound(0.02)
    assert (plan.n, plan.second) == (149, 265)
    assert binom.cdf(0, 149, 0.02) + binom.pmf(1, 149, 0.02) * 0.98**265 <= 0.05
    clean, one, two = (plan.verdict(errors, 149) for errors in range(3))
    assert (clean.next, clean.holds) == (GO_ON, True) and clean.highest <= 0.02
    assert (one.next, one.holds) == (DOUBLE, None) and "check 265 further answers" in str(one)
    assert (two.next, two.holds) == (STOP, False) and "is not shown" in str(two)
    assert "is broken" in str(plan.verdict(40, 149))
    again = plan.verdict(1, 149 + 265)
    assert (again.next, again.holds) == (GO_ON, True) and again.highest == 0.02
    late = plan.verdict(2, 149 + 265)
    assert late.next == STOP and late.highest > 0.02, "a second look is not free"
    half = plan.verdict(0, 41)
    assert (half.next, half.holds) == (UNFINISHED, None) and "108 drawn answers" in str(half)
    assert plan.verdict(0, 0).highest == 1 and "nothing is known" in str(plan.verdict(0, 0))
    assert plan.verdict(2, 5).next == STOP, "two errors are two errors, however few rows"
    assert str(clean).startswith("0 of 149 checked answers were wrong, at most 2.0% of those")
    with pytest.raises(CourseError, match="cannot be"):
        plan.verdict(5, 3)


def test_the_bound_of_few_messages_is_exact():
    assert most_wrong(0, 63, 100) == 2 and most_wrong(0, 62, 100) == 3
    assert most_wrong(0, 100, 100) == 0 and most_wrong(3, 3, 10) == 10
    for wrong in range(11):  # never said to be fewer than there are, in 95 of 100 weeks
        counts = np.arange(wrong + 1)
        chance = hypergeom.pmf(counts, 60, wrong, 25)
        below = [most_wrong(int(count), 25, 60) < wrong for count in counts]
        assert (chance * below).sum() <= 0.05
    few = SamplingPlan.for_bound(0.02, messages=20)
    assert few.second == 0 and few.verdict(1, few.n).next == STOP
    with pytest.raises(CourseError, match="cannot be"):
        most_wrong(4, 3, 100)


ROWS = [
    {"route": "nobody", "place": n, "label": "注文" if n < 800 else "quote" if n < 985 else "rare"}
    for n in range(1000)
] + [{"route": "person", "place": n} for n in range(1000, 1200)]


def label_of(row):
    return row["label"]


def test_the_draw_is_random_repeatable_and_of_what_nobody_checks():
    plan = SamplingPlan.for_bound(0.02, messages=1000)
    one, same, other = (plan.draw(ROWS, seed, label_of) for seed in (1, 1, 2))
    assert one == same and one != other
    assert len(one.rows) == plan.n + one.topped_up and len({r["place"] for r in one.rows}) == len(
        one.rows
    )
    assert all(row["route"] == "nobody" for row in one.rows)
    assert {row["label"] for row in one.rows} == {"注文", "quote", "rare"}
    assert sum(one.weights) == pytest.approx(1000)
    more = plan.draw(ROWS, 1, label_of, least=5)
    assert sum(row["label"] == "rare" for row in more.rows) >= 5 and more.topped_up >= 1
    further = plan.draw(ROWS, 1, label_of, second=True)
    assert len(further.rows) == plan.second
    assert not {r["place"] for r in further.rows} & {r["place"] for r in one.rows}
    assert plan.draw(ROWS[:40], 1).rows and not plan.draw([], 1).rows
    with pytest.raises(CourseError, match="Say of each"):
        one.estimate([True])


def test_the_weighted_share_is_unbiased_and_the_bound_holds_over_strata():
    """21 of 1,000 are wrong, one more than the bound allows, all among the frequent."""
    plan, wrong = SamplingPlan.for_bound(0.02, messages=1000), set(range(0, 798, 38))
    assert len(wrong) == wrong_above(0.02, 1000)
    shares, passed = [], 0
    for seed in range(600):
        drawn = plan.draw(ROWS, seed, label_of, least=3)
        found = [row["place"] in wrong for row in drawn.rows]
        shares.append(drawn.estimate(found))
        verdict = plan.verdict(sum(found), len(found), drawn.topped_up)
        if verdict.next == DOUBLE:
            more = plan.draw(ROWS, seed, label_of, least=3, second=True).rows
            errors = sum(found) + sum(row["place"] in wrong for row in more)
            verdict = plan.verdict(errors, len(found) + len(more), drawn.topped_up)
            assert verdict.holds is not None
        passed += verdict.holds
    assert np.mean(shares) == pytest.approx(0.021, abs=3 * np.std(shares) / 600**0.5)
    assert passed / 600 < 0.07
