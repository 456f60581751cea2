"""A trial's epochs, summed up: its best value so far after each of them, and what trials.csv says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retina.config.sweep import Metric
from retina.results.run_folder import METRIC_COLUMNS


def best_so_far(metric: Metric, epochs: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> dict[int, float]:
    """The best value up to each epoch that is known; none before the first finite one.

    Args:
        metric: what counts.
        epochs: of history.csv, in their order.
        row: of trials.csv, which has the best epoch's value also where history.csv has lost that epoch.
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
    """What trials.csv says of a trial's epochs, one at least, in their order."""
    judged = [row for row in epochs if row.get(metric.name) is not None and math.isfinite(row[metric.name])]
    found: dict[str, Any] = {"epochs_run": epochs[-1]["epoch"]}
    if judged:
        best = max(judged, key=lambda row: metric.sign * row[metric.name])  # the first of equal ones
        found.update({"best_epoch": best["epoch"], **{key: best.get(key) for key in METRIC_COLUMNS}})
    found["seconds"] = sum(row.get("seconds", 0.0) for row in epochs)
    found["images_per_second"] = sum(row.get("images_per_second", 0.0) for row in epochs) / len(epochs)
    return found


def summary_of_values(metric: Metric, values: Mapping[int, float]) -> dict[str, Any]:
    """What can be said of a trial by its best values so far alone, by epoch."""
    if not values:
        return {}
    best = max(values.values(), key=lambda value: metric.sign * value)
    first = min(epoch for epoch, value in values.items() if value == best)
    return {"epochs_run": max(values), "best_epoch": first, metric.name: best}
