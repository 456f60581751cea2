"""The manifest: the table that every layout is converted to, and the report of its bad rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from retina.data.formats import suffix_of
from retina.errors import DataError
from retina.system.printable import printable

COLUMNS = {
    "image": "str",  # the name as the label file gives it; unique together with `split`
    "path": "str",  # absolute path of the photograph, or of the npz file that holds it
    "array": "str",  # name of the array inside the npz file, else ""
    "index": "int64",  # row of that array, else -1
    "grade": "int64",  # 0 to 4
    "patient": "str",  # the same for all photographs of a patient; the image's name where the patient is unknown
    "eye": "str",  # "left", "right" or ""
    "split": "str",  # "train", "val", "test", or "" where the layout has no split
    "where": "str",  # "trainLabels.csv:17", for error messages
}


@dataclass(frozen=True)
class BadRow:
    """One photograph or label that cannot be used.

    Attributes:
        where: file and line of the label.
        image: name of the photograph.
        problem: the value and what is wrong with it.
        ungradable: whether the label says that the photograph cannot be graded.
    """

    where: str
    image: str
    problem: str
    ungradable: bool = False

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.image}: {self.problem}")


@dataclass(frozen=True)
class Unused:
    """The files in the data folder that were not read.

    Attributes:
        photographs: paths of photographs relative to the data folder, with / between folders, sorted.
        others: the same for files that are not photographs.
        folders: number of unused photographs by folder, for the topmost folders of which no photograph was used.
    """

    photographs: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)

    def in_words(self) -> list[str]:
        """Return a line for each folder and one for the other files; an empty list if everything was used."""
        lines = [
            f"{n:,} {'photograph' if n == 1 else 'photographs'} in {folder} {'is' if n == 1 else 'are'} not used"
            for folder, n in self.folders.items()
        ]
        if len(lines) > MAX_FOLDER_LINES:
            rest = list(self.folders.values())[MAX_FOLDER_LINES:]
            lines[MAX_FOLDER_LINES:] = [f"{sum(rest):,} photographs in {len(rest):,} other folders are not used"]
        if self.others:
            kinds = Counter(suffix_of(name) or "without a suffix" for name in self.others)
            files = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common(MAX_FOLDER_LINES))
            if len(self.others) <= MAX_LISTED_FILES:
                files = ", ".join(self.others)
            lines.append(f"{len(self.others):,} other {'file' if len(self.others) == 1 else 'files'} not used: {files}")
        return lines

    def rows(self) -> list[dict[str, str]]:
        """Return the files as rows of a table with the columns of `UNUSED_COLUMNS`."""
        return [
            {"file": name, "kind": kind}
            for kind, names in (("photograph", self.photographs), ("other", self.others))
            for name in names
        ]


UNUSED_COLUMNS = ["file", "kind"]
MAX_LISTED_FILES = 3
"""Up to this many files that are not photographs are listed by name; more are counted by suffix."""
MAX_FOLDER_LINES = 10
"""Largest number of folders with unused photographs that get a line each."""


@dataclass(frozen=True)
class Manifest:
    """Photographs with their grades.

    Attributes:
        frame: a row for each photograph in the order of the label files, with the columns and dtypes of `COLUMNS`.
        layout: name of the layout that it was read from.
        root: the folder or file that was read.
        skipped: photographs and labels left out under `on_bad: skip`.
        unused: the files in the data folder that are neither in `frame` nor label files.
        choices: sentences on the columns that were read, where they do not have the names of a public data set.
        notes: further notes on the layout for the user.
    """

    frame: pd.DataFrame
    layout: str
    root: Path
    skipped: list[BadRow] = field(default_factory=list)
    unused: Unused = field(default_factory=Unused)
    choices: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """Notes for the user on the layout and on the files that were not used."""
        return [*self.notes, *self.unused.in_words()]

    @property
    def left_out(self) -> list[str]:
        """A line with the number of skipped photographs and labels and the first of them; empty if there is none."""
        return [
            f"{len(self.skipped)} photographs or labels were left out, the first: {bad_row}"
            for bad_row in self.skipped[:1]
        ]


def raise_if_bad(bad_rows: list[BadRow], root: Path, on_bad: str) -> None:
    """Raise if there are bad rows and they are not to be skipped.

    Raises:
        DataError: there is a bad row and `on_bad` is "stop"; lists the first ten and the total.
    """
    if not bad_rows or on_bad == "skip":
        return
    listed = "\n".join(f"  {bad_row}" for bad_row in bad_rows[:10])
    more = f"\n  ... and {len(bad_rows) - 10} more" if len(bad_rows) > 10 else ""
    ungradable = sum(bad_row.ungradable for bad_row in bad_rows)
    of_them = f"; {ungradable:,} of them {'is' if ungradable == 1 else 'are'} ungradable" if ungradable else ""
    raise DataError(
        f"{root}: {len(bad_rows)} of the photographs or labels cannot be used "
        f"(set data.on_bad=skip to go on without them{of_them}):\n{listed}{more}"
    )
