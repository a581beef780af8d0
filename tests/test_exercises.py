"""The exercises: each solution is run, wrong answers are told, and chapters show what it gives."""

import ast
import re
from collections import Counter

import nbformat
import pytest
from conftest import ROOT
from nbformat import v4

from helpers import CourseError, course, exercises

PAGES = exercises.solution_pages()
PAGE = pytest.mark.parametrize("number", PAGES)


def read(number):
    return nbformat.read(PAGES[number], as_version=4)


def said(cells):
    texts = [o.text for cell in cells if cell.cell_type == "code" for o in cell.outputs]
    return "".join(texts).splitlines()


# The solutions ------------------------------------------------------------------------------


def test_every_chapter_has_a_page_of_solutions():
    assert list(PAGES) == [number for number, _ in course.chapters()]


@PAGE
def test_a_solution_is_right_and_the_answers_after_it_are_not(number):
    page = read(number)
    stored = said(page.cells)
    exercises.run_cells(page.cells)
    assert said(page.cells) == stored, "run: python -m helpers.exercises"
    solved = exercises.exercise_cells(page)
    assert len(solved) == 2
    for place, cells in enumerate(solved, 1):
        assert said(cells) == [f"Exercise {place}: right."]
    wrong = [line for line in stored if not line.endswith(": right.")]
    assert len(stored) == len(wrong) + 2
    assert [line for line in wrong if not re.match(r"Exercise [12]: not yet; \S", line)] == []
    counts = Counter(line[:10] for line in wrong)
    assert min(counts["Exercise 1"], counts["Exercise 2"]) >= 2


@PAGE
def test_a_chapter_shows_the_exercises_unattempted(number):
    section = exercises.unattempted(number, read(number))
    assert said(section) == [f"Exercise {place}: not attempted yet." for place in (1, 2)]
    for cell in section:
        assert "solution; unattempted" not in cell.source
        assert max(map(len, cell.source.splitlines())) <= (88 if cell.cell_type == "code" else 150)
    questions = [cell.source for cell in section if cell.cell_type == "markdown"]
    for question in questions:
        assert len(question.split(".** ", 1)[1].split()) <= 60, question


@PAGE
def test_a_page_links_its_chapter_and_says_why(number):
    cells = [cell.source for cell in read(number).cells if cell.cell_type == "markdown"]
    assert f"](../{exercises.chapter_of(number).name})" in cells[0]
    whys = [text for text in cells if text.startswith(exercises.WHY)]
    assert len(whys) == 2
    for text in whys:
        sentences = re.findall(r"[.?](?=\s|$)", text.removeprefix(exercises.WHY))
        assert 2 <= len(sentences) <= 3, text


@PAGE
def test_an_exercise_takes_no_name_away_that_its_chapter_uses(number):
    chapter = nbformat.read(exercises.chapter_of(number), as_version=4)
    above, rest = exercises.cut(chapter.cells, exercises.EXERCISES)
    others = [*above, *exercises.cut(rest, exercises.HEADING)[1]]
    taken, imports = names_of(exercises.unattempted(number, read(number)))
    used, known = names_of(others)
    assert taken & (used | known) == set()
    for name in imports & (used | known):  # the same thing under the same name
        line = re.compile(rf"import \(?.*\b{name}\b")
        assert any(line.search(cell.source) for cell in others if cell.cell_type == "code"), name


def names_of(cells):
    """(names that code cells give a value at their top level, names that they import)."""
    given, imported = set(), set()
    for cell in cells:
        if cell.cell_type != "code":
            continue
        source = re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.M)
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                given.add(node.name)
                continue
            inner = {  # the names of a comprehension end with it
                id(name)
                for part in ast.walk(node)
                if isinstance(part, ast.comprehension)
                for name in ast.walk(part.target)
            }
            for part in ast.walk(node):
                if id(part) in inner:
                    continue
                if isinstance(part, ast.alias):
                    imported.add((part.asname or part.name).split(".")[0])
                elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    given.add(part.id)
    return given, imported


def test_the_chapters_show_what_the_solutions_give():
    assert exercises.differing() == [], "run: python -m helpers.exercises"


# Marking ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer, words",
    [
        (None, "not attempted yet."),
        (lambda: 2, "right."),
        (lambda: 3, "not yet; 3 is odd."),
        (lambda: 5, "not yet; is 5 even?"),
        (lambda: 1 / 0, "not yet; it stops with ZeroDivisionError: division by zero."),
        (0, "not yet; it stops with TypeError: 'int' object is not callable."),
    ],
)
def test_an_answer_is_marked_and_nothing_stops(answer, words, capsys):
    hints = {2: None, 3: "3 is odd", 5: "is 5 even?"}
    exercises.mark(1, answer, lambda mine: hints[mine()])
    assert capsys.readouterr().out == f"Exercise 1: {words}\n"


# Writing a section --------------------------------------------------------------------------

ANSWER = """before = 1
# solution; unattempted: answer = None  # a number
half = 3
answer = 2 * half
# end of solution"""
CHECK = """from helpers import exercises
exercises.mark({}, answer, lambda mine: "more" if mine < before else None)"""


def solved(count=2):
    cells = [v4.new_markdown_cell("# Solutions"), v4.new_code_cell("shown = 'only on this page'")]
    for place in range(1, count + 1):
        cells += [
            v4.new_markdown_cell(f"**{place}.** How many?"),
            v4.new_code_cell(ANSWER),
            v4.new_code_cell(CHECK.format(place)),
            v4.new_markdown_cell("**Why.** It is so. Look."),
            v4.new_code_cell(f"exercises.mark({place}, 0, lambda mine: 'more')"),
        ]
    return v4.new_notebook(cells=cells)


def executed(*cells):
    """A notebook that was run: texts are markdown, `code:` begins a code cell."""
    made, count = [], 0
    for text in cells:
        if text.startswith("code:"):
            count += 1
            output = v4.new_output("stream", name="stdout", text=f"{count}\n")
            source = text.removeprefix("code:")
            made.append(v4.new_code_cell(source, execution_count=count, outputs=[output]))
        else:
            made.append(v4.new_markdown_cell(text))
    return v4.new_notebook(cells=made)


@pytest.fixture
def shelf(tmp_path):
    """A chapter 07 whose exercises stand in the middle of texts, and its page of solutions."""
    use = "## Use it\n\n```\n## Exercises\n```\n\n1. Do."
    old = "## Exercises\n\n**1.** An old one."
    chapter = executed("# 07", "code:1", f"{use}\n\n{old}", "code:2", "more\n\n## Sources\n\nA.")
    chapter.cells += executed("end", "code:0 + 3").cells
    chapter.cells[-1].execution_count = 3
    (tmp_path / "solutions").mkdir()
    nbformat.write(chapter, tmp_path / "07_seven.ipynb")
    nbformat.write(solved(), tmp_path / "solutions/07.ipynb")
    return tmp_path


def test_a_section_is_written_between_its_headings_and_nowhere_else(shelf):
    path = shelf / "07_seven.ipynb"
    before = nbformat.read(path, as_version=4)
    assert exercises.differing(shelf) == ["solutions/07.ipynb", "07_seven.ipynb"]
    assert nbformat.read(path, as_version=4) == before, "only looked at"
    exercises.differing(shelf, write=True)
    after = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in after.cells]
    assert sources[:2] == ["# 07", "1"] and sources[-3:] == ["## Sources\n\nA.", "end", "0 + 3"]
    assert sources[2] == before.cells[2].source.split("\n\n## Exercises\n\n")[0]
    assert sources[3].startswith("## Exercises\n\n") and "(solutions/07.ipynb)" in sources[3]
    assert sources[3].endswith("**1.** How many?")
    assert sources[4] == "before = 1\nanswer = None  # a number"
    assert len(sources) == 12 and "old" not in "".join(sources)
    assert said(after.cells) == [
        "1",
        "Exercise 1: not attempted yet.",
        "Exercise 2: not attempted yet.",
        "1",
    ]
    counts = [cell.execution_count for cell in after.cells if cell.cell_type == "code"]
    assert counts == [1, 2, 3, 4, 5, 6]
    nbformat.validate(after)
    for old, new in ((0, 0), (1, 1), (5, 10)):
        assert before.cells[old] == after.cells[new]


def test_writing_twice_changes_nothing(shelf):
    exercises.differing(shelf, write=True)
    texts = {path: path.read_bytes() for path in shelf.rglob("*.ipynb")}
    assert exercises.differing(shelf, write=True) == [] == exercises.differing(shelf)
    assert {path: path.read_bytes() for path in shelf.rglob("*.ipynb")} == texts


@PAGE
def test_all_other_cells_of_a_chapter_stay_byte_for_byte(number, tmp_path):
    path = exercises.chapter_of(number)
    made = exercises.with_exercises(
        nbformat.read(path, as_version=4), exercises.unattempted(number, solved())
    )
    old, new = (cells_around(text) for text in (path.read_text(), nbformat.writes(made)))
    assert old == new


def cells_around(text):
    """The stored texts of the cells around the exercises, without the number of their run."""
    notebook = nbformat.reads(text, as_version=4)
    above, rest = exercises.cut(notebook.cells, exercises.EXERCISES)
    below = exercises.cut(rest, exercises.HEADING)[1]
    cells = [v4.new_notebook(cells=[cell]) for cell in (*above, *below)]
    return [re.sub(r'"execution_count": \d+', "", nbformat.writes(cell)) for cell in cells]


def test_a_chapter_that_was_not_run_gets_no_numbers(shelf):
    exercises.differing(shelf, write=True)
    path = shelf / "07_seven.ipynb"
    chapter = nbformat.read(path, as_version=4)
    for cell in chapter.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
    page = nbformat.read(shelf / "solutions/07.ipynb", as_version=4)
    made = exercises.with_exercises(chapter, exercises.unattempted("07", page))
    assert {c.execution_count for c in made.cells if c.cell_type == "code"} == {None}
    nbformat.write(chapter, path)
    assert exercises.differing(shelf) == [], "run or not, the exercises are the same"


def test_the_command_says_what_differs_and_puts_it_right(shelf, monkeypatch, capsys):
    monkeypatch.setattr(exercises, "CHAPTERS", shelf)
    assert exercises._main(["--check"]) == 1
    assert "07_seven.ipynb differs from its solutions" in capsys.readouterr().out
    assert exercises._main([]) == 0 and "07_seven.ipynb written" in capsys.readouterr().out
    assert exercises._main(["--check"]) == 0 and capsys.readouterr().out == ""
    (shelf / "07_seven.ipynb").unlink()
    assert exercises._main([]) == 1
    assert "has no chapter 07_*.ipynb" in capsys.readouterr().err


def test_a_chapter_without_the_heading_is_named(shelf):
    nbformat.write(executed("# 07", "code:1"), shelf / "07_seven.ipynb")
    with pytest.raises(CourseError, match="07_seven.ipynb: There is no heading '## Exercises'"):
        exercises.differing(shelf)


@pytest.mark.parametrize(
    "broken, sentence",
    [
        (("# end of solution", ""), "Exercise 1 of 07 needs one solution"),
        (("# end of solution", f"# end of solution\n{ANSWER}"), "needs one solution"),
        (("**1.**", "**3.**"), "Exercise 3 stands where 1 belongs"),
        (("**1.**", "1."), "Exercise 2 stands where 1 belongs"),
    ],
)
def test_a_page_with_a_mistake_is_refused(broken, sentence):
    page = solved()
    for cell in page.cells:
        cell.source = cell.source.replace(*broken)
    with pytest.raises(CourseError, match=re.escape(sentence)):
        exercises.unattempted("07", page)


def test_a_page_without_exercises_is_refused():
    with pytest.raises(CourseError, match="hold no exercise"):
        exercises.unattempted("07", solved(0))


def test_the_pages_are_in_the_repository_as_they_are_written():
    for number, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        assert nbformat.writes(read(number)) + "\n" == text, page.relative_to(ROOT)
