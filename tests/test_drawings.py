"""The drawings: letters large enough on a phone, nothing over the edge, a sentence for each."""

import base64
import io
import logging
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from helpers import CourseError, course
from helpers.core import drawings, plots
from helpers.measure import intervals

PHONE = 390  # pixels that a phone is wide
MESSAGE = "Where is PO-1234? The line is down, we need the gear pump GP-20 by Friday at the latest!"
RECORD = {"intent": "delivery", "product": "gear pump GP-20", "order_id": "PO-1234", "city": None}
JAPANESE = "注文番号AB-1234の油圧ポンプがまだ届いていません。至急確認をお願いします。"
WEIGHTS = {
    "intent": {"rules": 0.49, "TF-IDF": 1.17, "tuned": 0.56},
    "urgency": {"rules": 0.39, "embeddings": 0.51, "tuned": 0.56},
    "a_field_with_a_long_name": {"tuned": 1.0},
}
LINES = ["At least 30 more of 100 records right than with rules", "At most 1,500 EUR per 1,000"]
PACKS = [[(120, 30), (100, 40)], [(200, 40)]]
MAKE = {
    **{
        f"path {number}": (lambda number=number: drawings.path(number))
        for number in ("00", "05a", "08b")
    },
    "message": lambda: drawings.message_to_record(MESSAGE, RECORD, ["product", "order_id"]),
    "hostile": lambda: drawings.message_to_record("$x_1$ <b>&amp; %s " * 60, {"a": "$\\frac$"}),
    "one word": lambda: drawings.message_to_record("x" * 200, {"a" * 60: "y" * 90}),
    "ways": lambda: drawings.who_reads(WEIGHTS),
    "rows": lambda: drawings.row_sets(60, 20, 200, 200),
    "many rows": lambda: drawings.row_sets(3, 1, 1_000_000, 0),
    "page": lambda: drawings.page_to_sign(LINES),
    "routing": lambda: drawings.routing(0.91, share(70, 182), share(0, 18)),
    "routing of many": lambda: drawings.routing(0.5, share(9_999, 50_000), share(10, 50_000)),
    "lora": lambda: drawings.lora((576, 1536), 16),
    "pack": lambda: drawings.pack(PACKS, 512),
    "shared cache": lambda: drawings.shared_cache("first", "tuned"),
}


def share(wrong: int, n: int) -> intervals.Share:
    return intervals.share([True] * wrong + [False] * (n - wrong))


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


def letters(drawing) -> list[Text]:
    return [text for text in drawing.findobj(Text) if text.get_text().strip()]


def contrast(one, other) -> float:
    """The contrast of two colours as the web's accessibility guideline counts it, 1 to 21."""
    shades = []
    for colour in (one, other):
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        shades.append(float(np.dot([0.2126, 0.7152, 0.0722], parts)) + 0.05)
    return max(shades) / min(shades)


@pytest.mark.parametrize("name", MAKE)
def test_letters_are_legible_on_a_phone_and_stay_on_the_card(name, recwarn):
    drawing = MAKE[name]()
    drawing.canvas.draw()
    assert drawing.get_figwidth() == drawings.WIDTH
    card, places = drawing.bbox, {}
    for text in letters(drawing):
        pixels = text.get_fontsize() / 72 / drawings.WIDTH * PHONE
        assert pixels >= 8, (text.get_text(), pixels)
        places[text] = text.get_window_extent()
        assert card.x0 <= places[text].x0 and places[text].x1 <= card.x1, text.get_text()
        assert card.y0 <= places[text].y0 and places[text].y1 <= card.y1, text.get_text()
    for (one, place), (other, beside) in combinations(places.items(), 2):
        shared = min(place.x1, beside.x1) - max(place.x0, beside.x0)
        over = min(place.y1, beside.y1) - max(place.y0, beside.y0)
        assert min(shared, over) < 3, (one.get_text(), other.get_text())
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("name", MAKE)
def test_letters_stand_out_from_what_is_behind_them(name):
    drawing = MAKE[name]()
    found = letters(drawing)
    drawing.canvas.draw()
    places = {text: text.get_window_extent() for text in found}
    for text in found:
        text.set_visible(False)
    drawing.canvas.draw()
    picture = np.asarray(drawing.canvas.buffer_rgba())[::-1, :, :3] / 255
    for text, place in places.items():
        under = picture[int(place.y0) : int(place.y1) + 1, int(place.x0) : int(place.x1) + 1]
        behind = np.median(under.reshape(-1, 3), axis=0)
        assert contrast(to_rgb(text.get_color()), behind) >= 4.5, text.get_text()


def test_colours_differ_in_lightness_too():
    """Who sees no difference between red and grey still tells light from dark."""
    for one, other in combinations((drawings.LIT, drawings.SOFT, drawings.PAPER), 2):
        assert contrast(to_rgb(one), to_rgb(other)) > 2


def test_the_path_knows_every_chapter():
    numbers = [number for number, _ in course.chapters()]
    assert numbers == sorted({**drawings.PATH, **drawings.DEEPER})
    for number in numbers:
        drawing = drawings.path(number)
        faces = [patch.get_facecolor()[:3] for patch in drawing.axes[0].patches]
        assert faces.count(to_rgb(drawings.LIT)) == 1
        assert drawing.alt.endswith(f"chapter, {number} {names()[number]}.")


def names():
    return {**drawings.PATH, **drawings.DEEPER}


def test_a_chapter_that_is_not_there_is_a_sentence():
    with pytest.raises(CourseError, match="There is no chapter '99' to light: take one of 00, 01"):
        drawings.path("99")


def shown(drawing, monkeypatch) -> list:
    got = []
    monkeypatch.setattr(drawings, "publish_display_data", lambda *one: got.append(one))
    drawing._ipython_display_()
    return got


@pytest.mark.parametrize("name", MAKE)
def test_a_notebook_shows_picture_and_sentence_once(name, monkeypatch):
    before = plt.get_fignums()
    drawing = MAKE[name]()
    (data, about), (words,) = shown(drawing, monkeypatch)
    assert plt.get_fignums() == before, "the notebook would show it again"
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert about["image/png"] == {"alt": drawing.alt, "width": round(picture.width / 2)}
    assert data["text/plain"] == drawing.alt and drawing.alt.endswith(".")
    assert len(data["image/png"]) < 60_000
    corner = picture.convert("RGB").getpixel((12, 12))
    assert min(corner) > 230, "the card brings its own background"
    assert "<b>" not in words["text/html"] and "<details>" in words["text/html"]


def test_copied_values_are_lit_where_the_message_has_them():
    drawing = drawings.message_to_record(MESSAGE, RECORD, ["product", "order_id", "city"])
    lit = [text.get_text() for text in letters(drawing) if text.get_color() == drawings.LIT]
    words = "".join(lit).replace(" ", "")
    assert words.count("PO-1234") == 2 and words.count("gearpumpGP-20") == 2
    assert "delivery" not in words
    plain = drawings.message_to_record(MESSAGE, RECORD)
    assert not [text for text in letters(plain) if text.get_color() == drawings.LIT]
    assert "city: (empty)" in plain.alt and MESSAGE in plain.alt


def test_long_words_and_other_scripts_are_cut_into_lines_that_fit():
    for words in (MESSAGE, JAPANESE, "x" * 300, ""):
        lines = drawings._wrapped(words, 1.0)
        assert "".join(lines) == words
        assert all(drawings._length(line.rstrip(), "normal") <= 1.0 for line in lines)


def test_japanese_has_no_boxes(monkeypatch, recwarn, caplog):
    if len(plots._fonts()) == 1:
        pytest.skip("no font here has Japanese letters")
    record = {"依頼": "配送状況", "商品": "油圧ポンプ", "注文番号": "AB-1234"}
    with caplog.at_level(logging.WARNING):
        shown(drawings.message_to_record(JAPANESE, record, ["商品", "注文番号"]), monkeypatch)
        shown(drawings.who_reads({"依頼": {"規則": 1.0}}), monkeypatch)
        shown(drawings.page_to_sign(["確認費用は一件二百円まで"]), monkeypatch)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert caplog.text == "", "a bold font was looked for that is not there"


def test_the_heaviest_way_of_a_field_is_dark():
    drawing = drawings.who_reads(WEIGHTS)
    dark = [text.get_text() for text in letters(drawing) if text.get_color() == drawings.PAPER]
    assert dark == ["1.17", "0.56", "1.00"]
    assert "urgency by rules 0.39, embeddings 0.51, tuned 0.56" in drawing.alt


def test_a_set_without_rows_is_left_out():
    told = {text.get_text() for text in letters(drawings.row_sets(60, 0, 200, 0))}
    assert {"train", "60", "test", "200"} <= told and not {"sealed", "held out"} & told


def test_shares_of_the_routing_add_up_and_are_shares():
    drawing = drawings.routing(0.25)
    assert {"25%", "75%"} <= {text.get_text() for text in letters(drawing)}
    with pytest.raises(CourseError, match="wrong_unchecked is 40: a share lies between 0 and 1"):
        drawings.routing(0.9, None, intervals.Share(40, 0, 1, 18))


def test_a_routing_says_how_far_no_error_may_be_trusted():
    alt = drawings.routing(0.91, share(70, 182), share(0, 18)).alt
    assert "70 of 182 wrong before the check (31.7% to 45.7%)" in alt
    assert "0 of 18 wrong (up to 17.6%)" in alt
    assert "0 of 180 wrong (up to 2.1%)" in drawings.routing(0.1, None, share(0, 180)).alt


def test_only_answers_are_dark_in_a_pack():
    bars = [bar for box in drawings.pack(PACKS, 512).axes[0].containers for bar in box]
    dark = [bar.get_width() for bar in bars if bar.get_facecolor()[:3] == to_rgb(drawings.LIT)]
    assert np.array(dark) / dark[0] == pytest.approx([1, 40 / 30, 40 / 30])
