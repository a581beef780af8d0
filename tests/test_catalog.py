"""The catalogue refuses what has no source; the gate reaches the known verdicts and never allows what it does not know."""

import csv
import re
import shutil

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
    for row in catalog.datasets():
        if row["licence"] not in catalog.licences():
            assert licensing.gate("embedded", data=[row["id"]]).verdict == licensing.UNKNOWN
    assert "did you mean 'apache-2.0'" in catalog.guess("apache", catalog.licences())


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


@pytest.mark.parametrize("name", ["prices.csv", "tokens.csv", "datasets.csv", "models.csv"])
def test_the_tables_say_where_their_facts_come_from(name):
    for row in csv.DictReader((ROOT / "data/catalog" / name).open(encoding="utf-8")):
        assert (
            row["source"]
            and re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"])
            and row["confidence"] in ("high", "medium", "low")
        ), row
        assert "memory" not in " ".join(row.values()).lower().replace("in memory", ""), row


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
        (text.replace("no,2024-11-01", "no,2024-11-01,more", 1), "more or fewer cells"),
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
    for odd in ({"revenue": -1}, {"revenue": "40m"}, {"monthly_users": True}):
        with pytest.raises(CourseError, match="write a number that is not negative"):
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


def test_one_name_is_a_list_of_one():
    assert (
        licensing.gate("embedded", teachers="openai/gpt-oss-20b", data="own").verdict
        == licensing.ALLOWED
    )


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


def test_the_picker_never_offers_what_is_blocked():
    offered = picker.matches(gib=80.0, mode="inference")
    blocked = {
        r["hub_id"]
        for r in catalog.models()
        if licensing.gate(r["hub_id"]).verdict == licensing.BLOCKED
    }
    assert len(offered) > 20 and not blocked & {f["model"] for f in offered}
    small = picker.matches(gib=4.0)
    assert all(f["GiB to tune"] is None or f["GiB to tune"] <= 4 for f in small) and len(
        small
    ) < len(offered)
    assert all(f["Japanese"] != "weak" for f in picker.matches(language="Japanese"))
    assert "No base model" in picker.table([])
    row = {
        "model": "<script>x</script>",
        "parameters": 1,
        "verdict": "allowed",
        "GiB to tune": None,
        "Japanese": "",
        "note": "a & b",
    }
    assert "<script>" not in picker.table([row]) and "a &amp; b" in picker.table([row])


def test_the_picker_follows_its_controls_and_survives_nonsense(monkeypatch):
    import IPython.display
    import ipywidgets

    shown = []
    monkeypatch.delenv("COURSE_QUIET", raising=False)
    monkeypatch.setattr(IPython.display, "display", lambda bundle, raw: shown.append(bundle))
    made = []
    monkeypatch.setattr(
        ipywidgets, "VBox", lambda children: made.append(children) or ipywidgets.Box(children)
    )
    picker.show(gib=8.0)
    controls, out = made[0]
    assert (
        "base models fit" in out.value
        and "text/html" in shown[0]
        and "application/vnd.jupyter.widget-view+json" in shown[0]
    )
    before = out.value
    controls.children[0].value = "Japanese"
    assert out.value != before
    controls.children[5].value = "a lot"
    assert "revenue is a number" in out.value
    controls.children[5].value = "4,000,000"
    assert "LFM2" in out.value
