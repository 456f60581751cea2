"""Simulated predictions for patients whose two eyes are correlated."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from retina.metrics.predictions import PREDICTION_COLUMNS
from retina.metrics.probabilities import PROBABILITY_COLUMNS

CUTS = np.array([0.0, 0.4, 1.0, 1.6])
CENTRES = np.array([-1.0, 0.2, 0.7, 1.3, 2.0])


def predictions(
    patients: int = 60,
    *,
    noise: float = 0.5,
    sharpness: float = 4.0,
    alike: float = 0.8,
    seed: int = 0,
    fellows: int = 0,
) -> pd.DataFrame:
    """Simulate a table like best/predictions.csv: `patients` with two eyes in each of validation and test.

    Args:
        patients: number of patients in each split.
        noise: standard deviation of the grader's error of the severity.
        sharpness: confidence of the grader.
        alike: correlation of the two eyes, both of their severity and of the grader's error.
        seed: seed of the random generator.
        fellows: number of first photographs of test whose fellow eye is in train with grade 0.
    """
    rng = np.random.default_rng(seed)
    frame = pd.concat(
        [_split(split, patients, rng, noise=noise, sharpness=sharpness, alike=alike) for split in ("val", "test")]
    )
    known = np.where((frame["split"] == "test") & (np.arange(len(frame)) - 2 * patients < fellows), 0.0, np.nan)
    return frame.assign(majority=0, fellow_eye=pd.array(known, dtype="Int64"))[PREDICTION_COLUMNS]


def _split(
    split: str, patients: int, rng: np.random.Generator, *, noise: float, sharpness: float, alike: float
) -> pd.DataFrame:
    severity = _of_two_eyes(patients, alike, rng)
    perceived = severity + noise * _of_two_eyes(patients, alike, rng)
    p = np.exp(-sharpness * (perceived[:, None] - CENTRES) ** 2)
    p /= p.sum(axis=1, keepdims=True)
    n = 2 * patients
    frame = pd.DataFrame({"split": split, "image": [f"{split}{i}" for i in range(n)]})
    frame["patient"] = [f"{split}{i // 2}" for i in range(n)]
    frame["eye"] = ["left", "right"] * patients
    frame["grade"] = np.searchsorted(CUTS, severity)
    frame["predicted"] = p.argmax(axis=1)
    frame[PROBABILITY_COLUMNS] = p
    return frame


def _of_two_eyes(patients: int, alike: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    shared, own = rng.normal(size=patients).repeat(2), rng.normal(size=2 * patients)
    return np.asarray(np.sqrt(alike) * shared + np.sqrt(1 - alike) * own)
