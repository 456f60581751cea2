"""The layout of the course's lists: names in one file without a header, grades in another."""

from __future__ import annotations

from pathlib import Path

from retina.data.formats import strip_image_suffix
from retina.data.layouts.csv_reader import read_column, read_head
from retina.data.layouts.file_index import DataPath, FileIndex
from retina.data.layouts.validation import LabelList, LabelRow
from retina.errors import DataError

COURSE_FILES = ("train_img.csv", "train_label.csv", "test_img.csv", "test_label.csv")


def is_course(file_index: FileIndex, data_path: DataPath) -> bool:
    """Return whether at least one of the course's headerless lists is in the folder.

    A file of one of these names that has names and grades, or a header of several columns, is an ordinary label file.
    """
    files = (file_index.file(data_path.root, name) for name in COURSE_FILES)
    return data_path.matches_any(COURSE_FILES) and any(_has_one_column(file) for file in files if file)


def _has_one_column(file: Path) -> bool:
    head = read_head(file)
    return len(head.titles) < 2 and not (head.lines and not head.titles)


def read_course(file_index: FileIndex, data_path: DataPath) -> list[LabelList]:
    """Read names from one headerless file and grades from another, line by line.

    Raises:
        DataError: if a list is missing, or if there are not as many names as grades, so that no row can be trusted.
    """
    root = data_path.root
    missing = [name for name in COURSE_FILES if file_index.file(root, name) is None]
    if missing:
        raise DataError(f"{root}: layout course needs {', '.join(COURSE_FILES)}; missing: {', '.join(missing)}")
    return [_read_split(file_index, root, split) for split in ("train", "test")]


def _read_split(file_index: FileIndex, root: Path, split: str) -> LabelList:
    names_file, grades_file = (file_index.file(root, f"{split}_{kind}.csv") or root for kind in ("img", "label"))
    names, grades = read_column(names_file), read_column(grades_file)
    if len(names) != len(grades):
        raise DataError(
            f"{root}: {names_file.name} has {len(names):,} photographs and {grades_file.name} has {len(grades):,} "
            "grades; they are read line by line and must be equally long"
        )
    rows = [
        LabelRow(
            where=f"{names_file.name}:{line}",
            grade_where=f"{grades_file.name}:{line}",
            image=name,
            key=strip_image_suffix(name),
            grade=grade,
            split=split,
            name=name,
            label_folder=root,
            split_source="list",
        )
        for line, (name, grade) in enumerate(zip(names, grades, strict=True), start=1)
    ]
    return LabelList(names_file.name, rows, photograph_folder=root / split, files=(names_file, grades_file))
