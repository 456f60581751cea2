"""Whether a probability means what it says: temperature scaling, and the expected calibration error."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy import optimize, special
from torchmetrics.functional.classification import multiclass_calibration_error

from retina.config import GRADES
from retina.metrics.probabilities import MAX_TEMPERATURE, MIN_TEMPERATURE, validate_probabilities

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
BINS = 15
"""Of the confidence, of equal width: as in Guo et al. 2017."""


def fit_temperature(grades: Ints, probabilities: Floats) -> float:
    """The temperature at which `apply_temperature` is likeliest (Guo et al. 2017, arXiv 1706.04599).

    Args:
        grades: true grades, int64 (N,).
        probabilities: of the five grades, float64 (N, 5).

    Returns:
        0.05 to 20; above 1 where the model is too sure of itself. As the likelihood is convex in 1/T, it is the best.

    Raises:
        ValueError: a row is no probabilities, see `retina.metrics.probabilities.validate_probabilities`.
    """
    logs = _logs(validate_probabilities(probabilities))

    def loss(log_temperature: float) -> float:
        told = special.log_softmax(logs / math.exp(log_temperature), axis=1)
        return -float(told[np.arange(len(grades)), grades].mean())

    found = optimize.minimize_scalar(
        loss, bounds=(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)), method="bounded"
    )
    return math.exp(found.x)


def apply_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Probabilities whose logits are divided by `fit_temperature`, float64 (N, 5): their order stays, so does the grade.

    Raises:
        ValueError: a row is no probabilities, or the temperature is not above 0 and finite, or leaves none.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"the temperature is {temperature}, allowed: finite and above 0")
    with np.errstate(over="ignore", invalid="ignore"):
        told = special.softmax(_logs(validate_probabilities(probabilities)) / temperature, axis=1)
    return validate_probabilities(told, f"probabilities at the temperature {temperature:g}")


def expected_calibration_error(grades: Ints, probabilities: Floats) -> float:
    """How far the most probable grade's probability is from its share of right ones; 0 to 1 (torchmetrics).

    A mean over bins of the probability, each by its photographs. It is of the probabilities alone: where a model's
    grade is not its most probable one, that does not enter.

    Raises:
        ValueError: a row is no probabilities, see `retina.metrics.probabilities.validate_probabilities`.
    """
    told, true = torch.tensor(validate_probabilities(probabilities)), torch.tensor(grades)
    return float(multiclass_calibration_error(told, true, num_classes=GRADES, n_bins=BINS, norm="l1"))


def calibration_gaps(grades: Ints, probabilities: Floats) -> Floats:
    """Right or not (1 or 0) less the confidence, in the column of its bin: float64 (N, BINS + 1), other columns 0.

    The expected calibration error is the sum over the columns of the absolute column sums, divided by N. Bins are
    torchmetrics': the lower edge belongs to a bin, and a confidence of 1 has one of its own.
    """
    confidence = validate_probabilities(probabilities).max(axis=1)
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float32)
    at = torch.bucketize(torch.from_numpy(confidence).float(), edges, right=True).numpy() - 1
    gaps = np.zeros((len(grades), BINS + 1))
    gaps[np.arange(len(grades)), at] = (probabilities.argmax(axis=1) == grades) - confidence
    return gaps


def _logs(probabilities: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)))
