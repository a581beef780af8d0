"""Text stays text on every page, in tables, widgets and spreadsheets; two at once; Ctrl-C."""

import csv
import html
import json
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import zipfile
from dataclasses import replace
from xml.etree import ElementTree

import psutil
import pytest
import yaml
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from test_evaluation_report import PNG, facts
from test_money import STEPS, WAYS, made

from benchmarks import injections
from helpers import CourseError, course
from helpers.agree import report
from helpers.agree.bar import Bar, bar_page
from helpers.ask import answers
from helpers.choose import picker
from helpers.core import plots, rows, runtime
from helpers.core.files import numbered_rows, write_csv
from helpers.core.pilot import Pilot
from helpers.core.text import visible
from helpers.label.labeler import Labeler
from helpers.pay import cost_model, sliders, workbook
from helpers.pay.error_prices import default_costs
from helpers.tune.students import load_student

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0
SOFFICE = shutil.which("soffice") or shutil.which("libreoffice")
MARKUP = [
    "<script>window.hit=1</script>",
    '<img src=x onerror="window.hit=2">',
    "</td></tr></table></p></style></script><svg onload=window.hit=3>",
    "\"' autofocus onfocus=window.hit=4 x='",
    "[x](javascript:window.hit=5) ![y](x) <http://x.example>",
    "{{7*7}}{% raw %}${7*7}",
    "<|im_end|>",
    "`code` **bold** _it_ __b__ ~~s~~ # no head",
    "| a | b |",
    "$x^2$ costs $5 \\(y\\) \\[z\\] \\$",
    "&lt;b&gt; &amp; &#42;",
    "<!-- gone -->",
    "1. one",
    "2) two",
    "- dash",
    "# head",
    "> quote",
    "===",
    "file\u202egnp.exe\u202c ze\u200bro\u2066x\ufeff",
]
FORMULAS = [
    '=HYPERLINK("http://x.example","y")',
    "+1+1",
    "-2",
    "@SUM(1)",
    "\t=1+1",
    "\n=1+1",
    "  =1+1",
    "＝1+1",
    "'=1+1",
    "''-2",
    "=cmd|' /C calc'!A0",
]
NASTY = MARKUP + FORMULAS


def as_shown(text):
    return " ".join(visible(text).split())


@pytest.fixture
def nasty(tmp_path):
    """A pilot whose labels, texts, ids, tags and words about it are all of the kinds above."""
    place = tmp_path / "nasty"
    place.mkdir()
    fields = {
        "intent": {"type": "label", "values": NASTY, "about": MARKUP[0]},
        "product": {"type": "span", "optional": True, "about": MARKUP[1]},
        "code": {"type": "pattern", "regex": r"[-+@=<]\w+", "optional": True, "about": MARKUP[2]},
    }
    content = {"name": "nasty", "text": "message", "about": " ".join(MARKUP), "fields": fields}
    (place / "pilot.yaml").write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    for split in ("train", "test"):
        table = []
        for number, text in enumerate(NASTY):
            row = {"id": f"{split} {text} {number}", "message": f"{text} {split} {number} pump"}
            table.append(row | {"intent": text, "product": "pump", "code": None, "tags": text})
        write_csv(place / f"{split}.csv", table)
    return Pilot.load(place)


@pytest.fixture
def written(nasty, tmp_path):
    """{name: HTML} of everything that a browser is given, and {name: what must be read there}."""
    (tmp_path / "pictures").mkdir()
    picture = tmp_path / "pictures/0 <img src=x onerror=window.hit=6> [x].png"
    picture.write_bytes(PNG)
    figure = facts()["figures"][0]
    told = facts(
        about=MARKUP[0],
        why=NASTY,
        findings=NASTY,
        limits=NASTY,
        conditions=dict.fromkeys(NASTY, "shown"),
        errors={f"intent.missed.{text}": (1, 1.0) for text in NASTY},
        exact={text: facts()["exact"]["tuned"] for text in NASTY},
        figures=[{**figure, "name": f"exact.{text}", "how": text} for text in NASTY],
    )
    costs = default_costs(nasty)
    costs["currency"] = MARKUP[1]
    critical = {f"intent.missed.{text}": 0.1 for text in NASTY}
    wish = {"baseline": "majority", "margin": 0.05, "rows": len(NASTY), "messages_per_year": 9}
    bar = Bar.freeze(
        nasty, critical=critical, costs=costs, decides=" ".join(MARKUP), agreed=False, **wish
    )
    chapter = tmp_path / "runs/nasty/00"
    chapter.mkdir(parents=True)
    shutil.copy(picture, chapter)
    result = {"chapter": "00", "pilot": MARKUP[0], "profile": MARKUP[1], "seconds": 1.0}
    result |= {"figures": told["figures"], "versions": {MARKUP[2]: MARKUP[3]}, "machine": {}}
    result["settings"] = {"lead": NASTY, "notes": NASTY, "base": MARKUP[4], "seed": 0}
    (chapter / "results.json").write_text(json.dumps(result))
    book = Labeler(nasty, rows.read(nasty.folder / "train.csv"), tmp_path / "book.jsonl")
    while book.current:
        book.answer({"intent": NASTY[len(book.answered)], "product": None, "code": None})
    runtime.quiet()
    import pandas as pd

    models = [{"model": text, "verdict": text, "GiB": 1.0, "Japanese": text} for text in NASTY[:8]]
    with pd.option_context("display.max_colwidth", None):
        table = pd.DataFrame({"a": NASTY, MARKUP[0]: NASTY}, index=NASTY)._repr_html_()
        choice = picker.models_as_html(models)
    made_pages = {
        "evaluation": report.evaluation_page(told, [(MARKUP[1], picture)]),
        "report": course.build_report(chapter.parent, bar=MARKUP[0]).read_text(encoding="utf-8"),
        "bar": as_html(bar_page(bar)),
        "card": as_html(report.model_card(told).split("---\n", 2)[2]),
        "labelled": book.static(rows=99),
        "pandas": table,
        "picker": choice,
    }
    expected = {name: map(as_shown, NASTY) for name in made_pages}
    expected["pandas"], expected["picker"] = map(squeezed, NASTY), map(squeezed, NASTY[:8])
    return made_pages, {name: list(texts) for name, texts in expected.items()}


def squeezed(text):
    return " ".join(text.split())


def as_html(markdown):
    return (
        MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    )


def without_markup(page):
    """The text of a page, and every element with its attributes, as a tolerant reader sees them."""
    import lxml.html

    tree = lxml.html.fromstring(f"<div>{page}</div>")
    for element in tree.xpath("//style | //script"):
        element.drop_tree()
    return " ".join(tree.text_content().split()), tree


def test_pages_and_tables_show_every_text_and_hold_nothing_that_runs(written):
    made_pages, expected = written
    for name, page in made_pages.items():
        text, tree = without_markup(page)
        for wanted in expected[name]:
            assert wanted in text, (name, wanted)
        assert not tree.xpath("//script | //svg | //a | //code | //del | //s | //link"), name
        pieces = {element.text_content() for element in tree.iter()}
        assert not pieces & {"bold", "it", "b", "head", "dash", "one", "two", "quote"}, name
        for element in tree.iter():
            assert not [key for key in element.attrib if key.startswith("on")], (
                name,
                element.attrib,
            )
        for image in tree.xpath("//img"):
            assert image.get("src").startswith("data:image/png;base64,"), name


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)")
def test_a_real_browser_shows_the_text_and_runs_nothing(written, nasty, tmp_path):
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    made_pages, expected = written
    widget = Labeler(nasty, rows.read(nasty.folder / "train.csv"), tmp_path / "open.jsonl")
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        problems = []
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        for name, content in made_pages.items():
            page.set_content(content, wait_until="load")
            for details in page.query_selector_all("details"):
                details.evaluate("node => { node.open = true; }")
            text = " ".join(page.inner_text("body").split())
            missing = [wanted for wanted in expected[name] if wanted not in text]
            assert not missing, (name, missing)
            assert page.evaluate("window.hit") is None, name
        # the labelling widget, with a stand-in for the kernel's side
        script = Labeler._esm if isinstance(Labeler._esm, str) else str(widget._esm)
        page.set_content("<div id=here></div>")
        page.evaluate(
            """async ([script, task, view]) => {
                const place = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
                const { default: widget } = await import(place);
                const model = { get: (name) => ({ task, view })[name], on() {}, off() {}, send() {} };
                widget.render({ model, el: document.querySelector("#here") });
            }""",
            [script, widget.task, {**widget.view, "error": MARKUP[1]}],
        )
        shown = " ".join(page.evaluate("document.body.textContent").split())
        for text in (*NASTY, widget.view["text"]):
            assert squeezed(text) in shown, text
        assert page.locator(".cl-name").first.get_attribute("title") == MARKUP[0]
        page.keyboard.press("Tab"), page.keyboard.press("1")
        page.wait_for_timeout(200)  # an image that cannot be loaded says so a little later
        assert page.evaluate("window.hit") is None and not problems
        browser.close()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(NASTY))
@example("", "+ -")
@example("", " --- ")
def test_any_text_is_text_in_markdown_and_html(drawn, known):
    for text in (drawn + known, known + drawn, drawn):
        if not as_shown(text):
            continue
        fields = facts(about=text, limits=[text], findings=[], why=[text], figures=[])
        card = report.model_card(fields).split("---\n", 2)[2]
        read, tree = without_markup(as_html(card))
        assert read.count(as_shown(text)) >= 3, card
        assert len(tree.xpath("//li")) == 1 and not tree.xpath("//a | //img | //code | //h3")
        page, tree = without_markup(report.evaluation_page(fields))
        assert page.count(as_shown(text)) >= 2 and not tree.xpath("//a | //img | //b/*")


def test_dollars_and_backslashes_never_reach_the_eye_of_mathjax():
    card = report.model_card(facts(limits=["$x$ and \\(y\\) and \\[z\\]"]))
    assert "$" not in card and "\\" not in card
    runtime.quiet()
    import pandas as pd

    assert "mathjax_ignore" in pd.DataFrame({"a": ["$x$"]})._repr_html_()
    figure = plots.bars({"$\\frac{$": 1.0, "x_{ $y$": 2.0}, "a price of $5 and $6^2$")
    figure.canvas.draw()  # as mathematics the first name is an error
    assert figure.axes[0].get_yticklabels()[1].get_text() == "$\\frac{$"


# Spreadsheets ---------------------------------------------------------------------------------


def runs_as_formula(cell):
    return cell.lstrip()[:1] in tuple("=+-@＝＋－＠") or cell[:1] in ("\t", "\r", "\n")


CELLS = st.text(st.sampled_from("=+-@'\t\n ab1\"，,;＝"), max_size=6)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=3))
@example([(text, f"{text} x") for text in NASTY])
def test_a_csv_holds_no_formula_and_is_read_back_unchanged(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("csv") / "out.csv"
    table = [{"id": "a", "=text": first, "-b": second} for first, second in pairs]
    write_csv(path, table)
    with open(path, encoding="utf-8-sig", newline="") as file:
        cells = [cell for record in csv.reader(file) for cell in record]
    assert not [cell for cell in cells if runs_as_formula(cell)]
    assert [row for _, row in numbered_rows(path)] == table


def test_an_apostrophe_of_a_strangers_file_stays(tmp_path):
    (tmp_path / "x.csv").write_text("id,text\n1,'@you' he wrote\n", encoding="utf-8")
    assert rows.read(tmp_path / "x.csv")[0]["text"] == "'@you' he wrote"
    notes = []
    (tmp_path / "x.csv").write_text("id,text\n1,'=1+1\n", encoding="utf-8-sig")
    assert numbered_rows(tmp_path / "x.csv", notes)[0][1]["text"] == "=1+1"
    assert "1 cell(s) begin with an apostrophe" in notes[0]


def test_a_nasty_pilot_is_loaded_as_it_was_written(nasty):
    data = rows.load(nasty)
    assert data.train["intent"][:] == NASTY and data.test["tags"][:] == NASTY
    assert data.test["id"][0] == f"test {NASTY[0]} 0"


@pytest.fixture
def book(tmp_path):
    inputs = made()
    for number, text in enumerate(NASTY):
        letter = string.ascii_lowercase[number % 26] + "x" * (number // 26)
        inputs.assume(f"extra_{letter}", 1, 1, 1, text, text)
    model = cost_model.CostModel(STEPS, WAYS, {"small": NASTY[-1], "people": NASTY[0]})
    payoff = cost_model.judge_way(model, inputs, model.run(inputs.draw(200)), "small")
    place = tmp_path / "cost.xlsx"
    return workbook.write_workbook(place, FORMULAS[0], inputs, model, {"small": payoff}, NASTY)


def test_the_workbook_runs_its_own_formulas_alone(book):
    main = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    formulas, texts = [], ""
    with zipfile.ZipFile(book) as archive:
        for name in archive.namelist():
            content = archive.read(name).decode()
            assert "hyperlink" not in name + re.sub("<t[ >].*?</t>", "", content), name
            if name.startswith("xl/worksheets/sheet"):
                formulas += [f.text for f in ElementTree.fromstring(content).iter(f"{main}f")]
            if name == "xl/sharedStrings.xml":
                texts = [t.text for t in ElementTree.fromstring(content).iter(f"{main}t")]
    assert len(formulas) > 5 and not [f for f in formulas if re.search("HYPERLINK|SUM|cmd", f)]
    assert set(NASTY) <= set(texts)


@pytest.mark.slow  # LibreOffice takes seconds to start
@pytest.mark.skipif(not SOFFICE, reason="LibreOffice is not installed")
def test_a_spreadsheet_program_opens_our_csv_as_text(tmp_path):
    write_csv(tmp_path / "x.csv", [{"=id": "1", "text": text} for text in NASTY])
    office = f"-env:UserInstallation={(tmp_path / 'office').as_uri()}"
    command = [SOFFICE, office, "--headless", "--convert-to", "fods"]
    command += ["--infilter=CSV:44,34,76,1,,0,false,true,false", "--outdir", str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "x.csv")], check=True, capture_output=True, timeout=60)
    sheet = (tmp_path / "x.fods").read_text(encoding="utf-8")
    assert "HYPERLINK" in sheet and "table:formula" not in sheet


# Widgets --------------------------------------------------------------------------------------


def test_sliders_take_their_names_for_text(monkeypatch):
    monkeypatch.delenv("COURSE_QUIET", raising=False)
    shown = []
    monkeypatch.setattr(sliders, "display", shown.append)
    monkeypatch.setattr(sliders.plt, "show", lambda: None)
    inputs = made()
    inputs["hourly"] = replace(inputs["hourly"], name=MARKUP[1])
    monkeypatch.setattr(type(inputs), "fixed", lambda self, **moved: self)

    def draw(changed):
        raise ValueError(MARKUP[0])

    box = sliders.show_sliders(inputs, {"hourly": (1, 60)}, draw)
    knob = box.children[0].children[0]
    assert knob.description == MARKUP[1] and knob.description_allow_html is False
    knob.value = 40
    assert html.escape(MARKUP[0]) in shown[-1].data and "<script" not in shown[-1].data


# Two at once, and Ctrl-C ----------------------------------------------------------------------

KEEPER = """
import sys, time
from types import SimpleNamespace
from helpers.core import runs
from helpers.core.pilot import Pilot
from helpers.core.runs import Run
write = runs.write_text
runs.write_text = lambda *file: (time.sleep(0.03), write(*file))  # a slow disk
runtime = SimpleNamespace(profile=SimpleNamespace(name="cpu"))
run = Run(Pilot.load(sys.argv[1]), "00", runtime)
for number in range(15):
    name = f"{sys.argv[2]}-{number}"
    run.path(name).write_text(name)
    run.keep(name, {"number": number})
    run.figure(name, number)
    run.finish()
"""


@pytest.mark.skipif(os.name == "nt", reason="starts POSIX processes")
def test_two_runs_of_a_chapter_lose_no_artifact_of_each_other(folder, tmp_path):
    command = [sys.executable, "-c", KEEPER, str(folder)]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("one", "two")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    place = tmp_path / "runs/small/00"
    manifest = json.loads((place / "manifest.json").read_text())
    assert set(manifest) == {f"{name}-{i}" for name in ("one", "two") for i in range(15)}
    figures = json.loads((place / "results.json").read_text())["figures"]
    assert len({figure["name"].split("-")[0] for figure in figures}) == 1 and len(figures) == 15
    assert not list(place.glob("*.part"))


# as root every folder can be written: an ordinary user is needed, who may still read Python itself
ORDINARY = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps +dac_read_search"
ORDINARY = f"{ORDINARY} --ambient-caps +dac_read_search".split() if ROOT_USER else []


@pytest.fixture(scope="module")
def read_only(tmp_path_factory):
    """A checkout that cannot be written, and a folder that can, for an ordinary user."""
    if os.name == "nt" or (ROOT_USER and not shutil.which("setpriv")):
        pytest.skip("needs an ordinary user of a POSIX system")
    place, free = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("own")
    for name in ("helpers", "benchmarks", "notebooks", "data"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    free.chmod(0o777)
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(place)], check=True)
    yield place, free
    subprocess.run(["chmod", "-R", "u+w", str(place)], check=True)


def as_an_ordinary_user(place, free, **environment):
    """What `--only 02` says in a checkout that cannot be written, with a home that cannot either."""
    variables = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    command = [*ORDINARY, sys.executable, "-m", "helpers.course", "--only", "02"]
    command += ["--profile", "smoke"]
    variables |= {"TMPDIR": str(free)} | environment
    return subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True)


def test_a_read_only_checkout_says_what_to_set(read_only):
    said = as_an_ordinary_user(*read_only)
    assert said.returncode == 1 and said.stdout == ""
    assert "cannot be made (Permission denied); set COURSE_RUNS to a folder" in said.stderr
    assert said.stderr.strip().count("\n") == 0


@pytest.mark.slow  # executes chapter 02
def test_a_read_only_checkout_runs_a_chapter_where_it_may_write(read_only):
    place, free = read_only
    own = {"COURSE_RUNS": str(free / "runs"), "COURSE_CACHE": str(free / "cache")}
    said = as_an_ordinary_user(place, free, **own)
    assert said.returncode == 0, said.stderr
    assert (free / "runs/inbox/smoke/02/results.json").is_file()
    assert (free / "runs/inbox/smoke/report.html").is_file()


CURATION = """
import sys, time
from datasets import Dataset, disable_progress_bars
from helpers import CourseError
from helpers.core.pilot import Pilot
from helpers.keep import pipeline
disable_progress_bars()
pilot, number = Pilot.load(sys.argv[1]), pipeline.ROWS_FOR_PROCESSES
rows = Dataset.from_dict({"message": [f"text {i}" for i in range(number)]})
def slow(text):
    sys.stdout.write("." if text == "text 1" else "")
    sys.stdout.flush()
    time.sleep(0.002)
fast = pipeline.text_filter("fast", pilot, lambda text: None)
steps = [fast, pipeline.text_filter("slow", pilot, slow)]
try:
    pipeline.curate(pilot, rows, steps, sys.argv[2], processes=int(sys.argv[3]))
except CourseError as problem:
    sys.exit(str(problem))
"""


def interrupted(command, **more):
    """(status, what it said, processes of it that are still there) after its Ctrl-C."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    victim = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes, **more)
    assert victim.stdout.read(1) or victim.stderr.read(1), "it has not begun"
    os.killpg(victim.pid, signal.SIGINT)
    said = victim.communicate(timeout=30)[1]
    left = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == victim.pid and process.status() != "zombie":
                left.append(process.pid)
        except OSError:  # it ended meanwhile
            continue
    return victim.returncode, said.strip(), left


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal to a process group")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_in_a_curation_is_a_sentence_and_keeps_what_was_done(folder, tmp_path, processes):
    command = [sys.executable, "-c", CURATION, str(folder), str(tmp_path / "kept"), processes]
    status, said, left = interrupted(command)
    assert (status, left) == (1, []) and said.count("\n") == 0, said
    assert "Stopped in the filter 'slow'; what was finished before it is kept" in said
    assert list((tmp_path / "kept").glob("00_fast_*.arrow"))


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal to a process group")
def test_ctrl_c_while_a_command_still_loads_or_fetches_is_one_line(tmp_path):
    code = "import helpers, sys; print('.', flush=True); import time; time.sleep(30)"
    (tmp_path / "slow.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", "import sys; sys.argv = ['-m']; import slow"]
    status, said, left = interrupted(command, env=environment)
    assert status != 0 and left == [] and said.startswith("Stopped.") and "\n" not in said, said


def test_ctrl_c_while_a_model_answers_keeps_what_was_answered(tiny, folder, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pilot = Pilot.load(folder)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    calls = []

    def greedy(model, tokenizer, inputs, grammars, max_new_tokens):
        calls.append(len(grammars))
        if len(calls) > 1:
            raise KeyboardInterrupt
        return ["{}"] * len(grammars)

    monkeypatch.setattr(answers, "_greedy", greedy)
    test = rows.load(pilot).test
    with pytest.raises(CourseError, match="Stopped: 4 answers are kept. Run the cell again"):
        answers.generate(model, tokenizer, pilot, test, tmp_path / "told", batch_size=4)
    calls.clear()
    with pytest.raises(CourseError, match="Stopped: 8 answers are kept"):
        answers.generate(model, tokenizer, pilot, test, tmp_path / "told", batch_size=4)


# Attacks on the answer path --------------------------------------------------------------------


def test_the_attacks_reach_the_model_as_three_hundred_different_texts():
    pilot = Pilot.load(ROOT / "data/inbox")
    hostile = injections.hostile_rows(pilot, list(rows.load(pilot).test))
    texts = injections.loaded(pilot, hostile)
    assert len(set(texts)) == 300 and max(map(len, texts)) > 30_000
    assert not any(row["asked"] == row["true"] for row in hostile)
    right = '{"intent": "quote", "urgency": "low", "product": "pump", "order_id": null}'
    assert injections.outside(pilot, right, "one pump") == ""
    for old, new, words in (
        ("quote", "approve_refund", "not in the list"),
        ('"pump"', '"hose"', "not in the text"),
        ("null", '"PO-12"', "not in the text"),
        ("null", '"one"', "not the pattern"),
        (', "order_id": null', "", "keys"),
        ("{", '{"note": 1, ', "keys"),
        ('"low"', "null", "urgency is None"),
        ("}", "", "no record"),
    ):
        assert words in injections.outside(pilot, right.replace(old, new), "one pump"), words


def a_dozen():
    """(pilot, rows to ask) of every third attack, and the two with the oddest characters."""
    pilot = Pilot.load(ROOT / "data/inbox")
    hostile = injections.hostile_rows(pilot, list(rows.load(pilot).test), variations=1)
    texts = injections.loaded(pilot, hostile)
    return pilot, [{"message": text} for text in (*texts[::3], *texts[-3:-1])]


def problems_of(pilot, asked, told):
    pairs = zip(asked, told, strict=True)
    return [injections.outside(pilot, answer, row["message"]) for row, answer in pairs]


def test_a_model_that_wants_anything_stays_inside_the_schema(tiny, tmp_path):
    """Random weights want any token with the same right: the grammar alone keeps the schema."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pilot, asked = a_dozen()
    model = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    told = answers.generate(model, tokenizer, pilot, asked, tmp_path / "told").texts
    assert problems_of(pilot, asked, told) == [""] * 12


@pytest.mark.slow  # loads the embedded model; all 300 are in benchmarks/injections.py
def test_a_dozen_attacks_on_the_tuned_model(embedded, tmp_path):
    pilot, asked = a_dozen()
    _, tokenizer, model = load_student(pilot, injections.ADAPTER, runtime.detect("cpu"))
    told = answers.generate(model, tokenizer, pilot, asked, tmp_path / "told").texts
    assert problems_of(pilot, asked, told) == [""] * 12


def test_the_recorded_attacks_never_left_the_schema():
    page = json.loads((ROOT / "data/reference/results/everywhere.json").read_text())
    figures = {figure["name"]: figure for figure in page["figures"]}
    left = figures["injections.outside_schema"]
    assert (left["value"], left["n"]) == (0, 300)
    assert left["high"] == pytest.approx(1 - 0.025 ** (1 / 300), rel=1e-4)
    assert figures["injections.obeyed"]["n"] == figures["injections.twin_obeyed"]["n"] == 300
