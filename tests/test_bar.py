"""The bar: statistics against scipy, statsmodels and simulation; what is frozen stays frozen; each mistake is one sentence."""

import json
import os
import shutil

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from helpers import ROOT, CourseError, course
from helpers.agree import paired, planning
from helpers.agree.bar import Bar
from helpers.agree.wish import Wish
from helpers.core import files, rows
from helpers.core.pilot import Pilot
from helpers.measure import error_costs, intervals, scoring
from helpers.pay import error_prices

# Statistics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n, low, high", [(50, 78.6, 95.7), (100, 82.6, 94.5), (200, 85.1, 93.4), (500, 87.1, 92.3)]
)
def test_wilson_at_ninety_per_cent(n, low, high):
    k = round(0.9 * n)
    found, exact = (
        intervals.share([True] * k + [False] * (n - k)),
        binomtest(k, n).proportion_ci(method="wilson"),
    )
    assert (round(100 * found.low, 1), round(100 * found.high, 1)) == (low, high)
    assert found.low == pytest.approx(exact.low, abs=1e-9) and found.high == pytest.approx(
        exact.high, abs=1e-9
    )


@pytest.mark.parametrize(
    "n, gain, discordant, alpha",
    [(12, 0.3, 0.5, 0.05), (40, 0.1, 0.2, 0.05), (40, 0.2, 0.2, 0.01), (25, 0.0, 0.4, 0.05)],
)
def test_power_is_the_sum_over_every_outcome(n, gain, discordant, alpha):
    """Every table (only a, only b) weighed by its probability and put through the exact McNemar test of statsmodels."""
    a, b = (discordant + gain) / 2, (discordant - gain) / 2
    total = 0.0
    for i in range(n + 1):
        for j in range(n + 1 - i):
            if i + j and mcnemar([[0, i], [j, 0]], exact=True).pvalue <= alpha:
                weight = binom.pmf(i + j, n, discordant) * binom.pmf(i, i + j, a / (a + b))
                total += weight
    assert planning.paired_power(n, gain, discordant, alpha) == pytest.approx(total, abs=1e-9)


def test_power_against_simulation():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(150, [0.15, 0.05, 0.8], size=4000)
    hits = [binomtest(int(a), int(a + b)).pvalue <= 0.05 if a + b else False for a, b, _ in counts]
    low, high = proportion_confint(sum(hits), 4000, alpha=0.001, method="wilson")
    assert low < planning.paired_power(150, 0.10, 0.20) < high


@pytest.mark.parametrize("gain, discordant", [(0.10, 0.20), (0.05, 0.10)])
def test_rows_needed_and_smallest_difference_agree(gain, discordant):
    n = planning.rows_needed(gain, discordant)
    assert (
        planning.paired_power(n, gain, discordant)
        >= 0.8
        > planning.paired_power(n - 1, gain, discordant)
    )
    assert (
        planning.smallest_difference(n, discordant)
        <= gain
        < planning.smallest_difference(n - 1, discordant)
    )
    found = planning.smallest_difference(n, discordant)
    assert planning.paired_power(n, found, discordant) == pytest.approx(0.8, abs=1e-6)


def test_few_rows_find_nothing():
    assert (
        planning.smallest_difference(12, 0.4) is None
        and planning.smallest_difference(5, 0.4) is None
    )
    with pytest.raises(CourseError, match="at least as large a share"):
        planning.paired_power(100, 0.3, 0.2)


@pytest.mark.parametrize("rate, n", [(0.10, 29), (0.05, 59), (0.02, 149), (0.01, 299)])
def test_zero_errors_bound_the_rate(rate, n):
    assert planning.rows_for_zero_errors(rate) == n and (1 - rate) ** n <= 0.05 < (1 - rate) ** (
        n - 1
    )
    assert (
        intervals.highest_rate(0, n) == pytest.approx(1 - 0.05 ** (1 / n), abs=1e-9)
        and intervals.highest_rate(0, n) <= rate
    )
    exact = binomtest(3, n, alternative="less").proportion_ci(method="exact").high
    assert intervals.highest_rate(3, n) == pytest.approx(exact, abs=1e-9)
    with pytest.raises(CourseError, match="between 0 and 1"):
        planning.rows_for_zero_errors(0)
    with pytest.raises(CourseError, match="cannot be"):
        intervals.highest_rate(6, 5)


@pytest.mark.parametrize(
    "a, b, n", [(0, 0, 12), (75, 10, 200), (1, 0, 44), (3, 9, 60), (12, 0, 12)]
)
def test_paired_interval_inverts_the_score_test(a, b, n):
    """At each end the score statistic, with the constrained likelihood maximised numerically, is the normal quantile."""
    low, high = paired.paired_interval(a, b, n)
    z2 = 1.959963984540054**2
    for delta in (low, high):
        if abs(delta) > 1 - 1e-6:
            continue

        def loss(
            q, delta=delta
        ):  # minus the log-likelihood; q is the share of rows where only b is right
            shares, counts = (q + delta, q, 1 - 2 * q - delta), (a, b, n - a - b)
            return -sum(c * np.log(max(s, 1e-300)) for c, s in zip(counts, shares) if c)

        edge = max(0.0, -delta), (1 - delta) / 2
        q = minimize_scalar(loss, bounds=edge, method="bounded", options={"xatol": 1e-12}).x
        variance = n * (2 * q + delta * (1 - delta))
        assert (a - b - n * delta) ** 2 / variance == pytest.approx(z2, rel=1e-3)
    mirrored = paired.paired_interval(b, a, n)
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_paired_interval_at_zero_is_mcnemar_and_covers():
    z = 15 / np.sqrt(35)  # 25 against 10: the uncorrected McNemar statistic
    alpha = mcnemar([[0, 25], [10, 0]], exact=False, correction=False).pvalue
    assert z**2 == pytest.approx(
        mcnemar([[0, 25], [10, 0]], exact=False, correction=False).statistic
    )
    assert paired.paired_interval(25, 10, 90, alpha)[0] == pytest.approx(0, abs=1e-9)
    rng = np.random.default_rng(0)
    for n in (30, 100):
        tables, times = np.unique(
            rng.multinomial(n, [0.2, 0.1, 0.7], size=4000), axis=0, return_counts=True
        )
        inside = sum(
            t
            for (a, b, _), t in zip(tables, times)
            if (e := paired.paired_interval(a, b, n))[0] <= 0.1 <= e[1]
        )
        assert 0.935 < inside / 4000 < 0.97
    with pytest.raises(CourseError, match="do not fit"):
        paired.paired_interval(7, 6, 12)


# Errors and what they cost --------------------------------------------------------------------------------

TRUTH = {
    "id": "1",
    "message": "pump, PO-1000",
    "intent": "order",
    "product": "pump",
    "order_id": None,
}


@pytest.mark.parametrize(
    "change, kinds",
    [
        ({}, []),
        ({"intent": "quote"}, ["intent.wrong"]),
        ({"product": None}, ["product.empty"]),
        ({"order_id": "PO-1000"}, ["order_id.extra"]),
        ({"product": "belt", "intent": None}, ["intent.wrong", "product.wrong"]),
        ({"product": ["pump"]}, ["product.wrong"]),
    ],
)
def test_kinds_of_error(folder, change, kinds):
    pilot = Pilot.load(folder)
    record = {name: TRUTH[name] for name in pilot.fields} | change
    assert error_costs.error_kinds(pilot, TRUTH, record) == kinds
    assert bool(kinds) != bool(scoring.score(pilot, [TRUTH], [record]).exact[0]), (
        "no error is the same as an exact record"
    )
    assert set(kinds) <= set(error_prices.known_kinds(pilot))


def test_invalid_and_missed_are_kinds_of_their_own(folder):
    pilot = Pilot.load(folder)
    assert (
        error_costs.error_kinds(pilot, TRUTH, None)
        == error_costs.error_kinds(pilot, TRUTH, {"intent": "order"})
        == ["invalid"]
    )
    wrong = {"intent": "quote", "product": "pump", "order_id": None}
    assert error_costs.error_kinds(pilot, TRUTH, wrong, ["intent.missed.order"]) == [
        "intent.missed.order"
    ]
    assert error_costs.error_kinds(pilot, TRUTH, wrong, ["intent.missed.quote"]) == ["intent.wrong"]


def test_cost_by_hand(folder):
    pilot = Pilot.load(folder)
    costs = error_costs.default_costs(pilot) | {"hourly": 60}
    costs["errors"] |= {"invalid": {"minutes": 2}, "product.empty": {"minutes": 2}}
    costs["errors"] |= {"intent.wrong": {"minutes": 3, "money": 1}}
    records = [
        {"intent": "quote", "product": None, "order_id": None},
        None,
        {"intent": "order", "product": "pump", "order_id": None},
    ]
    found = error_costs.error_cost(pilot, [TRUTH] * 3, records, costs)
    assert (
        found.value == pytest.approx(1000 * (3 + 1 + 2 + 2) / 3)
        and found.low < found.value < found.high
    )
    assert found.by_kind["intent.wrong"] == (1, pytest.approx(4000 / 3))
    free = error_costs.error_cost(pilot, [TRUTH], records[2:], costs)
    assert (free.value, free.low, free.high, free.by_kind) == (0, 0, 0, {})
    missed = error_costs.check_costs(pilot, costs)
    assert missed.of("intent.missed.order") == 4


@pytest.mark.parametrize(
    "change, words",
    [
        ({"errors": {"intent.wrong": {"minutes": 1}}}, "no price for invalid"),
        ({"hourly": 0}, "hourly: Input should be greater than 0"),
        ({"errors": {"colour.wrong": {"minutes": 1}}}, "names no field"),
        ({"wage": 3}, "unknown key 'wage'"),
    ],
)
def test_a_bad_cost_table_is_one_sentence(folder, change, words):
    pilot = Pilot.load(folder)
    with pytest.raises(CourseError, match=words):
        error_costs.check_costs(pilot, error_costs.default_costs(pilot) | change)


# The bar --------------------------------------------------------------------------------------------------


@pytest.fixture
def pilot(folder):
    return Pilot.load(folder)


@pytest.fixture(autouse=True)
def not_smoke(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")


def wish(pilot, **change):
    return {
        "baseline": "rules",
        "margin": 0.05,
        "critical": {"order_id.wrong": 0.02},
        "secondary": {"intent": 0.05},
        "rows": 12,
        "costs": error_costs.default_costs(pilot),
        "max_cost_per_1000": 2000,
        **change,
    }


def place(pilot, tmp_path):
    return tmp_path / "runs" / pilot.name / "bar.yaml"


def test_the_same_wish_is_the_same_bar(pilot, tmp_path):
    bar = Bar.freeze(pilot, **wish(pilot))
    before = place(pilot, tmp_path).read_bytes()
    assert (
        Bar.freeze(pilot, **wish(pilot)) == bar == Bar.load(pilot)
        and place(pilot, tmp_path).read_bytes() == before
    )
    assert not bar.seen_before and bar.version == 1 and "version 1" in str(bar)
    place(pilot, tmp_path).unlink()
    assert (
        Bar.freeze(pilot, **wish(pilot)) == bar and place(pilot, tmp_path).read_bytes() == before
    ), "the ledger restores it"


def test_another_wish_needs_a_reason_and_shows_it(pilot):
    bar = Bar.freeze(pilot, **wish(pilot))
    with pytest.raises(CourseError, match=r"margin \(0.05 then, 0.02 now\)"):
        Bar.freeze(pilot, **wish(pilot, margin=0.02))
    assert Bar.load(pilot) == bar
    new = Bar.freeze(pilot, reason="the contract changed", **wish(pilot, margin=0.02))
    assert (
        new.version == 2
        and new.margin == 0.02
        and new == Bar.load(pilot) == Bar.freeze(pilot, **wish(pilot, margin=0.02))
    )
    assert "because the contract changed" in str(new)
    third = Bar.freeze(pilot, reason="fewer rows", **wish(pilot, margin=0.02, rows=10))
    assert third.version == 3 and len(third.revised) == 2 and Bar.load(pilot).rows == 10
    assert third.frozen == bar.frozen
    with pytest.raises(CourseError, match="reason"):
        Bar.freeze(pilot, reason=" ", **wish(pilot, rows=9))


def test_a_bar_after_the_result_says_so(pilot, tmp_path):
    journal = files.Journal(tmp_path / "runs" / pilot.name / "00/answers/tuned-0.jsonl")
    journal.add({"test-0": "{}"}, 1.0)
    bar = Bar.freeze(pilot, **wish(pilot))
    assert bar.seen_before and "after a tuned result" in str(bar)


@pytest.mark.parametrize(
    "edit, words",
    [
        (
            lambda t: t.replace("margin: 0.05", "margin: 0.01"),
            r"edited after it was frozen on \S+: margin differs",
        ),
        (lambda t: t.replace("margin: 0.05", "margin: 5"), "margin differs"),
        (
            lambda t: t.replace("looks: 1", "looks: 9").replace("rows: 12", "rows: 5"),
            "rows, looks differ",
        ),
        (lambda t: t.replace("margin: 0.05\n", ""), "lacks the key 'margin'"),
        (lambda t: t + "b: [", "not valid YAML"),
        (lambda t: "", "is empty"),
    ],
)
def test_an_edited_bar_is_refused_by_name(pilot, tmp_path, edit, words):
    Bar.freeze(pilot, **wish(pilot))
    path = place(pilot, tmp_path)
    path.write_text(edit(path.read_text()))
    for use in (lambda: Bar.load(pilot), lambda: Bar.freeze(pilot, **wish(pilot))):
        with pytest.raises(CourseError, match=words) as found:
            use()
        assert "\n" not in str(found.value)


def test_old_versions_forged_hashes_and_lost_ledgers_are_noticed(pilot, tmp_path):
    Bar.freeze(pilot, **wish(pilot))
    path = place(pilot, tmp_path)
    first = path.read_text()
    Bar.freeze(pilot, reason="why", **wish(pilot, margin=0.02))
    path.write_text(first)
    with pytest.raises(CourseError, match="older version"):
        Bar.load(pilot)
    (path.parent / "bar_ledger.jsonl").unlink()
    assert Bar.load(pilot).version == 1, "intact and alone: a copy"
    path.write_text(first.replace("looks: 1", "looks: 2"))
    with pytest.raises(CourseError, match="its own hash"):
        Bar.load(pilot)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"margin": 5}, "margin: 5 is too large; write 0.05 for 5 points"),
        ({"margin": "5 %"}, "is no number; write 0.05"),
        ({"margin": -0.1}, "between 0 and 1"),
        ({"critical": {"order.wrong": 0.1}}, "'order.wrong' names no field"),
        ({"critical": {"order_id.wrnog": 0.1}}, "did you mean order_id.wrong"),
        ({"critical": {"order_id.wrong": 2}}, "write 0.02 for 2 points"),
        ({"critical": {"order_id.wrong": 0}}, "no number of rows"),
        ({"secondary": {"colour": 0.1}}, "colour"),
        (
            {"baseline": "nonsense"},
            r"there are majority, rules, TF-IDF, embeddings, .* TF-IDF, best cheap, do nothing",
        ),
        ({"rows": 500}, "rows is 500, but there are 12 rows to judge on"),
        ({"max_cost_per_1000": -1}, "max_cost_per_1000"),
        ({"rows": 0}, "rows: Input should be greater than or equal to 1"),
        ({"marign": 0.1}, "unknown key 'marign'; did you mean 'margin'"),
    ],
)
def test_a_bad_wish_is_one_sentence(pilot, tmp_path, change, words):
    with pytest.raises(CourseError, match=words) as found:
        Bar.freeze(pilot, **wish(pilot, **change))
    assert "\n" not in str(found.value) and not place(pilot, tmp_path).exists()


def test_a_missing_key_of_a_wish(pilot):
    part = wish(pilot)
    del part["baseline"]
    with pytest.raises(CourseError, match="'baseline' is missing"):
        Bar.freeze(pilot, **part)
    with pytest.raises(CourseError, match="run chapter 02"):
        Bar.load(pilot)


def test_other_test_rows_are_noticed(pilot, folder):
    Bar.freeze(pilot, **wish(pilot))
    path = folder / "test.csv"
    path.write_bytes(
        b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n")
    )  # as a spreadsheet saves it: the same rows
    assert Bar.load(pilot).rows == 12
    path.write_bytes(path.read_bytes().replace(b"belt 100", b"belt 999"))
    with pytest.raises(CourseError, match="rows that 'small' is judged on are not"):
        Bar.load(pilot)
    with pytest.raises(CourseError, match="other values for the judged rows"):
        Bar.freeze(pilot, **wish(pilot))
    assert Bar.freeze(pilot, reason="a row was labelled wrong", **wish(pilot)) == Bar.load(pilot)


def copy_bar(source, folder):
    for name in ("bar.yaml", "bar_ledger.jsonl"):
        shutil.copy(source / name, folder)


def same(one, other):
    return one.model_dump() == other.model_dump()


def test_smoke_has_a_bar_of_its_own_and_the_pilots_folder_comes_first(
    pilot, folder, tmp_path, monkeypatch
):
    bar = Bar.freeze(pilot, **wish(pilot))
    copy_bar(tmp_path / "runs/small", folder)
    place(pilot, tmp_path).write_text("broken: [")
    assert same(Bar.load(pilot), bar)
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    assert same(Bar.load(pilot), bar), "without a smoke bar the real one is read"
    tiny = Bar.freeze(pilot, **wish(pilot, rows=8))
    assert tiny.rows == 8 and same(Bar.load(pilot), tiny)
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    assert same(Bar.load(pilot), bar)


def test_a_bar_of_another_pilot_is_refused(pilot, folder, tmp_path):
    Bar.freeze(pilot, **wish(pilot))
    copy_bar(tmp_path / "runs/small", folder)
    (folder / "pilot.yaml").write_text(
        (folder / "pilot.yaml").read_text().replace("name: small", "name: other")
    )
    with pytest.raises(CourseError, match="belongs to the pilot 'small'"):
        Bar.load(Pilot.load(folder))


# The verdict ----------------------------------------------------------------------------------------------


def answers(n, wrong_intent=0, wrong_order=0):
    """(rows, records): n messages, of which the first have a wrong intent, the last a wrong order number."""
    data = [
        {
            "id": str(i),
            "message": "pump PO-1000 PO-2000",
            "intent": "order",
            "product": "pump",
            "order_id": "PO-1000",
        }
        for i in range(n)
    ]
    records = [
        {
            "intent": "quote" if i < wrong_intent else "order",
            "product": "pump",
            "order_id": "PO-2000" if i >= n - wrong_order else "PO-1000",
        }
        for i in range(n)
    ]
    return data, records


def agreed(pilot, n, **change):
    """A bar whose agreed rows are n; the twelve of the pilot's folder stand in for them."""
    return Bar.freeze(pilot, **wish(pilot, **change)).model_copy(update={"rows": n})


@pytest.mark.parametrize(
    "n, tuned, baseline, status, part",
    [
        (200, {}, {"wrong_intent": 60}, "pass", None),
        (
            100,
            {},
            {"wrong_intent": 60},
            "not enough rows",
            "order_id.wrong",
        ),  # 100 clean rows do not show 2 %
        (
            160,
            {},
            {"wrong_intent": 60},
            "not enough rows",
            None,
        ),  # all is shown, on fewer rows than agreed
        (
            200,
            {"wrong_intent": 20},
            {"wrong_intent": 34},
            "fail",
            "exact record",
        ),  # 7 points, not shown to be 5
        (
            200,
            {},
            {"wrong_intent": 14},
            "not enough rows",
            "exact record",
        ),  # 7 points and no error: 200 rows could not show more
        (100, {}, {"wrong_intent": 7}, "not enough rows", "exact record"),
        (
            100,
            {"wrong_intent": 30},
            {},
            "fail",
            "exact record",
        ),  # far below: more rows will not help
        (200, {"wrong_order": 20}, {"wrong_intent": 90}, "fail", "order_id.wrong"),
        (
            200,
            {"wrong_order": 1},
            {"wrong_intent": 90},
            "fail",
            "order_id.wrong",
        ),  # one in 200 does not show 2 %
        (12, {}, {}, "not enough rows", "intent"),  # no difference at all on 12 rows shows nothing
    ],
)
def test_verdicts(pilot, n, tuned, baseline, status, part):
    bar = agreed(pilot, 200)
    data, good = answers(n, **tuned)
    found = bar.verdict(
        scoring.score(pilot, data, good),
        scoring.score(pilot, data, answers(n, **baseline)[1]),
        data,
    )
    assert found.status == status and (part is None or found.conditions[part] != "shown")
    line = str(found)
    assert line.startswith(status.upper()) and f"{n} rows, 200 agreed" in line and "\n" not in line
    assert part is None or part in line


def test_more_looks_than_agreed_widen_the_interval_and_are_named(pilot):
    bar = agreed(pilot, 200)
    data, good = answers(200, wrong_intent=20)
    scored, other = (
        scoring.score(pilot, data, good),
        scoring.score(pilot, data, answers(200, wrong_intent=38)[1]),
    )
    once, often = bar.verdict(scored, other, data), bar.verdict(scored, other, data, looks=10)
    assert often.exact.low < once.exact.low and (once.status, often.status) == ("pass", "fail")
    assert "looked 10 times, 1 agreed" in str(often) and "looked" not in str(once)


def judge(bar, pilot, n, tuned, baseline):
    data, good = answers(n, **tuned)
    return bar.verdict(
        scoring.score(pilot, data, good),
        scoring.score(pilot, data, answers(n, **baseline)[1]),
        data,
    )


def test_what_even_a_perfect_result_cannot_show_is_no_failure(pilot):
    bar = Bar.freeze(pilot, **wish(pilot))
    found = judge(bar, pilot, 12, {}, {"wrong_intent": 12})
    assert found.status == "not enough rows" and found.conditions["intent"] == "shown"
    assert found.needs_rows == {
        "order_id.wrong": 149
    } and "these rows cannot show: order_id.wrong (needs 149 rows)" in str(found)
    bar = Bar.freeze(pilot, reason="another field", **wish(pilot, secondary={"product": 0.05}))
    found = judge(
        bar, pilot, 12, {}, {"wrong_intent": 12}
    )  # product: right in every row on both sides
    assert found.status == "not enough rows" and found.needs_rows == {
        "product": 73,
        "order_id.wrong": 149,
    }
    assert judge(bar, pilot, 12, {"wrong_intent": 12}, {}).status == "fail", (
        "a miss that is shown stays a miss"
    )


@pytest.mark.parametrize("wrong, margin", [(0.0, -0.05), (1.0, 0.1), (0.3, 0.1), (0.5, 0.05)])
def test_rows_for_a_perfect_result_are_the_fewest(wrong, margin):
    n = planning.rows_for_perfect(wrong, margin)
    assert (
        paired.tango_statistic(wrong * n, 0, n, margin)
        >= 1.959963
        > paired.tango_statistic(wrong * (n - 1), 0, n - 1, margin)
    )
    if wrong in (0, 1):
        assert (
            paired.paired_interval(wrong * n, 0, n)[0]
            >= margin
            > paired.paired_interval(wrong * (n - 1), 0, n - 1)[0]
        )
    assert planning.rows_for_perfect(0.05, 0.1) is None, "a baseline that leaves no room"


@pytest.mark.parametrize(
    "n, gain, discordant, margin",
    [(200, 0.15, 0.4, 0.1), (120, 0.0, 0.2, -0.05), (60, -0.05, 0.1, -0.05)],
)
def test_the_chance_of_passing_against_simulation(n, gain, discordant, margin):
    rng = np.random.default_rng(0)
    tables = rng.multinomial(
        n, [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant], size=3000
    )
    hits = sum(paired.paired_interval(int(a), int(b), n)[0] >= margin for a, b, _ in tables)
    low, high = proportion_confint(hits, 3000, alpha=0.001, method="wilson")
    assert low <= planning.chance_to_clear(n, gain, discordant, margin) <= high


def test_the_chance_that_an_error_is_shown_to_be_rare():
    assert planning.chance_to_be_rare(200, 0.005, 0.02) == pytest.approx(0.995**200, abs=1e-9)
    assert planning.chance_to_be_rare(100, 0.001, 0.02) == 0 and planning.chance_to_clear(
        20, 1.0, 1.0, 0.5
    ) == pytest.approx(1)
    n = planning.rows_for_chance(lambda n: planning.chance_to_clear(n, 0, 0.1, -0.05))
    assert planning.chance_to_clear(n, 0, 0.1, -0.05) >= 0.8 and 300 < n < 400
    assert planning.rows_for_chance(lambda n: 0) is None
    with pytest.raises(CourseError, match="rows that differ"):
        planning.chance_to_clear(100, 0.3, 0.2, 0.1)


def test_errors_that_cost_more_than_today_do_not_pass(pilot):
    costs = error_costs.default_costs(
        pilot
    )  # a person: 2 EUR a message; a wrong intent: 4 minutes, 2.67 EUR
    bar = agreed(pilot, 200, critical={}, secondary={})
    assert bar.max_cost_per_1000 == pytest.approx(2000)
    cheap, dear = (
        judge(bar, pilot, 200, {"wrong_intent": 60}, {"wrong_intent": 130}),
        judge(bar, pilot, 200, {"wrong_intent": 170}, {"wrong_intent": 200}),
    )
    assert (
        cheap.status == "pass"
        and cheap.conditions["cost of use"] == "shown"
        and cheap.cost.high < 2000
    )
    assert (
        dear.status == "fail"
        and dear.cost.low > 2000 * 0.9
        and "cost of use" in str(dear)
        and "at most 2,000" in str(dear)
    )
    costs |= {"running_per_1000": 500, "checking_minutes": 1.5}
    data, good = answers(20)
    found = error_costs.error_cost(pilot, data, good, costs)
    assert found.value == found.low == found.high == pytest.approx(500 + 1000)
    free = Bar.freeze(
        pilot, reason="no limit", **wish(pilot, critical={}, secondary={}, max_cost_per_1000=None)
    )
    assert "cost of use" not in judge(free, pilot, 12, {}, {}).conditions


def test_a_checked_record_counts_as_seen_and_costs_the_check(pilot):
    bar = agreed(pilot, 200, secondary={})
    data, records = answers(200, wrong_order=8)
    scored = scoring.score(pilot, data, records)
    baseline = scoring.score(pilot, data, answers(200, wrong_intent=60)[1])
    checked = np.array([record["order_id"] == "PO-2000" for record in records])
    alone, with_person = (
        bar.verdict(scored, baseline, data, reviewed=mask) for mask in (None, checked)
    )
    assert alone.conditions["order_id.wrong"] == "missed" and alone.status == "fail"
    assert with_person.conditions["order_id.wrong"] == "shown"
    assert alone.cost.parts["checks"] == 0
    assert with_person.cost.parts["checks"] == pytest.approx(1000 * 8 * bar.costs.review / 200)
    caught = 1 - bar.costs.caught
    assert with_person.cost.parts["errors"] == pytest.approx(caught * alone.cost.parts["errors"])
    others = bar.verdict(scored, baseline, data, reviewed=~checked)
    assert others.conditions["order_id.wrong"] == "missed", "checks elsewhere do not help"


def test_the_chance_of_a_hoped_for_system_against_simulation(pilot):
    hoped = {"exact": 0.9, "fields": {"product": 0.99}, "reviewed": 0.3, "unchecked": 0.001}
    bar = agreed(pilot, 200, secondary={"product": 0.05, "intent": 0.05}, hoped=hoped)
    data, records = answers(200, wrong_intent=60)  # 70 % of the records, of the intents too
    baseline = scoring.score(pilot, data, records)
    chances = planning.chance_as_hoped(bar, baseline)
    names = ["exact record", "product", "intent", "order_id.wrong", "cost of use", "all"]
    assert list(chances) == names and chances["product"] > 0.8 > chances["intent"]
    assert chances["all"] == pytest.approx(np.prod(list(chances.values())[:-1]))
    assert chances["order_id.wrong"] == pytest.approx(0.999**200, abs=1e-9), "none may occur"
    rng, passed = np.random.default_rng(0), []
    for _ in range(400):  # 90 % and 70 % right, independently
        wins, losses, _ = rng.multinomial(200, [0.9 * 0.3, 0.1 * 0.7, 0.66])
        passed.append(paired.paired_interval(wins, losses, 200)[0] >= bar.margin)
    low, high = proportion_confint(sum(passed), 400, alpha=0.001, method="wilson")
    assert low <= chances["exact record"] <= high
    data, records = answers(200, wrong_intent=20)
    hopeless = planning.chance_as_hoped(bar, scoring.score(pilot, data, records))
    assert hopeless["exact record"] < 0.05
    change = {"secondary": {}, "hoped": hoped | {"reviewed": 1.0}, "max_cost_per_1000": 600}
    dear = agreed(pilot, 200, reason="cheaper", **change)
    assert planning.chance_as_hoped(dear, baseline)["cost of use"] < 0.1


def test_new_rows_are_what_a_bar_is_held_against(pilot, folder, tmp_path):
    before = Bar.freeze(pilot, **wish(pilot))
    rows_there = (folder / "test.csv").read_text(encoding="utf-8").splitlines()
    head, fresh = rows_there[0], [line.replace("belt", "chain") for line in rows_there[1:]]
    fresh = [f"new-{line}" for line in fresh if "chain" in line]
    (folder / "new.csv").write_text("\n".join([head, *fresh]) + "\n", encoding="utf-8")
    with pytest.raises(CourseError, match="not the ones its bar was frozen on"):
        Bar.load(pilot)
    answered = tmp_path / "runs" / pilot.name / "00/answers/tuned-0.jsonl"
    files.Journal(answered).add({"test-0": "{}"}, 1.0)
    new = Bar.freeze(pilot, reason="new rows", **wish(pilot, rows=len(fresh)))
    assert new.version == 2 and new.rows == len(fresh) and new.test_sha256 != before.test_sha256
    assert not new.seen_before, "a tuned model has read the test rows, and none the new ones"
    look = tmp_path / "runs" / pilot.name / "08/new_readings.jsonl"
    files.Journal(look).add({"a": {}}, 1.0)
    third = Bar.freeze(pilot, reason="after the look", **wish(pilot, rows=len(fresh), margin=0.01))
    assert third.seen_before and "frozen after a tuned result had been seen" in str(third)


def test_the_dearest_field_is_sure_only_with_five_errors(pilot):
    data, wrong = answers(60, wrong_intent=9, wrong_order=2)
    dear = {"order_id.wrong": {"minutes": 90}}
    costs = error_costs.default_costs(pilot)
    found = error_costs.error_cost(pilot, data, wrong, {**costs, "errors": costs["errors"] | dear})
    assert found.driver == ("order_id", False) and found.by_field["order_id"][0] == pytest.approx(
        2 * 60_000 / 60
    )
    money, low, high = found.by_field["intent"]
    assert low < money < high
    assert error_costs.error_cost(pilot, *answers(60, wrong_intent=9), costs).driver == (
        "intent",
        True,
    )


def test_the_seed_that_is_judged_is_the_median(pilot):
    bar = agreed(pilot, 12, seeds=[0, 1, 2])
    by_seed = {
        k: scoring.score(pilot, *answers(12, wrong_intent=w)) for k, w in ((0, 9), (1, 2), (2, 5))
    }
    assert bar.judged(by_seed) == 2
    assert bar.model_copy(update={"seeds": [1, 2]}).judged(by_seed) == 2, "of two the lower"
    with pytest.raises(CourseError, match="no result for 1"):
        bar.judged({0: by_seed[0], 2: by_seed[2]})


# In words, a draft, and more rows ---------------------------------------------------------------------------


def test_the_page_to_sign_says_it_in_words(pilot, tmp_path):
    bar = Bar.freeze(
        pilot, **wish(pilot, messages_per_year=20_000, decides="head of sales", seeds=[0, 1, 2])
    )
    page = (tmp_path / "runs/small/bar.md").read_text()
    for words in (
        "5 more of 100 messages than with rules",
        "on 12 messages that no model was tuned on",
        "A person checks the records whose errors are expected to cost more than the check",
        "where nobody checks",
        "order_id wrong: in at most 20 of 1,000 messages",
        "at most 2,000 EUR per 1,000",
        "40,000 EUR a year",
        "head of sales",
        "the middle one judged",
        "*Not enough rows*",
    ):
        assert words in page, words
    assert page.count("Name and date: ____") == 2 and "DRAFT" not in page and bar.frozen in page


def test_a_draft_freezes_nothing_and_has_no_ledger(pilot, tmp_path):
    draft = Bar.freeze(pilot, agreed=False, **wish(pilot))
    home = tmp_path / "runs/small"
    assert (
        sorted(p.name for p in home.iterdir()) == ["bar_draft.md"]
        and "DRAFT" in (home / "bar_draft.md").read_text()
    )
    assert "draft" in str(draft) and "nothing is frozen" in str(judge(draft, pilot, 12, {}, {}))
    with pytest.raises(CourseError, match="no bar.yaml"):
        Bar.load(pilot)
    bar = Bar.freeze(pilot, **wish(pilot, margin=0.02))
    assert bar.version == 1 and sorted(p.name for p in home.iterdir()) == [
        "bar.md",
        "bar.yaml",
        "bar_ledger.jsonl",
    ]
    assert Bar.freeze(pilot, agreed=False, **wish(pilot, margin=0.02)) == bar, (
        "what is frozen stays frozen"
    )


def test_a_test_set_that_only_grew_needs_no_reason_before_a_result(pilot, folder, tmp_path):
    Bar.freeze(pilot, **wish(pilot))
    path = folder / "test.csv"
    path.write_text(
        path.read_text() + 'test-99,"Where is pump number 999, PO-1999?",order,pump,PO-1999\n'
    )
    with pytest.raises(CourseError, match="other values for margin"):
        Bar.freeze(pilot, **wish(pilot, rows=13, margin=0.01))
    more = Bar.freeze(pilot, **wish(pilot, rows=13))
    assert (more.rows, more.version, more.revised) == (13, 2, []) and Bar.load(pilot).rows == 13
    last = json.loads((tmp_path / "runs/small/bar_ledger.jsonl").read_text().splitlines()[-1])
    assert "grew from 12 to 13" in last["note"] and len(last["rows"]) == 13
    files.Journal(tmp_path / "runs/small/00/answers/tuned-0.jsonl").add({"test-0": "{}"}, 1.0)
    path.write_text(path.read_text() + "test-98,What does belt 998 cost?,quote,belt,\n")
    with pytest.raises(CourseError, match="the judged rows"):
        Bar.freeze(pilot, **wish(pilot, rows=14))


# The wish --------------------------------------------------------------------------------------


def test_the_wish_of_the_inbox_is_its_recorded_bar():
    inbox = Pilot.load(ROOT / "data/inbox")
    bar, wish = Bar.load(inbox), Wish.load(inbox)
    asked = wish.for_bar(inbox, baseline="rules", rows=200)
    assert asked.pop("agreed") and f"because {asked.pop('reason')}" in str(bar)
    assert asked == {key: bar.model_dump()[key] for key in asked}


def test_a_wish_without_a_file_follows_from_the_fields(pilot):
    wish = Wish.load(pilot)
    assert wish.critical == {"order_id.wrong": 0.02, "order_id.extra": 0.02}
    assert (
        not wish.agreed and wish.max_cost_per_1000 == wish.costs.people > wish.costs.today == 2000
    )
    bar = Bar.freeze(pilot, **wish.for_bar(pilot, "rules", 12))
    assert not bar.frozen and set(bar.secondary) == set(pilot.fields)


@pytest.mark.parametrize(
    "text, words",
    [
        ("agred: true", "unknown key 'agred'; did you mean 'agreed'"),
        ("margin: 5", "write 0.05 for 5 points"),
        ("- margin: 0.1", "the file must be 'key: value' lines"),
        ("costs: 40", "costs must be 'key: value' lines"),
        ("costs: {errors: {intnt.wrong: {minutes: 1}}}", "names no field"),
        ("margin: 0.1\nmargin: 0.2", "stands there twice"),
    ],
)
def test_a_bad_wish_file_is_one_sentence(pilot, folder, text, words):
    (folder / "bar_wish.yaml").write_text(text)
    with pytest.raises(CourseError, match=words) as problem:
        Wish.load(pilot)
    assert "\n" not in str(problem.value)


# Languages without spaces -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_japanese_messages_with_a_number_are_no_copies_and_are_told_apart(tmp_path, monkeypatch):
    """The chapter's own cells on a Japanese pilot: no near-copies between different requests, word counts beat the majority."""
    home = japanese_pilot(tmp_path)
    monkeypatch.setenv("COURSE_PILOT", str(home))
    assert course.main(["--pilot", str(home), "--profile", "smoke", "--only", "02"]) == 0
    found = figures(tmp_path / "runs/nihon/smoke")
    assert found["data.near_duplicates.test_rows"]["value"] < 0.2
    assert found["exact.tf_idf.cv"]["value"] > found["exact.majority.cv"]["value"] + 0.3


def japanese_pilot(tmp_path):
    home = tmp_path / "nihon"
    home.mkdir()
    (home / "pilot.yaml").write_text(
        "name: nihon\ntext: body\nlanguage: ja\nfields:\n  topic: {type: label, values: [order, invoice]}\n"
    )
    said = {
        "order": [
            "{}番はいつ届きますか",
            "注文{}の配送日を知りたい",
            "まだ{}の品物が届きません",
            "{}の到着予定を教えて",
        ],
        "invoice": [
            "請求書{}に誤りがあります",
            "経理に請求書{}の件で電話したい",
            "{}の請求金額が違います",
            "請求{}の支払い期限を延ばしたい",
        ],
    }
    unseen = {
        "order": [
            "荷物{}の追跡をお願いします",
            "部品が{}個足りません",
            "納期は{}日で間に合うでしょうか",
        ],
        "invoice": [
            "領収書を{}部ください",
            "振込先の口座{}は正しいですか",
            "二重に{}円引き落とされました",
        ],
    }
    for split, texts, n in (("train", said, 12), ("test", unseen, 3)):
        lines = ["body,topic"] + [
            f"{texts[t][i % len(texts[t])].format(4711 + 7 * i)},{t}"
            for i in range(n)
            for t in said
        ]
        (home / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return home


def test_course_says_that_no_bar_is_frozen(tmp_path, monkeypatch, capsys, folder):
    def stop(path, say, environment):
        raise CourseError(f"{path.stem} stopped: enough")

    monkeypatch.setattr(course, "run_chapter", stop)
    assert course.main(["--pilot", str(folder), "--only", "00"]) == 1
    assert "No bar is frozen for this pilot: run `make bar" in capsys.readouterr().out
    Bar.freeze(Pilot.load(folder), **wish(Pilot.load(folder)))
    capsys.readouterr()
    for place in (folder, ROOT / "data/inbox"):
        assert course.main(["--pilot", str(place), "--only", "00"]) == 1
        assert "No bar" not in capsys.readouterr().out


# The chapter ----------------------------------------------------------------------------------------------


def figures(folder):
    return {f["name"]: f for f in json.loads((folder / "02/results.json").read_text())["figures"]}


@pytest.mark.slow
def test_chapter_02_on_a_small_pilot_of_ones_own(tmp_path, capsys):
    """One label field, CSV, five test rows: it says what cannot be concluded and goes on; run again, the bar stays."""
    home = tmp_path / "mine"
    home.mkdir()
    (home / "pilot.yaml").write_text(
        "name: mine\ntext: body\nfields:\n  topic: {type: label, values: [order, complaint]}\n"
    )
    for split, n in (("train", 14), ("test", 5)):
        lines = ["body,topic"] + [
            f"{'please send part' if i % 2 else 'I am unhappy with part'} {split} {i},"
            f"{('complaint', 'order')[i % 2]}"
            for i in range(n)
        ]
        (home / f"{split}.csv").write_text("\n".join(lines) + "\n")
    command = ["--pilot", str(home), "--profile", "smoke", "--only", "02"]
    assert course.main(command) == 0, capsys.readouterr().err
    folder = tmp_path / "runs/mine/smoke"
    said = (folder / "02/02_the_bar.ipynb").read_text()
    assert "They cannot show which" in said and "5 test rows" in said
    found, draft = figures(folder), (folder / "bar_draft.md").read_text()
    assert (
        found["rows.power.minimum_difference"]["value"] is None
        and found["exact.tf_idf.cv"]["n"] == 14
    )
    assert (
        0.03
        < found["peeking.fixed_n.formula"]["value"]
        < 0.09
        < found["peeking.false_alarms.formula"]["value"]
    )
    assert (
        "DRAFT" in draft and "on 5 messages that" in draft and not (folder / "bar.yaml").exists()
    ), "nobody agreed yet"
    assert found["bar.chance_of_passing.exact_record.plus_5"]["value"] < 0.2
    said = capsys.readouterr().out
    assert "write agreed: true" in said and f"make bar PILOT={home}" in said, "it says what to set"
    wish = (folder / "bar_wish.yaml").read_text().replace("agreed: false", "agreed: true")
    (home / "bar_wish.yaml").write_text(wish.replace("margin: 0.1", "margin: 0.2"))
    assert course.main(command) == 0
    assert "margin: 0.2" in (folder / "bar.yaml").read_text(), "agreed, so it is frozen"


@pytest.mark.skipif(
    not (ROOT.parent / "shared/real_data/clinc150").is_dir()
    and "COURSE_DATASETS" not in os.environ,
    reason="needs a copy of CLINC150",
)
@pytest.mark.slow
def test_chapter_02_on_clinc150(tmp_path, capsys):
    assert (
        course.main(["--pilot", str(ROOT / "data/clinc150"), "--profile", "smoke", "--only", "02"])
        == 0
    ), capsys.readouterr().err
    assert {"exact.rules.cv", "exact.majority.cv", "cost_per_1000.people"} <= set(
        figures(tmp_path / "runs/clinc150/smoke")
    )


def test_the_reference_bar_is_intact_and_is_the_one_of_the_recorded_run():
    pilot = Pilot.load(ROOT / "data/inbox")
    bar = Bar.load(pilot)  # no runs here: the reference copy
    result = json.loads((ROOT / "data/reference/results/02.json").read_text())
    assert result["settings"]["bar"] == bar.model_dump(mode="json")
    assert bar.version == 2 and len(bar.revised) == 1 and not bar.seen_before
    assert bar.rows == len(rows.load_new(pilot)) == 200, "judged on rows that no study has read"
