"""The layout of one folder for each grade, named by number or by word, with or without folders for the splits."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from retina.config.splits import SPLITS
from retina.data.formats import is_image, strip_image_suffix
from retina.data.layouts import split_words
from retina.data.layouts.file_index import FileIndex
from retina.data.layouts.grades import GradeReader
from retina.data.layouts.validation import LabelList, LabelRow
from retina.errors import DataError


@dataclass(frozen=True)
class ClassFolders:
    """One set of class folders.

    Attributes:
        base: the folder that holds the grade folders, or the split folders that hold them.
        tops: the folders that hold grade folders, each with its split: ("", base), or train, val and test in `base`.
    """

    base: Path
    tops: tuple[tuple[str, Path], ...]

    def describe(self, file_index: FileIndex, root: Path, reader: GradeReader) -> str:
        """Return the first and the last grade folder, for example "train/0/ ... train/4/"."""
        top = self.tops[0][1]
        names = [folder.relative_to(root).as_posix() for folder in file_index.folders(top) if _is_grade(folder, reader)]
        return f"{names[0]}/ ... {names[-1]}/" if len(names) > 1 else f"{names[0]}/"


def find(file_index: FileIndex, top: Path, reader: GradeReader) -> list[ClassFolders]:
    """Return all sets of class folders below a folder, at any depth. Each has photographs of at least two grades."""
    candidates = [
        folder for folder in _folders_above_grades(file_index, top, reader) if _grades_in(file_index, folder, reader)
    ]
    by_base: dict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for folder in candidates:
        split = split_words.split_of_folder(folder.name) if folder != top else ""
        by_base[folder.parent if split else folder].append((split, folder))
    sets = []
    for base, tops in by_base.items():
        ordered = sorted(tops, key=lambda item: (SPLITS.index(item[0]) if item[0] else -1, item[1]))
        has_splits = any(split for split, _ in ordered)
        if has_splits and "" in {split for split, _ in ordered}:  # grades in a folder and in its train/: two sets
            sets += [ClassFolders(base, (item,)) for item in ordered]
        elif len({grade for _, folder in tops for grade in _grades_in(file_index, folder, reader)}) > 1:
            sets.append(ClassFolders(base, tuple(ordered)))
    split_bases = {folder_set.base for folder_set in sets if folder_set.tops[0][0]}
    return [
        folder_set
        for folder_set in sets
        if folder_set.tops[0][0] or not split_bases.intersection(folder_set.base.parents)
    ]


def require_single(
    sets: list[ClassFolders], file_index: FileIndex, root: Path, reader: GradeReader
) -> ClassFolders | None:
    """Return the only set of class folders, or None if there is none.

    Raises:
        DataError: if there are several sets, or if two folders of one set are the same split; names both.
    """
    if not sets:
        return None
    if len(sets) > 1:
        first, second = (folder_set.describe(file_index, root, reader) for folder_set in sets[:2])
        inner = next((folder_set.tops[0][1] for folder_set in reversed(sets) if folder_set.tops[0][1] != root), root)
        inner = inner.parent if len(sets[-1].tops) > 1 else inner
        raise DataError(
            f"{root}: photographs can be read in two ways, by the class folders {first} and by {second}\n"
            f"Give the folder that is meant (for example {inner}), or move the other one out of it."
        )
    folder_set = sets[0]
    folder_by_split: dict[str, Path] = {}
    for split, folder in folder_set.tops:
        if split in folder_by_split:
            raise DataError(
                f"{root}: {folder_by_split[split].name}/ and {folder.name}/ are both the {split} split; "
                "join them, or move one of them away"
            )
        folder_by_split[split] = folder
    return folder_set


def read(folder_set: ClassFolders, file_index: FileIndex, root: Path, reader: GradeReader) -> list[LabelList]:
    """Return a row for every photograph in or below a grade folder.

    Photographs in other folders beside the grade folders get a row too; validation refuses it and names the folder.
    """
    label_lists = [
        LabelList(f"{folder.relative_to(root).as_posix()}/", rows)
        for split, top in folder_set.tops
        for folder in file_index.folders(top)
        if (rows := _rows(file_index, root, folder, split, reader))
    ]
    broken_links = [
        label_list
        for split, top in folder_set.tops
        for label_list in _broken_grade_links(file_index, root, top, split, reader)
    ]
    return label_lists + broken_links


def _folders_above_grades(file_index: FileIndex, top: Path, reader: GradeReader) -> list[Path]:
    """Return `top` and the folders below it, except grade folders and all that is in them."""
    inside_grades: set[Path] = set()
    outside = []
    for folder in file_index.walk(top):
        if folder.parent in inside_grades or (folder != top and _is_grade(folder, reader)):
            inside_grades.add(folder)
        else:
            outside.append(folder)
    return outside


def _grades_in(file_index: FileIndex, top: Path, reader: GradeReader) -> set[int]:
    """Return the grades that have a folder with photographs in `top`."""
    return {
        grade
        for folder in file_index.folders(top)
        if (grade := reader(folder.name)) is not None
        and any(_photographs_and_problems(file_index, inner) for inner in file_index.walk(folder))
    }


def _is_grade(folder: Path, reader: GradeReader) -> bool:
    return reader(folder.name) is not None


def _rows(file_index: FileIndex, root: Path, grade_folder: Path, split: str, reader: GradeReader) -> list[LabelRow]:
    grade = reader(grade_folder.name)
    folders = [grade_folder] if grade is None else file_index.walk(grade_folder)
    return [
        LabelRow(
            where=f"{relative}/",
            image=f"{relative}/{name}",
            key=f"{relative}/{strip_image_suffix(name)}",
            grade=grade_folder.name,
            split=split or _split_below(folder, grade_folder),
            path=f"{folder}/{name}",
            problem=problem,
        )
        for folder in folders
        for relative in [folder.relative_to(root).as_posix()]
        for name, problem in _photographs_and_problems(file_index, folder)
    ]


def _photographs_and_problems(file_index: FileIndex, folder: Path) -> list[tuple[str, str]]:
    """Return the names in a folder that have an image's suffix, each with what is wrong with it or ""."""
    broken = [
        (name, "this is no file, for example a broken link") for name in file_index.broken(folder) if is_image(name)
    ]
    return sorted([*((name, "") for name in file_index.photographs(folder)), *broken])


def _broken_grade_links(
    file_index: FileIndex, root: Path, top: Path, split: str, reader: GradeReader
) -> list[LabelList]:
    """Return a list with one invalid row for each broken link that has the name of a grade folder."""
    paths = [top / name for name in file_index.broken(top) if reader(name) is not None]
    names = [path.relative_to(root).as_posix() for path in paths]
    return [
        LabelList(
            name,
            [LabelRow(f"{name}/", name, name, path.name, split, path=path, problem="this is no folder: a broken link")],
        )
        for name, path in zip(names, paths, strict=True)
    ]


def _split_below(folder: Path, grade_folder: Path) -> str:
    """Return the split that the first folder below a grade folder names: 0/train/, 0/test/."""
    inner = folder.relative_to(grade_folder).parts
    return split_words.split_of_folder(inner[0]) if inner else ""
