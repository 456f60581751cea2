"""Label files as they are met: byte-order marks, stray commas, spaces around names, several words for one column."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from retina.errors import DataError

ROLES = {
    "image": ("image", "id_code", "image_name", "image_id", "filename", "file_name", "file", "image_path", "path"),
    "grade": ("level", "diagnosis", "grade", "retinopathy_grade", "dr_grade", "label"),
    "split": ("split", "set", "subset", "partition"),
    "patient": ("patient", "patient_id", "subject", "subject_id"),
    "eye": ("eye", "laterality", "side"),
}
"""The columns that mean something to us, with the headers that they have in the public sets."""

Line = tuple[int, dict[str, str]]
"""The number of a line in its file, from 1, and its text by role."""


def read_table(file: Path) -> list[Line]:
    """The rows of a label file with a header. Columns of no known role and empty rows are left out.

    Raises:
        DataError: the file cannot be read, or it has no column for the image or for the grade.
    """
    lines = _lines(file)
    titles = lines[0][1] if lines else []
    roles = _roles(titles)
    if not {"image", "grade"} <= roles.keys():
        found = ", ".join(cell for cell in titles if cell) or "nothing"
        raise DataError(
            f"{file}: found the columns: {found}\n"
            f"needed: one for the photograph ({', '.join(ROLES['image'])})\n"
            f"and one for its grade ({', '.join(ROLES['grade'])})"
        )
    return [
        (number, {role: cells[at] if at < len(cells) else "" for role, at in roles.items()})
        for number, cells in lines[1:]
    ]


def has_labels(file: Path) -> bool:
    """Whether the header of `file` has a column for the image and one for the grade."""
    return {"image", "grade"} <= _roles(header(file)).keys()


def header(file: Path) -> list[str]:
    """The titles of the columns, in small letters and with underscores between words."""
    return [_plain(cell) for _, cells in _lines(file, first_only=True) for cell in cells]


def read_column(file: Path) -> list[str]:
    """The lines of a file of one column without a header. Empty lines count, except at the end."""
    try:
        lines = [line.strip().strip('"') for line in file.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a label file: {error}") from None
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _lines(file: Path, *, first_only: bool = False) -> list[tuple[int, list[str]]]:
    lines = []
    before = 0
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    lines.append((before + 1, stripped))
                    if first_only:
                        break
                before = reader.line_num
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as a label file, line {before + 1}: {error}") from None
    return lines


def _roles(titles: list[str]) -> dict[str, int]:
    named: dict[str, int] = {}
    for at, cell in enumerate(titles):
        named.setdefault(_plain(cell), at)
    found = {role: next((named[name] for name in names if name in named), None) for role, names in ROLES.items()}
    return {role: at for role, at in found.items() if at is not None}


def _plain(title: str) -> str:
    return re.sub(r"[\s_-]+", "_", title.strip().lower())
