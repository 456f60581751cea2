"""One sentence first: whether the model is better than what needs no photograph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPLIT_NAMES = {"val": "validation", "test": "test"}
"""Keys of metrics.json and what a person calls them."""
METRIC_NAMES = {"qwk": "QWK", "accuracy": "accuracy"}
COMPARED_METRICS = tuple(METRIC_NAMES)
"""By these a model is compared with its baselines."""
MIN_PATIENTS = 6
"""Patients below which nothing is claimed: of two patients a quarter of models worth their baseline would look better
in every resample, of five 3%."""


def baseline_name(name: str, told: Mapping[str, Any]) -> str:
    """What a person calls a baseline of metrics.json; an earlier version did not say which grade is the majority's."""
    if name == "majority":
        return f"always grade {told['grade']}" if told.get("grade") is not None else name
    return "fellow eye's grade"


def known_patients(split: Mapping[str, Any]) -> int | None:
    """Patients of a split of metrics.json; None where no two of its photographs are known to be of one."""
    patients: int | None = split.get("patients")
    return patients if patients is not None and patients < split["n"] else None


def resampling_unit(split: Mapping[str, Any]) -> str:
    """What its intervals are drawn from."""
    if known_patients(split) is not None:
        return "the patients"
    return "the photographs, no two of which are known to be of one patient"


def verdict(split: Mapping[str, Any], where: str) -> str:
    """Better than its baselines or not, by accuracy and by QWK; one line.

    A model is better by a number if what it has more than the baseline is above 0 for every baseline: the whole 95%
    interval of it, with both in the same resamples of patients. Of fewer than `MIN_PATIENTS` patients none is called better.

    Args:
        split: a split of metrics.json.
        where: what a person calls it.
    """
    others: Mapping[str, Any] = split["baselines"]
    is_enough = split["patients"] >= MIN_PATIENTS
    won = [
        name for name in COMPARED_METRICS if is_enough and all(_is_above(one["gain"][name]) for one in others.values())
    ]
    lost = [number for number in COMPARED_METRICS if number not in won]
    by = f" by {METRIC_NAMES[won[0]]} but not by {METRIC_NAMES[lost[0]]}" if won and lost else ""
    scarce = "" if is_enough else f", where {split['patients']} of at least {MIN_PATIENTS} patients are too few to tell"
    head = f"{'Better' if won else 'Not better'} than {_count(len(others))} on {where}{by}{scarce}"
    return f"{head}: {'; '.join(_told(split, number) for number in COMPARED_METRICS)}."


def _is_above(interval: list[float] | None) -> bool:
    return interval is not None and interval[0] > 0


def _count(baselines: int) -> str:
    return "its baseline" if baselines == 1 else "its baselines"


def _told(split: Mapping[str, Any], number: str) -> str:
    between = split["intervals"][number]
    shown = f" [{between[0]:.3f}, {between[1]:.3f}]" if between else ""
    others = [f"{one[number]:.3f} ({baseline_name(name, one)})" for name, one in split["baselines"].items()]
    return f"{METRIC_NAMES[number]} {split[number]:.3f}{shown} against {' and '.join(others)}"
