"""A worker trains on while an epoch is written down, but not past a rung; who is stopped there leaves it at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from learning_curves import Replay

from retina.config import TrialConfig
from retina.errors import TrainError
from retina.results import checkpoints
from retina.sweep.trainable import GraderTrainable, TrainableSettings
from retina.sweep.trial_report import DONE, TIME_ATTR
from retina.training.epochs import EpochResult

SECONDS = 20.0
"""More than anything here takes; whoever waits as long has found a defect."""


@dataclass
class Watched(Replay):
    """A replay that says which of its epochs have begun, and whose epochs from `endless` on end when abandoned."""

    begun: dict[int, threading.Event] = field(default_factory=lambda: {n: threading.Event() for n in range(1, 10)})
    endless: int = 10
    gone: threading.Event = field(default_factory=threading.Event)
    threads: int = 0

    def __next__(self) -> EpochResult:
        self.threads = torch.get_num_threads()
        self.begun[self.epoch + 1].set()
        if self.epoch + 1 >= self.endless:
            assert self.gone.wait(SECONDS)
            raise TrainError("abandoned")
        return super().__next__()

    def cancel(self) -> None:
        self.gone.set()


Worker = Callable[..., tuple[GraderTrainable, list[Watched]]]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """Starts a worker, outside Ray; gives it and the trainings that it has begun, one a trial."""
    started: list[GraderTrainable] = []

    def start(rungs: set[int], *, endless: int = 10) -> tuple[GraderTrainable, list[Watched]]:
        trainings: list[Watched] = []

        def task(config: TrialConfig) -> Watched:
            trainings.append(Watched(config, endless=endless))
            return trainings[-1]

        settings = TrainableSettings(tmp_path, "val_qwk", sign=1, threads=1, gpu=False, rungs=frozenset(rungs))
        trial = GraderTrainable.__new__(GraderTrainable)  # Tune's own __init__ wants a session
        trial.setup(asked("t0001"), task, settings)
        started.append(trial)
        return trial, trainings

    yield start
    for trial in started:
        trial.cleanup()


def asked(name: str) -> dict[str, Any]:
    return {"trial": name, "config": {"arch": "resnet18", "pretrained": False, "epochs": 6, "learning_rate": 1e-3}}


def test_the_next_epoch_begins_before_the_last_is_on_the_disk(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trial, trainings = worker(set())
    under_way: list[bool] = []
    save = checkpoints.save

    def slow(folder: Path, epoch: int, *content: Any) -> None:
        if epoch > 1:  # before there is a checkpoint, nothing is risked
            under_way.append(trainings[0].begun[epoch + 1].wait(SECONDS))
        save(folder, epoch, *content)

    monkeypatch.setattr(checkpoints, "save", slow)
    for epoch in (1, 2, 3):
        assert trial.step()[TIME_ATTR] == epoch
        assert epoch > 1 or not trainings[0].begun[2].is_set()
        saved = checkpoints.newest(tmp_path / "t0001")
        assert saved is not None
        assert saved.epoch == epoch, "what is reported is on the disk"
        assert int(saved.load()[0]["epoch"]) == epoch, "as it was, not as the next epoch has made it"
    assert under_way == [True, True]
    assert trainings[0].threads == 1


def test_nothing_is_trained_past_a_rung_or_the_end_before_it_is_asked_for(worker: Worker) -> None:
    trial, trainings = worker({3})
    results = [trial.step() for _ in range(3)]
    trial._epochs._thread.submit(int).result()  # whatever was begun is through
    assert [result[TIME_ATTR] for result in results] == [1, 2, 3]
    assert not trainings[0].begun[4].is_set()
    results += [trial.step() for _ in range(3)]
    trial._epochs._thread.submit(int).result()
    assert [result[DONE] for result in results] == [False] * 5 + [True]
    assert trainings[0].epoch == 6
    assert not trainings[0].begun[7].is_set()


def test_a_trial_that_is_stopped_is_left_in_the_midst_of_its_epoch(worker: Worker, tmp_path: Path) -> None:
    trial, trainings = worker(set(), endless=3)
    assert [trial.step()[TIME_ATTR] for _ in range(2)] == [1, 2]
    assert trainings[0].begun[3].wait(SECONDS)
    trial.reset_config(asked("t0002"))
    assert trainings[0].gone.is_set()
    assert trial.step()[TIME_ATTR] == 1, "the next trial does not get the last one's end"
    assert len(trainings) == 2
    found = checkpoints.newest(tmp_path / "t0001")
    assert found is not None
    assert found.epoch == 2
