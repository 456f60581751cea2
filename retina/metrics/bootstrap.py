"""Intervals by patient: resamples draw patients, not photographs, since a patient's two eyes are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

Floats = npt.NDArray[np.float64]
RESAMPLES = 2_000
CONFIDENCE = 0.95
MIN_DEFINED_SHARE = 0.95
"""An interval is given where the number is defined in this share of the resamples. A grade is in fewer when one or two
patients have it; they would give an interval without width, as if it were certain."""
MAX_WEIGHTS = 2_000_000
"""Weights that are held at a time, 16 MB of them."""


def draw_patient_weights(patients: int, resamples: int, seed: int, at_once: int) -> Iterator[Floats]:
    """How often each patient is drawn when as many are drawn with replacement as there are.

    Yields:
        float64 (patients, R), R at most `at_once`, `resamples` in all; the seed alone decides which they are.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, at_once):
        r = min(at_once, resamples - start)
        chosen = rng.integers(patients, size=(r, patients)) + patients * np.arange(r)[:, None]
        drawn = np.bincount(chosen.ravel(), minlength=r * patients).reshape(r, patients)
        yield np.ascontiguousarray(drawn.T, dtype=np.float64)


def resample_metrics(
    numbers: Callable[[Floats], Mapping[str, Floats]], patients: int, photographs: int, resamples: int, seed: int
) -> dict[str, Floats]:
    """What numbers come to under resampling.

    Args:
        numbers: gives them for weights (patients, R), each (R,) or (K, R).
        patients: how many are drawn from, and drawn.
        photographs: of all of them; limits how many resamples are looked at at once.
        resamples: how often they are drawn.
        seed: of the draws.

    Returns:
        Each number, (resamples,) or (K, resamples). All are NaN where there is a single patient to draw.
    """
    at_once = max(1, MAX_WEIGHTS // photographs)
    # of products so small a second thread makes nothing quicker, and waits for a core where others are at work
    with threadpool_limits(limits=1, user_api="blas"):
        parts = [numbers(weights) for weights in draw_patient_weights(patients, resamples, seed, at_once)]
    whole = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    return whole if patients > 1 else {name: np.full_like(values, np.nan) for name, values in whole.items()}


def percentile_interval(distribution: Floats) -> tuple[float, float] | None:
    """The middle 95% of a number under resampling (R,), a percentile interval; None where it says nothing.

    Args:
        distribution: the number in each resample, NaN where it is not defined.
    """
    known = distribution[~np.isnan(distribution)]
    if len(known) < MIN_DEFINED_SHARE * len(distribution):
        return None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    return low, high


def distance_interval(value: float, distribution: Floats) -> tuple[float, float] | None:
    """The 95% interval of a sum of absolute values, as the expected calibration error is.

    Chance adds to such a number, and adds once more in its resamples: its square is about the truth's and the noise's,
    theirs the truth's and twice the noise's. So this is the basic interval (Davison and Hinkley 1997, section 5.2) of
    the square, widened to hold the number itself. Percentiles lie too high: of simulated honest models, on 100 to 4,000
    photographs, they never held the truth, and these always did; of dishonest ones these held it in 87% to 100%.

    Args:
        value: the number itself, 0 and more.
        distribution: the number in each resample, (R,).
    """
    between = percentile_interval(distribution)
    if between is None:
        return None
    low, high = (math.sqrt(max(0.0, 2 * value**2 - end**2)) for end in reversed(between))
    return min(low, value), max(high, value)
