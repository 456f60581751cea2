"""The best model's metrics as rows and cells of the page's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retina.config import GRADE_NAMES, GRADES
from retina.config.splits import EVALUATED_SPLITS, SPLIT_NAMES
from retina.metrics.verdict import baseline_name, known_patients, resampling_unit
from retina.report.ensemble_results import NUMBERS, EnsembleResult
from retina.report.figures import BLUES, ink_on
from retina.report.page.run_data import finite_or_none
from retina.report.terminal.best_model import SHOWN

BY_GRADE = {"recall": "recall", "precision": "precision", "auc_by_grade": "AUC"}
"""Metrics that have a value for each grade: key and label."""
BASELINE_METRICS = ("qwk", "accuracy")
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class TableCell:
    """A metric's value as text, and its 95% interval; the interval is empty if it is not known."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table: its heading, and its cells split by split."""

    name: str
    cells: list[TableCell]


@dataclass(frozen=True)
class Square:
    """A cell of a confusion matrix.

    Attributes:
        count: number of photographs.
        share: share of photographs in percent.
        ground: CSS colour of the background.
        ink: CSS colour of the text.
    """

    count: str
    share: str
    ground: str
    ink: str


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix.

    Attributes:
        title: heading.
        rows: for each true grade its name, its number of photographs, and its five squares. There are no squares if
            the shares are those of a grade without photographs.
    """

    title: str
    rows: list[tuple[str, int, list[Square]]]


def split_headings(best: Metrics) -> dict[str, str]:
    """Return the splits on which the best model was evaluated: key and column heading."""
    splits = {key: best[key] for key in EVALUATED_SPLITS if isinstance(best.get(key), Mapping)}
    return {key: _heading(SPLIT_NAMES[key], metrics) for key, metrics in splits.items()}


def resamples(best: Metrics) -> str:
    """Return the number and unit of the resamples behind the intervals; empty if there are no intervals."""
    resampled = [best[split] for split in split_headings(best) if best[split].get("resamples")]
    return f"{resampled[-1]['resamples']:,} resamples of {resampling_unit(resampled[-1])}" if resampled else ""


def overall(best: Metrics) -> list[Line]:
    """Return the metrics over all grades; those that the sweep's version did not compute are left out."""
    names = {key: name.strip() for key, name in SHOWN.items()} | {
        "ece": "calibration error (ECE)",
        "ece_calibrated": "calibration error after temperature scaling",
        "nll": "negative log-likelihood",
        "loss": "loss",
    }
    lines = [Line(name, [_cell(best[split], key) for split in split_headings(best)]) for key, name in names.items()]
    lines[-4:-4] = _operating_point_lines(best)
    return [line for line in lines if any(cell.value for cell in line.cells)]


def by_grade(best: Metrics) -> list[Line]:
    """Return recall, precision and AUC of each grade."""
    splits = split_headings(best)
    lines = [
        Line(f"{name} of {grade} {GRADE_NAMES[grade]}", [_cell(best[split], key, grade) for split in splits])
        for key, name in BY_GRADE.items()
        for grade in range(GRADES)
    ]
    return [line for line in lines if any(cell.value for cell in line.cells)]


def baselines(best: Metrics) -> list[Line]:
    """Return `BASELINE_METRICS` of the model and of each baseline on each split; empty if no baseline was measured.

    A baseline predicts without the photograph.
    """
    measured = {split: best[split].get("baselines") or {} for split in split_headings(best)}
    metrics_by_name = {name: metrics for of_split in measured.values() for name, metrics in of_split.items()}
    if not metrics_by_name:
        return []
    lines = [Line("the model", [_cell(best[split], key) for split in measured for key in BASELINE_METRICS])]
    for name, metrics in metrics_by_name.items():
        values = [measured[split].get(name, {}).get(key) for split in measured for key in BASELINE_METRICS]
        lines.append(Line(baseline_name(name, metrics), [TableCell(_three_decimals(value)) for value in values]))
    return lines


def baseline_notes(best: Metrics) -> list[str]:
    """Return, for each split, for how many photographs the baseline of the fellow eye knows that eye's grade."""
    notes = []
    for split in split_headings(best):
        fellow = (best[split].get("baselines") or {}).get("fellow_eye")
        if fellow and "with_fellow" in fellow:
            source = "train" if split == "val" else "train or validation"
            n = f"{fellow['with_fellow']:,} of {fellow.get('n', best[split].get('n', 0)):,}"
            notes.append(
                f"On {SPLIT_NAMES[split]} the grade of the fellow eye is known, from {source}, for {n} photographs."
            )
    return notes


def ensembles(results: list[EnsembleResult]) -> list[Line]:
    """Return `NUMBERS` of the best trial alone, the ensemble and the weight soup: on validation, then on test."""
    return [
        Line(result.name, [_cell(result.split_metrics[split], key) for split in EVALUATED_SPLITS for key in NUMBERS])
        for result in results
    ]


def matrices(best: Metrics) -> Iterator[Matrix]:
    """Yield two confusion matrices of each split: shares of all photographs, and shares of each true grade."""
    for split in split_headings(best):
        counts = np.asarray(best[split].get("confusion_matrix", []))
        if counts.shape == (GRADES, GRADES) and counts.sum() > 0:
            n = f"n = {counts.sum():,}"
            yield _matrix(counts, f"{SPLIT_NAMES[split]}, {n}: shares of all photographs", by_row=False)
            yield _matrix(counts, f"{SPLIT_NAMES[split]}, {n}: shares of each true grade", by_row=True)


def _matrix(counts: np.ndarray[Any, Any], title: str, *, by_row: bool) -> Matrix:
    totals = counts.sum(axis=1, keepdims=True) if by_row else counts.sum(keepdims=True)
    shares = counts / np.maximum(totals, 1)
    darkest = 1.0 if by_row else max(float(shares.max()), 0.01)
    rows = []
    for grade in range(GRADES):
        n = int(counts[grade].sum())
        squares = [_square(int(counts[grade, k]), float(shares[grade, k]), darkest) for k in range(GRADES)]
        rows.append((f"{grade} {GRADE_NAMES[grade]}", n, [] if by_row and not n else squares))
    return Matrix(title, rows)


def _square(count: int, share: float, darkest: float) -> Square:
    colour = BLUES(share / darkest)
    red, green, blue = (round(255 * part) for part in colour[:3])
    return Square(f"{count:,}", f"{share:.1%}", f"rgb({red} {green} {blue})", ink_on(colour))


def _heading(name: str, metrics: Metrics) -> str:
    patients = known_patients(metrics) if "n" in metrics else None
    return f"{name} (n = {metrics.get('n', 0):,}{f', {patients:,} patients' if patients else ''})"


def _operating_point_lines(best: Metrics) -> list[Line]:
    threshold = finite_or_none((best.get("operating_point") or {}).get("threshold"))
    if threshold is None:
        return []
    return [
        Line(
            f"{name} at the operating point, {threshold:.3f}",
            [_operating_point_cell(best[split], name) for split in split_headings(best)],
        )
        for name in ("sensitivity", "specificity")
    ]


def _operating_point_cell(metrics: Metrics, name: str) -> TableCell:
    value = (metrics.get("operating") or {}).get(name)
    interval = (metrics.get("intervals") or {}).get(f"operating_{name}")
    return TableCell(_three_decimals(value), _format_interval(interval))


def _cell(metrics: Metrics, key: str, grade: int | None = None) -> TableCell:
    """Return a metric's cell: empty if the sweep's version did not compute it, "-" if it is not defined."""
    if key not in metrics:
        return TableCell("")
    value, interval = metrics[key], (metrics.get("intervals") or {}).get(key)
    if grade is not None:
        value, interval = value[grade], interval[grade] if interval else None
    return TableCell(_three_decimals(value) or "-", _format_interval(interval))


def _three_decimals(value: Any) -> str:
    number = finite_or_none(value)
    return "" if number is None else f"{number:.3f}"


def _format_interval(interval: Any) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
