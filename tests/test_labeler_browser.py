"""The labelling widget in a real JupyterLab and a real browser: keys only, a kernel killed in mid-labelling, shortcuts that stay apart."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import pytest
from conftest import PILOT, ROOT

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the Python package playwright is not installed"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
SHOTS = os.environ.get(
    "COURSE_SHOTS"
)  # a folder for pictures of the widget, for whoever changes its looks

ROWS = [
    "Where is the HP-40 hydraulic pump of PO-1234? PO-9999 is fine.",
    "\U0001f6a8 至急！ 油圧ポンプ HP-40 が届きません。PO-1234",
    "<script>document.title='taken'</script><b>bold</b> *star* pump",
    "a\u202egnp.exe\u202c belt, please quote",
    "x" * 20_000 + " end pump",
    "What does belt 7 cost?",
    "And belt 8?",
    "And belt 9?",
]
CELL = """
import os, sys
sys.path.insert(0, {root!r})
from helpers.label import labeler
from helpers.core.pilot import Pilot
open({pid!r}, "w").write(str(os.getpid()))
rows = [{{"id": str(i), "message": text}} for i, text in enumerate({rows!r})]
book = labeler.Labeler(Pilot.load({folder!r}), rows, {book!r})
book
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab server of its own on a free port, with a folder that holds one notebook; yields (address, folder)."""
    place = tmp_path_factory.mktemp("lab")
    (place / "small").mkdir()
    (place / "small/pilot.yaml").write_text(textwrap.dedent(PILOT))
    code = CELL.format(
        root=str(ROOT),
        folder=str(place / "small"),
        book=str(place / "book.jsonl"),
        pid=str(place / "pid"),
        rows=ROWS,
    )
    cells = [
        nbformat.v4.new_code_cell(code),
        nbformat.v4.new_code_cell("1 + 1"),
        nbformat.v4.new_code_cell("2 + 2"),
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), place / "labeler_page.ipynb"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "COURSE_QUIET"} | {
        "JUPYTER_CONFIG_DIR": str(place / "config"),
        "JUPYTER_DATA_DIR": str(place / "data"),
        "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces"),
    }
    quiet = place / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # no dialog, no network
    log = open(place / "server.log", "w")
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            f"--port={port}",
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            "--ServerApp.password=",
            "--ServerApp.disable_check_xsrf=True",
            f"--ServerApp.root_dir={place}",
        ],
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        until(
            lambda: (
                server.poll() is not None or "is running at" in (place / "server.log").read_text()
            ),
            40,
        )
        assert server.poll() is None, (place / "server.log").read_text()
        yield f"http://127.0.0.1:{port}", place
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        log.close()


@pytest.fixture(scope="module")
def page(lab):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(20_000)
        page.goto(f"{lab[0]}/lab/tree/labeler_page.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")

        yield page
        shoot(page, "last")
        browser.close()


def until(check, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {check}")


def shoot(page, name):
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SHOTS}/{name}.png")


def run_first_cell(page, place):
    """Run the cell that makes the widget in a kernel that has not run it yet; a kernel that is still starting is asked again."""
    pid, prompt = (
        place / "pid",
        page.locator(".jp-Notebook .jp-Cell").first.locator(".jp-InputArea-prompt"),
    )
    old = pid.read_text() if pid.is_file() else ""
    for _ in range(20):
        if page.locator(
            ".jp-Dialog"
        ).count():  # "Select Kernel", for who asks too early; or "Kernel Restarting"
            page.locator(".jp-Dialog .jp-mod-accept").last.click()
            page.wait_for_selector(".jp-Dialog", state="detached")
        if focused(page):
            page.keyboard.press(
                "Escape"
            )  # out of the widget: the notebook's keys are the notebook's again
        prompt.click()
        page.keyboard.press("Control+Enter")
        try:
            until(
                lambda: (
                    "*" in prompt.inner_text() or pid.is_file() and pid.read_text() not in ("", old)
                ),
                2,
            )
            until(lambda: pid.is_file() and pid.read_text() not in ("", old), 20)
            return page.wait_for_selector(".cl:not([data-old]) .cl-count")
        except AssertionError:
            continue
    raise AssertionError("the cell does not run")


def focused(page):
    return page.evaluate(
        "document.activeElement && document.activeElement.classList.contains('cl')"
    )


def tab_into(page):
    """From the notebook to the widget with the Tab key alone."""
    for _ in range(40):
        if focused(page):
            return
        page.keyboard.press("Tab")
    raise AssertionError("the Tab key does not reach the widget")


def cells(page):
    return page.evaluate(
        "[...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(c => c.className.match(/jp-\\w+Cell/)[0])"
    )


def label(page, book):
    """Label the row in view with keys only, depending on what it says; returns the record that should be stored."""
    count = page.inner_text(".cl-count")
    text = page.locator(".cl-message").evaluate("node => node.textContent")
    at, record = ROWS.index(text), {"intent": "quote", "product": None, "order_id": None}
    page.keyboard.press("2")
    if at == 0:  # Where is the [HP-40 hydraulic pump] of PO-1234
        for key in (
            "Right",
            "Right",
            "Right",
            "Right",
            "Shift+Right",
            "Shift+Right",
            "Shift+Right",
            "Shift+Left",
        ):
            page.keyboard.press(key.replace("Right", "ArrowRight").replace("Left", "ArrowLeft"))
        page.keyboard.press("Space")
        page.keyboard.press("1")
        record |= {"product": "HP-40 hydraulic pump", "order_id": "PO-1234"}
    elif (
        at == 1
    ):  # segmented Japanese behind an emoji; the last letter of the word is taken off and put back
        for key in (
            "ArrowRight",
            "ArrowRight",
            "Shift+ArrowRight",
            "Alt+ArrowLeft",
            "Alt+ArrowRight",
            "Enter",
        ):
            page.keyboard.press(key)
        page.keyboard.press("x")
        record["product"] = "油圧ポンプ"
    else:
        page.keyboard.press("x")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "before => document.querySelector('.cl-count').innerText !== before", arg=count
    )
    return str(at), record


def stored(place):
    return [json.loads(line) for line in (place / "book.jsonl").read_text().splitlines()][1:]


def test_labelling_by_keyboard_a_killed_kernel_and_shortcuts_that_stay_apart(lab, page):
    place = lab[1]
    run_first_cell(page, place)
    kinds = cells(page)
    assert page.inner_text(".cl-count") == "0 of 8" and page.title() != "taken"

    # Keys outside do nothing to the widget (the notebook's own commands get them), keys inside nothing to the notebook.
    shown = page.inner_html(".cl-body")
    page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".jp-InputArea-prompt").click()
    page.locator(".jp-Notebook .jp-Cell").nth(1).focus()
    page.keyboard.press("Escape"), page.keyboard.press("m")
    until(
        lambda: cells(page) == ["jp-CodeCell", "jp-MarkdownCell", "jp-CodeCell"]
    )  # outside, m is the notebook's own command
    for key in ("y", "2", "u", "s", "Escape", "y"):
        page.keyboard.press(key)
    until(lambda: cells(page) == kinds)
    assert page.inner_html(".cl-body") == shown and page.inner_text(".cl-count") == "0 of 8"
    page.locator(".jp-Notebook .jp-Cell").first.locator(".jp-InputArea-prompt").click()
    tab_into(page)
    for key in (
        "d",
        "d",
        "b",
        "a",
        "m",
        "r",
        "j",
        "k",
        "Shift+M",
        "0",
        "0",
        "i",
        "i",
        "Control+s",
        "PageDown",
        "y",
        "Control+Shift+Minus",
    ):
        page.keyboard.press(key)
    assert cells(page) == kinds and focused(page) and not stored(place)
    page.keyboard.press("Escape")
    assert not focused(page)
    tab_into(page)
    assert page.locator(".jp-Dialog").count() == 0

    # Two rows by keyboard, one taken back and labelled again.
    first, second = label(page, place), label(page, place)
    page.keyboard.press("u")
    page.wait_for_function("document.querySelector('.cl-count').innerText.startsWith('1 of 8')")
    until(lambda: len(stored(place)) == 3)
    assert page.locator(".cl-on").count() + page.locator(".cl-words").count() >= 2, (
        "what was answered before stands there to be changed"
    )
    again = label(page, place)
    third = label(page, place)
    assert again[0] == second[0]
    expected = [
        ("answer", first),
        ("answer", second),
        ("undo", second),
        ("answer", again),
        ("answer", third),
    ]
    until(lambda: len(stored(place)) == 5)
    assert [(e["event"], e["id"]) for e in stored(place)] == [
        (kind, row) for kind, (row, _) in expected
    ]
    assert [e["record"] for e in stored(place) if e["event"] == "answer"] == [
        r for kind, (_, r) in expected if kind == "answer"
    ]
    assert all(0 < e["seconds"] < 60 for e in stored(place) if e["event"] == "answer")
    current = page.locator(".cl-message").evaluate("node => node.textContent")

    # The kernel is killed with an answer half made; the widget says so; a new start goes on at the same row.
    before = (place / "book.jsonl").read_bytes()
    page.keyboard.press("1")
    os.kill(int((place / "pid").read_text()), signal.SIGKILL)
    for key in ("x", "x", "Enter"):
        page.keyboard.press(key)
    until(
        lambda: (
            page.locator(".jp-Dialog").count() or "does not reply" in page.inner_text(".cl-error")
        ),
        15,
    )
    assert (place / "book.jsonl").read_bytes() == before
    page.evaluate("document.querySelectorAll('.cl').forEach(node => node.dataset.old = '1')")
    run_first_cell(page, place)
    assert page.inner_text(".cl-count").startswith("3 of 8")
    assert page.locator(".cl-message").evaluate("node => node.textContent") == current
    tab_into(page)
    while not page.inner_text(".cl-count").startswith("8 of 8"):
        expected.append(("answer", label(page, place)))
    assert "stored" in page.inner_text(".cl-done")
    until(lambda: len(stored(place)) == len(expected))
    assert [e["record"] for e in stored(place) if e["event"] == "answer"] == [
        r for kind, (_, r) in expected if kind == "answer"
    ]
    assert (place / "book.jsonl").read_bytes().startswith(before) and page.title() != "taken"
    assert cells(page) == kinds
    by_id = {row: record for _, (row, record) in expected}
    assert by_id["0"]["product"] == "HP-40 hydraulic pump" and by_id["1"]["product"] == "油圧ポンプ"


def test_the_mouse_selects_a_span_and_a_full_journal_is_told(lab, page):
    place = lab[1]
    page.locator(".cl").click()
    page.keyboard.press("u")
    page.wait_for_selector(".cl-message")
    text = page.locator(".cl-message").evaluate("node => node.textContent")
    at = text.rindex("belt") if "belt" in text else text.rindex("pump")
    page.keyboard.press("Backspace"), page.keyboard.press("ArrowDown")
    box = page.evaluate(
        """at => { const walk = document.createTreeWalker(document.querySelector('.cl-message'), NodeFilter.SHOW_TEXT);
        let left = at, node = walk.nextNode(); while (node.data.length <= left) { left -= node.data.length; node = walk.nextNode(); }
        const range = document.createRange(); range.setStart(node, left); range.setEnd(node, left + 4); node.parentElement.scrollTop = 1e6;
        const r = range.getBoundingClientRect(); return [r.left, r.right, (r.top + r.bottom) / 2]; }""",
        at,
    )
    (
        page.mouse.move(box[0] + 1, box[2]),
        page.mouse.down(),
        page.mouse.move(box[1] - 1, box[2], steps=4),
        page.mouse.up(),
    )
    page.wait_for_selector(".cl-words")
    assert page.inner_text(".cl-words") in ("belt", "pump")
    page.locator(".cl-chip", has_text="order").first.click()
    assert focused(page)
    moved = place / "elsewhere.jsonl"
    (place / "book.jsonl").rename(moved)
    page.locator(".cl-main").click()
    page.wait_for_selector(".cl-error:not(:empty)")
    assert re.search(r"could not be stored in book.jsonl", page.inner_text(".cl-error"))
    moved.rename(place / "book.jsonl")
    page.locator(".cl-main").click()
    page.wait_for_selector(".cl-done")
    assert stored(place)[-1]["record"] == {
        "intent": "order",
        "product": text[at : at + 4],
        "order_id": None,
    }
    assert page.inner_text(".cl-error") == ""
