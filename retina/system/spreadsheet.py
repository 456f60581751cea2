"""CSV cells that are safe to open in a spreadsheet: no text is run as a formula, and reading restores it exactly.

Excel, LibreOffice and Google Sheets run a cell that begins with one of `= + - @` as a formula, also after a tab or a
carriage return (https://owasp.org/www-community/attacks/CSV_Injection). Such a text is written with an apostrophe in
front, which spreadsheets read as "this is text". So is a text that begins with an apostrophe and would be mistaken for
an escaped one, so that `unescape_formula` returns exactly what `escape_formula` was given. Numbers are not formulas:
-0.5 is written as it is.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pandas as pd

_FORMULA = re.compile(r"[\s'\"\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")


def escape_formula(value: Any) -> Any:
    """Return the cell's content for `value`: a text that a spreadsheet would run gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def unescape_formula(value: Any) -> Any:
    """Return the value that `escape_formula` was given; values that are not text are returned unchanged."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and _is_formula(value[1:]) else value


def to_csv(frame: pd.DataFrame) -> str:
    """Return `frame` as CSV without its index, each text escaped by `escape_formula`."""
    safe = _each_text(frame, escape_formula)
    has_return = any("\r" in text for name in _texts(safe) for text in safe[name] if isinstance(text, str))
    text = io.StringIO(newline="")
    # csv writes a bare carriage return, which a reader would take for the end of the row
    safe.to_csv(text, index=False, quoting=csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL)
    return text.getvalue()


def unescape_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame that was read from such a file with its original texts."""
    return _each_text(frame, unescape_formula)


def _each_text(frame: pd.DataFrame, change: Any) -> pd.DataFrame:
    return frame.assign(**{str(name): frame[name].map(change) for name in _texts(frame)})


def _texts(frame: pd.DataFrame) -> list[Any]:
    return [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name].dtype)]


def _is_formula(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.match(text)
