"""The one table that every layout is turned into, and the one way in which bad rows are reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from retina.errors import DataError
from retina.printable import printable

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
class Bad:
    """One photograph or label that cannot be used: where it stands, its name, and what is wrong with which value."""

    where: str
    image: str
    problem: str

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.image}: {self.problem}")


@dataclass(frozen=True)
class Manifest:
    """Photographs with their grades.

    Attributes:
        frame: one row a photograph in the order of the label files, with the columns and dtypes of `COLUMNS`.
        layout: which of the known layouts it was read from.
        root: the folder or file that was read.
        skipped: what was left out under `on_bad: skip`.
    """

    frame: pd.DataFrame
    layout: str
    root: Path
    skipped: list[Bad] = field(default_factory=list)


def refuse(bad: list[Bad], root: Path, on_bad: str) -> None:
    """Stop at bad photographs unless they are to be skipped.

    Raises:
        DataError: when there is any and `on_bad` is "stop"; lists the first ten and the total.
    """
    if not bad or on_bad == "skip":
        return
    listed = "\n".join(f"  {one}" for one in bad[:10])
    more = f"\n  ... and {len(bad) - 10} more" if len(bad) > 10 else ""
    raise DataError(
        f"{root}: {len(bad)} of the photographs or labels cannot be used "
        f"(set data.on_bad=skip to go on without them):\n{listed}{more}"
    )
