"""The report of a worker to the driver after each step of a trial, and how it travels through Ray Tune.

Tune accepts a dict only. It reads the time attribute, the metric and "done" from it, adds keys of its own, and sets
"done" when the scheduler stops the trial. It flattens nested dicts and leaves every other object as it is (Ray 2.60,
`flatten_dict` in ray/_private/dict.py). The report therefore travels as one object under one key, and everything but
Tune reads its attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from retina.training.epochs import EpochResult

TIME_ATTR = "epoch"
"""Tune's time attribute: the key of the epoch that was reported, 0 where the trial has failed."""
METRIC = "best"
"""Tune's metric: the key of a trial's best value so far, which the study optimises and the rungs compare."""
DONE = "done"
"""Tune's key: whether the trial ends with this result, by itself or because the scheduler stops it."""
REPORT = "report"
"""Key of the `TrialReport` itself."""


@dataclass(frozen=True)
class TrialReport:
    """The outcome of one step of a trial: an epoch, a failure, or the worker's refusal to run trials on its node.

    Attributes:
        result: metrics of the epoch; None after a failure or a refusal.
        best: best finite value so far of the sweep's metric, in the metric's unit; NaN without a result, which Tune's
            percentiles leave out.
        earlier: results of the epochs before `result`, in order, where a worker has resumed the trial from a
            checkpoint: the process that they were reported to may have been killed before it wrote them down.
        finished: whether the trial has run all epochs of its configuration.
        failure: why the trial has failed; empty where it has not.
        traceback: Python's traceback of the failure; empty where the reason says everything.
        refusal: the node's name and what it lacks that every trial needs; empty where the node can run trials.
    """

    result: EpochResult | None = None
    best: float = math.nan
    earlier: tuple[EpochResult, ...] = ()
    finished: bool = False
    failure: str = ""
    traceback: str = ""
    refusal: str = ""

    @property
    def epoch(self) -> int:
        """Number of the epoch, 1 for the first; 0 without a result."""
        return self.result.epoch if self.result else 0

    @property
    def results(self) -> tuple[EpochResult, ...]:
        """Results of all epochs in this report, in order; empty without a result."""
        return (*self.earlier, self.result) if self.result else ()

    @property
    def is_first_of_worker(self) -> bool:
        """Whether this is the first epoch that its worker reports of the trial: epoch 1, or the one resumed from."""
        return bool(self.earlier) or self.epoch == 1

    def to_tune(self) -> dict[str, Any]:
        """Return the flat dict that Tune needs, with this report in it.

        It also holds the epoch's metrics, which Tune shows in its own status table under `--verbose`.
        """
        metrics = asdict(self.result) if self.result else {}
        is_done = self.finished or self.result is None
        return {**metrics, TIME_ATTR: self.epoch, METRIC: self.best, DONE: is_done, REPORT: self}


def from_tune(result: Mapping[str, Any] | None) -> TrialReport | None:
    """Return the report in one of Tune's result dicts, also in `trial.last_result`.

    Returns:
        None where there is none: before a trial's first report, `last_result` is empty or holds Tune's own keys only.
    """
    report = result.get(REPORT) if result else None
    return report if isinstance(report, TrialReport) else None
