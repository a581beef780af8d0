"""Who checks which record: expected costs, what a check saves, what a way of use costs."""

import numpy as np
import pytest

from helpers import ROOT, CourseError
from helpers.core.pilot import Pilot
from helpers.measure import baselines, reviews, system, use_costs
from helpers.pay.error_prices import Costs, check_costs, default_costs


@pytest.fixture(scope="module")
def pilot():
    return Pilot.load(ROOT / "data/inbox")


def costs_of(pilot, **changes):
    return check_costs(pilot, default_costs(pilot) | changes)


def record(**values):
    empty = {"intent": "quote", "urgency": "normal", "product": None, "order_id": None}
    return empty | values


def table(pilot, field, value, sure, number):
    classes = baselines.label_classes(pilot, field)
    shares = np.full((number, len(classes)), (1 - sure) / (len(classes) - 1))
    shares[:, classes.index(value)] = sure
    return shares


def reading(pilot, records, sure, copied=0.99):
    number = len(records)
    tables = {
        field: np.vstack([table(pilot, field, one[field], sure, 1) for one in records])
        for field in pilot.labels
    }
    copies = {name: np.full(number, copied) for name in ("product", "order_id")}
    return system.Reading(records, tables, copies)


def one_way(pilot):
    return system.System(pilot, {field: {"tuned": 1.0} for field in pilot.fields})


def test_doubt_and_price_send_a_record_to_a_person_and_neither_alone(pilot):
    records = [record(), record(order_id="PO-1234")]
    rows = records * 20
    seen = {"tuned": reading(pilot, rows, 0.98)}
    way = one_way(pilot)
    cheap = costs_of(pilot, review_minutes=1)
    review = reviews.choose_review(way, rows, seen, cheap)
    sure = {"tuned": reading(pilot, records, 0.999, 0.999)}
    unsure = {"tuned": reading(pilot, records, 0.55, 0.6)}
    assert not review.needed(sure)[0]
    assert review.needed(unsure).all()
    assert (review.expected_cost(unsure) > review.expected_cost(sure)).all()
    free = costs_of(pilot, errors={k: {"minutes": 0} for k in default_costs(pilot)["errors"]})
    nothing_at_stake = reviews.choose_review(way, rows, seen, free)
    assert not nothing_at_stake.needed(unsure).any(), "errors that cost nothing need no check"


def test_the_more_an_error_costs_the_more_is_checked(pilot):
    rows = [record()] * 30
    seen, way = {"tuned": reading(pilot, rows, 0.97)}, one_way(pilot)
    asked = {"tuned": reading(pilot, [record()] * 9, 0.9)}
    asked["tuned"].probabilities["urgency"][:] = table(pilot, "urgency", "normal", 0.9, 9)
    shares = []
    for money in (0, 60, 600):
        errors = default_costs(pilot)["errors"] | {
            "urgency.missed.high": {"minutes": 0, "money": money}
        }
        review = reviews.choose_review(way, rows, seen, costs_of(pilot, errors=errors))
        shares.append(review.expected_cost(asked).mean())
    assert shares[0] < shares[1] < shares[2]


def test_a_copied_value_is_believed_as_far_as_the_rows_show(pilot):
    rows = [record(product="belt")] * 40
    wrong = [record(product="belt" if i % 2 else "chain") for i in range(40)]
    right = reviews.choose_review(
        one_way(pilot), rows, {"tuned": reading(pilot, rows, 0.9)}, costs_of(pilot)
    )
    half = reviews.choose_review(
        one_way(pilot), rows, {"tuned": reading(pilot, wrong, 0.9)}, costs_of(pilot)
    )
    asked = {"tuned": reading(pilot, [record(product="belt")], 0.9)}
    assert right.chances(asked)["product"][0] > 0.9
    assert half.chances(asked)["product"][0] == pytest.approx(0.5, abs=0.05)


def test_a_value_that_the_model_doubts_or_contradicts_is_checked_first(pilot):
    rows = [record(product="belt") for _ in range(40)]
    sure = np.where(np.arange(40) < 30, 0.99, 0.3)
    said = [record(product="belt" if s > 0.5 else "chain") for s in sure]
    seen = reading(pilot, said, 0.95)
    seen.sure["product"][:] = sure
    review = reviews.choose_review(one_way(pilot), rows, {"tuned": seen}, costs_of(pilot))
    two = reading(pilot, [record(product="belt")] * 2, 0.95)
    two.sure["product"][:] = [0.99, 0.3]
    chances = review.chances({"tuned": two})["product"]
    assert chances[0] > chances[1] + 0.2


def test_the_cost_of_use_is_the_sum_of_its_parts(pilot):
    costs = costs_of(pilot, review_minutes=1.5, caught=0.8, fixing_minutes=2)
    rows = [record(), record(urgency="high"), record(order_id="PO-1111"), record()]
    said = [record(), record(), record(order_id="PO-2222"), record(intent="invoice")]
    mask = np.array([True, False, True, False])
    money = use_costs.money_of_use(pilot, rows, said, mask, costs)
    assert money["checks"].tolist() == [1.0, 0, 1.0, 0]
    assert money["corrections"].tolist() == pytest.approx([0, 0, 0.8 * 2 / 60 * 40, 0])
    prices = [0, costs.of("urgency.wrong"), 0.2 * costs.of("order_id.wrong")]
    assert money["errors"].tolist() == pytest.approx([*prices, costs.of("intent.wrong")])
    use = use_costs.cost_of_use(pilot, rows, said, mask, costs)
    assert use.value == pytest.approx(1000 * sum(v.sum() for v in money.values()) / 4)
    assert use.value == pytest.approx(sum(use.parts.values()))
    assert use.low < use.value < use.high and use.reviewed == 0.5
    assert use.unchecked == {"urgency.wrong": 1, "intent.wrong": 1}
    nobody = use_costs.cost_of_use(pilot, rows, said, np.zeros(4, bool), costs)
    assert nobody.parts["checks"] == 0 and nobody.value > use.parts["errors"]


def test_people_are_priced_by_the_same_table(pilot):
    costs = costs_of(pilot, people_wrong=0.0)
    assert costs.people == costs.today
    dearer = costs_of(pilot, people_wrong=0.1)
    wrong = [dearer.of(f"{field}.wrong") for field in pilot.fields]
    assert dearer.people == pytest.approx(dearer.today + 100 * np.mean(wrong))
    assert costs.review == pytest.approx(costs.today / 3000)
    with pytest.raises(CourseError, match="caught"):
        costs_of(pilot, caught=1.2)
    assert Costs.model_fields["review_minutes"].default is None


def test_readings_are_kept_and_found_again(pilot, tmp_path):
    records = [record(product="belt"), record(order_id="PO-1234")]
    first, texts = reading(pilot, records, 0.9), ["one", "two"]
    path = tmp_path / "readings.jsonl"
    system.keep_reading(path, "qlora 0", texts, first)
    size = path.stat().st_size
    system.keep_reading(path, "qlora 0", texts, first)
    assert path.stat().st_size == size, "what is kept is not written twice"
    other = reading(pilot, [record(product="chain"), records[1]], 0.9)
    system.keep_reading(path, "qlora 0", texts, other)
    newest = system.kept_reading(path, "qlora 0", texts)
    assert newest.records[0]["product"] == "chain", "a model trained anew replaces the old one"
    system.keep_reading(path, "qlora 0", texts, first)
    again = system.kept_reading(path, "qlora 0", ["two", "one"])
    assert again.records == records[::-1]
    assert np.allclose(
        again.probabilities["intent"], first.probabilities["intent"][::-1], atol=1e-4
    )
    assert np.allclose(again.sure["product"], 0.99)
    with pytest.raises(CourseError, match="lacks what 'qlora 1' reads in 2 of 2 texts"):
        system.kept_reading(path, "qlora 1", texts)


def test_a_pilot_without_labels_or_without_copies_has_a_review_too(tmp_path):
    for kept in (["intent"], ["product"]):
        full = Pilot.load(ROOT / "data/inbox")
        fields = {name: full.fields[name] for name in kept}
        small = full.model_copy(update={"fields": fields})
        rows = [{"intent": "quote", "product": "belt"}] * 12
        rows = [{name: row[name] for name in kept} for row in rows]
        tables, sure = {}, {}
        if "intent" in kept:
            tables["intent"] = table(small, "intent", "quote", 0.9, 12)
        else:
            sure["product"] = np.full(12, 0.8)
        seen = {"tuned": system.Reading(rows, tables, sure)}
        way = system.System(small, {name: {"tuned": 1.0} for name in kept})
        review = reviews.choose_review(way, rows, seen, costs_of(small))
        assert review.needed(seen).shape == (12,)
