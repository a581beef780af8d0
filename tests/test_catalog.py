"""The catalogue refuses what has no source; the gate never allows what it does not know."""

import csv
import re
import shutil
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import yaml
from conftest import ROOT

from helpers import CourseError
from helpers.choose import catalog, licensing, picker

CASES = yaml.safe_load((ROOT / "data/catalog/gate_cases.yaml").read_text(encoding="utf-8"))


def ask(case):
    return licensing.gate(
        case["base"],
        case.get("teachers", ()),
        case.get("data", ["own"]),
        case.get("judges", ()),
        licensing.Use(**case.get("use", {})),
        case.get("name"),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["case"])
def test_known_verdicts_for_the_right_clause(case):
    found = ask(case)
    assert found.verdict == case["verdict"], str(found)
    assert case["clause"] in [line.clause for line in found.deciding], str(found)


def test_there_are_enough_cases_and_models():
    assert len(CASES) >= 30 and len({c["case"] for c in CASES}) == len(CASES)
    assert sum(row["role"] != "service" for row in catalog.models()) >= 50
    names = " ".join(row["hub_id"].lower() for row in catalog.models())
    for family in (
        "llama",
        "mistral",
        "mixtral",
        "falcon",
        "mpt",
        "pythia",
        "cerebras-gpt",
        "xgen",
        "open_llama",
        "qwen",
        "gemma",
        "llm-jp",
        "sarashina",
        "plamo",
        "alpaca",
        "vicuna",
        "koala",
        "orca",
        "dolly",
    ):
        assert family in names, family


def test_every_line_carries_clause_source_and_confidence():
    for case in CASES:
        for line in ask(case).lines:
            assert (
                line.clause
                and line.says
                and line.source
                and line.confidence in ("high", "medium", "low")
            )


def test_every_licence_in_use_is_there_or_answered_unknown():
    for row in catalog.models():
        for licence in row["licence"].split(" + "):
            assert licence in catalog.licences(), (row["hub_id"], licence)
    for row in catalog.read_table("datasets.csv", "id"):
        if row["licence"] not in catalog.licences():
            assert licensing.gate("embedded", data=[row["id"]]).verdict == licensing.UNKNOWN


def test_a_misspelt_licence_of_a_row_gets_a_hint(monkeypatch):
    row = {**catalog.find("embedded"), "licence": "apache"}
    monkeypatch.setattr(licensing, "find", lambda name: row)
    assert "read it and ask; did you mean 'apache-2.0'?" in licensing.gate("embedded").lines[0].says


@pytest.mark.parametrize("purpose", licensing.PURPOSES)
def test_unknown_parts_are_never_allowed(purpose):
    use = licensing.Use(purpose, revenue=1, region="JP")
    for parts in (
        {"base": "nobody/nothing"},
        {"base": "embedded", "teachers": ["nobody/nothing"]},
        {"base": "embedded", "judges": ["nobody/nothing"]},
        {"base": "embedded", "data": ["nobody/rows"]},
    ):
        assert licensing.gate(**parts, use=use).verdict == licensing.UNKNOWN


def test_every_model_answers_for_every_purpose():
    for row in catalog.models():
        for purpose in licensing.PURPOSES:
            found = licensing.gate(row["hub_id"], use=licensing.Use(purpose))
            assert (
                found.verdict
                in (licensing.ALLOWED, licensing.DUTIES, licensing.BLOCKED, licensing.UNKNOWN)
                and found.deciding
            )


@pytest.mark.parametrize("missing", ["source", "date", "confidence"])
def test_a_row_without_its_source_date_or_confidence_is_refused(tmp_path, missing):
    shutil.copytree(ROOT / "data/catalog", tmp_path / "catalog")
    place = tmp_path / "catalog/models.csv"
    rows = list(csv.DictReader(place.open(encoding="utf-8")))
    rows[3][missing] = ""
    with place.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(CourseError, match=f"{re.escape(rows[3]['hub_id'])} has no {missing}"):
        catalog.models(tmp_path / "catalog")
    profiles = yaml.safe_load((ROOT / "data/catalog/licences.yaml").read_text(encoding="utf-8"))
    profiles["mit"][missing] = None
    (tmp_path / "catalog/licences.yaml").write_text(yaml.safe_dump(profiles), encoding="utf-8")
    with pytest.raises(CourseError, match=f"licences.yaml: mit has no {missing}"):
        catalog.licences(tmp_path / "catalog")


TABLES = ["prices.csv", "hosted_prices.csv", "tokens.csv", "datasets.csv", "models.csv"]


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_say_where_their_facts_come_from(name):
    for row in csv.DictReader((ROOT / "data/catalog" / name).open(encoding="utf-8")):
        assert (
            row["source"]
            and re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"])
            and row["confidence"] in ("high", "medium", "low")
        ), row
        assert "memory" not in " ".join(row.values()).lower().replace("in memory", ""), row


def test_every_country_of_the_union_is_in_it_and_its_source_is_said():
    union = yaml.safe_load((ROOT / "data/catalog/eu_members.yaml").read_text(encoding="utf-8"))
    assert len(union["members"]) == 27 and union["source"] and union["date"]
    for code, name in union["members"].items():
        assert licensing.Use(region=code).region == licensing.Use(region=name).region == "EU"
    assert licensing.Use(region="GB").region == "GB" and licensing.Use(region="no").region == "NO"


def test_broken_tables_in_a_sentence(tmp_path):
    shutil.copytree(ROOT / "data/catalog", tmp_path / "catalog")
    place = tmp_path / "catalog/models.csv"
    text = place.read_text(encoding="utf-8")
    place.write_text(text + text.splitlines()[1] + "\n", encoding="utf-8")
    with pytest.raises(CourseError, match="two rows for HuggingFaceTB/SmolLM2-135M"):
        catalog.models(tmp_path / "catalog")
    for wrong, sentence in (
        (
            text.replace("134515008", "134M", 1),
            "parameters of HuggingFaceTB/SmolLM2-135M is '134M'",
        ),
        (text.replace("no,2024-11-01", "no,2024-11-01,more", 1), "more cells than the header"),
        (text.replace("hub_id", "id", 1), "column 'hub_id' is missing"),
    ):
        place.write_text(wrong, encoding="utf-8")
        catalog.models.cache_clear()
        with pytest.raises(CourseError, match=sentence):
            catalog.models(tmp_path / "catalog")
    place.write_bytes("名前".encode("shift_jis"))
    with pytest.raises(CourseError, match="not UTF-8"):
        catalog.models(tmp_path / "catalog")
    profiles = (
        (tmp_path / "catalog/licences.yaml")
        .read_text(encoding="utf-8")
        .replace("{users_over:", "{usrs_over:", 1)
    )
    (tmp_path / "catalog/licences.yaml").write_text(profiles, encoding="utf-8")
    with pytest.raises(
        CourseError, match="a rule of llama-2 lacks as, clause or says, or has an unknown"
    ):
        catalog.licences(tmp_path / "catalog")
    (tmp_path / "catalog/licences.yaml").write_text("mit: {name: MIT}", encoding="utf-8")
    with pytest.raises(CourseError, match="mit needs name, class, source"):
        catalog.licences(tmp_path / "catalog")
    (tmp_path / "catalog/licences.yaml").write_text("mit: {", encoding="utf-8")
    with pytest.raises(CourseError, match="licences.yaml is not valid YAML"):
        catalog.licences(tmp_path / "catalog")


def test_odd_questions_in_a_sentence():
    with pytest.raises(CourseError, match="purpose 'sell' is not known"):
        licensing.Use("sell")
    for odd in (-1, "40m", True, float("nan"), float("inf"), -float("inf"), [4]):
        for name in ("revenue", "monthly_users"):
            with pytest.raises(CourseError, match=f"{name} is .*; write a number that is not neg"):
                licensing.Use(**{name: odd})
    with pytest.raises(CourseError, match="monthly_users is None"):
        licensing.Use(monthly_users=None)
    for odd in ("no", 1, "yes"):
        with pytest.raises(CourseError, match="commercial is .*; write True or False"):
            licensing.Use(commercial=odd)
    for odd in ({"region": 49}, {"currency": None}):
        with pytest.raises(CourseError, match="write a code in quotes"):
            licensing.Use(**odd)
    with pytest.raises(CourseError, match="needs a base model"):
        licensing.gate("")
    with pytest.raises(CourseError, match="use is a licensing.Use"):
        licensing.gate("embedded", use="internal")


@pytest.mark.parametrize("said", ["EU", "eu", "DE", "de ", "Germany", "european union", "Sweden"])
def test_every_way_to_say_the_union_is_the_union(said):
    found = licensing.gate("meta-llama/Llama-4-Scout-17B-16E", use=licensing.Use(region=said))
    assert found.verdict == licensing.BLOCKED


def test_a_region_is_read_or_refused():
    assert (
        licensing.Use(region="jp").region == "JP"
        and licensing.Use(currency="usd").currency == "USD"
    )
    for odd in ("Japan", "Europe", "somewhere", "D"):
        with pytest.raises(CourseError, match="cannot be read; write a country code"):
            licensing.Use(region=odd)


AMOUNTS = ["40,000,000", "40.000.000", "40 000 000", "4e7", "12 %", "-5", "", "四千万", b"4", [4]]
AMOUNTS += [(4, 5), {"USD": 4}, {4}, 4j, -0.01, False, Decimal("NaN"), np.float64("nan")]


@pytest.mark.parametrize("amount", AMOUNTS)
def test_what_is_no_amount_is_refused_in_words(amount):
    for name in ("revenue", "monthly_users"):
        with pytest.raises(CourseError, match=f"{name} is .*; write a number that is not negative"):
            licensing.Use("product", region="US", **{name: amount})


def test_an_amount_of_another_library_counts_like_any_other():
    for amount in (5e7, np.float64(5e7), np.int64(5e7), Fraction(50_000_000)):
        use = licensing.Use("product", revenue=amount, region="US")
        assert licensing.gate("LiquidAI/LFM2-1.2B", use=use).verdict == licensing.BLOCKED


def test_codes_that_no_country_has_are_no_way_around_the_union():
    for odd in ("UE", "SP", "SW", "JA", "EN", "XX", "D1", "ＤＥ", "U.S.", "Germny", "DE, FR"):
        with pytest.raises(CourseError, match="cannot be read; write a country code"):
            licensing.Use(region=odd)
    for part in ("el", "RE", "mq", "AX"):
        assert licensing.Use(region=part).region == "EU"
    assert licensing.Use(region="uk").region == "GB"
    for odd in (None, ["DE"], ("DE",), 276, float("nan")):
        with pytest.raises(CourseError, match="region is .*; write a code in quotes"):
            licensing.Use(region=odd)


@pytest.mark.parametrize("odd", [None, 7, [None], [""], ["  "], [["embedded"]], float("nan"), b"x"])
@pytest.mark.parametrize("part", ["teachers", "data", "judges"])
def test_parts_that_name_nothing_are_refused_and_not_left_out(part, odd):
    with pytest.raises(CourseError, match="write an id in quotes, or a list of them"):
        licensing.gate("embedded", **{part: odd})


def test_other_odd_arguments_in_a_sentence():
    for odd in (None, ["embedded"], 7, "  "):
        with pytest.raises(CourseError, match="needs a base model"):
            licensing.gate(odd)
    for odd in ({"by_tag": "no"}, {"by_tag": 0}, {"name": 7}, {"name": ["Llama-x"]}):
        with pytest.raises(CourseError, match="by_tag is True or False, and name is a text"):
            licensing.gate("embedded", **odd)


def test_one_name_is_a_list_of_one():
    assert (
        licensing.gate("embedded", teachers="openai/gpt-oss-20b", data="own").verdict
        == licensing.ALLOWED
    )


def test_the_model_that_was_asked_for_is_named():
    def named(base):
        return licensing.gate(base).lines[0].item

    # `embedded` is the version that was tuned to follow instructions, and is named so
    assert named("embedded") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert named("huggingfacetb/smollm2-135m") == "HuggingFaceTB/SmolLM2-135M"
    assert named("Qwen/Qwen2.5-3B-Instruct") == "Qwen/Qwen2.5-3B-Instruct"


def test_the_tag_and_the_files_can_differ():
    for row in catalog.models():
        if row["hub_tag"]:
            believed = licensing.gate(
                row["hub_id"], use=licensing.Use("published"), by_tag=True
            ).verdict
            assert believed == licensing.DUTIES  # what an Apache or MIT tag asks of who publishes
    assert (
        licensing.gate("SakanaAI/TinySwallow-1.5B-Instruct", use=licensing.Use("published")).verdict
        == licensing.BLOCKED
    )


def test_a_row_that_is_less_sure_makes_its_lines_less_sure():
    assert {
        line.confidence for line in licensing.gate("Qwen/Qwen3.8-27B").lines if line.part == "base"
    } == {"medium"}


def test_a_revenue_above_the_limit_is_blocked_and_one_below_is_not():
    def verdict(revenue):
        use = licensing.Use("product", revenue=revenue, region="US")
        return licensing.gate("LiquidAI/LFM2-1.2B", use=use).verdict

    assert verdict(5e7) == verdict(10_000_000) == licensing.BLOCKED
    assert verdict(9_999_999) != licensing.BLOCKED
    assert verdict(None) == licensing.UNKNOWN


def test_a_rule_known_not_to_hold_asks_for_nothing():
    # research is not commercial, so nobody is asked for a revenue
    use = licensing.Use("research")
    assert licensing.gate("LiquidAI/LFM2-1.2B", use=use).verdict != licensing.UNKNOWN


def test_the_picker_never_offers_what_is_blocked():
    offered = picker.matching_models(gib=80.0, mode="inference")
    blocked = {
        row["hub_id"]
        for row in catalog.models()
        if licensing.gate(row["hub_id"]).verdict == licensing.BLOCKED
    }
    assert len(offered) > 20 and not blocked & {model["model"] for model in offered}
    small = picker.matching_models(gib=4.0)
    assert all(model["GiB"] is None or model["GiB"] <= 4 for model in small)
    assert len(small) < len(offered)
    japanese = picker.matching_models(language="Japanese")
    assert all(model["Japanese"] != "weak" for model in japanese)
    permissive = picker.matching_models(licence="permissive")
    assert 0 < len(permissive) < len(picker.matching_models())


def test_the_pickers_table_escapes_what_the_catalogue_says():
    assert "No base model" in picker.models_as_html([])
    row = {"model": "<script>x</script> a & b", "verdict": "allowed", "GiB": 1.0, "Japanese": ""}
    page = picker.models_as_html([row])
    assert "<script>" not in page and "a &amp; b" in page


def test_the_picker_follows_its_controls(monkeypatch):
    import IPython.display
    import ipywidgets

    tables = []
    monkeypatch.setattr(IPython.display, "display", lambda page: tables.append(page.data))
    boxes = []
    real = ipywidgets.interactive
    monkeypatch.setattr(
        ipywidgets, "interact", lambda follow, **controls: boxes.append(real(follow, **controls))
    )
    monkeypatch.setenv("COURSE_QUIET", "1")
    picker.show_picker(gib=8.0)  # a recorded page: the table alone
    assert not boxes and "base models fit" in tables.pop()
    monkeypatch.delenv("COURSE_QUIET")
    picker.show_picker(gib=8.0)
    (box,) = boxes
    box.update()
    assert "base models fit" in tables[0]
    controls = {control.description: control for control in box.kwargs_widgets}
    changes = {"language": "Japanese", "gib": 4.0, "mode": "full", "licence": "permissive"}
    for name, value in changes.items():
        before = tables[-1]
        controls[name].value = value
        assert tables[-1] != before, name
