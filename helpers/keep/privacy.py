"""Personal data in a message, found by form and check digits, and masked: the row stays."""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import phonenumbers
from stdnum import iban, luhn

from helpers.core.pilot import Pilot
from helpers.core.text import WIDE
from helpers.keep.pipeline import Filter, catalogue

# The scripts of the catalogue's <L>: their letters may touch a number.
TOUCHING = rf"{WIDE}\u3005-\u3007\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\uac00-\ud7af\uff66-\uff9f"
# What a text must have before its forms are worth a search
SIX_DIGITS = re.compile(r"\d(?:\D{0,3}\d){5}")
NEEDED = dict.fromkeys(["iban", "card", "phone"], SIX_DIGITS) | {"e-mail": re.compile("@")}
FULL_WIDTH = {0xFF01 + k: 0x21 + k for k in range(94)} | {0x3000: 0x20}


@functools.cache
def _forms() -> dict[str, re.Pattern]:
    forms = {}
    for kind, alternatives in catalogue()["personal"].items():
        forms[kind] = re.compile("|".join(alternatives).replace("<L>", rf"[^\W{TOUCHING}]"))
    return forms


def personal(
    text: str, regions: Sequence[str] = ("GB", "US"), spare: Iterable[str] = ()
) -> list[tuple[int, int, str]]:
    """[(start, end, kind)]: e-mail, iban (mod 97), card (Luhn), phone, address; full-width too.

    A phone number must start like one (+, 0, a bracket or 555-555-5555) and be possible in one of
    the regions; that includes the numbers reserved for fiction. Addresses are best effort: a house
    number with a street word, in English, German and Japanese forms; others pass. Matches that
    overlap a match of a regex in `spare` (order numbers) are left alone.
    """
    taken = [match.span() for regex in spare for match in re.finditer(regex, text)]
    plain, places = text, []
    if not text.isascii():  # character by character: places stay where they are
        plain = re.sub(r"[^\D0-9]", _digit, text.translate(FULL_WIDTH))  # of any script
        plain = re.sub(r"(?<=[\d)])[ーｰ‐‑‒–—―−・･·](?=[\d(])", "-", plain)
    for kind, form in _forms().items():
        if kind in NEEDED and not NEEDED[kind].search(plain):
            continue
        for match in form.finditer(plain):
            start, end = match.span()
            if any(start < other_end and other_start < end for other_start, other_end in taken):
                continue
            is_real = _is_real(kind, match.group(), regions)
            if is_real:
                places.append((start, end, kind))
            if is_real or kind == "iban":  # a false iban's digits are no card or telephone either
                taken.append((start, end))
    return sorted(places)


def _digit(match: re.Match) -> str:
    return str(unicodedata.decimal(match[0]))


def _is_real(kind: str, match: str, regions: Sequence[str]) -> bool:
    digits = re.sub(r"\D", "", match)
    if kind == "iban":
        return iban.is_valid(match)
    if kind == "card":
        return luhn.is_valid(digits)
    if kind != "phone":
        return True
    for region in regions:
        try:
            number = phonenumbers.parse(match, region)
        except phonenumbers.NumberParseException:
            continue
        if 9 <= len(digits) <= 15 and phonenumbers.is_possible_number(number):
            return True
    return False


def mask(text: str, places: Sequence[tuple[int, int, str]]) -> str:
    """The text with every place replaced by its kind in brackets, such as [phone]."""
    for start, end, kind in reversed(places):
        text = f"{text[:start]}[{kind}]{text[end:]}"
    return text


def pii(pilot: Pilot) -> Filter:
    """Masks personal data. Kept rows get a column `masked` ('phone 1, e-mail 2' or empty).

    A row whose span or pattern value the mask would destroy is rejected, and keeps its text so that
    somebody can put it right.
    """
    regions = catalogue()["phone_regions"].get(pilot.language, "GB US").split()
    spare = [spec.regex for spec in pilot.fields.values() if spec.type == "pattern"]
    copied = [name for name, spec in pilot.fields.items() if spec.type != "label"]

    def judge(batch: dict) -> dict:
        new: dict[str, list] = {pilot.text: [], "masked": [], "reason": []}
        for number, text in enumerate(batch[pilot.text]):
            text = text or ""
            places = personal(text, regions, spare)
            masked, kinds = mask(text, places), Counter(kind for *_, kind in places)
            note, reason = ", ".join(f"{kind} {times}" for kind, times in kinds.items()), None
            for name in copied:
                value = batch[name][number] if name in batch else None
                if value and value in text and value not in masked:
                    reason = f"masking the {', '.join(kinds)} would destroy {name} {value!r}"
                    masked, note = text, ""
                    break
            new["reason"].append(reason)
            new[pilot.text].append(masked)
            new["masked"].append(note)
        return {**batch, **new}

    return Filter("pii", judge, adds=(pilot.text, "masked"))
