"""A ledger of a small search, its trials, and the content of its study. Needs no Ray."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import torch

from retina.config.sweep import SweepSpec
from retina.results import checkpoints
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.sweep.ledger import Ledger
from retina.sweep.study_file import STUDY_FILE

PARAMETERS: dict[str, Any] = {
    "epochs": {"value": 4},
    "pretrained": {"value": False},
    "batch_size": {"values": [4, 8, 16], "ordered": True},
    "optimizer": {"values": ["sgd", "adamw"]},
    "momentum": {"distribution": "uniform", "min": 0.8, "max": 0.99, "when": {"optimizer": "sgd"}},
}


class Killed(BaseException):
    """Simulates `kill -9`: nothing may catch it."""


def spec_of(**changes: Any) -> SweepSpec:
    return SweepSpec(**{"name": "ledger", "trials": 6, "parameters": PARAMETERS, **changes})


def begun(root: Path, spec: SweepSpec | None = None) -> Ledger:
    write_text(RunFolder.create(root).root / "sweep.yaml", "name: ledger\n")
    return Ledger.create(spec or spec_of(), RunFolder.open(root))


def again(root: Path, spec: SweepSpec | None = None) -> Ledger:
    return Ledger.open(spec or spec_of(), RunFolder.open(root))


def result(epoch: int, qwk: float) -> dict[str, Any]:
    return {"epoch": epoch, "val_qwk": qwk, "val_loss": 1 - qwk, "seconds": 1.0, "images_per_second": 9.0}


def run_one(ledger: Ledger, values: list[float], state: str = "COMPLETE", reason: str = "") -> str:
    name, config = ledger.ask()
    ledger.started(name, config)
    for epoch, value in enumerate(values, start=1):
        ledger.epoch(name, epoch, result(epoch, value))
    if state:
        ledger.end(name, state, reason)
    return name


def save(root: Path, name: str, values: list[float], epoch: int) -> None:
    """Write the checkpoint of a trial's `epoch` as its worker does; its weights hold the epoch."""
    past = [result(number, value) for number, value in enumerate(values, start=1)][:epoch]
    state = {"training": {"epoch": epoch}, "past": past, "best": (values[epoch - 1], epoch)}
    checkpoints.save(root / "trials" / name, epoch, {"epoch": torch.tensor(epoch)}, state)


def kept(root: Path, name: str) -> int:
    """Return the epoch of a trial's model.pt."""
    return int(torch.load(root / "trials" / name / "model.pt", weights_only=True)["epoch"])


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold an exclusive lock on study.db through another connection."""
    with closing(sqlite3.connect(root / STUDY_FILE)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.rollback()


def trials_of(root: Path, study: int = -1) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{root / STUDY_FILE}"
    name = optuna.get_all_study_names(storage)[study]
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return [trial for trial in trials if trial.user_attrs.get("reason") != "tried before"]
