"""One column of a file of messages in figures: how long, how often the same, in the text or not."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from helpers.pilot.value_forms import read_dates

MOST_CLASSES = 200
LONG_LABEL = 80  # characters; what is usually longer is no label
SEPARATOR = re.compile(r"\s*[;|]\s*|,\s*|、")


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


# words that tell what a column is for, in English, German and Japanese
LABEL_WORDS = _words(
    "label labels category categories kategorie topic thema intent anliegen class klasse type typ",
    "reason grund queue department abteilung urgency dringlichkeit priority priorität",
    "分類 カテゴリ カテゴリー 種別 区分 用件 ラベル 部署 緊急度 優先度",
)
GROUP_WORDS = _words(
    "thread conversation customer client sender from account company contact requester user kunde",
    "kundennummer firma absender konto gespräch ticket case",
    "顧客 顧客名 取引先 送信者 スレッド 会社",
)
# what a help desk knows of a ticket, and nobody can read from the message
NOT_READ = _words(
    "status state channel agent assignee owner language sprache source quelle kanal bearbeiter",
    "zuständig folder mailbox inbox year month week split partition fold subset",
    "状態 担当 担当者 言語",
)
ID_WORDS = _words("id nr no number key ticket case uuid nummer 番号 管理番号")
TEXT_WORDS = _words(
    "text message body nachricht content description comment mail 本文 内容 メッセージ"
)


@dataclass(frozen=True)
class Column:
    """`cells`: as they stand; `filled`: those that are not empty; `counts`: of the filled ones."""

    name: str
    cells: list[str]
    filled: list[str]
    counts: Counter[str]

    @classmethod
    def of(cls, name: str, rows: Sequence[dict[str, str]]) -> "Column":
        """The column of this name in these rows."""
        cells = [row[name] for row in rows]
        filled = [cell for cell in cells if cell.strip()]
        return cls(name, cells, filled, Counter(map(plain_value, filled)))

    def is_called(self, words: frozenset[str]) -> bool:
        """Whether one of the words stands in the name, or makes it up."""
        name = unicodedata.normalize("NFKC", self.name).casefold()
        parts = re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name).casefold())
        return name in words or bool(words & set(parts))

    @property
    def length(self) -> float:
        """Characters of the usual filled cell."""
        return median(map(len, self.filled)) if self.filled else 0

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return len(set(self.cells)) == len(self.cells) == len(self.filled)

    def copies(self, texts: Sequence[str]) -> list[tuple[str, str]]:
        """(what stands in its row's text, that text) for the filled cells that do stand there."""
        pairs = [(as_in_text(cell.strip(), text), text) for cell, text in zip(self.cells, texts)]
        return [(value, text) for value, text in pairs if value]

    def standing_in(self, texts: Sequence[str]) -> float:
        """The share of filled cells that stand in their row's text, letter by letter."""
        stand = [cell.strip() in text for cell, text in zip(self.cells, texts) if cell.strip()]
        return sum(stand) / len(stand) if stand else 0.0

    def is_dated(self) -> bool:
        """Whether nearly all filled cells are dates."""
        if len(self.filled) < 2:
            return False
        found = read_dates(self.filled[:2000]).values
        return sum(value is not None for value in found) >= 0.9 * len(found)

    def parts(self) -> list[list[str]]:
        """The values of each cell where cells hold several ('a; b'), else the cell alone.

        Of several, a value that nearly every cell has says nothing and is left out.
        """
        if not self.holds_several():
            return [[cell.strip()] if cell.strip() else [] for cell in self.cells]
        split = [list(dict.fromkeys(filter(None, SEPARATOR.split(c.strip())))) for c in self.cells]
        places = Counter(part for parts in split for part in parts)
        common = {part for part, number in places.items() if number > 0.8 * len(self.filled)}
        return [[part for part in parts if part not in common] or parts[:1] for parts in split]

    def holds_several(self) -> bool:
        """Whether cells hold several values: the parts stand in other cells, alone or mixed."""
        cells = set(map(str.strip, self.filled))
        split = {cell: [p for p in SEPARATOR.split(cell) if p] for cell in cells}
        several = [cell for cell, parts in split.items() if len(parts) > 1]
        if not several or self.length > LONG_LABEL:
            return False
        places = Counter(part for parts in split.values() for part in set(parts))
        mixed = sum(any(places[part] > 1 for part in split[cell]) for cell in several)
        return mixed > len(several) / 2


def as_in_text(value: str, text: str) -> str | None:
    """The value as it stands in the text: capitals and spaces may differ.

    "" for an empty one, None where it does not stand there.
    """
    if not value or value in text:
        return value
    loose = r"\s+".join(map(re.escape, value.split()))
    match = re.search(loose, text, re.IGNORECASE)
    return match.group() if match else None


def plain_value(value: str) -> str:
    """What a value is apart from case, width and spaces: 'Order ' and 'order' are one."""
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())
