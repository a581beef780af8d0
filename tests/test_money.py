"""The cost model against sums by hand, closed forms, and every kind of bad number."""

import math

import numpy as np
import pytest
from scipy.stats import beta, triang

from helpers import CourseError
from helpers.pay import cost_model
from helpers.pay.inputs import Inputs

STEPS = {"machine": "machine_seconds / 3600 / utilisation * usd_per_hour * per_usd"}
WAYS = {
    "people": {"each": "today_minutes / 60 * hourly"},
    "small": {
        "each": "machine + (1 - small_right) * wrong_costs",
        "once": "build",
        "year": "upkeep",
    },
}


def made(right=9, rows=10):
    """30 EUR an hour, 2 minutes a message, 9 of 10 right, 5 EUR an error, a tenth used."""
    inputs = Inputs("EUR")
    inputs.share("small_right", [True] * right + [False] * (rows - right), "a test")
    inputs.priced({"wrong_costs": ([2, 5, 8], None, "EUR")}, "a test")
    inputs.within_factor("machine_seconds", 2.0, 1, "s", "a test", "measured")
    inputs.assume("utilisation", 0.1, 0.1, 0.1, "share", "a test")
    inputs.assume("usd_per_hour", 0.36, 0.36, 0.36, "USD", "a test")
    inputs.assume("per_usd", 0.9, 0.9, 0.9, "EUR", "a test")
    inputs.assume("hourly", 30, 30, 30, "EUR", "a test")
    inputs.assume("today_minutes", 2, 2, 2, "minutes", "a test")
    inputs.assume("build", 1000, 1000, 1000, "EUR", "a test")
    inputs.assume("upkeep", 200, 200, 200, "EUR", "a test")
    inputs.assume("life_years", 2, 2, 2, "years", "a test")
    inputs.assume("messages_a_year", 10_000, 10_000, 10_000, "messages", "a test")
    return inputs


def test_a_case_worked_by_hand_to_the_cent():
    # people: 2 min at 30 EUR an hour = 1.00 a message, 1,000.00 per 1,000
    # machine: 2 s of an hour at 0.36 USD * 0.9 = 0.00018 EUR busy, 0.0018 at a tenth
    # errors: a tenth of 5 EUR = 0.50
    # once and upkeep: (1000 / 2 + 200) / 10,000 = 0.07; together 0.5718 a message
    base = cost_model.CostModel(STEPS, WAYS).base(made())
    assert base["machine"] == pytest.approx(0.0018, abs=1e-12) and base[
        "small_each"
    ] == pytest.approx(0.5018, abs=1e-12)
    assert round(base["people_total"], 2) == 1000.00 and round(base["small_total"], 2) == 571.80
    # break-even: 700 a year / (1 - 0.5018) = 1,405.06 messages
    # payback: 1000 / ((4,982 - 200) a year) = 2.51 months
    assert (
        round(cost_model.break_even(base, "small"), 2) == 1405.06
        and round(cost_model.payback(base, "small"), 2) == 2.51
    )


def test_the_bundled_pilots_figures_by_hand():
    """Chapter 10's reviewed way at round numbers: a look, a repair, what slips through."""
    model = cost_model.CostModel(
        {
            "look": "review_minutes / 60 * hourly",
            "repair": "(1 - right) * caught * fixing_minutes / 60 * hourly",
            "slips": "(1 - right) * (1 - caught) * wrong_costs",
        },
        {
            "people": {"each": "today_minutes / 60 * hourly"},
            "reviewed": {"each": "look + repair + slips"},
        },
    )
    values = {
        "review_minutes": 1,
        "hourly": 40,
        "right": 0.58,
        "caught": 0.9,
        "fixing_minutes": 1,
        "wrong_costs": 18.71,
        "today_minutes": 3,
        "life_years": 2,
        "messages_a_year": 10_000,
    }
    found = model.run(values)
    # 40/60 = 0.66667 + 0.42 * 0.9 * 0.66667 = 0.252 + 0.42 * 0.1 * 18.71 = 0.78582
    assert (
        round(found["reviewed_total"], 2) == 1704.49 and round(found["people_total"], 2) == 2000.00
    )


def test_a_way_that_costs_more_a_message_never_breaks_even():
    inputs = made().fixed(wrong_costs=20.0)
    base = cost_model.CostModel(STEPS, WAYS).base(inputs)
    assert math.isinf(cost_model.break_even(base, "small")) and math.isinf(
        cost_model.payback(base, "small")
    )
    one = cost_model.judge_way(
        cost_model.CostModel(STEPS, WAYS),
        inputs,
        cost_model.CostModel(STEPS, WAYS).run(inputs.draw(2000)),
        "small",
    )
    assert one.saving[0] < 0
    free = cost_model.CostModel(STEPS, {**WAYS, "small": {"each": "machine"}}).base(made())
    assert cost_model.break_even(free, "small") == 0 and cost_model.payback(free, "small") == 0


def test_break_even_and_payback_hold_for_arrays_too():
    model = cost_model.CostModel(STEPS, WAYS)
    drawn = model.run(made().draw(4000, 3))
    volumes = cost_model.break_even(drawn, "small")
    assert volumes.shape == (4000,) and np.isinf(volumes).any() and np.isfinite(volumes).any()
    for volume in volumes[np.isfinite(volumes)][:3]:  # at that volume both cost the same
        i = int(np.flatnonzero(volumes == volume)[0])
        one = {k: float(v[i]) if np.ndim(v) else v for k, v in drawn.items() if k in made()}
        found = model.run(one | {"messages_a_year": volume})
        assert found["small_total"] == pytest.approx(found["people_total"], abs=1e-6)


def test_draws_follow_what_they_promise():
    inputs = made(116, 200)
    inputs.assume("hourly", 30, 20, 50, "EUR", "a test")
    inputs.within_factor("upkeep", 200, 3, "EUR", "a test")
    drawn = inputs.draw(200_000, 1)
    assert np.quantile(drawn["small_right"], [0.05, 0.5, 0.95]) == pytest.approx(
        beta.ppf([0.05, 0.5, 0.95], 116.5, 84.5), abs=1e-3
    )
    assert np.quantile(drawn["hourly"], [0.05, 0.95]) == pytest.approx(
        triang.ppf([0.05, 0.95], 1 / 3, 20, 30), rel=0.005
    )
    assert np.quantile(drawn["upkeep"], [0.05, 0.5, 0.95]) == pytest.approx(
        [200 / 3, 200, 600], rel=0.02
    )
    assert (
        drawn["wrong_costs"].mean() == pytest.approx(5, rel=0.01)
        and 2 <= drawn["wrong_costs"].min() <= drawn["wrong_costs"].max() <= 8
    )
    assert drawn["build"] == 1000 and inputs["small_right"].low == pytest.approx(
        beta.ppf(0.05, 116.5, 84.5)
    )


def test_a_mean_over_rows_agrees_with_scipys_bootstrap():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).choice([0, 4, 6.7, 63], 200, p=[0.6, 0.2, 0.1, 0.1])
    inputs = Inputs("EUR")
    inputs.priced({"losses": (values, None, "EUR")}, "a test")
    theirs = bootstrap(
        (values,), np.mean, confidence_level=0.9, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (inputs["losses"].low, inputs["losses"].high) == pytest.approx(theirs, rel=0.05)
    assert inputs["losses"].value == pytest.approx(values.mean())


def test_the_probability_of_paying_agrees_with_the_closed_form():
    """It pays where (1 - right) * 5 + 0.0718 < 1, that is right > 0.81436."""
    inputs, model = (
        made(85, 100).fixed(wrong_costs=5.0, machine_seconds=2.0),
        cost_model.CostModel(STEPS, WAYS),
    )
    one = cost_model.judge_way(model, inputs, model.run(inputs.draw(100_000, 0)), "small")
    assert one.probability == pytest.approx(beta.sf(0.81436, 85.5, 15.5), abs=0.005)
    assert one.verdict(0.7) == "pays" and one.verdict(0.99) == "not decided"
    assert cost_model.switching_value(model, inputs, "small_right", "small") == pytest.approx(
        0.81436, abs=1e-9
    )
    assert (
        cost_model.switching_value(model, inputs, "wrong_costs", "small", low=0, high=0.1) is None
    )


def test_percentiles_are_stable_over_seeds():
    inputs, model = made(170, 200), cost_model.CostModel(STEPS, WAYS)
    inputs.within_factor("machine_seconds", 2, 2, "s", "a test")
    inputs.assume("today_minutes", 2, 1.4, 3, "minutes", "a test")
    inputs.assume("hourly", 30, 25, 40, "EUR", "a test")
    ends = []
    for seed in range(6):
        drawn = model.run(inputs.draw(50_000, seed))
        one = cost_model.judge_way(model, inputs, drawn, "small")
        ends.append([*cost_model.middle_draws(drawn["small_total"]), one.probability])
    ends = np.array(ends)
    assert (np.ptp(ends, axis=0) / ends.mean(axis=0) < 0.02).all() and 0.05 < ends[
        :, 2
    ].mean() < 0.95
    again = [model.run(inputs.draw(1000, 4))["small_total"] for _ in range(2)]
    assert (again[0] == again[1]).all(), "the same seed gives the same draws"


def test_the_tornado_moves_one_input_at_a_time():
    inputs, model = made(), cost_model.CostModel(STEPS, WAYS)
    inputs.assume("hourly", 30, 24, 36, "EUR", "a test")
    bars = {name: list(row) for name, row in cost_model.tornado(model, inputs, "small").T.items()}
    assert bars["hourly"] == pytest.approx(
        [428.2 - 200, 428.2 + 200]
    )  # 2 minutes at 6 EUR an hour less or more
    assert "build" not in bars and list(bars) == sorted(
        bars, key=lambda n: -abs(bars[n][1] - bars[n][0])
    )


@pytest.mark.parametrize("right, rows", [(0, 8), (8, 8), (0, 200), (200, 200)])
def test_none_right_and_all_right(right, rows):
    inputs, model = made(right, rows), cost_model.CostModel(STEPS, WAYS)
    share = inputs["small_right"]
    assert share.low <= share.value <= share.high and share.low < share.high
    one = cost_model.judge_way(model, inputs, model.run(inputs.draw(2000)), "small")
    assert np.isfinite(one.saving).all()
    assert (
        one.probability < 0.01 if right == 0 else one.probability > (0.99 if rows == 200 else 0.5)
    )


BAD = [
    (lambda i: i.assume("hourly", "40", 30, 50, "EUR", ""), "hourly is '40'; write a plain number"),
    (lambda i: i.assume("hourly", "3,5 EUR", 3, 4, "EUR", ""), "without unit or currency"),
    (lambda i: i.assume("hourly", None, 3, 4, "EUR", ""), "hourly is None"),
    (
        lambda i: i.assume("hourly", math.nan, 30, 50, "EUR", ""),
        "hourly is nan, which is no number",
    ),
    (lambda i: i.assume("hourly", 40, 30, math.inf, "EUR", ""), "high end, is inf"),
    (lambda i: i.assume("hourly", -40, -50, -30, "EUR", ""), "hourly is -40; it must be 0 or more"),
    (lambda i: i.assume("hourly", 40, -5, 90, "EUR", ""), "hourly, low end, is -5"),
    (lambda i: i.assume("hourly", 40, 50, 30, "EUR", ""), "outside its own range 50 to 30"),
    (lambda i: i.assume("caught", 1.2, 0.5, 1.5, "share", ""), "between 0 and 1"),
    (lambda i: i.assume("caught", 90, 70, 98, "share", ""), "write 0.9 for 90 %"),
    (lambda i: i.within_factor("hourly", 40, 0.5, "EUR", ""), "The factor of hourly is 0.5"),
    (lambda i: i.within_factor("hourly", 0, 2, "EUR", ""), "hourly is 0; it must be above 0"),
    (lambda i: i.share("right", [], "nowhere"), "right has no rows"),
    (lambda i: i.priced({"losses": ([], None, "EUR")}, "nowhere"), "losses has no rows"),
    (
        lambda i: i.priced({"losses": ([1, math.nan], None, "EUR")}, "nowhere"),
        "A row of losses is nan",
    ),
    (lambda i: i.assume("B2", 1, 1, 1, "EUR", ""), "cannot be called 'B2'"),
    (lambda i: i.fixed(hourli=3), "no input 'hourli'"),
    (lambda i: i.fixed(hourly="x"), "hourly is 'x'"),
    (
        lambda i: i.table(
            "per_usd",
            {
                "per_usd": 0.9,
                "low": 1,
                "high": 2,
                "source": "x",
                "date": "2026-11-01",
                "confidence": "low",
            },
            "per_usd",
            "EUR",
        ),
        "outside its own range",
    ),
]


@pytest.mark.parametrize("wrong, words", BAD, ids=[words for _, words in BAD])
def test_a_bad_input_is_one_sentence_with_its_name(wrong, words):
    with pytest.raises(CourseError) as refused:
        wrong(made())
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name, value, words",
    [
        (
            "messages_a_year",
            0,
            "messages_a_year (with its range; people_total divides by it) is 0; it must be above 0",
        ),
        ("utilisation", 0, "utilisation (with its range; machine divides by it) is 0"),
        ("life_years", 0, "life_years"),
        ("utilisation", 1.5, "utilisation is 1.5; a share lies between 0 and 1"),
    ],
)
def test_what_is_divided_by_is_never_zero(name, value, words):
    with pytest.raises(CourseError) as refused:
        cost_model.CostModel(STEPS, WAYS).base(made().fixed(**{name: value}))
    assert words in str(refused.value)


def test_a_range_that_reaches_zero_is_refused_where_it_is_divided_by():
    inputs = made()
    inputs.assume("messages_a_year", 10_000, 0, 20_000, "messages", "a test")
    with pytest.raises(CourseError, match="messages_a_year"):
        cost_model.CostModel(STEPS, WAYS).base(inputs)


def test_an_interval_wider_than_its_value_is_used_and_said():
    inputs = made(1, 40)
    inputs.assume("today_minutes", 2, 0, 6, "minutes", "a test")
    guess, few = sorted(inputs.notes)
    assert "for today_minutes" in guess + few and "for small_right: too few rows" in guess + few
    inputs.assume("today_minutes", 2, 1.5, 2.5, "minutes", "a test")
    assert not any("today_minutes" in note for note in inputs.notes)
    model = cost_model.CostModel(STEPS, WAYS)
    assert np.isfinite(
        cost_model.judge_way(model, inputs, model.run(inputs.draw(2000)), "small").saving
    ).all()


def test_an_old_price_leaves_a_note_and_a_new_one_takes_it_away():
    inputs, row = (
        made(),
        {"usd": 0.4, "source": "a list", "date": "2020-01-01", "confidence": "low"},
    )
    inputs.table("price", row, "usd", "USD")
    assert [
        n for n in inputs.notes if "price (a list) was read on 2020-01-01" in n
    ] and "2020-01-01" in inputs["price"].source
    inputs.table("price", {**row, "date": "2026-11-22"}, "usd", "USD")
    assert not [n for n in inputs.notes if "price" in n]


@pytest.mark.parametrize(
    "formula, words",
    [
        ("hourly **", "cannot be read"),
        ("__import__('os')", "may hold names"),
        ("hourly ** 2", "may hold names"),
        ("hours * 2", "needs 'hours'"),
        ("hourly.real", "may hold names"),
        ("'text'", "may hold names"),
        ("True", "may hold names"),
        ("[hourly]", "may hold names"),
    ],
)
def test_a_formula_is_arithmetic_and_nothing_else(formula, words):
    with pytest.raises(CourseError, match=words.replace("(", r"\(")):
        cost_model.CostModel({"odd": formula}, WAYS | {"people": {"each": "odd"}}).base(made())


def test_fixing_an_input_leaves_the_original_alone():
    inputs = made()
    other = inputs.fixed(hourly=60)
    assert (
        inputs["hourly"].value == 30
        and other["hourly"].value == 60
        and other["hourly"].distribution is None
    )
    assert other["small_right"] == inputs["small_right"] and other.currency == "EUR"


def test_minutes_and_money_of_the_same_rows_are_drawn_together():
    """A row that is expensive in one is so in the other; half a row of the worst error beside."""
    values = np.random.default_rng(0).choice([0, 4, 20], 200, p=[0.6, 0.3, 0.1]).astype(float)
    inputs = Inputs("EUR")
    inputs.priced(
        {"lost_minutes": (values, 20, "minutes"), "lost_money": (2.5 * values, 50, "EUR")}, "a test"
    )
    drawn = inputs.draw(5000, 1)
    assert drawn["lost_money"] == pytest.approx(2.5 * drawn["lost_minutes"])
    assert inputs["lost_money"].value == pytest.approx(2.5 * values.mean()) and inputs[
        "lost_money"
    ].origin.startswith("measured counts")
    assert np.ptp(drawn["lost_minutes"]) > 0 and drawn["lost_minutes"].mean() == pytest.approx(
        values.mean(), rel=0.05
    )


def test_an_error_that_was_not_seen_can_still_come():
    # none of 99 rows wrong, the worst costs 10: half a row beside them, so Beta(1/2, 99) times 10
    inputs = Inputs("EUR")
    inputs.priced({"lost_money": (np.zeros(99), 10, "EUR")}, "a test")
    drawn = inputs.draw(100_000, 1)["lost_money"]
    assert inputs["lost_money"].value == 0 and inputs["lost_money"].low == 0
    assert np.quantile(drawn, [0.5, 0.95]) == pytest.approx(
        10 * beta.ppf([0.5, 0.95], 0.5, 99), rel=0.05
    )
    with pytest.raises(CourseError, match="The worst of lost_money is -1; it must be 0 or more"):
        inputs.priced({"lost_money": ([1.0], -1, "EUR")}, "a test")
    inputs.priced({"lost_money": ([], 10, "EUR")}, "a test")  # no row at all: the worst is assumed
    assert inputs["lost_money"].value == 10 and inputs["lost_money"].low == 0
    assert inputs["lost_money"].origin.startswith("assumed")


def test_a_rate_that_the_course_assumes_is_no_dated_table():
    inputs, row = (
        made(),
        {
            "per_usd": 0.9,
            "low": 0.8,
            "high": 1,
            "source": "assumed, a round figure",
            "date": "2026-11-22",
            "confidence": "low",
        },
    )
    inputs.table("per_usd", row, "per_usd", "EUR")
    assert inputs["per_usd"].origin == "assumed: change me"
    inputs.table("per_usd", {**row, "source": "a central bank"}, "per_usd", "EUR")
    assert inputs["per_usd"].origin == "dated table"


def test_the_median_and_the_percentiles_are_those_of_the_draws():
    inputs, model = (
        made(85, 100).fixed(wrong_costs=5.0, machine_seconds=2.0),
        cost_model.CostModel(STEPS, WAYS),
    )
    drawn = model.run(inputs.draw(100_000, 0))
    one = cost_model.judge_way(model, inputs, drawn, "small")
    share = beta.ppf(
        [0.05, 0.5, 0.95], 85.5, 15.5
    )  # saved: 1,000 less 71.8 less 5,000 for each share wrong
    assert [*one.saving[1:]] == pytest.approx(1000 - 71.8 - 5000 * (1 - share[[0, 2]]), abs=8)
    assert one.median == pytest.approx(1000 - 71.8 - 5000 * (1 - share[1]), abs=8)


def test_the_input_that_turns_the_result_is_found_at_the_value_worked_out_by_hand():
    # 2 minutes at h EUR an hour cost 1000 * h / 30 for 1,000 messages, the model 571.80: both the
    # same at h = 17.154, which is 12.846 of the 15 EUR to the low end
    inputs, model = made(), cost_model.CostModel(STEPS, WAYS)
    [turn] = cost_model.turns(model, inputs, "small")  # at 5 EUR an error: 1 - 0.9282 / 5
    assert turn.name == "small_right" and turn.at == pytest.approx(0.81436)
    inputs = inputs.fixed(small_right=0.9)
    assert cost_model.turns(model, inputs, "small") == [], "the errors' price is not far enough off"
    inputs.assume("hourly", 30, 15, 36, "EUR", "a test")
    inputs.assume("build", 1000, 0, 1500, "EUR", "a test")
    [turn] = cost_model.turns(model, inputs, "small")
    assert (turn.name, turn.now) == ("hourly", 30)
    assert turn.at == pytest.approx(17.154) and turn.part == pytest.approx(12.846 / 15)
    assert str(turn) == "hourly 17.2 instead of 30"
    # once 10,000 EUR more at the start: 5,000 a year, 500 for 1,000 messages, so it is a loss
    inputs.assume("build", 11_000, 500, 11_000, "EUR", "a test")
    turns = cost_model.turns(model, inputs, "small")
    assert [turn.name for turn in turns] == ["build", "wrong_costs", "hourly"], "nearest first"
    assert turns[1].at == pytest.approx(5 - 0.718)
    assert turns[0].at == pytest.approx(1000 + 2 * 4282)


def test_a_year_is_the_sum_of_its_messages_in_every_draw():
    inputs, model = made(), cost_model.CostModel(STEPS, WAYS)
    inputs.assume("messages_a_year", 10_000, 5_000, 20_000, "messages", "a test")
    drawn = model.run(inputs.draw(5000, 1))
    each = cost_model.judge_way(model, inputs, drawn, "small")
    year = cost_model.judge_way(model, inputs, drawn, "small", yearly=True)
    assert year.saving[0] == pytest.approx(10 * each.saving[0]) and round(year.saving[0]) == 4282
    assert year.probability == each.probability
    saved = (drawn["people_total"] - drawn["small_total"]) * drawn["messages_a_year"] / 1000
    assert year.saving[1:] == pytest.approx(np.quantile(saved, [0.05, 0.95]))
    assert cost_model.a_year(model.base(inputs), "people")[0] == pytest.approx(10_000)
    pieces = cost_model.pieces(model, model.base(inputs), "small")
    assert sum(pieces.values()) == pytest.approx(571.8)
