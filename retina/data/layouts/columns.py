"""The columns of a label file that are read, as the user or their titles name them.

Without a choice of the user, these are the titles of public data sets; `column_choice` also looks at the content.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from retina.config import DataConfig
from retina.data.layouts.csv_reader import LabelTable, normalize_title
from retina.data.layouts.gradable import GradableColumn, parse_gradable_column
from retina.errors import DataError

IMAGE_TITLES = (
    "image", "id_code", "image_name", "image_id", "filename", "file_name", "file", "image_path", "path", "name", "img",
    "img_name", "image_file", "image_filename", "img_path", "filepath", "file_path",
)  # fmt: skip
GRADE_TITLES = (
    "level", "diagnosis", "grade", "retinopathy_grade", "dr_grade", "label", "adjudicated_dr_grade", "dr_icdr",
    "final_icdr", "dr_level", "icdr", "icdr_grade", "icdr_level", "dr_class", "diabetic_retinopathy_grade",
    "dr_severity", "class",
)  # fmt: skip
KEYWORDS = "diagnostic_keywords"
"""Title of ODIR-5K's columns of an eye's findings in words."""
OTHER_TITLES = {
    "split": ("split", "set", "subset", "partition"),
    "patient": ("patient", "patient_id", "subject", "subject_id"),
    "eye": ("eye", "laterality", "side", "exam_eye"),
}
CONFIGURABLE_ROLES = ("image", "grade", "patient", "eye")
"""Roles for which the user may choose a column, with `data.ROLE_column`."""
_EYE_IN_TITLE = re.compile(r"(?:(left|right)(?:_eye)?_(.+)|(.+?)_(?:of_)?(left|right)(?:_eye)?)")
RENAME_REMEDY = "give one of them another title"
MAX_SHOWN = 6
"""Titles listed in a message."""


@dataclass(frozen=True)
class Columns:
    """Positions of the columns that are read; None for a column that does not exist.

    Attributes:
        image: the photograph's name.
        grade: its grade.
        split: its split.
        patient: its patient.
        eye: which eye it shows.
        gradable: columns that say whether photographs are gradable: none, one, or one for each eye.
        eyes: for a table with both eyes' grades in each row, "left" and "right" with the positions of that eye's
            photograph (None: that of `image`) and grade.
        grades_are_keywords: whether the eyes' grades are diagnostic keywords.
        choices: lines on what was chosen where more than the known titles decided.
    """

    image: int | None = None
    grade: int | None = None
    split: int | None = None
    patient: int | None = None
    eye: int | None = None
    gradable: tuple[GradableColumn, ...] = ()
    eyes: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    grades_are_keywords: bool = False
    choices: list[str] = field(default_factory=list)

    @property
    def are_sufficient(self) -> bool:
        """Whether they name photographs and their grades."""
        has_names = self.image is not None or (
            len(self.eyes) == 2 and all(image is not None for image, _ in self.eyes.values())
        )
        return has_names and (self.grade is not None or len(self.eyes) == 2)


def find_known_columns(titles: list[str], config: DataConfig) -> Columns:
    """Return the columns that the user chose, and for the other roles those of known titles.

    Raises:
        DataError: if a column that the user chose does not exist, or if several have its title.
    """
    positions = positions_by_title(titles)
    chosen_titles = [title for role in CONFIGURABLE_ROLES if (title := getattr(config, f"{role}_column"))]
    inexact = {normalize_title(title) for title in chosen_titles if titles.count(title) != 1}
    refuse_duplicate_titles(titles, {*IMAGE_TITLES, *GRADE_TITLES, *inexact})
    chosen = {
        role: _chosen_position(titles, positions, getattr(config, f"{role}_column"), role)
        for role in CONFIGURABLE_ROLES
    }
    known = {role: _first_position(positions, role_titles) for role, role_titles in OTHER_TITLES.items()}
    eyes = _eye_columns(positions) if chosen["grade"] is None else {}
    grade = chosen["grade"]
    if grade is None and not eyes:
        grade = _first_position(positions, GRADE_TITLES)
    image = chosen["image"]
    if image is None:
        image = _first_position(positions, IMAGE_TITLES)
    patient = chosen["patient"] if chosen["patient"] is not None else known["patient"]
    if patient is None and eyes:
        patient = positions.get("id")
    return Columns(
        image=image,
        grade=grade,
        split=known["split"],
        patient=patient,
        eye=chosen["eye"] if chosen["eye"] is not None else known["eye"],
        gradable=_first_of_each_eye(gradable_columns_of(titles, positions)),
        eyes=eyes,
        grades_are_keywords=any(KEYWORDS in normalize_title(titles[grade]) for _, grade in eyes.values()),
    )


def _first_position(positions: dict[str, int], titles: tuple[str, ...]) -> int | None:
    return next((positions[title] for title in titles if title in positions), None)


def gradable_columns_of(titles: list[str], positions: dict[str, int]) -> list[GradableColumn]:
    """Return the columns whose titles say that they are about gradability.

    Args:
        titles: of all columns.
        positions: as `positions_by_title` returns them.
    """
    return [
        column
        for normalized, position in positions.items()
        if (column := parse_gradable_column(position, titles[position], normalized))
    ]


def _first_of_each_eye(columns: list[GradableColumn]) -> tuple[GradableColumn, ...]:
    first_by_eye: dict[str, GradableColumn] = {}
    for column in columns:
        first_by_eye.setdefault(column.eye, column)
    return tuple(first_by_eye.values())


def positions_by_title(titles: list[str]) -> dict[str, int]:
    """Return the position of the first column of each title, normalized."""
    positions: dict[str, int] = {}
    for position, title in enumerate(titles):
        positions.setdefault(normalize_title(title), position)
    return positions


def refuse_duplicate_titles(titles: list[str], read_titles: AbstractSet[str]) -> None:
    """Raise if two columns have the same normalized title and it is one that is read.

    Raises:
        DataError: names the title.
    """
    counts = Counter(normalize_title(title) for title in titles)
    duplicates = [
        title for title in titles if counts[normalize_title(title)] > 1 and normalize_title(title) in read_titles
    ]
    if duplicates:
        n = counts[normalize_title(duplicates[0])]
        raise DataError(f"{n} columns are called {duplicates[0]!r}; {RENAME_REMEDY}")


def _chosen_position(titles: list[str], positions: dict[str, int], chosen: str | None, role: str) -> int | None:
    """Return the position of the column that the user chose for a role; None if there is no choice.

    Raises:
        DataError: if there is no such column.
    """
    if chosen is None:
        return None
    if chosen in titles:
        return titles.index(chosen)
    if normalize_title(chosen) in positions:
        return positions[normalize_title(chosen)]
    raise DataError(f"data.{role}_column is {chosen!r}; found the columns: {_join_titles(titles)}")


def eye_and_base(title: str) -> tuple[str, str]:
    """Return the eye in a normalized title and the title without it; both empty if it names no eye."""
    match = _EYE_IN_TITLE.fullmatch(title)
    return (match[1] or match[4], match[2] or match[3]) if match else ("", "")


def _eye_columns(positions: dict[str, int]) -> dict[str, tuple[int | None, int]]:
    """Return the columns of both eyes' photographs (None if they have none) and grades; see `Columns.eyes`."""
    images: dict[str, int] = {}
    grades: dict[str, int] = {}
    for title, position in positions.items():
        eye, base = eye_and_base(title)
        if base in {*IMAGE_TITLES, "fundus"}:
            images.setdefault(eye, position)
        elif base in {*GRADE_TITLES, KEYWORDS}:
            grades.setdefault(eye, position)
    return {eye: (images.get(eye), position) for eye, position in grades.items()} if len(grades) == 2 else {}


def missing_columns_error(table: LabelTable, config: DataConfig) -> DataError:
    """Return the error for a table with no column of a known title for the photograph, or none for its grade."""
    known = find_known_columns(table.titles, config)
    return missing_roles_error(table, no_image=known.image is None, no_grade=known.grade is None)


def missing_roles_error(table: LabelTable, *, no_image: bool, no_grade: bool) -> DataError:
    """Return the error for a table without a column for the photograph, its grade, or both."""
    missing = [
        *([f"one for the photograph ({', '.join(IMAGE_TITLES[:MAX_SHOWN])} or another known one)"] if no_image else []),
        *([f"one for its grade ({', '.join(GRADE_TITLES[:MAX_SHOWN])} or another known one)"] if no_grade else []),
    ]
    return DataError(
        f"{table.file}: found the columns: {_join_titles(table.titles)}\n"
        f"needed: {' and '.join(missing)}\n"
        "name columns of other titles with data.image_column and data.grade_column"
    )


def _join_titles(titles: list[str]) -> str:
    return ", ".join(title for title in titles if title) or "nothing"
