"""Find the photograph that each name in a label file means, or why there is none."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from retina.data.formats import strip_image_suffix
from retina.data.layouts import split_words
from retina.data.layouts.file_index import leaves_folder
from retina.data.layouts.photograph_index import IndexedPhotograph, PhotographIndex
from retina.data.layouts.validation import LabelList, LabelRow

_MAX_LISTED_FOLDERS = 3
_RUNNING_NUMBER = re.compile(r"[a-z _-]*[0-9]{1,6}", re.IGNORECASE)
"""1, img_001, IDRiD_001; not the number and eye of EyePACS, an identifier of letters and digits, or a time."""


def locate_photographs(label_lists: list[LabelList], photograph_index: PhotographIndex) -> None:
    """Fill in the paths of the photographs that exist.

    If several photographs have a row's name, the row gets no path and names them, unless one folder decides: a folder
    that has more of the list's photographs than the others, and all that they have.
    """
    for label_list in label_lists:
        _fill_in_paths(label_list, photograph_index)
    if len(label_lists) > 1:
        _remove_foreign_paths(label_lists, photograph_index)


def describe_photograph_folders(photograph_index: PhotographIndex) -> str:
    """Return which folders have photographs, those with the most first, for messages."""
    counts = photograph_index.folder_counts
    if not counts:
        return "there are no photographs in this folder"
    listed = [f"{'this folder' if folder == '.' else folder + '/'} ({n:,})" for folder, n in counts.items()]
    more = f" and {len(listed) - _MAX_LISTED_FOLDERS:,} more folders" if len(listed) > _MAX_LISTED_FOLDERS else ""
    return f"photographs are in {', '.join(listed[:_MAX_LISTED_FOLDERS])}{more}"


def _fill_in_paths(label_list: LabelList, photograph_index: PhotographIndex) -> None:
    candidates = {
        i: photographs for i, row in enumerate(label_list.rows) if (photographs := _find(row, photograph_index))
    }
    rows_in_folder: dict[Path, set[int]] = defaultdict(set)
    if any(len(photographs) > 1 for photographs in candidates.values()):
        for i, photographs in candidates.items():
            for photograph in photographs:
                rows_in_folder[photograph.folder].add(i)
    for i, photographs in candidates.items():
        _set_path(label_list.rows[i], photographs, rows_in_folder, photograph_index.root)


def _find(row: LabelRow, photograph_index: PhotographIndex) -> list[IndexedPhotograph]:
    """Return the photographs that a row's name may mean; sets `row.missing_reason` where one is rejected."""
    if row.path is not None or not row.name or leaves_folder(row.name):
        return []
    root, label_folder = photograph_index.root, row.label_folder or photograph_index.root
    split = split_words.parse_split(row.split) or ""
    photographs = photograph_index.find(row.name, label_folder, split)
    if not photographs and (mask := photograph_index.find_mask(row.name, label_folder)):
        reason = "has its name and lies in a folder of masks; data.image_folder chooses a folder"
        row.missing_reason = f"{_relative(mask, root)} {reason}"
    if row.key == strip_image_suffix(row.name) and not _has_running_number(row):
        return photographs
    # each split may count from 1: the same name in another split's folder is another photograph
    in_split = [photograph for photograph in photographs if photograph.split in {"", split}]
    if row.key != strip_image_suffix(row.name) or in_split:
        return in_split
    if not _belong_to_another_split(photographs, split, photograph_index):
        return photographs
    row.missing_reason = f"{_relative(photographs[0], root)} has its name and lies in the folder of another split"
    return []


def _has_running_number(row: LabelRow) -> bool:
    """Return whether a row of a list of one split has only a running number, which each split may count from 1."""
    return (
        row.split_source != "row" and bool(row.split) and bool(_RUNNING_NUMBER.fullmatch(strip_image_suffix(row.name)))
    )


def _belong_to_another_split(
    photographs: list[IndexedPhotograph], split: str, photograph_index: PhotographIndex
) -> bool:
    """Return whether photographs that all lie in folders of other splits cannot be those of a list of `split`.

    They can if the splits have no folders: train.csv and val.csv may divide the photographs of train/. The test
    photographs are never those of a train list.
    """
    if not photographs or photograph_index.chosen_split:
        return False
    return split in photograph_index.folder_splits or (
        split == "train" and all(photograph.split == "test" for photograph in photographs)
    )


def _set_path(
    row: LabelRow, photographs: list[IndexedPhotograph], rows_in_folder: dict[Path, set[int]], root: Path
) -> None:
    if len(photographs) > 1 and (preferred := _in_most_complete_folder(photographs, rows_in_folder)):
        photographs = [preferred]
    if len(photographs) == 1:
        row.path = photographs[0].path
        return
    listed = [_relative(photograph, root) for photograph in photographs]
    more = f" and {len(listed) - 2} more" if len(listed) > 2 else ""
    problem = f"{len(listed)} photographs have this name: {listed[0]} and {listed[1]}{more}"
    remedy = "write its folder before its name in the list, or choose one folder with data.image_folder"
    if len({photograph.folder for photograph in photographs}) == 1:
        remedy = "write its suffix in the list, or move one of them away"
    row.problem = row.problem or f"{problem}; {remedy}"
    row.same_named = tuple(photograph.path for photograph in photographs)


def _relative(photograph: IndexedPhotograph, root: Path) -> str:
    return (photograph.folder / photograph.name).relative_to(root).as_posix()


def _in_most_complete_folder(
    photographs: list[IndexedPhotograph], rows_in_folder: dict[Path, set[int]]
) -> IndexedPhotograph | None:
    """Return the photograph whose folder has all of the list's rows that each other folder has, and more.

    None if no folder does, or if the folders are of different splits: there, two photographs may have one name.
    """
    n_splits = len({photograph.split for photograph in photographs})
    n_folders = len({photograph.folder for photograph in photographs})
    if n_splits > 1 or n_folders < len(photographs):
        return None
    best = max(photographs, key=lambda photograph: len(rows_in_folder[photograph.folder]))
    others = [photograph for photograph in photographs if photograph is not best]
    is_superset = all(rows_in_folder[photograph.folder] < rows_in_folder[best.folder] for photograph in others)
    return best if is_superset else None


def _remove_foreign_paths(label_lists: list[LabelList], photograph_index: PhotographIndex) -> None:
    """Remove the paths of rows whose own photographs are absent and that were given those of another list.

    IDRiD counts from IDRiD_001 in both of its sets: without the testing set, its list matches the training set.
    """
    rightful = {
        row.path: row
        for label_list in label_lists
        for row in label_list.rows
        if row.path and _is_in_own_split(row, photograph_index)
    }
    for label_list in label_lists:
        foreign = [
            (row, rightful[row.path])
            for row in label_list.rows
            if row.path and row.path in rightful and not _is_in_own_split(row, photograph_index)
        ]
        n_located = sum(row.path is not None for row in label_list.rows)
        for row, other in foreign:
            if row.key != other.key or (label_list.is_optional and len(foreign) == n_located):
                row.path = None


def _is_in_own_split(row: LabelRow, photograph_index: PhotographIndex) -> bool:
    """Return whether a photograph's folder is of its row's split, or of none."""
    split = photograph_index.split_of(row.path) if row.path else ""
    return not split or split == split_words.parse_split(row.split)
