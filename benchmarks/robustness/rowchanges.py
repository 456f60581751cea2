"""Changes to single rows of a label list, and to all its grades or names, each with the expected results."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

from benchmarks.robustness.case import Rng, pick
from benchmarks.robustness.datasets import DataSet

Change = Callable[[DataSet, Rng], str]

NO_GRADES = (
    "0-1", "12", "text", "NaN", "", "5", "-1", "1.5", "2,0", "1e0", "0x1", "True", "?", "3;", "2.0.0", "1 2", "11",
    "inf", "9" * 400, "\x1b[2J", "4%", "grade", "None of these", "[2]", "½", "0/1",
)  # fmt: skip
"""Cells that are not a grade by any reading."""

SAME_GRADES: tuple[Callable[[str], str], ...] = (
    lambda grade: f"{grade}.0", lambda grade: f"0{grade}", lambda grade: f" {grade} ", lambda grade: f'"{grade}"',
    lambda grade: f"{grade}.00", lambda grade: f"000{grade}",
)  # fmt: skip

OUTSIDE = (
    "../{}", "/etc/{}", "..\\{}", "C:\\{}", "a/../../{}", "\\\\host\\{}", "~/{}", "file:///{}", "./../{}", "{}\x00",
    "https://example.org/{}",
)  # fmt: skip

STRANGE = ("", " ", "\x1b[2J{}", "{}\x07", "\u202e{}", "x" * 300, "x" * 5000, ".", "..", "{}/", "nan", "[red]{}", "%s")


def _row(dataset: DataSet, rng: Rng) -> int:
    return int(rng.integers(len(dataset.rows)))


def _row_twice(dataset: DataSet, rng: Rng) -> str:
    row = _row(dataset, rng)
    dataset.rows.append(list(dataset.rows[row]))
    dataset.unused, dataset.bad = 1, "a row is there twice"
    return f"row {row + 1} twice"


def _row_twice_other_grade(dataset: DataSet, rng: Rng) -> str:
    row = _row(dataset, rng)
    dataset.exclude(row)
    again = list(dataset.rows[row])
    again[1] = str((int(again[1]) + 1) % 5)
    dataset.rows.append(again)
    dataset.bad = "a photograph has two grades"
    return f"row {row + 1} twice, with two grades"


def _no_grade(dataset: DataSet, rng: Rng) -> str:
    row = _row(dataset, rng)
    dataset.exclude(row)
    dataset.rows[row][1] = pick(rng, NO_GRADES)
    if "," in dataset.rows[row][1]:
        dataset.rows[row][1] = f'"{dataset.rows[row][1]}"'
    dataset.bad = f"the grade {dataset.rows[row][1][:20]!r}"
    return f"row {row + 1}: {dataset.bad}"


def _no_grades(dataset: DataSet, rng: Rng) -> str:
    """Shift all grades to another scale."""
    shift = int(rng.integers(1, 3))
    for row in dataset.rows:
        row[1] = str(int(row[1]) + shift)
    dataset.by_grade, dataset.unused, dataset.bad = None, 1, f"grades of {shift} to {shift + 4}"
    return dataset.bad


def _same_grades(dataset: DataSet, rng: Rng) -> str:
    write: Any = pick(rng, SAME_GRADES)
    for row in dataset.rows:
        row[1] = write(row[1])
    return f"grades written as {write('2')!r}"


def _grade_words(dataset: DataSet, rng: Rng) -> str:
    words = pick(
        rng, (("none", "mild", "moderate", "severe", "proliferative"), ("No DR", "Mild", "Moderate", "Severe", "PDR"))
    )
    for row in dataset.rows:
        row[1] = words[int(row[1])]
    return f"grades as words: {words}"


def _other_digits(dataset: DataSet, rng: Rng) -> str:
    zero = pick(rng, (0x0660, 0xFF10, 0x0966))
    row = _row(dataset, rng)
    dataset.exclude(row)
    dataset.rows[row][1] = chr(zero + int(dataset.rows[row][1]))
    dataset.bad = "a grade in digits of another script"
    return f"row {row + 1}: the grade {dataset.rows[row][1]!r}"


def _name_outside(dataset: DataSet, rng: Rng) -> str:
    row = _row(dataset, rng)
    dataset.exclude(row)
    dataset.rows[row][0] = pick(rng, OUTSIDE).format(dataset.rows[row][0])
    dataset.bad = "a name that leads out of the folder"
    return f"row {row + 1}: the name {dataset.rows[row][0]!r}"


def _name_strange(dataset: DataSet, rng: Rng) -> str:
    row = _row(dataset, rng)
    dataset.exclude(row)
    dataset.rows[row][0] = pick(rng, STRANGE).format(dataset.rows[row][0])
    dataset.bad = "a name without a photograph"
    return f"row {row + 1}: the name {dataset.rows[row][0][:40]!r}"


def _backslashes(dataset: DataSet, rng: Rng) -> str:
    for row in dataset.rows:
        row[0] = f"{dataset.photographs.name}\\{row[0]}"
    return "names with a folder and a backslash"


def _suffixes(dataset: DataSet, rng: Rng) -> str:
    suffix = pick(rng, (".jpg", ".png", ".JPEG", ".tif", ".jpeg"))
    for row in dataset.rows:
        row[0] = row[0].removesuffix(".jpeg") + suffix
    return f"names with {suffix}"


def _capitals(dataset: DataSet, rng: Rng) -> str:
    for row in dataset.rows:
        row[0] = row[0].upper()
    return "names in capitals"


def _normal_forms(dataset: DataSet, rng: Rng) -> str:
    """Write the composed form of a name in the list and the decomposed one on the disk, or the reverse."""
    forms = ("NFC", "NFD") if rng.random() < 0.5 else ("NFD", "NFC")
    for row in dataset.rows[:3]:
        stem = row[0].removesuffix(".jpeg")
        file = dataset.photographs / f"{stem}.jpeg"
        patient, _, eye = stem.partition("_")
        file.rename(file.with_name(unicodedata.normalize(forms[1], f"{patient}é_{eye}.jpeg")))
        row[0] = unicodedata.normalize(forms[0], row[0].replace("_", "é_", 1))
    return f"three names in {forms[0]} in the list, in {forms[1]} on the disk"


def _huge_cell(dataset: DataSet, rng: Rng) -> str:
    row, column = _row(dataset, rng), int(rng.integers(2))
    dataset.exclude(row)
    dataset.rows[row][column] = "z" * pick(rng, (140_000, 3_000_000))
    dataset.bad = "a cell of 140,000 characters and more"
    return f"row {row + 1}, column {column}: {dataset.bad}"


def _split_words(dataset: DataSet, rng: Rng) -> str:
    word = pick(rng, ("eval", "holdout", "TRAIN ", "dev", "fold1", "0", "val/test", "nan", "\x1b[2J", "public"))
    if "split" not in dataset.header:
        dataset.header.append("split")
        for row in dataset.rows:
            row.append("train")
    column = dataset.header.index("split")
    index = _row(dataset, rng)
    dataset.rows[index][column] = word
    if word in {"fold1", "0", "val/test", "\x1b[2J"}:
        dataset.exclude(index)
        dataset.bad = f"the split {word!r}"
    elif dataset.by_grade:
        dataset.by_grade = None
    return f"row {index + 1}: the split {word!r}"


ROWS: tuple[Change, ...] = (
    _row_twice, _row_twice_other_grade, _no_grade, _no_grades, _same_grades, _grade_words, _other_digits, _name_outside,
    _name_strange, _backslashes, _suffixes, _capitals, _normal_forms, _huge_cell, _split_words, _no_grade, _no_grade,
)  # fmt: skip
