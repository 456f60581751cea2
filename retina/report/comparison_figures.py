"""The report's comparison of networks with and without pretraining: accuracy by epoch, and confusion matrices on test.

Titles, curves and normalisation are the report's; colours and line styles are told apart by the colour-blind and in
print, and each matrix stands beside one whose rows are normalised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retina.config import GRADES
from retina.data.dataset import FundusDataset, Progress
from retina.errors import ResultsError
from retina.evaluation import comparison
from retina.evaluation.comparison import COMPARISON_FOLDER, ComparisonRun, evaluate_runs
from retina.report import figures
from retina.results.run_folder import RunFolder

TRACKED_SPLITS = {"train": "Train", "test": "Test"}
# Okabe and Ito's vermilion and blue; the split is told by the line, and once more by the marker
_COLOURS = {False: "#d55e00", True: "#0072b2"}
_STYLES = {
    ("train", False): ("--", "s"),
    ("test", False): ("-", "^"),
    ("train", True): ("--", "D"),
    ("test", True): ("-", "o"),
}
_DARK, _GRID = "#10243e", "#eceff1"


def draw(folder: RunFolder, photographs: FundusDataset | None = None, progress: Progress | None = None) -> list[Path]:
    """Draw a run's comparison into `comparison/`: what there is of it, also while the run goes on.

    The first time, the models whose training has ended are evaluated on test; the result is stored beside the figures,
    and drawing again needs neither weights nor photographs.

    Args:
        folder: a run.
        photographs: the run's, if they are at hand.
        progress: told of what takes long.

    Returns:
        The figures: accuracy_<network>.png and confusion_matrix_<network>_<pretrained or scratch>.png. Empty where the
        run is no comparison: `retina.evaluation.comparison.read_runs` finds fewer than two pairs of network and
        pretraining.

    Raises:
        ResultsError: a file of the run is damaged; names it.
    """
    compared = comparison.read_runs(folder)
    if len(compared) < 2:
        return []
    place = folder.root / COMPARISON_FOLDER
    drawn: dict[str, Figure] = {}
    for arch in dict.fromkeys(cell.arch for cell in compared):
        of_one = [cell for cell in compared if cell.arch == arch and not cell.curves.empty]
        if of_one:
            drawn[f"accuracy_{arch}.png"] = accuracy(of_one, _commonest(folder))
    seen = evaluate_runs(folder, compared, photographs, progress)
    for cell in compared:
        if cell.trial_id in seen:
            file = place / f"{cell.slug}.json"
            drawn[f"confusion_matrix_{cell.slug}.png"] = confusion_matrices(cell, seen[cell.trial_id], file)
    return [figures.write(figure, place / name) for name, figure in drawn.items()]


def accuracy(of_one: list[ComparisonRun], commonest: tuple[int, float] | None = None) -> Figure:
    """One network's accuracy in percent by epoch, with and without pretraining, on train and test.

    Args:
        of_one: the network's runs.
        commonest: the commonest grade of train, and the accuracy on test, 0 to 1, of a model that says nothing else;
            drawn where test was followed.
    """
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    followed = False
    for cell in of_one:
        for split, name in TRACKED_SPLITS.items():
            points = cell.curves[["epoch", f"{split}_accuracy"]].apply(pd.to_numeric).dropna()
            if points.empty:
                continue
            followed = followed or split == "test"
            x, y = points.to_numpy(dtype=np.float64).T
            line, marker = _STYLES[split, cell.pretrained]
            look: dict[str, Any] = {"color": _COLOURS[cell.pretrained], "linestyle": line, "marker": marker}
            axes.plot(x, 100 * y, label=f"{name} ({cell.pretraining})", markersize=5, linewidth=1.8, **look)
    if followed and commonest is not None:
        label = f"Test (always grade {commonest[0]}, the commonest of train)"
        axes.axhline(100 * commonest[1], color=_DARK, linewidth=1.2, linestyle=":", label=label, zorder=1.5)
    axes.set_title(f"Result Comparison ({of_one[0].network})", fontsize=12, color=_DARK)
    axes.set_xlabel("epoch", color=_DARK)
    axes.set_ylabel("accuracy (%)", color=_DARK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.1)
    axes.grid(axis="y", color=_GRID)
    axes.spines[["top", "right"]].set_visible(False)
    # column by column, with and without pretraining beside each other; long enough to see how the lines are broken
    handles = sorted(axes.get_legend_handles_labels()[0], key=lambda line: "(w/ " in str(line.get_label()))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9, handlelength=4)
    return figure


def confusion_matrices(cell: ComparisonRun, told: dict[str, Any], file: Path) -> Figure:
    """A model's confusion matrix on test, normalised over all photographs; beside it, over those of each true grade.

    Args:
        cell: the model.
        told: what `evaluate_runs` found.
        file: where that stands, for a message.

    Raises:
        ResultsError: `describe` is damaged.
    """
    try:
        counts = np.array(told["confusion_matrix"], dtype=np.int64)
        if counts.shape != (GRADES, GRADES):
            raise ValueError(f"confusion_matrix has the shape {counts.shape}")
        numbers = f"n = {told['n']:,}, accuracy {told['accuracy']:.2%}, QWK {told['qwk']:.3f}"
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{file}: is not what an evaluation writes: {type(error).__name__}: {error}") from None
    figure = Figure(figsize=(14.4, 6.3), layout="constrained")
    grid = figure.add_gridspec(1, 2)
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    title = f"Normalized Confusion Matrix ({cell.network} {cell.pretraining})"
    chosen = f"test, {numbers}, epoch {cell.epoch} (chosen on validation)"
    figures.draw_confusion_matrix(left, counts, f"{title}\n{chosen}")
    figures.draw_confusion_matrix(right, counts, f"{title}\neach row by itself: shares of a true grade", by_row=True)
    return figure


def _commonest(folder: RunFolder) -> tuple[int, float] | None:
    try:
        told = folder.metadata()["data"]["photographs"]
        train, test = (np.array(told[split]["by_grade"], dtype=np.int64) for split in ("train", "test"))
        grade = int(train.argmax())
        return (grade, float(test[grade] / test.sum())) if test.sum() else None
    except (IndexError, KeyError, TypeError, ValueError):  # a run that says nothing of its photographs
        return None
