"""The rows of one label file, one a photograph, as it writes them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from retina.data.formats import own_name
from retina.data.layouts.columns import Columns
from retina.data.layouts.csv_reader import Line, Table
from retina.data.layouts.gradable import ALLOWED
from retina.data.layouts.grades import parse_grade_keywords
from retina.data.layouts.validation import Row, parse_eye, parse_patient
from retina.errors import DataError

_EYE_IN_NAME = re.compile(r"_(l|r|left|right|os|od)\d*$", re.IGNORECASE)


def read_rows(
    table: Table, columns: Columns, split: str, *, root: Path, source: str, prefix: str = "", split_from: str = "list"
) -> list[Row]:
    """One row a photograph; of a line with both eyes' photographs two.

    Args:
        table: the label file.
        columns: what its columns mean.
        split: the split of the whole file, where a row tells none.
        root: the data folder; absolute names below it are taken as relative ones.
        source: what the label file is called in messages.
        prefix: is put before the names, where two files count from 1 alike.
        split_from: what `split` comes from, as in `Row`.

    Raises:
        DataError: the file is not UTF-8, and a name in it is not plain ASCII; or it is a spreadsheet with labels in
            more than one sheet.
    """
    if table.unread:
        raise DataError(
            f"{table.file}: only the first sheet of a spreadsheet is read, and {', '.join(map(repr, table.unread))} "
            "has the same columns;\nput all rows into one sheet, or save each sheet as a CSV file"
        )
    scope = table.file.parent
    named = [row for line in table.lines for row in _rows(table, columns, line, scope, source)]
    for row in named if table.legacy else ():
        if not (row.name.isascii() and row.grade.isascii()):
            raise DataError(
                f"{table.file}: cannot be read as a label file: {row.where} is not UTF-8 ({row.name!r} if it is "
                "Windows-1252); save the file as UTF-8"
            )
    for row in named:
        row.split, row.split_from = (row.split, "row") if row.split else (split, split_from)
    front = str(root).rstrip("/\\") + "/"
    for row in named:
        row.image = prefix + row.name
        row.name = row.name.removeprefix(front)
        row.own = prefix + own_name(row.name)
    return named


def _rows(table: Table, columns: Columns, line: Line, scope: Path, source: str) -> list[Row]:
    number, cells = line
    row = Row(
        where=f"{source}:{number}",
        image="",
        own="",
        grade=_cell(cells, columns.grade),
        split=_cell(cells, columns.split),
        name=_cell(cells, columns.image),
        scope=scope,
        patient=parse_patient(_cell(cells, columns.patient)),
        eye=_cell(cells, columns.eye),
        problem=_beyond_header(table, cells),
    )
    rows = _of_both_eyes(row, columns, cells) if columns.eyes else [row]
    return [_if_gradable(one, columns, cells) for one in rows]


def _if_gradable(row: Row, columns: Columns, cells: list[str]) -> Row:
    """A row, and what the columns that say whether anybody could grade the photograph say against it."""
    eye = parse_eye(row.eye)
    mine = [(one, _cell(cells, one.at)) for one in columns.gradable if not (eye and one.eye) or one.eye == eye]
    if no := next(((one, cell) for one, cell in mine if one.says(cell) is False), None):
        grade = repr(row.grade[:40]) if row.grade else "empty"
        problem = f"its grade is {grade}: {no[0].title} is {no[1]}"
        return replace(row, problem=row.problem or problem, ungradable=True)
    if other := next(((one, cell) for one, cell in mine if one.says(cell) is None), None):
        problem = f"{other[0].title} is {other[1][:40]!r}; allowed: {ALLOWED}"
        return replace(row, problem=row.problem or problem)
    return row


def _beyond_header(table: Table, cells: list[str]) -> str:
    """What is wrong with a row that goes on where the header ends: one may be shifted against the other."""
    beyond = [cell for cell in cells[len(table.titles) :] if cell] if table.titles else []
    if not beyond:
        return ""
    return f"it has {beyond[0][:40]!r} beyond the last column of the header; every column needs a title"


def _of_both_eyes(row: Row, columns: Columns, cells: list[str]) -> list[Row]:
    """The rows of a line with a grade for each eye: one photograph's if the line is of one, else both eyes'."""
    eyes = {eye: (_cell(cells, image), _cell(cells, at)) for eye, (image, at) in columns.eyes.items()}
    patient = row.patient or row.where
    if columns.image is None:
        two = [replace(row, name=name, grade=grade, eye=eye, patient=patient) for eye, (name, grade) in eyes.items()]
        return [_graded(one, columns) for one in two if one.name or one.grade]
    stem = own_name(row.name)
    eye = next((eye for eye, (name, _) in eyes.items() if name and own_name(name) == stem), "")
    told = _EYE_IN_NAME.search(stem)
    eye = eye or parse_eye(row.eye) or (parse_eye(told[1]) if told else "")
    if not eye:
        problem = "the list has a grade for each eye and does not say which eye this photograph shows"
        return [replace(row, problem=problem)]
    return [_graded(replace(row, eye=eye, grade=eyes[eye][1]), columns)]


def _graded(row: Row, columns: Columns) -> Row:
    if not columns.keywords:
        return row
    grade = parse_grade_keywords(row.grade)
    if grade is None:
        return replace(row, problem=f"its keywords name no grade of retinopathy: {row.grade[:60]!r}")
    return replace(row, grade=str(grade))


def _cell(cells: list[str], at: int | None) -> str:
    return cells[at] if at is not None and at < len(cells) else ""
