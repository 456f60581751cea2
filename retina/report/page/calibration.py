"""Whether the best model's probabilities mean what they say, and whom they would refer: reliability diagram and ROC."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.ticker import PercentFormatter
from scipy import stats
from sklearn import metrics as sk

from retina.metrics import calibration
from retina.metrics.probabilities import PROBABILITY_COLUMNS, REFERABLE_GRADE, referable_probability
from retina.report.page import plot_style, svg
from retina.report.page.run_data import RunData, finite_or_none
from retina.report.page.svg import Picture

BINS = 10
"""Of the reliability diagram; each holds as many photographs as the others, so that none is a guess from three."""
NAMES = {"val": "validation", "test": "test"}
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def pictures(facts: RunData) -> list[Picture]:
    """Reliability diagram and ROC; none without predictions."""
    if facts.predictions is None or facts.best is None or facts.predictions.empty:
        return []
    return [_reliability(facts, facts.predictions), *_roc(facts, facts.predictions)]


def bins(confidence: Floats, right: npt.NDArray[np.bool_], most: int = BINS) -> list[tuple[float, int, int]]:
    """Photographs by their confidence, in at most so many groups of equal size: mean confidence, right ones, all."""
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(most, len(confidence)))
    return [(float(confidence[group].mean()), int(right[group].sum()), len(group)) for group in groups]


def _reliability(facts: RunData, predictions: pd.DataFrame) -> Picture:
    split = "test" if (predictions["split"] == "test").any() else "val"
    grades, p = _of(predictions, split)
    figure, axes = plot_style.canvas(height=4.6)
    axes.plot([0, 1], [0, 1], color=plot_style.MUTED, linewidth=1, linestyle=":", label="as sure as it is right")
    _bins(axes, grades, p, plot_style.SPLIT_STYLES["val"], "as it is", with_bars=True)
    heat = finite_or_none((facts.best or {}).get("temperature"))
    if heat is not None:
        tempered = calibration.apply_temperature(p, heat)
        _bins(axes, grades, tempered, plot_style.SPLIT_STYLES["test"], f"at the temperature {heat:.2f} of validation")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    plot_style.label(axes, "probability of the most probable grade", "share of right ones")
    plot_style.legend(figure, columns=1)
    told = (facts.best or {}).get(split, {})
    errors = {"as it is": told.get("ece"), "at that temperature": told.get("ece_calibrated")}
    known = [f"{value:.3f} {name}" for name, value in errors.items() if finite_or_none(value) is not None]
    each = "a tenth of the photographs" if len(grades) >= BINS else "a photograph"
    note = f"On {NAMES[split]}, n = {len(grades):,}: each point {each}, bars 95% (Wilson)."
    note += f" Expected calibration error {', '.join(known)}." if known else ""
    alt = f"reliability diagram on {NAMES[split]}: share of right ones by the probability of the most probable grade"
    return svg.picture(figure, "reliability", "Reliability", note, alt)


def _bins(axes: Any, grades: Ints, p: Floats, style: plot_style.Style, label: str, *, with_bars: bool = False) -> None:
    found = bins(p.max(axis=1), p.argmax(axis=1) == grades)
    x = np.array([confidence for confidence, _, _ in found])
    y = np.array([right / n for _, right, n in found])
    ends = [stats.binomtest(right, n).proportion_ci(method="wilson") for _, right, n in found]
    low, high = (np.array([getattr(end, side) for end in ends]) for side in ("low", "high"))
    bars = np.maximum(np.vstack([y - low, high - y]), 0)  # a rounding below 0 where all are right
    drawn = {"color": style.colour, "linestyle": style.line, "marker": style.marker, "markersize": 5, "label": label}
    axes.errorbar(x, y, yerr=bars if with_bars else None, linewidth=1.5, elinewidth=1, capsize=2, **drawn)


def _roc(facts: RunData, predictions: pd.DataFrame) -> list[Picture]:
    figure, axes = plot_style.canvas(height=4.6)
    axes.plot([0, 1], [0, 1], color=plot_style.MUTED, linewidth=1, linestyle=":", label="chance")
    told: list[str] = []
    for split, name in NAMES.items():
        grades, p = _of(predictions, split)
        positive = grades >= REFERABLE_GRADE
        if not len(grades) or positive.all() or not positive.any():
            continue
        false_alarms, found, _ = sk.roc_curve(positive, referable_probability(p))
        style, area = plot_style.SPLIT_STYLES[split], sk.auc(false_alarms, found)
        label = f"{name}, AUC {area:.3f}"
        axes.plot(false_alarms, found, color=style.colour, linestyle=style.line, linewidth=1.8, label=label)
        told.append(label)
        _points(axes, facts, predictions, split)
    if not told:
        return []
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    plot_style.label(axes, "referred in vain (1 - specificity)", "referred in time (sensitivity)")
    plot_style.legend(figure, columns=1)
    point = (facts.best or {}).get("operating_point") or {}
    note = "Referable: grade 2 or worse. "
    threshold = finite_or_none(point.get("threshold"))
    if threshold is not None:
        aim = point.get("target") or {}
        wanted = " and ".join(f"{name} {share:.0%}" for name, share in aim.items())
        met = "is met there" if point.get("met") else "is not met there by any threshold"
        note += f"Operating point: P(referable_probability) of {threshold:.3f} or more, chosen on validation" + (
            f"; the target, {wanted}, {met}." if wanted else "."
        )
    else:
        note += "No operating point was chosen."
    note += " Hollow marks: what the grades themselves come to."
    return [svg.picture(figure, "roc", "ROC of referable_probability", note, f"ROC curves: {'; '.join(told)}")]


def _points(axes: Any, facts: RunData, predictions: pd.DataFrame, split: str) -> None:
    """Where the operating point lies, and where the grades do."""
    style = plot_style.SPLIT_STYLES[split]
    rows = predictions[predictions["split"] == split]
    positive, called = rows["grade"] >= REFERABLE_GRADE, rows["predicted"] >= REFERABLE_GRADE
    at = ((called & ~positive).sum() / (~positive).sum(), (called & positive).sum() / positive.sum())
    axes.plot(*at, style.marker, color=style.colour, markerfacecolor="white", markersize=6, zorder=3)
    operating = ((facts.best or {}).get(split) or {}).get("operating") or {}
    sensitivity, specificity = (
        finite_or_none(operating.get("sensitivity")),
        finite_or_none(operating.get("specificity")),
    )
    if sensitivity is not None and specificity is not None:
        label = f"{NAMES[split]}: sensitivity {sensitivity:.1%}, specificity {specificity:.1%}"
        axes.plot(
            1 - specificity, sensitivity, style.marker, color=style.colour, markersize=9, label=label, zorder=4,
            linestyle="none",
        )  # fmt: skip


def _of(predictions: pd.DataFrame, split: str) -> tuple[Ints, Floats]:
    rows = predictions[predictions["split"] == split]
    return rows["grade"].to_numpy(dtype=np.int64), rows[PROBABILITY_COLUMNS].to_numpy(dtype=np.float64)
