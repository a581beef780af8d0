"""What a customer wrote in a mail: HTML as text, without quoted mails and signatures."""

import re
from html.parser import HTMLParser

BLOCKS = {
    *("address", "article", "blockquote", "br", "dd", "div", "dt", "hr", "li", "p", "pre"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "tr"),
}
UNSEEN = {"script", "style", "head", "title", "template"}
# a line behind which an earlier mail stands in full
DIVIDER = re.compile(
    r"^[ \t]*(?:-{2,}|_{2,})[ \t]*"
    r"(?:original message|original appointment|reply message|ursprüngliche nachricht|"
    r"originalnachricht|message d['’]origine|mensaje original|messaggio originale|"
    r"mensagem original|oorspronkelijk bericht|元のメッセージ|原始邮件)"
    r"[ \t]*(?:-{2,}|_{2,})[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
# the four lines of Outlook above what is answered
HEADER_BLOCK = re.compile(
    r"^[ \t*]*(?:from|von|de|da|van|差出人|发件人)[ \t*]*[:：].+\n"
    r"[ \t*]*(?:sent|date|gesendet|datum|envoyé|enviado|inviato|data|verzonden|送信日時|日付|"
    r"发送时间)[ \t*]*[:：].+\n",
    re.IGNORECASE | re.MULTILINE,
)
# "On 4 March 2026 at 10:12, somebody wrote:", over two lines at most; it names a date
WROTE = re.compile(
    r"^[ \t]*(?:(?:on|am|le|el|il|em|op)\b(?=[^:]*\d)[^\n]{3,200}(?:\n[^\n]{1,120})?"
    r"\b(?:wrote|schrieb\b[^\n:]*|a écrit|escribió|ha scritto|escreveu|schreef\b[^\n:]*)[ \t]*:"
    r"|\d{4}[年/-][^\n]{5,200}(?:書きました|のメール|寫道|写道)?[^\n]{0,10}<[^\n<>]+@[^\n<>]+>"
    r"[^\n]{0,12}[:：])[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
SIGNATURE = re.compile(r"^-- ?$", re.MULTILINE)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.unseen = 0

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if tag in UNSEEN:
            self.unseen += 1
        elif tag in BLOCKS:
            self.pieces.append("\n")
        elif tag in ("td", "th"):
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in UNSEEN:
            self.unseen = max(0, self.unseen - 1)
        elif tag in BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            self.pieces.append(re.sub(r"\s+", " ", data))


def page_to_text(page: str) -> str:
    """The words of an HTML page; blocks become lines; scripts and styles are left out."""
    reader = _Page()
    reader.feed(re.sub(r"<!\[[^>]*>", " ", page))  # what Word writes, and the parser refuses
    reader.close()
    lines = [" ".join(line.split()) for line in "".join(reader.pieces).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def without_quotes(text: str) -> tuple[str, bool, bool]:
    """(what the writer added, whether a quoted mail, whether a signature was cut off).

    A mail that was passed on stays whole: the customer's words stand in it.
    """
    lines_before = text.strip()
    for mark in (DIVIDER, HEADER_BLOCK):
        found = mark.search(text)
        if found and text[: found.start()].strip(" _-\n\t"):
            text = text[: found.start()].rstrip(" _\n\t")
    text = _without_answered(text)
    kept = [line for line in text.split("\n") if not re.match(r"\s{0,3}[>＞]", line)]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    quoted = text != re.sub(r"\n{3,}", "\n\n", lines_before)
    signature = SIGNATURE.search(text)
    if signature and text[: signature.start()].strip():
        return text[: signature.start()].strip(), quoted, True
    return text, quoted, False


def _without_answered(text: str) -> str:
    """Without the line 'On ... wrote:', and without all behind it where that has no > in front."""
    found = WROTE.search(text)
    while found:
        behind = text[found.end() :]
        if not re.match(r"\s*[>＞]", behind):
            return text[: found.start()]
        text = text[: found.start()] + behind
        found = WROTE.search(text)
    return text
