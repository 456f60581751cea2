"""The layout of the course's lists: names in one file without a header, grades in another."""

from __future__ import annotations

from pathlib import Path

from retina.data.formats import own_name
from retina.data.layouts.csv_reader import read_column, read_head
from retina.data.layouts.file_index import DataPath, FileIndex
from retina.data.layouts.validation import LabelList, Row
from retina.errors import DataError

COURSE_FILES = ("train_img.csv", "train_label.csv", "test_img.csv", "test_label.csv")


def is_course(tree: FileIndex, place: DataPath) -> bool:
    """Whether the course's headerless lists are here, or at least one of them.

    A file of these names with names and grades, or with a header of several columns, is any label file.
    """
    found = (tree.file(place.root, name) for name in COURSE_FILES)
    return place.may_be(COURSE_FILES) and any(_has_one_column(file) for file in found if file)


def _has_one_column(file: Path) -> bool:
    head = read_head(file)
    return len(head.titles) < 2 and not (head.lines and not head.titles)


def read_course(tree: FileIndex, place: DataPath) -> list[LabelList]:
    """Names in one headerless file, grades in another, line by line.

    Raises:
        DataError: a list is missing, or names and grades differ in number, so that no row can be trusted.
    """
    missing = [name for name in COURSE_FILES if tree.file(place.root, name) is None]
    if missing:
        raise DataError(f"{place.root}: layout course needs {', '.join(COURSE_FILES)}; missing: {', '.join(missing)}")
    return [_half(tree, place.root, split) for split in ("train", "test")]


def _half(tree: FileIndex, root: Path, split: str) -> LabelList:
    names_file, grades_file = (tree.file(root, f"{split}_{kind}.csv") or root for kind in ("img", "label"))
    names, grades = read_column(names_file), read_column(grades_file)
    if len(names) != len(grades):
        raise DataError(
            f"{root}: {names_file.name} has {len(names):,} photographs and {grades_file.name} has {len(grades):,} "
            "grades; they are read line by line and must be equally long"
        )
    rows = [
        Row(
            where=f"{names_file.name}:{line}",
            grade_where=f"{grades_file.name}:{line}",
            image=name,
            own=own_name(name),
            grade=grade,
            split=split,
            name=name,
            scope=root,
            split_from="list",
        )
        for line, (name, grade) in enumerate(zip(names, grades, strict=True), start=1)
    ]
    return LabelList(names_file.name, rows, belongs=root / split, files=(names_file, grades_file))
