"""Atomic writers of files: each file is written under a temporary name and renamed when it is complete."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from retina.errors import ResultsError
from retina.results import readers
from retina.system import file_modes, output_files, spreadsheet, temporary_files


def write_text(file: Path, text: str, *, is_private: bool = False) -> None:
    """Write a text file atomically; if it is new and private, only its owner can read it."""
    with _whole(file, is_private=is_private) as partial:
        partial.write(text.encode(errors="backslashreplace"))  # file names in it need not be valid Unicode


def write_bytes(file: Path, content: bytes) -> None:
    """Write a binary file atomically."""
    with _whole(file) as partial:
        partial.write(content)


def write_json(file: Path, values: Any, *, is_private: bool = False) -> None:
    """Write values as indented JSON, atomically."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(file, text + "\n", is_private=is_private)


def write_csv(file: Path, rows: Iterable[Mapping[str, Any]], columns: list[str], *, is_private: bool = False) -> None:
    """Write rows as CSV with `columns`, as `write_text` does; keys that a row lacks become empty cells."""
    write_text(file, csv_header(columns) + csv_lines(rows, columns), is_private=is_private)


def write_frame(file: Path, frame: pd.DataFrame, *, is_private: bool = False) -> None:
    """Write a frame as CSV without the index, atomically."""
    write_text(file, spreadsheet.to_csv(frame), is_private=is_private)


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        ResultsError: the file does not exist or is not JSON.
    """
    if not os.path.lexists(file):
        raise ResultsError(f"{file}: {os.strerror(errno.ENOENT)}")
    return readers.read_json(file)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    with source.open("rb") as original, _whole(target) as partial:
        shutil.copyfileobj(original, partial)


@contextmanager
def _whole(file: Path, *, is_private: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `file` once it is written and synced to disk; on an error it is removed."""
    if not file.name:  # "." or "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    if output_files.is_special_file(file):
        raise OSError(errno.EINVAL, output_files.NOT_A_REGULAR_FILE, str(file))
    file_modes.make_folder_with_inherited_mode(file.parent)
    partial = file.with_name(temporary_files.partial_name(file.name))
    try:
        mode = file_modes.replacement_mode(file, is_private=is_private)
        with open(partial, "wb", opener=file_modes.opener(mode)) as opened:  # Path.open takes none
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def csv_header(columns: list[str]) -> str:
    """Return the header line of a CSV file with `columns`."""
    return csv_lines([dict(zip(columns, columns, strict=True))], columns)


def csv_lines(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> str:
    """Return rows as lines of a CSV file with `columns`; keys that a row lacks become empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return a cell's content: NaN becomes empty; carriage returns, which csv writes bare, become line feeds."""
    if isinstance(value, str):
        return spreadsheet.escape_formula(value.replace("\r\n", "\n").replace("\r", "\n"))
    return None if isinstance(value, float) and math.isnan(value) else value
