"""The study over small public draws: its means, its draws, its stored figures."""

import json

import numpy as np
import pytest

from benchmarks import public_draws, robust
from helpers import ROOT
from helpers.core.text import same_message

STORED = ROOT / "data/reference/results/robust.json"
WAYS = ("majority", "rules", "tfidf", "embeddings", "tuned", "system")


def test_a_mean_over_draws_counts_every_draw_alike():
    few = {"a": np.ones(10, bool), "b": np.zeros(10, bool)}
    many = {"a": np.zeros(1000, bool), "b": np.zeros(1000, bool)}
    value, low, high = robust.mean_difference([few, many], "a", "b")
    assert value == low == high == 0.5
    mixed = {"a": np.arange(1000) % 2 == 0, "b": np.zeros(1000, bool)}
    value, low, high = robust.mean_difference([mixed, {"a": many["a"]}], "a", "b")
    assert value == 0.5 and 0.46 < low < 0.49 < 0.51 < high < 0.54, "a draw without b is left out"


def test_draws_learn_from_no_row_that_they_are_tested_on():
    pairs = [(f"play song {n}", "play") for n in range(20)]
    pairs += [(f"stop song {n}", "stop") for n in range(20)]
    splits = {"train": pairs, "test": [("Play song 3!", "play"), ("new", "stop"), ("x", "other")]}
    draw = public_draws._draw("made", splits, ["stop", "play"], 0, 20)
    assert [row["intent"] for row in draw.train].count("play") == 20
    known = {same_message(row["text"]) for row in draw.train}
    assert [row["text"] for row in draw.test] == ["new"] and "new" not in known
    again = public_draws._draw("made", splits, ["stop", "play"], 0, 20)
    assert again.train == draw.train and draw.pilot.fields["intent"].values == ["play", "stop"]


def test_a_listed_prompt_names_the_labels():
    pairs = {"train": [("a", "play"), ("b", "stop")], "test": []}
    draw = public_draws._draw("made", pairs, ["stop", "play"], 0, 1)
    listed = robust.ListedPilot.model_construct(**dict(draw.pilot))
    assert "play, stop" in listed.instruction(full=False)
    assert "play" not in draw.pilot.instruction(full=False)


def test_stored_figures_agree_with_each_other():
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    value = {figure["name"]: figure["value"] for figure in stored["figures"]}
    draws = stored["settings"]["robust"]["draws"]
    assert len(draws) >= 6
    for draw in draws:
        share = {way: value[f"robust.{draw}.{way}"] for way in WAYS}
        best = max(share[way] for way in WAYS if way != "system")
        gap = value[f"robust.{draw}.system_minus_best_single"]
        assert gap == pytest.approx(share["system"] - best, abs=1e-6), draw
        gap = value[f"robust.{draw}.system_minus_embeddings"]
        assert gap == pytest.approx(share["system"] - share["embeddings"], abs=1e-6), draw
    for one, other in (("tuned", "tfidf"), ("system", "embeddings")):
        gaps = [value[f"robust.{draw}.{one}"] - value[f"robust.{draw}.{other}"] for draw in draws]
        assert value[f"robust.{one}_minus_{other}"] == pytest.approx(np.mean(gaps), abs=1e-6)


def test_the_readme_says_what_was_measured():
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    figures = {figure["name"]: figure for figure in stored["figures"]}
    words = (ROOT / "README.md").read_text(encoding="utf-8").split("## Never worse")[1]
    words = " ".join(words.split("\n## ")[0].split())
    for name, sentence in (
        ("tuned_minus_tfidf", "the tuned model is {:.1f} points [{:.1f}, {:.1f}] better than"),
        ("system_minus_embeddings", "The *system* is {:.1f} points [{:.1f}, {:.1f}] better than"),
        ("system_minus_tuned", "and {:.1f} [{:.1f}, {:.1f}] better than the tuned model"),
    ):
        figure = figures[f"robust.{name}"]
        shown = [100 * figure[key] for key in ("value", "low", "high")]
        assert sentence.format(*shown) in words, name
    figure = figures["robust.tuned_minus_embeddings"]
    shown = [-100 * figure["value"], 100 * figure["low"], 100 * figure["high"]]
    assert "{:.1f} points worse [{:+.1f}, {:+.1f}]".format(*shown) in words
    below = []
    for draw in stored["settings"]["robust"]["draws"]:
        gap = 100 * figures[f"robust.{draw}.system_minus_best_single"]["value"]
        if gap < -1:
            below.append(-gap)
    assert f"on two it is {min(below):.1f} and {max(below):.1f} points below" in words
    assert len(below) == 2
