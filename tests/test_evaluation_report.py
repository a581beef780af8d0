"""The manager's page and the model card: complete, escaped, self-contained; and the reference adapter that chapter 08 starts from."""

import json
import re

import pytest
import yaml
from conftest import ROOT

from helpers import CourseError
from helpers.agree import report
from helpers.core import files
from helpers.measure.intervals import Share

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)


def facts(**change):
    made = {
        "pilot": "inbox",
        "about": "A shop.",
        "language": "en",
        "base": "base-model",
        "licence": "Apache-2.0",
        "adapter": "abc123",
        "profile": "cpu",
        "fields": "intent, product",
        "rows": 200,
        "train_rows": 60,
        "settings": "r 16",
        "status": "fail",
        "why": ["missed: urgency"],
        "exact": {"tuned": Share(0.58, 0.511, 0.646, 200)},
        "conditions": {"exact record": "shown", "urgency": "missed", "order_id.wrong": "open"},
        "errors": {"urgency.missed.high": (18, 5700.0), "invalid": (1, 10.0)},
        "currency": "EUR",
        "findings": ["Seeds: 50 to 58 %."],
        "limits": ["Written messages."],
        "figures": [
            {
                "name": "exact.tuned",
                "value": 0.58,
                "low": 0.511,
                "high": 0.646,
                "n": 200,
                "unit": "share",
                "how": "Wilson | 95 %",
            },
            {
                "name": "system.cost.together",
                "value": 2541.0,
                "low": None,
                "high": None,
                "n": 100,
                "unit": "EUR",
                "how": "x",
            },
            {
                "name": "mcnemar_p.tuned_rules",
                "value": 0.01,
                "low": None,
                "high": None,
                "n": 200,
                "unit": "p",
                "how": "x",
            },
        ],
    }
    return {**made, **change}


def test_the_page_says_no_and_shows_why_and_needs_nothing_from_elsewhere(tmp_path):
    (tmp_path / "dots.png").write_bytes(PNG)
    page = report.evaluation_page(facts(), [("Fields", tmp_path / "dots.png")])
    for words in (
        "No: it missed what was agreed.",
        "missed: urgency",
        "58.0 %",
        "51.1 % to 64.6 %",
        "urgency: high overlooked",
        "5,700",
        "not shown",
        "Seeds: 50 to 58 %.",
        "Written messages.",
        "no usable record",
        "data:image/png;base64,iVBOR",
    ):
        assert words in page, words
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


@pytest.mark.parametrize(
    "status, words",
    [("pass", "Yes: it met"), ("not enough rows", "Not known yet"), ("", "no yes or no")],
)
def test_every_verdict_has_its_answer(status, words):
    assert words in report.evaluation_page(facts(status=status)) and words in report.model_card(
        facts(status=status)
    )


def test_what_a_stranger_wrote_is_shown_and_not_run():
    evil = "<script>alert(1)</script>"
    page = report.evaluation_page(
        facts(findings=[evil], pilot=evil, why=[evil], errors={f"{evil}.wrong": (1, 1.0)})
    )
    assert "<script" not in page and "&lt;script&gt;" in page


def test_the_card_is_markdown_with_a_head_and_the_figures_that_matter():
    card = report.model_card(facts())
    head = yaml.safe_load(card.split("---")[1])
    assert head == {
        "base_model": "base-model",
        "license": "Apache-2.0",
        "language": "en",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
    }
    rows = [line for line in card.splitlines() if line.startswith(("| exact", "| system"))]
    assert rows == [
        "| exact.tuned | 58.0 % | 51.1 % to 64.6 % | 200 | Wilson / 95 % |",
        "| system.cost.together | 2,541 EUR |  | 100 | x |",
    ]
    assert "mcnemar" not in card and "- Written messages." in card and "None" not in card


def test_a_licence_that_nobody_has_read_does_not_break_the_head():
    head = yaml.safe_load(
        report.model_card(facts(licence="unknown: read the licence", base="own/'model'")).split(
            "---"
        )[1]
    )
    assert (head["license"], head["base_model"]) == ("unknown: read the licence", "own/'model'")


def test_a_pilot_without_a_bar_has_a_page_too():
    page = report.evaluation_page(facts(status="", conditions={}, errors={}, why=[]))
    assert (
        "What was agreed" not in page and "Which errors" not in page and "No bar was agreed" in page
    )


def test_missing_facts_and_strange_words_are_refused(tmp_path):
    lacking = facts()
    del lacking["exact"], lacking["limits"]
    with pytest.raises(CourseError, match="lacks exact, limits; run the cells above"):
        report.write_report(tmp_path, lacking)
    with pytest.raises(CourseError, match="no status 'maybe'"):
        report.model_card(facts(status="maybe"))
    assert not list(tmp_path.iterdir()), "half a report is no report"


def test_both_are_written(tmp_path):
    page, card = report.write_report(tmp_path, facts())
    assert (
        page.name == "evaluation.html"
        and card.name == "model_card.md"
        and page.read_text()
        and card.read_text()
    )


def test_the_reference_adapter_is_the_one_of_the_recorded_run_and_names_no_machine():
    from safetensors import safe_open

    place = ROOT / "data/reference/inbox/00/adapter"
    config = json.loads((place / "adapter_config.json").read_text())
    assert (
        config["base_model_name_or_path"] == "SmolLM2-135M-Instruct"
        and "/" not in config["base_model_name_or_path"]
    )
    recorded = json.loads((ROOT / "data/reference/results/00.json").read_text())["settings"]
    assert (config["r"], config["lora_alpha"]) == (recorded["r"], recorded["lora_alpha"])
    file = place / "adapter_model.safetensors"
    assert 9e6 < file.stat().st_size < 10e6 and len(files.sha256(file)) == 64
    with safe_open(file, "pt") as tensors:
        names = list(tensors.keys())
        assert len(names) == 30 * 7 * 2 and all("lora_" in name for name in names)
        kinds = {str(tensors.get_slice(name).get_dtype()) for name in names}
    assert kinds == {"F16"}
