"""Turns one label file into rows, one for each photograph, with the cells as written."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from retina.data.formats import strip_image_suffix
from retina.data.layouts.columns import Columns
from retina.data.layouts.csv_reader import LabelTable, Line
from retina.data.layouts.gradable import ALLOWED
from retina.data.layouts.grades import parse_grade_keywords
from retina.data.layouts.validation import LabelRow, parse_eye, parse_patient
from retina.errors import DataError

_EYE_IN_NAME = re.compile(r"_(l|r|left|right|os|od)\d*$", re.IGNORECASE)


def read_rows(
    table: LabelTable,
    columns: Columns,
    split: str,
    *,
    root: Path,
    source: str,
    prefix: str = "",
    split_source: str = "list",
) -> list[LabelRow]:
    """Return one row for each photograph; two for a line with both eyes' photographs.

    Args:
        table: the label file.
        columns: the meaning of its columns.
        split: the split of the whole file, for rows that name none.
        root: the data folder; absolute names below it are taken as relative ones.
        source: the label file's name in messages.
        prefix: is put before the names if two files both count from 1.
        split_source: the origin of `split`, as in `LabelRow`.

    Raises:
        DataError: if the file is not UTF-8 and a name in it is not plain ASCII, or if it is a spreadsheet with labels
            in more than one sheet.
    """
    if table.unread_sheets:
        raise DataError(
            f"{table.file}: only the first sheet of a spreadsheet is read, and "
            f"{', '.join(map(repr, table.unread_sheets))} "
            "has the same columns;\nput all rows into one sheet, or save each sheet as a CSV file"
        )
    label_folder = table.file.parent
    rows = [row for line in table.lines for row in _rows_of_line(table, columns, line, label_folder, source)]
    for row in rows if table.is_cp1252 else ():
        if not (row.name.isascii() and row.grade.isascii()):
            raise DataError(
                f"{table.file}: cannot be read as a label file: {row.where} is not UTF-8 ({row.name!r} if it is "
                "Windows-1252); save the file as UTF-8"
            )
    for row in rows:
        row.split, row.split_source = (row.split, "row") if row.split else (split, split_source)
    root_prefix = str(root).rstrip("/\\") + "/"
    for row in rows:
        row.image = prefix + row.name
        row.name = row.name.removeprefix(root_prefix)
        row.key = prefix + strip_image_suffix(row.name)
    return rows


def _rows_of_line(table: LabelTable, columns: Columns, line: Line, label_folder: Path, source: str) -> list[LabelRow]:
    number, cells = line
    row = LabelRow(
        where=f"{source}:{number}",
        image="",
        key="",
        grade=_cell(cells, columns.grade),
        split=_cell(cells, columns.split),
        name=_cell(cells, columns.image),
        label_folder=label_folder,
        patient=parse_patient(_cell(cells, columns.patient)),
        eye=_cell(cells, columns.eye),
        problem=_header_problem(table, cells),
    )
    rows = _split_by_eye(row, columns, cells) if columns.eyes else [row]
    return [_check_gradable(row, columns, cells) for row in rows]


def _check_gradable(row: LabelRow, columns: Columns, cells: list[str]) -> LabelRow:
    """Return the row, with a problem if a column says that the photograph is not gradable or cannot be understood."""
    eye = parse_eye(row.eye)
    own_cells = [
        (column, _cell(cells, column.position))
        for column in columns.gradable
        if not (eye and column.eye) or column.eye == eye
    ]
    for column, cell in own_cells:
        if column.parse(cell) is False:
            grade = repr(row.grade[:40]) if row.grade else "empty"
            problem = f"its grade is {grade}: {column.title} is {cell}"
            return replace(row, problem=row.problem or problem, is_ungradable=True)
    for column, cell in own_cells:
        if column.parse(cell) is None:
            problem = f"{column.title} is {cell[:40]!r}; allowed: {ALLOWED}"
            return replace(row, problem=row.problem or problem)
    return row


def _header_problem(table: LabelTable, cells: list[str]) -> str:
    """Return what is wrong with a row that is longer than the header: its cells may be shifted; else ""."""
    extra = [cell for cell in cells[len(table.titles) :] if cell] if table.titles else []
    if not extra:
        return ""
    return f"it has {extra[0][:40]!r} beyond the last column of the header; every column needs a title"


def _split_by_eye(row: LabelRow, columns: Columns, cells: list[str]) -> list[LabelRow]:
    """Return the rows of a line that has a grade for each eye.

    One row if the line is about one photograph, with the grade of the eye that it shows; else a row for each eye.
    """
    eyes = {eye: (_cell(cells, image), _cell(cells, grade)) for eye, (image, grade) in columns.eyes.items()}
    patient = row.patient or row.where
    if columns.image is None:
        eye_rows = [
            replace(row, name=name, grade=grade, eye=eye, patient=patient) for eye, (name, grade) in eyes.items()
        ]
        return [_parse_keywords(eye_row, columns) for eye_row in eye_rows if eye_row.name or eye_row.grade]
    stem = strip_image_suffix(row.name)
    eye = next((eye for eye, (name, _) in eyes.items() if name and strip_image_suffix(name) == stem), "")
    match = _EYE_IN_NAME.search(stem)
    eye = eye or parse_eye(row.eye) or (parse_eye(match[1]) if match else "")
    if not eye:
        problem = "the list has a grade for each eye and does not say which eye this photograph shows"
        return [replace(row, problem=problem)]
    return [_parse_keywords(replace(row, eye=eye, grade=eyes[eye][1]), columns)]


def _parse_keywords(row: LabelRow, columns: Columns) -> LabelRow:
    """Return the row with the grade that its diagnostic keywords name, if the column holds keywords."""
    if not columns.grades_are_keywords:
        return row
    grade = parse_grade_keywords(row.grade)
    if grade is None:
        return replace(row, problem=f"its keywords name no grade of retinopathy: {row.grade[:60]!r}")
    return replace(row, grade=str(grade))


def _cell(cells: list[str], position: int | None) -> str:
    return cells[position] if position is not None and position < len(cells) else ""
