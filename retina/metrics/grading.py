"""How good a set of graded photographs is: accuracy, QWK, AUC, recall and precision per grade, confusion matrix.

All numbers come from scikit-learn; what this room adds is a stated meaning where a number is not defined. Such a number
is never repaired to "healthy": QWK and AUC that cannot be computed are worth nothing (0.0) or unknown (NaN), as said
below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from retina.config import GRADES
from retina.metrics.probabilities import validate_probabilities

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
REFERABLE_GRADE = 2
"""Grades from here on are sent to an ophthalmologist ("referable", ICDR moderate or worse)."""
TARGET_SPECIFICITY = 0.90
"""At which the sensitivity is told."""
SHARE_TOLERANCE = 1e-9
"""A share that is short of a wanted one by no more has reached it: in binary 1 - 0.9 is less than 0.1."""


@dataclass(frozen=True)
class GradeMetrics:
    """The numbers of one model on one split.

    Attributes:
        n: photographs.
        accuracy: share of exactly right grades, 0 to 1.
        balanced_accuracy: mean recall of the grades that some photograph has, 0 to 1.
        qwk: quadratic weighted kappa, -1 to 1 (`quadratic_weighted_kappa`).
        macro_f1: mean F1 of the grades that some photograph has or is given, 0 to 1.
        recall: share of each grade that was found, 5 values, NaN for a grade that no photograph has.
        precision: share of each grade's findings that are right, 5 values, NaN for a grade that is never given.
        auc: one-vs-rest area under the ROC curve, mean over the grades present, 0 to 1 or NaN (`auc_one_vs_rest`).
        auc_by_grade: of each grade against the rest, 5 values, NaN for a grade that no photograph has, or every one.
        referable_auc: area under the ROC curve of "grade 2 or worse", 0 to 1 or NaN.
        sensitivity_at_90_specificity: of "grade 2 or worse", 0 to 1 or NaN (`sensitivity_at_specificity`).
        confusion_matrix: 5 x 5 counts, rows true grades, columns predicted grades.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    qwk: float
    macro_f1: float
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    auc: float
    auc_by_grade: tuple[float, ...]
    referable_auc: float
    sensitivity_at_90_specificity: float
    confusion_matrix: Ints

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; NaN, which JSON lacks, becomes null."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: to_json_value(value) for name, value in told.items()}


def compute_metrics(
    grades: npt.ArrayLike, probabilities: npt.ArrayLike, predicted: npt.ArrayLike | None = None
) -> GradeMetrics:
    """All metrics of one model on one split.

    Args:
        grades: true grades, integers 0 to 4, shape (N,), N >= 1.
        probabilities: of the five grades, shape (N, 5), each row finite, 0 and more, and with the sum 1.
        predicted: the model's grades, integers 0 to 4, shape (N,); the most probable ones if None. A model that cuts a
            scale in five may say another grade than the most probable one.

    Raises:
        ValueError: on other shapes, grades outside 0 to 4, or rows that are no probabilities, see `probabilities`.
    """
    true = _grades(grades)
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (len(true), GRADES):
        raise ValueError(f"probabilities have the shape {p.shape}, allowed: ({len(true)}, {GRADES})")
    validate_probabilities(p)
    guess = p.argmax(axis=1) if predicted is None else _grades(predicted)
    if guess.shape != true.shape:
        raise ValueError(f"predicted has the shape {guess.shape}, allowed: {true.shape}")
    by_grade = {"labels": range(GRADES), "average": None, "zero_division": np.nan}
    recall = sk.recall_score(true, guess, **by_grade)
    areas = auc_by_grade(true, p)
    return GradeMetrics(
        n=len(true),
        accuracy=accuracy(true, guess),
        balanced_accuracy=_mean_of_known(recall),
        qwk=quadratic_weighted_kappa(true, guess),
        macro_f1=_mean_of_known(sk.f1_score(true, guess, **by_grade)),
        recall=tuple(recall.tolist()),
        precision=tuple(sk.precision_score(true, guess, **by_grade).tolist()),
        auc=_mean_of_known(areas),
        auc_by_grade=areas,
        referable_auc=_auc(true >= REFERABLE_GRADE, referable_probability(p)),
        sensitivity_at_90_specificity=sensitivity_at_specificity(true >= REFERABLE_GRADE, referable_probability(p)),
        confusion_matrix=confusion_matrix(true, guess),
    )


def referable_probability(probabilities: Floats) -> Floats:
    """The probability of grade 2 or worse, shape (N,), from those of the five grades, shape (N, 5)."""
    return np.asarray(probabilities[:, REFERABLE_GRADE:].sum(axis=1))


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
    return _mean_of_known(auc_by_grade(grades, probabilities))


def auc_by_grade(grades: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[float, ...]:
    """Area under the ROC curve of each grade against the rest, 5 values; NaN for a grade that none or all have."""
    true, p = _grades(grades), validate_probabilities(probabilities)
    return tuple(_auc(true == grade, p[:, grade]) for grade in range(GRADES))


def sensitivity_at_specificity(
    positive: npt.NDArray[np.bool_], score: Floats, specificity: float = TARGET_SPECIFICITY
) -> float:
    """The highest sensitivity of all thresholds with at least `specificity`; NaN where all or none are positive.

    Args:
        positive: who is to be found, shape (N,).
        score: the higher the likelier, shape (N,); found is who has the threshold or more.
        specificity: 0 to 1.

    Raises:
        ValueError: a score is not finite.
    """
    if not np.isfinite(score).all():
        raise ValueError("scores are not finite: NaN reaches no threshold")
    if positive.all() or not positive.any():
        return math.nan
    false_alarms, found, _ = sk.roc_curve(positive, score, drop_intermediate=False)
    return float(found[1 - false_alarms >= specificity - SHARE_TOLERANCE].max())


def _mean_of_known(values: npt.ArrayLike) -> float:
    numbers = np.asarray(values, dtype=np.float64)
    known = numbers[~np.isnan(numbers)]
    return float(known.mean()) if len(known) else math.nan


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


def to_json_value(value: Any) -> Any:
    """A number, or an array or tuple of numbers, as JSON has it: plain, and null where it is NaN."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [to_json_value(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
