"""The interface between a sweep and what runs its trials: Ray, this process, or a simulation. Imports no Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from retina.config import TrialConfig
from retina.training.epochs import Training

if TYPE_CHECKING:  # workers import this module, and need neither the ledger nor Optuna
    from retina.config.sweep import SweepSpec
    from retina.data.dataset import FundusDataset
    from retina.sweep.ledger import Ledger

TrainingFactory = Callable[[TrialConfig], Training]
"""Starts the training run of a trial. Ray calls it in its workers, so it must be picklable there."""


Call = Callable[[Callable[[], None]], None]
"""Calls a picklable function, on a node of a cluster for example."""


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended.

    Attributes:
        best: id of the best trial; None if no trial has a result.
        ended_by: the limit that ended the sweep, for example `budget.hours=2`; empty if every trial was run or the
            sweep was interrupted.
        interrupted: whether trials are left; the sweep continues with them when it is resumed.
    """

    best: str | None
    ended_by: str
    interrupted: bool


class Backend(Protocol):
    """Runs the trials of a sweep.

    A backend takes trials from `Ledger.ask` while `Ledger.remaining` is above zero and `Ledger.ended_by` is empty. It
    reports each trial by `started`, `epoch`, `taken_up` and `end`, and calls `Ledger.close` when no trial runs any
    more. It writes an epoch's checkpoint before it reports that epoch, so that the ledger never knows of a best epoch
    whose weights are not on the disk.
    """

    def run(self, spec: SweepSpec, ledger: Ledger, task: TrainingFactory) -> SweepResult:
        """Run the sweep to its end, or until it is interrupted.

        Args:
            spec: the sweep.
            ledger: the trials so far; an interrupted sweep continues from there.
            task: starts the training run of a trial.

        Raises:
            RetinaError: the sweep cannot continue, whatever its trials do; for example study.db cannot be written.
        """
        ...


class Session(Backend, Protocol):
    """A backend that is ready to run trials, for example one that is connected to a Ray cluster.

    Attributes:
        gpu_share: share of a GPU that each trial gets, in (0, 1] or a whole number; 1 if trials get no GPU.
        call: runs a picklable function on a node with the resources of a trial and waits for it; None if trials run on
            this machine, which then has what the function needs.
    """

    gpu_share: float
    call: Call | None

    def prepare(self, folder: Path, dataset: FundusDataset) -> None:
        """Check that trials can reach `folder` and `dataset` from where they run.

        Args:
            folder: the results folder, or its parent if the results folder does not exist yet.
            dataset: the decoded dataset.

        Raises:
            RetinaError: they cannot.
        """
        ...
