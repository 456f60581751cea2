"""The status of a running sweep, for a live view."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from retina.results.run_folder import FINISHED
from retina.results.status import RunningTrial, SweepStatus
from retina.sweep.ledger import Ledger
from retina.sweep.scheduler import ResumableASHAScheduler
from retina.system import hardware

SECONDS_BETWEEN = 0.5
Watch = Callable[[SweepStatus], None]


class StatusReporter:
    """Calls `watch` with the sweep's status, at most twice a second."""

    def __init__(self, watch: Watch, ledger: Ledger, rungs: ResumableASHAScheduler, slots: Callable[[], int]) -> None:
        self._watch, self._ledger, self._rungs, self._slots = watch, ledger, rungs, slots
        self._reported = 0.0  # monotonic seconds

    def __call__(self) -> None:
        """Report the status, unless that was done within the last half second."""
        if time.monotonic() - self._reported >= SECONDS_BETWEEN:
            self._reported = time.monotonic()
            self._watch(status(self._ledger, self._rungs, self._slots()))


def status(ledger: Ledger, rungs: ResumableASHAScheduler, slots: int) -> SweepStatus:
    """Return the status of a sweep on a cluster that fits `slots` concurrent trials."""
    folder, metric = ledger.folder, ledger.spec.metric.name
    rows = [folder.trial_row(name) for name in folder.trial_ids()]
    scored = [(row["trial_id"], float(row[metric])) for row in rows if row["state"] != "FAIL" and metric in row]
    running = [
        RunningTrial(
            trial=row["trial_id"],
            epoch=int(row.get("epochs_run", 0)),
            epochs=int(row["epochs"]),
            value=row.get(metric),
            images_per_second=row.get("images_per_second"),
        )
        for row in rows
        if row["state"] == "RUNNING"
    ]
    return SweepStatus(
        name=folder.name,
        metric=metric,
        planned=ledger.spec.planned_trials,
        states=dict(Counter(row["state"] for row in rows)),
        best=max(scored, key=lambda pair: ledger.sign * pair[1], default=None),
        running=running,
        rungs=rungs.current_rungs(),
        slots=slots,
        seconds=ledger.seconds,
        seconds_left=_seconds_left(ledger, running),
        load=hardware.current_load(),
    )


def _seconds_left(ledger: Ledger, running: list[RunningTrial]) -> float | None:
    """Estimate the remaining seconds from the mean number of epochs of a trial and the mean time of an epoch."""
    folder = ledger.folder
    ended = [int(folder.trial_row(name).get("epochs_run", 0)) for name in folder.trial_ids(*FINISHED)]
    done = sum(ended) + sum(trial.epoch for trial in running)
    left = None
    if ended and done:
        to_do = ledger.remaining * sum(ended) / len(ended) - sum(trial.epoch for trial in running)
        left = max(0.0, to_do) * ledger.seconds / done
    if ledger.spec.budget.hours is not None:
        of_budget = max(0.0, ledger.spec.budget.hours * 3600 - ledger.seconds)
        left = of_budget if left is None else min(left, of_budget)
    return left
