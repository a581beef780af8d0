"""Mails as rows: an mbox file, a folder of .eml files, or one mail; addresses never leave it."""

import email.policy
import mailbox
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import Path

from helpers import CourseError
from helpers.core.encodings import told_encoding
from helpers.core.files import fingerprint
from helpers.core.text import cleaned
from helpers.pilot.mail_text import page_to_text, without_quotes

COLUMNS = ("subject", "text", "thread", "sender", "date", "labels")
# a reply or a passed-on mail, as programs write it in several languages
PREFIX = re.compile(
    r"^\s*(?:(?:re|aw|antw|sv|vs|fw|fwd|wg|tr|rv|res|ynt|odp|返信|転送|回复|转发)"
    r"\s*(?:\[\d+\])?\s*[:：]\s*)+",
    re.IGNORECASE,
)
# labels that Gmail gives to nearly everything
OF_GMAIL = re.compile(
    "inbox|unread|opened|archived|important|starred|sent|drafts?|spam|trash|chat|category .*|"
    "posteingang|ungelesen|geöffnet|archiviert|wichtig|markiert|gesendet|kategorie.*|"
    "受信トレイ|未読|開封済み|アーカイブ|重要|スター付き|送信済み",
    re.IGNORECASE,
)
HEADERS = ("from", "date", "subject", "message-id", "to", "received")
COUNTED = {  # what is said of mails, once for all of them
    "attachment": "attachment(s) were skipped",
    "html": "mail(s) had no plain text: their HTML was turned into text",
    "quoted": "mail(s) quoted an earlier one: the quoted part was cut off",
    "signature": "signature(s) were cut off",
    "empty": "mail(s) without a text of their own were skipped",
    "charset": "mail(s) were not in the encoding that they name",
    "damaged": "mail(s) are damaged or cut off; read them before you trust them",
    "undated": "mail(s) have no date that can be read",
}


def mail_rows(path: Path, notes: list[str]) -> list[tuple[int, dict[str, str]]]:
    """(number of the mail, row with COLUMNS) of an mbox file, a mail, or a folder of them.

    `sender` is a short hash of the address. `notes` learns what was cut, skipped or damaged. Raises
    CourseError where there is no mail, or none with a text.
    """
    counts: Counter[str] = Counter()
    found = []
    for number, (raw, label) in enumerate(_raw_mails(path), 1):
        mail = BytesParser(policy=email.policy.default).parsebytes(raw)
        row = _row(mail, counts)
        row["labels"] = row["labels"] or label
        found.append((number, row, _ids(mail)))
    if not found:
        what = "holds no mail"
        raise CourseError(f"{path.name} {what}; an mbox file has a line 'From ...' before each.")
    _join_threads(found)
    kept = [(number, row) for number, row, _ in found if row["text"]]
    notes += [f"{path.name}: {counts[key]} {what}." for key, what in COUNTED.items() if counts[key]]
    if not kept:
        raise CourseError(f"{path.name}: none of its {len(found)} mail(s) has a text to read.")
    notes.append("Addresses are not kept: `sender` is a short hash, the same for one address.")
    return kept


def _raw_mails(path: Path) -> Iterator[tuple[bytes, str]]:
    """The bytes of each mail, and the label that its folder or file gives it, or ""."""
    if path.is_file() and path.suffix.lower() == ".eml":
        yield path.read_bytes(), ""
    elif path.is_file():
        yield from ((raw, "") for raw in _of_mbox(path))
    else:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        boxes = [file for file in files if file.suffix.lower() == ".mbox"]
        for file in files:
            if file.suffix.lower() == ".eml":
                yield file.read_bytes(), "" if file.parent == path else file.parent.name
        for file in boxes:
            label = file.stem if len(boxes) > 1 else ""
            yield from ((raw, label) for raw in _of_mbox(file))


def _of_mbox(path: Path) -> Iterator[bytes]:
    """Each mail; a line 'From ...' in the middle of one, which should stand behind >, ends none."""
    box = mailbox.mbox(path, create=False)
    waiting = b""
    try:
        for key in box.iterkeys():
            # programs put > before a line of the text that begins so
            raw = re.sub(
                rb"^>(>*From )", rb"\1", box.get_bytes(key, from_=True), flags=re.MULTILINE
            )
            first, _, rest = raw.partition(b"\n")
            names = re.findall(rb"^([A-Za-z][\w-]*):", rest.split(b"\n\n", 1)[0], re.MULTILINE)
            is_mail = any(name.decode().lower() in HEADERS for name in names)
            if waiting and not is_mail:
                waiting += b"\n" + raw
                continue
            if waiting:
                yield waiting
            waiting = rest if is_mail else b""
    finally:
        box.close()
    if waiting:
        yield waiting


def _row(mail: EmailMessage, counts: Counter[str]) -> dict[str, str]:
    subject = " ".join(header_text(mail, "subject").split())
    body = _body(mail, counts)
    text = f"{subject}\n{body}".strip() if body else ""
    if not body:
        counts["empty"] += 1
    if any(part.defects for part in mail.walk()):
        counts["damaged"] += 1
    return {
        "subject": subject,
        "text": text,
        "thread": "",
        "sender": _sender(mail),
        "date": _date(mail, counts),
        "labels": "; ".join(_labels(mail)),
    }


def header_text(mail: EmailMessage, name: str) -> str:
    """A header in plain letters (RFC 2047 decoded), or "" where it is missing or beyond reading."""
    try:
        return cleaned(str(mail[name] or ""))
    except Exception:  # the parser of headers stumbles over what spam and old programs write
        pass
    for key, value in mail.raw_items():
        if key.lower() == name:
            try:
                return cleaned(str(make_header(decode_header(str(value)))))
            except (ValueError, LookupError):
                return cleaned(str(value))
    return ""


def _body(mail: EmailMessage, counts: Counter[str]) -> str:
    """The first plain text, else the first HTML as text, without quotes and signature."""
    plain: list[EmailMessage] = []
    pages: list[EmailMessage] = []
    for part in mail.walk():
        if part.is_multipart():
            continue
        kind = part.get_content_type()
        if part.get_content_disposition() == "attachment" or kind not in (
            "text/plain",
            "text/html",
        ):
            counts["attachment"] += 1
        else:
            (plain if kind == "text/plain" else pages).append(part)
    text = next(filter(str.strip, (_decoded(part, counts) for part in plain)), "")
    if not text and pages:
        text = page_to_text(_decoded(pages[0], counts))
        counts["html"] += bool(text)
    body, quoted, signed = without_quotes(text)
    counts["quoted"] += quoted
    counts["signature"] += signed
    return body


def _decoded(part: EmailMessage, counts: Counter[str]) -> str:
    """The text of a part: in its own encoding, else in the one that its letters tell."""
    try:
        data = part.get_payload(decode=True)
    except Exception:  # a transfer encoding that cannot be undone
        counts["damaged"] += 1
        return ""
    data = data if isinstance(data, bytes) else b""
    try:
        return cleaned(data.decode(part.get_content_charset("utf-8")))
    except (UnicodeDecodeError, LookupError, ValueError):
        counts["charset"] += 1
    for encoding in ("utf-8", told_encoding(data)):
        try:
            return cleaned(data.decode(encoding or "utf-8"))
        except UnicodeDecodeError:
            continue
    return cleaned(data.decode("cp1252", errors="replace"))


def _sender(mail: EmailMessage) -> str:
    addresses = getaddresses([header_text(mail, "from")])
    address = next((address for _, address in addresses if address), "")
    return fingerprint(address.casefold())[:8] if address else ""


def _date(mail: EmailMessage, counts: Counter[str]) -> str:
    """Universal time as 2026-03-04 09:12, or ""."""
    try:
        moment = parsedate_to_datetime(header_text(mail, "date"))
        if moment.tzinfo:
            moment = moment.astimezone(UTC)
        return moment.strftime("%Y-%m-%d %H:%M")
    except (ValueError, TypeError, IndexError, OverflowError):
        counts["undated"] += 1
        return ""


def _labels(mail: EmailMessage) -> list[str]:
    words = header_text(mail, "x-gmail-labels") or header_text(mail, "keywords")
    labels = [" ".join(word.split()).strip('"') for word in re.split(r"[,;]", words)]
    return list(dict.fromkeys(word for word in labels if word and not OF_GMAIL.fullmatch(word)))


# Threads ---------------------------------------------------------------------------------------


def _ids(mail: EmailMessage) -> tuple[str, list[str]]:
    """A mail's own id, and those that it answers."""
    own = header_text(mail, "message-id").strip()
    answered = f"{header_text(mail, 'references')} {header_text(mail, 'in-reply-to')}"
    return own, re.findall(r"<[^<>\s]+>", answered)


def _join_threads(found: Iterable[tuple[int, dict[str, str], tuple[str, list[str]]]]) -> None:
    """Number the threads: mails that name each other; a bare reply joins its subject's last."""
    above: dict[str, str] = {}

    def root(name: str) -> str:
        while above.setdefault(name, name) != name:
            name = above[name]
        return name

    last_of: dict[str, str] = {}  # subject -> its last mail
    rows = sorted(found, key=lambda mail: mail[1]["date"])
    for number, row, (own, answered) in rows:
        key = f"mail {number}"
        for other in filter(None, (own, *answered)):
            above[root(other)] = root(key)
        plain = PREFIX.sub("", row["subject"]).casefold().strip()
        is_reply = bool(PREFIX.match(row["subject"]))
        if is_reply and not answered and plain in last_of:
            above[root(last_of[plain])] = root(key)
        if plain:
            last_of[plain] = key
    names: dict[str, str] = {}
    for number, row, _ in rows:
        row["thread"] = names.setdefault(root(f"mail {number}"), f"thread {len(names) + 1}")
