"""Every link of the pages and chapters leads somewhere; no network is asked."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from conftest import ROOT

from helpers import course

MAP = ROOT / "notebooks/map.ipynb"
# JupyterLab keeps copies of its own beside the notebooks, in folders that begin with a dot
BOOKS = [
    book for book in sorted((ROOT / "notebooks").rglob("*.ipynb")) if book.parent.name[0] != "."
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *BOOKS]
CODE = re.compile(r"^(```|~~~).*?^\1|`+[^`\n]+`+", re.M | re.S)
LINK = re.compile(r"\[((?:[^\[\]]|!?\[[^\]]*\]\([^)]*\))*)\]\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
ATTRIBUTE = re.compile(r"""<(?:a|img)\b[^>]*?\b(?:href|src)=["']([^"']*)["']""")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.M)
ARXIV = re.compile(r"/abs/\d\d(0[1-9]|1[0-2])\.\d{4,5}(v\d+)?")


def prose(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def links(text: str) -> list[tuple[str, str]]:
    """(words, target) of each link; a picture inside a link counts, too."""
    text = CODE.sub("", text)
    found = [(words, target.strip()) for words, target in LINK.findall(text)]
    for words, _ in list(found):
        found += links(words)
    return found + [("", target) for target in ATTRIBUTE.findall(text)]


def anchors(path: Path) -> set[str]:
    """The addresses of a file's headings: GitHub's rule for .md, Jupyter's for notebooks."""
    text = re.sub(r"^(```|~~~).*?^\1", "", prose(path), flags=re.M | re.S)
    found: list[str] = []
    for heading in HEADING.findall(text):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        words = re.sub(r"[`*]", "", words)
        if path.suffix == ".ipynb":
            found.append(words.replace(" ", "-"))
            continue
        plain = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        same = sum(re.fullmatch(rf"{re.escape(plain)}(-\d+)?", one) is not None for one in found)
        found.append(f"{plain}-{same}" if same else plain)
    return set(found)


def problem(words: str, target: str, path: Path) -> str:
    """What is wrong with a link that stands in `path`, or nothing."""
    target = re.sub(r'\s+"[^"]*"$', "", target)
    if not target or re.search(r"\s", target):
        return "is empty or has a space in it"
    address = urlsplit(target)
    if address.scheme or target.startswith("//"):
        return problem_of_address(words, target)
    if target.startswith("/"):
        return "begins with /, which is another place on every host"
    file = path.parent / unquote(address.path) if address.path else path
    if not file.exists():
        return "names a file that is not there"
    if not address.fragment:
        return ""
    if unquote(address.fragment) not in anchors(file):
        return f"names a heading that {file.name} does not have"
    return ""


def problem_of_address(words: str, target: str) -> str:
    address = urlsplit(target)
    if address.scheme == "mailto":
        return "" if re.fullmatch(r"mailto:[^@\s]+@[\w.-]+\.\w+", target) else "is no mail address"
    if address.scheme != "https":
        return "does not begin with https:"
    if not re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", address.netloc):
        return "has no well-formed host"
    if re.search(r"[.,;]$", target):
        return "ends in a full stop or a comma"
    if address.netloc.endswith("arxiv.org"):
        if not ARXIV.fullmatch(address.path):
            return "has no well-formed arXiv number"
        named = re.search(r"\d{4}\.\d{4,5}", words)
        if named and named[0] not in address.path:
            return f"leads to another paper than its words, {named[0]}"
    return ""


def problems(path: Path) -> list[str]:
    """One sentence for each broken link of a file."""
    sentences = []
    for words, target in links(prose(path)):
        wrong = problem(words, target, path)
        if wrong:
            sentences.append(f"{path.name}: the link [{words}]({target}) {wrong}.")
    return sentences


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_link_leads_somewhere(path):
    found = problems(path)
    assert not found, "\n".join(found)


def test_the_pages_have_links_to_check():
    assert sum(len(links(prose(path))) for path in PAGES) > 100


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[a](gone.md)", "names a file that is not there"),
        ("[a](#gone)", "names a heading that page.md does not have"),
        ("[a](book.ipynb#2.-gone)", "names a heading that book.ipynb does not have"),
        ("[a](book.ipynb#1-a-part)", "names a heading that book.ipynb does not have"),
        ("[a](/page.md)", "begins with /"),
        ("[a](two words.md)", "has a space in it"),
        ("[a]()", "is empty"),
        ("[a](http://example.com)", "does not begin with https:"),
        ("[a](https://example)", "has no well-formed host"),
        ("[a](https://example.com.)", "has no well-formed host"),
        ("[a](https://example.com/a,)", "ends in a full stop or a comma"),
        ("[a](https://arxiv.org/abs/2313.14314)", "has no well-formed arXiv number"),
        ("[a](https://arxiv.org/2305.14314)", "has no well-formed arXiv number"),
        ("[arXiv 2305.14315](https://arxiv.org/abs/2305.14314)", "leads to another paper"),
        ("[![a](gone.png)](page.md)", "names a file that is not there"),
        ('<img src="gone.png">', "names a file that is not there"),
    ],
)
def test_a_broken_link_is_named(tmp_path, link, said):
    cell = nbformat.v4.new_markdown_cell("## 1. A part")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "book.ipynb")
    page = tmp_path / "page.md"
    good = "[b](#a-part-of-it) [c](book.ipynb#1.-A-part) [d](https://arxiv.org/abs/2305.14314)"
    page.write_text(f"# A part, of `it`\n\n{good}\n\n`[e](gone.md)`\n\n{link}\n", encoding="utf-8")
    [sentence] = problems(page)
    assert sentence.startswith("page.md: the link ") and said in sentence


def test_previous_and_next_are_one_chain():
    way: dict[str, dict[str, str]] = {}
    for _, path in course.chapters():
        head = nbformat.read(path, as_version=4).cells[0].source
        way[path.name] = dict(re.findall(r"(Previous|Next): \[[^\]]*\]\(([^)]*)\)", head))
        assert "](map.ipynb)" in head, f"{path.name} has no link to the map"
    names = list(way)
    for name, before, after in zip(names, [None, *names], [*names[1:], None]):
        assert way[name].get("Previous") == before, f"{name}: the link Previous is wrong"
        assert way[name].get("Next") == after, f"{name}: the link Next is wrong"


def test_the_map_links_every_chapter():
    targets = {target for _, target in links(prose(MAP))}
    for _, path in course.chapters():
        assert path.name in targets, f"map.ipynb has no link to {path.name}"


def test_the_map_links_every_term_to_where_it_is_explained():
    rows = re.findall(r"^\| ([^|]+) \| \[[^\]]*\]\(([^)]*)\) \|$", prose(MAP), re.M)
    assert len(rows) > 40
    for term, target in rows:
        address = urlsplit(target)
        part = section(prose(MAP.parent / address.path), unquote(address.fragment))
        mark = rf"(?<!\*)\*{{1,2}}{re.escape(term)}\*{{1,2}}(?!\*)"
        assert re.search(mark, part), f"map.ipynb: {target} does not explain {term!r}"


def section(text: str, anchor: str) -> str:
    """What stands under a heading; without an anchor, what stands before the second heading."""
    pieces = re.split(r"^#+ +(.+)$", text, flags=re.M)
    for heading, part in zip(pieces[1::2], pieces[2::2]):
        if not anchor or re.sub(r"[`*]", "", heading).replace(" ", "-") == anchor:
            return part
    return ""


def test_numbers_of_papers_in_sources_are_links():
    for _, path in course.chapters():
        sources = prose(path).split("\n## Sources")[-1]
        bare = re.findall(r"(?<!\[)\barXiv[: ]\s?\d{4}\.\d{4,5}", sources)
        assert bare == [], f"{path.name}: {bare} stand in Sources without a link"


def test_every_chapter_shows_the_path_with_itself_lit():
    for number, path in course.chapters():
        cells = nbformat.read(path, as_version=4).cells
        [cell] = [cell for cell in cells if re.search(r"^drawings\.path\(", cell.source, re.M)]
        assert f'drawings.path("{number}")' in cell.source, path.name
        shown = [output.metadata.get("image/png", {}) for output in cell.outputs]
        assert any(number in one.get("alt", "").split("Lit is")[-1] for one in shown), path.name
