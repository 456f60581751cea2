"""Rows as the layouts give them, checked one by one and turned into the manifest's table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from retina.config import GRADES
from retina.data.manifest import COLUMNS, Bad
from retina.data.sources.tree import Tree, is_text, leaves_folder, printable

SPLITS = {
    "": "", "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
"""The words for the splits, in files and as folders."""

_EYES = {"left": "left", "l": "left", "os": "left", "right": "right", "r": "right", "od": "right"}
_GRADE = re.compile(rf"0*([0-{GRADES - 1}])(\.0*)?")  # pandas writes 3.0 where a neighbour is missing
_PATIENT_AND_EYE = re.compile(r"(.+?)_(left|right)(?![a-z]).*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Row:
    """One photograph as its layout knows it, unchecked.

    Attributes:
        where: file and line of the name.
        image: the name for the manifest.
        own: the photograph's own name, without suffix; two rows with the same are the same photograph.
        grade: as written.
        split: as written.
        name: what to look for in `folders`; "" where `path` is known.
        path: of the photograph, where the layout knows it.
        grade_where: file and line of the grade, where that is another one.
    """

    where: str
    image: str
    own: str
    grade: str
    split: str
    name: str = ""
    folders: tuple[Path, ...] = ()
    path: Path | None = None
    array: str = ""
    index: int = -1
    patient: str = ""
    eye: str = ""
    grade_where: str = ""


@dataclass(frozen=True)
class Labels:
    """One label list.

    Attributes:
        source: its file's name, for messages.
        rows: in the order of the file.
        optional: left out where none of its photographs is there (many download no more than the training set).
    """

    source: str
    rows: list[Row]
    optional: bool = False


def locate(labels: Labels, tree: Tree) -> Labels:
    """The same rows with the paths of those photographs that are there."""
    return replace(labels, rows=[_located(row, tree) for row in labels.rows])


def is_absent(labels: Labels) -> bool:
    """Whether not one photograph of a located list is there. Names that lead elsewhere are another complaint."""
    return all(row.path is None for row in labels.rows) and any(not leaves_folder(row.name) for row in labels.rows)


def assume(labels: Labels) -> Labels:
    """The same rows with the paths where their photographs belong, whether they are there or not."""
    return replace(
        labels,
        rows=[
            row if row.path or leaves_folder(row.name) else replace(row, path=row.folders[0] / row.name)
            for row in labels.rows
        ],
    )


def check(rows: list[Row], root: Path) -> tuple[list[Row], list[Bad]]:
    """Part the rows that can be used from those that cannot, which are explained. Both keep their order."""
    here = _Folders(root)
    problems = {at: bad for at, row in enumerate(rows) if (bad := _no_text(row) or _problem(row, here))}
    problems |= _repeated({at: row for at, row in enumerate(rows) if at not in problems})
    return [row for at, row in enumerate(rows) if at not in problems], [problems[at] for at in sorted(problems)]


def to_frame(rows: list[Row]) -> pd.DataFrame:
    """The manifest's table of checked rows."""
    table = [
        (
            row.image,
            str(row.path),
            row.array,
            row.index,
            _grade(row.grade),
            *_patient_and_eye(row),
            SPLITS[row.split.lower()],
            row.where,
        )
        for row in rows
    ]
    return pd.DataFrame(table, columns=list(COLUMNS)).astype(COLUMNS)


class _Folders:
    """Names the folders that were searched; asked for thousands of rows, it looks once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[tuple[Path, ...], str] = {}

    def __call__(self, folders: tuple[Path, ...]) -> str:
        if folders not in self._known:
            there = [folder for folder in folders if folder.is_dir()]
            self._known[folders] = ", ".join(_relative(folder, self._root) for folder in there or folders[:1])
        return self._known[folders]


def _relative(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)


def _located(row: Row, tree: Tree) -> Row:
    if row.path is not None or leaves_folder(row.name):
        return row
    return replace(row, path=tree.find(row.name, row.folders))


def _no_text(row: Row) -> Bad | None:
    if all(map(is_text, (row.where, row.image, str(row.path)))):
        return None
    return Bad(printable(row.where), printable(row.image), "its name is not UTF-8")


def _problem(row: Row, folders: Callable[[tuple[Path, ...]], str]) -> Bad | None:
    if row.path is None and not row.name:
        return Bad(row.where, "(no name)", "the name of the photograph is empty")
    if row.path is None and leaves_folder(row.name):
        return Bad(row.where, row.image, "this name leads out of the data folder; it was not opened")
    if _grade(row.grade) is None:
        written = repr(row.grade[:40]) if row.grade else "empty"
        return Bad(row.grade_where or row.where, row.image, f"its grade is {written}; grades are 0 to {GRADES - 1}")
    if row.split.lower() not in SPLITS:
        return Bad(row.where, row.image, f"its split is {row.split!r}; splits are train, val and test")
    if row.path is None:
        return Bad(row.where, row.image, f"the photograph is missing; looked in: {folders(row.folders)}")
    return None


def _repeated(rows: dict[int, Row]) -> dict[int, Bad]:
    """All rows of a photograph with two grades, and the later ones of a photograph that is listed again."""
    places = defaultdict(list)
    for at, row in rows.items():
        places[row.own].append(at)
    bad = {}
    for same in places.values():
        for at in same if len(same) > 1 else ():
            row, first = rows[at], rows[same[0]]
            other = next((rows[i] for i in same if _grade(rows[i].grade) != _grade(row.grade)), None)
            if other:
                text = f"two grades for one photograph: {row.grade} here, {other.grade} at {other.where}"
                bad[at] = Bad(row.where, row.image, text)
            elif at != same[0]:
                bad[at] = Bad(row.where, row.image, f"listed twice; the first time at {first.where}")
    return bad


def _grade(text: str) -> int | None:
    number = _GRADE.fullmatch(text)
    return int(number[1]) if number else None


def _patient_and_eye(row: Row) -> tuple[str, str]:
    named = _PATIENT_AND_EYE.fullmatch(row.own.replace("\\", "/").rpartition("/")[2])
    patient, eye = (named[1], named[2].lower()) if named else (row.own, "")
    return row.patient or patient, _EYES.get(row.eye.lower(), eye)
