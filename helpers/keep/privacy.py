"""Personal data in a message, found by form and check digits, and masked: the row is kept, changed."""

import re
from collections import Counter

import phonenumbers
from stdnum import iban, luhn

from helpers.keep.pipeline import Filter

REGIONS = {
    "en": ("GB", "US"),
    "de": ("DE", "AT", "CH"),
    "fr": ("FR",),
    "ja": ("JP",),
    "it": ("IT",),
    "es": ("ES",),
    "nl": ("NL",),
}
STREET = (
    "Street|Road|Lane|Avenue|Ave"  # in any case; the others, which are words too, with a capital
)
MORE = "St|Rd|Drive|Close|Court|Row|Square|Way|Terrace|Crescent|Boulevard|Blvd|Mews|Hill|Quay|Gardens|Park|Place|Grove|Walk|Yard|Wharf"
FORMS = {  # in this order: what an earlier one took, a later one does not see
    "e-mail": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b",
    "card": r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])",
    "phone": r"(?<![\w/.-])(?:\+|\(?0|\(\d|\d{3}[ .-]\d{3}[ .-]\d{4})[\d ()/.-]*\d(?![\w-])",
    "address": rf"\b\d{{1,4}}[a-z]?,? (?:(?:[A-Za-z][\w'.-]+ ){{1,3}}(?i:{STREET})|(?:[A-Z][\w'.-]+ ){{1,3}}(?:{MORE}))\b"
    r"(?:,? [A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b)?"
    r"|\b\w+(?:straße|strasse|weg|gasse|allee|platz|str\.) \d{1,4}[a-z]?\b(?:, ?\d{5} \w+)?"
    r"|(?:〒?\d{3}-\d{4}\s*)?[一-龥]{2,3}[都道府県][一-龥ぁ-んァ-ヶ]{1,8}[市区町村郡]"
    r"[一-龥ぁ-んァ-ヶ]*[\d０-９一二三四五六七八九十]+[\d０-９丁目番地号の-]*",
}


def personal(text, regions=("GB", "US"), spare=()):
    """List of (start, end, kind) in `text`: e-mail, iban (mod 97), card (Luhn), phone, address.

    A phone number must start like one (+, 0, a bracket or 555-555-5555) and be possible in one of the regions; that includes the
    numbers reserved for fiction. Addresses are best effort: a house number with a street word, in English, German and Japanese
    forms; others pass. Matches that overlap a match of a regex in `spare` (order numbers) are left alone.
    """
    keep = [m.span() for regex in spare for m in re.finditer(regex, text)]
    found = []
    for kind, form in FORMS.items():
        if kind not in ("e-mail", "address") and not re.search(
            r"\d\D{0,3}\d\D{0,3}\d\D{0,3}\d\D{0,3}\d\D{0,3}\d", text
        ):
            continue
        for m in re.finditer(form, text):
            a, b = m.span()
            if any(a < end and start < b for start, end, *_ in (*keep, *found)):
                continue
            if kind == "iban" and not iban.is_valid(m.group()):
                keep.append((a, b))  # its digits are no card or telephone either
                continue
            if kind == "card" and not luhn.is_valid(re.sub(r"\D", "", m.group())):
                continue
            if kind != "phone" or _possible(m.group(), regions):
                found.append((a, b, kind))
    return sorted(found)


def _possible(text, regions):
    if not 9 <= len(re.sub(r"\D", "", text)) <= 15:
        return False
    for region in regions:
        try:
            if phonenumbers.is_possible_number(phonenumbers.parse(text, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def mask(text, found):
    """The text with every found place replaced by its kind in brackets, such as [phone]."""
    for start, end, kind in reversed(found):
        text = f"{text[:start]}[{kind}]{text[end:]}"
    return text


def pii(pilot, regions=None):
    """Masks personal data. Kept rows get a column `masked` ('phone 1, e-mail 2' or empty); a row whose span or pattern value would
    be destroyed by the mask is rejected, and keeps its text so that somebody can put it right."""
    regions = tuple(regions or REGIONS.get(pilot.language, ("GB", "US")))
    spare = tuple(spec.regex for spec in pilot.fields.values() if spec.type == "pattern")
    copied = [name for name, spec in pilot.fields.items() if spec.type != "label"]

    def judge(batch):
        out = {pilot.text: [], "masked": [], "reason": []}
        for i, text in enumerate(batch[pilot.text]):
            found = personal(text, regions, spare) if text else []
            new, kinds = mask(text, found), Counter(kind for *_, kind in found)
            lost = next(
                (
                    n
                    for n in copied
                    if n in batch and batch[n][i] and batch[n][i] in text and batch[n][i] not in new
                ),
                None,
            )
            out["reason"].append(
                f"masking the {', '.join(kinds)} would destroy {lost} {batch[lost][i]!r}"
                if lost
                else None
            )
            out[pilot.text].append(text if lost else new)
            out["masked"].append(
                ", ".join(f"{kind} {n}" for kind, n in kinds.items()) if not lost else ""
            )
        return {**batch, **out}

    return Filter(
        "pii",
        judge,
        {"text": pilot.text, "fields": copied, "regions": regions, "spare": spare},
        adds=(pilot.text, "masked"),
    )
