"""Drive a sweep of replays on a running cluster: python cluster_driver.py ADDRESS FOLDER TRIALS SECONDS_AN_EPOCH.

Prints the messages for the user, and exits with the code of the command line. The file epochs.txt beside `FOLDER` gets
a line per epoch: the node's address, the learning rate, the epoch.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ray
from learning_curves import Replay, ReplayTask

from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.errors import RetinaError
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.sweep.cluster import connected, trial_resources
from retina.sweep.ledger import Ledger
from retina.sweep.nodes import Nodes
from retina.sweep.ray_backend import run, silence_libraries
from retina.training.epochs import EpochResult

EPOCHS = 5


@dataclass(frozen=True)
class Noted(ReplayTask):
    """Logs the node of each epoch; the third and later epochs wait while a file `hold` exists beside the log."""

    seconds: float = 0.1
    log: Path = Path("epochs.txt")

    def __call__(self, config: TrialConfig) -> Replay:
        return _NotedReplay(config, self.curve, seconds=self.seconds, log=self.log)


@dataclass
class _NotedReplay(Replay):
    seconds: float = 0.1
    log: Path = Path("epochs.txt")

    def __next__(self) -> EpochResult:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{ray.util.get_node_ip_address()} {self.config.learning_rate!r} {self.epoch + 1}\n")
        time.sleep(self.seconds)
        while self.epoch >= 2 and self.log.with_name("hold").exists():
            time.sleep(0.05)
        return super().__next__()


def main(address: str, root: Path, trials: int, seconds: float) -> None:
    parameters = {
        "epochs": {"value": EPOCHS},
        "pretrained": {"value": False},
        "learning_rate": {"distribution": "log_uniform", "min": 1e-5, "max": 1e-1},
    }
    spec = SweepSpec(
        name="nodes", trials=trials, method="random", parameters=parameters, early_stop={"type": "none"},
        resources={"cpu": 1, "gpu": 0},
    )  # fmt: skip
    with connected(address, spec.name):
        silence_libraries(verbose=False)
        share = trial_resources(spec.resources)
        nodes = Nodes(share)
        if root.is_dir():
            nodes.check(root)
            ledger = Ledger.open(spec, RunFolder.open(root))
        else:
            nodes.check(root.parent)
            write_text(RunFolder.create(root).root / "sweep.yaml", spec.to_yaml())
            ledger = Ledger.create(spec, RunFolder.open(root))
        task = Noted(seconds=seconds, log=root.with_name("epochs.txt"))
        outcome = run(spec, ledger, task, share, nodes=nodes)
    sys.exit(1 if outcome.interrupted else 0)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("retina").setLevel(logging.INFO)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    try:
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    except RetinaError as error:
        logging.getLogger("retina").warning("%s", error)
        sys.exit(error.exit_code)
