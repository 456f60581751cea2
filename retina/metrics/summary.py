"""From a table of predictions to everything that is claimed of a model: the door of this room.

The temperature and the operating point come from validation alone; test is only measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import metrics as sk

from retina.config import GRADES
from retina.metrics import baselines, bootstrap, calibration, grading, operating_point
from retina.metrics.bootstrap import RESAMPLES
from retina.metrics.operating_point import OperatingPoint
from retina.metrics.predictions import SplitPredictions
from retina.metrics.vectorized import VectorizedMetrics
from retina.metrics.verdict import COMPARED_METRICS, verdict

Floats = npt.NDArray[np.float64]
DISTANCES = ("ece", "ece_calibrated")
"""Numbers whose interval is that of `bootstrap.distance_interval`."""


def summarize(frame: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """What metrics.json says of a model's predictions.

    Args:
        frame: `seen.COLUMNS`, rows of the splits "val" and "test"; best/predictions.csv, as pandas reads it, say.
        resamples: of the patients of each split.
        seed: of the resamples.

    Returns:
        Plain values for a JSON file, null where a number is not defined: "verdict" (one sentence, on test),
        "temperature", "operating_point", and for "val" and "test" the numbers, their 95% "intervals" and "baselines".

    Raises:
        ValueError: as `SplitPredictions.of`, or as `retina.metrics.grading.compute_metrics`.
    """
    seen = {split: SplitPredictions.of(frame, split) for split in ("val", "test")}
    temperature = calibration.fit_temperature(seen["val"].grades, seen["val"].probabilities)
    point = operating_point.choose_operating_point(seen["val"].grades, seen["val"].probabilities)
    told = {
        name: summarize_split(split, temperature, point, resamples=resamples, seed=seed) for name, split in seen.items()
    }
    return {
        "verdict": verdict(told["test"], "test"),
        "temperature": temperature,
        "operating_point": point.as_json(),
        **told,
    }


def summarize_split(
    seen: SplitPredictions, temperature: float, point: OperatingPoint, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """What metrics.json says of one split, measured with a temperature and operating point that are given."""
    calibrated = calibration.apply_temperature(seen.probabilities, temperature)
    operated = _operated(seen, point)
    numbers = {
        **grading.compute_metrics(seen.grades, seen.probabilities, seen.predicted).as_json(),
        "ece": calibration.expected_calibration_error(seen.grades, seen.probabilities),
        "ece_calibrated": calibration.expected_calibration_error(seen.grades, calibrated),
        "nll": _negative_log_likelihood(seen, seen.probabilities),
        "nll_calibrated": _negative_log_likelihood(seen, calibrated),
        "operating": operated,
    }
    drawn = bootstrap.resample_metrics(
        VectorizedMetrics(seen, calibrated, point), seen.n_patients, len(seen), resamples=resamples, seed=seed
    )
    flat = {**numbers, **{f"operating_{name}": value for name, value in operated.items()}}
    return {
        "n": numbers.pop("n"),
        "patients": seen.n_patients,
        **numbers,
        "intervals": {name: _intervals(drawn[name], flat[name], name) for name in flat if name in drawn},
        "resamples": resamples,
        "baselines": _baselines(seen, drawn),
    }


def _operated(seen: SplitPredictions, point: OperatingPoint) -> dict[str, float | None]:
    refers = point.refers(seen.probabilities)
    positive = seen.grades >= grading.REFERABLE_GRADE
    if refers is None:
        return {"sensitivity": None, "specificity": None}
    rates = {"labels": [False, True], "average": None, "zero_division": np.nan}
    specificity, sensitivity = sk.recall_score(positive, refers, **rates)
    return {"sensitivity": grading.to_json_value(sensitivity), "specificity": grading.to_json_value(specificity)}


def _negative_log_likelihood(seen: SplitPredictions, probabilities: Floats) -> float:
    return float(sk.log_loss(seen.grades, probabilities, labels=range(GRADES)))


def _intervals(drawn: Floats, value: Any, name: str) -> Any:
    if isinstance(value, list):
        return [_intervals(one, number, name) for one, number in zip(drawn, value, strict=True)]
    if value is None:
        return None
    found = bootstrap.distance_interval(value, drawn) if name in DISTANCES else bootstrap.percentile_interval(drawn)
    # where every resample says the same, all photographs or none being right, the bootstrap knows no uncertainty at all
    return _plain(found) if found and found[0] < found[1] else None


def _plain(between: tuple[float, float] | None) -> list[float] | None:
    return list(between) if between else None


def _baselines(seen: SplitPredictions, drawn: dict[str, Floats]) -> dict[str, dict[str, Any]]:
    told = {}
    for name, guess in seen.baselines.items():
        found = baselines.measure_baseline(seen.grades, guess)
        gain = {
            number: _plain(bootstrap.percentile_interval(drawn[f"{number} over {name}"])) for number in COMPARED_METRICS
        }
        told[name] = {"accuracy": found.accuracy, "qwk": found.qwk, "gain": gain, "n": len(seen)}
    told["majority"]["grade"] = int(seen.majority[0])
    if "fellow_eye" in told:
        told["fellow_eye"]["with_fellow"] = seen.with_fellow
    return told
