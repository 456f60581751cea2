"""The best model in a terminal: the verdict, then each metric with its interval and the baselines' values."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from retina.config import GRADE_NAMES
from retina.config.splits import EVALUATED_SPLITS, SPLIT_NAMES
from retina.metrics.verdict import METRIC_NAMES, baseline_name, known_patients, resampling_unit
from retina.results import checksums, readers, schemas
from retina.results.run_folder import METRICS_REMEDY, RunFolder

WIDTH = 98
SHOWN = {
    **METRIC_NAMES,
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "AUC, mean of the grades",
    "referable_auc": "referable AUC",
    "sensitivity_at_90_specificity": "  sensitivity at 90% specificity",
}
Metrics = Mapping[str, Any]


def render(folder: RunFolder) -> RenderableType:
    """Return the best model's metrics on validation and test, at most 100 columns wide.

    Metrics that the version which evaluated the model did not compute are left out.

    Raises:
        ResultsError: metrics.json is missing or damaged.
    """
    checksums.verify_best(folder.best, "metrics.json")
    file = folder.best / "metrics.json"
    metrics = readers.read_object(file, schemas.Metrics, METRICS_REMEDY)
    if metrics is None or any(key not in metrics for key in ("epoch", "chosen_by", *EVALUATED_SPLITS)):
        readers.refuse(file, "is missing, or lacks epoch, chosen_by, val or test", METRICS_REMEDY)
    title = f"Best: trial {metrics['trial_id']}, epoch {metrics['epoch']}, chosen by {metrics['chosen_by']}"
    table = Table("", title=title, title_justify="left", box=SIMPLE_HEAD, caption_justify="left")
    for split, name in SPLIT_NAMES.items():
        table.add_column(f"{name}\n{_size(metrics[split])}", no_wrap=True)
    for label, *cells in _rows(metrics):
        if any(cells):
            table.add_row(label, *cells)
    if "verdict" not in metrics:
        return table
    table.caption = "\n".join(_notes(metrics))
    return Group(Text(f"\n{textwrap.fill(metrics['verdict'], WIDTH)}\n", style="bold"), table)


def _size(split: Metrics) -> str:
    patients = known_patients(split)
    return f"n={split['n']:,}" + (f", {patients:,} patients" if patients else "")


def _rows(metrics: Metrics) -> Iterator[tuple[str, ...]]:
    for key, label in SHOWN.items():
        yield label, *(_cell(metrics[split], key) for split in EVALUATED_SPLITS)
        if key in METRIC_NAMES:
            yield from _baselines(metrics, key)
    threshold = metrics.get("operating_point", {}).get("threshold")
    if threshold is not None:
        for key in ("sensitivity", "specificity"):
            yield f"  {key} from p = {threshold:.3f}", *(_operating(metrics[split], key) for split in EVALUATED_SPLITS)
    yield "ECE", *(_cell(metrics[split], "ece") for split in EVALUATED_SPLITS)
    yield (
        f"  at temperature {_format(metrics.get('temperature'))}",
        *(_cell(metrics[split], "ece_calibrated") for split in EVALUATED_SPLITS),
    )
    for key in ("recall", "precision"):
        for grade, name in enumerate(GRADE_NAMES):
            yield f"{key} of {grade} {name}", *(_cell(metrics[split], key, grade) for split in EVALUATED_SPLITS)


def _baselines(metrics: Metrics, key: str) -> Iterator[tuple[str, ...]]:
    baselines = {split: metrics[split].get("baselines", {}) for split in EVALUATED_SPLITS}
    for name in ("majority", "fellow_eye"):
        of_splits = [of_split[name] for of_split in baselines.values() if name in of_split]
        if of_splits:
            cells = [
                _format(baselines[split][name].get(key)) if name in baselines[split] else ""
                for split in EVALUATED_SPLITS
            ]
            yield f"  {baseline_name(name, of_splits[-1])}", *cells


def _cell(split: Metrics, key: str, grade: int | None = None) -> str:
    """Return a metric and its interval; empty if the sweep's version did not compute it."""
    if key not in split:
        return ""
    value, interval = split[key], split.get("intervals", {}).get(key)
    if grade is not None:
        value, interval = value[grade], interval[grade] if interval else None
    return _with_interval(value, interval)


def _operating(split: Metrics, key: str) -> str:
    value = split.get("operating", {}).get(key)
    return _with_interval(value, split.get("intervals", {}).get(f"operating_{key}"))


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    return _format(value) + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _notes(metrics: Metrics) -> Iterator[str]:
    test = metrics["test"]
    yield f"In brackets 95% intervals, from {test['resamples']:,} resamples of {resampling_unit(test)}."
    point = metrics["operating_point"]
    aim = f"{point['target']['sensitivity']:.0%} sensitivity at {point['target']['specificity']:.0%} specificity"
    if point["met"]:
        yield f"Referred from p = {point['threshold']:.3f} on, validation meets {aim}."
    elif point.get("threshold") is not None:
        yield f"No threshold meets {aim} on validation."
    fellow = metrics["test"]["baselines"].get("fellow_eye")
    if fellow and "with_fellow" in fellow:
        n = fellow.get("n", metrics["test"]["n"])
        yield f"{fellow['with_fellow']:,} of {n:,} test photographs have a fellow eye in train or validation."
