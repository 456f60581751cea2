"""A sweep's state at one moment, and the plan of one that is to start: made by `retina.sweep`, shown by reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from retina.system.hardware import Load

MIN_TRIALS_FOR_IMPORTANCE = 10
"""The fewest trials with a value for which parameter importances are computed."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial that is running.

    Attributes:
        trial: its id.
        epoch: the number of epochs that are complete.
        epochs: the number of epochs that it is to train.
        value: its best value of the sweep's metric so far; None before the first epoch.
        images_per_second: the training speed of its last epoch; None before the first epoch.
    """

    trial: str
    epoch: int
    epochs: int
    value: float | None
    images_per_second: float | None


@dataclass(frozen=True)
class RungStatus:
    """A rung of ASHA: a number of epochs after which a trial may be stopped.

    Attributes:
        epoch: the number of epochs.
        trials: the number of trials that have reached the rung.
        cutoff: the value that the next trial must reach to continue; None while there is none.
    """

    epoch: int
    trials: int
    cutoff: float | None


@dataclass(frozen=True)
class SweepStatus:
    """A sweep at one moment.

    Attributes:
        name: the sweep's name.
        metric: the metric that the sweep optimises.
        planned: the number of trials that the sweep is to run.
        states: the number of trials by state: COMPLETE, PRUNED, FAIL, RUNNING.
        best: id and value of the best trial so far; None before the first value.
        running: the running trials.
        rungs: the rungs at which trials are stopped early, the lowest first.
        slots: the number of trials that fit the cluster at once.
        seconds: for how long the sweep has run.
        seconds_left: an estimate of the time left; None while there is no basis for one.
        load: the load of this machine.
    """

    name: str
    metric: str
    planned: int
    states: dict[str, int]
    best: tuple[str, float] | None
    running: list[RunningTrial] = field(default_factory=list)
    rungs: list[RungStatus] = field(default_factory=list)
    slots: int = 1
    seconds: float = 0.0
    seconds_left: float | None = None
    load: Load | None = None


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep would do.

    Attributes:
        trials: the number of trials that it would run; of a sweep that is resumed, the number left.
        first: the first of them, each its id and its searched settings; the later ones depend on their results. Empty
            for a sweep that is resumed.
        rungs: the epochs after which a trial may be stopped.
        epochs: the most epochs that all trials together can train.
        slots: the number of trials at once that `bytes_needed` assumes.
        bytes_needed: on the disk of the results folder, at most.
        bytes_free: on that disk now.
    """

    trials: int
    first: list[tuple[str, dict[str, Any]]]
    rungs: list[int]
    epochs: int
    slots: int
    bytes_needed: int
    bytes_free: int
