"""Manifests of patients and grades without photographs, and their splits."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retina.config import DataConfig
from retina.data.manifest import COLUMNS, Manifest
from retina.data.split import Split, assign_splits


def manifest(rows: list[tuple[str, int, str]]) -> Manifest:
    """Build a manifest from rows of patient, grade and official split."""
    table = [
        (f"{i}_photograph", f"/x/{i}.png", "", -1, grade, patient, "", split, f"x.csv:{i + 1}")
        for i, (patient, grade, split) in enumerate(rows)
    ]
    return Manifest(pd.DataFrame(table, columns=list(COLUMNS)).astype(COLUMNS), "eyepacs", Path("/x"))


def split(rows: list[tuple[str, int, str]], **config: Any) -> Split:
    return assign_splits(manifest(rows), DataConfig(**config))


def two_eyed(patients: int, seed: int = 0) -> list[tuple[str, int, str]]:
    """Draw patients with the grade distribution of EyePACS; the second eye mostly has the grade of the first."""
    rng = np.random.default_rng(seed)
    first = rng.choice(5, patients, p=[0.735, 0.07, 0.15, 0.025, 0.02])
    second = np.where(rng.random(patients) < 0.8, first, rng.choice(5, patients))
    return [(f"p{i}", int(grade), "") for i in range(patients) for grade in (first[i], second[i])]


def disjoint(frame: pd.DataFrame) -> bool:
    return bool((frame.groupby("patient")["split"].nunique() < 2).all())
