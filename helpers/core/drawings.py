"""Drawings of ideas, each on its own card: legible on light and dark pages and on a phone.

Every drawing is a matplotlib Figure with `alt`, a sentence that says what it shows. As the last
line of a cell it shows itself: a PNG with the sentence as its alt text, and the sentence under it
to fold out, since JupyterLab leaves the alt text of an output out.
"""

import base64
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import publish_display_data
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from helpers import CourseError
from helpers.core.plots import INK, SOFT, use_style

WIDTH, MARGIN = 4.6, 0.18  # inches; 9 points are 10 pixels where the card is 390 pixels wide
LINE = 0.17  # inches from a line of text to the next
CARD, PAPER = "#f7f9fb", "#ffffff"
LIT = "#b5452e"  # the accent of the pictures, dark enough for white letters
LONGEST = 500  # letters of a message that are drawn
WIDE = "\u3000-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"  # letters that end a line anywhere
PIECE = re.compile(rf"[{WIDE}]\s*|[^\s{WIDE}]+\s*")

PATH = {  # the chapters on the line, and beside them those that go deeper
    "00": "first pilot",
    "01": "choose a model",
    "02": "page to sign",
    "03": "make rows",
    "04": "filter rows",
    "05": "tune",
    "06": "act",
    "08": "good enough?",
    "09": "ship",
    "10": "does it pay?",
    "11": "your pilot",
}
PER_ROW = 4  # chapters that stand beside each other
DEEPER = {"05a": "speed", "08a": "outside check", "08b": "model as judge"}


class Drawing(Figure):
    """A figure that shows itself with its sentence, `alt`."""

    alt = ""

    def _ipython_display_(self, **_: Any) -> None:
        drawn, picture = io.BytesIO(), io.BytesIO()
        # twice as many dots as it is wide: sharp on a phone; few colours: a quarter of the bytes
        self.savefig(drawn, format="png", dpi=2 * self.dpi)
        Image.open(drawn).convert("RGB").quantize(64).save(picture, "PNG", optimize=True)
        plt.close(self)  # or the notebook would show it once more at the end of the cell
        data = base64.b64encode(picture.getvalue()).decode()
        about = {"alt": self.alt, "width": round(self.get_figwidth() * self.dpi)}
        publish_display_data({"image/png": data, "text/plain": self.alt}, {"image/png": about})
        words = f"<details><summary>in words</summary>{html.escape(self.alt)}</details>"
        publish_display_data({"text/html": words, "text/plain": self.alt})


def path(chapter: str) -> Drawing:
    """The path of the course with one chapter lit, such as `05` or `08a`.

    Raises CourseError where no chapter has this number.
    """
    names = {**PATH, **DEEPER}
    if chapter not in names:
        known = ", ".join(sorted(names))
        raise CourseError(f"There is no chapter {chapter!r} to light: take one of {known}.")
    axes = _card("the path of the course")
    gap, aside, height, level = 0.2, 0.12, 0.62, 0.45  # aside: where a line goes down to a next row
    width = (WIDTH - 2 * MARGIN - aside - (PER_ROW - 1) * gap) / PER_ROW
    numbers = list(PATH)
    rows = [numbers[first : first + PER_ROW] for first in range(0, len(numbers), PER_ROW)]
    for row in rows:
        lowest = level + height
        for place, number in enumerate(row):
            left = MARGIN + place * (width + gap)
            _chapter(axes, left, level, width, height, number, number == chapter)
            if place:
                _arrow(axes, (left - gap, level + height / 2), (left, level + height / 2))
            under = level + height
            for deeper in (name for name in DEEPER if name[:2] == number):
                _line(axes, [(left + width / 2, under), (left + width / 2, under + 0.1)])
                _chapter(axes, left, under + 0.1, width, height, deeper, deeper == chapter)
                under += height + 0.1
            lowest = max(lowest, under)
        if row is not rows[-1]:
            right, first, middle = WIDTH - MARGIN, MARGIN + width / 2, level + height / 2
            between, level = lowest + 0.12, lowest + 0.3
            way = [(right - aside, middle), (right, middle), (right, between), (first, between)]
            _line(axes, way)
            _arrow(axes, (first, between), (first, level))
    steps = ", ".join(f"{number} {name}" for number, name in PATH.items())
    beside = ", ".join(f"{number} {name}" for number, name in DEEPER.items())
    alt = f"The path of the course: {steps}; deeper: {beside}. "
    alt += f"Lit is this chapter, {chapter} {names[chapter]}."
    return _finished(axes, lowest + MARGIN, alt)


def message_to_record(
    message: str, record: Mapping[str, str | None], copied: Sequence[str] = ()
) -> Drawing:
    """A message, and the record {field: value} that it becomes; `None` is an empty field.

    Values of the `copied` fields are underlined where the message has them and in the record.
    """
    message = " ".join(message.split())
    message = message if len(message) <= LONGEST else f"{message[:LONGEST]} …"
    values = [str(record[field]) for field in copied if record.get(field)]
    axes, inner = _card("a message becomes a record"), WIDTH - 2 * MARGIN - 0.24
    lines = _wrapped(message, inner)
    _box(axes, MARGIN, 0.42, WIDTH - 2 * MARGIN, LINE * len(lines) + 0.2, "", PAPER)
    _marked(axes, MARGIN + 0.12, 0.42 + 0.1 + LINE / 2, lines, values)
    level = 0.42 + LINE * len(lines) + 0.2
    _arrow(axes, (WIDTH / 2, level), (WIDTH / 2, level + 0.28))
    level += 0.28
    rows = {}
    for field, value in record.items():
        told = "(empty)" if value is None or value == "" else " ".join(str(value).split())
        rows[field] = _wrapped(field, 1.25), _wrapped(told, inner - 1.45, "bold")
    heights = [LINE * max(map(len, row)) + 0.07 for row in rows.values()]
    _box(axes, MARGIN, level, WIDTH - 2 * MARGIN, sum(heights) + 0.16, "", PAPER)
    below = level + 0.1 + LINE / 2
    for (field, (name, words)), height in zip(rows.items(), heights):
        _marked(axes, MARGIN + 0.12, below, name)
        found = values if field in copied else ()
        _marked(axes, MARGIN + 0.12 + 1.45, below, words, found, "bold")
        below += height
    level += sum(heights) + 0.16
    if values:
        _text(axes, MARGIN, level + 0.18, "underlined: copied from the message")
        level += 0.26
    pairs = ", ".join(f"{field}: {value or '(empty)'}" for field, value in record.items())
    alt = f"The message “{message}” becomes the record {pairs}."
    return _finished(axes, level + MARGIN, alt)


def who_reads(weights: Mapping[str, Mapping[str, float]]) -> Drawing:
    """Which way reads which field: {field: {way: weight}}, as measure.system.System.weights."""
    ways = list(dict.fromkeys(way for own in weights.values() for way in own))
    axes, level = _card("who reads which field"), 0.45
    left = MARGIN + min(1.1, max(_length(field, "normal") for field in weights) + 0.12)
    width = (WIDTH - MARGIN - left) / len(ways)
    heads = [_wrapped(way, width - 0.02) for way in ways]
    for place, head in enumerate(heads):
        _words(axes, left + (place + 0.5) * width, level + LINE * len(head) / 2, head)
    level += LINE * max(map(len, heads)) + 0.08
    for field, own in weights.items():
        name = _wrapped(field, left - MARGIN - 0.1)
        height = max(0.34, LINE * len(name) + 0.08)
        _marked(axes, MARGIN, level + height / 2 - LINE * (len(name) - 1) / 2, name)
        for place, way in enumerate(ways):
            weight = own.get(way, 0.0)
            colour = LIT if weight and weight == max(own.values()) else SOFT if weight else CARD
            words = f"{weight:.2f}" if weight else "–"
            _box(axes, left + place * width + 0.04, level, width - 0.08, height, words, colour)
        level += height + 0.08
    note = _wrapped("the weight of each way in a field; dark: the most", WIDTH - 2 * MARGIN)
    _marked(axes, MARGIN, level + LINE / 2, note)
    told = "; ".join(
        f"{field} by {', '.join(f'{way} {weight:.2f}' for way, weight in own.items() if weight)}"
        for field, own in weights.items()
    )
    alt = f"Which way reads which field, with its weight: {told}."
    return _finished(axes, level + LINE * len(note) + MARGIN, alt)


def row_sets(train: int, held_out: int, test: int, sealed: int) -> Drawing:
    """The sets of rows and what each is for; a set of 0 rows is left out.

    `held_out`: how many of the `train` rows a way does not see, in turn, while ways are chosen.
    """
    sets = [
        ("train", train, "learnt from"),
        ("held out", held_out, "of these, in turn: to choose by"),
        ("test", test, "read again and again: to compare by"),
        ("sealed", sealed, "opened once: for the verdict"),
    ]
    shown = [one for one in sets if one[1]]
    axes, level, left = _card("rows, and what they are for"), 0.45, MARGIN + 0.8
    room = max(_length(f"{number:,}", "bold") for _, number, _ in shown) + 0.1
    scale = (WIDTH - MARGIN - left - room) / max(number for _, number, _ in shown)
    for name, number, purpose in shown:
        _text(axes, MARGIN, level + 0.14, name, weight="bold")
        colour = {"train": SOFT, "held out": PAPER, "test": SOFT, "sealed": LIT}[name]
        _box(axes, left, level, max(0.05, number * scale), 0.28, "", colour)
        end = left + max(0.05, number * scale) + 0.08
        _text(axes, end, level + 0.14, f"{number:,}", weight="bold")
        _text(axes, left, level + 0.28 + LINE * 0.75, purpose)
        level += 0.28 + LINE + 0.16
    told = ", ".join(f"{number:,} {name} ({purpose})" for name, number, purpose in shown)
    return _finished(axes, level + MARGIN / 2, f"The sets of rows: {told}.")


def page_to_sign(lines: Sequence[str]) -> Drawing:
    """A sheet of paper with these lines, each a condition or a price, and a place to sign."""
    axes, left, width = _card("the page to sign"), MARGIN + 0.3, WIDTH - 2 * MARGIN - 0.6
    drawn = [_wrapped(" ".join(line.split()), width - 0.5) for line in lines]
    height = sum(LINE * len(line) + 0.09 for line in drawn) + 0.85
    _box(axes, left + 0.06, 0.51, width, height, "", SOFT)  # a shadow
    _box(axes, left, 0.45, width, height, "", PAPER)
    level = 0.45 + 0.16 + LINE / 2
    for line in drawn:
        axes.plot(left + 0.15, level, "s", color=LIT, markersize=4)
        _marked(axes, left + 0.3, level, line)
        level += LINE * len(line) + 0.09
    level += 0.33
    _line(axes, [(left + 0.15, level), (left + width - 0.15, level)])
    _text(axes, left + 0.15, level + 0.12, "name, date")
    alt = f"A page to sign, with a line for name and date: {'; '.join(lines)}."
    return _finished(axes, 0.51 + height + MARGIN, alt)


def routing(
    share_checked: float,
    wrong_checked: Any = None,
    wrong_unchecked: Any = None,
) -> Drawing:
    """A message goes through the system, and its record past a person or straight on.

    `share_checked`: of all records; `wrong_checked`, `wrong_unchecked`: the shares of wrong records
    among those that a person looks at, before the look, and among the others, each as
    measure.intervals.share counts it. Raises CourseError where a share is not between 0 and 1.
    """
    shares = {"share_checked": share_checked}
    for name, one in (("wrong_checked", wrong_checked), ("wrong_unchecked", wrong_unchecked)):
        if one is not None:
            shares[name] = one.value
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise CourseError(f"{name} is {share}: a share lies between 0 and 1.")
    axes, half = _card("from a message to a checked record"), (WIDTH - 2 * MARGIN - 0.3) / 2
    middles = MARGIN + half / 2, WIDTH - MARGIN - half / 2
    _box(axes, WIDTH / 2 - 0.6, 0.42, 1.2, 0.3, "message", PAPER)
    _arrow(axes, (WIDTH / 2, 0.72), (WIDTH / 2, 0.92))
    system = "system: a record, and how sure it is"
    _box(axes, WIDTH / 2 - 1.0, 0.92, 2.0, 0.5, system, SOFT)
    ways = [("doubtful", share_checked, "a person checks", wrong_checked, LIT)]
    ways += [("sure", 1 - share_checked, "goes on unchecked", wrong_unchecked, SOFT)]
    told = []
    for middle, (name, share, words, wrong, colour) in zip(middles, ways):
        _arrow(
            axes, (WIDTH / 2 + (middle - WIDTH / 2) * 0.4, 1.42), (middle, 1.92), 0.8 + 4 * share
        )
        outer = "right" if middle < WIDTH / 2 else "left"  # beside the arrow, not on it
        _text(axes, middle, 1.62, f"{share:.0%}", outer, weight="bold")
        lines = _wrapped(f"{name}: {words}", half - 0.1)
        if wrong is not None:
            counted = _counted(wrong, " before the check" if name == "doubtful" else "")
            lines += _wrapped(counted, half - 0.1)
            words += f"; {counted}"
        _box(axes, middle - half / 2, 1.92, half, 0.62, "", colour)
        _words(axes, middle, 2.23, lines, PAPER if colour == LIT else INK)
        _arrow(
            axes, (middle, 2.54), (WIDTH / 2 + (middle - WIDTH / 2) * 0.25, 2.84), 0.8 + 4 * share
        )
        told.append(f"{share:.0%} are {name}: {words}")
    _box(axes, WIDTH / 2 - 0.85, 2.84, 1.7, 0.3, "record that is used", PAPER)
    alt = f"Each message gets a record from the system. Of these, {'; '.join(told)}."
    return _finished(axes, 2.84 + 0.3 + MARGIN, alt)


def _counted(wrong: Any, when: str) -> str:
    """How many records are wrong, and between which shares that may lie."""
    number = round(wrong.value * wrong.n)
    ends = f"{wrong.low:.1%} to {wrong.high:.1%}" if number else f"up to {wrong.high:.1%}"
    return f"{number:,} of {wrong.n:,} wrong{when} ({ends})"


def lora(shape: tuple[int, int], rank: int) -> Drawing:
    """LoRA beside a frozen weight matrix of `shape` (outputs, inputs): what trains is dark."""
    outputs, inputs = shape
    axes = _card(f"LoRA of rank {rank} beside one weight matrix")
    left, width, half = 0.62, 2.5, 1.1
    _box(axes, left, 0.5, width, 0.62, f"W: {outputs} x {inputs}, frozen, four bits", SOFT)
    _text(axes, left + width / 2, 1.33, "trained, 32 bits", ha="center", colour=LIT)
    _box(axes, left, 1.5, half, 0.62, f"A: {rank} x {inputs}", LIT)
    _box(axes, left + width - half, 1.5, half, 0.62, f"B: {outputs} x {rank}", LIT)
    _arrow(axes, (left + half, 1.81), (left + width - half, 1.81))
    _text(axes, left + width / 2, 2.3, f"{rank} numbers", ha="center")
    _text(axes, 0.25, 1.31, "x", ha="center", size=13)
    _text(axes, 3.48, 1.31, "+", ha="center", size=16)
    for level in (0.81, 1.81):
        _arrow(axes, (0.33, 1.31), (left, level))
        _arrow(axes, (left + width, level), (3.4, 1.31))
    _arrow(axes, (3.58, 1.31), (3.8, 1.31))
    _words(axes, 4.13, 1.31, ["Wx +", "(α/r) BAx"])
    alt = f"What goes in, x, passes a frozen matrix W of {outputs} x {inputs} and beside it two "
    alt += (
        f"small trained ones, A of {rank} x {inputs} and B of {outputs} x {rank}; both are added."
    )
    return _finished(axes, 2.5, alt)


def pack(packs: Sequence[Sequence[tuple[int, int]]], length: int) -> Drawing:
    """Packs of rows: each row is (prompt tokens, answer tokens); answers, which train, are dark.

    `length`: tokens that fit into a pack; what is left of it is empty.
    """
    axes, left, level = _card("packs of rows, in tokens"), MARGIN + 0.55, 0.45
    scale = (WIDTH - MARGIN - left) / length
    for number, rows in enumerate(packs):
        _text(axes, MARGIN, level + 0.13, f"pack {number + 1}")
        _bar(axes, left, level, length * scale, PAPER)
        start = left
        for prompt, answer in rows:
            _bar(axes, start, level, prompt * scale, SOFT)
            _bar(axes, start + prompt * scale, level, answer * scale, LIT)
            start += (prompt + answer) * scale
            # a row never sees the one before it
            axes.plot([start, start], [level - 0.05, level + 0.31], color=INK, linewidth=1.6)
        level += 0.4
    _text(axes, left, level + 0.02, "0")
    _text(axes, WIDTH - MARGIN, level + 0.02, f"{length:,}", ha="right")
    _text(axes, MARGIN, level + 0.24, "light: read · dark: trained · line: a new row")
    rows_in = ", ".join(str(len(rows)) for rows in packs)
    alt = (
        f"Packs of at most {length:,} tokens with {rows_in} rows; only the answers, the dark part "
    )
    alt += "of each row, are trained, and no row sees the one before it."
    return _finished(axes, level + 0.24 + LINE / 2 + MARGIN, alt)


def episodes(played: int, kept: int) -> Drawing:
    """From episodes that were played to a student: what a program keeps, and what it drops."""
    if not 0 <= kept <= played:
        raise CourseError(f"{kept} episodes cannot be kept of {played}.")
    axes, half = _card("from episodes to a student"), (WIDTH - 2 * MARGIN - 0.3) / 2
    middles = MARGIN + half / 2, WIDTH - MARGIN - half / 2
    _box(axes, WIDTH / 2 - 1.2, 0.42, 2.4, 0.3, f"large model acts: {played:,} episodes", PAPER)
    _arrow(axes, (WIDTH / 2, 0.72), (WIDTH / 2, 0.92))
    _box(axes, WIDTH / 2 - 1.2, 0.92, 2.4, 0.3, "success? a program looks", SOFT)
    told = (("yes", kept, "teach", LIT), ("no", played - kept, "are left out", SOFT))
    for middle, (word, number, what, colour) in zip(middles, told):
        start = WIDTH / 2 + (middle - WIDTH / 2) * 0.4, 1.22
        _arrow(axes, start, (middle, 1.62), 0.8 + 4 * number / max(played, 1))
        _text(axes, middle, 1.42, word, "right" if middle < WIDTH / 2 else "left", weight="bold")
        _box(axes, middle - half / 2, 1.62, half, 0.4, f"{number:,} {what}", colour)
    _arrow(axes, (middles[0], 2.02), (middles[0], 2.22))
    _box(axes, MARGIN, 2.22, half, 0.4, "student learns their actions", PAPER)
    alt = (
        f"A large model plays {played:,} episodes; a program keeps the {kept:,} that succeed, from "
    )
    alt += f"which the student learns the actions, and leaves {played - kept:,} out."
    return _finished(axes, 2.22 + 0.4 + MARGIN, alt)


def shared_cache(one: str, other: str) -> Drawing:
    """Three requests to a server of two adapters, and what its cache does with what was read."""
    axes, width = _card("what was read is kept, not who read it"), (WIDTH - 2 * MARGIN - 0.6) / 3
    lefts = [MARGIN + place * (width + 0.3) for place in range(3)]
    for left, name in zip(lefts, ("request", "reads on from", "put aside")):
        _text(axes, left + width / 2, 0.5, name, ha="center")
    told = [(f"{one} reads message 1", "nothing", ""), (f"{other} reads message 2", "nothing", "1")]
    told.append((f"{other} reads message 1", f"message 1, read by {one}", ""))
    for number, (asked, start, aside) in enumerate(told):
        level, wrong = 0.66 + 0.72 * number, start != "nothing"
        _box(axes, lefts[0], level, width, 0.54, asked, PAPER)
        _arrow(axes, (lefts[0] + width, level + 0.27), (lefts[1], level + 0.27))
        _box(axes, lefts[1], level, width, 0.54, start, LIT if wrong else PAPER)
        if aside:
            _box(axes, lefts[2], level, width, 0.54, f"message {aside}, read by {one}", SOFT)
            _arrow(axes, (lefts[2], level + 0.54), (lefts[1] + width, level + 0.85))
    alt = (
        f"{one} reads message 1. {other} reads message 2, and message 1 is put aside as {one} has "
    )
    alt += f"read it. {other} is asked about message 1 and goes on from there: a wrong answer."
    return _finished(axes, 0.66 + 0.72 * 3 - 0.18 + MARGIN, alt)


# Pieces of a drawing: places in inches from the upper left corner of the card --------------------


def _card(title: str) -> Axes:
    use_style()
    # places are given here: the style's own layout would move them
    still = PlaceHolderLayoutEngine(adjust_compatible=False, colorbar_gridspec=False)
    figure = plt.figure(FigureClass=Drawing, figsize=(WIDTH, 1), layout=still)
    figure.patch.set(facecolor=CARD, edgecolor=SOFT, linewidth=2)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    _text(axes, MARGIN, 0.22, title, size=10, weight="bold")
    return axes


def _finished(axes: Axes, height: float, alt: str) -> Drawing:
    """The card, cut at `height`, with its sentence."""
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    drawing = axes.figure
    assert isinstance(drawing, Drawing)
    drawing.set_size_inches(WIDTH, height)
    drawing.alt = alt
    return drawing


def _font(words: str, weight: str, size: float = 9) -> FontProperties:
    """Bold only where Matplotlib's own font has the letters: fonts for others have one weight."""
    if weight == "bold" and not re.search(f"[{WIDE}]", words):
        return FontProperties(family="DejaVu Sans", size=size, weight=weight)
    return FontProperties(family=plt.rcParams["font.family"], size=size)


@cache
def _length(words: str, weight: str) -> float:
    """Inches that a line of nine points takes."""
    font = _font(words, weight)
    return RendererAgg(1, 1, 220).get_text_width_height_descent(words, font, False)[0] / 220


def _text(
    axes: Axes,
    x: float,
    y: float,
    words: str,
    ha: str = "left",
    colour: str = INK,
    weight: str = "normal",
    size: float = 9,
) -> None:
    """One line, its middle at the height `y`."""
    font = _font(words, weight, size)
    axes.text(x, y, words, ha=ha, va="center", color=colour, fontproperties=font)


def _wrapped(words: str, width: float, weight: str = "normal") -> list[str]:
    """Lines of at most `width` inches that make up `words`; a word that is longer is cut."""
    pieces: list[str] = []
    for piece in PIECE.findall(words):
        pieces += [piece] if _length(piece.rstrip(), weight) <= width else piece
    lines = [""]
    for piece in pieces:
        if lines[-1] and _length((lines[-1] + piece).rstrip(), weight) > width:
            lines.append("")
        lines[-1] += piece
    return lines


def _words(
    axes: Axes, x: float, y: float, lines: Sequence[str], colour: str = INK, weight: str = "normal"
) -> None:
    """Lines around (x, y), each in the middle."""
    first = y - LINE * (len(lines) - 1) / 2
    for number, line in enumerate(lines):
        place = x, first + LINE * number
        _text(axes, *place, line.rstrip(), ha="center", colour=colour, weight=weight)


def _marked(
    axes: Axes,
    x: float,
    y: float,
    lines: Sequence[str],
    values: Sequence[str] = (),
    weight: str = "normal",
) -> None:
    """Lines from (x, y) on to the right; what is one of `values` is lit and underlined."""
    marks = _marks("".join(lines), values)
    for number, line in enumerate(lines):
        start, level = x, y + LINE * number
        for lit, letters in groupby(line, lambda _: next(marks)):
            words = "".join(letters)
            width = _length(words, weight)
            colour = LIT if lit else INK
            _text(axes, start, level, words, colour=colour, weight=weight)
            if lit:
                under = level + 0.075
                axes.plot([start, start + width], [under, under], color=LIT, linewidth=1.2)
            start += width


def _marks(words: str, values: Sequence[str]) -> Iterator[bool]:
    """For each letter whether it belongs to the first place of one of `values`."""
    marked: set[int] = set()
    for value in values:
        place = words.find(value)
        if place >= 0:
            marked |= set(range(place, place + len(value)))
    return iter([place in marked for place in range(len(words))])


def _box(
    axes: Axes, left: float, top: float, width: float, height: float, words: str, colour: str
) -> None:
    """A rounded box, its words in the middle, as many lines as they need."""
    style = "round,pad=0,rounding_size=0.05"
    shape = FancyBboxPatch((left, top), width, height, style, facecolor=colour, edgecolor=INK)
    axes.add_patch(shape)
    middle = left + width / 2, top + height / 2
    _words(axes, *middle, _wrapped(words, width - 0.1), PAPER if colour == LIT else INK)


def _chapter(
    axes: Axes, left: float, top: float, width: float, height: float, number: str, lit: bool
) -> None:
    """A chapter of the path: its number, and under it its name."""
    _box(axes, left, top, width, height, "", LIT if lit else PAPER)
    ink, middle = PAPER if lit else INK, left + width / 2
    _text(axes, middle, top + 0.13, number, ha="center", colour=ink, weight="bold")
    name = {**PATH, **DEEPER}[number]
    _words(axes, middle, top + 0.39, _wrapped(name, width - 0.08), ink)


def _bar(axes: Axes, left: float, top: float, width: float, colour: str) -> None:
    """A bar of a pack, with straight ends."""
    axes.barh(top + 0.13, width, 0.26, left=left, color=colour, edgecolor=INK, linewidth=0.5)


def _line(axes: Axes, places: Sequence[tuple[float, float]]) -> None:
    axes.plot(*zip(*places), color=INK, linewidth=1.4)


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], width: float = 1.4
) -> None:
    shape = {"arrowstyle": "->", "color": INK, "linewidth": width, "shrinkA": 0, "shrinkB": 1}
    axes.annotate("", end, start, arrowprops=shape)
