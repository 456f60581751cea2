"""The one table that every layout is turned into, and the one way in which bad rows are reported."""

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
    "patient": "str",  # photographs of one patient share it; the image's own name where nothing is known
    "eye": "str",  # "left", "right" or ""
    "split": "str",  # "train", "val", "test", or "" where the layout leaves it open
    "where": "str",  # "trainLabels.csv:17", for error messages
}


@dataclass(frozen=True)
class BadRow:
    """One photograph or label that cannot be used: where it stands, its name, and what is wrong with which value.

    `ungradable`: the label says that nobody could grade the photograph.
    """

    where: str
    image: str
    problem: str
    ungradable: bool = False

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.image}: {self.problem}")


@dataclass(frozen=True)
class Unused:
    """The files in the data folder that nothing was read from.

    Attributes:
        photographs: paths of photographs from the data folder, with / between folders, sorted.
        others: likewise of files that are no photographs.
        folders: how many of the photographs lie in which folder, of the uppermost folders of which none was used.
    """

    photographs: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)

    def in_words(self) -> list[str]:
        """One line a folder, and one for the files that are no photographs; empty where everything was used."""
        named = [
            f"{n:,} {'photograph' if n == 1 else 'photographs'} in {folder} {'is' if n == 1 else 'are'} not used"
            for folder, n in self.folders.items()
        ]
        if len(named) > MOST_FOLDERS:
            rest = list(self.folders.values())[MOST_FOLDERS:]
            named[MOST_FOLDERS:] = [f"{sum(rest):,} photographs in {len(rest):,} other folders are not used"]
        if self.others:
            kinds = Counter(suffix_of(name) or "without a suffix" for name in self.others)
            told = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common(MOST_FOLDERS))
            if len(self.others) <= FEW_FILES:
                told = ", ".join(self.others)
            named.append(f"{len(self.others):,} other {'file' if len(self.others) == 1 else 'files'} not used: {told}")
        return named

    def rows(self) -> list[dict[str, str]]:
        """The files as rows of a table with the columns of `UNUSED_COLUMNS`."""
        return [
            {"file": name, "kind": kind}
            for kind, names in (("photograph", self.photographs), ("other", self.others))
            for name in names
        ]


UNUSED_COLUMNS = ["file", "kind"]
FEW_FILES = 3
"""Files that are no photographs and are named one by one."""
MOST_FOLDERS = 10
"""Lines about folders with unused photographs."""


@dataclass(frozen=True)
class Manifest:
    """Photographs with their grades.

    Attributes:
        frame: one row a photograph in the order of the label files, with the columns and dtypes of `COLUMNS`.
        layout: which of the known layouts it was read from.
        root: the folder or file that was read.
        skipped: what was left out under `on_bad: skip`.
        unused: the files in the data folder that are not in `frame`, nor its label files.
        choices: which columns were read, where the names of the public sets alone did not decide.
        notes: what else a person should know of the layout.
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
        """What a person should know of what was read, and of what was not."""
        return [*self.notes, *self.unused.in_words()]

    @property
    def left_out(self) -> list[str]:
        """One line that says how many photographs or labels could not be used, and which is the first; or none."""
        return [
            f"{len(self.skipped)} photographs or labels were left out, the first: {bad}" for bad in self.skipped[:1]
        ]


def refuse(bad: list[BadRow], root: Path, on_bad: str) -> None:
    """Stop at bad photographs unless they are to be skipped.

    Raises:
        DataError: when there is any and `on_bad` is "stop"; lists the first ten and the total.
    """
    if not bad or on_bad == "skip":
        return
    listed = "\n".join(f"  {one}" for one in bad[:10])
    more = f"\n  ... and {len(bad) - 10} more" if len(bad) > 10 else ""
    ungradable = sum(one.ungradable for one in bad)
    known = f"; {ungradable:,} of them {'is' if ungradable == 1 else 'are'} ungradable" if ungradable else ""
    raise DataError(
        f"{root}: {len(bad)} of the photographs or labels cannot be used "
        f"(set data.on_bad=skip to go on without them{known}):\n{listed}{more}"
    )
