"""Which encoding a file that is not UTF-8 was saved in, where that can be told with certainty."""

import re
from collections import Counter

NAMES = {
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "cp932": "Shift-JIS (cp932)",
    "cp1252": "Windows-1252 (western European)",
}
# the letters beyond a to z of one language each, as Windows-1252 has them; a text that mixes
# others was saved in a code page of its neighbours: Czech would come out as "pøíliš"
ALPHABETS = (
    "äöüßéà",  # German
    "àâæçéèêëîïôœùûüÿ",  # French
    "áéíóúüñç",  # Spanish
    "áàâãçéêíóôõúü",  # Portuguese
    "àèéìíîòóùú",  # Italian
    "àçèéíïòóúü",  # Catalan
    "åäöæøéü",  # Danish, Norwegian, Swedish, Finnish
    "áðéíóúýþæö",  # Icelandic
    "éèëïöüóáíêç",  # Dutch
    "äöõü",  # Estonian
)
INSIDE_WORDS = "’´·\xad\xa0"  # marks that may stand between two letters
JAPANESE = re.compile("[\u3000-\u30ff\u4e00-\u9fff\uff01-\uff5e\uffe5\u2000-\u2fff]")
KANA = re.compile("[\u3040-\u30ff]")


def told_encoding(data: bytes) -> str | None:
    """The Python name of the encoding (a key of NAMES) of bytes that are not UTF-8, or None.

    Windows-1252 and Shift-JIS only where the text makes sense in them: a wrong guess would put
    wrong letters into every row.
    """
    for name in filter(None, (utf_16(data), "cp932", "cp1252")):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        is_it = {"cp932": _is_japanese, "cp1252": _is_western}.get(name)
        if is_it is None or (not _is_damaged_utf_8(data) and is_it(text)):
            return name
    return None


def utf_16(data: bytes) -> str | None:
    """'utf-16' for its mark, 'utf-16-le' or 'utf-16-be' without one, None for anything else."""
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):  # UTF-32
        return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # without a mark: every other byte of plain letters and commas is zero
    few = len(data) / 8
    if data[1::2].count(0) > few:
        return "utf-16-le"
    return "utf-16-be" if data[::2].count(0) > few else None


def _is_damaged_utf_8(data: bytes) -> bool:
    """UTF-8 with some rows in another encoding pasted in: nothing reads both."""
    text = data.decode("utf-8", errors="replace")
    wrong = text.count("\ufffd")
    return sum(not character.isascii() for character in text) - wrong >= wrong


def _is_japanese(text: str) -> bool:
    beyond = re.findall(r"[^\x00-\x7f]", text)
    good = sum(bool(JAPANESE.match(character)) for character in beyond)
    return good >= 0.9 * len(beyond) and bool(KANA.search(text))


def _is_western(text: str) -> bool:
    letters = Counter(re.findall(r"[À-ÖØ-öø-ÿŒœŠšŽžŸƒ]", text.lower()))
    known = max(sum(letters[letter] for letter in alphabet) for alphabet in ALPHABETS)
    # a mark or a capital in the middle of a word, as Polish and a Macintosh file come out
    marks = re.findall(rf"(?<=[^\W\d_])[^\x00-\x7f\w{INSIDE_WORDS}²³](?=[^\W\d_])", text)
    marks += re.findall(r"(?<=[^\W\d_])[²³¹ªº](?=[^\W\d_])", text)
    marks += re.findall(r"(?<=[a-z])[À-ÖØ-ÞŒŠŽŸ](?=[a-z])", text)
    wrong = letters.total() - known + len(marks)
    return wrong <= 0.1 * (letters.total() + len(marks))
