"""Words of any script: normal form, tokens, "the same message", plain sentences for mistakes."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import Any

from pydantic import ValidationError

WIDE = r"\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f"  # scripts that write no spaces between words
TOKEN = re.compile(rf"[{WIDE}]|[^\W{WIDE}]+")
# control characters, line separators, and halves of a character that JSON escapes can hold
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# those, and what turns the direction of writing or takes no place
HIDDEN = re.compile(rf"{CONTROL.pattern}|[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")

# what models use to begin and end a turn, where no tokenizer says it
TURN_MARKS = re.compile(
    r"<[|｜][^<>\s]*[|｜]>|</?s>|<(?:bos|eos|pad|unk)>|<\w+_of_\w+>|\[/?(?:INST|SYS)\]|<</?SYS>>"
)


def normalised(text: str) -> str:
    r"""Composed characters (NFC, as tokenizers want them) and line ends as `\n`."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")


def visible(text: str) -> str:
    """The text with every hidden character as its number: a page shows what stands there."""
    return HIDDEN.sub(lambda match: f"[U+{ord(match.group()):04X}]", text)


def cleaned(text: str) -> str:
    """The text normalised, with spaces for what no message should hold: see CONTROL."""
    return CONTROL.sub(" ", normalised(text))


def as_text(text: str, marks: re.Pattern = TURN_MARKS) -> str:
    """A text in which no control token stands: `<|im_end|>` gets a full-width first bracket.

    As many characters as before; whoever reads the text to a model has it read as text.
    """

    def spoilt(mark: re.Match) -> str:
        first = ord(mark[0][0])
        return (chr(first + 0xFEE0) if 0x21 <= first <= 0x7E else "?") + mark[0][1:]

    while marks.search(text):  # what is left of one may make another
        text = marks.sub(spoilt, text)
    return text


def tokens(text: str | None) -> list[str]:
    """Lower-case words; in scripts without spaces (Japanese, Chinese, Thai) single characters."""
    return TOKEN.findall((text or "").casefold())


def is_wide(words: list[str]) -> bool:
    """True when most tokens are characters of a script without spaces."""
    if "".join(words).isascii():
        return False
    return 2 * sum(bool(re.match(f"[{WIDE}]", word)) for word in words) > len(words)


def words_are_spaced(language: str, texts: Sequence[str]) -> bool:
    """Whether words stand apart in these texts: not so in Japanese, Chinese, Thai and their like.

    Where `language` does not say it, the texts do: fewer than one gap in 20 characters means no
    words to count.
    """
    if re.match("(ja|zh|th|lo|km|my)([-_]|$)", language.lower()):
        return False
    characters = sum(len(text) for text in texts)
    gaps = sum(len(re.findall(r"\s+", text.strip())) for text in texts)
    return characters < 20 or gaps / characters >= 1 / 20


def same_message(text: str) -> str:
    """What two texts share when they are the same message: case, white space, end marks are not.

    `C# help` and `C++ help` stay different: every other character counts.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()  # full-width forms too
    folded = " ".join(folded.split())
    return folded.rstrip(" .!?。！？") or folded  # marks alone are a message, too


def narrow(*lines: object, width: int = 78) -> str:
    """The lines for printing, each broken at `width` letters, what follows indented.

    An interval in brackets stays in one piece.
    """
    broken = []
    for line in lines:
        tied = re.sub(r"\[[^][]*\]", lambda match: match[0].replace(" ", "\0"), str(line))
        filled = fill(
            tied, width, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False
        )
        broken.append(filled.replace("\0", " "))
    return "\n".join(broken)


def did_you_mean(word: object, known: Iterable[str], number: int = 1) -> str:
    """`; did you mean 'order'?` for the nearest known name, else `; there are ...`, all of them."""
    names = list(known)
    lowered = {name.lower(): name for name in names}  # 'Order' is near 'order'
    near = difflib.get_close_matches(str(word).lower(), list(lowered), number)
    if near:
        return f"; did you mean {' or '.join(repr(lowered[name]) for name in near)}?"
    return f"; there are {', '.join(names)}."


def pydantic_sentences(problem: ValidationError, file: str, known: Iterable[str] = ()) -> str:
    """One plain sentence for each mistake that pydantic found; `known` are the allowed keys."""
    errors = problem.errors()
    misspelt = [e for e in errors if e["type"] == "extra_forbidden"]
    if misspelt:  # a misspelt key is also a missing key: say it once
        errors = misspelt + [e for e in errors if e["type"] not in ("extra_forbidden", "missing")]
    return " ".join(dict.fromkeys(_sentence(error, file, list(known)) for error in errors))


def _sentence(error: Any, file: str, known: list[str]) -> str:
    place = list(map(str, error["loc"]))
    where = " > ".join(place) or "the file"
    if error["type"] == "extra_forbidden":
        inside = f" in {' > '.join(place[:-1])}" if place[:-1] else ""
        return f"{file}: unknown key {place[-1]!r}{inside}{did_you_mean(place[-1], known)}"
    if error["type"] == "missing":
        return f"{file}: the key {where!r} is missing."
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        allowed = re.findall(r"'(\w+)'", error["ctx"]["expected"])
        return f"{file}: {where} is {error['input']!r}{did_you_mean(error['input'], allowed)}"
    if error["type"] in ("dict_type", "model_type", "model_attributes_type"):
        return f"{file}: {where} must be 'key: value' lines, without a dash in front."
    text = error["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"{file}: {where}: {text}."
