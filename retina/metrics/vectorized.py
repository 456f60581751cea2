"""All numbers of a split for many weightings of its patients at once, as a bootstrap needs them.

scikit-learn and torchmetrics, which give the numbers themselves, take one weighting at a time, if any: 2,000 of them
over 10,000 photographs would take minutes. The tests hold these to be the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from retina.config import GRADES
from retina.metrics import calibration
from retina.metrics.grading import REFERABLE_GRADE, SHARE_TOLERANCE, TARGET_SPECIFICITY, referable_probability
from retina.metrics.operating_point import OperatingPoint
from retina.metrics.predictions import SplitPredictions
from retina.metrics.verdict import COMPARED_METRICS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
DISAGREEMENT = (np.arange(GRADES)[:, None] - np.arange(GRADES)) ** 2.0


class VectorizedMetrics:
    """A split whose numbers can be told under any weights of its P patients: called with float64 (P, R), R weightings.

    It gives each number of metrics.json by its name, float64 (R,), or (5, R) where it is of a grade; NaN where it is
    not defined. What a model has more than a baseline is named "qwk over majority".
    """

    def __init__(self, seen: SplitPredictions, calibrated: Floats, point: OperatingPoint) -> None:
        self._seen = seen
        matrices = {"model": seen.predicted, **seen.baselines}
        self._matrices = {name: self._sum(_one_hot(seen.grades, guess)) for name, guess in matrices.items()}
        self._gaps, self._losses = {}, {}
        for end, told in {"": seen.probabilities, "_calibrated": calibrated}.items():
            self._gaps[f"ece{end}"] = self._sum(calibration.calibration_gaps(seen.grades, told))
            self._losses[f"nll{end}"] = self._sum(_loss(seen.grades, told)[:, None])
        refers = point.refers(seen.probabilities)
        positive = seen.grades >= REFERABLE_GRADE
        told_right = (
            np.zeros((len(seen), 2)) if refers is None else np.stack([positive & refers, ~positive & ~refers], 1)
        )
        self._referred = self._sum(np.column_stack([told_right, positive, ~positive]))
        self._is_referring = refers is not None
        self._by_grade = [
            RankedScores.of(seen.grades == grade, seen.probabilities[:, grade]) for grade in range(GRADES)
        ]
        self._referable = RankedScores.of(positive, referable_probability(seen.probabilities))

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Every number under each of R weightings, float64 (P, R) with weights of 0 and more."""
        n = np.bincount(self._seen.patients) @ weights
        told = metrics_of_matrices(_matrices(self._matrices["model"], weights))
        for name in self._seen.baselines:
            other = metrics_of_matrices(_matrices(self._matrices[name], weights))
            told |= {f"{number} over {name}": told[number] - other[number] for number in COMPARED_METRICS}
        told |= {name: np.abs(gaps.T @ weights).sum(axis=0) / n for name, gaps in self._gaps.items()}
        told |= {name: (losses.T @ weights)[0] / n for name, losses in self._losses.items()}
        told |= self._operating(weights)
        of_photographs = weights[self._seen.patients]
        areas = np.stack([ranked(of_photographs)[0] for ranked in self._by_grade])
        told |= {"auc_by_grade": areas, "auc": _mean_of_known(areas)}
        told["referable_auc"], told["sensitivity_at_90_specificity"] = self._referable(of_photographs)
        return told

    def _sum(self, values: Floats) -> Floats:
        """Sums over each patient's photographs, (P, K), of values (N, K)."""
        summed = np.zeros((self._seen.n_patients, values.shape[1]))
        np.add.at(summed, self._seen.patients, values)
        return summed

    def _operating(self, weights: Floats) -> dict[str, Floats]:
        found, spared, positive, negative = self._referred.T @ weights
        if not self._is_referring:
            found, spared = np.full_like(found, np.nan), np.full_like(spared, np.nan)
        return {"operating_sensitivity": _ratio(found, positive), "operating_specificity": _ratio(spared, negative)}


def metrics_of_matrices(matrices: Floats) -> dict[str, Floats]:
    """What R confusion matrices tell, float64 (5, 5, R), rows true grades; defined as in `retina.metrics.grading`."""
    n, true, guess = matrices.sum(axis=(0, 1)), matrices.sum(axis=1), matrices.sum(axis=0)
    right = np.einsum("iir->ir", matrices)
    recall, precision = _ratio(right, true), _ratio(right, guess)
    seen = np.einsum("ij,ijr->r", DISAGREEMENT, matrices) / n
    by_chance = np.einsum("ij,ir,jr->r", DISAGREEMENT, true, guess) / n**2
    return {
        "accuracy": right.sum(axis=0) / n,
        "balanced_accuracy": _mean_of_known(recall),
        "qwk": np.where(by_chance > 0, 1 - _ratio(seen, by_chance), 0.0),
        "macro_f1": _mean_of_known(_ratio(2 * right, true + guess)),
        "recall": recall,
        "precision": precision,
    }


@dataclass(frozen=True)
class RankedScores:
    """Positives among negatives by a score.

    Attributes:
        positives: their places among the photographs.
        negatives: theirs, in ascending order of the score.
        lower: for each positive, how many negatives have a lower score.
        no_higher: for each positive, how many have none that is higher.
    """

    positives: Ints
    negatives: Ints
    lower: Ints
    no_higher: Ints

    @classmethod
    def of(cls, positive: npt.NDArray[np.bool_], score: Floats) -> Self:
        """From who is positive and the scores, both shape (N,)."""
        positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
        negatives = negatives[score[negatives].argsort(kind="stable")]
        lower, no_higher = (np.searchsorted(score[negatives], score[positives], side) for side in ("left", "right"))
        return cls(positives, negatives, lower, no_higher)

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Area under the ROC curve, and sensitivity at 90% specificity, each (R,), under weights (N, R)."""
        positives = weights[self.positives]
        below = np.zeros((len(self.negatives) + 1, weights.shape[1]))
        np.cumsum(weights[self.negatives], axis=0, out=below[1:])
        n_positive, n_negative = positives.sum(axis=0), below[-1]
        lower = below[self.lower]
        pairs = (positives * (lower + below[self.no_higher])).sum(axis=0) / 2  # a tie is half won
        spared = (
            lower >= (TARGET_SPECIFICITY - SHARE_TOLERANCE) * n_negative
        )  # at the threshold that just finds the positive
        found = np.where(n_negative > 0, (positives * spared).sum(axis=0), np.nan)
        return _ratio(pairs, n_positive * n_negative), _ratio(found, n_positive)


def _one_hot(true: Ints, guess: Ints) -> Floats:
    return np.asarray(np.eye(GRADES * GRADES)[true * GRADES + guess])


def _matrices(summed: Floats, weights: Floats) -> Floats:
    return np.asarray(summed.T @ weights).reshape(GRADES, GRADES, -1)


def _loss(grades: Ints, probabilities: Floats) -> Floats:
    """Negative log-likelihood of each photograph; a probability of 0 counts as scikit-learn has it, 2.2e-16."""
    told = probabilities[np.arange(len(grades)), grades]
    return np.asarray(-np.log(np.maximum(told, np.finfo(np.float64).eps)))


def _ratio(some: Floats, of: Floats) -> Floats:
    """`some` / `of`, NaN where `of` is 0."""
    return np.asarray(np.divide(some, of, out=np.full(np.broadcast(some, of).shape, np.nan), where=of > 0))


def _mean_of_known(values: Floats) -> Floats:
    """Mean over the first axis of what is not NaN; NaN where nothing is known."""
    return _ratio(np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0))
