"""Summaries of a trial's epochs: the best value so far after each of them, and its row of trials.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retina.config.sweep import Metric
from retina.results.run_folder import METRIC_COLUMNS


def is_improvement(value: float, best: float | None, sign: int) -> bool:
    """Return whether an epoch's value is finite and better than the best one before; equal is not better.

    Args:
        value: the metric of the epoch.
        best: the best value of the epochs before; None before the first finite one.
        sign: 1 where higher is better, -1 where lower is better.
    """
    return math.isfinite(value) and (best is None or sign * value > sign * best)


def best_so_far(metric: Metric, epochs: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> dict[int, float]:
    """Return the best value up to each recorded epoch, by epoch; without the epochs before the first finite value.

    Args:
        metric: the sweep's metric.
        epochs: the trial's rows of history.csv, in order.
        row: the trial's row of trials.csv. It holds the best epoch's value even if history.csv has lost that epoch.
    """
    known = {int(epoch["epoch"]): epoch.get(metric.name) for epoch in epochs}
    if "best_epoch" in row:
        known.setdefault(int(row["best_epoch"]), row.get(metric.name))
    best, values = -math.inf, {}
    for epoch, value in sorted(known.items()):
        if value is not None and math.isfinite(value):
            best = max(best, metric.sign * value)
        if math.isfinite(best):
            values[epoch] = metric.sign * best
    return values


def summary(metric: Metric, epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns of trials.csv that summarize a trial's epochs.

    Args:
        metric: the sweep's metric.
        epochs: the trial's rows of history.csv, in order; at least one.
    """
    scored = [row for row in epochs if row.get(metric.name) is not None and math.isfinite(row[metric.name])]
    columns: dict[str, Any] = {"epochs_run": epochs[-1]["epoch"]}
    if scored:
        best = max(scored, key=lambda row: metric.sign * row[metric.name])  # the first of equal ones
        columns.update({"best_epoch": best["epoch"], **{key: best.get(key) for key in METRIC_COLUMNS}})
    columns["seconds"] = sum(row.get("seconds", 0.0) for row in epochs)
    columns["images_per_second"] = sum(row.get("images_per_second", 0.0) for row in epochs) / len(epochs)
    return columns


def summary_of_values(metric: Metric, values: Mapping[int, float]) -> dict[str, Any]:
    """Return the columns of trials.csv that follow from a trial's best values so far by epoch; empty without them."""
    if not values:
        return {}
    best = max(values.values(), key=lambda value: metric.sign * value)
    first = min(epoch for epoch, value in values.items() if value == best)
    return {"epochs_run": max(values), "best_epoch": first, metric.name: best}
