"""Data sets to audit: some of IDRiD's photographs, original or altered, with their own label list."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from retina.audit import runner
from retina.audit.runner import Audit
from retina.config import DataConfig
from retina.data.manifest import COLUMNS

TWINS = {
    ("train_IDRiD_045", "train_IDRiD_333"),
    ("train_IDRiD_073", "train_IDRiD_375"),
    ("train_IDRiD_021", "train_IDRiD_391"),
    ("test_IDRiD_064", "train_IDRiD_118"),
    ("train_IDRiD_028", "train_IDRiD_327"),
    ("train_IDRiD_079", "train_IDRiD_279"),
}
"""Pairs of names of the same file."""
LIKE = ("train_IDRiD_013", "train_IDRiD_397")
"""Two photographs of the same eye in the same pose, at different exposures."""


def real(shared: Path, name: str) -> Path:
    """Return the path of a photograph of IDRiD."""
    return shared / "data" / "idrid" / "images" / f"{name}.jpg"


def labelled(shared: Path) -> dict[str, tuple[int, str]]:
    """Return grade and split of IDRiD's photographs, by name."""
    with (shared / "data" / "idrid" / "labels.csv").open(newline="") as file:
        return {row["image"].removesuffix(".jpg"): (int(row["level"]), row["split"]) for row in csv.DictReader(file)}


def some_of_idrid(shared: Path, folder: Path, names: Iterable[str]) -> Path:
    """Create a folder with copies of these photographs and their labels."""
    folder.mkdir(parents=True)
    known = labelled(shared)
    lines = ["image,level,split"]
    for name in names:
        (folder / f"{name}.jpg").write_bytes(real(shared, name).read_bytes())
        lines.append(f"{name}.jpg,{known[name][0]},{known[name][1]}")
    (folder / "labels.csv").write_text("\n".join(lines) + os.linesep)
    return folder


def list_of(folder: Path, rows: Iterable[tuple[str, int | str]], header: str = "image,level") -> Path:
    """Write labels.csv beside the photographs; the second value of a row may contain several cells."""
    (folder / "labels.csv").write_text("\n".join([header, *(f"{name},{grade}" for name, grade in rows)]) + "\n")
    return folder


def darkened(photograph: Image.Image) -> Image.Image:
    return photograph.point(lambda value: value * 0.15)


def blurred(photograph: Image.Image) -> Image.Image:
    return photograph.filter(ImageFilter.GaussianBlur(0.02 * photograph.width))


def audited(path: Path, **settings: object) -> Audit:
    """Audit a folder in one process."""
    return runner.audit(DataConfig.model_validate({"path": str(path), **settings}), workers=1)


def after_the_last(source: str) -> str:
    """Process photographs 0 to 39; the first one, and with it its chunk, waits until another process has the last."""
    name = Path(source).name
    last = Path(source).with_name("39")
    if name == last.name:
        last.touch()
    until = time.monotonic() + 60
    while name == "0" and not last.exists():
        if time.monotonic() > until:
            raise TimeoutError("no other process has reached the last photograph")
        time.sleep(0.01)
    return name


def names(audit: Audit, rows: Iterable[int]) -> set[str]:
    """Return the names of photographs, without suffix."""
    return {str(audit.manifest.frame["image"].iloc[row]).rpartition(".")[0] for row in rows}


def frame(rows: Iterable[tuple[str, str, str, int]]) -> pd.DataFrame:
    """Build a manifest's table of (patient, eye, split, grade)."""
    table = [
        (f"{n}", "", "", -1, grade, patient, eye, split, "") for n, (patient, eye, split, grade) in enumerate(rows)
    ]
    return pd.DataFrame(table, columns=list(COLUMNS)).astype(COLUMNS)


def noise(n: int, seed: int = 0) -> np.ndarray:
    """Draw the details of n unrelated photographs, int8 (n, 32, 32)."""
    return np.random.default_rng(seed).integers(-100, 100, (n, 32, 32)).astype(np.int8)
