"""Measure what trials share: one copy of the photographs, the workers, the device.

    python -m benchmarks.sharing --data data/idrid --image-size 224

pixels    PSS of the decoded photographs in 1 to 8 processes that have read all of them: their sum is at most one copy
workers   seconds from a trial's last epoch to the first step of the next trial in the same worker, in a real sweep:
          its report and checkpoint, the searcher's suggestion, building the next model; and from one epoch to the next:
          after the first one the worker waits until its checkpoint is written and reported, after others it does not
device    total images per second of 1, 2 and 4 concurrent trials, on one GPU or with all cores divided among them
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
from retina.results.environment import describe_environment
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.sweep.cluster import trial_resources
from retina.sweep.ledger import Ledger
from retina.sweep.ray_backend import run
from retina.system.hardware import available_cores
from retina.training.epochs import EpochResult
from retina.training.trainer import GradingTask, TrainingRun, default_device, start_training

PARTS = ("pixels", "workers", "device")
PROCESSES = (1, 2, 4, 8)
TRIALS_AT_ONCE = (1, 2, 4)
DEVICE_SECONDS = 20.0


def _read(file: str, ready: Connection) -> None:
    """Map the photographs, read every pixel, and wait."""
    pixels = np.load(file, mmap_mode="r")
    sum(int(photograph[0, 0, 0]) + int(photograph.sum()) for photograph in pixels)
    ready.send(True)
    ready.recv()


def pixels_shared(photographs: FundusDataset) -> list[dict[str, Any]]:
    """Return the bytes of the pixel file in the memory of several processes: the sum of their PSS and of their RSS."""
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for count in PROCESSES:
        ends = [spawn.Pipe() for _ in range(count)]
        processes = [
            spawn.Process(target=_read, args=(str(photographs.pixels_file), child_end)) for _, child_end in ends
        ]
        for process in processes:
            process.start()
        for parent_end, _ in ends:
            parent_end.recv()
        maps = [_map_of(process.pid or 0, photographs.pixels_file) for process in processes]
        for parent_end, _ in ends:
            parent_end.send(True)
        for process in processes:
            process.join()
        rows.append(
            {"processes": count, "pss": sum(entry.pss for entry in maps), "rss": sum(entry.rss for entry in maps)}
        )
    return rows


def _map_of(pid: int, file: Path) -> Any:
    return next(entry for entry in psutil.Process(pid).memory_maps() if entry.path == str(file.resolve()))


@dataclass(frozen=True)
class TimedTask:
    """A `GradingTask` whose training runs record in `folder` when each epoch begins and ends."""

    inner: GradingTask
    folder: Path

    def __call__(self, config: TrialConfig) -> TimedFit:
        """Start the training run."""
        return TimedFit(self.inner(config), self.folder / f"{os.getpid()}.txt")


class TimedFit(Iterator[EpochResult]):
    """A `TrainingRun` that records the times of its epochs in a file."""

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
    """Measure the seconds between trials of a worker, after first epochs and after later epochs, in a sweep of six."""
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
    with tempfile.TemporaryDirectory() as folder:
        root, epoch_logs = Path(folder) / "sharing", Path(folder) / "watched"
        epoch_logs.mkdir()
        write_text(RunFolder.create(root).root / "sweep.yaml", spec.to_yaml())
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        task = TimedTask(GradingTask(photographs, {}), epoch_logs)
        run(spec, Ledger.create(spec, RunFolder.open(root)), task, trial_resources(spec.resources))
        ray.shutdown()
        for file in epoch_logs.iterdir():
            lines = [line.split() for line in file.read_text().splitlines()]
            epochs = [(int(epoch), float(begin), float(end)) for epoch, begin, end in lines]
            for (before, _, end), (epoch, begin, _) in itertools.pairwise(epochs):
                which = "trials" if epoch == 1 else "first epoch" if before == 1 else "later epochs"
                gaps[which].append(begin - end)
    return gaps


def _train(photographs: FundusDataset, config: TrialConfig, threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    train = photographs.split_view("train")
    subset = SplitView(train.pixels, train.rows[:48], train.grades[:48])
    training = start_training(
        config, subset, SplitView(train.pixels, train.rows[:1], train.grades[:1]), device=default_device()
    )
    next(training)  # warm-up
    pipe.send(True)
    until, images = pipe.recv(), 0
    started = time.time()
    while time.time() < until:
        next(training)
        images += len(subset)
    pipe.send(images / (time.time() - started))


def device_shared(photographs: FundusDataset, arch: str, batch_size: int) -> list[dict[str, Any]]:
    """Measure the total images per second of several concurrent trials."""
    spawn = multiprocessing.get_context("spawn")
    config = TrialConfig(arch=arch, pretrained=False, batch_size=batch_size, epochs=10_000, augmentation="rotate")
    rows = []
    is_cuda = default_device().type == "cuda"
    for count in (trials for trials in TRIALS_AT_ONCE if is_cuda or trials <= 2 * available_cores()):
        threads = max(1, available_cores() // count)
        ends = [spawn.Pipe() for _ in range(count)]
        processes = [
            spawn.Process(target=_train, args=(photographs, config, threads, child_end)) for _, child_end in ends
        ]
        for process in processes:
            process.start()
        for parent_end, _ in ends:
            parent_end.recv()
        until = time.time() + DEVICE_SECONDS
        for parent_end, _ in ends:
            parent_end.send(until)
        rates = [parent_end.recv() for parent_end, _ in ends]
        for process in processes:
            process.join()
        rows.append({"trials": count, "threads": threads, "images_per_second": sum(rates)})
    return rows


def main() -> None:
    """Run the measurements, print the tables and write the JSON file."""
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
    results: dict[str, Any] = {
        "environment": describe_environment(),
        "options": {**vars(options), "out": str(options.out)},
    }
    if "pixels" in options.parts:
        results["pixels"] = pixels_shared(photographs)
        table = Table("processes", "PSS of the pixels, MB", "RSS, MB", box=MARKDOWN)
        for row in results["pixels"]:
            table.add_row(str(row["processes"]), f"{row['pss'] / 1e6:.1f}", f"{row['rss'] / 1e6:.1f}")
        console.print(table)
    if "workers" in options.parts:
        results["gaps"] = workers_reused(photographs, options.arch)
        for which, gaps in results["gaps"].items():
            spread = f"{min(gaps):.3f} to {max(gaps):.3f}, n={len(gaps)}"
            console.print(
                f"seconds from the end of {which} to the next start: {statistics.median(gaps):.3f} ({spread})"
            )
        console.print(f"{options.arch}, {options.image_size} px\n")
    if "device" in options.parts:
        results["device"] = device_shared(photographs, options.arch, options.batch_size)
        table = Table("trials at once", "threads each", "images/s together", box=MARKDOWN)
        for row in results["device"]:
            table.add_row(str(row["trials"]), str(row["threads"]), f"{row['images_per_second']:.1f}")
        console.print(table)
    options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
