"""Training runs that take no time: they replay learning curves that are functions of the configuration."""

from __future__ import annotations

import dataclasses
import errno
import logging
import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retina.config import TrialConfig
from retina.errors import TrainError
from retina.training.epochs import EpochResult

Curve = Callable[[TrialConfig, int], float]


def rising(config: TrialConfig, epoch: int) -> float:
    """Return a value that rises with the epochs towards a ceiling, which is highest at a learning rate of 1e-3."""
    ceiling = 0.9 - 0.2 * abs(math.log10(config.learning_rate) + 3)
    return ceiling * (1 - math.exp(-epoch / 3))


def epoch_result(epoch: int, value: float = 0.5, learning_rate: float = 1e-3) -> EpochResult:
    """Build the result of an epoch with accuracies and kappas of `value` and losses of 1 - `value`."""
    return EpochResult(
        epoch=epoch,
        learning_rate=learning_rate,
        train_loss=1 - value,
        train_accuracy=value,
        train_qwk=value,
        val_loss=1 - value,
        val_accuracy=value,
        val_qwk=value,
        val_auc=value,
        images_per_second=100.0,
        seconds=0.01,
    )


@dataclass
class Replay:
    """A `Training` whose validation QWK is `curve(config, epoch)`; its "weights" hold the epoch."""

    config: TrialConfig
    curve: Curve = rising
    epoch: int = 0

    def __iter__(self) -> Iterator[EpochResult]:
        return self

    def __next__(self) -> EpochResult:
        if self.epoch >= self.config.epochs:
            raise StopIteration
        value = self.curve(self.config, self.epoch + 1)
        if math.isnan(value):
            raise TrainError(f"epoch {self.epoch + 1}, step 1: the training loss is nan")
        self.epoch += 1
        return epoch_result(self.epoch, value, self.config.learning_rate)

    def model_state_dict(self) -> dict[str, torch.Tensor]:
        return {"epoch": torch.tensor(self.epoch)}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, model_state: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        assert int(model_state["epoch"]) == state["epoch"]
        self.epoch = state["epoch"]

    def cancel(self) -> None:
        pass


@dataclass(frozen=True)
class ReplayTask:
    """The trainable of a sweep of replays; picklable if its curve is a module-level function."""

    curve: Curve = rising

    def __call__(self, config: TrialConfig) -> Replay:
        return Replay(config, self.curve)


class Broken(ReplayTask):
    """A task with a bug."""

    def __call__(self, config: TrialConfig) -> Replay:
        raise ZeroDivisionError("a defect")


@dataclass(frozen=True)
class Mortal(ReplayTask):
    """Its worker is killed once, in the sixth epoch, after it has created `mark`."""

    mark: Path = Path("died")

    def __call__(self, config: TrialConfig) -> Replay:
        return _MortalReplay(config, self.curve, mark=self.mark)


@dataclass
class _MortalReplay(Replay):
    mark: Path = Path("died")

    def __next__(self) -> EpochResult:
        if self.epoch == 5 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__next__()


class Process(ReplayTask):
    """Reports the process ID of the worker as the training loss."""

    def __call__(self, config: TrialConfig) -> Replay:
        return _ProcessReplay(config, self.curve)


class _ProcessReplay(Replay):
    def __next__(self) -> EpochResult:
        return dataclasses.replace(super().__next__(), train_loss=float(os.getpid()))


@dataclass(frozen=True)
class Short(ReplayTask):
    """Trials much shorter than a worker's start. Their value is 0.1, and 1 once two workers have run three trials each.

    `counts` is a folder with a file per worker process, which gets a byte per trial.
    """

    counts: Path = Path("counts")

    def __call__(self, config: TrialConfig) -> Replay:
        self.counts.mkdir(exist_ok=True)
        with (self.counts / str(os.getpid())).open("a") as file:
            file.write("x")
        return _ShortReplay(config, self._value)

    def _value(self, config: TrialConfig, epoch: int) -> float:
        return 1.0 if sum(file.stat().st_size >= 3 for file in self.counts.iterdir()) >= 2 else 0.1


class _ShortReplay(Replay):
    def __next__(self) -> EpochResult:
        time.sleep(0.02)
        return super().__next__()


@dataclass(frozen=True)
class Doomed(ReplayTask):
    """Its worker is killed each time in the third epoch of trials with a high learning rate; `ran` gets a byte each."""

    ran: Path = Path("ran")

    def __call__(self, config: TrialConfig) -> Replay:
        return _DoomedReplay(config, self.curve, ran=self.ran)


@dataclass
class _DoomedReplay(Replay):
    ran: Path = Path("ran")

    def __next__(self) -> EpochResult:
        if self.epoch == 2 and self.config.learning_rate > 1e-3:
            with self.ran.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__next__()


class FullDisk(ReplayTask):
    """The disk is full when a trial with a high learning rate saves its third epoch."""

    def __call__(self, config: TrialConfig) -> Replay:
        return _FullDiskReplay(config, self.curve)


class _FullDiskReplay(Replay):
    def model_state_dict(self) -> dict[str, torch.Tensor]:
        if self.epoch == 3 and self.config.learning_rate > 1e-3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().model_state_dict()


@dataclass(frozen=True)
class Counting(ReplayTask):
    """Reports the number of weight files in `folder` as the training loss, including those of running trials."""

    folder: Path = Path("trials")

    def __call__(self, config: TrialConfig) -> Replay:
        return _CountingReplay(config, self.curve, folder=self.folder)


@dataclass
class _CountingReplay(Replay):
    folder: Path = Path("trials")

    def __next__(self) -> EpochResult:
        return dataclasses.replace(super().__next__(), train_loss=float(len(list(self.folder.rglob("model.pt")))))


class Talking(ReplayTask):
    """Logs and warns as the training code does."""

    def __call__(self, config: TrialConfig) -> Replay:
        logging.getLogger("retina.training.trainer").warning("a word about %.6g", config.learning_rate)
        warnings.warn("a warning", UserWarning, stacklevel=2)
        return Replay(config, self.curve)
