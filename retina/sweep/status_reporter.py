"""What a sweep has come to at this moment, for whoever watches it."""

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
    """Tells `watch` of the sweep's status, twice a second at most, however often it is called."""

    def __init__(self, watch: Watch, ledger: Ledger, rungs: ResumableASHAScheduler, slots: Callable[[], int]) -> None:
        self._watch, self._ledger, self._rungs, self._slots = watch, ledger, rungs, slots
        self._told = 0.0

    def __call__(self) -> None:
        """Something may have happened."""
        if time.monotonic() - self._told >= SECONDS_BETWEEN:
            self._told = time.monotonic()
            self._watch(status(self._ledger, self._rungs, self._slots()))


def status(ledger: Ledger, rungs: ResumableASHAScheduler, slots: int) -> SweepStatus:
    """The sweep as it stands, `slots` trials at once fitting the cluster."""
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
        load=hardware.load(),
    )


def _seconds_left(ledger: Ledger, running: list[RunningTrial]) -> float | None:
    """By the epochs that a trial took so far on average and the time that an epoch took; no longer than the budget."""
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
