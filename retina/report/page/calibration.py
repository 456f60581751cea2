"""Figures of the best model's probabilities: reliability diagram, and ROC of referable retinopathy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from scipy import stats
from sklearn import metrics as sk

from retina.config.splits import SPLIT_NAMES
from retina.metrics import calibration
from retina.metrics.probabilities import PROBABILITY_COLUMNS, REFERABLE_GRADE, referable_probability
from retina.report.page import plot_style, svg
from retina.report.page.run_data import RunData, finite_or_none
from retina.report.page.svg import SvgPicture

BINS = 10
"""Bins of the reliability diagram. All hold equally many photographs, so that no bin's accuracy rests on very few."""
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def pictures(run: RunData) -> list[SvgPicture]:
    """Return the reliability diagram and the ROC; empty without predictions."""
    if run.predictions is None or run.best is None or run.predictions.empty:
        return []
    return [_reliability(run, run.predictions), *_roc(run, run.predictions)]


def bins(confidence: Floats, correct: npt.NDArray[np.bool_], max_bins: int = BINS) -> list[tuple[float, int, int]]:
    """Group photographs by confidence into bins of equal size.

    Args:
        confidence: float (N,), 0 to 1.
        correct: bool (N,), whether the prediction is correct.
        max_bins: maximum number of bins; N bins if N is smaller.

    Returns:
        For each bin its mean confidence, its number of correct predictions, and its number of photographs.
    """
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(max_bins, len(confidence)))
    return [(float(confidence[group].mean()), int(correct[group].sum()), len(group)) for group in groups]


def _reliability(run: RunData, predictions: pd.DataFrame) -> SvgPicture:
    split = "test" if (predictions["split"] == "test").any() else "val"
    grades, p = _grades_and_probabilities(predictions, split)
    figure, axes = plot_style.canvas(height=4.6)
    _plot_diagonal(axes, "perfect calibration")
    _plot_bins(axes, grades, p, plot_style.SPLIT_STYLES["val"], "uncalibrated", with_bars=True)
    temperature = finite_or_none((run.best or {}).get("temperature"))
    if temperature is not None:
        scaled = calibration.apply_temperature(p, temperature)
        label = f"temperature {temperature:.2f}, fitted on validation"
        _plot_bins(axes, grades, scaled, plot_style.SPLIT_STYLES["test"], label)
    _format_unit_axes(axes)
    plot_style.label(axes, "probability of the predicted grade", "accuracy")
    plot_style.legend(figure, columns=1)
    metrics = (run.best or {}).get(split, {})
    errors = {"uncalibrated": metrics.get("ece"), "with that temperature": metrics.get("ece_calibrated")}
    known = [f"{value:.3f} {name}" for name, value in errors.items() if finite_or_none(value) is not None]
    bin_size = "a tenth of the photographs" if len(grades) >= BINS else "one photograph"
    of_split = f"On {SPLIT_NAMES[split]}, n = {len(grades):,}."
    note = f"{of_split} Each point is {bin_size}; the error bars are 95% Wilson intervals."
    note += f" Expected calibration error: {', '.join(known)}." if known else ""
    alt = f"reliability diagram on {SPLIT_NAMES[split]}: accuracy by the probability of the predicted grade"
    return svg.picture(figure, "reliability", "Reliability", note, alt)


def _plot_bins(
    axes: Axes, grades: Ints, p: Floats, style: plot_style.Style, label: str, *, with_bars: bool = False
) -> None:
    binned = bins(p.max(axis=1), p.argmax(axis=1) == grades)
    x = np.array([confidence for confidence, _, _ in binned])
    y = np.array([correct / n for _, correct, n in binned])
    intervals = [stats.binomtest(correct, n).proportion_ci(method="wilson") for _, correct, n in binned]
    low, high = (np.array([getattr(interval, end) for interval in intervals]) for end in ("low", "high"))
    bars = np.maximum(np.vstack([y - low, high - y]), 0)  # rounding gives less than 0 where all are correct
    options: dict[str, Any] = {
        "color": style.colour, "linestyle": style.line, "marker": style.marker, "markersize": 5, "label": label,
    }  # fmt: skip
    axes.errorbar(x, y, yerr=bars if with_bars else None, linewidth=1.5, elinewidth=1, capsize=2, **options)


def _roc(run: RunData, predictions: pd.DataFrame) -> list[SvgPicture]:
    figure, axes = plot_style.canvas(height=4.6)
    _plot_diagonal(axes, "chance")
    labels: list[str] = []
    for split, name in SPLIT_NAMES.items():
        grades, p = _grades_and_probabilities(predictions, split)
        positive = grades >= REFERABLE_GRADE
        if not len(grades) or positive.all() or not positive.any():
            continue
        false_positive_rate, sensitivity, _ = sk.roc_curve(positive, referable_probability(p))
        style, area = plot_style.SPLIT_STYLES[split], sk.auc(false_positive_rate, sensitivity)
        label = f"{name}, AUC {area:.3f}"
        axes.plot(
            false_positive_rate, sensitivity, color=style.colour, linestyle=style.line, linewidth=1.8, label=label
        )
        labels.append(label)
        _mark_points(axes, run, predictions, split)
    if not labels:
        return []
    _format_unit_axes(axes)
    plot_style.label(axes, "false positive rate (1 - specificity)", "sensitivity")
    plot_style.legend(figure, columns=1)
    return [svg.picture(figure, "roc", "ROC of referable", _roc_note(run), f"ROC curves: {'; '.join(labels)}")]


def _roc_note(run: RunData) -> str:
    operating_point = (run.best or {}).get("operating_point") or {}
    threshold = finite_or_none(operating_point.get("threshold"))
    if threshold is None:
        chosen = "No operating point was chosen."
    else:
        chosen = f"Operating point: P(referable) of {threshold:.3f} or more, chosen on validation"
        target = " and ".join(f"{name} {share:.0%}" for name, share in (operating_point.get("target") or {}).items())
        is_met = "is met there" if operating_point.get("met") else "is not met there by any threshold"
        chosen += f"; the target, {target}, {is_met}." if target else "."
    return f"Referable: grade 2 or worse. {chosen} Hollow marks: the predicted grades, without a threshold."


def _mark_points(axes: Axes, run: RunData, predictions: pd.DataFrame, split: str) -> None:
    """Mark the operating point, and with a hollow mark the point of the predicted grades."""
    style = plot_style.SPLIT_STYLES[split]
    rows = predictions[predictions["split"] == split]
    positive, referred = rows["grade"] >= REFERABLE_GRADE, rows["predicted"] >= REFERABLE_GRADE
    point = ((referred & ~positive).sum() / (~positive).sum(), (referred & positive).sum() / positive.sum())
    axes.plot(*point, style.marker, color=style.colour, markerfacecolor="white", markersize=6, zorder=3)
    operating = ((run.best or {}).get(split) or {}).get("operating") or {}
    sensitivity = finite_or_none(operating.get("sensitivity"))
    specificity = finite_or_none(operating.get("specificity"))
    if sensitivity is not None and specificity is not None:
        label = f"{SPLIT_NAMES[split]}: sensitivity {sensitivity:.1%}, specificity {specificity:.1%}"
        axes.plot(
            1 - specificity, sensitivity, style.marker, color=style.colour, markersize=9, label=label, zorder=4,
            linestyle="none",
        )  # fmt: skip


def _plot_diagonal(axes: Axes, label: str) -> None:
    axes.plot([0, 1], [0, 1], color=plot_style.MUTED, linewidth=1, linestyle=":", label=label)


def _format_unit_axes(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))


def _grades_and_probabilities(predictions: pd.DataFrame, split: str) -> tuple[Ints, Floats]:
    """Return the true grades, int64 (N,), and the probabilities, float64 (N, 5), of a split."""
    rows = predictions[predictions["split"] == split]
    return rows["grade"].to_numpy(dtype=np.int64), rows[PROBABILITY_COLUMNS].to_numpy(dtype=np.float64)
