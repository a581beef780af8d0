"""The bar of who waits: nothing on red in a notebook, and nothing of it left behind."""

import nbclient
import nbformat
import pytest

from helpers.core.progress import progress

CELL = """
import time
from helpers.core import progress as bars

bars.DELAY = 0
print("before")
seen = []
write = bars.NotebookLine.write
def spy(line, text):
    seen.append(text)
    write(line, text)
bars.NotebookLine.write = spy
for _ in bars.progress(range(4), "answering"):
    time.sleep(0.15)
with bars.progress(None, "teacher", total=3) as bar:
    bar.update(3)
print("shown", any("answering" in text and "2/4" in text for text in seen))
"""


def test_a_bar_in_a_notebook_is_not_red_and_leaves_no_text(monkeypatch):
    monkeypatch.delenv("COURSE_QUIET", raising=False)
    cell = nbformat.v4.new_code_cell(CELL)
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell])).execute()
    outputs = cell.outputs
    assert {one.get("name") for one in outputs} <= {"stdout", None}, "stderr stands on red"
    shown = [one["data"] for one in outputs if one.output_type == "display_data"]
    assert shown and all(data == {"text/plain": ""} for data in shown)
    assert "".join(one.get("text", "") for one in outputs) == "before\nshown True\n"


def test_a_short_wait_shows_no_bar_and_a_terminal_gets_it_on_stderr(monkeypatch, capsys):
    monkeypatch.delenv("COURSE_QUIET", raising=False)
    assert list(progress(range(3), "answering")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("helpers.core.progress.DELAY", 0)
    assert list(progress(range(3), "answering")) == [0, 1, 2]
    told = capsys.readouterr()
    assert told.out == "" and "answering" in told.err


@pytest.mark.parametrize("title", ["answering", "teacher"])
def test_a_recorded_run_shows_none(monkeypatch, capsys, title):
    monkeypatch.setenv("COURSE_QUIET", "1")
    monkeypatch.setattr("helpers.core.progress.DELAY", 0)
    assert list(progress(range(3), title)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
