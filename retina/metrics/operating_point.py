"""Whom to refer: a threshold on the probability of grade 2 or worse, chosen on validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from retina.metrics.grading import REFERABLE_GRADE, SHARE_TOLERANCE, TARGET_SPECIFICITY, referable_probability
from retina.metrics.probabilities import validate_probabilities

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
TARGET_SENSITIVITY = 0.87
"""With a specificity of 0.90 what the first autonomous system showed in its trial, 87.2% and 90.7% (Abràmoff et al.
2018, doi 10.1038/s41746-018-0040-6)."""


@dataclass(frozen=True)
class OperatingPoint:
    """Who has `threshold` or more is referred; None where it cannot be chosen. `met`: it reaches both targets."""

    threshold: float | None
    met: bool

    def as_json(self) -> dict[str, Any]:
        """As it stands in metrics.json."""
        target = {"sensitivity": TARGET_SENSITIVITY, "specificity": TARGET_SPECIFICITY}
        return {"threshold": self.threshold, "chosen_on": "val", "target": target, "met": self.met}

    def refers(self, probabilities: Floats) -> npt.NDArray[np.bool_] | None:
        """Who is referred, shape (N,), by the probabilities of the five grades, shape (N, 5).

        Raises:
            ValueError: a row is no probabilities: nobody is "not referable" because of NaN.
        """
        return (
            None
            if self.threshold is None
            else referable_probability(validate_probabilities(probabilities)) >= self.threshold
        )


def choose_operating_point(grades: Ints, probabilities: Floats) -> OperatingPoint:
    """The threshold to use, from validation alone.

    Of the thresholds that meet both targets the one with the most to spare, that is the largest smaller margin, since
    another split will take some of it away. If none does, the one with the highest sensitivity at a specificity of at
    least 90%. It lies half-way between two photographs, so that no rounding elsewhere moves one of them across.

    Args:
        grades: true grades, int64 (N,).
        probabilities: of the five grades, float64 (N, 5); not tempered.

    Returns:
        No threshold where all photographs are of referable eyes, or none.

    Raises:
        ValueError: a row is no probabilities, see `retina.metrics.probabilities.validate_probabilities`.
    """
    probabilities = validate_probabilities(probabilities)
    positive = grades >= REFERABLE_GRADE
    if positive.all() or not positive.any():
        return OperatingPoint(None, met=False)
    false_alarms, sensitivity, scores = sk.roc_curve(
        positive, referable_probability(probabilities), drop_intermediate=False
    )
    specificity = 1 - false_alarms
    spare = np.minimum(sensitivity - TARGET_SENSITIVITY, specificity - TARGET_SPECIFICITY)
    met = bool(spare.max() >= -SHARE_TOLERANCE)
    allowed = np.where(specificity >= TARGET_SPECIFICITY - SHARE_TOLERANCE, sensitivity, -1.0)
    at = int((spare if met else allowed).argmax())  # of equal ones the first: the highest threshold
    return OperatingPoint(_between(scores, at), met)


def _between(scores: Floats, at: int) -> float:
    """A threshold that divides the descending `scores` after the place `at`; the first one stands for infinity."""
    if at == 0:
        return float(np.nextafter(scores[1], np.inf))
    lower = float(scores[at + 1]) if at + 1 < len(scores) else 0.0
    middle = (float(scores[at]) + lower) / 2
    return middle if middle > lower else float(scores[at])
