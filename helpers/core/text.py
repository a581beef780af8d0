"""Words of any script: tokens, whether a script writes spaces, and the nearest known name for a mistyped one."""

import re

WIDE = r"\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f"  # scripts that write no spaces between words
TOKEN = re.compile(rf"[{WIDE}]|[^\W{WIDE}]+")


def tokens(text):
    """Lower-case words; in scripts without spaces (Japanese, Chinese, Thai) single characters."""
    return TOKEN.findall((text or "").casefold())


def is_wide(words):
    """True when most tokens are characters of a script without spaces; runs of tokens are then taken 2.5 times as long."""
    return not "".join(words).isascii() and sum(
        bool(re.match(f"[{WIDE}]", word)) for word in words
    ) * 2 > len(words)
