"""Rows as the layouts give them, checked one by one and turned into the manifest's table."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import pandas as pd

from retina.data.formats import own_name
from retina.data.layouts import split_words
from retina.data.layouts.file_index import is_text, leaves_folder, printable
from retina.data.layouts.grades import GradeReader
from retina.data.manifest import COLUMNS, BadRow

_EYES = {
    "left": "left", "l": "left", "os": "left", "2": "left", "right": "right", "r": "right", "od": "right", "1": "right",
}  # fmt: skip
"""1 and 2 are the right and the left eye in BRSET's exam_eye."""
_NO_PATIENT = {"nan", "na", "n/a", "<na>", "none", "null", "unknown"}
"""What programs write into an empty cell of a patient."""
_WHOLE = re.compile(r"^(\d+)\.0+$")
_EYE_FOLDERS = {"left", "right", "os", "od", "lefteye", "righteye"}
_PATIENT_AND_EYE = re.compile(r"(.+?)_(left|right)(?![a-z])(.*)", re.IGNORECASE | re.DOTALL)
_MOST_OF_AN_EYE = 8
"""Photographs of one eye, up to which the word before `_left` and `_right` may be its patient's name."""


@dataclass(slots=True)
class Row:
    """One photograph as its layout knows it, unchecked.

    Not frozen: of 100,000 rows each gets its path, and copies of them take seconds.

    Attributes:
        where: file and line of the name.
        image: the name for the manifest.
        own: the photograph's own name, without suffix; two rows with the same are the same photograph.
        grade: as written.
        split: as written.
        name: what to look for; "" where `path` is known.
        scope: the folder of the label file, which the name counts from.
        path: of the photograph, where the layout knows it.
        grade_where: file and line of the grade, where that is another one.
        problem: what the layout itself found to be wrong with it.
        rivals: the photographs that have its name, where several have.
        ungradable: whether the label file says that nobody could grade it.
        is_assumed: whether `path` is where the photograph would belong, and nobody looked.
        split_from: what `split` comes from: "row", the row itself or its layout; "list", the name of its label file;
            "folder", the folder of that file or of the photograph.
        elsewhere: where `path` is None, the photograph that has its name and is not taken, and why not.
    """

    where: str
    image: str
    own: str
    grade: str
    split: str
    name: str = ""
    scope: Path | None = None
    path: str | Path | None = None
    array: str = ""
    index: int = -1
    patient: str = ""
    eye: str = ""
    grade_where: str = ""
    problem: str = ""
    rivals: tuple[str, ...] = ()
    ungradable: bool = False
    is_assumed: bool = False
    split_from: str = "row"
    elsewhere: str = ""


@dataclass(frozen=True)
class LabelList:
    """One label list.

    Attributes:
        source: its file's name, for messages.
        rows: in the order of the file.
        optional: left out where none of its photographs is there (many download no more than the training set).
        belongs: the folder that its photographs belong in, for messages.
        files: the label files themselves.
        choices: which columns were chosen, where names alone did not decide.
    """

    source: str
    rows: list[Row]
    optional: bool = False
    belongs: Path | None = None
    files: tuple[Path, ...] = ()
    choices: tuple[str, ...] = ()


def has_no_photographs(labels: LabelList) -> bool:
    """Whether not one photograph of a located list is there. Names that lead elsewhere are another complaint."""
    nowhere = all(row.path is None and not row.rivals for row in labels.rows)
    return nowhere and any(not leaves_folder(row.name) for row in labels.rows)


def assume_paths(labels: LabelList, root: Path) -> LabelList:
    """The same rows with the paths where their photographs belong, whether they are there or not."""
    belongs = labels.belongs or root
    rows = [
        row if row.path or leaves_folder(row.name) else replace(row, path=belongs / row.name, is_assumed=True)
        for row in labels.rows
    ]
    return replace(labels, rows=rows)


def validate_rows(rows: list[Row], reader: GradeReader, where: str) -> tuple[list[Row], list[BadRow]]:
    """Part the rows that can be used from those that cannot, which are explained. Both keep their order.

    Args:
        rows: of all label files.
        reader: tells grades.
        where: which folders have photographs, for those that are missing.
    """
    problems = {at: bad for at, row in enumerate(rows) if (bad := _no_text(row) or _problem(row, reader, where))}
    problems |= _repeated({at: row for at, row in enumerate(rows) if at not in problems}, reader)
    return [row for at, row in enumerate(rows) if at not in problems], [problems[at] for at in sorted(problems)]


def to_frame(rows: list[Row], reader: GradeReader, root: Path) -> pd.DataFrame:
    """The manifest's table of checked rows."""
    rows = _told_apart(rows, root)
    pairs = _pairs(rows)
    table = [
        (
            row.image,
            str(row.path),
            row.array,
            row.index,
            reader(row.grade),
            *_patient_and_eye(row, pairs),
            split_words.parse_split(row.split),
            row.where,
        )
        for row in rows
    ]
    return pd.DataFrame(table, columns=list(COLUMNS)).astype(COLUMNS)


def parse_eye(text: str) -> str:
    """Read a word for an eye as "left" or "right"; any other as ""."""
    return _EYES.get(text.strip().lower().removesuffix(".0"), "")


def parse_patient(cell: str) -> str:
    """A patient's name; "" where the cell tells none. 7.0 is 7, as it is written where no neighbour is missing."""
    return "" if cell.lower() in _NO_PATIENT else _WHOLE.sub(r"\1", cell)


def _no_text(row: Row) -> BadRow | None:
    if all(map(is_text, (row.where, row.image, str(row.path)))):
        return None
    return BadRow(printable(row.where), printable(row.image), "its name is not UTF-8")


def _problem(row: Row, reader: GradeReader, where: str) -> BadRow | None:
    if row.path is None and not row.name:
        return BadRow(row.where, "(no name)", "the name of the photograph is empty")
    if row.path is None and leaves_folder(row.name):
        return BadRow(row.where, row.image, "this name leads out of the data folder; it was not opened")
    if row.problem:
        return BadRow(row.where, row.image, row.problem, row.ungradable)
    if reader(row.grade) is None:
        ungradable = reader.is_ungradable(row.grade)
        return BadRow(row.grade_where or row.where, row.image, reader.problem(row.grade), ungradable)
    problem = ""
    if split_words.parse_split(row.split) is None:
        problem = f"its split is {row.split!r}; splits are train, val and test"
    elif row.path is None:
        problem = f"the photograph is missing; {row.elsewhere or where}"
    return BadRow(row.where, row.image, problem) if problem else None


def _repeated(rows: dict[int, Row], reader: GradeReader) -> dict[int, BadRow]:
    """All rows of a photograph with two grades, and the later ones of a photograph that is listed again."""
    places = defaultdict(list)
    for at, row in rows.items():
        places[(row.scope, row.own) if row.is_assumed else (row.path, row.array, row.index)].append(at)
    bad = {}
    for same in places.values():
        for at in same if len(same) > 1 else ():
            row, first = rows[at], rows[same[0]]
            other = next((rows[i] for i in same if reader(rows[i].grade) != reader(row.grade)), None)
            if other:
                text = f"two grades for one photograph: {row.grade} here, {other.grade} at {other.where}"
                bad[at] = BadRow(row.where, row.image, text)
            elif at != same[0]:
                bad[at] = BadRow(row.where, row.image, f"listed twice; the first time at {first.where}")
    return bad


def _told_apart(rows: list[Row], root: Path) -> list[Row]:
    """The rows with names of their own: two photographs in two folders may have the same name in the label file."""
    owns = Counter(row.own for row in rows)
    images = Counter((row.image, split_words.parse_split(row.split)) for row in rows)
    changed = []
    for row in rows:
        own, image = row.own, row.image
        twice = owns[own] > 1, images[image, split_words.parse_split(row.split)] > 1
        if any(twice) and not row.array and not row.is_assumed:
            inside = PurePath(str(row.path)).relative_to(root).as_posix()
            own, image = own_name(inside) if twice[0] else own, inside if twice[1] else image
        changed.append(row if (own, image) == (row.own, row.image) else replace(row, own=own, image=image))
    return changed


def _pairs(rows: list[Row]) -> dict[str, str]:
    """The patient of photographs such as 2/left/10 and 3/right/10, by their own names.

    Where a name is there once in a folder of left eyes and once in one of right eyes, they are one patient's. Where it
    is there more often in a split, it is a running number, and nothing is known.
    """
    same: dict[tuple[str | None, str], list[Row]] = defaultdict(list)
    for row in rows:
        if not row.patient and _eye_of_folder(row.own):
            same[split_words.parse_split(row.split), row.own.rpartition("/")[2]].append(row)
    stems = Counter(stem for _, stem in same)
    pairs = {}
    for (split, stem), both in same.items():
        if sorted(_eye_of_folder(row.own) for row in both) == ["left", "right"]:
            patient = stem if stems[stem] == 1 else f"{split or 'open'}/{stem}"
            pairs.update({row.own: patient for row in both})
    return {**pairs, **_numbered_behind(rows)}


def _numbered_behind(rows: list[Row]) -> dict[str, str]:
    """The patient of photographs such as img_left_001 and img_right_001, by their own names: img_001.

    The word before the eye names the patient as a rule. A word without a digit, before more than `_MOST_OF_AN_EYE`
    photographs of one eye that are numbered behind it, does not: all of them would be one patient, in one split.
    """
    found = {row.own: named for row in rows if not row.patient and (named := _named(row.own))}
    per_eye = Counter((named[1], named[2].lower()) for named in found.values())
    words = {word for (word, _), number in per_eye.items() if number > _MOST_OF_AN_EYE and not _has_digit(word)}
    return {own: f"{named[1]}{named[3]}" for own, named in found.items() if named[1] in words and _has_digit(named[3])}


def _named(own: str) -> re.Match[str] | None:
    return _PATIENT_AND_EYE.fullmatch(own.replace("\\", "/").rpartition("/")[2])


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


def _eye_of_folder(own: str) -> str:
    if "/" not in own and "\\" not in own:
        return ""
    *_, folder, _ = ("", "", *own.replace("\\", "/").split("/"))
    word = re.sub(r"[\s_-]+", "", folder.lower())
    return _EYES[word.removesuffix("eye")] if word in _EYE_FOLDERS else ""


def _patient_and_eye(row: Row, pairs: dict[str, str]) -> tuple[str, str]:
    named = _named(row.own)
    if named:
        patient, eye = pairs.get(row.own, named[1]), named[2].lower()
    else:
        patient, eye = pairs.get(row.own, row.own), _eye_of_folder(row.own)
    return row.patient or patient, parse_eye(row.eye) or eye
