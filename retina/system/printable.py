"""Text of others, shown: no control character of a file name, a label or a message reaches a terminal or a log raw."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import PurePath

_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of controls (ESC, C1), formats (bidi overrides, zero-width), surrogates and line separators."""
_JOINERS = {"\u200c", "\u200d", "\u00ad"}
"""Formats that words of some languages, and emoji, need; they move nothing."""

MAX_LINE_LENGTH = 1000
"""Characters of a line of an error."""
MAX_REASON_LENGTH = 4000
"""Characters of why a trial has failed, as a table has it: readers of CSV refuse a cell of 131,072."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with each character that moves, hides or colours others as its escape: `\x1b`, `\n`, `\u202e`.

    Args:
        text: any.
        keep: characters that stay, "\n" of a text of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one in keep or _is_shown(one) else _escape(one) for one in text)


def truncate(text: str, most: int) -> str:
    """Return `text` with its end left out where it has more than `most` characters: a value, in a message."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def truncate_lines(text: str, most: int = MAX_LINE_LENGTH) -> str:
    """Return `text` with the middle of each line of more than `most` characters left out: a value of a megabyte, say.

    The beginning names the file and the key, the end what is allowed.
    """
    return "\n".join(
        line if len(line) <= most else f"{line[: most // 2]} [...] {line[-most // 2 :]}" for line in text.split("\n")
    )


def failure_reason(text: str) -> str:
    """Return text of others for one cell of a table: no control characters, `MAX_REASON_LENGTH` characters at most."""
    return truncate_lines(printable(text, keep="\n"))[:MAX_REASON_LENGTH]


class EscapingFormatter(logging.Formatter):
    """Formats a record printable; a text or path among its arguments stays in its line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's message, with its traceback if it has one."""
        if isinstance(record.args, tuple):
            own = logging.makeLogRecord(record.__dict__)
            own.args = tuple(printable(str(one)) if isinstance(one, str | PurePath) else one for one in record.args)
            record = own
        return printable(super().format(record), keep="\n\t")


def _is_shown(character: str) -> bool:
    return unicodedata.category(character) not in _ESCAPED or character in _JOINERS


def _escape(character: str) -> str:
    return character.encode("unicode_escape", errors="backslashreplace").decode("ascii")
