"""All metrics of a split for many weightings of its patients at once, as a bootstrap needs them.

scikit-learn and torchmetrics, which compute the reported metrics themselves, take one weighting at a time, if any:
2,000 weightings of 10,000 photographs would take minutes. The tests compare the results with those of scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from retina.config import GRADES
from retina.metrics import calibration
from retina.metrics.operating_point import SHARE_TOLERANCE, TARGET_SPECIFICITY, OperatingPoint
from retina.metrics.predictions import SplitPredictions
from retina.metrics.probabilities import REFERABLE_GRADE, referable_probability
from retina.metrics.verdict import COMPARED_METRICS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SQUARED_ERRORS = (np.arange(GRADES)[:, None] - np.arange(GRADES)) ** 2.0


class VectorizedMetrics:
    """The metrics of one split as a function of the weights of its P patients.

    Called with R weightings, float64 (P, R), it returns each metric of metrics.json by its name, float64 (R,), or
    (5, R) for a metric by grade; NaN where it is not defined. The model's gain over a baseline is named, for example,
    "qwk over majority".
    """

    def __init__(self, predictions: SplitPredictions, calibrated: Floats, point: OperatingPoint) -> None:
        """Sum up over each patient's photographs what does not depend on the weights.

        Args:
            predictions: the split.
            calibrated: its probabilities after temperature scaling, float64 (N, 5).
            point: the operating point.
        """
        self._patients, self._n_patients = predictions.patients, predictions.n_patients
        self._baselines = list(predictions.baselines)
        grades, p = predictions.grades, predictions.probabilities
        predicted = {"model": predictions.predicted, **predictions.baselines}
        self._matrices = {name: self._sum_by_patient(_one_hot(grades, guess)) for name, guess in predicted.items()}
        self._gaps, self._losses = {}, {}
        for suffix, probabilities in {"": p, "_calibrated": calibrated}.items():
            self._gaps[f"ece{suffix}"] = self._sum_by_patient(calibration.calibration_gaps(grades, probabilities))
            self._losses[f"nll{suffix}"] = self._sum_by_patient(_losses(grades, probabilities)[:, None])
        refers = point.refers(p)
        positive = grades >= REFERABLE_GRADE
        self._has_threshold = refers is not None
        referred = np.zeros_like(positive) if refers is None else refers
        counts = np.column_stack([positive & referred, ~positive & ~referred, positive, ~positive])
        self._referral_counts = self._sum_by_patient(counts.astype(np.float64))
        self._by_grade = [RankedScores.from_scores(grades == grade, p[:, grade]) for grade in range(GRADES)]
        self._referable = RankedScores.from_scores(positive, referable_probability(p))

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Return every metric under each of R weightings, float64 (P, R), each weight 0 or more."""
        n = np.bincount(self._patients) @ weights
        metrics = metrics_of_matrices(_matrices(self._matrices["model"], weights))
        for name in self._baselines:
            baseline = metrics_of_matrices(_matrices(self._matrices[name], weights))
            metrics |= {f"{metric} over {name}": metrics[metric] - baseline[metric] for metric in COMPARED_METRICS}
        metrics |= {name: np.abs(gaps.T @ weights).sum(axis=0) / n for name, gaps in self._gaps.items()}
        metrics |= {name: (losses.T @ weights)[0] / n for name, losses in self._losses.items()}
        metrics |= self._operating_metrics(weights)
        photograph_weights = weights[self._patients]
        areas = np.stack([ranked(photograph_weights)[0] for ranked in self._by_grade])
        metrics |= {"auc_by_grade": areas, "auc": _mean_of_defined(areas)}
        metrics["referable_auc"], metrics["sensitivity_at_90_specificity"] = self._referable(photograph_weights)
        return metrics

    def _sum_by_patient(self, values: Floats) -> Floats:
        """Return the sums over each patient's photographs, (P, K), of values (N, K)."""
        sums = np.zeros((self._n_patients, values.shape[1]))
        np.add.at(sums, self._patients, values)
        return sums

    def _operating_metrics(self, weights: Floats) -> dict[str, Floats]:
        true_positives, true_negatives, positives, negatives = self._referral_counts.T @ weights
        if not self._has_threshold:
            true_positives = np.full_like(true_positives, np.nan)
            true_negatives = np.full_like(true_negatives, np.nan)
        return {
            "operating_sensitivity": _ratio(true_positives, positives),
            "operating_specificity": _ratio(true_negatives, negatives),
        }


def metrics_of_matrices(matrices: Floats) -> dict[str, Floats]:
    """Return the metrics of R confusion matrices, defined as in `retina.metrics.grading`.

    Args:
        matrices: float64 (5, 5, R), rows true grades, columns predicted grades.

    Returns:
        Each metric, float64 (R,), or (5, R) for "recall" and "precision".

    Example:
        >>> metrics_of_matrices(np.eye(5)[:, :, None])["qwk"].tolist()
        [1.0]
    """
    n, true, guess = matrices.sum(axis=(0, 1)), matrices.sum(axis=1), matrices.sum(axis=0)
    right = np.einsum("iir->ir", matrices)
    recall, precision = _ratio(right, true), _ratio(right, guess)
    observed = np.einsum("ij,ijr->r", SQUARED_ERRORS, matrices) / n
    by_chance = np.einsum("ij,ir,jr->r", SQUARED_ERRORS, true, guess) / n**2
    return {
        "accuracy": right.sum(axis=0) / n,
        "balanced_accuracy": _mean_of_defined(recall),
        "qwk": np.where(by_chance > 0, 1 - _ratio(observed, by_chance), 0.0),
        "macro_f1": _mean_of_defined(_ratio(2 * right, true + guess)),
        "recall": recall,
        "precision": precision,
    }


@dataclass(frozen=True)
class RankedScores:
    """The ranks of positive photographs among the negative ones by a score.

    Attributes:
        positives: indices of the positive photographs.
        negatives: indices of the negative photographs, in ascending order of the score.
        lower: for each positive, the number of negatives with a lower score.
        no_higher: for each positive, the number of negatives with no higher score.
    """

    positives: Ints
    negatives: Ints
    lower: Ints
    no_higher: Ints

    @classmethod
    def from_scores(cls, positive: npt.NDArray[np.bool_], score: Floats) -> Self:
        """Rank photographs by whether they are positive and by their scores, both shape (N,)."""
        positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
        negatives = negatives[score[negatives].argsort(kind="stable")]
        lower, no_higher = (np.searchsorted(score[negatives], score[positives], side) for side in ("left", "right"))
        return cls(positives, negatives, lower, no_higher)

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the area under the ROC curve and the sensitivity at 90% specificity, (R,) each.

        Args:
            weights: R weightings of the photographs, (N, R).

        Example:
            >>> ranked = RankedScores.from_scores(np.array([False, True, False]), np.array([0.1, 0.5, 0.9]))
            >>> area, sensitivity = ranked(np.array([[1.0, 3.0], [1.0, 1.0], [1.0, 1.0]]))
            >>> area.tolist(), sensitivity.tolist()
            ([0.5, 0.75], [0.0, 0.0])
        """
        positives = weights[self.positives]
        below = np.zeros((len(self.negatives) + 1, weights.shape[1]))
        np.cumsum(weights[self.negatives], axis=0, out=below[1:])
        n_positive, n_negative = positives.sum(axis=0), below[-1]
        lower = below[self.lower]
        pairs = (positives * (lower + below[self.no_higher])).sum(axis=0) / 2  # a tie counts one half
        # whether the threshold that just includes a positive is specific enough
        is_specific = lower >= (TARGET_SPECIFICITY - SHARE_TOLERANCE) * n_negative
        detected = np.where(n_negative > 0, (positives * is_specific).sum(axis=0), np.nan)
        return _ratio(pairs, n_positive * n_negative), _ratio(detected, n_positive)


def _one_hot(true: Ints, guess: Ints) -> Floats:
    return np.asarray(np.eye(GRADES * GRADES)[true * GRADES + guess])


def _matrices(sums: Floats, weights: Floats) -> Floats:
    return np.asarray(sums.T @ weights).reshape(GRADES, GRADES, -1)


def _losses(grades: Ints, probabilities: Floats) -> Floats:
    """Return each photograph's negative log-likelihood; probabilities are at least 2.2e-16, as in scikit-learn."""
    p = probabilities[np.arange(len(grades)), grades]
    return np.asarray(-np.log(np.maximum(p, np.finfo(np.float64).eps)))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return `numerator` / `denominator`, NaN where `denominator` is 0."""
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator > 0))


def _mean_of_defined(values: Floats) -> Floats:
    """Return the mean over the first axis of the values that are not NaN; NaN where all are."""
    return _ratio(np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0))
