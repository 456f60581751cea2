"""A validated table of predictions: the grades of a model and of its baselines for each photograph of a split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from retina.metrics import baselines
from retina.metrics.probabilities import PROBABILITY_COLUMNS, validate_probabilities

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_OF_MODEL = ["split", "image", "patient", "eye", "grade", "predicted", *PROBABILITY_COLUMNS]
PREDICTION_COLUMNS = [*_OF_MODEL, "majority", "fellow_eye"]
"""Columns of predictions.csv. The last two are the baselines' predictions; fellow_eye is empty where it is unknown."""


@dataclass(frozen=True)
class SplitPredictions:
    """The predictions for a split of N photographs of P patients.

    Attributes:
        grades: true grades, int64 (N,).
        predicted: the model's grades, int64 (N,).
        probabilities: probabilities of the five grades, float64 (N, 5).
        patients: index of each photograph's patient, int64 (N,), 0 to P - 1.
        majority: predictions of the baseline that always predicts the commonest grade of train, int64 (N,).
        fellow_eye: predictions of the baseline that copies the fellow eye's grade, int64 (N,); None if no photograph's
            fellow is known.
        with_fellow: number of photographs whose fellow is known.
    """

    grades: Ints
    predicted: Ints
    probabilities: Floats
    patients: Ints
    majority: Ints
    fellow_eye: Ints | None
    with_fellow: int

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, split: str) -> Self:
        """Read the rows of `split` from a table with `PREDICTION_COLUMNS`, such as best/predictions.csv.

        Raises:
            ValueError: a column is missing, no row is of `split`, a grade or patient is missing, or the five values of
                a row are no probabilities.

        Example:
            >>> frame = pd.DataFrame({name: [0, 0] for name in PREDICTION_COLUMNS})
            >>> frame = frame.assign(split="val", patient=["a", "a"], grade=[0, 2], p0=1.0)
            >>> predictions = SplitPredictions.from_frame(frame, "val")
            >>> len(predictions), predictions.n_patients, predictions.grades.tolist()
            (2, 1, [0, 2])
        """
        if missing := [name for name in PREDICTION_COLUMNS if name not in frame]:
            raise ValueError(f"the predictions lack the columns {', '.join(missing)}")
        rows = frame[frame["split"] == split]
        if rows.empty:
            raise ValueError(f"no prediction is of the split {split!r}")
        if rows["patient"].isna().any():
            raise ValueError(f"{split}: {rows['patient'].isna().sum()} predictions are of no patient")
        p = rows[PROBABILITY_COLUMNS].to_numpy(dtype=np.float64)
        copied = pd.to_numeric(rows["fellow_eye"]).astype("Int64")
        return cls(
            grades=rows["grade"].to_numpy(dtype=np.int64),
            predicted=rows["predicted"].to_numpy(dtype=np.int64),
            probabilities=validate_probabilities(p, f"predictions of {split}"),
            patients=pd.factorize(rows["patient"])[0].astype(np.int64),
            majority=rows["majority"].to_numpy(dtype=np.int64),
            fellow_eye=baselines.fill_unknown_fellows(copied) if copied.notna().any() else None,
            with_fellow=int(copied.notna().sum()),
        )

    def __len__(self) -> int:
        return len(self.grades)

    @property
    def n_patients(self) -> int:
        """The number of patients, P."""
        return int(self.patients.max()) + 1

    @property
    def baselines(self) -> dict[str, Ints]:
        """The predictions of each baseline, int64 (N,), by its name."""
        copied = {} if self.fellow_eye is None else {"fellow_eye": self.fellow_eye}
        return {"majority": self.majority, **copied}

    def with_ungrouped_photographs(self) -> SplitPredictions:
        """Return a copy in which every photograph is of a patient of its own, as if eyes did not come in pairs."""
        return replace(self, patients=np.arange(len(self)))
