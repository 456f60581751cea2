"""Baselines that use no photograph: the commonest grade of train, and the grade of the patient's other photographs.

A model's photographs are worth as much as the model is better than these. Both baselines read only a manifest's table
(columns split, patient and grade, see `retina.data.manifest`).
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
"""Splits whose grades a baseline may use, by the split on which it is evaluated.

Validation chooses the model, so the grades of test must not leak into it.
"""
DEFAULT_GRADE = 0
"""The grade that the fellow-eye baseline predicts for an eye whose fellow is unknown."""


@dataclass(frozen=True)
class Baseline:
    """The metrics of a baseline on one split.

    Attributes:
        accuracy: share of exactly right grades, 0 to 1.
        qwk: quadratic weighted kappa, -1 to 1.
        n: number of photographs.
        with_fellow: number of photographs of a patient whose other photographs are known; 0 for a baseline that does
            not use them.
    """

    accuracy: float
    qwk: float
    n: int
    with_fellow: int = 0


def majority_baseline(frame: pd.DataFrame, split: str) -> Baseline:
    """Evaluate the baseline that always predicts the commonest grade of train, on `split`.

    Example:
        >>> rows = [("train", "a", 0), ("train", "b", 0), ("test", "a", 0), ("test", "c", 3)]
        >>> frame = pd.DataFrame(rows, columns=["split", "patient", "grade"])
        >>> majority_baseline(frame, "test")
        Baseline(accuracy=0.5, qwk=0.0, n=2, with_fellow=0)

    Raises:
        ValueError: no photograph in `split`, or none in train.
    """
    grades = _grades(frame, split)
    return measure_baseline(grades, np.full_like(grades, majority_grade(frame)))


def majority_grade(frame: pd.DataFrame) -> int:
    """Return the commonest grade of train; of equally common grades the lowest.

    Raises:
        ValueError: no photograph in train.
    """
    return int(np.bincount(_grades(frame, "train"), minlength=GRADES).argmax())


def fellow_eye_baseline(frame: pd.DataFrame, split: str) -> Baseline:
    """Evaluate the baseline that copies the grade of the fellow eye, or predicts 0 where it is unknown, on `split`.

    On the lists of the course that this project starts from, it has an accuracy of 84.73% and a QWK of 0.723.

    Example:
        >>> rows = [("train", "a", 2), ("test", "a", 2), ("test", "b", 0), ("test", "c", 3)]
        >>> frame = pd.DataFrame(rows, columns=["split", "patient", "grade"])
        >>> fellow_eye_baseline(frame, "test").with_fellow
        1

    Raises:
        ValueError: no photograph in `split`.
    """
    grades, copied = _grades(frame, split), fellow_grades(frame, split)
    return measure_baseline(grades, fill_unknown_fellows(copied), with_fellow=int(copied.notna().sum()))


def fellow_grades(frame: pd.DataFrame, split: str) -> pd.Series[int]:
    """Return the grade of each photograph's fellow eye, Int64 (N,), in the order of the photographs of `split`.

    The grade is that of the patient's photographs in the splits of `KNOWN_SPLITS`: in train, and for test also in
    validation. It is the worst of several, and NA where the patient is in `split` alone. Left and right eye are not
    distinguished: a second photograph of the same eye leaks as much.

    Example:
        >>> rows = [("train", "a", 2), ("val", "a", 4), ("test", "a", 2), ("test", "b", 0)]
        >>> frame = pd.DataFrame(rows, columns=["split", "patient", "grade"])
        >>> fellow_grades(frame, "test").tolist()
        [4, <NA>]
    """
    known = frame[frame["split"].isin(KNOWN_SPLITS[split])].groupby("patient")["grade"].max()
    patients = frame.loc[frame["split"] == split, "patient"]
    return patients.map(known).astype("Int64").rename("fellow_eye").reset_index(drop=True)


def fill_unknown_fellows(copied: pd.Series[int]) -> Ints:
    """Return the fellow-eye baseline's predictions, int64 (N,): `copied` of `fellow_grades`, NA as `DEFAULT_GRADE`."""
    return np.asarray(copied.fillna(DEFAULT_GRADE), dtype=np.int64)


def measure_baseline(grades: Ints, predicted: Ints, *, with_fellow: int = 0) -> Baseline:
    """Return a baseline's metrics from true and predicted grades, both int64 (N,)."""
    accuracy = grading.accuracy(grades, predicted)
    return Baseline(accuracy, grading.quadratic_weighted_kappa(grades, predicted), len(grades), with_fellow)


def _grades(frame: pd.DataFrame, split: str) -> Ints:
    grades = frame.loc[frame["split"] == split, "grade"].to_numpy(dtype=np.int64)
    if not len(grades):
        raise ValueError(f"no photograph is in the split {split!r}")
    return grades
