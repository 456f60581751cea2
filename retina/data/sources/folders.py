"""The layout of one folder a grade, by number or by name, with or without the splits above."""

from __future__ import annotations

import re
from pathlib import Path

from retina.data.sources.lists import Place
from retina.data.sources.rows import SPLITS, Labels, Row
from retina.data.sources.tree import Tree, own_name

_NAMES = {
    "nodr": 0, "none": 0, "normal": 0, "healthy": 0, "no": 0, "noretinopathy": 0, "nodiabeticretinopathy": 0,
    "noapparentretinopathy": 0,
    "mild": 1, "moderate": 2, "severe": 3,
    "proliferative": 4, "proliferate": 4, "proliferatedr": 4, "pdr": 4,
}  # fmt: skip
_ORDER = ("train", "val", "test")


def is_folders(tree: Tree, place: Place) -> bool:
    """Whether at least two grades have a folder here, or in one of the splits' folders here."""
    return place.file is None and bool(_tops(tree, place.root))


def folders(tree: Tree, place: Place) -> list[Labels]:
    """Every photograph in or below a grade's folder. One in any other beside them is kept, to be refused by name."""
    return [
        Labels(f"{folder.relative_to(place.root).as_posix()}/", rows)
        for split, top in _tops(tree, place.root)
        for folder in tree.folders(top)
        if (rows := _rows(tree, place.root, folder, split))
    ]


def grade_of(folder: str) -> int | None:
    """The grade that a folder's name stands for: "2", "Moderate", "grade_2", "2 - moderate NPDR"."""
    word = re.sub(r"[\W_]+", "", folder.lower(), flags=re.ASCII)
    number, rest = re.fullmatch(r"(?:grade|level|class|dr)?(\d*)(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    named = _NAMES.get(rest, _NAMES.get(re.sub(r"n?p?dr$", "", rest)))
    if not number:
        return named
    return int(number) if number in "01234" and (not rest or named == int(number)) else None


def _tops(tree: Tree, root: Path) -> list[tuple[str, Path]]:
    """The folders that hold grades' folders, each with its split."""
    if _has_grades(tree, root):
        return [("", root)]
    named = [(SPLITS.get(folder.name.lower(), ""), folder) for folder in tree.folders(root)]
    tops = [(split, folder) for split, folder in named if split and _has_grades(tree, folder)]
    return sorted(tops, key=lambda top: _ORDER.index(top[0]))


def _has_grades(tree: Tree, folder: Path) -> bool:
    return len({grade for one in tree.folders(folder) if (grade := grade_of(one.name)) is not None}) > 1


def _rows(tree: Tree, root: Path, folder: Path, split: str) -> list[Row]:
    grade = grade_of(folder.name)
    inner = [folder] if grade is None else tree.walk(folder)
    photographs = [(one.relative_to(root).as_posix(), file) for one in inner for file in tree.photographs(one)]
    return [
        Row(
            where=f"{place}/",
            image=f"{place}/{file.name}",
            own=f"{place}/{own_name(file.name)}",
            grade=folder.name if grade is None else str(grade),
            split=split,
            path=file,
        )
        for place, file in photographs
    ]
