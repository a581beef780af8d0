"""The course on Google Colab: what stays there, what is upgraded, what the recorded run showed."""

import json

import pytest

from benchmarks.everywhere import add_figures


def test_a_part_replaces_its_own_figures_and_no_others(tmp_path):
    page = tmp_path / "everywhere.json"

    def add(part, *names, **settings):
        figures = [{"name": name, "value": 1.0, "how": "made up"} for name in names]
        add_figures(part, figures, settings, page)
        return [figure["name"] for figure in json.loads(page.read_text())["figures"]]

    assert add("two", "two.a", "shared.b", seconds=3) == ["shared.b", "two.a"]
    assert add("one", "one.a", "one.b", seconds=4) == ["one.a", "one.b", "shared.b", "two.a"]
    assert add("two", "two.c", seconds=5) == ["one.a", "one.b", "two.c"]
    assert json.loads(page.read_text())["seconds"] == 9
    with pytest.raises(ValueError, match="another part"):
        add("two", "one.a")
    with pytest.raises(ValueError, match="how"):
        add_figures("two", [{"name": "two.d", "value": 1.0, "how": ""}], {}, page)
    with pytest.raises(ValueError, match="twice"):
        add("two", "two.d", "two.d")
