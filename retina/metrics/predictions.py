"""A table of predictions, checked: what a model and its baselines said of each photograph of a split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from retina.config import GRADES
from retina.metrics import baselines
from retina.metrics.probabilities import validate_probabilities

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PROBABILITY_COLUMNS = [f"p{grade}" for grade in range(GRADES)]
PREDICTION_COLUMNS = [
    "split",
    "image",
    "patient",
    "eye",
    "grade",
    "predicted",
    *PROBABILITY_COLUMNS,
    "majority",
    "fellow_eye",
]
"""Of predictions.csv: the last two are what the baselines say, `fellow_eye_baseline` is empty where it does not know."""


@dataclass(frozen=True)
class SplitPredictions:
    """A split of N photographs of P patients.

    Attributes:
        grades: true grades, int64 (N,).
        predicted: the model's grades, int64 (N,).
        probabilities: of the five grades, float64 (N, 5).
        patients: int64 (N,), 0 to P - 1; photographs of one patient share theirs.
        majority: the baseline that always says the commonest grade of train, int64 (N,).
        fellow_eye: the baseline that copies the fellow eye's grade, int64 (N,); None where it knows no fellow at all.
        with_fellow: photographs of which it does.
    """

    grades: Ints
    predicted: Ints
    probabilities: Floats
    patients: Ints
    majority: Ints
    fellow_eye: Ints | None
    with_fellow: int

    @classmethod
    def of(cls, frame: pd.DataFrame, split: str) -> Self:
        """The rows of `split` in a table that has `PREDICTION_COLUMNS`, such as best/predictions.csv.

        Raises:
            ValueError: a column is missing, no row is of `split`, a grade or patient is missing, or a row's five
                numbers are no probabilities.
        """
        if missing := [name for name in PREDICTION_COLUMNS if name not in frame]:
            raise ValueError(f"the predictions lack the columns {', '.join(missing)}")
        rows = frame[frame["split"] == split]
        if rows.empty:
            raise ValueError(f"no prediction is of the split {split!r}")
        if rows["patient"].isna().any():
            raise ValueError(f"{split}: {rows['patient'].isna().sum()} predictions are of no patient")
        copied = pd.to_numeric(rows["fellow_eye"]).astype("Int64")
        return cls(
            grades=rows["grade"].to_numpy(dtype=np.int64),
            predicted=rows["predicted"].to_numpy(dtype=np.int64),
            probabilities=validate_probabilities(
                rows[PROBABILITY_COLUMNS].to_numpy(dtype=np.float64), f"predictions of {split}"
            ),
            patients=pd.factorize(rows["patient"])[0].astype(np.int64),
            majority=rows["majority"].to_numpy(dtype=np.int64),
            fellow_eye=baselines.fill_unknown_fellows(copied) if copied.notna().any() else None,
            with_fellow=int(copied.notna().sum()),
        )

    def __len__(self) -> int:
        return len(self.grades)

    @property
    def n_patients(self) -> int:
        """P."""
        return int(self.patients.max()) + 1

    @property
    def baselines(self) -> dict[str, Ints]:
        """What each baseline says, int64 (N,), by its name."""
        copied = {} if self.fellow_eye is None else {"fellow_eye": self.fellow_eye}
        return {"majority": self.majority, **copied}

    def with_ungrouped_photographs(self) -> SplitPredictions:
        """The same with every photograph a patient of its own: what who forgets that eyes come in pairs would see."""
        return replace(self, patients=np.arange(len(self)))
