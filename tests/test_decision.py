"""Chapter 11's gate, decision and papers: known answers for each."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from helpers import CourseError
from helpers.agree import sealed
from helpers.agree.bar import Bar
from helpers.choose.licensing import UNKNOWN, LicenceVerdict
from helpers.core.pilot import Pilot
from helpers.core.rows import Rows
from helpers.core.rows import load as load_rows
from helpers.core.runs import Run
from helpers.core.runtime import detect
from helpers.measure.agreement import kappa
from helpers.measure.scoring import score
from helpers.pay.error_prices import check_costs, default_costs
from helpers.pilot import decision, documents, gate, run_log
from helpers.pilot.decision import GO, MORE, NO_GO, WayOfUse, decide_use
from helpers.pilot.judged import CHEAP_USE, SYSTEM_USE, Judged, agreed_costs, by_the_bar

WORDS = {"order": "please send ten boxes", "quote": "what is the price of it"}


def a_pilot(**changes):
    fields = {"intent": {"type": "label", "values": ["order", "quote"]}}
    return Pilot.model_validate({"name": "small", "text": "message", "fields": fields} | changes)


def some_rows(number, told=True, seed=0, words=WORDS):
    """Rows whose words tell the label, or do not."""
    draw, rows = random.Random(seed), []
    for i in range(number):
        label = draw.choice(list(words))
        said = words[label if told else draw.choice(list(words))]
        rows.append({"id": str(i), "message": f"{said}, case {i}", "intent": label, "tags": ""})
    return rows


# The gate -------------------------------------------------------------------------------------


def test_the_gate_leaves_a_cheap_way_that_is_good_enough():
    found = gate.gate_before_training(a_pilot(), some_rows(120))
    assert found.verdict == gate.DO_NOT
    assert found.cheap.share.low > 0.9


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_gate_sends_labels_back_that_nothing_tells(language):
    words = (
        WORDS
        if language == "en"
        else {"order": "十個送ってください", "quote": "値段はいくらですか"}
    )
    found = gate.gate_before_training(a_pilot(language=language), some_rows(200, False, 1, words))
    assert found.verdict == gate.FIX
    assert "intent" in found.why[0]


def test_few_rows_do_not_show_that_nothing_tells_the_labels():
    assert gate.gate_before_training(a_pilot(), some_rows(40, told=False)).verdict == gate.PROCEED


def test_contradictions_and_quarrels_stop_training():
    rows = some_rows(120)
    assert gate.gate_before_training(a_pilot(), rows, contradicted=2).verdict == gate.DO_NOT
    assert gate.gate_before_training(a_pilot(), rows, contradicted=20).verdict == gate.FIX
    draw = random.Random(0)
    coins = [[draw.choice("ab") for _ in range(200)] for _ in range(2)]
    found = gate.gate_before_training(a_pilot(), rows, agreements={"intent": kappa(*coins)})
    assert found.verdict == gate.DO_NOT and "do not agree on intent" in found.why[0]
    alike = [value if draw.random() < 0.8 else draw.choice("ab") for value in coins[0]]
    half = {
        "intent": kappa(coins[0], [v if draw.random() < 0.6 else draw.choice("ab") for v in alike])
    }
    assert gate.gate_before_training(a_pilot(), rows, agreements=half).verdict in (
        gate.FIX,
        gate.DO_NOT,
    )
    same = {"intent": kappa(coins[0], coins[0])}
    assert gate.gate_before_training(a_pilot(), rows, agreements=same).why[0].startswith("The best")


def test_the_gate_goes_on_where_a_cheap_way_falls_short():
    rows = some_rows(160)
    draw = random.Random(3)
    for row in rows:  # a fifth of the messages say nothing that tells the label
        if draw.random() < 0.35:
            row["message"] = f"as discussed, case {row['id']}"
    found = gate.gate_before_training(a_pilot(), rows, prompted=[True] * 10 + [False] * 30)
    assert found.verdict == gate.PROCEED
    assert "prompted model:  25.0%" in str(found)


def test_spans_only_pass_the_gate():
    pilot = a_pilot(fields={"city": {"type": "span", "optional": True}})
    rows = [
        {"id": str(i), "message": f"to Bonn {i}", "city": "Bonn", "tags": ""} for i in range(120)
    ]
    assert gate.gate_before_training(pilot, rows).verdict == gate.DO_NOT


# The decision ---------------------------------------------------------------------------------


def a_use(rows, right, checked=0.0, seed=0):
    """A way with this share of right records, of which a person checks this share."""
    draw = np.random.default_rng(seed)
    records = []
    for row in rows:
        other = "quote" if row["intent"] == "order" else "order"
        records.append({"intent": row["intent"] if draw.random() < right else other})
    scored = score(a_pilot(), rows, records)
    looked = draw.random(len(rows)) < checked
    return WayOfUse(scored, looked | (~scored.exact & (draw.random(len(rows)) < checked)))


def decided(rows, uses):
    return decide_use(a_pilot(), rows, uses, check_costs(a_pilot(), default_costs(a_pilot())))


def test_a_system_that_is_shown_to_be_cheaper_in_use_takes_the_place():
    rows = some_rows(300)
    found = decided(rows, {CHEAP_USE: a_use(rows, 0.6, 0.5), SYSTEM_USE: a_use(rows, 0.95, 0.5)})
    assert (found.answer, found.way) == (GO, SYSTEM_USE)
    assert found.why[0].startswith(f"{SYSTEM_USE} costs less in use")


def test_the_cheaper_way_stays_where_nothing_is_shown():
    rows = some_rows(300)
    found = decided(rows, {CHEAP_USE: a_use(rows, 0.95), SYSTEM_USE: a_use(rows, 0.95, seed=1)})
    assert (found.answer, found.way) == (GO, CHEAP_USE)
    assert "simpler" in found.why[0]


def test_no_way_goes_that_must_be_read_anew():
    rows = some_rows(300)
    found = decided(rows, {CHEAP_USE: a_use(rows, 0.2, 1), SYSTEM_USE: a_use(rows, 0.3, 1)})
    assert found.answer == NO_GO
    found = decided(rows, {CHEAP_USE: a_use(rows, 0.2, 1), SYSTEM_USE: a_use(rows, 0.9, 1)})
    assert (found.answer, found.way) == (GO, SYSTEM_USE)


def test_too_few_rows_ask_for_more_and_an_even_result_for_a_number():
    rows = some_rows(30)
    found = decided(rows, {CHEAP_USE: a_use(rows, 0.95)})
    assert (found.answer, found.rows) == (MORE, 20)
    rows = some_rows(100)
    use = a_use(rows, 0.9)
    minutes = 4 * float((~use.scored.exact).mean())  # an error costs four minutes
    dear = default_costs(a_pilot()) | {"today_minutes": 1.4 * minutes, "people_wrong": 0.0}
    found = decide_use(a_pilot(), rows, {CHEAP_USE: use}, check_costs(a_pilot(), dear))
    assert found.answer == MORE and found.rows > 0
    assert str(found).startswith(f"LABEL {found.rows} MORE ROWS")


def test_a_way_dearer_than_people_is_a_no():
    rows = some_rows(300)
    cheap = check_costs(
        a_pilot(), default_costs(a_pilot()) | {"today_minutes": 0.1, "people_wrong": 0.0}
    )
    assert decide_use(a_pilot(), rows, {CHEAP_USE: a_use(rows, 0.7)}, cheap).answer == NO_GO


def test_a_decision_needs_ways_and_rows():
    with pytest.raises(CourseError, match="at least one way"):
        decided(some_rows(100), {})


# The papers -----------------------------------------------------------------------------------


def some_evidence(**changes):
    rows = some_rows(120)
    costs = check_costs(a_pilot(), default_costs(a_pilot()))
    use = a_use(rows, 0.9, 0.5)
    found = decide_use(a_pilot(), rows, {SYSTEM_USE: use}, costs)
    licence = LicenceVerdict("allowed", [])
    judged = Judged(rows, {"system": use.scored}, {SYSTEM_USE: use}, {})
    given = {
        "pilot": a_pilot(about="<script>alert(1)</script> | a * b"),
        "data": Rows(rows, rows, notes=["<b>bold</b>"]),
        "gate": gate.gate_before_training(a_pilot(), rows),
        "judged": judged,
        "decision": found,
        "costs": costs,
        "licence": licence,
        "base": "<img src=x onerror=alert(1)>",
    }
    return documents.Evidence(**given | changes)


def test_no_text_of_a_stranger_acts_on_a_page():
    evidence = some_evidence()
    md, page = documents.decision_page(evidence)
    papers = [md, page, documents.runbook(evidence, ["<i>x</i>"]), documents.data_card(evidence)]
    for paper in papers:
        assert "<script>" not in paper and "<img src=x" not in paper and "<b>bold" not in paper
    assert "&lt;img" in page


def test_the_page_says_what_was_decided_and_what_was_not_shown():
    evidence = some_evidence(looks=3)
    md, page = documents.decision_page(evidence)
    share = evidence.decision.exact[SYSTEM_USE]
    for paper in (md, page):
        assert f"{share.value:.1%}" in paper and f"{share.low:.1%}" in paper
        assert "looked at 3 times" in paper and "nobody has read them twice" in paper
        assert "That the prices are yours" in paper
        assert "no adapter is in use" in paper
        assert "Wrong records that leave the desk" in paper
    assert "That the prices are yours" not in documents.decision_page(some_evidence(agreed=True))[0]


def test_after_a_no_the_page_says_what_to_try_and_after_a_go_it_does_not():
    assert "What to try next" not in documents.decision_page(some_evidence())[0]
    rows = some_rows(120)
    use = a_use(rows, 0.3, 1)
    right = {"intent": np.ones(120, bool), "product": np.arange(120) < 36}  # 30 % right
    use = replace(use, scored=replace(use.scored, right=right))
    costs = check_costs(a_pilot(), default_costs(a_pilot()))
    found = decide_use(a_pilot(), rows, {SYSTEM_USE: use}, costs)
    judged = Judged(rows, {"system": use.scored}, {SYSTEM_USE: use}, {})
    for language in ("en", "ja"):
        given = {"pilot": a_pilot(language=language), "decision": found, "judged": judged}
        for paper in documents.decision_page(some_evidence(**given)):
            assert "What to try next" in paper and "product is wrong most often" in paper
            assert "right in 30%" in paper and "Without product 100%" in paper
            assert ("reads English best" in paper) == (language == "ja")


def test_nothing_goes_before_its_licence_is_settled():
    page = documents.decision_page(some_evidence(licence=LicenceVerdict(UNKNOWN, [])))[0]
    assert "Not before the licence is settled" in page
    assert "Not before" not in documents.decision_page(some_evidence())[0]


def test_the_page_says_where_people_are_cheaper():
    """By hand: a check costs 2/3 EUR, an error 4 minutes, to put right one minute, at 40 EUR."""
    evidence = some_evidence()
    use, costs, n = evidence.judged.uses[SYSTEM_USE], evidence.costs, 120
    wrong = ~use.scored.exact
    caught = (wrong & use.checked).sum() / n
    missed = (wrong & ~use.checked).sum() / n
    minutes = costs.people / 1000 * 60 / 40  # what one message may cost, in minutes
    error, fixing, share = 4.0, 1.0, 0.9
    rest = minutes - missed * error - caught * (share * fixing + (1 - share) * error)
    longest = rest / use.checked.mean()
    assert f"a check takes more than {longest:.1f} minutes" in documents.decision_page(evidence)[0]


def test_labels_that_do_not_hold_are_a_no():
    rows = some_rows(200)
    costs = check_costs(a_pilot(), default_costs(a_pilot()))
    found = decide_use(a_pilot(), rows, {CHEAP_USE: a_use(rows, 0.95)}, costs, labels_hold=False)
    assert found.answer == NO_GO and "labels do not hold" in found.why[0]


def test_a_prompted_model_that_is_good_enough_is_not_tuned():
    rows = some_rows(160, told=False, seed=5)
    pair = [row["intent"] for row in rows]
    found = gate.gate_before_training(
        a_pilot(), rows, prompted=[True] * 60, agreements={"intent": kappa(pair, pair)}
    )
    assert found.verdict == gate.DO_NOT and "prompted model" in found.why[0]


def test_a_half_filled_second_reading_is_no_quarrel(folder):
    pilot = Pilot.load(folder)
    rows = [
        {"id": str(i), "message": f"m {i}", "intent": "order", "product": None} for i in range(9)
    ]
    second = folder / gate.SECOND
    second.write_text("id,intent\n0,order\n1,order\n2,\n3,\n")
    assert gate.second_reading(pilot, rows)["intent"].n == 2
    second.write_text("message,intent\nm 0,order\n")
    with pytest.raises(CourseError, match="no column 'id'"):
        gate.second_reading(pilot, rows)


def test_the_card_counts_the_labels():
    card = documents.data_card(some_evidence())
    rows = some_rows(120)
    orders = sum(row["intent"] == "order" for row in rows)
    assert f"| intent | order | {orders} | {orders} |" in card


# The run log ----------------------------------------------------------------------------------


def test_a_run_says_which_lever_was_moved(tmp_path):
    first = run_log.log_run(tmp_path, {"rows": [1], "rate": 1e-3}, {"exact": 0.5})
    assert (first.number, first.moved) == (1, [])
    again = run_log.log_run(tmp_path, {"rows": [1], "rate": 1e-3}, {"exact": 0.5})
    assert again.number == 1
    second = run_log.log_run(
        tmp_path, {"rows": [1, 2], "rate": 1e-3}, {"exact": 0.6}, "ten rows more"
    )
    assert second.moved == ["rows"] and "ten rows more" in str(second)
    third = run_log.log_run(tmp_path, {"rows": [1], "rate": 2e-3}, {"exact": 0.7})
    assert third.moved == ["rows", "rate"] and "more than one lever" in str(third)
    lines = (tmp_path / run_log.RUN_LOG).read_text().splitlines()
    assert [json.loads(line)["run"] for line in lines] == [1, 2, 3]


def test_half_a_line_of_a_killed_run_is_cut_off(tmp_path):
    run_log.log_run(tmp_path, {"rows": [1]}, {"exact": 0.5})
    with open(tmp_path / run_log.RUN_LOG, "a") as file:
        file.write('{"run": 2, "lev')
    assert run_log.log_run(tmp_path, {"rows": [2]}, {"exact": 0.6}).number == 2


def test_a_run_without_levers_is_refused(tmp_path):
    with pytest.raises(CourseError, match="levers"):
        run_log.log_run(tmp_path, {}, {"exact": 0.5})


def test_least_right_is_what_the_page_says():
    assert decision.LEAST_RIGHT == 0.5


# The bar --------------------------------------------------------------------------------------


def a_judged_pilot(folder):
    """The small pilot with the right records for its test rows, as if a system had read them."""
    pilot = Pilot.load(folder)
    data = load_rows(pilot)
    rows = [dict(row) for row in data.test]
    records = [{name: row[name] for name in pilot.fields} for row in rows]
    use = WayOfUse(score(pilot, rows, records), np.zeros(len(rows), bool))
    return pilot, data, Judged(rows, {"system": use.scored}, {SYSTEM_USE: use}, {})


def test_a_frozen_bar_is_applied_without_chapter_08(folder):
    pilot, data, judged = a_judged_pilot(folder)
    run, costs = Run(pilot, "11", detect("smoke")), default_costs(pilot)
    assert by_the_bar(run, data, judged, None) == (judged, None)
    asked = {"baseline": "rules", "margin": 0.1, "rows": 12, "costs": costs}
    bar = Bar.freeze(pilot, run.runtime.profile, **asked)
    _, verdict = by_the_bar(run, data, judged, bar)
    assert verdict is not None and verdict.n == 12
    (folder / "new.csv").write_text(
        "id,message,intent,product,order_id\nn1,Something quite new about a hose,order,hose,\n"
    )
    with pytest.raises(CourseError, match="run chapter 08 first"):
        by_the_bar(run, data, judged, bar)


def test_an_edited_bar_stops_the_chapter(folder):
    pilot = Pilot.load(folder)
    profile = detect("smoke").profile
    assert agreed_costs(pilot, profile)[1] is None
    asked = {"baseline": "rules", "margin": 0.1, "rows": 12, "costs": default_costs(pilot)}
    Bar.freeze(pilot, profile, **asked)
    path = sealed.place_of_bar(pilot, profile) / sealed.FILE
    path.write_text(path.read_text().replace("margin: 0.1", "margin: 0.01"))
    with pytest.raises(CourseError):
        agreed_costs(pilot, profile)
