"""Figures that compare networks with and without pretraining: accuracy by epoch, and confusion matrices on test.

Titles, curves and normalisation are those of the course report. Colours and line styles can be distinguished by
colour-blind readers and in print. Each matrix is drawn beside a copy whose rows are normalised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retina.config import GRADES
from retina.data.dataset import FundusDataset
from retina.errors import ResultsError
from retina.evaluation import comparison
from retina.evaluation.comparison import COMPARISON_FOLDER, ComparisonRun, evaluate_runs
from retina.report import figures
from retina.results.run_folder import RunFolder
from retina.system.progress import Progress

TRACKED_SPLITS = {"train": "Train", "test": "Test"}
# Okabe and Ito's vermilion and blue; line style and marker show the split
_COLOURS = {False: "#d55e00", True: "#0072b2"}
_STYLES = {
    ("train", False): ("--", "s"),
    ("test", False): ("-", "^"),
    ("train", True): ("--", "D"),
    ("test", True): ("-", "o"),
}
_DARK, _GRID = "#10243e", "#eceff1"


def draw(folder: RunFolder, dataset: FundusDataset | None = None, progress: Progress | None = None) -> list[Path]:
    """Draw a sweep's comparison of networks into `comparison/`; what is there so far if the sweep is still running.

    Models whose training has ended are evaluated on test once. The results are stored beside the figures, so that
    drawing again needs neither weights nor photographs.

    Args:
        folder: a results folder.
        dataset: the sweep's dataset, if it has been prepared already.
        progress: called with the progress of steps that take long.

    Returns:
        The figures: accuracy_<network>.png and confusion_matrix_<network>_<pretrained or scratch>.png. Empty if the
        sweep is not a comparison: `retina.evaluation.comparison.read_runs` returns fewer than two runs.

    Raises:
        ResultsError: a file of the results folder is damaged; names it.
    """
    runs = comparison.read_runs(folder)
    if len(runs) < 2:
        return []
    path = folder.root / COMPARISON_FOLDER
    drawn: dict[str, Figure] = {}
    for arch in dict.fromkeys(run.arch for run in runs):
        network_runs = [run for run in runs if run.arch == arch and not run.curves.empty]
        if network_runs:
            drawn[f"accuracy_{arch}.png"] = accuracy(network_runs, _majority_baseline(folder))
    test_metrics = evaluate_runs(folder, runs, dataset, progress)
    for run in runs:
        if run.trial_id in test_metrics:
            file = path / f"{run.slug}.json"
            drawn[f"confusion_matrix_{run.slug}.png"] = confusion_matrices(run, test_metrics[run.trial_id], file)
    return [figures.write(figure, path / name) for name, figure in drawn.items()]


def accuracy(runs: list[ComparisonRun], majority: tuple[int, float] | None = None) -> Figure:
    """Draw one network's accuracy in percent by epoch on train and test, with and without pretraining.

    Args:
        runs: the network's runs.
        majority: the commonest grade of train, and the accuracy on test, 0 to 1, of a model that always predicts it;
            drawn only if the test split was tracked.
    """
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    tracked_test = False
    for run in runs:
        for split, name in TRACKED_SPLITS.items():
            points = run.curves[["epoch", f"{split}_accuracy"]].apply(pd.to_numeric).dropna()
            if points.empty:
                continue
            tracked_test = tracked_test or split == "test"
            x, y = points.to_numpy(dtype=np.float64).T
            line, marker = _STYLES[split, run.pretrained]
            style: dict[str, Any] = {"color": _COLOURS[run.pretrained], "linestyle": line, "marker": marker}
            axes.plot(x, 100 * y, label=f"{name} ({run.pretraining})", markersize=5, linewidth=1.8, **style)
    if tracked_test and majority is not None:
        label = f"Test (always grade {majority[0]}, the commonest of train)"
        axes.axhline(100 * majority[1], color=_DARK, linewidth=1.2, linestyle=":", label=label, zorder=1.5)
    axes.set_title(f"Result Comparison ({runs[0].network})", fontsize=12, color=_DARK)
    axes.set_xlabel("epoch", color=_DARK)
    axes.set_ylabel("accuracy (%)", color=_DARK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.1)
    axes.grid(axis="y", color=_GRID)
    axes.spines[["top", "right"]].set_visible(False)
    # matplotlib fills the legend by column: without pretraining left, with it right; long handles show the dashes
    handles = sorted(axes.get_legend_handles_labels()[0], key=lambda line: "(w/ " in str(line.get_label()))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9, handlelength=4)
    return figure


def confusion_matrices(run: ComparisonRun, metrics: dict[str, Any], file: Path) -> Figure:
    """Draw a model's confusion matrix on test twice: normalised over all photographs, and over each true grade.

    Args:
        run: the model's run.
        metrics: its metrics on test, from `evaluate_runs`.
        file: the path of these metrics, for error messages.

    Raises:
        ResultsError: `metrics` is damaged; names `file`.
    """
    try:
        counts = np.array(metrics["confusion_matrix"], dtype=np.int64)
        if counts.shape != (GRADES, GRADES):
            raise ValueError(f"confusion_matrix has the shape {counts.shape}")
        numbers = f"n = {metrics['n']:,}, accuracy {metrics['accuracy']:.2%}, QWK {metrics['qwk']:.3f}"
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{file}: is not what an evaluation writes: {type(error).__name__}: {error}") from None
    figure = Figure(figsize=(14.4, 6.3), layout="constrained")
    grid = figure.add_gridspec(1, 2)
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    title = f"Normalized Confusion Matrix ({run.network} {run.pretraining})"
    chosen = f"test, {numbers}, epoch {run.epoch} (chosen on validation)"
    figures.draw_confusion_matrix(left, counts, f"{title}\n{chosen}")
    figures.draw_confusion_matrix(right, counts, f"{title}\neach row by itself: shares of a true grade", by_row=True)
    return figure


def _majority_baseline(folder: RunFolder) -> tuple[int, float] | None:
    """Return the commonest grade of train and its share of test; None if it is not recorded."""
    try:
        photographs = folder.metadata()["data"]["photographs"]
        train, test = (np.array(photographs[split]["by_grade"], dtype=np.int64) for split in ("train", "test"))
        grade = int(train.argmax())
        return (grade, float(test[grade] / test.sum())) if test.sum() else None
    except (IndexError, KeyError, TypeError, ValueError):  # the metadata lack the counts of photographs
        return None
