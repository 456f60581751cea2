"""Figures of the best model: confusion matrices on validation and test, and accuracy by epoch.

They are drawn on their own Agg canvases, never through pyplot, so that the backend of a calling notebook or program
does not change.
"""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from retina.config import GRADE_NAMES, GRADES
from retina.config.splits import EVALUATED_SPLITS, SPLIT_NAMES
from retina.errors import ResultsError
from retina.results import checksums, readers, schemas
from retina.results.files import write_bytes
from retina.results.run_folder import METRICS_REMEDY, RunFolder

BLUES = LinearSegmentedColormap.from_list(
    "retina", ["#f5fbff", "#c3e6fd", "#96cdf5", "#6eb2e8", "#4d96d5", "#3679bb", "#275e9c", "#1e4579", "#172e55"]
)
"""White to navy in equal steps of Oklab (Ottosson 2020): lightness alone distinguishes shares, also in print."""

_DARK, _MUTED, _EMPTY = "#10243e", "#5b6773", "#eceff1"
# three colours of Okabe and Ito's palette, which is safe for colour-blind readers; the markers differ for print
_LINES = {"train": ("#999999", "s"), "val": ("#0072b2", "o"), "test": ("#d55e00", "^")}
_DPI = 150


@dataclass(frozen=True)
class SplitResult:
    """The best model's metrics on one split.

    Attributes:
        split: "val" or "test".
        n: number of photographs.
        accuracy: accuracy, 0 to 1.
        qwk: quadratic weighted kappa.
        counts: confusion matrix, int64 (5, 5); rows are true grades, columns predicted grades.
    """

    split: str
    n: int
    accuracy: float
    qwk: float
    counts: npt.NDArray[np.int64]

    def describe(self) -> str:
        """Return a one-line description for a title."""
        return f"{SPLIT_NAMES[self.split]}, n = {self.n:,}, accuracy {self.accuracy:.3f}, QWK {self.qwk:.3f}"


def draw(folder: RunFolder) -> list[Path]:
    """Draw the best model's figures into `best/`, from its metrics.json and the sweep's history.csv.

    Returns:
        The files: confusion_matrix_{val,test}.png (shares of all photographs), confusion_matrix_{val,test}_rows.png
        (shares of each true grade) and accuracy.png.

    Raises:
        ResultsError: there is no best model yet, or metrics.json or history.csv is damaged; names the file.
    """
    file = folder.best / "metrics.json"
    metrics = readers.read_object(file, schemas.Metrics, METRICS_REMEDY)
    if metrics is None:
        raise ResultsError(f"{folder.root}: no finished sweep, so there is nothing to draw ({file} is missing)")
    checksums.verify_best(folder.best, file.name)
    results = [read_split_result(metrics, split, file) for split in EVALUATED_SPLITS]
    trial_id, epoch = _best_epoch(metrics, file)
    headline = f"{folder.name}, trial {trial_id}"
    figures = {}
    for result in results:
        title = f"{textwrap.fill(headline, 70)}\n{result.describe()}"
        figures[f"confusion_matrix_{result.split}.png"] = confusion_matrix(result.counts, title)
        figures[f"confusion_matrix_{result.split}_rows.png"] = confusion_matrix(result.counts, title, by_row=True)
    history = folder.history()
    curves = history[history["trial_id"] == trial_id]
    if curves.empty:
        raise ResultsError(f"{folder.root / 'history.csv'}: has no epoch of trial {trial_id}, which {file} names")
    figures["accuracy.png"] = accuracy(curves, epoch, textwrap.fill(headline, 80), results[0])
    files = [write(figure, folder.best / name) for name, figure in figures.items()]
    checksums.update(folder.best, figures)
    return files


def confusion_matrix(counts: npt.NDArray[np.int64], title: str, *, by_row: bool = False) -> Figure:
    """Draw the share and the count of each pair of true and predicted grade.

    Args:
        counts: int64 (5, 5); rows are true grades, columns predicted grades.
        title: the title; its line breaks are kept.
        by_row: normalise by each true grade instead of by all photographs; a grade without photographs is left empty.
    """
    figure = Figure(figsize=(7.2, 6.1), layout="constrained")
    draw_confusion_matrix(figure, counts, title, by_row=by_row)
    return figure


def draw_confusion_matrix(
    figure: FigureBase, counts: npt.NDArray[np.int64], title: str, *, by_row: bool = False
) -> None:
    """Draw a confusion matrix on a figure or a subfigure; see `confusion_matrix`."""
    total = counts.sum(axis=1, keepdims=True) if by_row else counts.sum(keepdims=True)
    shares = counts / np.maximum(total, 1)
    top = 1.0 if by_row else max(float(shares.max()), 0.01)
    axes = figure.add_subplot()
    empty = counts.sum(axis=1) == 0 if by_row else np.zeros(GRADES, np.bool_)
    for true in range(GRADES):
        if empty[true]:
            _empty_row(axes, true)
            continue
        for predicted in range(GRADES):
            share = float(shares[true, predicted])
            _cell(axes, (predicted, true), BLUES(share / top), f"{share:.1%}", f"{counts[true, predicted]:,}")
    _label(axes, counts.sum(axis=1))
    axes.set_title(title, fontsize=11, color=_DARK, pad=12)
    bar = figure.colorbar(ScalarMappable(Normalize(0, top), BLUES), ax=axes, shrink=0.85)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    bar.set_label("share of the true grade's photographs" if by_row else "share of all photographs", color=_DARK)
    bar.ax.tick_params(labelsize=9, labelcolor=_DARK, color=_MUTED)
    bar.outline.set_visible(False)


def accuracy(curves: pd.DataFrame, epoch: int, title: str, validation: SplitResult) -> Figure:
    """Draw accuracy by epoch on train, validation and, if it was tracked, test.

    Args:
        curves: one trial's rows of history.csv.
        epoch: the chosen epoch, which is marked.
        title: the title.
        validation: validation result of the chosen epoch; gives the accuracy of a model that always predicts the
            commonest grade.
    """
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(epoch, color=_MUTED, linewidth=1, linestyle="--", zorder=1)
    for split, (colour, marker) in _LINES.items():
        points = curves[["epoch", f"{split}_accuracy"]].apply(pd.to_numeric).dropna()
        if points.empty:
            continue
        x, y = points.to_numpy(dtype=np.float64).T
        name = {"train": "train (augmented, dropout on)", "val": "validation", "test": "test (chose nothing)"}[split]
        axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.8, label=name, zorder=2)
        if split == "val" and epoch in x:
            _mark(axes, epoch, float(y[x == epoch][0]), colour)
    commonest = float(validation.counts.sum(axis=1).max()) / max(validation.n, 1)
    label = f"always the commonest grade of validation ({commonest:.1%})"
    axes.axhline(commonest, color=_DARK, linewidth=1.3, linestyle=":", label=label, zorder=1.5)
    axes.set_title(f"{title}\naccuracy by epoch, epoch {epoch} chosen", fontsize=11, color=_DARK)
    axes.set_xlabel("epoch", color=_DARK)
    axes.set_ylabel("accuracy", color=_DARK)
    axes.set_xlim(float(curves["epoch"].min()) - 0.5, float(curves["epoch"].max()) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.margins(y=0.12)
    axes.grid(axis="y", color=_EMPTY)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _cell(axes: Axes, center: tuple[int, int], colour: Any, share: str, count: str) -> None:
    axes.add_patch(_square(center, facecolor=colour))
    x, y = center
    ink = ink_on(colour)
    axes.text(x, y - 0.1, share, ha="center", va="center", fontsize=12, fontweight="bold", color=ink)
    axes.text(x, y + 0.22, count, ha="center", va="center", fontsize=9, color=ink)


def _empty_row(axes: Axes, true: int) -> None:
    for predicted in range(GRADES):
        axes.add_patch(_square((predicted, true), facecolor=_EMPTY))
    middle = (GRADES - 1) / 2
    axes.text(middle, true, "no photographs", ha="center", va="center", fontsize=9, style="italic", color=_MUTED)


def _square(center: tuple[int, int], facecolor: Any) -> Rectangle:
    return Rectangle((center[0] - 0.5, center[1] - 0.5), 1, 1, facecolor=facecolor, edgecolor="white", linewidth=2)


def ink_on(background: tuple[float, float, float, float]) -> str:
    """Return "black" or "white", whichever has more contrast by WCAG 2: at least 4.5 : 1 on any background.

    Args:
        background: RGBA, 0 to 1.
    """
    rgb = np.asarray(background[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def _label(axes: Axes, photographs: npt.NDArray[np.int64]) -> None:
    ticks = range(GRADES)
    axes.set(xlim=(-0.5, GRADES - 0.5), ylim=(GRADES - 0.5, -0.5), aspect="equal")
    axes.set_xticks(ticks, [f"{grade}\n{GRADE_NAMES[grade]}" for grade in ticks], color=_DARK)
    axes.set_yticks(ticks, [f"{grade} {GRADE_NAMES[grade]}\nn = {photographs[grade]:,}" for grade in ticks])
    axes.tick_params(length=0, labelsize=9, labelcolor=_DARK)
    axes.set_xlabel("predicted grade", color=_DARK, labelpad=8)
    axes.set_ylabel("true grade", color=_DARK, labelpad=8)
    axes.spines[:].set_visible(False)


def _mark(axes: Axes, epoch: int, value: float, colour: str) -> None:
    axes.plot([epoch], [value], "o", markersize=12, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=2)
    note = axes.annotate(f"{value:.1%}", (epoch, value), (0, 11), textcoords="offset points", ha="center")
    note.set(color=colour, weight="bold", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})


def read_split_result(metrics: Any, split: str, file: Path) -> SplitResult:
    """Return the result on one split, from the values of metrics.json.

    Args:
        metrics: the values of metrics.json.
        split: "val" or "test".
        file: the path of metrics.json, for error messages.

    Raises:
        ResultsError: a value is missing or damaged; names `file`.
    """
    try:
        values = metrics[split]
        counts = np.array(values["confusion_matrix"], dtype=np.int64)
        result = SplitResult(split, int(values["n"]), float(values["accuracy"]), float(values["qwk"]), counts)
    except (KeyError, TypeError, ValueError) as error:
        needed = "n, accuracy, qwk and confusion_matrix are needed"
        raise ResultsError(f"{file}: {split}: {needed}: {type(error).__name__}: {error}") from None
    if counts.shape != (GRADES, GRADES) or counts.min() < 0:
        shape = f"{counts.shape}, allowed: ({GRADES}, {GRADES}), counts"
        raise ResultsError(f"{file}: {split}: confusion_matrix has the shape {shape}")
    return result


def _best_epoch(metrics: Any, file: Path) -> tuple[str, int]:
    """Return the best trial's id and its best epoch."""
    try:
        return str(metrics["trial_id"]), int(metrics["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{file}: trial_id and epoch are needed: {type(error).__name__}: {error}") from None


def write(figure: Figure, file: Path) -> Path:
    """Write a figure atomically as PNG, with its title in the metadata; return `file`."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    metadata = {"Title": figure.axes[0].get_title().replace("\n", "; ")}  # identifies a file that was renamed
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata=metadata)
    write_bytes(file, buffer.getvalue())
    return file
