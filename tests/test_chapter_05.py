"""Chapter 05 on a pilot of one's own, with the course's study beside it; and the study's figures counted again."""

import json
import re

import pytest
from test_notebooks import label_pilot

from helpers import ROOT, course
from helpers.tune import students


def test_chapter_05_on_a_pilot_of_ones_own(tmp_path, tiny, capsys):
    place = label_pilot(tmp_path, tiny)
    assert course.main(["--pilot", str(place), "--profile", "smoke", "--only", "05"]) == 0, (
        capsys.readouterr().err
    )
    folder = tmp_path / "runs/mine/smoke/05"
    result = json.loads((folder / "results.json").read_text())
    figures = {f["name"]: f["value"] for f in result["figures"]}
    assert figures["training.speedup"] > 0 and figures["resume.weight_difference"] == 0
    assert figures["merge.same_answers"] == 1 and figures["merge.logit_difference"] < 1e-2
    assert figures["guard.adapter_moved"] > figures["guard.adapter_moved_without"]
    assert figures["end_token.end_token_trained"] > figures["end_token.end_token_masked"]
    said = (folder / "05_qlora.ipynb").read_text()
    assert (
        "Stopped at step 3 of 4: the checkpoint of step 2 is kept" in said
        and "learning_rate was 0.001 and is 0.0005" in said
    )
    assert "study of the pilot inbox" in said, "the course's study is named as such"
    assert not (folder / "4_rows.png").exists() and not (folder / "5_ranks.png").exists(), (
        "its pictures are not this pilot's"
    )
    assert not any("study" in line for line in result["settings"]["lead"])


@pytest.fixture(scope="module")
def recorded():
    cells = [
        json.loads(line)
        for line in (ROOT / "data/reference/inbox/05/study_cells.jsonl").read_text().split("\n")
        if line
    ]
    result = json.loads((ROOT / "data/reference/results/05_study.json").read_text())
    return cells, {f["name"]: f for f in result["figures"]}, result["settings"]


def test_the_students_of_study_05_give_its_figures(recorded):
    cells, figures, _ = recorded
    arms = {cell["arm"] for cell in cells}
    assert {
        "fast",
        "default",
        "lora",
        "full",
        "packs of 256",
        "rows 15",
        "rows 500",
        "rank 4",
        "after Evol",
        "mix",
    } <= arms
    for arm in arms:
        own = [cell for cell in cells if cell["arm"] == arm]
        name = re.sub(r"\W+", "_", arm.lower())
        assert all(len(cell["right"]["test"]) == 200 for cell in own) and len(
            {cell["seed"] for cell in own}
        ) == len(own)
        share = sum(sum(cell["right"]["test"]) for cell in own) / (200 * len(own))
        assert figures[f"exact.{name}"]["value"] == pytest.approx(share, abs=1e-6)
        assert figures[f"exact.{name}"]["seeds"] == sorted(cell["seed"] for cell in own)
    for a, b in (("fast", "default"), ("full", "fast"), ("rows 500", "rows 250")):
        stored = figures[f"exact.{a.replace(' ', '_')}_minus_{b.replace(' ', '_')}"]
        gap = students.gap(
            [cell for cell in cells if cell["seed"] in stored["seeds"]], a, b, "test"
        )
        assert (stored["value"], stored["low"], stored["high"]) == pytest.approx(
            (gap.value, gap.low, gap.high), abs=1e-6
        )


def test_fast_and_default_students_differ_in_the_choices_alone(recorded):
    cells, _, settings = recorded
    fast = next(cell for cell in cells if cell["arm"] == "fast")
    slow = next(cell for cell in cells if cell["arm"] == "default")
    assert (
        fast["rows"] == slow["rows"] == 60
        and fast["settings"] == settings["fast"]
        and slow["settings"] == settings["default"]
    )
    assert (
        slow["settings"]["load"] == "float32"
        and slow["settings"]["checkpointing"]
        and not slow["settings"]["packing"]
    )


def test_the_prose_quotes_the_study(recorded):
    _, figures, settings = recorded
    notebook = json.loads((ROOT / "notebooks/05_qlora.ipynb").read_text())
    prose = " ".join(
        " ".join("".join(c["source"]).split())
        for c in notebook["cells"]
        if c["cell_type"] == "markdown"
    )

    def share(name):
        return f"{figures['exact.' + name]['value']:.0%}".replace("%", " %")

    def points(name):
        return f"{abs(100 * figures['exact.' + name]['value']):.1f}"

    def intent(name):
        return f"{figures['intent.' + name]['value']:.0%}".replace("%", " %")

    for words in (
        f"it is {points('fast_minus_default')} points better",
        f"{points('packs_of_256_minus_fast')} points more over the two seeds",
        f"{share('fast')} with the 60 labelled rows, {share('rows_500')} with 440 curated ones",
        f"reach {share('no_more_rows')}: {points('no_more_rows_minus_fast')} points come from training longer",
        f"The made rows add {points('rows_500_minus_no_more_rows')} points",
        f"falls by {points('rows_120_minus_fast')}",
        f"ahead of QLoRA, by {points('full_minus_fast')} points",
        f"the four bits gains {points('lora_minus_fast')} points",
        f"{figures['ship_bytes.full']['value'] / 1e6:.0f} MB to ship instead of {figures['ship_bytes.fast']['value'] / 1e6:.0f}",
        f"at most {share('mix')} of the records",
        f"falls from {intent('after_lamini')} after LaMini's rows to "
        f"{intent('after_orca')} after Orca's",
        f"back at {intent('after_evol')} after Evol's; the mix has {intent('mix')}",
    ):
        assert words in prose, words
    assert (
        figures["exact.after_evol_minus_mix"]["low"]
        < 0
        < figures["exact.after_evol_minus_mix"]["high"]
    )
    assert figures["exact.rank_64_minus_fast"]["low"] < 0 and settings["seed_rows"] == 60
