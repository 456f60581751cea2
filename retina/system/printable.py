"""Safe display of external text: no control character of a file name, label or message reaches a terminal or log."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import PurePath

_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories: controls (ESC, C1), formats (bidi overrides, zero-width), surrogates and line separators."""
_JOINERS = {"\u200c", "\u200d", "\u00ad"}
"""Format characters that emoji and the words of some languages need; they are harmless."""

MAX_LINE_LENGTH = 1000
"""Characters of a line of an error message."""
MAX_REASON_LENGTH = 4000
"""Characters of a trial's failure reason in a table: CSV readers reject a cell of 131,072 characters."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with each character that moves, hides or colours text escaped: `\x1b`, `\n`, `\u202e`.

    Args:
        text: any text.
        keep: characters that are not escaped, for example "\n" in a text of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character in keep or _is_safe(character) else _escape(character) for character in text)


def truncate(text: str, max_length: int) -> str:
    """Return the first `max_length` characters of `text`; a longer text ends in "..."."""
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def truncate_lines(text: str, max_length: int = MAX_LINE_LENGTH) -> str:
    """Return `text` with the middle of each line of more than `max_length` characters left out.

    The start of a message's line names the file and the key, the end what is allowed; a value in the middle may be a
    megabyte.
    """
    half = max_length // 2
    return "\n".join(
        line if len(line) <= max_length else f"{line[:half]} [...] {line[-max_length // 2 :]}"
        for line in text.split("\n")
    )


def failure_reason(text: str) -> str:
    """Return text for one table cell: no control characters, at most `MAX_REASON_LENGTH` characters."""
    return truncate_lines(printable(text, keep="\n"))[:MAX_REASON_LENGTH]


class EscapingFormatter(logging.Formatter):
    """A log formatter that escapes control characters; text and paths among the arguments stay on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's message, with its traceback if it has one."""
        if isinstance(record.args, tuple):
            copy = logging.makeLogRecord(record.__dict__)
            copy.args = tuple(
                printable(str(argument)) if isinstance(argument, str | PurePath) else argument
                for argument in record.args
            )
            record = copy
        return printable(super().format(record), keep="\n\t")


def _is_safe(character: str) -> bool:
    return unicodedata.category(character) not in _ESCAPED or character in _JOINERS


def _escape(character: str) -> str:
    return character.encode("unicode_escape", errors="backslashreplace").decode("ascii")
