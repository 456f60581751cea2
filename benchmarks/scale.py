"""Measure time and memory of preparation and training for 1,000 to 100,000 photographs.

    python -m benchmarks.scale --figure scale.png

A few hundred photographs of 64 pixels are drawn and hard-linked under the required number of names, in the layout of
EyePACS. The files are tiny, so that the project's work per photograph dominates. The stages measured are

build   `prepare` without a cache: reading the labels, decoding on all cores, splitting, the fingerprint
again   `prepare` with an existing cache, as in every later sweep and in every worker on another machine
epoch   an epoch of `start_training` on one core, with validation, of a network so small that the batches dominate

Each count runs in two fresh processes, one that builds and one that trains, and the counts alternate. Memory is the
maximum of many samples. "Own" memory is resident and not shared: it excludes the mapped photographs, which the kernel
can reclaim and which the resident size (RSS) includes. Linux only. Prints tables and writes JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.decode import spread
from retina.config import DataConfig, SyntheticConfig, TrialConfig
from retina.data import dataset, synthetic
from retina.data.dataset import FundusDataset, prepare
from retina.results.environment import describe_environment
from retina.training.trainer import start_training

DRAWN = 500
"""Number of drawn photographs; ext4 allows 65,000 hard links to a file."""
SAMPLES_A_SECOND = 50
MB = 1e6
STAGES = {"labels": "find", "cache": "open_cache", "split": "split.assign"}
"""Functions that `prepare` calls, by attribute of `retina.data.dataset`; the rest is mostly the fingerprint."""
Answer = SimpleQueue[dict[str, Any]]


class TinyNet(nn.Module):
    """One convolution, (B, 3, S, S) float -> (B, 5) logits: nearly free, so that the rest of an epoch dominates."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of the five grades."""
        logits: torch.Tensor = self.layers(images)
        return logits


def link(originals: Path, count: int, folder: Path) -> None:
    """Hard-link the originals under `count` names in the layout of EyePACS, two photographs per patient."""
    with (originals / "trainLabels.csv").open(newline="", encoding="utf-8") as file:
        drawn = [(row["image"], row["level"]) for row in csv.DictReader(file)]
    (folder / "train").mkdir(parents=True)
    with (folder / "trainLabels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "level"])
        for number in range(count):
            image, level = drawn[number % len(drawn)]
            name = f"{number // 2 + 1}_{('left', 'right')[number % 2]}"
            os.link(originals / "train" / f"{image}.jpeg", folder / "train" / f"{name}.jpeg")
            rows.writerow([name, level])


def prepare_timed(config: DataConfig) -> tuple[FundusDataset, dict[str, float]]:
    """Run `prepare`, and return its result and the seconds of its stages."""
    seconds: dict[str, float] = {}

    def timed(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                seconds[stage] = time.perf_counter() - started

        return run

    with ExitStack() as stack:
        for stage, name in STAGES.items():
            *inside, last = name.split(".")
            owner = getattr(dataset, inside[0]) if inside else dataset
            stack.enter_context(mock.patch.object(owner, last, timed(stage, getattr(owner, last))))
        started = time.perf_counter()
        prepared = prepare(config)
        seconds["all"] = time.perf_counter() - started
    seconds["rest"] = seconds["all"] - sum(seconds[stage] for stage in STAGES)
    return prepared, seconds


def _build(config: DataConfig, epochs: int, answer: Answer) -> None:  # noqa: ARG001  # same signature as _train
    answer.put({"build": prepare_timed(config)[1]})


def _train(config: DataConfig, epochs: int, answer: Answer) -> None:
    torch.set_num_threads(1)  # a second thread has next to nothing to do and waits for other processes
    prepared, again = prepare_timed(config)
    trial = TrialConfig(pretrained=False, batch_size=64, epochs=epochs + 1, precision="float32")
    training = start_training(
        trial, prepared.split_view("train"), prepared.split_view("val"), net=TinyNet(), device=torch.device("cpu")
    )
    taken = [result.seconds for result in training]
    answer.put({"again": again, "epoch": taken[1:]})  # the first epoch is a warm-up


def run_sampled(work: Callable[[DataConfig, int, Answer], None], config: DataConfig, epochs: int) -> dict[str, Any]:
    """Run `work` in a fresh process; return its answer and the peak memory of it and of its workers, in bytes."""
    context = multiprocessing.get_context("spawn")
    answer: Answer = context.SimpleQueue()
    process = context.Process(target=work, args=(config, epochs, answer))
    process.start()
    peak = {"own": 0, "rss": 0, "workers": 0}
    sampled = psutil.Process(process.pid)
    while process.is_alive():
        for name, value in _memory(sampled).items():
            peak[name] = max(peak[name], value)
        time.sleep(1 / SAMPLES_A_SECOND)
    if process.exitcode:
        raise SystemExit(f"{work.__name__.strip('_')} of {config.path} ended with exit code {process.exitcode}")
    return {**answer.get(), "memory": peak}


def _memory(process: psutil.Process) -> dict[str, int]:
    try:
        info, workers = process.memory_info(), process.children()
    except psutil.Error:
        return {}
    return {"own": info.rss - info.shared, "rss": info.rss, "workers": sum(_own(worker) for worker in workers)}


def _own(process: psutil.Process) -> int:
    try:
        info = process.memory_info()
    except psutil.Error:  # it ended since it was listed
        return 0
    return int(info.rss - info.shared)


def measure(folder: Path, size: int, epochs: int) -> Iterator[tuple[str, float]]:
    """Measure one build and one training of the photographs in `folder`; yield names and values, one per epoch."""
    config = DataConfig(path=str(folder), layout="eyepacs", image_size=size)
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        os.environ["RETINA_CACHE"] = cache  # the processes inherit it
        built, trained = run_sampled(_build, config, epochs), run_sampled(_train, config, epochs)
    for name, seconds in (("build", built["build"]), ("again", trained["again"])):
        yield f"{name} s", seconds["all"]
        for stage in (*STAGES, "rest"):
            yield f"{name}: {stage} s", seconds[stage]
    for seconds in trained["epoch"]:
        yield "epoch s", seconds
    yield "build own MB", built["memory"]["own"] / MB
    yield "decoders own MB", built["memory"]["workers"] / MB
    yield "training own MB", trained["memory"]["own"] / MB
    yield "training RSS MB", trained["memory"]["rss"] / MB


def report(rows: list[dict[str, Any]], names: list[str]) -> Table:
    """Return a table with a row per count.

    Relative to the row before, seconds have the exponent of their growth and memory the kB per additional photograph.
    """
    lines = Table(box=MARKDOWN)
    for column in ("photographs", *names):
        lines.add_column(column, justify="right")
    for before, row in zip([None, *rows], rows, strict=False):
        lines.add_row(f"{row['photographs']:,}", *(_format(row, before, name) for name in names))
    return lines


def _format(row: dict[str, Any], before: dict[str, Any] | None, name: str) -> str:
    value, count = row[name]["median"], row["photographs"]
    text = f"{value:.0f}" if name.endswith("MB") else f"{value:.2f}, {1000 * value / count:.3f} ms each"
    if before is None:
        return text
    if name.endswith("MB"):
        more = (value - before[name]["median"]) / (count - before["photographs"])
        return f"{text}, {1000 * more:+.2f} kB each"
    power = math.log(value / before[name]["median"]) / math.log(count / before["photographs"])
    return f"{text}, n^{power:.2f}"


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw seconds and own memory against the number of photographs: medians with minimum and maximum."""
    drawn = Figure(figsize=(11, 4.5), layout="constrained")
    seconds, memory = drawn.subplots(1, 2)
    timed = {"build s": "build, no cache", "again s": "prepared again", "epoch s": "epoch, tiny network"}
    held = {"build own MB": "building", "decoders own MB": "its decoders together", "training own MB": "training"}
    for axes, names in ((seconds, timed), (memory, held)):
        for (name, label), colour, marker in zip(names.items(), ("#0072b2", "#d55e00", "#009e73"), "os^", strict=True):
            _draw(axes, rows, name, label=label, color=colour, marker=marker)
    counts = [row["photographs"] for row in rows]
    for name in timed:
        last = rows[-1][name]["median"] / counts[-1]
        line = "in proportion to the last" if name == "build s" else None
        seconds.plot(
            counts, [last * count for count in counts], color="#777777", linewidth=1, linestyle=":", label=line
        )
    _draw(memory, rows, "training RSS MB", label="training, with mapped photographs", color="#009e73", linestyle="--")
    seconds.set(xscale="log", yscale="log", xlabel="photographs", ylabel="seconds")
    memory.set(xscale="log", yscale="log", xlabel="photographs", ylabel="peak own memory, MB")
    for axes in (seconds, memory):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return drawn


def _draw(axes: Axes, rows: list[dict[str, Any]], name: str, **style: Any) -> None:
    middle, low, high = ([row[name][which] for row in rows] for which in ("median", "min", "max"))
    below, above = ([abs(a - b) for a, b in zip(middle, ends, strict=True)] for ends in (low, high))
    axes.errorbar([row["photographs"] for row in rows], middle, yerr=[below, above], capsize=2, markersize=4, **style)


def main() -> None:
    """Measure all counts, print the tables, write the JSON file and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=[1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--size", type=int, default=28, help="side of a cached photograph in pixels")
    parser.add_argument("--epochs", type=int, default=3, help="measured epochs, after one warm-up epoch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("scale.json"))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    counts = sorted(options.counts)
    header: dict[str, Any] = {"environment": describe_environment()}
    header["options"] = {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()
    }
    values: dict[int, dict[str, list[float]]] = {count: defaultdict(list) for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        originals = Path(folder) / "drawn"
        synthetic.draw(originals, SyntheticConfig(photographs=min(DRAWN, counts[-1]), size=64))
        for count in counts:
            link(originals, count, Path(folder) / str(count))
        for turn in range(options.repeats):
            for count in counts:
                for name, value in measure(Path(folder) / str(count), options.size, options.epochs):
                    values[count][name].append(value)
                print(f"turn {turn + 1}: {count:,} photographs", flush=True)  # noqa: T201
            rows = [{"photographs": n, **{name: spread(v) for name, v in values[n].items()}} for n in counts]
            options.out.write_text(json.dumps({**header, "counts": rows}, indent=1), encoding="utf-8")
    totals = ["build s", "again s", "epoch s"]
    stages = [[name for name in rows[0] if name.startswith(f"{kind}: ")] for kind in ("build", "again")]
    memory = [name for name in rows[0] if name.endswith("MB")]
    for names in (totals, *stages, memory):
        Console(width=170).print(report(rows, names))
    if options.figure:
        figure(rows).savefig(options.figure, dpi=110)


if __name__ == "__main__":
    main()
