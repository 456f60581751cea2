"""Small photographs, their manifest, and what a cache of them must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from retina.data.fundus import read, to_square
from retina.data.manifest import COLUMNS, Manifest


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
    """Small photographs, each with a disc of its own size and colour."""
    folder.mkdir(exist_ok=True)
    rows, columns = np.mgrid[:90, :120]
    paths = []
    for i in range(n):
        disc = np.hypot(rows - 45, columns - 60) < 30 + i % 15
        shade = (np.array([200, 60 + i, 40]) * (0.7 + rows / 300)[..., None]).astype(np.uint8)
        paths.append(folder / f"{i:03}.jpg")
        Image.fromarray(np.where(disc[..., None], shade, 2).astype(np.uint8)).save(paths[-1])
    return paths


def wanted(paths: list[Path], size: int) -> np.ndarray:
    return np.stack([to_square(read(path, at_least=2 * size), size)[0] for path in paths])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def contents(cache: Path) -> dict[str, Any]:
    """The pixels byte by byte, and the index without the one thing in it that differs from build to build."""
    index = json.loads((cache / "index.json").read_text())
    assert index.pop("seconds") >= 0
    return index | {"pixels": (cache / "pixels.npy").read_bytes()}
