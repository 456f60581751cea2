"""Metrics of predicted grades: accuracy, QWK, AUC, recall and precision by grade, confusion matrix.

All metrics come from scikit-learn; this module adds a stated value where a metric is not defined. Such a metric never
gets a favourable value: a QWK or AUC that cannot be computed is worth nothing (0.0) or unknown (NaN), as documented
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
from retina.metrics.operating_point import SHARE_TOLERANCE, TARGET_SPECIFICITY
from retina.metrics.probabilities import REFERABLE_GRADE, referable_probability, validate_probabilities

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GradeMetrics:
    """The metrics of one model on one split.

    Attributes:
        n: number of photographs.
        accuracy: share of exactly right grades, 0 to 1.
        balanced_accuracy: mean recall of the grades that occur among the true grades, 0 to 1.
        qwk: quadratic weighted kappa, -1 to 1 (`quadratic_weighted_kappa`).
        macro_f1: mean F1 of the grades that occur among the true or predicted grades, 0 to 1.
        recall: share of each true grade that is predicted right, 5 values, NaN for a grade that no photograph has.
        precision: share of each predicted grade that is right, 5 values, NaN for a grade that is never predicted.
        auc: one-vs-rest area under the ROC curve, mean over the grades that occur, 0 to 1 or NaN (`auc_one_vs_rest`).
        auc_by_grade: area under the ROC curve of each grade against the rest, 5 values, NaN for a grade that no
            photograph has, or every one.
        referable_auc: area under the ROC curve of "grade 2 or worse", 0 to 1 or NaN.
        sensitivity_at_90_specificity: sensitivity for "grade 2 or worse", 0 to 1 or NaN (`sensitivity_at_specificity`).
        confusion_matrix: 5 x 5 counts, rows true grades, columns predicted grades.

    Example:
        >>> metrics = compute_metrics([0, 0, 1, 2], np.eye(5)[[0, 1, 1, 2]])
        >>> metrics.accuracy, round(metrics.qwk, 3), metrics.recall
        (0.75, 0.8, (0.5, 1.0, 1.0, nan, nan))
        >>> metrics.as_json()["recall"]
        [0.5, 1.0, 1.0, None, None]
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
        """Return plain values for a JSON file; NaN, which JSON lacks, becomes null."""
        return {field.name: to_json_value(getattr(self, field.name)) for field in fields(self)}


def compute_metrics(
    grades: npt.ArrayLike, probabilities: npt.ArrayLike, predicted: npt.ArrayLike | None = None
) -> GradeMetrics:
    """Compute all metrics of one model on one split.

    Args:
        grades: true grades, integers 0 to 4, shape (N,), N >= 1.
        probabilities: probabilities of the five grades, shape (N, 5), finite, 0 or more, each row with the sum 1.
        predicted: predicted grades, integers 0 to 4, shape (N,); the most probable ones if None. A model with
            cut-points on a score may predict another grade than the most probable one.

    Raises:
        ValueError: other shapes, grades outside 0 to 4, or rows that do not hold probabilities, see
            `retina.metrics.probabilities.validate_probabilities`.
    """
    true = _validate_grades(grades)
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (len(true), GRADES):
        raise ValueError(f"probabilities have the shape {p.shape}, allowed: ({len(true)}, {GRADES})")
    validate_probabilities(p)
    guess = p.argmax(axis=1) if predicted is None else _validate_grades(predicted)
    if guess.shape != true.shape:
        raise ValueError(f"predicted has the shape {guess.shape}, allowed: {true.shape}")
    by_grade = {"labels": range(GRADES), "average": None, "zero_division": np.nan}
    recall = sk.recall_score(true, guess, **by_grade)
    areas = auc_by_grade(true, p)
    return GradeMetrics(
        n=len(true),
        accuracy=accuracy(true, guess),
        balanced_accuracy=_mean_of_defined(recall),
        qwk=quadratic_weighted_kappa(true, guess),
        macro_f1=_mean_of_defined(sk.f1_score(true, guess, **by_grade)),
        recall=tuple(recall.tolist()),
        precision=tuple(sk.precision_score(true, guess, **by_grade).tolist()),
        auc=_mean_of_defined(areas),
        auc_by_grade=areas,
        referable_auc=_auc(true >= REFERABLE_GRADE, referable_probability(p)),
        sensitivity_at_90_specificity=sensitivity_at_specificity(true >= REFERABLE_GRADE, referable_probability(p)),
        confusion_matrix=confusion_matrix(true, guess),
    )


def accuracy(grades: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Return the share of exactly right grades, 0 to 1. Both shape (N,), N >= 1, integers 0 to 4."""
    return float((_validate_grades(grades) == _validate_grades(predicted)).mean())


def quadratic_weighted_kappa(grades: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Return the agreement beyond chance, weighted by the squared error (Cohen 1968), -1 to 1. Both shape (N,).

    If chance alone explains everything (one and the same grade throughout, in truth and prediction), kappa is 0/0. It
    is defined as 0.0 here: a model that grades every eye as healthy has shown nothing, also on a split of healthy eyes.

    Example:
        >>> quadratic_weighted_kappa([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
        1.0
        >>> round(quadratic_weighted_kappa([0, 1, 2, 3, 4], [0, 1, 2, 3, 0]), 3)  # an error of four grades
        0.2
        >>> quadratic_weighted_kappa([0, 0, 0], [0, 0, 0])
        0.0
    """
    true, guess = _validate_grades(grades), _validate_grades(predicted)
    if (true == true[0]).all() and (guess == true[0]).all():
        return 0.0
    return float(sk.cohen_kappa_score(true, guess, weights="quadratic", labels=range(GRADES)))


def confusion_matrix(grades: npt.ArrayLike, predicted: npt.ArrayLike) -> Ints:
    """Return counts, int64 (5, 5), rows true grades, columns predicted grades."""
    true, guess = _validate_grades(grades), _validate_grades(predicted)
    return np.asarray(sk.confusion_matrix(true, guess, labels=range(GRADES)), dtype=np.int64)


def auc_one_vs_rest(grades: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the area under the ROC curve of each grade against the rest, mean over the grades where it is defined.

    It is defined for a grade that some photographs have and some do not; NaN if there is no such grade. This is
    MedMNIST's "AUC" for more than two classes (Yang et al. 2023, doi 10.1038/s41597-022-01721-8).

    Example:
        >>> auc_one_vs_rest([0, 1, 1], [[0.6, 0.4, 0, 0, 0], [0.3, 0.7, 0, 0, 0], [0.7, 0.3, 0, 0, 0]])
        0.5
    """
    return _mean_of_defined(auc_by_grade(grades, probabilities))


def auc_by_grade(grades: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[float, ...]:
    """Return the area under the ROC curve of each grade against the rest, 5 values.

    It is NaN for a grade that no photograph has, or every one.
    """
    true, p = _validate_grades(grades), validate_probabilities(probabilities)
    return tuple(_auc(true == grade, p[:, grade]) for grade in range(GRADES))


def sensitivity_at_specificity(
    positive: npt.NDArray[np.bool_], score: Floats, specificity: float = TARGET_SPECIFICITY
) -> float:
    """Return the highest sensitivity of all thresholds with at least `specificity`; NaN if all or none are positive.

    Args:
        positive: whether each photograph is positive, shape (N,).
        score: score of each photograph, shape (N,); a score of the threshold or more is predicted positive.
        specificity: smallest specificity, 0 to 1.

    Raises:
        ValueError: a score is not finite.

    Example:
        >>> positive = np.array([False, False, True, True])
        >>> sensitivity_at_specificity(positive, np.array([0.1, 0.6, 0.5, 0.9]), specificity=1.0)
        0.5
    """
    if not np.isfinite(score).all():
        raise ValueError("scores are not finite: NaN reaches no threshold")
    if positive.all() or not positive.any():
        return math.nan
    false_positive_rate, sensitivity, _ = sk.roc_curve(positive, score, drop_intermediate=False)
    return float(sensitivity[1 - false_positive_rate >= specificity - SHARE_TOLERANCE].max())


def to_json_value(value: Any) -> Any:
    """Return a number, or an array or tuple of numbers, as plain JSON values; null for NaN."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _mean_of_defined(values: npt.ArrayLike) -> float:
    numbers = np.asarray(values, dtype=np.float64)
    defined = numbers[~np.isnan(numbers)]
    return float(defined.mean()) if len(defined) else math.nan


def _auc(positive: npt.NDArray[np.bool_], score: Floats) -> float:
    if positive.all() or not positive.any():
        return math.nan
    return float(sk.roc_auc_score(positive, score))


def _validate_grades(values: npt.ArrayLike) -> Ints:
    grades = np.asarray(values)
    if grades.ndim != 1 or len(grades) == 0:
        raise ValueError(f"grades have the shape {grades.shape}, allowed: (N,) with N >= 1")
    if not np.issubdtype(grades.dtype, np.integer) or grades.min() < 0 or grades.max() >= GRADES:
        raise ValueError(f"grades must be integers 0 to {GRADES - 1}, got {np.unique(grades)[:8].tolist()}")
    return grades.astype(np.int64)
