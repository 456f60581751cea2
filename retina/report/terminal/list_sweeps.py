"""All sweeps of a results folder at a glance."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from retina.errors import ResultsError, as_disk_error
from retina.report.terminal.live_view import format_duration
from retina.results import checksums, readers, schemas
from retina.results.run_folder import FINISHED, METRICS_REMEDY, RunFolder

_FILES = ("sweep.yaml", "environment.json", "trials.csv", "study.db")
"""A folder that holds one of them is a sweep's, or what is left of it."""


@dataclass(frozen=True)
class SweepSummary:
    """One sweep.

    Attributes:
        name: of its folder.
        state: "running", "finished", "ended by ...", "interrupted" (`--resume` goes on), or "unreadable: ...".
        planned: trials that it is to run.
        finished: those that have ended, failed ones included.
        failed: those that failed.
        metric: what it goes by.
        best: trial and value of the best so far, running ones included.
        test_qwk: of the winner; None before the sweep has ended.
        seconds_ago: when it was started.
    """

    name: str
    state: str
    planned: int = 0
    finished: int = 0
    failed: int = 0
    metric: str = ""
    best: tuple[str, float] | None = None
    test_qwk: float | None = None
    seconds_ago: float | None = None


def read_summaries(results: Path) -> list[SweepSummary]:
    """The sweeps in a folder, the newest first; what cannot be read is named as such.

    Raises:
        ResultsError: no such folder.
    """
    if not results.is_dir():
        raise ResultsError(f"{results}: no such folder")
    try:
        # one whose name begins with a dot is being made, or was when its process was killed
        folders = [folder for folder in results.iterdir() if not folder.name.startswith(".")]
    except OSError as error:
        raise as_disk_error(results, "cannot be read", error) from None
    found = [_summary(folder) for folder in folders if any(os.path.lexists(folder / name) for name in _FILES)]
    return sorted(found, key=lambda one: (one.seconds_ago is None, one.seconds_ago, one.name))


def table(found: list[SweepSummary]) -> Table:
    """A line a sweep."""
    shown = Table(box=SIMPLE_HEAD)
    for column in ("sweep", "state", "trials", "best", "test QWK", "age"):
        shown.add_column(column, justify="right" if column in {"test QWK", "age"} else "left", no_wrap=True)
    for one in found:
        trials = f"{one.finished} of {one.planned}" + (f", {one.failed} failed" if one.failed else "")
        best = "-" if one.best is None else f"{one.metric} {one.best[1]:.3f} by {one.best[0]}"
        test = "-" if one.test_qwk is None else f"{one.test_qwk:.3f}"
        age = (
            "-"
            if one.seconds_ago is None
            else format_duration(one.seconds_ago)
            if one.seconds_ago >= 0
            else "in the future"
        )
        # Text: a folder's name, or what is wrong with it, may look like rich's markup
        shown.add_row(Text(one.name), Text(one.state), trials if one.planned else "-", best, test, age)
    return shown


def _summary(root: Path) -> SweepSummary:
    try:
        return _read(root)
    except OSError as error:  # ResultsError is one; what helps is in `retina report`'s words
        problem = " ".join(str(error).partition(";\n")[0].split()).replace(f"{root}/", "")
    return SweepSummary(root.name, f"unreadable: {problem[:80]}")


def _read(root: Path) -> SweepSummary:
    folder = RunFolder.open(root)
    spec = folder.spec()
    notes = folder.metadata()
    if not notes.get("started"):
        raise ResultsError(f"{root}/environment.json: is not there, or does not say when the sweep was started")
    metric = spec.metric.name
    finished, planned = len(folder.trial_ids(*FINISHED)), spec.trials or len(folder.trial_ids())
    rows = [folder.trial_row(name) for name in folder.trial_ids("COMPLETE", "PRUNED", "RUNNING")]
    scored = [(row["trial_id"], float(row[metric])) for row in rows if metric in row]
    if any((folder.best / name).is_file() for name in ("metrics.json", checksums.SUMS)):
        checksums.verify_best(folder.best, "metrics.json")
    metrics = readers.read_object(folder.best / "metrics.json", schemas.Metrics, METRICS_REMEDY) or {"test": {}}
    return SweepSummary(
        name=root.name,
        state=sweep_state(folder, notes, left=planned - finished),
        planned=planned,
        finished=finished,
        failed=len(folder.trial_ids("FAIL")),
        metric=metric,
        best=max(scored, key=lambda pair: spec.metric.sign * pair[1], default=None),
        test_qwk=metrics["test"].get("qwk"),
        seconds_ago=(datetime.now(UTC) - datetime.fromisoformat(notes["started"])).total_seconds(),
    )


def sweep_state(folder: RunFolder, notes: dict[str, Any], *, left: int) -> str:
    """A sweep's state, as in `SweepSummary`; `left` are the trials that are still to end."""
    if folder.is_running:
        return "running"
    if notes.get("ended_by"):
        return f"ended by {notes['ended_by']}"
    return "interrupted" if left > 0 or "best" not in notes else "finished"  # the winner is judged after the trials
