"""The README: read in thirty seconds, and every figure in it is one of the recorded results."""

import json
import re

import pytest
from conftest import ROOT
from PIL import Image

from helpers import CourseError, course, readme
from helpers.core import rows, runtime
from helpers.core.files import read_yaml
from helpers.core.pilot import Pilot

AGAIN = "run: python -m helpers.course --readme"
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
MARKS = ("example", "result", "limits", "chapters", "use")


def words(text):
    """What a reader reads of it: no comments, pictures, link targets or marks of Markdown."""
    shown = re.sub(r"<!--.*?-->|<[^>]+>|\]\([^)]*\)", " ", text, flags=re.S)
    return [word for word in shown.split() if re.search(r"\w", word)]


# The first screen ------------------------------------------------------------------------------


def test_at_most_120_words_stand_before_the_first_command():
    above = PAGE.split("\n```\nmake course")[0]
    assert above != PAGE and "```" not in above, "the first block of code holds the command"
    assert 60 < len(words(above)) <= 120, f"{len(words(above))} words"


def test_the_page_opens_in_the_order_that_a_reader_needs():
    order = [
        "# Small pilots",
        "<!-- colab -->",
        "<!-- example -->",
        "<!-- result -->",
        "make course",
    ]
    order += ["<!-- limits -->", "<!-- chapters -->", "<!-- use -->", "## Your own messages"]
    order += ["## When something goes wrong"]
    assert [PAGE.index(part) for part in order] == sorted(PAGE.index(part) for part in order)
    sentence = PAGE.split("<!-- /colab -->")[1].split("<!-- example -->")[0]
    assert sentence.strip().endswith(".") and len(re.findall(r"\.(\s|$)", sentence)) == 1


@pytest.mark.parametrize("mark", MARKS)
def test_what_stands_between_marks_is_generated(mark):
    piece = readme.generated_pieces(course.chapters())[mark]
    assert f"<!-- {mark} -->\n{piece}\n<!-- /{mark} -->" in PAGE, AGAIN


def test_the_example_is_a_new_message_that_the_judged_system_read_right():
    message, record = readme.example()
    pilot = Pilot.load(ROOT / "data/inbox")
    new = [row for row in rows.load_new(pilot) if row["message"] == message]
    assert [json.loads(pilot.answer(row)) for row in new] == [record]
    read = [
        one for one in rows.read(readme.DECISIONS) if one["judged"] and one["id"] == new[0]["id"]
    ]
    assert [one["system"] for one in read] == [record]


def test_a_message_with_marks_of_markdown_is_shown_as_it_is(monkeypatch):
    pytest.importorskip("markdown_it")
    from markdown_it import MarkdownIt

    message = "# <b>3</b> | *two* _one_\n> `x` [a](b) 30\\-A"
    monkeypatch.setattr(readme, "example", lambda: (message, {"a_b": "*|*"}))
    html = MarkdownIt("commonmark").enable("table").render(readme.example_piece())
    text = re.sub(r"<(?!\s)/?[a-z]+>", "", html)
    shown = "# &lt;b&gt;3&lt;/b&gt; | *two* _one_ &gt; `x` [a](b) 30\\-A"
    assert shown in text and "a_b *|*" in text


def test_the_picture_is_of_these_results_and_small():
    with Image.open(readme.PICTURE) as picture:
        assert picture.info["Description"] == readme.picture_text(), AGAIN
        assert picture.width >= 2 * 360, "sharp on a phone"
    assert readme.PICTURE.stat().st_size < 40_000
    assert f'alt="{readme.picture_text()}"' in PAGE
    for share in ("exact.rules", "exact.tuned"):
        assert readme.shown(readme.figure("00", share)) in readme.picture_text()


def test_the_lines_of_result_are_of_as_many_messages_as_the_table_says():
    assert len({one["n"] for one in readme.ways().values()}) == 1
    *test, new = readme.ways().values()
    assert new == readme.figure("08", "system.exact") and new not in test


# The chapters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [number for number, _ in course.chapters()])
def test_a_chapter_has_twelve_words_and_one_number(number):
    entry = read_yaml(readme.CHAPTERS)[number]
    able, meaning = entry["able"], entry["meaning"]
    assert len(able.split()) <= 12 and able[0].isupper()
    assert not re.search(r"\d", able + meaning) and meaning.count("{}") == 1


def test_a_chapter_without_an_entry_is_named():
    with pytest.raises(CourseError, match="has no chapter 99: add an entry"):
        readme.chapters_piece([("99", ROOT / "notebooks/00_first_pilot.ipynb")])


def test_a_figure_that_is_gone_is_named():
    with pytest.raises(CourseError, match=r"08\.json has no figure 'exact\.gone'"):
        readme.figure("08", "exact.gone")
    with pytest.raises(CourseError, match=r"results/77\.json is missing"):
        readme.figure("77", "exact.tuned")
    with pytest.raises(CourseError, match="'memory' is in 'bytes'"):
        readme.shown({"name": "memory", "unit": "bytes", "value": 1.0, "low": None, "high": None})


def test_the_largest_candidate_is_the_one_shown_for_chapter_01():
    found = {one["name"]: one["value"] for one in readme.stored("01")["figures"]}
    sizes = {name: found[name] for name in found if re.fullmatch(r"candidate\..*\.megabytes", name)}
    assert read_yaml(readme.CHAPTERS)["01"]["figure"] == max(sizes, key=sizes.get).replace(
        "megabytes", "exact"
    )


def test_nothing_is_written_where_a_mark_is_missing(tmp_path, monkeypatch):
    page, picture = tmp_path / "README.md", tmp_path / "readme.png"
    monkeypatch.setattr(readme, "draw", lambda: b"picture")
    monkeypatch.setattr(readme, "PICTURE", picture)
    made = {"one": "first", "two": "second \\1"}
    monkeypatch.setattr(readme, "generated_pieces", lambda _: made)
    page.write_text("a <!-- one -->\nold\n<!-- /one --> b")
    with pytest.raises(CourseError, match="put <!-- two --> and <!-- /two --> there, once"):
        readme.write([], page)
    assert "old" in page.read_text() and not picture.exists()
    page.write_text(page.read_text() + "<!-- two --><!-- /two -->")
    readme.write([], page)
    wanted = "a <!-- one -->\nfirst\n<!-- /one --> b<!-- two -->\nsecond \\1\n<!-- /two -->"
    assert page.read_text() == wanted and picture.read_bytes() == b"picture"


# Every figure ----------------------------------------------------------------------------------

# said of what has to be there before anything runs, not measured in a recorded run
NEEDED = {"8 GB", "176 MB", "2.3 GB", "3 GB", "12 GB", "600 MB"}
LEVEL = {"95 %"}  # of intervals
UNIT = r"[-+]?\d[\d,.]*(?<![,.]) ?(?:%|points|EUR|[KMGT]i?B\b|times)|\[[-+\d][^\]]*\]"


def value(results, name, form, part="value", factor=1):
    return form.format(factor * readme.figure(results, name)[part])


def phrases():
    """The figures in the prose that no command writes, each beside the words around it."""

    def japanese(name, part="value"):
        return value("everywhere", f"japanese.{name}", "{:.0f} %", part, 100)

    def points(name, form="{:.1f}", sign=1):
        ends = ("value", "low", "high") if sign > 0 else ("value",)
        return [value("robust", f"robust.{name}", form, end, 100 * sign) for end in ends]

    tuned, rules = "tuned_embedded", "rules"
    ends = japanese(f"exact.{tuned}", "low"), japanese(f"exact.{tuned}", "high")
    vectors = value("robust", "labels.request.embeddings", "{:.0f} %", factor=100)
    counted = value("robust", "labels.request.tf_idf", "{:.0f} %", factor=100)
    yield f"it gets {japanese(f'exact.{tuned}')} [{ends[0]}, {ends[1]}] of 100 records"
    yield f"keyword rules {japanese(f'exact.{rules}')}."
    for field, how in (("product", "product better"), ("request", "request worse")):
        both = japanese(f"{field}.{tuned}"), japanese(f"{field}.{rules}")
        yield f"the {how} ({both[0]} against {both[1]})"
    yield f"it finds {vectors} of the requests, counted characters {counted}."
    most = value("everywhere", "injections.outside_schema", "{:.1f} %", "high", 100)
    yield f"left the schema (95 %: at most {most})"
    yield value("everywhere", "injections.obeyed", "alone: {:.0f} % got", factor=100)
    yield value("everywhere", "injections.twin_obeyed", "against {:.0f} % of the same", factor=100)
    yield "tuned model is {} points [{}, {}] better than TF-IDF".format(
        *points("tuned_minus_tfidf")
    )
    against = "robust", "robust.tuned_minus_embeddings"
    [worse] = points("tuned_minus_embeddings", sign=-1)
    low, high = (value(*against, "{:+.1f}", end, 100) for end in ("low", "high"))
    yield f"{worse} points worse [{low}, {high}] than the encoder"
    yield "is {} points [{}, {}] better than the".format(*points("system_minus_embeddings"))
    yield "and {} [{}, {}] better than the tuned".format(*points("system_minus_tuned"))
    draws = readme.stored("robust")["settings"]["robust"]["draws"]
    gaps = [points(f"{draw}.system_minus_best_single", sign=-1)[0] for draw in draws]
    below = sorted(float(gap) for gap in gaps if float(gap) > 1)
    yield f"on two it is {below[0]:.1f} and {below[1]:.1f} points below"
    large, small = "candidate.qwen2_5_coder_1_5b", "candidate.qwen2_5_coder_0_5b"
    yield value("01", f"{large}.megabytes", "fetches one, {:.1f} GB", factor=1e-3)
    yield value("01", f"{large}.memory_gib", "a second a message, {:.0f} GB of memory")
    yield value("01", f"{small}.megabytes", "({:.0f} MB, fetched when")

    def peaks(kind):
        return [
            value("answering", f"stand_in.{kind}.{size}.peak_mb", "{:.0f}")
            for size in ("short", "long")
        ]

    (csv_short, csv_long), (book_short, book_long) = peaks("csv"), peaks("xlsx")
    yield f"({csv_short} and {csv_long} MB for 2,000 and 100,000 rows"
    yield f"({book_short} and {book_long} MB)"


def prose():
    """The README without its generated pieces and its code, in one line."""
    text = PAGE
    for mark in MARKS:
        text = re.sub(rf"<!-- {mark} -->.*?<!-- /{mark} -->", " ", text, flags=re.S)
    text = re.sub(r"^```.*?^```", " ", text, flags=re.S | re.M)
    return " ".join(re.sub(r"`[^`]*`", "", text).split())


def test_every_figure_of_the_prose_is_recorded():
    left = prose()
    for phrase in phrases():
        assert phrase in left, f"the results say {phrase!r}"
        left = left.replace(phrase, " ")
    assert set(re.findall(UNIT, left)) <= NEEDED | LEVEL, "no result says it"


def test_a_figure_without_a_result_would_be_seen():
    for invented in ("12 % of", "3.5 points", "[1.0, 2.0]", "1,200 EUR", "7 GB", "+4.1 points."):
        assert set(re.findall(UNIT, f"and {invented} more")) - NEEDED - LEVEL, invented


def test_seconds_in_words_are_those_recorded():
    seconds = readme.figure("01", "candidate.qwen2_5_coder_1_5b.seconds")["value"]
    assert "about a second a message" in prose() and round(seconds) == 1
    assert "three seconds a row" in prose()
    assert round(readme.figure("03", "seconds_per_raw_row")["value"]) == 3
    draws = readme.figure("10", "pays.probability")["n"]
    assert f"percentile of {draws:,} draws" in prose()


def test_what_you_see_is_what_the_program_says():
    table = PAGE.split("| you see | do this |")[1].split("\n\n")[0]
    said = re.findall(r"^\| `([^`]+)`", table, re.M)
    source = " ".join(path.read_text("utf-8") for path in (ROOT / "helpers").rglob("*.py"))
    # a sentence that is written over two lines of code, or holds a name
    source = " ".join(re.sub(r"\"\s*\n\s*f?\"|\{[^{}]*\}", "", source).split())
    source += (ROOT / "Makefile").read_text("utf-8")
    foreign = {"the kernel died", "ImportError … torchao"}
    assert len(said) > 15 and foreign < set(said)
    for sentence in said:
        parts = [part.strip(" ().") for part in re.split("…|line|bar.yaml|Python", sentence)]
        assert sentence in foreign or all(part in source for part in parts), sentence


def test_the_profiles_on_the_page_are_all_there_are():
    line = re.search(r"Four profiles: (.*?);", PAGE, re.S)[1]
    assert tuple(re.findall(r"`(\w+)`", line)) == tuple(runtime.PROFILES)


def test_files_that_the_readme_names_are_there():
    named = set(re.findall(r'(?:\]\(|src=")([^)":]+)[)"]', PAGE))
    assert "data/reference/readme.png" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
