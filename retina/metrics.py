"""How good a set of graded photographs is: accuracy, QWK, AUC, recall per grade, confusion matrix.

All numbers come from scikit-learn; what this room adds is a stated meaning where a number is not defined. Such a number
is never repaired to "healthy": QWK and AUC that cannot be computed are worth nothing (0.0) or unknown (NaN), as said
below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from retina.config import GRADES

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
REFERABLE = 2
"""Grades from here on are sent to an ophthalmologist ("referable", ICDR moderate or worse)."""


@dataclass(frozen=True)
class GradeMetrics:
    """The numbers of one model on one split.

    Attributes:
        n: photographs.
        accuracy: share of exactly right grades, 0 to 1.
        qwk: quadratic weighted kappa, -1 to 1 (`quadratic_weighted_kappa`).
        auc: one-vs-rest area under the ROC curve, mean over the grades present, 0 to 1 or NaN (`auc_one_vs_rest`).
        referable_auc: area under the ROC curve of "grade 2 or worse", 0 to 1 or NaN.
        recall: share of each grade that was found, 5 values, NaN for a grade that no photograph has.
        confusion_matrix: 5 x 5 counts, rows true grades, columns predicted grades.
    """

    n: int
    accuracy: float
    qwk: float
    auc: float
    referable_auc: float
    recall: tuple[float, ...]
    confusion_matrix: Ints

    def as_json(self) -> dict[str, object]:
        """Plain values for a JSON file; NaN, which JSON lacks, becomes null."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "qwk": self.qwk,
            "auc": _null(self.auc),
            "referable_auc": _null(self.referable_auc),
            "recall": [_null(value) for value in self.recall],
            "confusion_matrix": self.confusion_matrix.tolist(),
        }


def measure(grades: npt.ArrayLike, probabilities: npt.ArrayLike) -> GradeMetrics:
    """All metrics of one model on one split.

    Args:
        grades: true grades, integers 0 to 4, shape (N,), N >= 1.
        probabilities: of the five grades, finite, shape (N, 5); the predicted grade is the most probable one.

    Raises:
        ValueError: on other shapes, grades outside 0 to 4, or probabilities that are not finite.
    """
    true = _grades(grades)
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (len(true), GRADES):
        raise ValueError(f"probabilities have the shape {p.shape}, allowed: ({len(true)}, {GRADES})")
    if not np.isfinite(p).all():
        raise ValueError("probabilities are not finite: NaN is no prediction")
    predicted = p.argmax(axis=1)
    matrix = confusion_matrix(true, predicted)
    seen = matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        recall = np.where(seen > 0, matrix.diagonal() / np.maximum(seen, 1), np.nan)
    return GradeMetrics(
        n=len(true),
        accuracy=accuracy(true, predicted),
        qwk=quadratic_weighted_kappa(true, predicted),
        auc=auc_one_vs_rest(true, p),
        referable_auc=_auc(true >= REFERABLE, p[:, REFERABLE:].sum(axis=1)),
        recall=tuple(float(value) for value in recall),
        confusion_matrix=matrix,
    )


def accuracy(grades: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Share of exactly right grades, 0 to 1. Both shape (N,), N >= 1, integers 0 to 4."""
    return float((_grades(grades) == _grades(predicted)).mean())


def quadratic_weighted_kappa(grades: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Agreement beyond chance in which an error counts by its square (Cohen 1968), -1 to 1. Both shape (N,).

    Where chance alone explains everything (one and the same grade throughout, in truth and prediction), kappa is 0/0.
    It is taken as 0.0: a model that calls every eye healthy has shown nothing, also on a split where all eyes are.
    """
    true, guess = _grades(grades), _grades(predicted)
    if (true == true[0]).all() and (guess == true[0]).all():
        return 0.0
    return float(sk.cohen_kappa_score(true, guess, weights="quadratic", labels=range(GRADES)))


def confusion_matrix(grades: npt.ArrayLike, predicted: npt.ArrayLike) -> Ints:
    """Counts, shape (5, 5), rows true and columns predicted grades."""
    return np.asarray(sk.confusion_matrix(_grades(grades), _grades(predicted), labels=range(GRADES)), dtype=np.int64)


def auc_one_vs_rest(grades: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Area under the ROC curve of each grade against the rest, mean over the grades for which it is defined.

    A grade has an AUC where some photographs bear it and some do not; NaN where there is no such grade. This is
    MedMNIST's "AUC" for more than two classes (Yang et al. 2023, doi 10.1038/s41597-022-01721-8).
    """
    true = _grades(grades)
    p = np.asarray(probabilities, dtype=np.float64)
    areas = [_auc(true == grade, p[:, grade]) for grade in range(GRADES)]
    known = [area for area in areas if not math.isnan(area)]
    return float(np.mean(known)) if known else math.nan


def _auc(positive: npt.NDArray[np.bool_], score: Floats) -> float:
    if positive.all() or not positive.any():
        return math.nan
    return float(sk.roc_auc_score(positive, score))


def _grades(values: npt.ArrayLike) -> Ints:
    grades = np.asarray(values)
    if grades.ndim != 1 or len(grades) == 0:
        raise ValueError(f"grades have the shape {grades.shape}, allowed: (N,) with N >= 1")
    if not np.issubdtype(grades.dtype, np.integer) or grades.min() < 0 or grades.max() >= GRADES:
        raise ValueError(f"grades must be integers 0 to {GRADES - 1}, got {np.unique(grades)[:8].tolist()}")
    return grades.astype(np.int64)


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value
