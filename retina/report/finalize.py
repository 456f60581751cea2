"""The files that follow the evaluation of a sweep: figures, the comparison of networks, report.html."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from retina.data.dataset import FundusDataset
from retina.errors import one_line
from retina.report import comparison_figures, figures, page
from retina.results.run_folder import RunFolder
from retina.system.progress import Progress

log = logging.getLogger(__name__)


def finalize(
    folder: RunFolder,
    importances: Callable[[RunFolder], Mapping[str, float]],
    *,
    dataset: FundusDataset | None = None,
    progress: Progress | None = None,
    comparison_required: bool = False,
) -> list[Path]:
    """Draw the figures of the best model and the comparison of networks, and write report.html.

    A comparison that cannot be drawn, unless it is required, and a page that cannot be written are logged and left out.

    Args:
        folder: the results folder of a sweep that has ended, with or without a best trial.
        importances: returns the share of each parameter, 0 to 1: `retina.sweep.importance.importances`, which this
            package does not import.
        dataset: the photographs of the sweep; prepared anew where the comparison needs them, if None.
        progress: called with what takes long: a description, the count done, the total.
        comparison_required: raise if the comparison cannot be drawn: it is what `retina train` is for.

    Returns:
        The files that were written, the figures of the best model first.

    Raises:
        ResultsError: metrics.json of the best model or history.csv is damaged; or the comparison is required and cannot
            be drawn.
        OSError: the figures of the best model cannot be written, for example because the disk is full.
    """
    if comparison_required:  # first: it needs no best model
        comparison = comparison_figures.draw(folder, dataset, progress)
    else:
        comparison = draw_comparison(folder, dataset=dataset, progress=progress)
    written = [*(figures.draw(folder) if (folder.best / "metrics.json").is_file() else []), *comparison]
    try:
        written.append(page.write(folder, importances(folder)))
    except Exception as error:  # a defect of one picture is no reason for a sweep to fail
        log.warning("note: no report.html: %s", one_line(error, 1000))
        log.debug("no report.html", exc_info=True)
    return written


def draw_comparison(
    folder: RunFolder, *, dataset: FundusDataset | None = None, progress: Progress | None = None
) -> list[Path]:
    """Draw the comparison of networks, if the sweep is one; one that cannot be drawn is logged and left out.

    Args:
        folder: a results folder.
        dataset: as in `finalize`.
        progress: as in `finalize`.

    Returns:
        The files that were written.
    """
    try:
        return comparison_figures.draw(folder, dataset, progress)
    except OSError as error:  # ResultsError is one; for example the folder can only be read
        log.warning("note: the comparison is not drawn: %s", error)
        return []
