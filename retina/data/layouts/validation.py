"""The rows that every layout returns, their validation, and their conversion to the manifest's table."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import pandas as pd

from retina.data.formats import strip_image_suffix
from retina.data.layouts import split_words
from retina.data.layouts.file_index import is_utf8, leaves_folder, printable
from retina.data.layouts.grades import GradeReader
from retina.data.manifest import COLUMNS, BadRow

_EYES = {
    "left": "left", "l": "left", "os": "left", "2": "left", "right": "right", "r": "right", "od": "right", "1": "right",
}  # fmt: skip
"""In BRSET's exam_eye, 1 is the right eye and 2 the left."""
_NO_PATIENT = {"nan", "na", "n/a", "<na>", "none", "null", "unknown"}
"""Texts that programs write for a missing patient."""
_WHOLE_NUMBER = re.compile(r"^(\d+)\.0+$")
_EYE_FOLDERS = {"left", "right", "os", "od", "lefteye", "righteye"}
_PATIENT_AND_EYE = re.compile(r"(.+?)_(left|right)(?![a-z])(.*)", re.IGNORECASE | re.DOTALL)
_MAX_PHOTOGRAPHS_OF_AN_EYE = 8
"""If one eye has more numbered photographs, a word without a digit before `_left` and `_right` is no patient's name."""


@dataclass(slots=True)
class LabelRow:
    """One photograph as its layout gives it, before validation.

    Not frozen: each of 100,000 rows gets its path, and copying all of them takes seconds.

    Attributes:
        where: file and line of the name.
        image: the name for the manifest.
        key: identifies the photograph: its name without an image's suffix, with folders where these are needed.
        grade: as written.
        split: as written.
        name: the photograph's name in a label file, to be located; "" if the layout knows `path`.
        label_folder: the folder of the label file, which `name` is relative to.
        path: the photograph, or the npz file that holds it; None if it is not known.
        array: name of the array in the npz file, else "".
        index: row of that array, else -1.
        patient: as written; "" if the label file names none.
        eye: as written; "" if the label file names none.
        grade_where: file and line of the grade, if they differ from `where`.
        problem: what the layout found to be wrong with the row.
        same_named: paths of the photographs that have this name, if there are several.
        is_ungradable: whether the label file says that the photograph could not be graded.
        is_path_assumed: whether `path` is where the photograph is expected and was not looked for.
        split_source: the origin of `split`: "row", the row itself or its layout; "list", the name of its label file;
            "folder", the folder of that file or of the photograph.
        missing_reason: if `path` is None, which photograph has this name and is not used, and why not.
    """

    where: str
    image: str
    key: str
    grade: str
    split: str
    name: str = ""
    label_folder: Path | None = None
    path: str | Path | None = None
    array: str = ""
    index: int = -1
    patient: str = ""
    eye: str = ""
    grade_where: str = ""
    problem: str = ""
    same_named: tuple[str, ...] = ()
    is_ungradable: bool = False
    is_path_assumed: bool = False
    split_source: str = "row"
    missing_reason: str = ""


@dataclass(frozen=True)
class LabelList:
    """The rows of one label file, grade folder or npz array.

    Attributes:
        source: name of the file or folder, for messages.
        rows: in the order of the file.
        is_optional: whether the list is left out if none of its photographs exists (many users download only the
            training set).
        photograph_folder: the folder where its photographs are expected; None for the data folder.
        files: the label files.
        choices: lines on how columns were chosen where their titles alone did not decide.
    """

    source: str
    rows: list[LabelRow]
    is_optional: bool = False
    photograph_folder: Path | None = None
    files: tuple[Path, ...] = ()
    choices: tuple[str, ...] = ()


def has_no_photographs(label_list: LabelList) -> bool:
    """Return whether none of a located list's photographs exists.

    False if all names lead out of the data folder: validation reports these.
    """
    is_none_located = all(row.path is None and not row.same_named for row in label_list.rows)
    return is_none_located and any(not leaves_folder(row.name) for row in label_list.rows)


def assume_paths(label_list: LabelList, root: Path) -> LabelList:
    """Return the list with each path set to where the photograph is expected, whether it exists or not."""
    folder = label_list.photograph_folder or root
    rows = [
        row if row.path or leaves_folder(row.name) else replace(row, path=folder / row.name, is_path_assumed=True)
        for row in label_list.rows
    ]
    return replace(label_list, rows=rows)


def validate_rows(rows: list[LabelRow], reader: GradeReader, hint: str) -> tuple[list[LabelRow], list[BadRow]]:
    """Return the usable rows, and the unusable ones with their problems. Both keep their order.

    Args:
        rows: the rows of all label lists.
        reader: parses grades.
        hint: which folders have photographs, for messages about missing ones.
    """
    problems = {i: bad for i, row in enumerate(rows) if (bad := _encoding_problem(row) or _problem(row, reader, hint))}
    problems |= _repeated({i: row for i, row in enumerate(rows) if i not in problems}, reader)
    return [row for i, row in enumerate(rows) if i not in problems], [problems[i] for i in sorted(problems)]


def to_frame(rows: list[LabelRow], reader: GradeReader, root: Path) -> pd.DataFrame:
    """Return the manifest's table of validated rows."""
    rows = _with_unique_names(rows, root)
    patients = _inferred_patients(rows)
    table = [
        (
            row.image,
            str(row.path),
            row.array,
            row.index,
            reader(row.grade),
            *_patient_and_eye(row, patients),
            split_words.parse_split(row.split),
            row.where,
        )
        for row in rows
    ]
    return pd.DataFrame(table, columns=list(COLUMNS)).astype(COLUMNS)


def parse_eye(text: str) -> str:
    """Return "left" or "right" for a word that names an eye, "" for any other."""
    return _EYES.get(text.strip().lower().removesuffix(".0"), "")


def parse_patient(cell: str) -> str:
    """Return a patient's name; "" if the cell has none. "7.0", which pandas writes beside missing values, is "7"."""
    return "" if cell.lower() in _NO_PATIENT else _WHOLE_NUMBER.sub(r"\1", cell)


def _encoding_problem(row: LabelRow) -> BadRow | None:
    if all(map(is_utf8, (row.where, row.image, str(row.path)))):
        return None
    return BadRow(printable(row.where), printable(row.image), "its name is not UTF-8")


def _problem(row: LabelRow, reader: GradeReader, hint: str) -> BadRow | None:
    if row.path is None and not row.name:
        return BadRow(row.where, "(no name)", "the name of the photograph is empty")
    if row.path is None and leaves_folder(row.name):
        return BadRow(row.where, row.image, "this name leads out of the data folder; it was not opened")
    if row.problem:
        return BadRow(row.where, row.image, row.problem, row.is_ungradable)
    if reader(row.grade) is None:
        is_ungradable = reader.is_ungradable(row.grade)
        return BadRow(row.grade_where or row.where, row.image, reader.describe_problem(row.grade), is_ungradable)
    problem = ""
    if split_words.parse_split(row.split) is None:
        problem = f"its split is {row.split!r}; splits are train, val and test"
    elif row.path is None:
        problem = f"the photograph is missing; {row.missing_reason or hint}"
    return BadRow(row.where, row.image, problem) if problem else None


def _repeated(rows: dict[int, LabelRow], reader: GradeReader) -> dict[int, BadRow]:
    """Return all rows of photographs that have two grades, and the later rows of photographs that are listed twice.

    Args:
        rows: valid rows by their position.
        reader: parses grades.

    Returns:
        The problems by the rows' positions.
    """
    positions_of_photograph = defaultdict(list)
    for i, row in rows.items():
        photograph = (row.label_folder, row.key) if row.is_path_assumed else (row.path, row.array, row.index)
        positions_of_photograph[photograph].append(i)
    bad = {}
    for positions in positions_of_photograph.values():
        for i in positions if len(positions) > 1 else ():
            row, first = rows[i], rows[positions[0]]
            other = next((rows[j] for j in positions if reader(rows[j].grade) != reader(row.grade)), None)
            if other:
                text = f"two grades for one photograph: {row.grade} here, {other.grade} at {other.where}"
                bad[i] = BadRow(row.where, row.image, text)
            elif i != positions[0]:
                bad[i] = BadRow(row.where, row.image, f"listed twice; the first time at {first.where}")
    return bad


def _with_unique_names(rows: list[LabelRow], root: Path) -> list[LabelRow]:
    """Return the rows with folders before keys and names that several photographs have in the label files."""
    keys = Counter(row.key for row in rows)
    images = Counter((row.image, split_words.parse_split(row.split)) for row in rows)
    renamed = []
    for row in rows:
        key, image = row.key, row.image
        is_key_shared, is_image_shared = keys[key] > 1, images[image, split_words.parse_split(row.split)] > 1
        if (is_key_shared or is_image_shared) and not row.array and not row.is_path_assumed:
            relative = PurePath(str(row.path)).relative_to(root).as_posix()
            key, image = strip_image_suffix(relative) if is_key_shared else key, relative if is_image_shared else image
        renamed.append(row if (key, image) == (row.key, row.image) else replace(row, key=key, image=image))
    return renamed


def _inferred_patients(rows: list[LabelRow]) -> dict[str, str]:
    """Return the patients of photographs such as 2/left/10 and 3/right/10, by the rows' keys.

    If a name occurs once in a folder of left eyes and once in one of right eyes, both are of one patient. If it occurs
    more often in a split, it is a running number, which names no patient.
    """
    by_split_and_stem: dict[tuple[str | None, str], list[LabelRow]] = defaultdict(list)
    for row in rows:
        if not row.patient and _eye_of_folder(row.key):
            by_split_and_stem[split_words.parse_split(row.split), row.key.rpartition("/")[2]].append(row)
    stems = Counter(stem for _, stem in by_split_and_stem)
    patients = {}
    for (split, stem), same_stem in by_split_and_stem.items():
        if sorted(_eye_of_folder(row.key) for row in same_stem) == ["left", "right"]:
            patient = stem if stems[stem] == 1 else f"{split or 'open'}/{stem}"
            patients.update({row.key: patient for row in same_stem})
    return {**patients, **_patients_by_number(rows)}


def _patients_by_number(rows: list[LabelRow]) -> dict[str, str]:
    """Return the patient img_001 of photographs such as img_left_001 and img_right_001, by the rows' keys.

    In general, the word before the eye names the patient. It does not if it has no digit and more than
    `_MAX_PHOTOGRAPHS_OF_AN_EYE` photographs of one eye have it: all of them would be one patient, in one split.
    """
    matches = {row.key: match for row in rows if not row.patient and (match := _match_patient_and_eye(row.key))}
    counts = Counter((match[1], match[2].lower()) for match in matches.values())
    words = {word for (word, _), n in counts.items() if n > _MAX_PHOTOGRAPHS_OF_AN_EYE and not _has_digit(word)}
    return {
        key: f"{match[1]}{match[3]}" for key, match in matches.items() if match[1] in words and _has_digit(match[3])
    }


def _match_patient_and_eye(key: str) -> re.Match[str] | None:
    return _PATIENT_AND_EYE.fullmatch(key.replace("\\", "/").rpartition("/")[2])


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


def _eye_of_folder(key: str) -> str:
    """Return the eye that the last folder in a key names, else ""."""
    if "/" not in key and "\\" not in key:
        return ""
    *_, folder, _ = ("", "", *key.replace("\\", "/").split("/"))
    word = re.sub(r"[\s_-]+", "", folder.lower())
    return _EYES[word.removesuffix("eye")] if word in _EYE_FOLDERS else ""


def _patient_and_eye(row: LabelRow, inferred_patients: dict[str, str]) -> tuple[str, str]:
    match = _match_patient_and_eye(row.key)
    if match:
        patient, eye = inferred_patients.get(row.key, match[1]), match[2].lower()
    else:
        patient, eye = inferred_patients.get(row.key, row.key), _eye_of_folder(row.key)
    return row.patient or patient, parse_eye(row.eye) or eye
