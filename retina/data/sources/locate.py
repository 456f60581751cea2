"""Where the photographs of label files are: each name's one photograph, or why there is none."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from retina.data.sources import splits
from retina.data.sources.index import Found, PhotographIndex
from retina.data.sources.rows import Labels, Row
from retina.data.sources.tree import leaves_folder

_NAMED = 3


def locate(lists: list[Labels], index: PhotographIndex) -> list[Labels]:
    """The same rows with the paths of those photographs that are there.

    A name that several photographs have is left without a path, and its row says which they are, unless one folder
    decides: one that has more of the list's photographs, and all that the other one has.
    """
    return _without_others([_by_folder(one, index) for one in lists], index)


def where_photographs_are(index: PhotographIndex) -> str:
    """The folders that do have photographs, the fullest first, for messages."""
    if not index.counts:
        return "there are no photographs in this folder"
    named = [f"{'this folder' if folder == '.' else folder + '/'} ({n:,})" for folder, n in index.counts.items()]
    more = f" and {len(named) - _NAMED:,} more folders" if len(named) > _NAMED else ""
    return f"photographs are in {', '.join(named[:_NAMED])}{more}"


def _by_folder(labels: Labels, index: PhotographIndex) -> Labels:
    found = [_find(row, index) for row in labels.rows]
    sets: dict[Path, set[int]] = defaultdict(set)
    for at, some in enumerate(found):
        for one in some:
            sets[one.folder].add(at)
    return replace(
        labels, rows=[_settled(row, some, sets, index.root) for row, some in zip(labels.rows, found, strict=True)]
    )


def _find(row: Row, index: PhotographIndex) -> list[Found]:
    if row.path is not None or not row.name or leaves_folder(row.name):
        return []
    return index.find(row.name, row.scope or index.root, splits.of_word(row.split) or "")


def _settled(row: Row, found: list[Found], sets: dict[Path, set[int]], root: Path) -> Row:
    if not found:
        return row
    if len(found) > 1 and (fullest := _fullest(found, sets)):
        found = [fullest]
    if len(found) == 1:
        return replace(row, path=found[0].path)
    listed = [one.path.relative_to(root).as_posix() for one in found]
    more = f" and {len(listed) - 2} more" if len(listed) > 2 else ""
    problem = f"{len(listed)} photographs have this name: {listed[0]} and {listed[1]}{more}"
    return replace(
        row,
        problem=row.problem or f"{problem}; data.image_folder says which folder is meant",
        rivals=tuple(one.path for one in found),
    )


def _fullest(found: list[Found], sets: dict[Path, set[int]]) -> Found | None:
    """The photograph in the folder that has all of this list that any other folder here has, and more.

    Not where the folders are of different splits: there two photographs may well have one name.
    """
    if len({one.split for one in found}) > 1 or len({one.folder for one in found}) < len(found):
        return None
    first = max(found, key=lambda one: len(sets[one.folder]))
    others = [one for one in found if one is not first]
    return first if all(sets[one.folder] < sets[first.folder] for one in others) else None


def _without_others(lists: list[Labels], index: PhotographIndex) -> list[Labels]:
    """The lists without the photographs of another list, which a list whose own ones are absent would be given.

    IDRiD counts from IDRiD_001 in both of its sets: where the testing set is absent, its list finds the training set.
    """
    rightful: dict[Path, Row] = {}
    for labels in lists:
        for row in labels.rows:
            if row.path is not None and _is_at_home(row, row.path, index):
                rightful[row.path] = row
    return [_without(labels, rightful, index) for labels in lists]


def _without(labels: Labels, rightful: dict[Path, Row], index: PhotographIndex) -> Labels:
    strange = {
        at: rightful[row.path]
        for at, row in enumerate(labels.rows)
        if row.path in rightful and not _is_at_home(row, row.path, index)
    }
    located = sum(row.path is not None for row in labels.rows)
    lost = {
        at for at, other in strange.items()
        if labels.rows[at].own != other.own or (labels.optional and len(strange) == located)
    }  # fmt: skip
    if not lost:
        return labels
    return replace(labels, rows=[replace(row, path=None) if at in lost else row for at, row in enumerate(labels.rows)])


def _is_at_home(row: Row, path: Path, index: PhotographIndex) -> bool:
    """Whether a photograph's folder is of its row's split, or of none."""
    split = index.split_of(path.parent)
    return not split or split == splits.of_word(row.split)
