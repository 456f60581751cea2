"""Whether a model's outputs are the probabilities of the five grades, photograph by photograph.

Every comparison with NaN is false and its argmax is 0, so a grade that is read from NaN is 0, "none", and not
referable. Whoever reads a grade or a number from outputs asks here first. Knows numpy alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retina.config import GRADES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NO_GRADE = -1
"""Stands for a grade, int64, where the output is not finite; also in the exported graphs."""
SUM_TOLERANCE = 1e-3
"""By which the five may miss 1. A softmax in float32 misses it by 1e-6, five numbers of four digits by 2.5e-4."""

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""A temperature beyond these says that the probabilities are useless, or perfect, which they are on few photographs."""


def find_problems(
    probabilities: npt.ArrayLike, grades: npt.ArrayLike | None = None, referable: npt.ArrayLike | None = None
) -> list[str]:
    """What is wrong with each photograph's output, N texts; empty where it can be used.

    Args:
        probabilities: of the five grades, (N, 5).
        grades: the model's, integers (N,), where it gives them.
        referable: its P(grade >= 2), (N,), where it gives that.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != GRADES:
        raise ValueError(f"probabilities have the shape {p.shape}, allowed: (N, {GRADES})")
    score = np.zeros(len(p)) if referable is None else np.asarray(referable, dtype=np.float64)
    grade = np.zeros(len(p), dtype=np.int64) if grades is None else np.asarray(grades)
    if score.shape != (len(p),) or grade.shape != (len(p),):
        raise ValueError(f"{len(p)} photographs have grades {grade.shape} and scores {score.shape}")
    found = np.full(len(p), "", dtype=object)
    if grades is not None:
        found[(grade < 0) | (grade >= GRADES)] = f"the model's grade is none of 0 to {GRADES - 1}"
    found[~((score >= 0) & (score <= 1 + SUM_TOLERANCE))] = "the model's referable score is not between 0 and 1"
    with np.errstate(invalid="ignore", over="ignore"):
        total = p.sum(axis=1)
        wrong_sum = ~(np.abs(total - 1) <= SUM_TOLERANCE)
    for row in np.flatnonzero(wrong_sum):
        found[row] = f"the model's probabilities sum to {total[row]:.4g}, not to 1"
    found[(p < 0).any(axis=1)] = "the model gives a negative probability"
    found[~np.isfinite(p).all(axis=1) | ~np.isfinite(score)] = "the model's output is not finite"
    return [str(one) for one in found]


def validate_probabilities(probabilities: npt.ArrayLike, what: str = "probabilities") -> Floats:
    """The probabilities (N, 5) as float64.

    Raises:
        ValueError: another shape, or a row that is not finite, has a negative value or does not sum to 1; says how
            many rows and, of the first, which and why.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    bad = [(row, problem) for row, problem in enumerate(find_problems(p)) if problem]
    if bad:
        row, problem = bad[0]
        raise ValueError(f"{what}: {len(bad)} of {len(p)} rows cannot be used; row {row}: {problem}")
    return p
