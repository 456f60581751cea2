"""Run a sweep of replays in a process that a test kills: python sweep_process.py FOLDER TRIALS."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ray
from learning_curves import Replay, ReplayTask

from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.sweep.cluster import trial_resources
from retina.sweep.ledger import Ledger
from retina.sweep.ray_backend import run
from retina.training.epochs import EpochResult


def spec_of(trials: int) -> SweepSpec:
    parameters = {
        "epochs": {"value": 9},
        "pretrained": {"value": False},
        "learning_rate": {"distribution": "log_uniform", "min": 1e-5, "max": 1e-1},
        "optimizer": {"values": ["sgd", "adamw"]},
        "momentum": {"distribution": "uniform", "min": 0.8, "max": 0.99, "when": {"optimizer": "sgd"}},
    }
    # random: gp suggests the ends of its ranges repeatedly, and the test identifies trials by their learning rate
    return SweepSpec(name="killed", trials=trials, method="random", parameters=parameters, keep={"trials": 2})


@dataclass(frozen=True)
class Noted(ReplayTask):
    """Logs each epoch to `ran`; an epoch takes 0.02 s."""

    ran: Path = Path("ran.txt")

    def __call__(self, config: TrialConfig) -> Replay:
        return _NotedReplay(config, self.curve, ran=self.ran)


@dataclass
class _NotedReplay(Replay):
    ran: Path = Path("ran.txt")

    def __next__(self) -> EpochResult:
        time.sleep(0.02)
        with self.ran.open("a", encoding="utf-8") as file:
            file.write(f"{self.config.learning_rate!r} {self.epoch + 1}\n")
        return super().__next__()


def main(root: Path, trials: int) -> None:
    spec = spec_of(trials)
    ray.init(
        address="local", num_cpus=2, num_gpus=0, object_store_memory=100_000_000, include_dashboard=False,
        log_to_driver=False, logging_level="ERROR", configure_logging=False,
    )  # fmt: skip
    if (root / "sweep.yaml").is_file():
        ledger = Ledger.open(spec, RunFolder.open(root))
    else:
        write_text(RunFolder.create(root).root / "sweep.yaml", spec.to_yaml())
        ledger = Ledger.create(spec, RunFolder.open(root))
    outcome = run(spec, ledger, Noted(ran=root.with_name("ran.txt")), trial_resources(spec.resources))
    ray.shutdown()
    sys.exit(1 if outcome.interrupted else 0)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    main(Path(sys.argv[1]), int(sys.argv[2]))
