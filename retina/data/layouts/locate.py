"""Where the photographs of label files are: each name's one photograph, or why there is none."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from retina.data.formats import own_name
from retina.data.layouts import split_words
from retina.data.layouts.file_index import leaves_folder
from retina.data.layouts.photograph_index import IndexedPhotograph, PhotographIndex
from retina.data.layouts.validation import LabelList, Row

_NAMED = 3
_RUNNING_NUMBER = re.compile(r"[a-z _-]*[0-9]{1,6}", re.IGNORECASE)
"""1, img_001, IDRiD_001; not the number and eye of EyePACS, an identifier of letters and digits, or a time."""


def locate_photographs(lists: list[LabelList], index: PhotographIndex) -> None:
    """Fill in the paths of those photographs that are there.

    A name that several photographs have is left without a path, and its row says which they are, unless one folder
    decides: one that has more of the list's photographs, and all that the other one has.
    """
    for labels in lists:
        _fill_in(labels, index)
    if len(lists) > 1:
        _take_back(lists, index)


def describe_photograph_folders(index: PhotographIndex) -> str:
    """The folders that do have photographs, the fullest first, for messages."""
    if not index.counts:
        return "there are no photographs in this folder"
    named = [f"{'this folder' if folder == '.' else folder + '/'} ({n:,})" for folder, n in index.counts.items()]
    more = f" and {len(named) - _NAMED:,} more folders" if len(named) > _NAMED else ""
    return f"photographs are in {', '.join(named[:_NAMED])}{more}"


def _fill_in(labels: LabelList, index: PhotographIndex) -> None:
    found = {at: some for at, row in enumerate(labels.rows) if (some := _find(row, index))}
    sets: dict[Path, set[int]] = defaultdict(set)
    if any(len(some) > 1 for some in found.values()):
        for at, some in found.items():
            for one in some:
                sets[one.folder].add(at)
    for at, some in found.items():
        _settle(labels.rows[at], some, sets, index.root)


def _find(row: Row, index: PhotographIndex) -> list[IndexedPhotograph]:
    if row.path is not None or not row.name or leaves_folder(row.name):
        return []
    split = split_words.parse_split(row.split) or ""
    found = index.find(row.name, row.scope or index.root, split)
    if not found and (mask := index.mask(row.name, row.scope or index.root)):
        why = "has its name and lies in a folder of masks; data.image_folder chooses a folder"
        row.elsewhere = f"{_inside(mask, index.root)} {why}"
    if row.own == own_name(row.name) and not _counts_anew(row):
        return found
    own = [one for one in found if one.split in {"", split}]  # the same name is another photograph's in another split
    if row.own != own_name(row.name) or own:
        return own
    if not _are_another_split_s(found, split, index):
        return found
    row.elsewhere = f"{_inside(found[0], index.root)} has its name and lies in the folder of another split"
    return []


def _counts_anew(row: Row) -> bool:
    """Whether a row of a list of one split has no more than a running number, which each split may count from 1."""
    return row.split_from != "row" and bool(row.split) and bool(_RUNNING_NUMBER.fullmatch(own_name(row.name)))


def _are_another_split_s(found: list[IndexedPhotograph], split: str, index: PhotographIndex) -> bool:
    """Whether photographs that all lie in folders of other splits cannot be those of a list of `split`.

    They are its own where splits have no folders: train.csv and val.csv may part the photographs of train/. The test
    photographs are never those of a train list.
    """
    if not found or index.chosen_split:
        return False
    return split in index.splits or (split == "train" and all(one.split == "test" for one in found))


def _settle(row: Row, found: list[IndexedPhotograph], sets: dict[Path, set[int]], root: Path) -> None:
    if len(found) > 1 and (fullest := _fullest(found, sets)):
        found = [fullest]
    if len(found) == 1:
        row.path = found[0].path
        return
    listed = [_inside(one, root) for one in found]
    more = f" and {len(listed) - 2} more" if len(listed) > 2 else ""
    problem = f"{len(listed)} photographs have this name: {listed[0]} and {listed[1]}{more}"
    remedy = "write its folder before its name in the list, or choose one folder with data.image_folder"
    if len({one.folder for one in found}) == 1:
        remedy = "write its suffix in the list, or move one of them away"
    row.problem = row.problem or f"{problem}; {remedy}"
    row.rivals = tuple(one.path for one in found)


def _inside(one: IndexedPhotograph, root: Path) -> str:
    return (one.folder / one.name).relative_to(root).as_posix()


def _fullest(found: list[IndexedPhotograph], sets: dict[Path, set[int]]) -> IndexedPhotograph | None:
    """The photograph in the folder that has all of this list that any other folder here has, and more.

    Not where the folders are of different splits: there two photographs may well have one name.
    """
    if len({one.split for one in found}) > 1 or len({one.folder for one in found}) < len(found):
        return None
    first = max(found, key=lambda one: len(sets[one.folder]))
    others = [one for one in found if one is not first]
    return first if all(sets[one.folder] < sets[first.folder] for one in others) else None


def _take_back(lists: list[LabelList], index: PhotographIndex) -> None:
    """Take from a list whose own photographs are absent those of another list, which it was given.

    IDRiD counts from IDRiD_001 in both of its sets: where the testing set is absent, its list finds the training set.
    """
    rightful = {row.path: row for labels in lists for row in labels.rows if row.path and _is_at_home(row, index)}
    for labels in lists:
        strange = [
            (row, rightful[row.path])
            for row in labels.rows
            if row.path and row.path in rightful and not _is_at_home(row, index)
        ]
        located = sum(row.path is not None for row in labels.rows)
        for row, other in strange:
            if row.own != other.own or (labels.optional and len(strange) == located):
                row.path = None


def _is_at_home(row: Row, index: PhotographIndex) -> bool:
    """Whether a photograph's folder is of its row's split, or of none."""
    split = index.split_of(row.path) if row.path else ""
    return not split or split == split_words.parse_split(row.split)
