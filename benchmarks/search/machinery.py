"""Measure the overhead of a sweep per trial: scheduling, reports, checkpoints, files; the training itself is free.

    python -m benchmarks.search.machinery --trials 200

Replayed trials, whose "weights" are one number, run through real Ray: first this package's complete sweep, then the
same trials with OptunaSearch and ASHA combined as in Ray's documentation, without result files. The time is measured
from the first trial's first epoch, when the workers have started, to the end. This package's sweep runs once with
random configurations, which measures the overhead alone, and once with the default method, a Gaussian process, which
adds the time of its suggestions.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import ray
import torch
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from benchmarks.search.simulate import quiet
from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.sweep.cluster import trial_resources
from retina.sweep.ledger import Ledger
from retina.sweep.ray_backend import run
from retina.sweep.ray_backend import silence_libraries as quiet_ray
from retina.sweep.study import suggest
from retina.training.epochs import EpochResult

EPOCHS = 27


def value(config: TrialConfig, epoch: int) -> float:
    """Return the QWK of an epoch: it rises towards a ceiling, which is highest at a learning rate of 1e-3."""
    ceiling = 0.9 - 0.2 * abs(math.log10(config.learning_rate) + 3)
    return ceiling * (1 - math.exp(-epoch / 9))


class Replay:
    """A `Training` whose epochs take no time."""

    def __init__(self, config: TrialConfig) -> None:
        self._config, self._epoch = config, 0

    def __iter__(self) -> Replay:
        return self

    def __next__(self) -> EpochResult:
        self._epoch += 1
        v = value(self._config, self._epoch)
        rate = self._config.learning_rate
        return EpochResult(self._epoch, rate, 1 - v, v, v, 1 - v, v, v, v, images_per_second=100.0, seconds=0.01)

    def model_state_dict(self) -> dict[str, torch.Tensor]:
        """Return the epoch number as the only weight."""
        return {"epoch": torch.tensor(self._epoch)}

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch number."""
        return {"epoch": self._epoch}

    def load_state_dict(self, model_state: dict[str, torch.Tensor], state: dict[str, Any]) -> None:  # noqa: ARG002
        """Continue from the epoch in `state`."""
        self._epoch = state["epoch"]

    def cancel(self) -> None:
        """Do nothing: an epoch takes no time."""


class BareTrainable(tune.Trainable):
    """The same trial without this package's trainable."""

    def setup(self, config: dict[str, Any]) -> None:
        """Set up the worker for its first trial."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Set up the worker for its next trial."""
        self._config = TrialConfig(**new_config["config"])
        self._epoch, self._first = 0, time.time()
        return True

    def step(self) -> dict[str, Any]:
        """Run one epoch."""
        self._epoch += 1
        return {"val_qwk": value(self._config, self._epoch), "done": self._epoch == EPOCHS, "first": self._first}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing."""


Measure = Callable[[SweepSpec, Path], tuple[float, int]]
"""Returns the seconds from the first trial's start to the end, and the number of epochs run."""


class _FirstStart(logging.Handler):
    """Records the time at which the ledger logs the start of the first trial."""

    at: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.at is None and "started" in record.getMessage():
            self.at = time.time()


def spec_of(trials: int, seed: int, method: Literal["gp", "random"] = "gp") -> SweepSpec:
    """Build the specification of a sweep of replayed trials."""
    parameters = {
        "epochs": {"value": EPOCHS},
        "pretrained": {"value": False},
        "learning_rate": {"distribution": "log_uniform", "min": 1e-5, "max": 1e-1},
        "batch_size": {"values": [4, 8, 16, 32], "ordered": True},
        "optimizer": {"values": ["sgd", "adamw"]},
    }
    return SweepSpec(name="machinery", trials=trials, seed=seed, method=method, parameters=parameters)


def measure_sweep(spec: SweepSpec, root: Path) -> tuple[float, int]:
    """Run this package's sweep; return the seconds from the first trial's start to the end, and the epochs run."""
    write_text(RunFolder.create(root).root / "sweep.yaml", spec.to_yaml())
    ledger = Ledger.create(spec, RunFolder.open(root))
    first = _FirstStart()
    logging.getLogger("retina").addHandler(first)
    logging.getLogger("retina").setLevel(logging.INFO)
    run(spec, ledger, Replay, trial_resources(spec.resources))
    seconds = time.time() - (first.at or math.nan)
    logging.getLogger("retina").removeHandler(first)
    return seconds, len(RunFolder.open(root).history())


def _space(trial: optuna.Trial, spec: SweepSpec) -> dict[str, Any]:
    return {"config": suggest(trial, spec).model_dump(mode="json")}


def measure_bare(spec: SweepSpec, root: Path) -> tuple[float, int]:
    """Run the same trials with Ray's own searcher and scheduler; see `measure_sweep`."""
    quiet_ray(verbose=False)
    search = OptunaSearch(space=partial(_space, spec=spec), metric="val_qwk", mode="max")
    asha = tune.schedulers.ASHAScheduler(
        metric="val_qwk", mode="max", max_t=EPOCHS, grace_period=spec.early_stop.grace_epochs, reduction_factor=3
    )
    tuner = tune.Tuner(
        tune.with_resources(BareTrainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search, scheduler=asha, num_samples=spec.planned_trials, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(root), verbose=0),
    )
    results = tuner.fit()
    ended = time.time()
    if results.num_errors:
        raise results.errors[0]
    last = [result.metrics or {} for result in results]
    first = min(float(metrics["first"]) for metrics in last)
    return ended - first, sum(int(metrics["training_iteration"]) for metrics in last)


def main() -> None:
    """Run the variants alternately and print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    quiet()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    variants: dict[str, tuple[Measure, Literal["gp", "random"]]] = {
        "ours, random": (measure_sweep, "random"),
        "ours, gp": (measure_sweep, "gp"),
        "Ray's own wiring, TPE": (measure_bare, "gp"),
    }
    per_trial: dict[str, list[float]] = {name: [] for name in variants}
    for seed in range(options.repeats):
        for name, (measure, method) in variants.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds, epochs = measure(spec_of(options.trials, seed, method), Path(folder) / "sweep")
            per_trial[name].append(seconds / options.trials)
            text = f"{seconds:.1f} s, {1000 * seconds / options.trials:.0f} ms a trial, {epochs} epochs"
            print(f"{name}, seed {seed}: {options.trials} trials in {text}", flush=True)  # noqa: T201
    ray.shutdown()
    for name, values in per_trial.items():
        low, middle, high = np.min(values), np.median(values), np.max(values)
        print(f"{name}: median {1000 * middle:.0f} ms a trial ({1000 * low:.0f} to {1000 * high:.0f})")  # noqa: T201


if __name__ == "__main__":
    main()
