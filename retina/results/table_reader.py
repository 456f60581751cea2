"""The reader of CSV tables that this package wrote."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pandas as pd
from pydantic import ValidationError

from retina.config import TrialConfig
from retina.results.readers import raise_results_error, read_text
from retina.results.schemas import CsvRow
from retina.system.spreadsheet import unescape_formula


def read_table(
    file: Path, row: type[CsvRow], columns: Sequence[str], key: Sequence[str], remedy: str
) -> tuple[list[dict[str, Any]], list[str]] | None:
    """Read a table as one dictionary of typed values per row, without empty cells; None where it does not exist.

    Args:
        file: CSV in UTF-8 with a line of column names.
        row: the schema of a row.
        columns: required columns. Those that are settings of `TrialConfig` are validated as such; a setting that the
            whole table lacks was added later and gets its default, which is what was used before.
        key: columns whose values together identify a row.
        remedy: what the user can do if the table is damaged.

    Returns:
        The rows, and the names of columns that are not among `columns`; their cells are text.

    Raises:
        ResultsError: as `read_text`; or a column is missing or duplicated, or a row is short, duplicated or has a value
            that is not allowed.
    """
    text = read_text(file, remedy)
    if text is None:
        return None
    lines = _lines(file, text, remedy)
    if not lines:
        raise_results_error(file, "is not a table: it is empty, without a line of column names", remedy)
    _, header = lines[0]
    settings = [name for name in columns if name in TrialConfig.model_fields]
    _check_header(file, header, [name for name in columns if name not in settings or "arch" not in header], remedy)
    added = {name: getattr(TrialConfig(), name) for name in settings if name not in header}
    line_numbers: dict[tuple[Any, ...], int] = {}
    rows = []
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise_results_error(f"{file}: line {number}", f"has {len(cells)} cells, allowed: {len(header)}", remedy)
        texts = {name: cell for name, cell in zip(header, map(unescape_formula, cells), strict=True) if cell != ""}
        values = {**texts, **added, **_typed(f"{file}: line {number}", texts, row, settings, remedy)}
        row_key = tuple(values.get(name) for name in key)
        if row_key in line_numbers:
            shown = ", ".join(f"{name} {value}" for name, value in zip(key, row_key, strict=True))
            problem = f"{shown} is already in line {line_numbers[row_key]}"
            raise_results_error(f"{file}: line {number}", problem, remedy)
        line_numbers[row_key] = number
        rows.append(values)
    return rows, [name for name in header if name not in columns]


def to_frame(rows: Sequence[Mapping[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Return typed rows as a data frame with `columns`; keys that a row lacks are missing values."""
    if not rows:
        return pd.DataFrame(columns=columns)
    return pd.DataFrame({name: _column([row.get(name) for row in rows]) for name in columns})


def _column(values: list[Any]) -> pd.Series[Any]:
    if any(isinstance(value, str) for value in values):
        return pd.Series(values, dtype="str")
    if all(value is None for value in values):
        return pd.Series(values, dtype="float64")
    return pd.Series(values)


def _lines(file: Path, text: str, remedy: str) -> list[tuple[int, list[str]]]:
    """Return the non-empty rows of CSV, with the number of the line where each begins."""
    lines, start = [], 1
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                lines.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        raise_results_error(f"{file}: line {start}", f"is not a line of a CSV table: {error}", remedy)
    return lines


def _check_header(file: Path, header: list[str], columns: Sequence[str], remedy: str) -> None:
    if missing := [name for name in columns if name not in header]:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        raise_results_error(file, f"lacks the columns {shown}", remedy)
    if duplicates := [name for name in dict.fromkeys(header) if header.count(name) > 1]:
        raise_results_error(file, f"has the column {duplicates[0]!r} twice", remedy)


def _typed(
    location: str, texts: Mapping[str, str], row: type[CsvRow], settings: list[str], remedy: str
) -> dict[str, Any]:
    given = {name: texts[name] for name in settings if name in texts}
    try:
        values = row.model_validate({name: texts.get(name) for name in row.model_fields if _is_given(row, name, texts)})
        trial = TrialConfig.model_validate({name: _literal(name, text) for name, text in given.items()})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        column = ", ".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        cell = "it is empty" if problem["input"] is None else repr(problem["input"])[:80]
        raise_results_error(": ".join([location, *([f"{column}: {cell}"] if column else [])]), message, remedy)
    typed = {**{name: getattr(trial, name) for name in given}, **values.model_dump()}
    return {name: value for name, value in typed.items() if value is not None and value == value}  # noqa: PLR0124  # NaN


def _is_given(row: type[CsvRow], name: str, texts: Mapping[str, str]) -> bool:
    return name in texts or row.model_fields[name].is_required()


def _literal(name: str, text: str) -> Any:
    """Return the allowed value that a cell's text stands for: pydantic does not accept "2" for a literal 2."""
    annotation = TrialConfig.model_fields[name].annotation
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    return next((choice for choice in choices if str(choice) == text), text)
