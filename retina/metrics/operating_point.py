"""The operating point: a threshold on the probability of grade 2 or worse, chosen on validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from retina.config import Frozen
from retina.metrics.probabilities import (
    REFERABLE_GRADE,
    SUM_TOLERANCE,
    referable_probability,
    validate_probabilities,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
TARGET_SENSITIVITY, TARGET_SPECIFICITY = 0.87, 0.90
"""About what the first autonomous system had in its trial, 87.2% and 90.7% (Abràmoff et al. 2018, doi
10.1038/s41746-018-0040-6)."""
SHARE_TOLERANCE = 1e-9
"""A share that is smaller than its target by no more than this has reached it: in binary 1 - 0.9 is less than 0.1."""


class OperatingPoint(Frozen):
    """An eye is referred if its P(grade >= 2) is `threshold` or more."""

    threshold: float | None = Field(
        ge=0,
        le=1 + SUM_TOLERANCE,  # a threshold just above 1 refers no eye
        description="None where validation had no referable eye, or only referable eyes",
    )
    chosen_on: str
    target: dict[str, float] = Field(default_factory=dict)
    met: bool = Field(description="whether the target was reached where the threshold was chosen")

    def as_json(self) -> dict[str, Any]:
        """Return the value of "operating_point" in metrics.json."""
        return self.model_dump(mode="json")

    def refers(self, probabilities: Floats) -> npt.NDArray[np.bool_] | None:
        """Return whether each eye is referred, (N,), from the probabilities (N, 5); None without a threshold.

        Raises:
            ValueError: a row does not hold probabilities; NaN must not count as "not referable".
        """
        if self.threshold is None:
            return None
        return referable_probability(validate_probabilities(probabilities)) >= self.threshold


def choose_operating_point(grades: Ints, probabilities: Floats) -> OperatingPoint:
    """Choose the operating point from predictions on validation.

    Among the thresholds that meet both targets, it is the one with the largest smaller margin, since another split will
    reduce the margins. If none meets both, it is the one with the highest sensitivity at a specificity of at least 90%.
    It lies half-way between the scores of two photographs, so that no rounding elsewhere moves one of them across.

    Args:
        grades: true grades, int64 (N,).
        probabilities: probabilities of the five grades, float64 (N, 5), without temperature scaling.

    Returns:
        The operating point; its threshold is None if all photographs are of referable eyes, or none.

    Raises:
        ValueError: a row does not hold probabilities, see `retina.metrics.probabilities.validate_probabilities`.

    Example:
        >>> referable = np.array([0.1, 0.2, 0.6, 0.7])
        >>> probabilities = np.zeros((4, 5))
        >>> probabilities[:, 0], probabilities[:, 2] = 1 - referable, referable
        >>> point = choose_operating_point(np.array([0, 1, 2, 4]), probabilities)
        >>> round(point.threshold, 3), point.met
        (0.4, True)
        >>> point.refers(probabilities).tolist()
        [False, False, True, True]
    """
    from sklearn import metrics as sk  # noqa: PLC0415  # predict reads operating points, and needs no scikit-learn

    probabilities = validate_probabilities(probabilities)
    positive = grades >= REFERABLE_GRADE
    if positive.all() or not positive.any():
        return _operating_point(None, met=False)
    scores = referable_probability(probabilities)
    false_positive_rate, sensitivity, thresholds = sk.roc_curve(positive, scores, drop_intermediate=False)
    specificity = 1 - false_positive_rate
    margin = np.minimum(sensitivity - TARGET_SENSITIVITY, specificity - TARGET_SPECIFICITY)
    met = bool(margin.max() >= -SHARE_TOLERANCE)
    allowed = np.where(specificity >= TARGET_SPECIFICITY - SHARE_TOLERANCE, sensitivity, -1.0)
    index = int((margin if met else allowed).argmax())  # of equal ones the first: the highest threshold
    return _operating_point(_threshold_after(thresholds, index), met=met)


def _operating_point(threshold: float | None, *, met: bool) -> OperatingPoint:
    target = {"sensitivity": TARGET_SENSITIVITY, "specificity": TARGET_SPECIFICITY}
    return OperatingPoint(threshold=threshold, chosen_on="val", target=target, met=met)


def _threshold_after(scores: Floats, index: int) -> float:
    """Return a threshold that divides the descending `scores` after `index`; scores[0] stands for infinity."""
    if index == 0:
        return float(np.nextafter(scores[1], np.inf))
    lower = float(scores[index + 1]) if index + 1 < len(scores) else 0.0
    middle = (float(scores[index]) + lower) / 2
    return middle if middle > lower else float(scores[index])
