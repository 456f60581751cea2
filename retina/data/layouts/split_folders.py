"""The splits of photographs whose label lists name no split, by the folders that the photographs lie in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from retina.config.splits import SPLITS
from retina.data.layouts import split_words
from retina.data.layouts.photograph_index import PhotographIndex
from retina.data.layouts.validation import LabelList, LabelRow


def assign_folder_splits(label_lists: list[LabelList], photograph_index: PhotographIndex) -> None:
    """Give the rows of label files that have no split the split of their photograph's folder.

    This applies only if the folders separate the photographs: photographs that all lie in train/ or all in test/, or
    some in train/ and others in a folder of no split, do not say how to split them. Splits that come from the folders
    of label files count in the same manner.

    Args:
        label_lists: located lists, changed in place; rows without a name belong to other layouts and stay as they are.
        photograph_index: knows the splits of the folders.
    """
    rows = [row for label_list in label_lists for row in label_list.rows if row.name]
    for row in rows:
        if not row.split and row.path and (split := photograph_index.split_of(row.path)):
            row.split, row.split_source = split, "folder"
    splits = {split_words.parse_split(row.split) for row in rows}
    is_single_split = len(splits) == 1 and all(row.split_source == "folder" for row in rows)
    if is_single_split or not splits & {"val", "test"}:
        for row in rows:
            if row.split_source == "folder":
                row.split, row.split_source = "", "row"


def describe_folder_splits(rows: Iterable[LabelRow]) -> list[str]:
    """Return a line that counts the rows whose split comes from a folder; empty if there are none."""
    counts = Counter(split_words.parse_split(row.split) for row in rows if row.split_source == "folder" and row.split)
    listed = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS if counts[split])
    note = f"the splits are those of folders: {listed} photographs; data.split=by_patient makes new ones"
    return [note] if counts else []
