"""The hooks of Ray Tune that a sweep uses: a searcher, a callback and a stopper, which all use the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from retina.config import TrialConfig
from retina.sweep.ledger import Ledger
from retina.sweep.trial_report import DONE, METRIC, TrialReport, from_tune

WORKER_RETRIES = 2
"""How often a trial whose worker died resumes from its last checkpoint."""
SLOTS_SECONDS = 5.0
"""Age at which the number of trials that fit the cluster is counted anew, since nodes join and leave."""


def trial_outcome(report: TrialReport | None) -> tuple[str, str]:
    """Return the state and the reason of a trial that has ended, by its last report.

    Returns:
        COMPLETE, PRUNED or FAIL, and the reason in a few words, which is empty for COMPLETE.
    """
    if report is None:
        return "FAIL", "ended without a result"
    if report.failure:
        return "FAIL", report.failure
    if report.finished:
        return "COMPLETE", ""
    return "PRUNED", f"stopped at the rung of epoch {report.epoch}"


class _NotPickled:
    """Pickles as an empty object, because Tune pickles its hooks for `Tuner.restore`, which is never used here."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerSearcher(_NotPickled, Searcher):
    """Suggests the ledger's next trial, but only once there is a free slot: a later proposal knows more results."""

    def __init__(self, ledger: Ledger, slots: Callable[[], int]) -> None:
        """Create the searcher.

        Args:
            ledger: chooses the trials.
            slots: returns the number of trials that fit the cluster at once.
        """
        super().__init__(metric=METRIC, mode="max" if ledger.sign > 0 else "min")
        self._ledger, self._count_slots = ledger, slots
        self._live: set[str] = set()
        self._slots, self._counted = 0, 0.0

    @property
    def slots(self) -> int:
        """Number of trials that fit the cluster at once, at least 1, counted at most `SLOTS_SECONDS` ago."""
        if time.monotonic() - self._counted > SLOTS_SECONDS:
            self._slots, self._counted = max(1, self._count_slots()), time.monotonic()
        return self._slots

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial for Tune.

        Args:
            trial_id: Tune's own id of the trial.

        Returns:
            The trial's readable id and its whole `TrialConfig`; None where no slot is free; `Searcher.FINISHED` where
            no trial is left.
        """
        slots = self.slots  # also where no trial is left to suggest: counting them finds nodes that are lost
        if self._ledger.remaining <= len(self._live):
            return None if self._live else Searcher.FINISHED  # one of the live trials may be requeued
        if len(self._live) >= slots:
            return None
        self._live.add(trial_id)
        name, config = self._ledger.ask()
        return {"trial": name, "config": config.model_dump(mode="json")}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free the trial's slot; `LedgerCallback` records the result."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file, which Tune expects; the study is on disk already."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, see `save`."""


class LedgerCallback(_NotPickled, Callback):
    """Records in the ledger what happens to the trials, as it happens."""

    def __init__(self, ledger: Ledger, refusals: list[str], watch: Callable[[], None] | None = None) -> None:
        """Create the callback.

        Args:
            ledger: the ledger of the sweep.
            refusals: list to which is appended what a worker's node lacks.
            watch: called after each of Tune's events, many times a second.
        """
        self._ledger, self._refusals, self._watch = ledger, refusals, watch
        self._ended: set[str] = set()
        self._deaths: dict[str, int] = {}

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Let the ledger do what it does from time to time; Tune calls this after each event."""
        self._ledger.tick()
        if self._watch:
            self._watch()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Record that a trial starts or resumes."""
        self._ledger.started(_name(trial), TrialConfig(**trial.config["config"]))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Record a report, and the trial's end if it failed or the scheduler stops it, which has decided by now."""
        report = from_tune(result)
        if report and report.refusal:
            self._refuse(_name(trial), report.refusal)
            return
        if report and report.result:
            for epoch in report.results:
                self._ledger.epoch(_name(trial), epoch.epoch, asdict(epoch))
            if report.is_first_of_worker:
                self._ledger.taken_up(_name(trial), report.epoch)
        if result.get(DONE):
            self._end(trial, report)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Record the end of a trial whose last result did not say that it ends."""
        self._end(trial, from_tune(trial.last_result))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Record that a trial's worker has died and Tune gives the trial up.

        Tune does so after too many deaths, or where the worker died before the trial began in it. In the second case
        the trial has not run, and it is requeued.
        """
        name, times = _name(trial), self._deaths.get(_name(trial), 0) + trial.num_failures
        if name in self._ended:
            return
        if times <= WORKER_RETRIES:
            self._deaths[name] = times
            self._ledger.requeue(name)
            return
        self._ended.add(name)
        self._ledger.end(name, "FAIL", f"its worker died {times} times", trace=_error_text(trial))

    def _refuse(self, name: str, problem: str) -> None:
        """Requeue a trial that could not run because its worker's node lacks something."""
        self._refusals.append(problem)
        self._ended.add(name)
        self._ledger.requeue(name)

    def _end(self, trial: Trial, report: TrialReport | None) -> None:
        if _name(trial) not in self._ended:
            self._ended.add(_name(trial))
            self._ledger.end(_name(trial), *trial_outcome(report), trace=report.traceback if report else "")


class BudgetStopper(_NotPickled, Stopper):
    """Stops the sweep when one of its limits is reached or a worker's node has refused a trial."""

    def __init__(self, ledger: Ledger, refusals: list[str]) -> None:
        """Create the stopper.

        Args:
            ledger: says which limit is reached.
            refusals: list that `LedgerCallback` appends to; the sweep stops once it is not empty.
        """
        self._ledger, self._refusals = ledger, refusals

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: no single trial is stopped here."""
        return False

    def stop_all(self) -> bool:
        """Return whether the whole sweep stops."""
        return bool(self._refusals or self._ledger.ended_by())


def _name(trial: Trial) -> str:
    return str(trial.config["trial"])


def _error_text(trial: Trial) -> str:
    file = trial.error_file
    return Path(file).read_text(encoding="utf-8") if file and Path(file).is_file() else ""
