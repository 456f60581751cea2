"""report.html: a whole sweep on one page that needs no network and no other file, also while the sweep runs."""

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
from retina.errors import ResultsError, as_disk_error
from retina.report import ensemble_results
from retina.report.page import calibration, curves, metric_tables, mistakes, overview, run_data, search, trials
from retina.report.page.run_data import RunData
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.results.status import MIN_TRIALS_FOR_IMPORTANCE
from retina.system import output_files

FILE = "report.html"
_POLICY = "script-src 'sha256-"
"""Stands near the beginning of a page of any version."""


def write(
    folder: RunFolder,
    importances: Mapping[str, float],
    *,
    file: Path | None = None,
    device: torch.device | None = None,
) -> Path:
    """Write the page of a sweep as it stands, whole or not at all.

    Args:
        folder: the sweep's.
        importances: of the parameters, 0 to 1, adding up to 1; empty where they are not known.
        file: instead of `folder`/report.html.
        device: where Grad-CAM runs; CUDA if there is any, else the CPU, if None.

    Returns:
        The file.

    Raises:
        ResultsError: a file of the folder is damaged, `file` is there and no page, or the page cannot be written.
        DiskError: the disk is full.
    """
    target = file or folder.root / FILE
    if file:
        _refuse_foreign(file)
    text = render(run_data.read(folder), importances, device=device)
    try:
        write_text(target, text, is_private=True)
    except OSError as error:
        raise as_disk_error(target, "cannot be written", error) from None
    return target


def render(told: RunData, importances: Mapping[str, float], *, device: torch.device | None = None) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _own("page.css"), _own("page.js")
    return environment.get_template("page.html").render(
        **_results(told, importances, device),
        facts=told,
        about=overview,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=retina.__version__,
        style=style,
        script=script,
        # the page may hold text of others, file names say: no script runs but this one, and nothing is fetched
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _refuse_foreign(file: Path) -> None:
    if problem := output_files.in_the_way(file, "--out", "sweep's page", lambda text: _POLICY in text):
        raise ResultsError(f"{file}: {problem}")


def _results(told: RunData, importances: Mapping[str, float], device: torch.device | None) -> dict[str, Any]:
    best = told.best or {}
    return {
        "best": best,
        "splits": list(metric_tables.splits(best).values()),
        "resamples": metric_tables.resamples(best),
        "overall": metric_tables.overall(best),
        "by_grade": metric_tables.by_grade(best),
        "baselines": metric_tables.baselines(best),
        "baseline_notes": metric_tables.baseline_notes(best),
        "ways": metric_tables.ways(told.ensembles),
        "ways_note": ensemble_results.note(told.ensembles) if told.ensembles else "",
        "way_numbers": list(ensemble_results.NUMBERS.values()),
        "matrices": list(metric_tables.matrices(best)),
        "trials": trials.table(told),
        "search": search.pictures(told),
        "slices": search.slices(told),
        "importances": overview.importances(dict(importances)),
        "enough": MIN_TRIALS_FOR_IMPORTANCE,
        "curves": curves.pictures(told),
        "chances": calibration.pictures(told),
        "mistakes": mistakes.find(told, device),
        "comparison": overview.comparison(told),
    }


def _own(name: str) -> Markup:
    """A file of ours as it is, to stand inside the page."""
    return Markup(resources.files(__name__).joinpath("templates", name).read_text(encoding="utf-8"))  # noqa: S704
