"""Chapter 01's candidates: measured in a process of their own, recorded ones only for the same rows."""

import json

import numpy as np
import pytest
from conftest import ROOT

from benchmarks import candidates
from helpers import CourseError
from helpers.choose import gguf_parts
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot


@pytest.fixture(scope="module")
def few():
    """(pilot, rows, Runtime): the bundled inbox in the smoke profile."""
    pilot, here = Pilot.load(ROOT / "data/inbox"), runtime.detect("smoke")
    return pilot, rows.load(pilot, here.profile), here


def test_what_is_asked_decides_which_recorded_answers_are_shown(few, tmp_path, monkeypatch):
    pilot, data, here = few
    shots, texts = candidates.worked_examples(pilot, data, here), data.test["message"][:]
    asked = candidates.asked_with(pilot, shots, texts)
    assert asked == candidates.asked_with(pilot, shots, list(texts))
    for other in (
        candidates.asked_with(pilot, shots[1:], texts),
        candidates.asked_with(pilot, shots, texts[1:]),
        candidates.asked_with(pilot.model_copy(update={"about": "Others."}), shots, texts),
    ):
        assert other != asked
    teacher = pilot.model_copy(update={"teacher": {"model": "another"}})
    assert candidates.asked_with(teacher, shots, texts) == asked, "it writes no answer"

    monkeypatch.setattr(candidates, "RECORDED", tmp_path / "none.json")
    assert candidates.recorded(pilot, asked) == {}
    one, other = {"asked": asked, "texts": []}, {"asked": "of other rows"}
    (tmp_path / "none.json").write_text(json.dumps({"one": one, "other": other}))
    assert candidates.recorded(pilot, asked) == {"one": one}


def test_a_candidate_is_measured_and_goes_on_after_a_kill(few, tiny, tmp_path, monkeypatch):
    pilot, data, here = few
    facts = candidates.measured_here(str(tiny), pilot, data, here, tmp_path / "tiny.json")
    assert len(facts["texts"]) == len(data.test) and facts["seconds"] > 0
    assert facts["parameters"] > 1e6
    assert facts["tokens"]["ja"] > facts["tokens"]["en"] > 0, "its tokenizer is English"
    shots = candidates.worked_examples(pilot, data, here)
    assert len(facts["bits"]) == len(data.train) - len(shots) and np.min(facts["bits"]) > 0
    assert facts["prompt_tokens"] > 100 > facts["answer_tokens"] > 0
    assert facts["asked"] == candidates.asked_with(pilot, shots, data.test["message"][:])

    def refuse(*_, **__):
        raise AssertionError("an answer that was kept is asked for again")

    monkeypatch.setattr(candidates.answers, "_greedy", refuse)
    again = candidates.measured_here(str(tiny), pilot, data, here, tmp_path / "tiny.json")
    assert again["texts"] == facts["texts"] and again["seconds"] == facts["seconds"]


def test_a_process_that_fails_says_why(few, tmp_path):
    pilot, _, here = few
    with pytest.raises(CourseError, match="no-such-model could not be measured.*no folder"):
        candidates.measure("no-such-model", pilot, here, tmp_path)


def test_only_what_is_on_this_machine_is_asked_unasked(monkeypatch):
    monkeypatch.setattr(gguf_parts, "is_fetched", lambda name, cache: name.endswith("0.5b"))
    assert candidates.at_hand() == ["embedded", "qwen2.5-coder-0.5b"]
    assert candidates.at_hand(runtime.detect("smoke")) == ["embedded"]


def test_hosted_prices_grow_with_the_tokens():
    small, large = candidates.hosted(500, 40), candidates.hosted(1000, 80)
    assert list(small) == list(candidates.HOSTED)
    for name, cost in small.items():
        assert cost["usd"] > 0 and large[name]["usd"] == pytest.approx(2 * cost["usd"])
        assert name in cost["source"]


def test_the_recorded_candidates_answer_the_bundled_test_rows():
    pilot = Pilot.load(ROOT / "data/inbox")
    here = runtime.detect("cpu")
    data = rows.load(pilot, here.profile)
    shots = candidates.worked_examples(pilot, data, here)
    found = candidates.recorded(pilot, candidates.asked_with(pilot, shots, data.test["message"][:]))
    assert list(found) == list(candidates.LADDER)
    for facts in found.values():
        assert len(facts["texts"]) == 200 and facts["licence"].lower() == "apache-2.0"
