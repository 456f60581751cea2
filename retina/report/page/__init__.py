"""report.html: one self-contained HTML page of a sweep, which can also be written while the sweep runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch
from markupsafe import Markup

import retina
from retina.errors import ResultsError, wrap_os_error
from retina.report import ensemble_results
from retina.report.page import calibration, curves, metric_tables, mistakes, overview, run_data, search, trials
from retina.report.page.run_data import RunData
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.results.status import MIN_TRIALS_FOR_IMPORTANCE
from retina.system import output_files

FILE = "report.html"
_POLICY = "script-src 'sha256-"
"""Text near the beginning of a page of any version, by which an earlier page is recognised."""


def write(
    folder: RunFolder,
    importances: Mapping[str, float],
    *,
    file: Path | None = None,
    device: torch.device | None = None,
) -> Path:
    """Write the page of a sweep in its current state, atomically.

    Args:
        folder: results folder of the sweep.
        importances: importance of each parameter, 0 to 1, with the sum 1; empty if they are not known.
        file: path of the page; `folder`/report.html if None.
        device: device of Grad-CAM; if None, CUDA where it is available, else the CPU.

    Returns:
        The path of the page.

    Raises:
        ResultsError: a file of the folder is damaged, `file` exists and is not a page, or the page cannot be written.
        DiskError: the disk is full.
    """
    target = file or folder.root / FILE
    if file:
        _raise_if_foreign(file)
    text = render(run_data.read(folder), importances, device=device)
    try:
        write_text(target, text, is_private=True)
    except OSError as error:
        raise wrap_os_error(target, "cannot be written", error) from None
    return target


def render(run: RunData, importances: Mapping[str, float], *, device: torch.device | None = None) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _read_template("page.css"), _read_template("page.js")
    return environment.get_template("page.html").render(
        **_sections(run, importances, device),
        run=run,
        overview=overview,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=retina.__version__,
        style=style,
        script=script,
        # The page may contain untrusted text, for example file names. The policy allows this script only, and no
        # requests.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _raise_if_foreign(file: Path) -> None:
    if problem := output_files.unwritable_reason(file, "--out", "sweep's page", lambda text: _POLICY in text):
        raise ResultsError(f"{file}: {problem}")


def _sections(run: RunData, importances: Mapping[str, float], device: torch.device | None) -> dict[str, Any]:
    best = run.best or {}
    return {
        "best": best,
        "splits": list(metric_tables.split_headings(best).values()),
        "resamples": metric_tables.resamples(best),
        "overall": metric_tables.overall(best),
        "by_grade": metric_tables.by_grade(best),
        "baselines": metric_tables.baselines(best),
        "baseline_notes": metric_tables.baseline_notes(best),
        "ensembles": metric_tables.ensembles(run.ensembles),
        "ensemble_note": ensemble_results.note(run.ensembles) if run.ensembles else "",
        "ensemble_metrics": list(ensemble_results.NUMBERS.values()),
        "matrices": list(metric_tables.matrices(best)),
        "trials": trials.table(run),
        "search": search.pictures(run),
        "slices": search.slices(run),
        "importances": overview.rank_importances(dict(importances)),
        "min_trials_for_importance": MIN_TRIALS_FOR_IMPORTANCE,
        "curves": curves.pictures(run),
        "probabilities": calibration.pictures(run),
        "mistakes": mistakes.find(run, device),
        "comparison": overview.comparison_figures(run),
    }


def _read_template(name: str) -> Markup:
    """Return a file of the package's templates/ as markup that is not escaped."""
    return Markup(resources.files(__name__).joinpath("templates", name).read_text(encoding="utf-8"))  # noqa: S704
