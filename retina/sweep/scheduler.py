"""The rungs at which trials are stopped early: Ray's ASHA, known by our trials' names and able to catch up."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from retina.config.sweep import SweepSpec
from retina.results.status import RungStatus

BEST = "best"
"""The key of a trial's best value so far: what the study optimises and the rungs compare. Never the last epoch's."""
EPOCH = "epoch"
START_SECONDS = 300.0
"""A trial that has waited so long for a worker of its own takes the next one that becomes free."""


@dataclass(frozen=True)
class _Named:
    """All that ASHA looks at in a trial. Ours keeps its name when it is resumed; Tune gives it a new id each time."""

    trial_id: str


class ResumableASHAScheduler(AsyncHyperBandScheduler):
    """ASHA (Li et al. 2020, arXiv 1810.05934) over the best value so far.

    `early_stop: {type: none}` is ASHA without a rung: its first one lies behind the last epoch.
    """

    def __init__(self, spec: SweepSpec) -> None:
        longest = spec.max_epochs
        stops = spec.early_stop.type != "none"
        grace = spec.early_stop.grace_epochs if stops else longest + 1
        super().__init__(
            time_attr=EPOCH,
            metric=BEST,
            mode="max" if spec.metric.sign > 0 else "min",
            max_t=max(longest, grace),
            grace_period=grace,
            reduction_factor=spec.early_stop.eta,
            stop_last_trials=False,  # a trial ends by itself; ASHA would stop it in the epoch in which it does
        )
        self._longest = longest
        self._added: dict[str, float] = {}  # monotonic seconds at which Tune was given a trial, by Tune's trial id

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Tune tells them too; we know them."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is about to start, or to start again."""
        self._added[trial.trial_id] = time.monotonic()
        super().on_trial_add(tune_controller, _named(trial))

    def choose_trial_to_run(self, tune_controller: Any, **_: Any) -> Trial | None:
        """Return the trial that takes a free worker, if there is one: the newest pending trial.

        Tune's own choice is the oldest one, whose worker is starting: Tune then stops that worker. Where trials are
        shorter than a worker's start, no second worker ever comes up. The newest trial is the one that was asked for
        because a worker became free; the others keep the workers that start for them. A trial that has waited for more
        than `START_SECONDS` comes first: its resources may be taken by another job of the cluster.
        """
        pending = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        if not pending:
            return None
        pending.sort(key=lambda trial: self._added[trial.trial_id])
        waited = time.monotonic() - self._added[pending[0].trial_id]
        return pending[0] if waited > START_SECONDS else pending[-1]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether it goes on after an epoch."""
        return str(super().on_trial_result(tune_controller, _named(trial), result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """It has ended."""
        super().on_trial_complete(tune_controller, _named(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """It was taken away before it ran."""
        super().on_trial_remove(tune_controller, _named(trial))

    def catch_up(self, name: str, values: Mapping[int, float]) -> None:
        """Take in what a trial had reached before this process began: its best values so far, by epoch."""
        super().on_trial_add(None, _Named(name))
        for epoch in sorted(values):
            super().on_trial_result(None, _Named(name), {EPOCH: epoch, BEST: values[epoch]})

    def standing(self) -> list[RungStatus]:
        """The rungs at which a trial may be stopped, the lowest first."""
        found = []
        for milestone, recorded in reversed(self._brackets[0]._rungs):  # noqa: SLF001  # debug_string() is all there is
            if milestone < self._longest:
                cutoff = self._brackets[0].cutoff(recorded)
                value = None if cutoff is None else float(self._metric_op * cutoff)
                found.append(RungStatus(math.ceil(milestone), len(recorded), value))
        return found


def _named(trial: Any) -> _Named:
    return _Named(str(trial.config["trial"]))
