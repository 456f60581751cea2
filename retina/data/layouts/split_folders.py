"""The splits of photographs of which their lists say nothing, by the folders that they lie in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from retina.config.splits import SPLITS
from retina.data.layouts import split_words
from retina.data.layouts.photograph_index import PhotographIndex
from retina.data.layouts.validation import Labels, Row


def split_by_folders(lists: list[Labels], index: PhotographIndex) -> None:
    """Give the rows of label files that leave their split open that of their photograph's folder.

    Only where folders part something: neither photographs that all lie in train/, or all in test/, nor some in train/
    and others in a folder of no split say how to split them. What the folders of label files say counts alike.

    Args:
        lists: located; rows without a name are of other layouts and stay.
        index: knows the folders' splits.
    """
    rows = [row for labels in lists for row in labels.rows if row.name]
    for row in rows:
        if not row.split and row.path and (split := index.split_of(row.path)):
            row.split, row.split_from = split, "folder"
    said = {split_words.of_word(row.split) for row in rows}
    are_of_one = len(said) == 1 and all(row.split_from == "folder" for row in rows)
    if are_of_one or not said & {"val", "test"}:
        for row in rows:
            if row.split_from == "folder":
                row.split, row.split_from = "", "row"


def note_of_folders(rows: Iterable[Row]) -> list[str]:
    """What a person should know of rows whose split a folder says; empty where there are none."""
    counts = Counter(split_words.of_word(row.split) for row in rows if row.split_from == "folder" and row.split)
    listed = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS if counts[split])
    note = f"the splits are those of folders: {listed} photographs; data.split=by_patient makes new ones"
    return [note] if counts else []
