"""A trial's weights on disk: the checkpoint of its best epoch while it runs, `model.pt` once it is kept.

    trials/<id>/checkpoint_00007/   model.pt, state.pt: while the trial runs, of its best epoch so far
    trials/<id>/model.pt            after it, of the few that are kept

Each has a `SHA256SUMS` beside it; that of `model.pt` is what it was when its epoch was saved.

A checkpoint is written under another name and gets its own by one rename, so that whoever is killed in between leaves
the one before. Keeping a trial's weights is a rename too: nothing is copied, however large the model.
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
"""In the reason of a trial that failed for want of disk: such a trial runs again when its sweep goes on."""
_PREFIX = "checkpoint_"
_NEEDED: dict[str, tuple[type, ...]] = {"training": (dict,), "past": (list,), "best": (list, tuple)}
"""What the state of a trial holds, for it to go on from there."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A saved epoch: the folder that holds it."""

    path: Path

    @property
    def epoch(self) -> int:
        """Which epoch's weights these are, 1 for the first."""
        return int(self.path.name.removeprefix(_PREFIX))

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The weights and the rest of the state, on the CPU.

        Raises:
            ResultsError: a file is not as it was written.
        """
        remedy = f"remove {self.path}, and the trial begins anew"
        checksums.verify(self.path, (WEIGHTS_FILE, STATE_FILE), remedy)
        weights = torch.load(self.path / WEIGHTS_FILE, map_location="cpu", weights_only=True)
        state = torch.load(self.path / STATE_FILE, map_location="cpu", weights_only=True)
        return weights, state


def save(folder: Path, epoch: int, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write a trial's checkpoint of `epoch` whole or not at all, and remove the one before.

    Args:
        folder: the trial's.
        epoch: 1 for the first one.
        weights: what `model.pt` will hold.
        state: tensors and plain values; what is needed besides to go on.

    Raises:
        OSError: it cannot be written, the disk is full say; nothing of it is left, and the one before still stands.
    """
    target = folder / f"{_PREFIX}{epoch:05d}"
    file_modes.make_inside(folder)
    # a name of its own: the worker of a sweep that was killed may be at its last epoch still
    partial = folder / f"{temporary_files.CHECKPOINT_PREFIX}{temporary_files.tag()}"
    try:
        partial.mkdir()
        for name, content in ((WEIGHTS_FILE, weights), (STATE_FILE, state)):
            _write(partial / name, dict(content))
        checksums.write(partial, (WEIGHTS_FILE, STATE_FILE))
        shutil.rmtree(target, ignore_errors=True)  # of the same epoch, trained again after its state was lost
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for older in _all(folder):
        if older.path != target:
            shutil.rmtree(older.path, ignore_errors=True)


def newest(folder: Path) -> Checkpoint | None:
    """The checkpoint to go on from; None where the trial has none."""
    return max(_all(folder), key=lambda checkpoint: checkpoint.epoch, default=None)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What a trial goes on from.

    Attributes:
        epoch: the one whose weights these are.
        weights: of the model, on the CPU.
        training: the state of its `Training` besides.
        past: the results of all epochs up to this one.
        best: the best value so far, and its epoch.
    """

    epoch: int
    weights: dict[str, torch.Tensor]
    training: dict[str, Any]
    past: list[dict[str, Any]]
    best: tuple[float, int]


def load_newest(folder: Path) -> LoadedCheckpoint | None:
    """Load the checkpoint to go on from; None where the trial has none that can be read.

    One that was cut off or overwritten is logged as a warning and passed over: the trial then begins again, and comes
    to the same, since its training is seeded.
    """
    for checkpoint in sorted(_all(folder), key=lambda one: -one.epoch):
        try:
            return _whole(checkpoint)
        except Exception as error:  # torch.load raises whatever its unpickler meets
            problem = one_line(error, 120)
            log.warning("%s: cannot be read, the trial does not go on from it: %s", checkpoint.path, problem)
    return None


def _whole(checkpoint: Checkpoint) -> LoadedCheckpoint:
    weights, state = checkpoint.load()
    if not isinstance(weights, dict) or not isinstance(state, dict):
        raise TypeError("it holds no weights and state")
    for key, kind in _NEEDED.items():
        if not isinstance(state.get(key), kind) or not state[key]:
            raise TypeError(f"{STATE_FILE} holds no {key!r}")
    if state["past"][-1].get("epoch") != checkpoint.epoch:
        raise ValueError(f"{STATE_FILE} is of another epoch")
    return LoadedCheckpoint(checkpoint.epoch, weights, state["training"], state["past"], tuple(state["best"]))


def keep(folder: Path, epoch: int) -> bool:
    """Make the weights of `epoch` the trial's `model.pt`, and remove its checkpoints; nothing where that is done.

    Returns:
        Whether `model.pt` is there now; False leaves whatever other weights the trial has.
    """
    checkpoint = next((one for one in _all(folder) if one.epoch == epoch), None)
    if checkpoint and (checkpoint.path / WEIGHTS_FILE).is_file():
        _keep_sums(checkpoint.path, folder)  # first: who is killed here does both again
        (checkpoint.path / WEIGHTS_FILE).replace(folder / WEIGHTS_FILE)
    is_kept = (folder / WEIGHTS_FILE).is_file()
    if is_kept:  # else they are all that is left of it
        _remove_checkpoints(folder)
    return is_kept


def drop(folder: Path) -> None:
    """Remove whatever weights a trial has."""
    _remove_checkpoints(folder)
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)
    (folder / checksums.SUMS).unlink(missing_ok=True)


def _keep_sums(checkpoint: Path, folder: Path) -> None:
    """Take over the sum of the weights from the time when they were saved, and add that of the configuration."""
    sums = checksums.listed(checkpoint)
    if sums is None:  # saved by 0.1.0
        (folder / checksums.SUMS).unlink(missing_ok=True)
        return
    kept = {WEIGHTS_FILE: sums[WEIGHTS_FILE]} if WEIGHTS_FILE in sums else {}
    if (folder / "config.json").is_file():
        kept["config.json"] = checksums.digest(folder / "config.json")
    checksums.record(folder, kept)


def _all(folder: Path) -> list[Checkpoint]:
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
    except RuntimeError as error:  # torch hides the disk's own error behind one about its zip file
        hidden = next((one for one in _chain(error) if isinstance(one, OSError)), None)
        if hidden is not None:
            raise hidden from None
        if "writ" in str(error) or "unexpected pos" in str(error):
            raise OSError(errno.EIO, f"torch cannot write: {first_line(error, 120)}") from None
        raise


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What an error was raised from or while handling, the nearest first."""
    seen: set[int] = set()
    inner = error.__cause__ or error.__context__
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = inner.__cause__ or inner.__context__
