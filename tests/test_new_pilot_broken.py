"""Files as strangers bring them: each gives a pilot that loads, or one plain sentence."""

import json
import random
import zipfile
from email.message import EmailMessage
from email.policy import SMTP

import openpyxl
import pytest

from helpers import CourseError
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.pilot.new_pilot import new_pilot

ABOUT = {
    "order": "Where is my order of {} sealing rings, it was promised for {}?",
    "quote": "Please send a price for {} ball bearings by {}, thank you.",
    "return": "We want to send back {} belts that arrived on {}.",
}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
LABELS = list(ABOUT)


def message(number, label=None):
    """The same number gives the same message; different numbers give different ones."""
    label = label or LABELS[number % 3]
    return ABOUT[label].format(number + 2, DAYS[number % 5])


def pairs(number=30, labels=LABELS):
    return [(message(n), labels[n % len(labels)]) for n in range(number)]


def table(some, header="message,label", separator=","):
    def cell(value):
        value = str(value)
        return '"' + value.replace('"', '""') + '"' if set(value) & set(',;\t"\n') else value

    lines = [separator.join(map(cell, row)) for row in some]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


def mail(number, label="", charset="utf-8", body=None):
    made = EmailMessage(policy=SMTP)
    made["From"] = f"Somebody <person{number}@example.com>"
    made["Subject"] = f"About {number}"
    made["Date"] = f"{number % 27 + 1:02} Mar 2026 10:{number % 60:02}:00 +0000"
    made["Message-ID"] = f"<{number}@example.com>"
    if label:
        made["X-Gmail-Labels"] = f"Inbox,{label}"
    made.set_content(body or message(number), charset=charset)
    return bytes(made).replace(b"\r\n", b"\n")


def mbox(mails):
    return b"".join(b"From x@example.com Thu Mar  5 10:00:00 2026\n" + m + b"\n" for m in mails)


def workbook(path, records):
    book = openpyxl.Workbook()
    for record in records:
        book.active.append(record)
    book.save(path)


def zipped(path, *names):
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, "<x/>")


def lines_of(some, **more):
    return "".join(
        json.dumps({"message": text, "label": label, **more}, ensure_ascii=False) + "\n"
        for text, label in some
    )


GOOD = table(pairs())
JAPANESE = [
    (f"注文番号{n}の部品はいつ届きますか。{n}日までに必要です。", ["配送", "見積"][n % 2])
    for n in range(30)
]
WESTERN = [(f"{text} Grüße aus Köln, schöne Größe", label) for text, label in pairs()]

# name of the file, what is in it (bytes, text, or a function that writes it), what a sentence must
# say, or None where it must work; choices
CASES = {
    "empty file": ("m.csv", "", "is empty", {}),
    "header only": ("m.csv", "message,label\n", "has a header but no rows", {}),
    "one column": ("m.csv", table([(text,) for text, _ in pairs()], "message"), "--values", {}),
    "one column and values": (
        "m.csv",
        table([(text,) for text, _ in pairs()], "message"),
        None,
        {"values": "order,quote,return"},
    ),
    "no header": ("m.csv", table(pairs(), ""), None, {}),
    "workbook renamed csv": (
        "m.csv",
        lambda path: workbook(path, [("message", "label"), *pairs()]),
        "rename it to m.xlsx",
        {},
    ),
    "xls": ("m.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old Excel workbook", {}),
    "msg": ("m.msg", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "Outlook mail", {}),
    "pst": ("m.pst", b"!BDN" + bytes(600), "Outlook data file", {}),
    "pdf": ("m.pdf", b"%PDF-1.7\n" + bytes(600), "is a PDF", {}),
    "picture": ("m.png", b"\x89PNG\r\n\x1a\n" + bytes(600), "is a picture", {}),
    "zip": ("m.zip", lambda path: zipped(path, "a.csv"), "is a zip file; unpack it", {}),
    "broken zip": ("m.xlsx", b"PK\x03\x04" + bytes(90), "damaged", {}),
    "docx": ("m.docx", lambda path: zipped(path, "word/document.xml"), "Word document", {}),
    "unknown ending": ("m.dat", GOOD, "of no kind that is read here", {}),
    "web page": ("m.csv", "<!DOCTYPE html><html><body>x</body></html>", "is a page", {}),
    "quote that never closes": (
        "m.csv",
        GOOD + '"Please send ten more,order\nx,order\n',
        "line 32",
        {},
    ),
    "ragged rows": ("m.csv", GOOD + "a,b,c,d\n", "row 32 has more cells", {}),
    "pipes": ("m.csv", table(pairs(), "message|label", "|"), "separate its columns by |", {}),
    "duplicate columns": ("m.csv", table(pairs(), "message,message"), "stands there twice", {}),
    "utf-16": ("m.csv", GOOD.encode("utf-16"), None, {}),
    "utf-16 without mark": ("m.csv", GOOD.encode("utf-16-le"), None, {}),
    "utf-16 cut in a letter": (
        "m.csv",
        GOOD.encode("utf-16-le")[:-1],
        "ends within a letter",
        {},
    ),
    "cp1252": ("m.csv", table(WESTERN).encode("cp1252"), None, {}),
    "shift-jis": ("m.csv", table(JAPANESE, "本文,分類").encode("cp932"), None, {}),
    "mixed encodings": (
        "m.csv",
        table(WESTERN).encode() + table(WESTERN[:3], "").encode("cp1252"),
        "is not UTF-8",
        {},
    ),
    "NUL bytes": ("m.csv", GOOD.replace("sealing", "seal\0ing").encode(), None, {}),
    "BOM twice": ("m.csv", ("\ufeff\ufeff" + GOOD).encode(), None, {}),
    "JSONL": ("m.jsonl", lines_of(pairs()), None, {}),
    "JSONL with one broken line": ("m.jsonl", lines_of(pairs()) + '{"message": ', "line 31", {}),
    "JSON array": ("m.json", json.dumps([{"m": t, "label": k} for t, k in pairs()]), None, {}),
    "JSON of texts": ("m.json", json.dumps([t for t, _ in pairs()]), "--values", {}),
    "nested JSON": (
        "m.json",
        json.dumps({"tickets": [{"body": {"text": t}, "meta": {"label": k}} for t, k in pairs()]}),
        None,
        {},
    ),
    "JSON key twice": ("m.json", '[{"m": "a", "m": "b"}]', "stands there twice", {}),
    "JSON number": ("m.json", "12", "list of objects", {}),
    "mbox": ("m.mbox", mbox(mail(n, LABELS[n % 3]) for n in range(30)), None, {}),
    "mbox cut in the middle": (
        "m.mbox",
        mbox(mail(n, LABELS[n % 3]) for n in range(30))[:-40],
        None,
        {},
    ),
    "mbox with wrong charset": (
        "m.mbox",
        mbox(
            mail(n, LABELS[n % 3], "latin-1", f"Größe {message(n)}").replace(
                b'charset="iso-8859-1"', b'charset="x-none"'
            )
            for n in range(30)
        ),
        None,
        {},
    ),
    "mbox with 0 mails": ("m.mbox", "this is no mailbox\n", "holds no mail", {}),
    "mbox without texts": (
        "m.mbox",
        mbox(mail(n, body="> only what somebody else wrote\n") for n in range(3)),
        "none of its 3 mail(s) has a text",
        {},
    ),
    "eml folder": (
        "mails",
        lambda path: [write(path / LABELS[n % 3] / f"{n}.eml", mail(n)) for n in range(30)],
        None,
        {},
    ),
    "8 rows": ("m.csv", table(pairs(8)), "at least 15", {}),
    "1 class": ("m.csv", table(pairs(30, ["order"])), "only the value 'order'", {}),
    "1 class, named": (
        "m.csv",
        table(pairs(30, ["order"])),
        "can be no label",
        {"label": ["label"]},
    ),
    "200 classes": (
        "m.csv",
        table(
            [(f"{message(n)} It is about matter {n // 5}.", f"class {n // 5}") for n in range(1000)]
        ),
        None,
        {},
    ),
    "201 classes": (
        "m.csv",
        table([(f"{message(n)}", f"class {n // 5}") for n in range(1005)]),
        "201 different values",
        {},
    ),
    "a label for every row": (
        "m.csv",
        table([(message(n), f"class {n}") for n in range(30)]),
        "30 different values",
        {"label": ["label"]},
    ),
    "all messages the same": (
        "m.csv",
        table([("Where is my order? It was due.", "order")] * 30 + [("A price?", "quote")] * 6),
        "only 'order' is left in 30 training rows",
        {},
    ),
    "all messages the same, same label twice": (
        "m.csv",
        table([("Where is my order? It was due.", LABELS[n % 2]) for n in range(40)]),
        "also stands there with another label",
        {},
    ),
    "contradictory labels everywhere": (
        "m.csv",
        table([(message(n // 2), LABELS[n % 3]) for n in range(60)]),
        "also stands there with another label",
        {},
    ),
    "label is the text": (
        "m.csv",
        GOOD,
        "was named for two things",
        {"text": "message", "label": ["message"]},
    ),
    "span values that do not stand in the text": (
        "m.csv",
        table([(*pair, f"thing {n}") for n, pair in enumerate(pairs())], "message,label,thing"),
        "stand in the message as they are",
        {"span": ["thing"]},
    ),
    "some span values that do not": (
        "m.csv",
        table(
            [(*pair, pair[0].split()[1] if n % 5 else f"x{n}") for n, pair in enumerate(pairs(60))],
            "message,label,thing",
        ),
        None,
        {"span": ["thing"]},
    ),
    "numbers as labels": ("m.csv", table(pairs(60, ["1", "2.0", "01", "2"])), None, {}),
    "dates ambiguous": (
        "m.csv",
        table(
            [(*pair, f"{n % 9 + 1}/{n % 7 + 1}/2026") for n, pair in enumerate(pairs())],
            "message,label,date",
        ),
        None,
        {},
    ),
    "dates that are none": (
        "m.csv",
        table([(*pair, f"day {n}") for n, pair in enumerate(pairs())], "message,label,date"),
        "are no dates",
        {"date": "date"},
    ),
    "100 kB message": ("m.csv", table([*pairs(), ("word and more " * 7000, "order")]), None, {}),
    "HTML and script": (
        "m.csv",
        table(
            [
                (f"<script>alert({n})</script><b>{text}</b>", f"<i>{label}</i>")
                for n, (text, label) in enumerate(pairs())
            ]
        ),
        None,
        {},
    ),
    "formula cells": (
        "m.csv",
        table(
            [
                (f"={n}+1 {text}", f"=1+{LABELS.index(label)}")
                for n, (text, label) in enumerate(pairs())
            ]
        ),
        None,
        {},
    ),
    "formulas in a workbook": (
        "m.xlsx",
        lambda path: workbook(
            path,
            [
                ("message", "label"),
                *((t, k if n % 9 else "=1+1") for n, (t, k) in enumerate(pairs(60))),
            ],
        ),
        None,
        {},
    ),
    "labels yes, null, empty": (
        "m.csv",
        table(pairs(60, ["yes", "null", "", "~", "no"])),
        None,
        {},
    ),
    "Japanese columns": ("m.csv", table(JAPANESE, "本文,分類"), None, {}),
    "no such file": ("m.csv", None, "There is no file m.csv", {}),
    "a folder of nothing": ("m", lambda path: path.mkdir(), "is a folder without", {}),
    "no such column": ("m.csv", GOOD, "did you mean 'label'?", {"label": ["lable"]}),
    "reserved names": (
        "m.csv",
        table(
            [
                (n % 4, text, label, LABELS[n % 2], LABELS[n % 3])
                for n, (text, label) in enumerate(pairs())
            ],
            "id,message,annotator,tags,teacher",
        ),
        None,
        {"label": ["annotator", "tags"]},
    ),
    "text column called id": ("m.csv", table(pairs(), "id,label"), None, {"text": "id"}),
    "very long label": (
        "m.csv",
        table(pairs(60, ["order", "quote " * 100])),
        None,
        {"label": ["label"]},
    ),
    "whitespace-only texts": (
        "m.csv",
        table([*pairs(), ("   ", "order"), ("\u200b", "quote")]),
        None,
        {},
    ),
    "only whitespace": ("m.csv", table([("  ", "order")] * 30), "messages", {}),
    "all in one group": (
        "m.csv",
        table([(*pair, "one") for pair in pairs()], "message,label,customer"),
        None,
        {},
    ),
    "all in one group, named": (
        "m.csv",
        table([(*pair, "one") for pair in pairs()], "message,label,customer"),
        "same in all rows",
        {"group": "customer"},
    ),
    "one large group": (
        "m.csv",
        table(
            [(*pair, "one" if n else "two") for n, pair in enumerate(pairs())],
            "message,label,customer",
        ),
        "must stay together",
        {"group": "customer"},
    ),
    "noise": ("m.csv", random.Random(0).randbytes(900), "m.csv", {}),
    "surrogates": ("m.jsonl", lines_of(pairs()).replace("sealing", "seal\\ud800ing"), None, {}),
    "unknown language": (
        "m.csv",
        table([("12 34 56 78 90 " * 2 + str(n), LABELS[n % 2]) for n in range(30)]),
        None,
        {"label": ["label"], "text": "message"},
    ),
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("case", CASES)
def test_a_strange_file_gives_a_pilot_or_a_sentence(tmp_path, case):
    name, content, sentence, choices = CASES[case]
    write(tmp_path / "in" / name, content)
    desk = tmp_path / "desk"
    if sentence is None:
        found = new_pilot(desk, tmp_path / "in" / name, **choices)
        pilot = Pilot.load(desk)
        assert pilot.fields == found.pilot.fields
        if "values" not in choices:
            data = rows.load(pilot)
            assert len(data.train) >= 10 and len(data.test) >= 5
        assert "<script>" not in found._repr_html_()
    else:
        with pytest.raises(CourseError) as problem:
            new_pilot(desk, tmp_path / "in" / name, **choices)
        words = str(problem.value)
        assert sentence in words
        assert words[-1] in ".?" and len(words) < 700 and "\n" not in words
        assert str(tmp_path) not in words and "Error" not in words
        assert not desk.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []


PLACES = {
    "slash": ("my/desk", "There is no folder my/"),
    "space": ("my desk", "cannot be the name"),
    "number first": ("1desk", "cannot be the name"),
    "exists": ("there", "take another name, or replace it with --fresh"),
    "no pilot": ("other", "is no pilot, so it is left alone"),
    "file": ("file", "is no pilot, so it is left alone"),
    "inside a file": ("file/desk", "is a file"),
}


@pytest.mark.parametrize("case", PLACES)
@pytest.mark.parametrize("fresh", [False, True])
def test_a_place_where_no_pilot_can_be(tmp_path, monkeypatch, case, fresh):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m.csv", GOOD)
    write(tmp_path / "there/pilot.yaml", "name: there\n")
    write(tmp_path / "other/notes.txt", "mine")
    write(tmp_path / "file", "mine")
    place, sentence = PLACES[case]
    if fresh and case == "exists":
        new_pilot(place, "m.csv", fresh=True)
        return
    with pytest.raises(CourseError, match=".*") as problem:
        new_pilot(place, "m.csv", fresh=fresh)
    assert sentence in str(problem.value)
    assert (tmp_path / "other/notes.txt").read_text() == "mine"


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    write(tmp_path / "m.csv", GOOD)
    new_pilot(tmp_path / "desk", tmp_path / "m.csv")
    before = {path.name: path.read_bytes() for path in (tmp_path / "desk").iterdir()}

    def full(self, *args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(CourseError, match="No space left"):
        new_pilot(tmp_path / "desk", tmp_path / "m.csv", fresh=True)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "desk").iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["desk", "m.csv"]
