"""Choose the columns of a label file by the user's choice, by the titles of public data sets, and by content.

By content, the photographs' column is the only one that names existing photographs, and the grades' column the only one
that holds nothing but grades.
"""

from __future__ import annotations

import re
from dataclasses import replace

from retina.config import DataConfig
from retina.data.formats import strip_image_suffix
from retina.data.layouts import split_words
from retina.data.layouts.columns import (
    CONFIGURABLE_ROLES,
    GRADE_TITLES,
    IMAGE_TITLES,
    KEYWORDS,
    MAX_SHOWN,
    OTHER_TITLES,
    RENAME_REMEDY,
    Columns,
    eye_and_base,
    find_known_columns,
    gradable_columns_of,
    missing_roles_error,
    positions_by_title,
    refuse_duplicate_titles,
)
from retina.data.layouts.csv_reader import LabelTable, normalize_title
from retina.data.layouts.file_index import leaves_folder
from retina.data.layouts.gradable import parse_gradable_column
from retina.data.layouts.grades import GradeReader
from retina.data.layouts.photograph_index import PhotographIndex
from retina.data.layouts.validation import parse_eye, parse_patient
from retina.errors import DataError

_AMBIGUOUS_TITLES = {"label", "class", "diagnosis"}
"""Titles of grades that may also be those of a yes-or-no column."""
_ROW_NUMBER_TITLES = {"", "index", "id", "unnamed:_0", "unnamed:_0.1", "number", "no"}
_MIN_DISTINCT_GRADES = 3
"""Different grades needed in a column of no known title: 0 and 1 alone may be a yes or no to anything."""


def choose_columns(
    table: LabelTable, config: DataConfig, reader: GradeReader, photograph_index: PhotographIndex | None
) -> Columns:
    """Return the columns of a table with a header.

    Args:
        table: the whole table.
        config: the user's choice.
        reader: parses grades.
        photograph_index: the photographs that exist; None if they may be absent, and titles alone decide.

    Raises:
        DataError: if no column, or more than one, could be meant, which names the table's columns; or if there is no
            header.
    """
    known = find_known_columns(table.titles, config)
    positions = positions_by_title(table.titles)
    choices: list[str] = []
    image, grade = known.image, known.grade
    if config.image_column is None and photograph_index is not None and not (known.eyes and image is None):
        candidates = [positions[title] for title in IMAGE_TITLES if title in positions]
        image = _choose_image_column(table, candidates, photograph_index, choices)
    if config.grade_column is None and not known.eyes:
        candidates = [positions[title] for title in GRADE_TITLES if title in positions]
        used = {
            image,
            *(positions[title] for titles in OTHER_TITLES.values() for title in titles if title in positions),
        }
        used |= {known.patient, known.eye, *(column.position for column in known.gradable)}
        grade = _choose_grade_column(table, candidates, used, reader, choices)
    configured = {role: getattr(config, f"{role}_column") for role in CONFIGURABLE_ROLES}
    choices += [f"{role} column {title}, as data.{role}_column says" for role, title in configured.items() if title]
    chosen = replace(known, image=image, grade=grade, choices=choices)
    if not chosen.are_sufficient:
        raise missing_roles_error(table, no_image=image is None, no_grade=grade is None and not known.eyes)
    _refuse_row_as_header(table, grade)
    return _merge_equivalent_columns(table, chosen, config, reader)


def _refuse_row_as_header(table: LabelTable, grade: int | None) -> None:
    """Raise if the first line is a row, which would be lost as a header.

    Raises:
        DataError: if the title of the column of grades is itself a grade, or a number.
    """
    title = table.titles[grade] if grade is not None else ""
    reader = GradeReader({})
    header = f"{IMAGE_TITLES[0]},{GRADE_TITLES[0]}"
    titles = ", ".join(map(repr, table.titles[:MAX_SHOWN]))
    if table.lines and re.fullmatch(r"\D+", title) and (reader(title) is not None or reader.is_ungradable(title)):
        raise DataError(
            f"{table.file}: the title {title!r} of its column of grades is itself a grade; give it another one,\n"
            f"or, if the first line is a row, write a header above it: {header} for a name and a grade"
        )
    if reader(title) is not None or reader.is_ungradable(title) or re.fullmatch(r"[-+]?\d+(?:[.,]\d*)?", title):
        raise DataError(
            f"{table.file}: its first line is a row ({titles}) and no header;\n"
            f"write one above it, {header} for a name and a grade"
        )


def _merge_equivalent_columns(table: LabelTable, columns: Columns, config: DataConfig, reader: GradeReader) -> Columns:
    """Return the columns with one for each role, where several known titles with equal content exist for it.

    Of several, the first that is not empty is taken, and the choice is recorded.

    Raises:
        DataError: if two columns that are read have one title, or have different content; names both.
    """
    positions = positions_by_title(table.titles)
    try:
        read_titles = {title for title in positions if _is_read(title)} | ({"id"} if columns.eyes else set())
        refuse_duplicate_titles(table.titles, read_titles)
    except DataError as error:
        raise DataError(f"{table.file}: {error}") from None
    by_role: dict[str, int | None] = {"split": columns.split, "patient": columns.patient, "eye": columns.eye}
    keys = [strip_image_suffix(name) for name in table.column(columns.image)] if columns.image is not None else []
    for role, role_titles in OTHER_TITLES.items():
        same_role = [positions[title] for title in role_titles if title in positions]
        if len(same_role) > 1 and getattr(config, f"{role}_column", None) is None:
            meanings = {position: _normalize_cells(role, table.column(position), keys) for position in same_role}
            remedy = RENAME_REMEDY if role == "split" else f"choose one with data.{role}_column"
            by_role[role] = _first_if_equal(table, meanings, role, remedy, columns.choices)
    gradable_columns = gradable_columns_of(table.titles, positions)
    gradable = []
    for eye in dict.fromkeys(column.eye for column in gradable_columns):
        of_eye = {column.position: column for column in gradable_columns if column.eye == eye}
        meanings = {
            position: [str(column.parse(cell)) for cell in table.column(position)]
            for position, column in of_eye.items()
        }
        gradable.append(of_eye[_first_if_equal(table, meanings, "gradable", RENAME_REMEDY, columns.choices)])
    for eye in columns.eyes:
        grade_columns = [
            position
            for title, position in positions.items()
            if eye_and_base(title)[0] == eye and eye_and_base(title)[1] in GRADE_TITLES
        ]
        if len(grade_columns) > 1:
            meanings = {
                position: [_grade_text(reader(cell)) for cell in table.column(position)] for position in grade_columns
            }
            grade = _first_if_equal(table, meanings, f"{eye} grade", RENAME_REMEDY, columns.choices)
            columns = replace(columns, eyes={**columns.eyes, eye: (columns.eyes[eye][0], grade)})
    split, patient, eye_position = by_role["split"], by_role["patient"], by_role["eye"]
    return replace(columns, split=split, patient=patient, eye=eye_position, gradable=tuple(gradable))


def _grade_text(grade: int | None) -> str:
    return "" if grade is None else str(grade)


def _is_read(title: str) -> bool:
    """Return whether a column of this normalized title is read if it exists."""
    return (
        eye_and_base(title)[1] in {*IMAGE_TITLES, "fundus", *GRADE_TITLES, KEYWORDS}
        or any(title in titles for titles in OTHER_TITLES.values())
        or parse_gradable_column(0, title, title) is not None
    )


def _normalize_cells(role: str, cells: list[str], keys: list[str]) -> list[str]:
    """Return texts that are equal for cells of equal meaning; all are empty if the column has no content.

    Args:
        role: "split", "patient" or "eye".
        cells: the cells of the column.
        keys: the photographs' own names; a column that only repeats these names no patients.
    """
    if role == "split":
        return [split_words.parse_split(cell) or "" for cell in cells]
    if role == "eye":
        return [parse_eye(cell) for cell in cells]
    patients = [parse_patient(cell) for cell in cells]
    if all(not patient or strip_image_suffix(patient) == key for patient, key in zip(patients, keys, strict=False)):
        return [""] * len(cells)
    numbers: dict[str, str] = {"": ""}
    return [numbers.setdefault(patient, str(len(numbers))) for patient in patients]


def _first_if_equal(
    table: LabelTable, meanings: dict[int, list[str]], role: str, remedy: str, choices: list[str]
) -> int:
    """Return the first column that is not empty, if all that are not empty are equal.

    Args:
        table: the label file.
        meanings: the columns' normalized cells, by position.
        role: what the columns hold, for messages.
        remedy: what the user can do, for messages.
        choices: gets a line on the choice if there is more than one column.

    Raises:
        DataError: if the columns differ.
    """
    nonempty = [position for position, cells in meanings.items() if any(cells)] or list(meanings)
    first = nonempty[0]
    if any(meanings[position] != meanings[first] for position in nonempty[1:]):
        raise DataError(f"{table.file}: the columns {_titles(table, nonempty)} differ; {remedy}")
    if len(meanings) > 1:
        choices.append(f"{role} from column {table.titles[first]}, of {_titles(table, list(meanings))}")
    return first


def _choose_image_column(
    table: LabelTable, candidates: list[int], photograph_index: PhotographIndex, choices: list[str]
) -> int | None:
    """Return the candidate that names the most existing photographs; without candidates, the only such column."""
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        counts = {position: _count_existing(table.column(position), photograph_index) for position in candidates}
        best = max(candidates, key=lambda position: counts[position])
        choices.append(f"photographs from column {table.titles[best]}, of {_titles(table, candidates)}")
        return best
    n_rows = max(len(table.lines), 1)
    matching = [
        position
        for position in range(len(table.titles))
        if _count_existing(table.column(position), photograph_index) * 2 >= n_rows
    ]
    return _require_single(table, matching, "names photographs", "image", choices)


def _count_existing(cells: list[str], photograph_index: PhotographIndex) -> int:
    """Return how many different cells name an existing photograph; 0 for a column that repeats few names."""
    names = set(cells) - {""}
    if len(names) * 2 < len(cells):
        return 0
    return sum(not leaves_folder(name) and photograph_index.contains(name) for name in names)


def _choose_grade_column(
    table: LabelTable, candidates: list[int], used: set[int | None], reader: GradeReader, choices: list[str]
) -> int | None:
    """Return the candidate that holds grades; without candidates, the only column that holds nothing else."""
    if candidates:
        chosen = candidates[0] if len(candidates) == 1 else _agreeing_grade_column(table, candidates, reader, choices)
        others = _columns_of_only_grades(table, {*used, *candidates}, reader)
        _refuse_yes_or_no_column(table, chosen, others, reader)
        return chosen
    return _require_single(table, _columns_of_only_grades(table, used, reader), "holds only grades", "grade", choices)


def _columns_of_only_grades(table: LabelTable, excluded: set[int | None], reader: GradeReader) -> list[int]:
    """Return the columns that hold nothing but grades, at least three different ones.

    Excluded columns and those that number the rows are left out.
    """
    matching = []
    for position, title in enumerate(table.titles):
        if position not in excluded and normalize_title(title) not in _ROW_NUMBER_TITLES:
            cells = set(table.column(position)) - {""}
            grades = {reader(cell) for cell in cells if not reader.is_ungradable(cell)}
            if None not in grades and len(grades) >= _MIN_DISTINCT_GRADES:
                matching.append(position)
    return matching


def _refuse_yes_or_no_column(table: LabelTable, chosen: int, others: list[int], reader: GradeReader) -> None:
    """Raise if a column of an ambiguous title holds only 0 and 1, and another column may hold the grades.

    Raises:
        DataError: names both.
    """
    grades = {reader(cell) for cell in table.column(chosen)} - {None}
    if others and grades == {0, 1} and normalize_title(table.titles[chosen]) in _AMBIGUOUS_TITLES:
        raise DataError(
            f"{table.file}: the column {table.titles[chosen]} holds 0 and 1 alone, and {_titles(table, others)} "
            f"{'holds' if len(others) == 1 else 'hold'} only grades; choose one with data.grade_column"
        )


def _agreeing_grade_column(table: LabelTable, candidates: list[int], reader: GradeReader, choices: list[str]) -> int:
    """Return the first candidate that holds grades, if all that do agree.

    Raises:
        DataError: if two of them have different grades in one row.
    """
    grades = {position: [reader(cell) for cell in table.column(position)] for position in candidates}
    with_grades = [
        position for position in candidates if any(grade is not None for grade in grades[position])
    ] or candidates
    first = with_grades[0]
    for other in with_grades[1:]:
        if any(a is not None and b is not None and a != b for a, b in zip(grades[first], grades[other], strict=True)):
            raise DataError(
                f"{table.file}: the columns {_titles(table, with_grades)} hold different grades; "
                "choose one with data.grade_column"
            )
    choices.append(f"grades from column {table.titles[first]}, of {_titles(table, candidates)}")
    return first


def _require_single(
    table: LabelTable, positions: list[int], property_text: str, role: str, choices: list[str]
) -> int | None:
    """Return the only column that has a property, or None if there is none.

    Args:
        table: the label file.
        positions: the columns that have the property.
        property_text: the property as a verb phrase, for messages: "holds only grades".
        role: "image" or "grade".
        choices: gets a line on the choice.

    Raises:
        DataError: if several columns have it.
    """
    if len(positions) > 1:
        raise DataError(
            f"{table.file}: each of the columns {_titles(table, positions)} {property_text}; "
            f"choose one with data.{role}_column"
        )
    if positions:
        choices.append(f"column {table.titles[positions[0]]}, the only one that {property_text}")
    return positions[0] if positions else None


def _titles(table: LabelTable, positions: list[int]) -> str:
    return ", ".join(table.titles[position] or f"number {position + 1}" for position in positions)
