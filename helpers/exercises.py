"""The exercises: mark a reader's answer, and write them into the chapters from their solutions.

`python -m helpers.exercises` runs each page of notebooks/solutions/ and derives from it the section
"Exercises" of its chapter; `--check` only says which chapter differs. A page holds its exercises in
order: a text that begins with `**1.**`, one or more cells of code, a text that begins with
`**Why.**`, and after it what only the page shows. One cell of an exercise has

    # solution; unattempted: stop = None  # def stop(p): ...
    (the solution)
    # end of solution

and the chapter gets the unattempted form in its place.
"""

import argparse
import io
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from helpers import ROOT, CourseError
from helpers.core.files import write_text

CHAPTERS = ROOT / "notebooks"
SOLUTION = re.compile(r"^# solution; unattempted: (.+)\n(?:.*\n)*?# end of solution$", re.M)
QUESTION, WHY = re.compile(r"\*\*(\d)\.\*\* "), "**Why.** "
EXERCISES, HEADING = re.compile(r"^## Exercises$", re.M), re.compile(r"^## (?!Exercises$)", re.M)
FENCED = re.compile(r"^```.*?^```", re.M | re.S)


def mark(number: int, answer: Any, problem: Callable[[Any], str | None]) -> None:
    """Print what an answer is: not attempted (None), right, or not yet, with a hint.

    `problem` returns the hint for a wrong answer and None for a right one. An answer that fails
    while it is tried is wrong, and the cells after it still run.
    """
    if answer is None:
        print(f"Exercise {number}: not attempted yet.")
        return
    try:
        hint = problem(answer)
    except Exception as mistake:
        hint = f"it stops with {type(mistake).__name__}: {mistake}"
    words = f"not yet; {hint}" if hint else "right"
    print(f"Exercise {number}: {words}{'' if words.endswith(('?', '.')) else '.'}")


# From a solution to a section -----------------------------------------------------------------


def solution_pages(folder: Path = CHAPTERS) -> dict[str, Path]:
    """{chapter number: its page of solutions}, in order."""
    return {path.stem: path for path in sorted((folder / "solutions").glob("*.ipynb"))}


def exercise_cells(page: NotebookNode) -> list[list[NotebookNode]]:
    """The cells of each exercise of a page of solutions, solved: the question, then code.

    Raises CourseError where the numbers do not go 1, 2, ...
    """
    found: list[list[NotebookNode]] = []
    inside = False
    for cell in page.cells:
        question = cell.cell_type == "markdown" and QUESTION.match(cell.source)
        if question:
            if int(question[1]) != len(found) + 1:
                raise CourseError(f"Exercise {question[1]} stands where {len(found) + 1} belongs.")
            found.append([])
            inside = True
        elif cell.cell_type == "markdown" and cell.source.startswith(WHY):
            inside = False
        if inside:
            found[-1].append(cell)
    return found


def unattempted(number: str, page: NotebookNode) -> list[NotebookNode]:
    """The section of chapter `number` that a page of solutions gives, run, with outputs.

    Raises CourseError for a page without exercises, and for an exercise without one solution.
    """
    link = f"The [solutions](solutions/{number}.ipynb) say why."
    section = []
    for place, solved in enumerate(exercise_cells(page), 1):
        cells = [_copy(cell, f"exercise-{place}-{part}") for part, cell in enumerate(solved)]
        marked = [cell for cell in cells if SOLUTION.search(cell.source)]
        if len(marked) != 1 or len(SOLUTION.findall(marked[0].source)) != 1:
            cure = "put '# solution; unattempted: ...' and '# end of solution' around it"
            raise CourseError(f"Exercise {place} of {number} needs one solution: {cure}.")
        marked[0].source = SOLUTION.sub(lambda found: found[1], marked[0].source)
        section += cells
    if not section:
        raise CourseError(f"The solutions of {number} hold no exercise: begin one with '**1.** '.")
    section[0].source = f"## Exercises\n\n{link}\n\n{section[0].source}"
    run_cells(section)
    return section


def _copy(cell: NotebookNode, name: str) -> NotebookNode:
    copy = deepcopy(cell)
    copy.id = name
    if copy.cell_type == "code":
        copy.metadata = NotebookNode(tags=["nbval-check-output"])
        copy.execution_count = None
    return copy


def run_cells(cells: Sequence[NotebookNode]) -> list[str]:
    """Run code cells in one empty room and store what they print; returns it, a text a cell."""
    room: dict[str, Any] = {"__name__": "__main__"}
    texts = []
    for cell in cells:
        if cell.cell_type != "code":
            continue
        with redirect_stdout(io.StringIO()) as said:
            exec(compile(cell.source, cell.id, "exec"), room)
        texts.append(said.getvalue())
        cell.outputs = []
        if texts[-1]:
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=texts[-1])]
    return texts


# Into the chapter -----------------------------------------------------------------------------


def with_exercises(chapter: NotebookNode, section: list[NotebookNode]) -> NotebookNode:
    """The chapter with this section from its heading "Exercises" to the next one, else unchanged.

    In a chapter that was run as a whole, its code cells are numbered anew. Raises CourseError
    without the heading.
    """
    before, rest = cut(chapter.cells, EXERCISES)
    if not rest:
        raise CourseError("There is no heading '## Exercises'; put one where they belong.")
    _, after = cut(rest, HEADING)
    result = deepcopy(chapter)
    was_run = all(cell.execution_count for cell in chapter.cells if cell.cell_type == "code")
    result.cells = deepcopy([*before, *section, *after])
    code = [cell for cell in result.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        if was_run:
            cell.execution_count = count
    return result


def cut(
    cells: list[NotebookNode], heading: re.Pattern
) -> tuple[list[NotebookNode], list[NotebookNode]]:
    """The cells above and from the first heading that fits; a text around it becomes two cells."""
    for place, cell in enumerate(cells):
        if cell.cell_type != "markdown":
            continue
        # what stands between fences is no heading
        found = heading.search(FENCED.sub(lambda block: " " * len(block[0]), cell.source))
        if not found:
            continue
        above, below = deepcopy(cell), deepcopy(cell)
        above.source, below.source = (
            cell.source[: found.start()].rstrip(),
            cell.source[found.start() :],
        )
        if not above.source:
            return cells[:place], cells[place:]
        below.id = f"{cell.id}-below"
        return [*cells[:place], above], [below, *cells[place + 1 :]]
    return cells, []


def chapter_of(number: str, folder: Path = CHAPTERS) -> Path:
    """The chapter's notebook. Raises CourseError where there is none."""
    paths = list(folder.glob(f"{number}_*.ipynb"))
    if len(paths) != 1:
        raise CourseError(f"solutions/{number}.ipynb has no chapter {number}_*.ipynb beside it.")
    return paths[0]


def refreshed(number: str, page: Path, folder: Path = CHAPTERS) -> dict[Path, NotebookNode]:
    """The page of solutions, run, and its chapter with the exercises, by their paths."""
    solutions = nbformat.read(page, as_version=4)
    run_cells(solutions.cells)
    for count, cell in enumerate((c for c in solutions.cells if c.cell_type == "code"), 1):
        cell.execution_count = count
    path = chapter_of(number, folder)
    chapter = nbformat.read(path, as_version=4)
    try:
        section = unattempted(number, solutions)
        return {page: solutions, path: with_exercises(chapter, section)}
    except CourseError as problem:
        raise CourseError(f"{path.name}: {problem}") from None


def differing(folder: Path = CHAPTERS, write: bool = False) -> list[str]:
    """Names of the notebooks that are not what the solutions give; `write` puts them right."""
    names = []
    for number, page in solution_pages(folder).items():
        for path, notebook in refreshed(number, page, folder).items():
            text = nbformat.writes(notebook) + "\n"
            if _uncounted(text) == _uncounted(path.read_text(encoding="utf-8")):
                continue
            names.append(path.relative_to(folder).as_posix())
            if write:
                write_text(path, text)
    return names


def _uncounted(text: str) -> str:
    return re.sub(r'"execution_count": (\d+|null)', "", text)  # how often a kernel ran says nothing


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.exercises", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, only say what differs")
    check = parser.parse_args(arguments).check
    try:
        names = differing(CHAPTERS, write=not check)
    except CourseError as problem:
        print(problem, file=sys.stderr)
        return 1
    for name in names:
        print(f"{name} {'differs from its solutions' if check else 'written'}")
    return int(check and bool(names))


if __name__ == "__main__":
    sys.exit(_main())
