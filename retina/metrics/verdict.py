"""The verdict: one sentence on whether a model is better than the baselines that use no photograph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METRIC_NAMES = {"qwk": "QWK", "accuracy": "accuracy"}
COMPARED_METRICS = tuple(METRIC_NAMES)
"""The metrics by which a model is compared with its baselines."""
MIN_PATIENTS = 6
"""Smallest number of patients for which a model is called better.

With two patients, a quarter of the models that are no better than their baseline would look better in every resample;
with five patients 3%.
"""


def baseline_name(name: str, metrics: Mapping[str, Any]) -> str:
    """Return the name in text of a baseline of metrics.json.

    Args:
        name: "majority" or "fellow_eye".
        metrics: its metrics; an earlier version did not record the majority's grade.

    Example:
        >>> baseline_name("majority", {"grade": 0})
        'always grade 0'
        >>> baseline_name("fellow_eye", {})
        "fellow eye's grade"
    """
    if name == "majority":
        return f"always grade {metrics['grade']}" if metrics.get("grade") is not None else name
    return "fellow eye's grade"


def known_patients(split: Mapping[str, Any]) -> int | None:
    """Return the patients of a split of metrics.json; None if no two photographs are known to be of one patient.

    Example:
        >>> known_patients({"n": 100, "patients": 50})
        50
        >>> known_patients({"n": 100, "patients": 100}) is None
        True
    """
    patients: int | None = split.get("patients")
    return patients if patients is not None and patients < split["n"] else None


def resampling_unit(split: Mapping[str, Any]) -> str:
    """Return, as text, what the resamples of a split of metrics.json are drawn from."""
    if known_patients(split) is not None:
        return "the patients"
    return "the photographs, no two of which are known to be of one patient"


def verdict(split: Mapping[str, Any], name: str) -> str:
    """Return one line that says whether a model is better than its baselines, by accuracy and by QWK.

    A model is better by a metric if the 95% interval of its gain over every baseline is above 0; model and baseline are
    compared in the same resamples of patients. With fewer than `MIN_PATIENTS` patients no model is called better.

    Args:
        split: a split of metrics.json.
        name: name of the split in the text.
    """
    baselines: Mapping[str, Any] = split["baselines"]
    is_enough = split["patients"] >= MIN_PATIENTS
    won = [
        metric
        for metric in COMPARED_METRICS
        if is_enough and all(_is_above_zero(baseline["gain"][metric]) for baseline in baselines.values())
    ]
    lost = [metric for metric in COMPARED_METRICS if metric not in won]
    by = f" by {METRIC_NAMES[won[0]]} but not by {METRIC_NAMES[lost[0]]}" if won and lost else ""
    too_few = f", where {split['patients']} patients are too few (at least {MIN_PATIENTS} are required)"
    versus = "its baseline" if len(baselines) == 1 else "its baselines"
    head = f"{'Better' if won else 'Not better'} than {versus} on {name}{by}{'' if is_enough else too_few}"
    return f"{head}: {'; '.join(_comparison(split, metric) for metric in COMPARED_METRICS)}."


def _is_above_zero(interval: list[float] | None) -> bool:
    return interval is not None and interval[0] > 0


def _comparison(split: Mapping[str, Any], metric: str) -> str:
    interval = split["intervals"][metric]
    shown = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    others = [
        f"{baseline[metric]:.3f} ({baseline_name(name, baseline)})" for name, baseline in split["baselines"].items()
    ]
    return f"{METRIC_NAMES[metric]} {split[metric]:.3f}{shown} against {' and '.join(others)}"
