"""What trials share: one copy of the photographs, the workers, the device.

    python -m benchmarks.sharing --data data/idrid --image-size 224

pixels    PSS of the decoded photographs in 1 to 8 processes that have read all of them: together no more than one copy
workers   seconds from a trial's last epoch to the first step of the next one in the same worker, through a real sweep:
          its report and checkpoint, what the search says, the next model's building; and from one epoch to the next:
          after the first one the worker waits until its checkpoint is written and reported, after others it does not
device    images a second of 1, 2 and 4 trials at once, on one GPU or on all cores (so many threads each), together
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from retina.config import DataConfig, TrialConfig
from retina.config.sweep import SweepSpec
from retina.data.dataset import FundusDataset, prepare
from retina.data.loader import SplitView
from retina.results.environment import environment
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.sweep.cluster import share_of_a_trial
from retina.sweep.ledger import Ledger
from retina.sweep.ray_backend import run
from retina.system.hardware import cores
from retina.training.epochs import EpochResult
from retina.training.trainer import GradingTask, TrainingRun, default_device, start_training

PARTS = ("pixels", "workers", "device")
PROCESSES = (1, 2, 4, 8)
TRIALS_AT_ONCE = (1, 2, 4)
DEVICE_SECONDS = 20.0


def _read(file: str, ready: Connection) -> None:
    """Map the photographs, look at each, and wait."""
    pixels = np.load(file, mmap_mode="r")
    sum(int(photograph[0, 0, 0]) + int(photograph.sum()) for photograph in pixels)
    ready.send(True)
    ready.recv()


def pixels_shared(photographs: FundusDataset) -> list[dict[str, Any]]:
    """Bytes of the pixels' file in the memory of so many processes: each one's share (PSS) summed, and RSS summed."""
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for count in PROCESSES:
        ends = [spawn.Pipe() for _ in range(count)]
        processes = [spawn.Process(target=_read, args=(str(photographs.pixels_file), theirs)) for _, theirs in ends]
        for process in processes:
            process.start()
        for ours, _ in ends:
            ours.recv()
        maps = [_map_of(process.pid or 0, photographs.pixels_file) for process in processes]
        for ours, _ in ends:
            ours.send(True)
        for process in processes:
            process.join()
        rows.append({"processes": count, "pss": sum(one.pss for one in maps), "rss": sum(one.rss for one in maps)})
    return rows


def _map_of(pid: int, file: Path) -> Any:
    return next(one for one in psutil.Process(pid).memory_maps() if one.path == str(file.resolve()))


@dataclass(frozen=True)
class TimedTask:
    """A `GradingTask` whose trainings write down, in `folder`, when a trial's first step begins and its last ends."""

    inner: GradingTask
    folder: Path

    def __call__(self, config: TrialConfig) -> TimedFit:
        """Start the run."""
        return TimedFit(self.inner(config), self.folder / f"{os.getpid()}.txt")


class TimedFit(Iterator[EpochResult]):
    """A `TrainingRun` that is watched."""

    def __init__(self, inner: TrainingRun, file: Path) -> None:
        self._inner, self._file = inner, file
        self.model_state_dict, self.state_dict = inner.model_state_dict, inner.state_dict
        self.load_state_dict, self.cancel = inner.load_state_dict, inner.cancel

    def __next__(self) -> EpochResult:
        begins = time.time()
        result = next(self._inner)
        with self._file.open("a") as file:
            file.write(f"{result.epoch} {begins} {time.time()}\n")
        return result


EPOCHS = 4


def workers_reused(photographs: FundusDataset, arch: str) -> dict[str, list[float]]:
    """Seconds between trials of one worker, after first epochs, and after later ones; of a sweep of six trials."""
    spec = SweepSpec(
        name="sharing",
        trials=6,
        method="random",
        early_stop={"type": "none"},
        parameters={
            "arch": {"value": arch},
            "pretrained": {"value": False},
            "epochs": {"value": EPOCHS},
            "learning_rate": {"distribution": "log_uniform", "min": 1e-4, "max": 1e-2},
        },
    )
    gaps: dict[str, list[float]] = {"trials": [], "first epoch": [], "later epochs": []}
    with tempfile.TemporaryDirectory() as place:
        root, watched = Path(place) / "sharing", Path(place) / "watched"
        watched.mkdir()
        write_text(RunFolder.create(root).root / "sweep.yaml", spec.to_yaml())
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        task = TimedTask(GradingTask(photographs, {}), watched)
        run(spec, Ledger.create(spec, RunFolder.open(root)), task, share_of_a_trial(spec.resources))
        ray.shutdown()
        for file in watched.iterdir():
            told = [line.split() for line in file.read_text().splitlines()]
            epochs = [(int(epoch), float(begin), float(end)) for epoch, begin, end in told]
            for (before, _, end), (epoch, begin, _) in itertools.pairwise(epochs):
                which = "trials" if epoch == 1 else "first epoch" if before == 1 else "later epochs"
                gaps[which].append(begin - end)
    return gaps


def _train(photographs: FundusDataset, config: TrialConfig, threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    train = photographs.split_view("train")
    few = SplitView(train.pixels, train.rows[:48], train.grades[:48])
    training = start_training(
        config, few, SplitView(train.pixels, train.rows[:1], train.grades[:1]), device=default_device()
    )
    next(training)  # warms up
    pipe.send(True)
    until, images = pipe.recv(), 0
    started = time.time()
    while time.time() < until:
        next(training)
        images += len(few)
    pipe.send(images / (time.time() - started))


def device_shared(photographs: FundusDataset, arch: str, batch_size: int) -> list[dict[str, Any]]:
    """Images a second of so many trials at once, together."""
    spawn = multiprocessing.get_context("spawn")
    config = TrialConfig(arch=arch, pretrained=False, batch_size=batch_size, epochs=10_000, augmentation="rotate")
    rows = []
    for count in (one for one in TRIALS_AT_ONCE if default_device().type == "cuda" or one <= 2 * cores()):
        threads = max(1, cores() // count)
        ends = [spawn.Pipe() for _ in range(count)]
        processes = [spawn.Process(target=_train, args=(photographs, config, threads, theirs)) for _, theirs in ends]
        for process in processes:
            process.start()
        for ours, _ in ends:
            ours.recv()
        until = time.time() + DEVICE_SECONDS
        for ours, _ in ends:
            ours.send(until)
        rates = [ours.recv() for ours, _ in ends]
        for process in processes:
            process.join()
        rows.append({"trials": count, "threads": threads, "images_per_second": sum(rates)})
    return rows


def main() -> None:
    """Measure all three, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("sharing.json"))
    options = parser.parse_args()
    photographs = prepare(DataConfig(path=options.data, image_size=options.image_size))
    console = Console(width=120)
    told: dict[str, Any] = {"environment": environment(), "options": {**vars(options), "out": str(options.out)}}
    if "pixels" in options.parts:
        told["pixels"] = pixels_shared(photographs)
        table = Table("processes", "PSS of the pixels, MB", "RSS, MB", box=MARKDOWN)
        for row in told["pixels"]:
            table.add_row(str(row["processes"]), f"{row['pss'] / 1e6:.1f}", f"{row['rss'] / 1e6:.1f}")
        console.print(table)
    if "workers" in options.parts:
        told["gaps"] = workers_reused(photographs, options.arch)
        for which, gaps in told["gaps"].items():
            spread = f"{min(gaps):.3f} to {max(gaps):.3f}, n={len(gaps)}"
            console.print(f"seconds between {which} and what comes next: {statistics.median(gaps):.3f} ({spread})")
        console.print(f"{options.arch}, {options.image_size} px\n")
    if "device" in options.parts:
        told["device"] = device_shared(photographs, options.arch, options.batch_size)
        table = Table("trials at once", "threads each", "images/s together", box=MARKDOWN)
        for row in told["device"]:
            table.add_row(str(row["trials"]), str(row["threads"]), f"{row['images_per_second']:.1f}")
        console.print(table)
    options.out.write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
