"""Validation of a model's outputs: whether they are probabilities of the five grades, photograph by photograph.

Every comparison with NaN is false and the argmax of NaN is 0, so a grade read from NaN would be 0, "none", and not
referable. Code that reads a grade or a metric from outputs validates them here first. Imports no more than numpy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retina.config import GRADES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PROBABILITY_COLUMNS = [f"p{grade}" for grade in range(GRADES)]
"""Columns of the five probabilities in every table of predictions."""
REFERABLE_GRADE = 2
"""Lowest grade that is sent to an ophthalmologist ("referable", ICDR moderate or worse)."""
NO_GRADE = -1
"""Value of a grade, int64, where the output is not finite; also in the exported graphs."""
SUM_TOLERANCE = 1e-3
"""Largest difference of the sum from 1. A softmax in float32 has 1e-6, five values of four digits have 2.5e-4."""

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Range of temperatures. A value outside it would mean that the probabilities are useless, or perfect, as they are on
few photographs."""


def find_problems(
    probabilities: npt.ArrayLike, grades: npt.ArrayLike | None = None, referable: npt.ArrayLike | None = None
) -> list[str]:
    """Return what is wrong with the output of each photograph, N texts; empty where the output can be used.

    Args:
        probabilities: probabilities of the five grades, (N, 5).
        grades: the model's grades, integers (N,), if it outputs them.
        referable: the model's P(grade >= 2), (N,), if it outputs that.

    Raises:
        ValueError: the shapes are others.

    Example:
        >>> find_problems([[0.2, 0.2, 0.2, 0.2, 0.2], [0.5, 0.4, 0.0, 0.0, 0.0]])
        ['', "the model's probabilities sum to 0.9, not to 1"]
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != GRADES:
        raise ValueError(f"probabilities have the shape {p.shape}, allowed: (N, {GRADES})")
    score = np.zeros(len(p)) if referable is None else np.asarray(referable, dtype=np.float64)
    grade = np.zeros(len(p), dtype=np.int64) if grades is None else np.asarray(grades)
    if score.shape != (len(p),) or grade.shape != (len(p),):
        raise ValueError(f"{len(p)} photographs have grades {grade.shape} and scores {score.shape}")
    problems = np.full(len(p), "", dtype=object)
    if grades is not None:
        problems[(grade < 0) | (grade >= GRADES)] = f"the model's grade is none of 0 to {GRADES - 1}"
    problems[~((score >= 0) & (score <= 1 + SUM_TOLERANCE))] = "the model's referable score is not between 0 and 1"
    with np.errstate(invalid="ignore", over="ignore"):
        total = p.sum(axis=1)
        is_sum_wrong = ~(np.abs(total - 1) <= SUM_TOLERANCE)
    for row in np.flatnonzero(is_sum_wrong):
        problems[row] = f"the model's probabilities sum to {total[row]:.4g}, not to 1"
    problems[(p < 0).any(axis=1)] = "the model gives a negative probability"
    problems[~np.isfinite(p).all(axis=1) | ~np.isfinite(score)] = "the model's output is not finite"
    return [str(problem) for problem in problems]


def validate_probabilities(probabilities: npt.ArrayLike, name: str = "probabilities") -> Floats:
    """Return the probabilities (N, 5) as float64.

    Args:
        probabilities: the values to validate.
        name: what the values are, for the error message.

    Raises:
        ValueError: another shape, or a row that is not finite, has a negative value or does not sum to 1. The message
            has the number of such rows, and the index and problem of the first.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    bad = [(row, problem) for row, problem in enumerate(find_problems(p)) if problem]
    if bad:
        row, problem = bad[0]
        raise ValueError(f"{name}: {len(bad)} of {len(p)} rows cannot be used; row {row}: {problem}")
    return p


def referable_probability(probabilities: Floats) -> Floats:
    """Return the probability of grade 2 or worse, shape (N,), from those of the five grades, shape (N, 5)."""
    return np.asarray(probabilities[:, REFERABLE_GRADE:].sum(axis=1))
