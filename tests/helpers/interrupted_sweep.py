"""Sweeps that ended or were killed after some trials, for the tests of `resume`. Needs no Ray."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_dataset

from retina.config.sweep import SweepSpec
from retina.data.dataset import FundusDataset
from retina.errors import RetinaError
from retina.results import environment
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.sweep.ledger import Ledger
from retina.sweep.resume import reopened, resumed_spec
from retina.system.locks import LOCK_FILE

PARAMETERS: dict[str, Any] = {
    "epochs": {"value": 4},
    "pretrained": {"value": False},
    "learning_rate": {"distribution": "log_uniform", "min": 1e-4, "max": 1e-2},
}
GRID: dict[str, Any] = {"epochs": {"values": [2, 3]}, "batch_size": {"values": [4, 8, 16]}}


class NoNodes:
    """A replacement for the nodes of a cluster, which needs no Ray."""

    def __init__(self, *_: Any) -> None:
        pass

    def check(self, folder: Path) -> None:
        """Do nothing: there are no nodes to check."""

    @contextlib.contextmanager
    def serving(self, root: Path) -> Iterator[None]:
        yield

    def slots(self) -> int:
        return 1

    def checked(self) -> list[str]:
        return []


def spec_of(**changes: Any) -> SweepSpec:
    return SweepSpec(**{"name": "sweep", "data": tiny_dataset.DATA, "trials": 4, "parameters": PARAMETERS, **changes})


def begun(root: Path, spec: SweepSpec) -> Ledger:
    """Create a sweep without trials, as a session writes it."""
    folder = RunFolder.create(root)
    folder.update_metadata(**environment.describe_environment(), data=tiny_dataset.photographs().summary())
    write_text(root / "sweep.yaml", spec.to_yaml())
    folder.flush()
    return Ledger.create(spec, folder)


def run(ledger: Ledger, number: int | None = None, *, state: str = "COMPLETE") -> list[str]:
    """Run `number` of the remaining trials, or all of them, to their end; return their names."""
    names = []
    for _ in range(ledger.remaining if number is None else number):
        name, config = ledger.ask()
        ledger.started(name, config)
        if state != "FAIL":
            result = {"val_qwk": 0.1 * len(names), "val_loss": 1.0, "seconds": 1.0, "images_per_second": 9.0}
            ledger.epoch(name, 1, {"epoch": 1, **result})
        ledger.end(name, state, "" if state == "COMPLETE" else "because")
        names.append(name)
    return names


def ran(root: Path, spec: SweepSpec | None = None, number: int | None = 2, *, state: str = "COMPLETE") -> RunFolder:
    """Create a sweep with some ended trials, whose process has ended."""
    ledger = begun(root, spec or spec_of())
    run(ledger, number, state=state)
    ledger.close()
    return RunFolder.open(root)


def go_on(
    root: Path, spec: SweepSpec, *, extend: int = 0, force: bool = False, photographs: FundusDataset | None = None
) -> Ledger:
    """Reopen a sweep as a session with `--resume` or `--extend` does before it runs trials."""
    resumed = resumed_spec(RunFolder.open(root), spec, extend)
    return reopened(root, resumed, photographs or tiny_dataset.photographs(), extend=extend, force=force)[1]


def contents(root: Path) -> dict[str, bytes]:
    """Return the bytes of every file except the lock, which is empty."""
    files = (file for file in root.rglob("*") if file.is_file() and file.name != LOCK_FILE)
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def refused(root: Path, spec: SweepSpec, **how: Any) -> str:
    """Return the error of the refused sweep; check its length, its exit code and that no file has changed."""
    before = contents(root)
    with pytest.raises(RetinaError) as caught:
        go_on(root, spec, **how)
    assert contents(root) == before
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    assert caught.value.exit_code == 2
    return message


def noted(root: Path) -> list[dict[str, Any]]:
    return [{key: entry[key] for key in ("changes", "extend")} for entry in RunFolder.open(root).metadata()["resumed"]]


def others() -> FundusDataset:
    """Return the same photographs with another fingerprint, as if a grade had changed."""
    return dataclasses.replace(tiny_dataset.photographs(), fingerprint="0123456789abcdef")
