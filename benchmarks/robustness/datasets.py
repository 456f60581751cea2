"""Whole data sets in the layouts that people have, as tables that can be changed before they are written."""

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
    """A data set in a folder, and what is right for it.

    Attributes:
        root: its folder.
        file: its label list.
        photographs: where the photographs lie.
        header: the columns' names; empty where the list has none.
        rows: the cells, a row a photograph; the first is its name, the second its grade.
        separator: between cells.
        encoding: of the list.
        end: of a line.
        by_grade: photographs a grade that a command should count; None where nobody knows.
        unused: photographs and rows that are left out and must be told of.
        bad: why the list must be refused, unless bad rows are skipped; empty where it need not.
        hopeless: why it must be refused in any case.
        content: of the list, if it is not what `text` gives.
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
    hopeless: str = ""
    content: bytes | None = None

    def right(self) -> None:
        """Count the rows as they are now."""
        grades = Counter(int(row[1]) for row in self.rows)
        self.by_grade = [grades[grade] for grade in range(5)]

    def take_out(self, row: int) -> list[str]:
        """Remove a row from the right counts: it must be left out, and told of."""
        if self.by_grade:
            self.by_grade[int(self.rows[row][1])] -= 1
        self.unused += 1
        return self.rows[row]

    def text(self) -> str:
        """The list as text."""
        lines = ([self.header] if self.header else []) + self.rows
        return "".join(self.separator.join(cells) + self.end for cells in lines)

    def write(self) -> None:
        """Write the list, unless something else has taken its place."""
        if self.content is None:
            self.content = self.text().encode(self.encoding, "surrogateescape")
        if not self.file.exists() and not self.file.is_symlink():
            self.file.write_bytes(self.content)


def draw(whole: World, folder: Path, rng: Rng) -> DataSet:
    """A data set in one of the layouts with a list, with copies of the drawn photographs."""
    layout = int(rng.integers(4))
    root = folder / "set"
    names = ("trainLabels.csv", "labels.csv", "train.csv", "labels.csv")
    places = ("train", "images", "train_images", ".")
    headers = (["image", "level"], ["image", "level", "split"], ["id_code", "diagnosis"], ["image", "level", "patient"])
    photographs = root / places[layout]
    photographs.mkdir(parents=True)
    rows = []
    for at, (name, grade) in enumerate(whole.grades().items()):
        shutil.copyfile(whole.photographs / "train" / f"{name}.jpeg", photographs / f"{name}.jpeg")
        row = [f"{name}.jpeg" if layout == 3 else name, str(grade)]
        row += (
            [("train", "val", "test")[(at // 2) % 3]]
            if layout == 1
            else [name.partition("_")[0]]
            if layout == 3
            else []
        )
        rows.append(row)
    made = DataSet(root, root / names[layout], photographs, headers[layout], rows)
    made.right()
    return made


def draw_folders(whole: World, folder: Path, rng: Rng) -> DataSet:
    """A data set of one folder a grade, by number or by word; the list is none."""
    root = folder / "set"
    by_word = rng.random() < 0.5
    grades = whole.grades()
    for name, grade in grades.items():
        place = root / (WORDS[grade] if by_word else str(grade))
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole.photographs / "train" / f"{name}.jpeg", place / f"{name}.jpeg")
    made = DataSet(root, root / "unused", root, [], [[name, str(grade)] for name, grade in grades.items()], content=b"")
    made.right()
    return made
