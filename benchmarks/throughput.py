"""Compare the images per second of five methods that train the same network on the same photographs, in one run.

    python -m benchmarks.throughput --arch resnet18 --image-size 224 --batch-size 12 --data data/idrid

seed      the course report: DataLoader over JPEG files that PIL decodes in __getitem__, float32, NCHW, plain SGD
tutorial  Ray Tune's PyTorch tutorial: the same with loader workers and torchvision's usual augmentation
timm      timm's loader and a plain loop under automatic mixed precision (left out where timm is not installed)
ours      `start_training` as a sweep runs it, including augmentation, metrics and the epoch's result
limit     forward, backward and step alone, on one batch that is on the device already; model and precision as in `ours`

Several sizes may be given; each combination is a case. Within a case the methods alternate, with one epoch of the same
photographs each, so that a machine that slows down slows all of them. The first turn is a warm-up and does not count. A
GPU is used if available. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from PIL import Image
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from retina.config import DataConfig, TrialConfig
from retina.data.dataset import FundusDataset, prepare
from retina.data.loader import BatchPlan, SplitView, load
from retina.results.environment import describe_environment
from retina.system.hardware import available_cores
from retina.training import microbatch, model
from retina.training.trainer import default_device, select_precision, start_training

Epoch = Callable[[], None]
"""Trains once over all photographs of the case, and returns when the device has finished."""
LIMIT_SECONDS = 2.0
"""Duration of an epoch of `limit`, which determines the number of photographs; an epoch has at least two batches."""
METHODS = ("seed", "tutorial", "timm", "ours", "limit")


@dataclass(frozen=True)
class Case:
    """The model, the data and the device of a comparison.

    Attributes:
        config: configuration of `ours`; the other methods take model, batch size, learning rate and momentum from it.
        part: decoded photographs for `ours` and `limit`, a whole number of batches.
        files: image files of the same photographs, in the same order.
        device: device to train on.
        workers: number of loader processes of the methods that use them.
    """

    config: TrialConfig
    part: SplitView
    files: list[Path]
    device: torch.device
    workers: int

    @property
    def size(self) -> int:
        """Side of a photograph in pixels."""
        return int(self.part.pixels.shape[1])

    def net(self) -> torch.nn.Module:
        """Build the untrained network, which is the same for all methods, on the device."""
        torch.manual_seed(0)
        return model.build(self.config, image_size=self.size).to(self.device).train()

    def sgd(self, net: torch.nn.Module, *, fused: bool = False) -> torch.optim.SGD:
        """Build the optimizer, which is the same for all methods; only `ours` and `limit` use the fused one."""
        config = self.config
        return torch.optim.SGD(
            net.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=fused,
        )


class Files(Dataset[tuple[Any, int]]):
    """A dataset that decodes a photograph on each access."""

    def __init__(self, case: Case, transform: Callable[[Image.Image], Any] | None) -> None:
        self._files, self._grades, self.transform = case.files, case.part.grades, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with Image.open(self._files[index]) as image:
            photograph = image.convert("RGB")
        return self.transform(photograph) if self.transform else photograph, int(self._grades[index])


def seed(case: Case) -> Epoch:
    """Train with PIL in `__getitem__`, float32, NCHW, and read the loss in each step."""
    resize = transforms.Resize((case.size, case.size))
    files = Files(case, transforms.Compose([resize, transforms.ToTensor()]))
    return _plain(case, DataLoader(files, batch_size=case.config.batch_size, shuffle=True))


def tutorial(case: Case) -> Epoch:
    """Train as `seed` does, with loader workers and augmentation."""
    steps = [
        transforms.Resize((case.size, case.size)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(180),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    loader = DataLoader(
        Files(case, transforms.Compose(steps)),
        batch_size=case.config.batch_size,
        shuffle=True,
        num_workers=case.workers,
        persistent_workers=True,
    )
    return _plain(case, loader)


def _plain(case: Case, loader: DataLoader[tuple[Any, int]]) -> Epoch:
    net = case.net()
    optimizer = case.sgd(net)

    def epoch() -> None:
        total = 0.0
        for images, grades in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images.to(case.device)), grades.to(case.device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()

    return epoch


def timm(case: Case) -> Epoch:
    """Train with timm's loader, its prefetcher on CUDA, and automatic mixed precision."""
    from timm.data import create_loader  # noqa: PLC0415  # not a dependency of this package

    prefetches = case.device.type == "cuda"
    loader = create_loader(
        Files(case, None),
        input_size=(3, case.size, case.size),
        batch_size=case.config.batch_size,
        is_training=True,
        use_prefetcher=prefetches,
        num_workers=case.workers,
        device=case.device,
    )
    net = case.net()
    optimizer = case.sgd(net)
    precision = select_precision("auto", case.device)
    scaler = torch.amp.GradScaler(case.device.type, enabled=precision is torch.float16)

    def epoch() -> None:
        for images, grades in loader:
            with microbatch.autocast(case.device, precision):
                logits = net(images.to(case.device))
                loss = F.cross_entropy(logits, grades.to(case.device))
            optimizer.zero_grad()
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
        _wait(case.device)

    return epoch


def retina_trainer(case: Case) -> Epoch:
    """Train with this package; validate on one photograph only, since the other methods do not validate."""
    validation = SplitView(case.part.pixels, case.part.rows[:1], case.part.grades[:1])
    training = start_training(case.config, case.part, validation, device=case.device)

    def epoch() -> None:
        next(training)

    return epoch


def limit(case: Case) -> Epoch:
    """Measure the hardware's limit for this model, precision and batch size."""
    net = case.net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = case.sgd(net, fused=True)
    precision = select_precision("auto", case.device)
    images, grades = load(case.part, BatchPlan(np.arange(case.config.batch_size)), case.device)

    def epoch() -> None:
        for _ in range(len(case.part) // case.config.batch_size):
            optimizer.zero_grad(set_to_none=True)
            with microbatch.autocast(case.device, precision):
                logits = net(images)
            F.cross_entropy(logits.float(), grades).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        _wait(case.device)

    return epoch


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


BUILDERS: dict[str, Callable[[Case], Epoch]] = {
    "seed": seed,
    "tutorial": tutorial,
    "timm": timm,
    "ours": retina_trainer,
    "limit": limit,
}


def measure(case: Case, methods: list[str], repeats: int) -> dict[str, list[float] | str]:
    """Return `repeats` values of images per second for each method; the first line of the error for one that failed."""
    results: dict[str, list[float] | str] = {}
    running: dict[str, Epoch] = {}
    for turn, method in itertools.product(range(-1, repeats), methods):
        if isinstance(results.get(method), str):
            continue
        try:
            if turn < 0:
                running[method], results[method] = BUILDERS[method](case), []
            started = time.perf_counter()
            running[method]()
            seconds = time.perf_counter() - started
        except Exception as error:  # a method that runs out of memory must not end the others
            results[method] = (str(error).splitlines() or [type(error).__name__])[0][:80]
            running.pop(method, None)
            gc.collect()
            continue
        values = results[method]
        if turn >= 0 and isinstance(values, list):
            values.append(len(case.part) / seconds)
    return results


def case_of(photographs: FundusDataset, files: list[Path], options: argparse.Namespace, arch: str, batch: int) -> Case:
    """Build a case with the number of photographs that `LIMIT_SECONDS` requires, repeated if there are fewer."""
    device = default_device()
    config = TrialConfig(
        arch=arch, pretrained=False, batch_size=batch, epochs=10_000, augmentation=options.augmentation
    )
    grades = photographs.frame["grade"].to_numpy(dtype=np.int64)
    probe = Case(config, _first(photographs.pixels, grades, batch), [], device, options.workers)
    epoch = limit(probe)
    epoch()
    started = time.perf_counter()
    epoch()
    batches = max(2, min(round(LIMIT_SECONDS / (time.perf_counter() - started)), 200))
    part = _first(photographs.pixels, grades, batches * batch)
    return Case(config, part, [files[row] for row in part.rows], device, options.workers)


def _first(pixels: Any, grades: Any, count: int) -> SplitView:
    rows = np.arange(count) % len(grades)
    return SplitView(pixels, rows, grades[rows])


def files_of(photographs: FundusDataset, folder: Path) -> list[Path]:
    """Return the photographs' files; photographs in an array are first written to `folder` as JPEG."""
    frame = photographs.frame
    if not (frame["array"] != "").any():
        return [Path(path) for path in frame["path"]]
    files = [folder / f"{row}.jpeg" for row in range(len(frame))]
    for file, square in zip(files, photographs.pixels, strict=True):
        Image.fromarray(square).save(file, quality=95)
    return files


def cases(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Yield every combination of image size, architecture and batch size."""
    for size in options.image_size:
        photographs = prepare(DataConfig(path=options.data, image_size=size))
        (folder / str(size)).mkdir()
        files = files_of(photographs, folder / str(size))
        for arch, batch in itertools.product(options.arch, options.batch_size):
            yield case_of(photographs, files, options, arch, batch)


def report(rows: list[dict[str, Any]]) -> Table:
    """Return a table with a row per case: images per second, and the ratio of `ours` to `seed`, `timm` and `limit`."""
    lines = Table(box=MARKDOWN)
    for column in ("case", *METHODS, "ours/seed", "ours/timm", "ours/limit"):
        lines.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        cells = [_format(row["images_per_second"].get(method)) for method in METHODS]
        lines.add_row(
            f"{row['arch']}, {row['image_size']} px, batch {row['batch_size']}, {row['photographs']} photographs",
            *cells,
            *(_ratio(row, method) for method in ("seed", "timm", "limit")),
        )
    return lines


def _format(values: list[float] | str | None) -> str:
    """Format images per second as median, minimum and maximum."""
    if not isinstance(values, list):
        return values or "-"
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _ratio(row: dict[str, Any], method: str) -> str:
    own_rates, rates = (row["images_per_second"].get(name) for name in ("ours", method))
    if not isinstance(own_rates, list) or not isinstance(rates, list):
        return "-"
    ratios = [own / other for own, other in zip(own_rates, rates, strict=True)]  # of the same turn
    return f"{statistics.median(ratios):.2f}"


def main() -> None:
    """Measure every case, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["resnet18"])
    parser.add_argument("--image-size", nargs="+", type=int, default=[224])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[12])
    parser.add_argument(
        "--data", default="synthetic", help="like the sweep's --data: a folder, a label file or an npz file"
    )
    parser.add_argument("--augmentation", default="rotate", help="augmentation of `ours`; see TrialConfig")
    parser.add_argument("--ways", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--workers", type=int, default=max(2, min(available_cores(), 8)), help="loader processes of the other methods"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("throughput.json"))
    options = parser.parse_args()
    methods = [method for method in options.ways if method != "timm" or importlib.util.find_spec("timm")]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(options, Path(folder)):
            rates = measure(case, methods, options.repeats)
            rows.append(
                {
                    "arch": case.config.arch,
                    "image_size": case.size,
                    "batch_size": case.config.batch_size,
                    "photographs": len(case.part),
                    "precision": str(select_precision("auto", case.device)).removeprefix("torch."),
                    "images_per_second": rates,
                }
            )
            summary = {
                "environment": describe_environment(),
                "options": {**vars(options), "out": str(options.out)},
                "cases": rows,
            }
            options.out.write_text(
                json.dumps(summary, indent=1), encoding="utf-8"
            )  # after each case, in case the run is interrupted
            print(_line(rows[-1]), flush=True)  # noqa: T201
    Console(width=170).print(report(rows))


def _line(row: dict[str, Any]) -> str:
    rates = ", ".join(f"{method} {_format(values)}" for method, values in row["images_per_second"].items())
    return f"{row['arch']} {row['image_size']} px batch {row['batch_size']} ({row['precision']}): {rates} images/s"


if __name__ == "__main__":
    main()
