"""The dry run of a sweep: its first trials, rungs, most epochs, and the disk space that it needs."""

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
from retina.sweep.cluster import fitting, trial_resources_on
from retina.sweep.study import SweepStudy
from retina.system.hardware import available_cores
from retina.training import model

FIRST_TRIALS = 8
OPTIMIZER_COPIES = {"sgd": 1, "adam": 2, "adamw": 2}
"""State values of an optimizer for each weight."""
TABLES_BYTES = 50_000_000
"""Upper estimate for tables, logs, figures, predictions and Tune's own state."""


def plan(spec: SweepSpec, root: Path) -> SweepPlan:
    """Return what `spec` would do on this machine, with its results in `root`. Starts and writes nothing.

    If `root` holds the sweep already, the plan has no first trials: they depend on what the search has learned.
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
    """Return the number of concurrent trials on this machine, computed without Ray."""
    share = trial_resources_on(spec.resources, [(available_cores(), torch.cuda.device_count())])
    return max(1, fitting(available_cores(), torch.cuda.device_count(), share))


def bytes_needed(spec: SweepSpec, slots: int) -> int:
    """Return the most bytes that the results folder takes on the disk while `slots` trials run at once.

    A running trial has the checkpoint of its best epoch, with weights and optimizer state, and for a moment the next
    one beside it. The best trials keep their weights alone, one more until it is decided which, and the best trial has
    a copy in `best/`.
    """
    weights = {config: weight_bytes(config) for config in _largest_configs(spec)}
    largest = max(weights.values())
    checkpoint = max(size * (1 + OPTIMIZER_COPIES[config.optimizer]) for config, size in weights.items())
    running = min(slots, spec.planned_trials)
    kept = min(spec.keep.trials, spec.planned_trials)
    return 2 * running * checkpoint + (kept + 2) * largest + TABLES_BYTES


def weight_bytes(config: TrialConfig) -> int:
    """Return the size of a model's weights in bytes."""
    with torch.device("meta"):
        net = model.build(config.model_copy(update={"pretrained": False}), image_size=224)
    return sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())


def refuse_full_disk(spec: SweepSpec, root: Path, slots: int) -> None:
    """Raise if the disk has not enough space for a sweep; called before anything is written.

    Raises:
        DiskError: with the needed and the free space.
    """
    needed, free = bytes_needed(spec, slots) - _weights_there(root), free_bytes(root)
    if needed > free:
        raise DiskError(
            f"{root}: the sweep needs up to {needed / 1e9:.2f} GB of disk there, {free / 1e9:.2f} GB are free;\n"
            "make room, choose another --results, or keep fewer weights: --set keep.trials=1"
        )


def _weights_there(root: Path) -> int:
    """Return the size of the weights that a continued sweep has on the disk already, in bytes."""
    found = 0
    for file in root.rglob("*.pt"):
        with contextlib.suppress(FileNotFoundError):  # another process may run the sweep: that is reported later
            found += file.stat().st_size
    return found


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free


def _largest_configs(spec: SweepSpec) -> Iterator[TrialConfig]:
    """Yield a configuration for each combination of the settings that determine the size of a checkpoint."""
    names = ("arch", "head_layers", "optimizer")
    for values in itertools.product(*(spec.possible(name) for name in names)):
        yield TrialConfig(**dict(zip(names, values, strict=True)))
