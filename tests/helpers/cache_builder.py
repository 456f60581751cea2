"""Small photographs, their manifest, the expected content of their cache, and interrupted builds of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from retina.data.cache.pixel_cache import open_cache
from retina.data.fundus import Pixels, read, to_square
from retina.data.manifest import COLUMNS, Manifest
from retina.errors import DataError

SIZE = 32


def manifest_of(paths: list[Path], array: str = "", rows: list[int] | None = None) -> Manifest:
    n = len(paths)
    frame = pd.DataFrame(
        {
            "image": [f"{path.stem}{'' if rows is None else rows[i]}" for i, path in enumerate(paths)],
            "path": [str(path) for path in paths],
            "array": array,
            "index": -1 if rows is None else rows,
            "grade": 0,
            "patient": [str(i) for i in range(n)],
            "eye": "",
            "split": "train",
            "where": [f"labels.csv:{i + 2}" for i in range(n)],
        }
    ).astype(COLUMNS)
    return Manifest(frame, "folders", paths[0].parent)


def draw(folder: Path, n: int) -> list[Path]:
    """Draw small photographs, each with a disc of its own size and colour."""
    folder.mkdir(exist_ok=True)
    rows, columns = np.mgrid[:90, :120]
    paths = []
    for i in range(n):
        disc = np.hypot(rows - 45, columns - 60) < 30 + i % 15
        shade = (np.array([200, 60 + i, 40]) * (0.7 + rows / 300)[..., None]).astype(np.uint8)
        paths.append(folder / f"{i:03}.jpg")
        Image.fromarray(np.where(disc[..., None], shade, 2).astype(np.uint8)).save(paths[-1])
    return paths


def expected_pixels(paths: list[Path], size: int) -> np.ndarray:
    return np.stack([to_square(read(path, min_side=2 * size), size)[0] for path in paths])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def contents(cache: Path) -> dict[str, Any]:
    """Return the bytes of the pixels, and the index without its duration, which differs between builds."""
    index = json.loads((cache / "index.json").read_text())
    assert index.pop("seconds") >= 0
    return index | {"pixels": (cache / "pixels.npy").read_bytes()}


@dataclass
class Decoded:
    """Records the photographs that are read in this process; those in `broken` cannot be read."""

    paths: list[Path] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)

    def read(self, path: Path, min_side: int | None = None) -> Pixels:
        self.paths.append(path)
        if path in self.broken:
            raise DataError(f"{path}: cannot be read: the network is down")
        return read(path, min_side)

    def now(self) -> list[Path]:
        """Return the photographs read since the last call."""
        before, self.paths = self.paths, []
        return before


def stop_at(number: int) -> Callable[[int, int], None]:
    """Return a progress callback that raises KeyboardInterrupt, as Ctrl-C does, after `number` photographs."""

    def progress(done: int, _: int) -> None:
        if done >= number:
            raise KeyboardInterrupt

    return progress


def stopped(paths: list[Path], folder: Path, number: int, **how: Any) -> Path:
    """Interrupt a build after `number` photographs or a few more, and return its folder."""
    with pytest.raises(KeyboardInterrupt):
        open_cache(manifest_of(paths), SIZE, folder=folder, progress=stop_at(number), **how)
    (left,) = folder.glob("*.building")
    return left


def noted(building: Path) -> set[int]:
    """Return the rows that are decoded according to the journal: those whose last entry has no problem."""
    last: dict[int, str] = {}
    for line in (building / "done.jsonl").read_text().split("\n")[1:]:
        try:
            last.update((row, problem) for row, _, problem, *_ in json.loads(line))
        except ValueError:
            continue
    return {row for row, problem in last.items() if not problem}


def fresh(paths: list[Path], folder: Path, on_bad: str = "stop") -> dict[str, Any]:
    return contents(open_cache(manifest_of(paths), SIZE, folder=folder, on_bad=on_bad).path)
