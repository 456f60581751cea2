"""Early stopping: Ray's ASHA, which keeps its rungs when a sweep is resumed."""

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
from retina.sweep import private_api
from retina.sweep.trial_report import METRIC, TIME_ATTR

START_SECONDS = 300.0
"""A trial that has waited this long for its own worker to start gets the next worker that becomes free."""


@dataclass(frozen=True)
class _NamedTrial:
    """The only attribute of a trial that ASHA reads.

    It is the readable id here, which a trial keeps when its sweep is resumed. Tune gives it a new id each time.
    """

    trial_id: str


class ResumableASHAScheduler(AsyncHyperBandScheduler):
    """ASHA (Li et al. 2020, arXiv 1810.05934) on the best value so far, not on the last epoch's.

    `early_stop: {type: none}` is ASHA without a rung: its first rung lies behind the last epoch.
    """

    def __init__(self, spec: SweepSpec) -> None:
        longest = spec.max_epochs
        stops = spec.early_stop.type != "none"
        grace = spec.early_stop.grace_epochs if stops else longest + 1
        super().__init__(
            time_attr=TIME_ATTR,
            metric=METRIC,
            mode="max" if spec.metric.sign > 0 else "min",
            max_t=max(longest, grace),
            grace_period=grace,
            reduction_factor=spec.early_stop.eta,
            stop_last_trials=False,  # ASHA would stop a trial in its last epoch, after which it ends by itself
        )
        self._longest, self._sign = longest, spec.metric.sign
        self._added: dict[str, float] = {}  # monotonic seconds at which a trial was added, by Tune's trial id

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accept Tune's metric and mode without a change: `__init__` has set them."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Record when a trial was added; Tune calls this before it starts or resumes."""
        self._added[trial.trial_id] = time.monotonic()
        super().on_trial_add(tune_controller, _named(trial))

    def choose_trial_to_run(self, tune_controller: Any, **_: Any) -> Trial | None:
        """Return the pending trial that gets a free worker: the newest one; None where no trial is pending.

        Tune's own scheduler returns the oldest one, whose own worker is starting, and Tune then stops that worker.
        Where trials are shorter than the start of a worker, no second worker ever comes up. The newest trial is the one
        that was suggested because a worker became free; the others keep the workers that are starting for them. A trial
        that has waited for more than `START_SECONDS` comes first: another job of the cluster may use its resources.
        """
        pending = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        if not pending:
            return None
        pending.sort(key=lambda trial: self._added[trial.trial_id])
        waited = time.monotonic() - self._added[pending[0].trial_id]
        return pending[0] if waited > START_SECONDS else pending[-1]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether a trial continues after an epoch: "CONTINUE" or "STOP"."""
        return str(super().on_trial_result(tune_controller, _named(trial), result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Record the last result of a trial that has ended."""
        super().on_trial_complete(tune_controller, _named(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forget a trial that was removed before it ran."""
        super().on_trial_remove(tune_controller, _named(trial))

    def replay_trial(self, name: str, values: Mapping[int, float]) -> None:
        """Record at the rungs what a trial reached before this process began.

        Args:
            name: the trial's readable id.
            values: its best value so far, by epoch.
        """
        super().on_trial_add(None, _NamedTrial(name))
        for epoch in sorted(values):
            super().on_trial_result(None, _NamedTrial(name), {TIME_ATTR: epoch, METRIC: values[epoch]})

    def current_rungs(self) -> list[RungStatus]:
        """Return the rungs at which a trial may be stopped, the lowest first."""
        return [
            RungStatus(
                math.ceil(rung.milestone), rung.trials, None if rung.cutoff is None else self._sign * rung.cutoff
            )
            for rung in reversed(private_api.asha_rungs(self))
            if rung.milestone < self._longest
        ]


def _named(trial: Any) -> _NamedTrial:
    return _NamedTrial(str(trial.config["trial"]))
