"""Measure slot utilisation: the share of the trials' slots that a sweep uses, by the length of an epoch.

    python -m benchmarks.slots --seconds 0.05 0.7 8 --slots 2 4

Each row is one sweep through Ray Tune on replayed learning curves: an epoch sleeps for a fixed time, and workers start
as usual (a process that imports torch). With S slots and a span from the start of the first epoch of any trial to the
end of the last one:

training   sum of all epochs' durations / (S * span): share of slot-seconds that train
occupied   sum over trials of (end of its last epoch - start of its first) / (S * span): share of slot-seconds that
           belong to a trial, including the time between its epochs (report, checkpoint, driver)
all_busy   seconds from the start of the first epoch until each of the S slots has started one; null if never
start      seconds from the call of `run` to the start of the first epoch: usually the start-up time of one worker
workers    epochs run by each worker process, in descending order

At the end of a sweep some slots have no trial left: with T equally long trials on S slots no schedule uses more than
T / (S * ceil(T/S)).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.results.environment import describe_environment
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.sweep.cluster import trial_resources
from retina.sweep.ledger import Ledger
from retina.sweep.ray_backend import run
from retina.training.epochs import EpochResult

EPOCHS = 6
SWEEP_SECONDS = 40.0
"""Approximate duration of a sweep whose slots are always busy; each slot gets at least two trials."""


@dataclass
class SleepingTraining:
    """A `Training` whose epochs sleep; each writes one line to `log`: process, trial, start and end."""

    config: TrialConfig
    seconds: float
    log: Path
    epoch: int = 0

    def __iter__(self) -> SleepingTraining:
        return self

    def __next__(self) -> EpochResult:
        begin = time.time()
        time.sleep(self.seconds)
        self.epoch += 1
        value = 1 - 1 / (1 + self.epoch)
        line = json.dumps([os.getpid(), self.config.learning_rate, begin, time.time()]) + "\n"
        with self.log.open("a", encoding="utf-8") as file:
            file.write(line)
        return EpochResult(
            epoch=self.epoch,
            learning_rate=self.config.learning_rate,
            train_loss=1 - value,
            train_accuracy=value,
            train_qwk=value,
            val_loss=1 - value,
            val_accuracy=value,
            val_qwk=value,
            val_auc=value,
            images_per_second=100.0,
            seconds=self.seconds,
        )

    def model_state_dict(self) -> dict[str, torch.Tensor]:
        """Return the epoch number only."""
        return {"epoch": torch.tensor(self.epoch)}

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch number only."""
        return {"epoch": self.epoch}

    def load_state_dict(self, _: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.epoch = state["epoch"]

    def cancel(self) -> None:
        """Do nothing: the epoch sleeps to its end."""


@dataclass(frozen=True)
class SleepingTask:
    """The trainable of the sweep."""

    seconds: float
    log: Path

    def __call__(self, config: TrialConfig) -> SleepingTraining:
        """Start a training run."""
        return SleepingTraining(config, self.seconds, self.log)


def measure(seconds: float, slots: int, method: str, folder: Path) -> dict[str, Any]:
    """Run a sweep with epochs of `seconds` on the connected Ray of `slots` cores; see the module for the keys."""
    trials = max(2 * slots, round(SWEEP_SECONDS * slots / (EPOCHS * seconds) / slots) * slots)
    trials = min(trials, 100 * slots)
    parameters = {
        "epochs": {"value": EPOCHS},
        "pretrained": {"value": False},
        "learning_rate": {"distribution": "log_uniform", "min": 1e-5, "max": 1e-1},
    }
    spec = SweepSpec(
        name="slots",
        trials=trials,
        method=method,
        parameters=parameters,
        early_stop={"type": "none"},
        resources={"cpu": 1, "gpu": 0},
    )
    root = RunFolder.create(folder / f"{seconds}-{slots}").root
    write_text(root / "sweep.yaml", spec.to_yaml())
    log = root / "epochs.jsonl"
    called = time.time()
    run(spec, Ledger.create(spec, RunFolder.open(root)), SleepingTask(seconds, log), trial_resources(spec.resources))
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {"seconds": seconds, "slots": slots, "trials": trials, "method": method, **utilisation(lines, slots, called)}


def utilisation(lines: list[list[Any]], slots: int, called: float) -> dict[str, Any]:
    """Summarize epochs, each (process, trial, begin, end) in Unix seconds; see the module docstring for the keys."""
    first, last = min(line[2] for line in lines), max(line[3] for line in lines)
    span = last - first
    of_trial: dict[Any, list[list[Any]]] = {}
    for line in lines:
        of_trial.setdefault(line[1], []).append(line)
    occupied = sum(max(line[3] for line in own) - min(line[2] for line in own) for own in of_trial.values())
    began: dict[int, float] = {}
    for process, _, begin, _ in lines:
        began[process] = min(begin, began.get(process, begin))
    in_order = sorted(began.values())
    return {
        "training": sum(line[3] - line[2] for line in lines) / (slots * span),
        "occupied": occupied / (slots * span),
        "all_busy": in_order[slots - 1] - first if len(in_order) >= slots else None,
        "start": first - called,
        "span": span,
        "workers": [count for _, count in Counter(line[0] for line in lines).most_common()],
    }


def main() -> None:
    """Measure each epoch length on each number of slots, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.05, 0.7, 8.0], help="length of an epoch")
    parser.add_argument("--slots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--method", default="tpe", choices=("tpe", "gp", "random"))
    parser.add_argument("--out", type=Path, default=Path("slots.json"))
    options = parser.parse_args()
    rows = []
    table = Table("s an epoch", "slots", "trials", "training", "occupied", "all busy, s", "start, s", "span, s",
                  "epochs by worker", box=MARKDOWN)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for slots in options.slots:
            ray.init(
                address="local", num_cpus=slots, num_gpus=0, object_store_memory=100_000_000, include_dashboard=False,
                log_to_driver=False, logging_level="ERROR",
            )  # fmt: skip
            for seconds in options.seconds:
                row = measure(seconds, slots, options.method, Path(folder))
                rows.append(row)
                all_busy = "never" if row["all_busy"] is None else f"{row['all_busy']:.1f}"
                table.add_row(
                    f"{seconds:g}", str(slots), str(row["trials"]), f"{row['training']:.0%}", f"{row['occupied']:.0%}",
                    all_busy, f"{row['start']:.1f}", f"{row['span']:.0f}", " ".join(map(str, row["workers"])),
                )  # fmt: skip
            ray.shutdown()
    Console(width=140).print(table)
    summary = {"environment": describe_environment(), "rows": rows}
    options.out.write_text(json.dumps(summary, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
