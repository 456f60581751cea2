"""Cells of CSV files that people open in a spreadsheet: a text is no formula there, and is read back as it was.

Excel, LibreOffice and Google Sheets run a cell that begins with one of `= + - @` as a formula, also after a tab or a
carriage return (https://owasp.org/www-community/attacks/CSV_Injection). Such a text gets an apostrophe before
it, which they take for "this is text". So does a text that begins with an apostrophe itself and would be mistaken for
one of those, so that `unescape_formula` gives back exactly what `escape_formula` was given. A number is no formula: -0.5 stays.
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
    """Return what stands in a cell for `value`: a text that could run has an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and _runs(value) else value


def unescape_formula(value: Any) -> Any:
    """Return the text that `escape_formula` was given; what is no text as it is."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and _runs(value[1:]) else value


def to_csv(frame: pd.DataFrame) -> str:
    """Return `frame` as CSV without its index, each text as `escape_formula` has it."""
    safe = _each_text(frame, escape_formula)
    has_return = any("\r" in text for name in _texts(safe) for text in safe[name] if isinstance(text, str))
    text = io.StringIO(newline="")
    # csv leaves a carriage return bare, and a reader would end the row there
    safe.to_csv(text, index=False, quoting=csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL)
    return text.getvalue()


def unescape_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame that was read from such a file with its texts as they were before."""
    return _each_text(frame, unescape_formula)


def _each_text(frame: pd.DataFrame, change: Any) -> pd.DataFrame:
    return frame.assign(**{str(name): frame[name].map(change) for name in _texts(frame)})


def _texts(frame: pd.DataFrame) -> list[Any]:
    return [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name].dtype)]


def _runs(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.match(text)
