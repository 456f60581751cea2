"""What needs no photograph: always the commonest grade, and the grade that the patient's other photographs have.

A model is worth its photographs by as much as it is better than these. Both read a manifest's table (columns split,
patient and grade, see `retina.data.manifest`) and no photograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from retina.config import GRADES
from retina.metrics import grading

Ints = npt.NDArray[np.int64]
KNOWN_SPLITS = {"val": ("train",), "test": ("train", "val")}
"""Whose grades are known before a split is looked at: validation chooses the model, so test must not leak into it."""
DEFAULT_GRADE = 0
"""What `fellow_eye_baseline` says of an eye whose fellow it does not know."""


@dataclass(frozen=True)
class Baseline:
    """A baseline on one split: `accuracy` (0 to 1), `qwk` (-1 to 1), `n` photographs.

    `with_fellow` of them are of a patient whose other photographs are known; 0 where the baseline does not look.
    """

    accuracy: float
    qwk: float
    n: int
    with_fellow: int = 0


def majority_baseline(frame: pd.DataFrame, split: str) -> Baseline:
    """Always the commonest grade of train, on `split`.

    Raises:
        ValueError: no photograph in `split`, or none in train.
    """
    true = _grades(frame, split)
    return measure_baseline(true, np.full_like(true, majority_grade(frame)))


def majority_grade(frame: pd.DataFrame) -> int:
    """The commonest grade of train; of equally common ones the lowest.

    Raises:
        ValueError: no photograph in train.
    """
    return int(np.bincount(_grades(frame, "train"), minlength=GRADES).argmax())


def fellow_eye_baseline(frame: pd.DataFrame, split: str) -> Baseline:
    """Copy the grade of the fellow eye where `fellow_grades` knows one, else say 0, on `split`.

    On the lists of the course that this project starts from it comes to an accuracy of 84.73% and a QWK of 0.723.

    Raises:
        ValueError: no photograph in `split`.
    """
    true, copied = _grades(frame, split), fellow_grades(frame, split)
    return measure_baseline(true, fill_unknown_fellows(copied), with_fellow=int(copied.notna().sum()))


def fellow_grades(frame: pd.DataFrame, split: str) -> pd.Series[int]:
    """Int64 (N,), a grade for each photograph of `split` in their order; NA where the patient is in `split` alone.

    It is that of the patient's photographs on the other side, in train, and for test in validation too; the worst where
    there are several. Which eye each is of does not matter: a second photograph of the same one leaks as much.
    """
    known = frame[frame["split"].isin(KNOWN_SPLITS[split])].groupby("patient")["grade"].max()
    patients = frame.loc[frame["split"] == split, "patient"]
    return patients.map(known).astype("Int64").rename("fellow_eye").reset_index(drop=True)


def fill_unknown_fellows(copied: pd.Series[int]) -> Ints:
    """What the baseline says, int64 (N,), from what `fellow_grades` knows."""
    return np.asarray(copied.fillna(DEFAULT_GRADE), dtype=np.int64)


def measure_baseline(true: Ints, predicted: Ints, *, with_fellow: int = 0) -> Baseline:
    """A baseline's numbers from its grades, both int64 (N,)."""
    accuracy = grading.accuracy(true, predicted)
    return Baseline(accuracy, grading.quadratic_weighted_kappa(true, predicted), len(true), with_fellow)


def _grades(frame: pd.DataFrame, split: str) -> Ints:
    grades = frame.loc[frame["split"] == split, "grade"].to_numpy(dtype=np.int64)
    if not len(grades):
        raise ValueError(f"no photograph is in the split {split!r}")
    return grades
