"""The layout of one folder a grade, by number or by name, with or without the splits above or below."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from retina.config.splits import SPLITS
from retina.data.formats import is_image, own_name
from retina.data.layouts import split_words
from retina.data.layouts.file_index import Tree
from retina.data.layouts.grades import GradeReader
from retina.data.layouts.validation import Labels, Row
from retina.errors import DataError


@dataclass(frozen=True)
class ClassFolders:
    """One set of class folders.

    Attributes:
        base: the folder that holds the grades' folders, or the splits' folders that do.
        tops: the folders that hold grades' folders, each with its split: ("", base), or train, val and test in it.
    """

    base: Path
    tops: tuple[tuple[str, Path], ...]

    def in_words(self, tree: Tree, root: Path, reader: GradeReader) -> str:
        """Such as "train/0/ ... train/4/"."""
        folder = self.tops[0][1]
        graded = [one.relative_to(root).as_posix() for one in tree.folders(folder) if _is_graded(one, reader)]
        return f"{graded[0]}/ ... {graded[-1]}/" if len(graded) > 1 else f"{graded[0]}/"


def find(tree: Tree, top: Path, reader: GradeReader) -> list[ClassFolders]:
    """All sets of class folders in a folder, however deep. Each has photographs of two grades at least."""
    with_grades = [folder for folder in _outside_grades(tree, top, reader) if _graded(tree, folder, reader)]
    by_base: dict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for folder in with_grades:
        split = split_words.of_folder(folder.name) if folder != top else ""
        by_base[folder.parent if split else folder].append((split, folder))
    found = []
    for base, tops in by_base.items():
        ordered = sorted(tops, key=lambda one: (SPLITS.index(one[0]) if one[0] else -1, one[1]))
        named = [split for split, _ in ordered if split]
        if "" in {split for split, _ in ordered} and named:  # grades in a folder and in its train/: two sets
            found += [ClassFolders(base, (one,)) for one in ordered]
        elif len({grade for _, one in tops for grade in _graded(tree, one, reader)}) > 1:
            found.append(ClassFolders(base, tuple(ordered)))
    split_bases = {one.base for one in found if one.tops[0][0]}
    return [one for one in found if one.tops[0][0] or not split_bases.intersection(one.base.parents)]


def only_one(found: list[ClassFolders], tree: Tree, root: Path, reader: GradeReader) -> ClassFolders | None:
    """The one set of class folders there is.

    Raises:
        DataError: there are several, or one of them has a split twice; names both.
    """
    if not found:
        return None
    if len(found) > 1:
        first, second = (one.in_words(tree, root, reader) for one in found[:2])
        inner = next((one.tops[0][1] for one in reversed(found) if one.tops[0][1] != root), root)
        inner = inner.parent if len(found[-1].tops) > 1 else inner
        raise DataError(
            f"{root}: photographs can be read in two ways, by the class folders {first} and by {second}\n"
            f"Give the folder that is meant ({inner}, say), or move the other one out of it."
        )
    one = found[0]
    seen: dict[str, Path] = {}
    for split, folder in one.tops:
        if split in seen:
            raise DataError(
                f"{root}: {seen[split].name}/ and {folder.name}/ are both the {split} split; "
                "join them, or move one of them away"
            )
        seen[split] = folder
    return one


def read(one: ClassFolders, tree: Tree, root: Path, reader: GradeReader) -> list[Labels]:
    """Every photograph in or below a grade's folder. One in any other beside them is kept, to be refused by name."""
    found = [
        Labels(f"{folder.relative_to(root).as_posix()}/", rows)
        for split, top in one.tops
        for folder in tree.folders(top)
        if (rows := _rows(tree, root, folder, split, reader))
    ]
    return found + [dead for split, top in one.tops for dead in _dead(tree, root, top, split, reader)]


def _outside_grades(tree: Tree, top: Path, reader: GradeReader) -> list[Path]:
    """`top` and the folders below it, but for those in the folder of a grade."""
    inside: set[Path] = set()
    outside = []
    for folder in tree.walk(top):
        if folder.parent in inside or (folder != top and _is_graded(folder, reader)):
            inside.add(folder)
        else:
            outside.append(folder)
    return outside


def _graded(tree: Tree, folder: Path, reader: GradeReader) -> set[int]:
    """The grades that have a folder with photographs in `folder`."""
    return {
        grade
        for one in tree.folders(folder)
        if (grade := reader(one.name)) is not None and any(_named(tree, inner) for inner in tree.walk(one))
    }


def _is_graded(folder: Path, reader: GradeReader) -> bool:
    return reader(folder.name) is not None


def _rows(tree: Tree, root: Path, folder: Path, split: str, reader: GradeReader) -> list[Row]:
    grade = reader(folder.name)
    inner = [folder] if grade is None else tree.walk(folder)
    return [
        Row(
            where=f"{place}/",
            image=f"{place}/{name}",
            own=f"{place}/{own_name(name)}",
            grade=folder.name,
            split=split or _split_below(one, folder),
            path=f"{one}/{name}",
            problem=problem,
        )
        for one in inner
        for place in [one.relative_to(root).as_posix()]
        for name, problem in _named(tree, one)
    ]


def _named(tree: Tree, folder: Path) -> list[tuple[str, str]]:
    """What is named as a photograph in a folder, and what is wrong with it."""
    broken = [(name, "this is no file: a link to nothing, say") for name in tree.broken(folder) if is_image(name)]
    return sorted([*((name, "") for name in tree.photographs(folder)), *broken])


def _dead(tree: Tree, root: Path, top: Path, split: str, reader: GradeReader) -> list[Labels]:
    """A row to be refused for each grade's folder that is a link to nothing."""
    paths = [top / name for name in tree.broken(top) if reader(name) is not None]
    names = [path.relative_to(root).as_posix() for path in paths]
    return [
        Labels(
            name, [Row(f"{name}/", name, name, path.name, split, path=path, problem="this is no folder: a dead link")]
        )
        for name, path in zip(names, paths, strict=True)
    ]


def _split_below(folder: Path, top: Path) -> str:
    """The split of the first folder below a grade's: 0/train/, 0/test/."""
    inner = folder.relative_to(top).parts
    return split_words.of_folder(inner[0]) if inner else ""
