"""The list of all sweeps in a folder of results: state, trials, best value and age of each."""

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
"""A folder that holds one of these files is the folder of a sweep, possibly a damaged one."""


@dataclass(frozen=True)
class SweepSummary:
    """One sweep of the list.

    Attributes:
        name: the name of its folder.
        state: "running", "finished", "ended by ...", "interrupted" (`--resume` continues it), or "unreadable: ...".
        planned: the number of trials that it is to run.
        finished: the number of trials that have ended, failed ones included.
        failed: the number of trials that failed.
        metric: the metric that it optimises.
        best: id and value of the best trial so far, running ones included.
        test_qwk: QWK of the best model on test; None before it is evaluated.
        seconds_ago: the time since it was started; negative if the clock was set back.
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
    """Return the sweeps in a folder, the newest first. The state of one that cannot be read gives the reason.

    Raises:
        ResultsError: the folder does not exist or cannot be read.
    """
    if not results.is_dir():
        raise ResultsError(f"{results}: no such folder")
    try:
        # a folder whose name begins with a dot is being made, or its process was killed while it made it
        folders = [folder for folder in results.iterdir() if not folder.name.startswith(".")]
    except OSError as error:
        raise as_disk_error(results, "cannot be read", error) from None
    sweeps = [_summary(folder) for folder in folders if any(os.path.lexists(folder / name) for name in _FILES)]
    return sorted(sweeps, key=lambda sweep: (sweep.seconds_ago is None, sweep.seconds_ago, sweep.name))


def table(sweeps: list[SweepSummary]) -> Table:
    """Return a table with one row for each sweep."""
    shown = Table(box=SIMPLE_HEAD)
    for column in ("sweep", "state", "trials", "best", "test QWK", "age"):
        shown.add_column(column, justify="right" if column in {"test QWK", "age"} else "left", no_wrap=True)
    for sweep in sweeps:
        trials = f"{sweep.finished} of {sweep.planned}" + (f", {sweep.failed} failed" if sweep.failed else "")
        best = "-" if sweep.best is None else f"{sweep.metric} {sweep.best[1]:.3f} by {sweep.best[0]}"
        test = "-" if sweep.test_qwk is None else f"{sweep.test_qwk:.3f}"
        # Text: a folder's name or a reason may contain rich's markup
        name, state = Text(sweep.name), Text(sweep.state)
        shown.add_row(name, state, trials if sweep.planned else "-", best, test, _age(sweep.seconds_ago))
    return shown


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return format_duration(seconds) if seconds >= 0 else "in the future"


def _summary(root: Path) -> SweepSummary:
    try:
        return _read(root)
    except OSError as error:  # a ResultsError is one; `retina report` prints its remedy, too
        problem = " ".join(str(error).partition(";\n")[0].split()).replace(f"{root}/", "")
    return SweepSummary(root.name, f"unreadable: {problem[:80]}")


def _read(root: Path) -> SweepSummary:
    folder = RunFolder.open(root)
    spec = folder.spec()
    metadata = folder.metadata()
    if not metadata.get("started"):
        raise ResultsError(f"{root}/environment.json: is missing, or does not say when the sweep was started")
    metric = spec.metric.name
    finished, planned = len(folder.trial_ids(*FINISHED)), spec.trials or len(folder.trial_ids())
    rows = [folder.trial_row(trial_id) for trial_id in folder.trial_ids("COMPLETE", "PRUNED", "RUNNING")]
    scored = [(row["trial_id"], float(row[metric])) for row in rows if metric in row]
    if any((folder.best / name).is_file() for name in ("metrics.json", checksums.SUMS)):
        checksums.verify_best(folder.best, "metrics.json")
    metrics = readers.read_object(folder.best / "metrics.json", schemas.Metrics, METRICS_REMEDY) or {"test": {}}
    return SweepSummary(
        name=root.name,
        state=sweep_state(folder, metadata, trials_left=planned - finished),
        planned=planned,
        finished=finished,
        failed=len(folder.trial_ids("FAIL")),
        metric=metric,
        best=max(scored, key=lambda pair: spec.metric.sign * pair[1], default=None),
        test_qwk=metrics["test"].get("qwk"),
        seconds_ago=(datetime.now(UTC) - datetime.fromisoformat(metadata["started"])).total_seconds(),
    )


def sweep_state(folder: RunFolder, metadata: dict[str, Any], *, trials_left: int) -> str:
    """Return a sweep's state as in `SweepSummary`.

    Args:
        folder: the sweep's folder.
        metadata: the content of its environment.json.
        trials_left: the number of planned trials that have not ended.
    """
    if folder.is_running:
        return "running"
    if metadata.get("ended_by"):
        return f"ended by {metadata['ended_by']}"
    is_evaluated = "best" in metadata  # the best trial is evaluated after all trials have ended
    return "finished" if trials_left <= 0 and is_evaluated else "interrupted"
