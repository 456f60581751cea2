"""A sweep before it starts: its first trials, its rungs, the most epochs it can cost, and the disk that it needs."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.errors import DiskError
from retina.results.run_folder import FINISHED, RunFolder
from retina.results.status import SweepPlan
from retina.sweep.cluster import fitting, share_on
from retina.sweep.study import SweepStudy
from retina.system.hardware import cores
from retina.training import model

FIRST_TRIALS = 8
OPTIMIZER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2}
"""Numbers that an optimizer keeps for each weight."""
TABLES_BYTES = 50_000_000
"""Tables, logs, figures, predictions and Tune's own state, generously."""


def plan(spec: SweepSpec, root: Path) -> SweepPlan:
    """What `spec` would do on this machine, with its results in `root`. Starts and writes nothing.

    Where `root` holds the sweep already, its first trials are not foretold: they depend on what it has learned.
    """
    ended = len(RunFolder.open(root).trial_ids(*FINISHED)) if (root / "sweep.yaml").is_file() else None
    left = max(0, spec.planned_trials - (ended or 0))
    study = SweepStudy.create(spec)
    asked = [study.ask() for _ in range(min(FIRST_TRIALS, left))] if ended is None else []
    slots = slots_here(spec)
    return SweepPlan(
        trials=left,
        first=[(name, config.model_dump(include=set(spec.parameters))) for name, config in asked],
        rungs=spec.rungs(),
        epochs=left * spec.max_epochs,
        slots=slots,
        bytes_needed=bytes_needed(spec, slots),
        bytes_free=free_bytes(root),
    )


def slots_here(spec: SweepSpec) -> int:
    """How many trials would run at once on this machine, judged without Ray."""
    share = share_on(spec.resources, [(cores(), torch.cuda.device_count())])
    return max(1, fitting(cores(), torch.cuda.device_count(), share))


def bytes_needed(spec: SweepSpec, slots: int) -> int:
    """The most that the results folder can take on the disk while `slots` trials run at once.

    A running trial has the checkpoint of its best epoch, weights and optimizer, and for a moment the next one beside
    it; the best few keep their weights alone, one more until it is decided which, and the winner has a copy in `best/`.
    """
    weights = {config: weight_bytes(config) for config in _largest_configs(spec)}
    largest = max(weights.values())
    checkpoint = max(size * (1 + OPTIMIZER_COPIES[config.optimizer]) for config, size in weights.items())
    running = min(slots, spec.planned_trials)
    kept = min(spec.keep.trials, spec.planned_trials)
    return 2 * running * checkpoint + (kept + 2) * largest + TABLES_BYTES


def weight_bytes(config: TrialConfig) -> int:
    """The size of a model's weights, in bytes."""
    with torch.device("meta"):
        net = model.build(config.model_copy(update={"pretrained": False}), image_size=224)
    return sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())


def refuse_full_disk(spec: SweepSpec, root: Path, slots: int) -> None:
    """Stop before anything is written where the disk cannot hold what a sweep will write.

    Raises:
        DiskError: saying how much is needed and how much is free.
    """
    needed, free = bytes_needed(spec, slots) - _weights_there(root), free_bytes(root)
    if needed > free:
        raise DiskError(
            f"{root}: the sweep needs up to {needed / 1e9:.2f} GB of disk there, {free / 1e9:.2f} GB are free;\n"
            "make room, choose another --results, or keep fewer weights: --set keep.trials=1"
        )


def _weights_there(root: Path) -> int:
    """What a sweep that goes on has on the disk already, in bytes."""
    found = 0
    for file in root.rglob("*.pt"):
        with contextlib.suppress(FileNotFoundError):  # another process may be running the sweep: that is said later
            found += file.stat().st_size
    return found


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder that need not be there yet."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free


def _largest_configs(spec: SweepSpec) -> Iterator[TrialConfig]:
    """A configuration for each combination of what the size of a checkpoint depends on."""
    names = ("arch", "head_layers", "optimizer")
    for values in itertools.product(*(spec.possible(name) for name in names)):
        yield TrialConfig(**dict(zip(names, values, strict=True)))
