"""Intact data sets in common layouts, as tables that can be changed before they are written."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.robustness.case import Rng
from benchmarks.robustness.world import World

WORDS = ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")


@dataclass
class DataSet:
    """A data set in a folder, and the results expected of it.

    Attributes:
        root: its folder.
        file: its label list.
        photographs: folder of the photographs.
        header: names of the columns; empty if the list has no header.
        rows: cells, a row per photograph; the first is its name, the second its grade.
        separator: separator of the cells.
        encoding: encoding of the list.
        end: line ending.
        by_grade: expected number of photographs per grade; None if unknown.
        unused: number of photographs and rows that are skipped and must be reported.
        bad: why the list must be refused unless bad rows are skipped; empty if it need not be refused.
        always_refused: why the list must be refused in any case; empty if it need not be refused.
        content: bytes of the list, if they differ from `text`.
    """

    root: Path
    file: Path
    photographs: Path
    header: list[str]
    rows: list[list[str]]
    separator: str = ","
    encoding: str = "utf-8"
    end: str = "\n"
    by_grade: list[int] | None = None
    unused: int = 0
    bad: str = ""
    always_refused: str = ""
    content: bytes | None = None

    def count_rows(self) -> None:
        """Set the expected counts to those of the current rows."""
        grades = Counter(int(row[1]) for row in self.rows)
        self.by_grade = [grades[grade] for grade in range(5)]

    def exclude(self, row: int) -> list[str]:
        """Remove a row from the expected counts, and return it: it must be skipped and reported."""
        if self.by_grade:
            self.by_grade[int(self.rows[row][1])] -= 1
        self.unused += 1
        return self.rows[row]

    def text(self) -> str:
        """Return the list as text."""
        lines = ([self.header] if self.header else []) + self.rows
        return "".join(self.separator.join(cells) + self.end for cells in lines)

    def write(self) -> None:
        """Write the list, unless its path exists already."""
        if self.content is None:
            self.content = self.text().encode(self.encoding, "surrogateescape")
        if not self.file.exists() and not self.file.is_symlink():
            self.file.write_bytes(self.content)


def draw(whole: World, folder: Path, rng: Rng) -> DataSet:
    """Create a data set in one of the layouts with a list, with copies of the drawn photographs."""
    layout = int(rng.integers(4))
    root = folder / "set"
    names = ("trainLabels.csv", "labels.csv", "train.csv", "labels.csv")
    folders = ("train", "images", "train_images", ".")
    headers = (["image", "level"], ["image", "level", "split"], ["id_code", "diagnosis"], ["image", "level", "patient"])
    photographs = root / folders[layout]
    photographs.mkdir(parents=True)
    rows = []
    for index, (name, grade) in enumerate(whole.grades().items()):
        shutil.copyfile(whole.photographs / "train" / f"{name}.jpeg", photographs / f"{name}.jpeg")
        row = [f"{name}.jpeg" if layout == 3 else name, str(grade)]
        row += (
            [("train", "val", "test")[(index // 2) % 3]]
            if layout == 1
            else [name.partition("_")[0]]
            if layout == 3
            else []
        )
        rows.append(row)
    made = DataSet(root, root / names[layout], photographs, headers[layout], rows)
    made.count_rows()
    return made


def draw_folders(whole: World, folder: Path, rng: Rng) -> DataSet:
    """Create a data set of one folder per grade, named by number or by word, without a list."""
    root = folder / "set"
    by_word = rng.random() < 0.5
    grades = whole.grades()
    for name, grade in grades.items():
        grade_folder = root / (WORDS[grade] if by_word else str(grade))
        grade_folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole.photographs / "train" / f"{name}.jpeg", grade_folder / f"{name}.jpeg")
    made = DataSet(root, root / "unused", root, [], [[name, str(grade)] for name, grade in grades.items()], content=b"")
    made.count_rows()
    return made
