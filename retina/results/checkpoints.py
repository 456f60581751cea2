"""A trial's weights on disk: the checkpoint of its best epoch while it runs, `model.pt` once it has ended and is kept.

    trials/<id>/checkpoint_00007/   model.pt, state.pt: of the best epoch so far, while the trial runs
    trials/<id>/model.pt            of the best epoch, of the few trials that are kept after their end

Each has a `SHA256SUMS` beside it. The sum of a kept `model.pt` is the one from when its epoch was saved.

A checkpoint is written under a temporary name and then renamed, so a process that is killed in between leaves the
previous checkpoint intact. Keeping a trial's weights is a rename too: nothing is copied, however large the model.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from retina.errors import first_line, one_line
from retina.results import checksums
from retina.system import file_modes, temporary_files

WEIGHTS_FILE = "model.pt"
STATE_FILE = "state.pt"
NOT_SAVED = "its weights cannot be saved"
"""Part of the reason of a trial that failed because the disk was full. It runs again when its sweep is resumed."""
_PREFIX = "checkpoint_"
_NEEDED: dict[str, tuple[type, ...]] = {"training": (dict,), "past": (list,), "best": (list, tuple)}
"""Keys and types that the saved state must have for a trial to resume from it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The folder of a saved epoch."""

    path: Path

    @property
    def epoch(self) -> int:
        """Number of the saved epoch, 1 for the first."""
        return int(self.path.name.removeprefix(_PREFIX))

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Load the model's state dict and the rest of the state, onto the CPU.

        Raises:
            ResultsError: a file does not have the checksum with which it was written.
        """
        remedy = f"remove {self.path}, and the trial starts again"
        checksums.verify(self.path, (WEIGHTS_FILE, STATE_FILE), remedy)
        weights = torch.load(self.path / WEIGHTS_FILE, map_location="cpu", weights_only=True)
        state = torch.load(self.path / STATE_FILE, map_location="cpu", weights_only=True)
        return weights, state


def save(folder: Path, epoch: int, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write a trial's checkpoint of `epoch` completely or not at all, and remove the previous one.

    Args:
        folder: folder of the trial.
        epoch: number of the epoch, 1 for the first.
        weights: state dict of the model, for `model.pt`.
        state: everything else that is needed to resume, for `state.pt`: tensors and plain values.

    Raises:
        OSError: it cannot be written, for example because the disk is full. Nothing of it is left, and the previous
            checkpoint is intact.
    """
    target = folder / f"{_PREFIX}{epoch:05d}"
    file_modes.make_inside(folder)
    # a unique name: a worker of a killed sweep may still be writing its last epoch
    partial = folder / f"{temporary_files.CHECKPOINT_PREFIX}{temporary_files.tag()}"
    try:
        partial.mkdir()
        for name, content in ((WEIGHTS_FILE, weights), (STATE_FILE, state)):
            _write(partial / name, dict(content))
        checksums.write(partial, (WEIGHTS_FILE, STATE_FILE))
        shutil.rmtree(target, ignore_errors=True)  # the same epoch, which was trained again after its state was lost
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for older in _checkpoints(folder):
        if older.path != target:
            shutil.rmtree(older.path, ignore_errors=True)


def newest(folder: Path) -> Checkpoint | None:
    """Return the checkpoint of the latest epoch in a trial's folder; None where there is none."""
    return max(_checkpoints(folder), key=lambda checkpoint: checkpoint.epoch, default=None)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """The content of a checkpoint that a trial resumes from.

    Attributes:
        epoch: number of the saved epoch.
        weights: state dict of the model, on the CPU.
        training: state dict of its `Training`.
        past: results of all epochs up to this one, as `dataclasses.asdict` makes them of `EpochResult`.
        best: best value of the metric so far, and its epoch.
    """

    epoch: int
    weights: dict[str, torch.Tensor]
    training: dict[str, Any]
    past: list[dict[str, Any]]
    best: tuple[float, int]


def load_newest(folder: Path) -> LoadedCheckpoint | None:
    """Load the newest readable checkpoint in a trial's folder; None where there is none.

    A damaged checkpoint is logged as a warning and skipped. Without another one, the trial starts again and gives the
    same result, because its training is seeded.
    """
    for checkpoint in sorted(_checkpoints(folder), key=lambda checkpoint: -checkpoint.epoch):
        try:
            return _load_checked(checkpoint)
        except Exception as error:  # torch.load raises whatever its unpickler meets
            problem = one_line(error, 120)
            log.warning("%s: cannot be read, the trial does not resume from it: %s", checkpoint.path, problem)
    return None


def _load_checked(checkpoint: Checkpoint) -> LoadedCheckpoint:
    weights, state = checkpoint.load()
    if not isinstance(weights, dict) or not isinstance(state, dict):
        raise TypeError("it does not hold a state dict and a state")
    for key, kind in _NEEDED.items():
        if not isinstance(state.get(key), kind) or not state[key]:
            raise TypeError(f"{STATE_FILE} holds no {key!r}")
    if state["past"][-1].get("epoch") != checkpoint.epoch:
        raise ValueError(f"{STATE_FILE} is of another epoch")
    return LoadedCheckpoint(checkpoint.epoch, weights, state["training"], state["past"], tuple(state["best"]))


def keep(folder: Path, epoch: int) -> bool:
    """Make the weights of `epoch` the trial's `model.pt` and remove its checkpoints; does nothing if that is done.

    Returns:
        Whether `model.pt` exists now. Where it does not, the trial's checkpoints are left as they are.
    """
    checkpoint = next((saved for saved in _checkpoints(folder) if saved.epoch == epoch), None)
    if checkpoint and (checkpoint.path / WEIGHTS_FILE).is_file():
        _keep_sums(checkpoint.path, folder)  # first: a process that is killed here does both again
        (checkpoint.path / WEIGHTS_FILE).replace(folder / WEIGHTS_FILE)
    is_kept = (folder / WEIGHTS_FILE).is_file()
    if is_kept:  # otherwise the checkpoints are all that is left of the trial
        _remove_checkpoints(folder)
    return is_kept


def drop(folder: Path) -> None:
    """Remove all weights of a trial."""
    _remove_checkpoints(folder)
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)
    (folder / checksums.SUMS).unlink(missing_ok=True)


def _keep_sums(checkpoint: Path, folder: Path) -> None:
    """Copy the checksum of the weights from when they were saved, and add that of the configuration."""
    sums = checksums.listed(checkpoint)
    if sums is None:  # version 0.1.0 wrote none
        (folder / checksums.SUMS).unlink(missing_ok=True)
        return
    recorded = {WEIGHTS_FILE: sums[WEIGHTS_FILE]} if WEIGHTS_FILE in sums else {}
    if (folder / "config.json").is_file():
        recorded["config.json"] = checksums.digest(folder / "config.json")
    checksums.record(folder, recorded)


def _checkpoints(folder: Path) -> list[Checkpoint]:
    return [Checkpoint(path) for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]


def _remove_checkpoints(folder: Path) -> None:
    partials = [
        path for path in folder.glob(f"{temporary_files.CHECKPOINT_PREFIX}*") if temporary_files.is_abandoned(path)
    ]
    for path in (*folder.glob(f"{_PREFIX}*"), *partials):
        shutil.rmtree(path, ignore_errors=True)


def _write(file: Path, content: dict[str, Any]) -> None:
    with file.open("wb") as opened:
        _save(content, opened)
        opened.flush()
        os.fsync(opened.fileno())


def _save(content: dict[str, Any], opened: Any) -> None:
    try:
        torch.save(content, opened)
    except RuntimeError as error:  # torch wraps the disk's error in one about its zip file
        cause = next((inner for inner in _causes(error) if isinstance(inner, OSError)), None)
        if cause is not None:
            raise cause from None
        if "writ" in str(error) or "unexpected pos" in str(error):
            raise OSError(errno.EIO, f"torch cannot write: {first_line(error, 120)}") from None
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that an error was raised from or while handling, the nearest first."""
    visited: set[int] = set()
    inner = error.__cause__ or error.__context__
    while inner is not None and id(inner) not in visited:
        visited.add(id(inner))
        yield inner
        inner = inner.__cause__ or inner.__context__
