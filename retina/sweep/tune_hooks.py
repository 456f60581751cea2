"""Between Ray Tune and the ledger: asks for trials on Tune's behalf, tells what becomes of them, and when to stop."""

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
"""How often a trial whose worker died goes on from its last checkpoint."""
SLOTS_SECONDS = 5.0
"""How old the number of trials that fit the cluster may be: nodes come and go."""


def trial_outcome(report: TrialReport | None) -> tuple[str, str]:
    """Return the state of a trial that has ended, COMPLETE, PRUNED or FAIL, and the reason, by its last report."""
    if report is None:
        return "FAIL", "ended without a result"
    if report.failure:
        return "FAIL", report.failure
    if report.finished:
        return "COMPLETE", ""
    return "PRUNED", f"stopped at the rung of epoch {report.epoch}"


class _NotPickled:
    """Tune pickles what it is given, for a restore of its own that we never ask for: it gets an empty shell."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerSearcher(_NotPickled, Searcher):
    """Asks the ledger for the next trial, but not before there is room for it: it then knows all that can be known."""

    def __init__(self, ledger: Ledger, slots: Callable[[], int]) -> None:
        """Ask `ledger`, while fewer trials than `slots()` are under way."""
        super().__init__(metric=METRIC, mode="max" if ledger.sign > 0 else "min")
        self._ledger, self._count_slots = ledger, slots
        self._live: set[str] = set()
        self._slots, self._counted = 0, 0.0

    @property
    def slots(self) -> int:
        """How many trials fit the cluster, 1 and more, a few seconds ago at most."""
        if time.monotonic() - self._counted > SLOTS_SECONDS:
            self._slots, self._counted = max(1, self._count_slots()), time.monotonic()
        return self._slots

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial: its readable id and its whole `TrialConfig`; None where there is no room now."""
        slots = self.slots  # also where no trial is left to ask for: it is told of nodes that are lost
        if self._ledger.remaining <= len(self._live):
            return None if self._live else Searcher.FINISHED  # one of them may be put back
        if len(self._live) >= slots:
            return None
        self._live.add(trial_id)
        name, config = self._ledger.ask()
        return {"trial": name, "config": config.model_dump(mode="json")}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial makes room; what became of it the `LedgerCallback` hears."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is on the disk already."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class LedgerCallback(_NotPickled, Callback):
    """Tells the ledger what happens, as it happens."""

    def __init__(self, ledger: Ledger, refusals: list[str], watch: Callable[[], None] | None = None) -> None:
        """Tell `ledger`, and `refusals` what a worker's node lacks; `watch` is called many times a second."""
        self._ledger, self._refusals, self._watch = ledger, refusals, watch
        self._ended: set[str] = set()
        self._deaths: dict[str, int] = {}

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Tune has handled one event."""
        self._ledger.tick()
        if self._watch:
            self._watch()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial begins, or begins again."""
        self._ledger.started(_name(trial), TrialConfig(**trial.config["config"]))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """An epoch is over; or the trial has failed; or it is to be stopped, which Tune has decided by now."""
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
        """A trial has ended in a way that no result told of."""
        self._end(trial, from_tune(trial.last_result))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial's worker has died, and Tune gives the trial up: too often, or before the trial had begun in it.

        The latter is no fault of the trial's, and it has not run: it is put back.
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
        """Put back a trial that has not run here for want of something on the node."""
        self._refusals.append(problem)
        self._ended.add(name)
        self._ledger.requeue(name)

    def _end(self, trial: Trial, report: TrialReport | None) -> None:
        if _name(trial) not in self._ended:
            self._ended.add(_name(trial))
            self._ledger.end(_name(trial), *trial_outcome(report), trace=report.traceback if report else "")


class BudgetStopper(_NotPickled, Stopper):
    """Ends the sweep when the ledger says that a limit was reached, or a worker's node has refused a trial."""

    def __init__(self, ledger: Ledger, refusals: list[str]) -> None:
        self._ledger, self._refusals = ledger, refusals

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Look at a result; a single trial is never stopped here."""
        return False

    def stop_all(self) -> bool:
        """Whether the sweep has had enough."""
        return bool(self._refusals or self._ledger.ended_by())


def _name(trial: Trial) -> str:
    return str(trial.config["trial"])


def _error_text(trial: Trial) -> str:
    file = trial.error_file
    return Path(file).read_text(encoding="utf-8") if file and Path(file).is_file() else ""
