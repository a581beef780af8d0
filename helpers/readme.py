"""The pieces of README.md that hold figures, and its picture, made from data/reference/ alone.

python -m helpers.course --readme
"""

import html
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from matplotlib import pyplot as plt
from PIL import Image, PngImagePlugin

from helpers import ROOT, CourseError
from helpers.core import plots, rows
from helpers.core.files import read_yaml, write_text
from helpers.core.pilot import Pilot

RESULTS = ROOT / "data/reference/results"
DECISIONS = ROOT / "data/reference/inbox/08/decisions.jsonl"
PICTURE = ROOT / "data/reference/readme.png"
CHAPTERS = ROOT / "helpers/templates/chapters.yaml"


def stored(results: str) -> dict:
    """A recorded run: data/reference/results/<results>.json."""
    path = RESULTS / f"{results}.json"
    if not path.is_file():
        cure = "record that run, or name another in helpers/readme.py"
        raise CourseError(f"{path.relative_to(ROOT)} is missing and README.md needs it: {cure}.")
    return json.loads(path.read_text(encoding="utf-8"))


def figure(results: str, name: str) -> dict:
    """One recorded figure; raises CourseError where that run has none of this name."""
    for one in stored(results)["figures"]:
        if one["name"] == name:
            return one
    cure = "record that run again, or name another where README.md asks for it"
    raise CourseError(f"data/reference/results/{results}.json has no figure {name!r}: {cure}.")


def shown(one: dict) -> str:
    """A figure with its unit, and its interval where it has one: `54.5 % [47.6, 61.3]`.

    Raises CourseError for a unit that has no form yet.
    """
    factor, form, unit = {
        "share": (100, "{:.1f}", "%"),
        "difference": (100, "{:+.1f}", "points"),
        "times": (1, "{:.1f}", "times"),
        "EUR": (1, "{:,.0f}", "EUR"),
    }.get(one["unit"], (1, "", ""))
    if not form:
        known = "helpers/readme.py writes shares, differences, times and EUR"
        raise CourseError(f"The figure {one['name']!r} is in {one['unit']!r}: {known}.")
    text = f"{form.format(factor * one['value'])} {unit}"
    if one["low"] is None:
        return text
    low, high = (form.format(factor * one[end]) for end in ("low", "high"))
    return f"{text} [{low}, {high}]"


# The pieces -----------------------------------------------------------------------------------


def example() -> tuple[str, dict[str, str]]:
    """(a message, its record as the judged system read it).

    Always the first of the new messages in which every field has a value and was read right.
    """
    pilot = Pilot.load(ROOT / "data/inbox")
    dataset = rows.load_new(pilot)
    new = {row["id"]: row for row in dataset.to_list()} if dataset else {}
    for decision in rows.read(DECISIONS):
        record, row = decision["system"], new.get(decision["id"], {})
        right = record == {name: row.get(name) for name in record}
        if decision["judged"] and right and all(record.values()):
            return row[pilot.text], record
    missing = "no new message that was read right with a value in every field"
    raise CourseError(f"data/reference/inbox/08/decisions.jsonl has {missing}: record 08 again.")


def example_piece() -> str:
    """One real message as a quotation, and its record in a line that wraps on a phone."""
    message, record = example()
    values = [f"**{_plain(name)}** {_plain(value)}" for name, value in record.items()]
    return f"> {_plain(message)}\n\n→ {' · '.join(values)}"


def _plain(text: str) -> str:
    """A text in one line whose characters mean nothing to Markdown."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", " ".join(text.split()))


def ways() -> dict[str, dict]:
    """{way: its exact record}: all on the test messages, the last on the new ones."""
    labelled = figure("00", "exact.tuned.train")["n"]
    return {
        "keyword rules": figure("00", "exact.rules"),
        f"tuned on {labelled} labelled messages": figure("00", "exact.tuned"),
        "with made messages too": figure("recipe_study", "exact.qlora"),
        "the system": figure("08", "exact.system"),
        "the system, new messages": figure("08", "system.exact"),
    }


def result_piece() -> str:
    """The picture, the lines of result, and the euros a year with what they assume."""
    number = figure("08", "system.exact")["n"]
    table = [f"| every field right | of {number} messages |", "|---|---|"]
    table += [f"| {way} | {shown(one)} |" for way, one in ways().items()]
    words = html.escape(picture_text())
    place = PICTURE.relative_to(ROOT).as_posix()
    image = f'<p><img src="{place}" alt="{words}" width="480"></p>'
    return "\n".join([image, "", *table, "", _euros()])


def _euros() -> str:
    inputs = stored("10")["settings"]["inputs"]
    saves, pays = figure("10", "system.saves_per_year"), figure("10", "pays.probability")
    assumed = (
        f"assumed {inputs['messages_a_year'][0]:,.0f} messages a year, "
        f"{inputs['today_minutes'][0]:g} minutes each today"
    )
    ends = f"{saves['low']:,.0f} to {saves['high']:,.0f}"
    verb = "saves" if saves["value"] > 0 else "costs"
    return (
        f"At an {assumed}, it {verb} **{abs(saves['value']):,.0f} {saves['unit']} a year**; "
        f"not certain: {ends}, and {pays['value']:.0%} of the draws pay."
    ).replace("%", " %")


def limits_piece() -> str:
    """What the system is not, in two sentences."""
    test, new = figure("08", "exact.system"), figure("08", "system.exact")
    other, pays = figure("08", "system.exact.other_wording"), figure("10", "pays.probability")
    first = (
        f"**Count on {new['value']:.0%} of the records right, not on {test['value']:.0%}:** the "
        "new messages were written last, by other writers, and opened once."
    )
    second = (
        f"It pays in {pays['value']:.0%} of the draws of minutes and prices, not surely; **do not "
        "use it where customers say urgency in quite other words**: there "
        f"{other['value']:.1%} are right."
    )
    return f"{first}\n{second}".replace("%", " %")


def use_piece() -> str:
    """The verdict, who checks, what 1,000 messages cost, and what the lines at the top are."""
    found = stored("08")["figures"]
    passed = all(one["value"] for one in found if one["name"].startswith("bar.shown."))
    checked, use = figure("08", "system.reviewed"), figure("08", "cost_per_1000.system")
    today = figure("02", "cost_per_1000.people")
    seeds = len(_seeds("recipe_study", "exact.qlora"))
    return (
        f"The system {'passed' if passed else 'did not pass'} its page. In use a person checks "
        f"{checked['value']:.0%} of the new messages, and 1,000 cost {use['value']:,.0f} "
        f"{use['unit']} before building and upkeep; people as today {today['value']:,.0f}. The "
        f"savings at the top count both. *The system* is chapter 08's: each field by what reads "
        f"it best, model, rules or both. The line *with made messages too* is the mean of "
        f"{seeds} seeds, the others are one seed each."
    ).replace("%", " %")


def _seeds(results: str, name: str) -> list[dict]:
    """The figures of single seeds beside the mean `name`."""
    every = stored(results)["figures"]
    return [one for one in every if one["name"].startswith(f"{name}.seed_")]


def chapters_piece(chapters: Sequence[tuple[str, Path]]) -> str:
    """The map of chapters [(number, notebook)]: what for, minutes of the recorded run, one figure.

    Raises CourseError where a chapter has no entry in helpers/templates/chapters.yaml.
    """
    entries = read_yaml(CHAPTERS)
    lines = ["| chapter | after it you can | minutes | one number |", "|---|---|---|---|"]
    for number, path in chapters:
        if number not in entries:
            cure = "add an entry there, and README.md gets its line"
            raise CourseError(f"helpers/templates/chapters.yaml has no chapter {number}: {cure}.")
        [title] = re.findall(r"^# (.+)$", nbformat.read(path, as_version=4).cells[0].source, re.M)
        entry = entries[number]
        minutes = round(stored(number)["seconds"] / 60)
        value = entry["meaning"].format(shown(figure(entry["results"], entry["figure"])))
        cells = [
            f"[{title}](notebooks/{path.name})",
            entry["able"],
            f"{minutes or 'under 1'}",
            value,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# The picture ----------------------------------------------------------------------------------


def picture_text() -> str:
    """The picture in words, for who does not see it."""
    parts = [f"{way} {shown(one)}" for way, one in ways().items()]
    return f"Dots with 95 % intervals, share of messages with every field right: {'; '.join(parts)}"


def draw() -> bytes:
    """The picture as PNG, `picture_text()` stored in it; narrow, so that a phone shows it legibly.

    Filled dots are test messages, the hollow square is the new ones: no colour has to be told.
    """
    drawing, axes = plots.new_axes(width=4.8, height=2.05)
    drawing.set_layout_engine("tight", pad=0.7)
    names = list(ways())
    for y, one in enumerate(list(ways().values())[::-1]):
        marker, colour, inside = ("o", plots.INK, plots.INK) if y else ("s", plots.ACCENT, "white")
        axes.plot([one["low"], one["high"]], [y, y], color=colour, linewidth=2.2)
        axes.plot(one["value"], y, marker, ms=7, mew=2, color=colour, mfc=inside)
        axes.annotate(f"  {100 * one['value']:.1f} %", (one["high"], y), va="center", size=10)
    axes.set_yticks(range(len(names)), names[::-1], fontsize=10)
    axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"], fontsize=10)
    axes.set(xlim=(0, 1.16), ylim=(-0.6, len(names) - 0.4))
    axes.grid(axis="x")
    title = "Messages with every field right, 95 % intervals"
    drawing.suptitle(title, size=10.5, x=0.03, ha="left")
    out = io.BytesIO()
    drawing.savefig(out, format="png", dpi=200, facecolor="white")
    plt.close(drawing)
    return _small(out, picture_text())


def _small(image: io.BytesIO, words: str) -> bytes:
    """A PNG with 64 colours and `words` as its description."""
    told, out = PngImagePlugin.PngInfo(), io.BytesIO()
    told.add_text("Description", words)
    Image.open(image).convert("RGB").quantize(64).save(out, "PNG", optimize=True, pnginfo=told)
    return out.getvalue()


# The page -------------------------------------------------------------------------------------


def generated_pieces(chapters: Sequence[tuple[str, Path]]) -> dict[str, str]:
    """{mark: text} of everything between `<!-- mark -->` and `<!-- /mark -->` in README.md."""
    return {
        "example": example_piece(),
        "result": result_piece(),
        "limits": limits_piece(),
        "chapters": chapters_piece(chapters),
        "use": use_piece(),
    }


def write(chapters: Sequence[tuple[str, Path]], page: Path = ROOT / "README.md") -> None:
    """Refresh the generated pieces of the page, and the picture.

    Raises CourseError, with nothing written, where a figure or a pair of marks is missing.
    """
    text, image = page.read_text(encoding="utf-8"), draw()
    for mark, piece in generated_pieces(chapters).items():
        begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise CourseError(f"{page.name}: put {begin} and {end} there, once, a line each.")
        before, after = text.split(begin)[0], text.split(end)[1]
        text = f"{before}{begin}\n{piece}\n{end}{after}"
    PICTURE.write_bytes(image)
    write_text(page, text)
