"""What the sweep's machinery costs a trial: scheduling, reports, checkpoints, files; the training itself costs nothing.

    python -m benchmarks.search.machinery --trials 200

Replayed trials, whose "weights" are one number, go through real Ray: our whole sweep, and beside it, in turn, the same
trials as Ray's documentation joins OptunaSearch and ASHA, without files of their own. Counted from the first trial's
first epoch, when the workers have started, to the end. Ours runs with trials drawn at random, which is the machinery
alone, and once with the default, whose gaussian process thinks as well.
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
from retina.sweep.cluster import share_of_a_trial
from retina.sweep.ledger import Ledger
from retina.sweep.ray_backend import run
from retina.sweep.ray_backend import silence_libraries as quiet_ray
from retina.sweep.study import suggest
from retina.training.epochs import EpochResult

EPOCHS = 27


def value(config: TrialConfig, epoch: int) -> float:
    """A curve that rises towards a ceiling, which is highest at a learning rate of 1e-3."""
    ceiling = 0.9 - 0.2 * abs(math.log10(config.learning_rate) + 3)
    return ceiling * (1 - math.exp(-epoch / 9))


class Replay:
    """A `Training` that costs nothing."""

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
        """One number."""
        return {"epoch": torch.tensor(self._epoch)}

    def state_dict(self) -> dict[str, Any]:
        """The epoch."""
        return {"epoch": self._epoch}

    def load_state_dict(self, model_state: dict[str, torch.Tensor], state: dict[str, Any]) -> None:  # noqa: ARG002
        """Go on."""
        self._epoch = state["epoch"]

    def cancel(self) -> None:
        """An epoch takes no time."""


class Bare(tune.Trainable):
    """The same trial without anything of ours."""

    def setup(self, config: dict[str, Any]) -> None:
        """A new worker."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next trial."""
        self._config = TrialConfig(**new_config["config"])
        self._epoch, self._first = 0, time.time()
        return True

    def step(self) -> dict[str, Any]:
        """One epoch."""
        self._epoch += 1
        return {"val_qwk": value(self._config, self._epoch), "done": self._epoch == EPOCHS, "first": self._first}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""


Measure = Callable[[SweepSpec, Path], tuple[float, int]]
"""Seconds from the first trial's start to the end, and epochs run."""


class _First(logging.Handler):
    """When the ledger first spoke of a trial."""

    at: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.at is None and "started" in record.getMessage():
            self.at = time.time()


def spec_of(trials: int, seed: int, method: Literal["gp", "random"] = "gp") -> SweepSpec:
    """A sweep of replays."""
    parameters = {
        "epochs": {"value": EPOCHS},
        "pretrained": {"value": False},
        "learning_rate": {"distribution": "log_uniform", "min": 1e-5, "max": 1e-1},
        "batch_size": {"values": [4, 8, 16, 32], "ordered": True},
        "optimizer": {"values": ["sgd", "adamw"]},
    }
    return SweepSpec(name="machinery", trials=trials, seed=seed, method=method, parameters=parameters)


def ours(spec: SweepSpec, root: Path) -> tuple[float, int]:
    """Seconds from the first trial's start to the end, and epochs run."""
    write_text(RunFolder.create(root).root / "sweep.yaml", spec.to_yaml())
    ledger = Ledger.create(spec, RunFolder.open(root))
    first = _First()
    logging.getLogger("retina").addHandler(first)
    logging.getLogger("retina").setLevel(logging.INFO)
    run(spec, ledger, Replay, share_of_a_trial(spec.resources))
    seconds = time.time() - (first.at or math.nan)
    logging.getLogger("retina").removeHandler(first)
    return seconds, len(RunFolder.open(root).history())


def _space(trial: optuna.Trial, spec: SweepSpec) -> dict[str, Any]:
    return {"config": suggest(trial, spec).model_dump(mode="json")}


def bare(spec: SweepSpec, root: Path) -> tuple[float, int]:
    """The same for Ray's own wiring."""
    quiet_ray(verbose=False)
    search = OptunaSearch(space=partial(_space, spec=spec), metric="val_qwk", mode="max")
    asha = tune.schedulers.ASHAScheduler(
        metric="val_qwk", mode="max", max_t=EPOCHS, grace_period=spec.early_stop.grace_epochs, reduction_factor=3
    )
    tuner = tune.Tuner(
        tune.with_resources(Bare, {"cpu": 1}),
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
    """Run both in turn, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    quiet()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ways: dict[str, tuple[Measure, Literal["gp", "random"]]] = {
        "ours, random": (ours, "random"),
        "ours, gp": (ours, "gp"),
        "Ray's own wiring, TPE": (bare, "gp"),
    }
    per_trial: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(options.repeats):
        for name, (measure, method) in ways.items():
            with tempfile.TemporaryDirectory() as place:
                seconds, epochs = measure(spec_of(options.trials, seed, method), Path(place) / "sweep")
            per_trial[name].append(seconds / options.trials)
            told = f"{seconds:.1f} s, {1000 * seconds / options.trials:.0f} ms a trial, {epochs} epochs"
            print(f"{name}, seed {seed}: {options.trials} trials in {told}", flush=True)  # noqa: T201
    ray.shutdown()
    for name, values in per_trial.items():
        low, middle, high = np.min(values), np.median(values), np.max(values)
        print(f"{name}: median {1000 * middle:.0f} ms a trial ({1000 * low:.0f} to {1000 * high:.0f})")  # noqa: T201


if __name__ == "__main__":
    main()
