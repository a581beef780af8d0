"""A hundred pilots made by chance: any script, encoding, separator, field and size; what breaks?

    python -m benchmarks.generated_pilots [--pilots 100] [--record]

Each goes the way of a real one: it is loaded, the grammar is asked whether it can write the right
record, the cheap ways are scored, a few rows are curated, a bar is drafted. A third carry one
planted mistake, which must be named with its row. A row of the file that is neither in the data nor
named in a note or an error is a silent loss; so is one whose text or values came out changed.
"""

import argparse
import csv
import io
import json
import os
import random
import re
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from pathlib import Path

import yaml

from benchmarks.everywhere import add_figures
from helpers import CourseError
from helpers.agree.bar import Bar
from helpers.agree.wish import Wish
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.keep import filters, pipeline
from helpers.measure import baselines, scoring

# {script: (language, letters a word is made of, what stands between words)}
SCRIPTS = {
    "latin": ("de", "abcdefghiklmnoprstuvwzäöüß", " "),
    "cyrillic": ("ru", "абвгдежзиклмнопрстуфхцчшыэюя", " "),
    "greek": ("el", "αβγδεζηθικλμνξοπρστυφχψωάέή", " "),
    "arabic": ("ar", "ابتثجحخدذرزسشصضطظعغفقكلمنهوي", " "),
    "hebrew": ("he", "אבגדהוזחטיכלמנסעפצקרשת", " "),
    "devanagari": ("hi", ["का", "कि", "नी", "म", "र", "स्त", "त", "ल", "प्र", "व", "हु"], " "),
    "thai": ("th", ["กา", "ขอ", "สิ", "นี้", "ที่", "รับ", "ค", "ง", "เม"], ""),
    "chinese": ("zh", "订单客户电话请问什么时候发货数量价格泵阀皮带维修发票", ""),
    "japanese": ("ja", "注文番号を教えてくださいポンプのベルトがガ届きません", ""),
    "korean": ("ko", "주문번호를알려주세요펌프벨트가격배송언제", " "),
    "emoji": ("en", ["👍", "🔧", "👩‍🔧", "🇩🇪", "❤️", "ok", "pump", "e\u0301"], " "),
}
ENCODINGS = {  # that the course reads, where the script fits into them
    "cp932": ("japanese",),
    "cp1252": ("latin",),
    "latin-1": ("latin",),
    "utf-8-sig": SCRIPTS,
    "utf-16": SCRIPTS,
}
REFUSED = {  # that it cannot tell with certainty
    "cp1251": ("cyrillic",),
    "cp1253": ("greek",),
    "cp949": ("korean",),
    "gb18030": ("chinese",),
}
SIZES = (8, 12, 12, 20, 20, 30, 30, 60, 60, 150, 400)
LARGE = {17: 20_000, 45: 50_000, 83: 100_000}  # {number of the pilot: training rows}
DAMAGES = ("ragged row", "repeated id", "wrong label", "open quote", "value not in the text")
PATTERNS = (r"PO-\d{4}", r"\d+(?:\.\d\d)? ?(?:EUR|円|₽)", r"№\d{3}", r"[A-Z]{2}\d{2}")


class Made:
    """A pilot on disk and what stands in it: `tables` {split: rows}, the planted mistake if any."""

    def __init__(self, number: int, folder: Path, seed: int = 0) -> None:
        self.draw = draw = random.Random(f"{seed}-{number}")
        self.number, self.folder = number, folder
        self.scripts = [draw.choice(list(SCRIPTS))]
        if draw.random() < 0.2:
            self.scripts = draw.sample(list(SCRIPTS), 3)
        self.encoding, self.kind = self._encoding()
        self.form = "jsonl" if self.kind == "plain" and draw.random() < 0.3 else "csv"
        self.separator = draw.choice(",,;\t")
        self.fields = self._fields()
        size = LARGE.get(number) or draw.choice(SIZES)
        sizes = {"train": size, "test": min(200, max(8, size // 2))}
        if draw.random() < 0.4:
            sizes["ood"] = 6
        self.text = draw.choice(["message", "text", self._word() + "x"])
        self.has_threads = draw.random() < 0.3
        self.tables = {split: self._rows(split, n) for split, n in sizes.items()}
        self.damage, self.damaged_row, self.place = "", 0, ""  # `place`: 'row 7', as it is named
        if number % 3 == 0 and self.kind != "refused":
            self._plan_damage()
        self._write()

    def _encoding(self) -> tuple[str, str]:
        chance = self.draw.random()
        for table, kind, limit in ((REFUSED, "refused", 0.08), (ENCODINGS, "other", 0.5)):
            fits = [name for name, known in table.items() if set(self.scripts) <= set(known)]
            if chance < limit and fits:
                return self.draw.choice(fits), kind
        return "utf-8", "plain"

    def _word(self) -> str:
        letters = SCRIPTS[self.draw.choice(self.scripts)][1]
        word = "".join(self.draw.choices(letters, k=self.draw.randint(2, 7)))
        return unicodedata.normalize("NFC", word)

    def _fields(self) -> dict[str, dict]:
        fields: dict[str, dict] = {}
        for number in range(self.draw.randint(1, 4)):
            kind = self.draw.choice(["label", "span", "pattern"])
            spec: dict = {"type": kind}
            if self.draw.random() < 0.5:
                spec["optional"] = True
            if kind == "label":
                spec["values"] = sorted({self._word() for _ in range(self.draw.choice([3, 4, 12]))})
                if len(spec["values"]) < 2:
                    spec["values"] = ["one", "other"]
            if kind == "pattern":
                fits = [p for p in PATTERNS if self.encoding in ("utf-8", "utf-16") or p.isascii()]
                spec["regex"] = self.draw.choice(fits)
            letters = [c for c in SCRIPTS[self.scripts[0]][1] if c.isidentifier()]
            name = f"{kind}_{number}" if len(letters) < 5 else self.draw.choice(letters) * 2
            fields[name if name not in fields else f"{kind}{number}"] = spec
        return fields

    def _rows(self, split: str, n: int) -> list[dict]:
        gap = SCRIPTS[self.scripts[0]][2]
        made = []
        for number in range(n):
            words = [self._word() for _ in range(self.draw.randint(3, 14))]
            row: dict = {"id": f"{split}-{number}"}
            if self.has_threads:
                row["thread"] = f"t{number // 3}"
            labels = {}
            for name, spec in self.fields.items():
                labels[name] = self._value(spec, words)
            text = gap.join(words) + self.draw.choice(["", "?", ".", ' "!"', "\nok", ", ok; ok"])
            row[self.text] = f"{text} {split} {number}"
            made.append(row | labels)
        return made

    def _value(self, spec: dict, words: list[str]) -> str | None:
        """A value of the field; a copied one is put among the words."""
        if spec.get("optional") and self.draw.random() < 0.3:
            return None
        if spec["type"] == "label":
            return self.draw.choice(spec["values"])
        value = self._word()
        if spec["type"] == "pattern":
            digits = self.draw.randint(1000, 9999)
            value = {
                PATTERNS[0]: f"PO-{digits}",
                PATTERNS[1]: f"{digits}.50 EUR",
                PATTERNS[2]: f"№{digits % 900 + 100}",
                PATTERNS[3]: f"AB{digits % 90 + 10}",
            }[spec["regex"]]
        # between spaces: beside a digit or a letter another value would stand there
        words.insert(self.draw.randint(0, len(words)), f" {value} ")
        return value

    def _plan_damage(self) -> None:
        table = self.tables["test"]
        labels = [name for name, spec in self.fields.items() if spec["type"] == "label"]
        copied = [name for name in self.fields if name not in labels]
        possible = ["repeated id"]
        possible += ["ragged row", "open quote"] if self.form == "csv" else []
        possible += ["wrong label"] if labels else []
        possible += ["value not in the text"] if copied else []
        self.damage = self.draw.choice(possible)
        place = self.draw.randrange(1, len(table))
        self.damaged_row = place
        self.place = f"line {place + 1}" if self.form == "jsonl" else f"row {place + 2}"
        if self.damage == "repeated id":
            table[place]["id"] = table[place - 1]["id"]
        if self.damage == "wrong label":
            table[place][labels[0]] = "no such label"
        if self.damage == "value not in the text":
            table[place][copied[0]] = "no such piece"

    def _write(self) -> None:
        self.folder.mkdir(parents=True)
        language = SCRIPTS[self.scripts[0]][0]
        page = {"name": f"made{self.number}", "language": language, "text": self.text}
        page["fields"] = self.fields
        words = yaml.safe_dump(page, allow_unicode=True, sort_keys=False)
        (self.folder / "pilot.yaml").write_text(words, encoding="utf-8")
        for split, table in self.tables.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
            if self.form == "csv":
                lines = self._as_csv(split, table)
            path = self.folder / f"{split}.{self.form}"
            path.write_bytes(lines.encode(self.encoding))

    def _as_csv(self, split: str, table: list[dict]) -> str:
        out = io.StringIO(newline="")
        quoting = csv.QUOTE_ALL if self.damage == "open quote" else csv.QUOTE_MINIMAL
        writer = csv.writer(out, delimiter=self.separator, quoting=quoting)
        writer.writerow(table[0])
        for number, row in enumerate(table):
            cells = list(row.values())
            if split == "test" and number == self.damaged_row and self.damage == "ragged row":
                cells.append("one more")
            at = out.tell()
            writer.writerow(cells)
            if split == "test" and number == self.damaged_row and self.damage == "open quote":
                self.place = f"line {out.getvalue()[:at].count(chr(10)) + 1}"
                line = out.getvalue()[at:].replace('"\r\n', "\r\n")  # the last quote of the row
                out.seek(at)
                out.truncate()
                out.write(line)
        return out.getvalue()


def lost_rows(made: Made, data: rows.Rows) -> list[str]:
    """What of the files is in none of the tables and in no note, a sentence each."""
    lost = []
    said = " ".join(data.notes)
    leaks = int((re.search(r"(\d+) training row\(s\) also stand", said) or [0, 0])[1])
    for split, table in made.tables.items():
        read = getattr(data, split)
        missing = len(table) - len(read) - (leaks if split == "train" else 0)
        if missing:
            lost.append(f"{missing} rows of {split} are gone")
        known = {row["id"]: row for row in read}
        for row in table:
            other = known.get(row["id"])
            for name in (made.text, *made.fields) if other else ():
                wanted = row[name] and unicodedata.normalize("NFC", row[name])
                if other[name] != wanted:
                    lost.append(f"{split} {row['id']}: {name} is {other[name]!r}, not {wanted!r}")
        if made.has_threads and not any("thread" in row for row in data.metadata[split]):
            lost.append(f"the column 'thread' of {split} is gone")
    return lost


def try_pilot(made: Made, tokenizer) -> Counter:
    """Send one pilot the whole way; returns what happened, counted."""
    from helpers.ask import answers

    seen: Counter = Counter(generated=1)
    is_small = min(map(len, made.tables.values())) < 5 or len(made.tables["train"]) < 10
    try:
        pilot = Pilot.load(made.folder)
        data = rows.load(pilot)
    except CourseError as problem:
        seen["refused"] = 1
        if made.damage and not re.search(rf"^test.* {made.place}\b", str(problem)):
            seen["damage_not_named"] = 1
            print(f"pilot {made.number} has {made.damage} in {made.place}: {problem}")
        if not (made.damage or is_small or made.kind == "refused"):
            seen["false_refusals"] = 1
            print(f"pilot {made.number} is refused: {problem}")
        return seen
    lost = lost_rows(made, data)
    if made.damage or made.kind == "refused":
        lost.append(f"{made.damage or made.encoding} was read without a word")
    seen["silent_losses"] = len(lost)
    for line in lost[:3]:
        print(f"pilot {made.number} ({made.encoding}): {line}")
    for row in data.test.select(range(min(50, len(data.test)))):
        held = answers.accepts(pilot, tokenizer, row[pilot.text], pilot.answer(row))
        seen.update(asked=1, not_accepted=not held)
    train, test = list(data.train.select(range(min(400, len(data.train))))), list(data.test)
    texts = [row[pilot.text] for row in test]
    for way in (baselines.majority, baselines.rules, baselines.tf_idf):
        scoring.score(pilot, test, way(pilot, train, texts))
    few = data.train.select(range(min(30, len(data.train))))
    steps = filters.standard(pilot, few, data.test, data.ood)
    languages = [step for step in steps if step.name == "language"]
    for some in ([step for step in steps if step not in languages], languages):
        try:
            pipeline.curate(pilot, few, some)
        except pipeline.CurationError:
            seen["emptied_by_filters"] += 1  # said in words: chance writes no language
    wish = Wish.load(pilot).for_bar(pilot, "majority", len(test))
    Bar.freeze(pilot, **wish | {"agreed": False})
    return seen


def try_all(number: int, tokenizer, seed: int = 0, large: bool = True) -> Counter:
    """Counts over `number` pilots; a traceback is counted and printed, and the next one tried."""
    total: Counter = Counter(tracebacks=0, silent_losses=0, false_refusals=0, damage_not_named=0)
    with tempfile.TemporaryDirectory() as place:
        for one in range(number):
            if not large and one in LARGE:
                continue
            try:
                total.update(try_pilot(Made(one, Path(place) / f"made{one}", seed), tokenizer))
            except Exception as problem:
                # anything at all may happen here, and all of it counts
                total.update(generated=1, tracebacks=1)
                last = traceback.extract_tb(problem.__traceback__)[-1]
                print(f"pilot {one}: {problem!r} in {last.name}, {Path(last.filename).name}")
    return total


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pilots", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write everywhere.json")
    options = parser.parse_args()
    runtime.quiet()
    from transformers import AutoTokenizer

    from helpers.choose import models

    tokenizer = AutoTokenizer.from_pretrained(models.resolve("embedded").path)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        os.environ["COURSE_RUNS"] = place  # drafts of bars are thrown away
        total = try_all(options.pilots, tokenizer, options.seed)
    seconds = round(time.perf_counter() - started, 1)
    print(dict(total), f"{seconds} s")
    how = "pilots made by chance (benchmarks/generated_pilots.py)"
    names = ("generated", "tracebacks", "silent_losses", "refused", "false_refusals")
    figures = []
    for name in (*names, "damage_not_named", "asked", "not_accepted"):
        one = {"name": f"pilots.{name}", "value": total[name], "unit": "count", "how": how}
        figures.append(one | {"n": total["generated"], "seeds": [options.seed]})
    if options.record:
        add_figures("pilots", figures, {"seconds": seconds, "pilots": options.pilots})


if __name__ == "__main__":
    _main()
