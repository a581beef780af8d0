"""What a file is, told by how it begins; what is not read gets a sentence on how to export it."""

import re
import zipfile
from pathlib import Path

from helpers import CourseError

READ = "CSV, TSV, Excel (.xlsx), JSON, JSON lines, mbox, or a folder of .eml files"
TABLE, WORKBOOK, LINES, JSON = "table", "workbook", "JSON lines", "JSON"
MAILBOX, MAIL, MAIL_FOLDER = "mailbox", "mail", "folder of mails"
BY_ENDING = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ""), TABLE),
    **dict.fromkeys((".jsonl", ".ndjson"), LINES),
    ".json": JSON,
    ".mbox": MAILBOX,
    ".mbx": MAILBOX,
    ".eml": MAIL,
}
AS_CSV = "export the messages as CSV UTF-8, one message a row"
AS_MBOX = "in the mail program export the folder as mbox or as .eml files"
IN_EXCEL = "in Excel choose Save as, Excel workbook (.xlsx) or CSV UTF-8"
# how files begin that hold no table and no mail that can be read here
BEGINNINGS = (
    (b"%PDF", "a PDF", AS_CSV),
    (b"!BDN", "an Outlook data file (.pst)", AS_MBOX),
    (b"\x89PNG", "a picture", AS_CSV),
    (b"\xff\xd8\xff", "a picture", AS_CSV),
    (b"GIF8", "a picture", AS_CSV),
    (b"II*\0", "a picture", AS_CSV),
    (b"MM\0*", "a picture", AS_CSV),
    (b"BM", "a picture", AS_CSV),
    (b"RIFF", "a picture or a recording", AS_CSV),
    (b"ID3", "a recording", AS_CSV),
    (b"{\\rtf", "a text document (.rtf)", AS_CSV),
    (b"SQLite format 3", "a database", AS_CSV),
    (b"PAR1", "a Parquet file", "write it as CSV, in pandas with to_csv"),
    (b"\x1f\x8b", "a packed file (gzip)", "unpack it and name the file inside"),
    (b"7z\xbc\xaf", "a packed file (7z)", "unpack it and name the file inside"),
    (b"Rar!", "a packed file (rar)", "unpack it and name the file inside"),
    (b"BZh", "a packed file (bzip2)", "unpack it and name the file inside"),
)
OLD_OFFICE = {
    ".msg": ("an Outlook mail (.msg)", AS_MBOX),
    ".doc": ("a Word document", AS_CSV),
    ".ppt": ("a presentation", AS_CSV),
}
# what stands in a packed file, and what that makes of it
INSIDE = (
    ("xl/workbook.bin", "a binary Excel workbook (.xlsb)", IN_EXCEL),
    ("word/", "a Word document", AS_CSV),
    ("ppt/", "a presentation", AS_CSV),
    ("content.xml", "an OpenDocument file", "save it as Excel workbook (.xlsx) or CSV UTF-8"),
)
FIRST_LINES_OF_MAIL = re.compile(rb"\s*From \S[^\n]*\n>?[A-Za-z][\w-]*: ?")


def kind_of(path: Path) -> str:
    """One of the kinds above, TABLE to MAIL_FOLDER.

    Raises CourseError: no such file, an empty one, a kind that is not read.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        where = path.parent.name or "this folder"
        raise CourseError(
            f"There is no file {path.name} in {where}; check the name and the folder."
        )
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except OSError as problem:
        raise CourseError(f"{path.name} cannot be opened ({problem.strerror}).") from None
    if not start.strip():
        raise CourseError(f"{path.name} is empty; it should have a header and a message a row.")
    _refuse_what_is_not_read(path, start)
    if start.startswith(b"PK\x03\x04"):
        return _packed(path)
    if FIRST_LINES_OF_MAIL.match(start):
        return MAILBOX
    ending = path.suffix.lower()
    if ending not in BY_ENDING:
        raise CourseError(f"{path.name} is of no kind that is read here: {READ}.")
    return BY_ENDING[ending]


def _folder(path: Path) -> str:
    for found in path.rglob("*"):
        if found.suffix.lower() in (".eml", ".mbox"):
            return MAIL_FOLDER
    what = "is a folder without .eml or .mbox files"
    raise CourseError(f"{path.name or path} {what}; name the file with the messages: {READ}.")


def _refuse_what_is_not_read(path: Path, start: bytes) -> None:
    for beginning, what, cure in BEGINNINGS:
        # two letters alone may begin a text
        if start.startswith(beginning) and (len(beginning) > 2 or b"\0" in start[:64]):
            raise CourseError(f"{path.name} is {what}, which is not read here; {cure}.")
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        what, cure = OLD_OFFICE.get(path.suffix.lower(), ("an old Excel workbook (.xls)", IN_EXCEL))
        raise CourseError(f"{path.name} is {what}, which is not read here; {cure}.")
    words = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if words.startswith((b"<!doctype", b"<html", b"<?xml", b"<table")):
        raise CourseError(f"{path.name} is a page or XML, which is not read here; {AS_CSV}.")


def _packed(path: Path) -> str:
    """WORKBOOK; CourseError for everything else that is a zip file."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, OSError):
        what = "looks like an Excel workbook or a zip file, but is damaged"
        raise CourseError(f"{path.name} {what}; get it anew, or {AS_CSV}.") from None
    if "xl/workbook.xml" in names:
        if path.suffix.lower() != ".xlsx":
            what = "is an Excel workbook under another name"
            raise CourseError(f"{path.name} {what}; rename it to {path.stem}.xlsx.")
        return WORKBOOK
    for inside, what, cure in INSIDE:
        if any(name.startswith(inside) for name in names):
            raise CourseError(f"{path.name} is {what}, which is not read here; {cure}.")
    raise CourseError(f"{path.name} is a zip file; unpack it and name the file inside.")
