"""Calibration of probabilities: temperature scaling and the expected calibration error."""

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
"""Number of bins of the confidence, of equal width, as in Guo et al. 2017."""


def fit_temperature(grades: Ints, probabilities: Floats) -> float:
    """Return the temperature that maximises the likelihood of the grades (Guo et al. 2017, arXiv 1706.04599).

    Args:
        grades: true grades, int64 (N,).
        probabilities: probabilities of the five grades, float64 (N, 5).

    Returns:
        0.05 to 20; above 1 for an overconfident model. The negative log-likelihood is convex in 1/T, so this is the
        global optimum.

    Raises:
        ValueError: a row does not hold probabilities, see `retina.metrics.probabilities.validate_probabilities`.

    Example:
        Three of four grades are right where the model gives them a probability of 0.99:

        >>> probabilities = np.full((4, 5), 0.0025) + 0.9875 * np.eye(5)[[0, 1, 2, 3]]
        >>> temperature = fit_temperature(np.array([0, 1, 2, 4]), probabilities)
        >>> round(temperature, 1)
        2.4
        >>> apply_temperature(probabilities, temperature).max(axis=1).round(2).tolist()
        [0.75, 0.75, 0.75, 0.75]
    """
    logs = _logs(validate_probabilities(probabilities))

    def loss(log_temperature: float) -> float:
        scaled = special.log_softmax(logs / math.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(grades)), grades].mean())

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    return math.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x)


def apply_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Return the probabilities, float64 (N, 5), whose logits are divided by `temperature`.

    Their order stays the same, and so does the most probable grade.

    Raises:
        ValueError: a row does not hold probabilities, or `temperature` is not finite and above 0, or is so small that
            the results are no probabilities.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"the temperature is {temperature}, allowed: finite and above 0")
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = special.softmax(_logs(validate_probabilities(probabilities)) / temperature, axis=1)
    return validate_probabilities(scaled, f"probabilities at the temperature {temperature:g}")


def expected_calibration_error(grades: Ints, probabilities: Floats) -> float:
    """Return the mean difference between confidence and accuracy, 0 to 1, as torchmetrics computes it.

    The confidence is the probability of the most probable grade. Photographs are binned by it, and the bins' absolute
    differences averaged with their numbers of photographs as weights. It depends on the probabilities alone: a model's
    grade that is not its most probable one does not enter.

    Raises:
        ValueError: a row does not hold probabilities, see `retina.metrics.probabilities.validate_probabilities`.

    Example:
        >>> probabilities = np.full((4, 5), 0.1) + 0.5 * np.eye(5)[[0, 1, 2, 3]]  # confidence 0.6, accuracy 0.75
        >>> round(expected_calibration_error(np.array([0, 1, 2, 4]), probabilities), 3)
        0.15
    """
    p, true = torch.tensor(validate_probabilities(probabilities)), torch.tensor(grades)
    return float(multiclass_calibration_error(p, true, num_classes=GRADES, n_bins=BINS, norm="l1"))


def calibration_gaps(grades: Ints, probabilities: Floats) -> Floats:
    """Return each photograph's correctness (1 or 0) minus its confidence, in the column of its bin.

    The expected calibration error is the sum over the columns of the absolute column sums, divided by N. The bins are
    torchmetrics': the lower edge belongs to a bin, and a confidence of 1 has a bin of its own.

    Returns:
        float64 (N, BINS + 1), 0 in all other columns.
    """
    confidence = validate_probabilities(probabilities).max(axis=1)
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float32)
    bins = torch.bucketize(torch.from_numpy(confidence).float(), edges, right=True).numpy() - 1
    gaps = np.zeros((len(grades), BINS + 1))
    gaps[np.arange(len(grades)), bins] = (probabilities.argmax(axis=1) == grades) - confidence
    return gaps


def _logs(probabilities: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)))
