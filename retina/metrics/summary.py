"""From a table of predictions to everything that metrics.json reports of a model.

The temperature and the operating point come from validation alone; on test the metrics are only measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import metrics as sk

from retina.config import GRADES
from retina.config.splits import EVALUATED_SPLITS
from retina.metrics import baselines, bootstrap, calibration, grading
from retina.metrics.bootstrap import RESAMPLES
from retina.metrics.operating_point import OperatingPoint, choose_operating_point
from retina.metrics.predictions import SplitPredictions
from retina.metrics.probabilities import REFERABLE_GRADE
from retina.metrics.vectorized import VectorizedMetrics
from retina.metrics.verdict import COMPARED_METRICS, verdict

Floats = npt.NDArray[np.float64]
DISTANCE_METRICS = ("ece", "ece_calibrated")
"""Metrics whose interval is computed by `bootstrap.distance_interval`."""


def summarize(frame: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Compute everything that metrics.json reports of a model's predictions.

    Args:
        frame: `predictions.PREDICTION_COLUMNS`, rows of the splits "val" and "test"; for example best/predictions.csv
            as pandas reads it.
        resamples: number of resamples of the patients of each split.
        seed: seed of the resamples.

    Returns:
        Plain values for a JSON file, null where a metric is not defined: "verdict" (one sentence, on test),
        "temperature", "operating_point", and for "val" and "test" the metrics, their 95% "intervals" and "baselines".

    Raises:
        ValueError: as `SplitPredictions.from_frame` and `retina.metrics.grading.compute_metrics`.
    """
    predictions = {split: SplitPredictions.from_frame(frame, split) for split in EVALUATED_SPLITS}
    val = predictions["val"]
    temperature = calibration.fit_temperature(val.grades, val.probabilities)
    point = choose_operating_point(val.grades, val.probabilities)
    splits = {
        name: summarize_split(split, temperature, point, resamples=resamples, seed=seed)
        for name, split in predictions.items()
    }
    return {
        "verdict": verdict(splits["test"], "test"),
        "temperature": temperature,
        "operating_point": point.as_json(),
        **splits,
    }


def summarize_split(
    predictions: SplitPredictions,
    temperature: float,
    point: OperatingPoint,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute what metrics.json reports of one split, with a given temperature and operating point."""
    calibrated = calibration.apply_temperature(predictions.probabilities, temperature)
    operating = _operating_metrics(predictions, point)
    grades, probabilities = predictions.grades, predictions.probabilities
    metrics = {
        **grading.compute_metrics(grades, probabilities, predictions.predicted).as_json(),
        "ece": calibration.expected_calibration_error(grades, probabilities),
        "ece_calibrated": calibration.expected_calibration_error(grades, calibrated),
        "nll": _negative_log_likelihood(predictions, probabilities),
        "nll_calibrated": _negative_log_likelihood(predictions, calibrated),
        "operating": operating,
    }
    distributions = bootstrap.resample_metrics(
        VectorizedMetrics(predictions, calibrated, point),
        predictions.n_patients,
        len(predictions),
        resamples=resamples,
        seed=seed,
    )
    flat = {**metrics, **{f"operating_{name}": value for name, value in operating.items()}}
    return {
        "n": metrics.pop("n"),
        "patients": predictions.n_patients,
        **metrics,
        "intervals": {
            name: _intervals(distributions[name], flat[name], name) for name in flat if name in distributions
        },
        "resamples": resamples,
        "baselines": _baselines(predictions, distributions),
    }


def _operating_metrics(predictions: SplitPredictions, point: OperatingPoint) -> dict[str, float | None]:
    refers = point.refers(predictions.probabilities)
    positive = predictions.grades >= REFERABLE_GRADE
    if refers is None:
        return {"sensitivity": None, "specificity": None}
    by_class = {"labels": [False, True], "average": None, "zero_division": np.nan}
    specificity, sensitivity = sk.recall_score(positive, refers, **by_class)
    return {"sensitivity": grading.to_json_value(sensitivity), "specificity": grading.to_json_value(specificity)}


def _negative_log_likelihood(predictions: SplitPredictions, probabilities: Floats) -> float:
    return float(sk.log_loss(predictions.grades, probabilities, labels=range(GRADES)))


def _intervals(distribution: Floats, value: Any, name: str) -> Any:
    """Return the interval of a metric, or a list of one interval per grade."""
    if isinstance(value, list):
        return [_intervals(row, number, name) for row, number in zip(distribution, value, strict=True)]
    if value is None:
        return None
    if name in DISTANCE_METRICS:
        interval = bootstrap.distance_interval(value, distribution)
    else:
        interval = bootstrap.percentile_interval(distribution)
    # if the metric is the same in every resample (all photographs are right, or none), the bootstrap has no estimate
    return list(interval) if interval and interval[0] < interval[1] else None


def _baselines(predictions: SplitPredictions, distributions: dict[str, Floats]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for name, predicted in predictions.baselines.items():
        baseline = baselines.measure_baseline(predictions.grades, predicted)
        gain = {
            metric: bootstrap.percentile_interval(distributions[f"{metric} over {name}"]) for metric in COMPARED_METRICS
        }
        rows[name] = {
            "accuracy": baseline.accuracy,
            "qwk": baseline.qwk,
            "gain": {metric: list(interval) if interval else None for metric, interval in gain.items()},
            "n": len(predictions),
        }
    rows["majority"]["grade"] = int(predictions.majority[0])
    if "fellow_eye" in rows:
        rows["fellow_eye"]["with_fellow"] = predictions.with_fellow
    return rows
