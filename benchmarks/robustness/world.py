"""The intact inputs that are changed: drawn photographs, a finished sweep, an interrupted one, two exports.

They are created once in a folder of their own and never changed. The models are random networks whose batch statistics
fit the photographs, so that their grades vary like those of a trained model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZE = 64
"""Side of the models' input square in pixels."""
HEIGHT = 128
"""Height of a drawn photograph in pixels."""
PHOTOGRAPHS = 30
WHOLE, STOPPED = "finished", "stopped"
"""Names of the finished sweep and of the interrupted one."""
LINK_SIZE = 2**20
"""Size in bytes above which files are hard-linked when a folder is copied."""


@dataclass(frozen=True)
class World:
    """Paths of the intact inputs, below `root`."""

    root: Path

    @property
    def photographs(self) -> Path:
        """Drawn photographs in the layout of EyePACS."""
        return self.root / "photographs"

    @property
    def results(self) -> Path:
        """The folder of both sweeps."""
        return self.root / "results"

    @property
    def export(self) -> Path:
        """The exported model of the finished sweep."""
        return self.root / "export"

    @property
    def other(self) -> Path:
        """An exported model of the same architecture, with other weights."""
        return self.root / "other"

    def grades(self) -> dict[str, int]:
        """Return the grade of each photograph, by its name without suffix."""
        lines = (self.photographs / "trainLabels.csv").read_text(encoding="utf-8").splitlines()[1:]
        return {name: int(grade) for name, grade in (line.split(",") for line in lines)}

    def files(self) -> list[Path]:
        """Return the photographs, ordered by patient and eye."""
        return [self.photographs / "train" / f"{name}.jpeg" for name in self.grades()]

    def some(self, number: int) -> list[Path]:
        """Return `number` photographs that cycle through the grades."""
        grades = self.grades()
        by_grade: dict[int, list[str]] = {}
        for name, grade in grades.items():
            by_grade.setdefault(grade, []).append(name)
        cycle = [name for at in range(PHOTOGRAPHS) for names in by_grade.values() for name in names[at : at + 1]]
        return [self.photographs / "train" / f"{name}.jpeg" for name in cycle[:number]]


def sweep_file(name: str, data: Path, **changes: Any) -> dict[str, Any]:
    """Return the sweep file of both results folders."""
    return {
        "name": name,
        "data": {"path": str(data), "layout": "eyepacs", "image_size": SIZE, "validation": 0.3, "test": 0.3},
        "method": "random",
        "trials": 4,
        "keep": {"trials": 2},
        "parameters": {
            "arch": {"value": "resnet18"},
            "pretrained": {"value": False},
            "head_layers": {"value": 3},
            "batch_size": {"value": 4},
            "epochs": {"value": 3},
            "learning_rate": {"distribution": "log_uniform", "min": 1e-4, "max": 1e-2},
        },
        **changes,
    }


def make(root: Path) -> None:
    """Create the inputs in an empty folder. Takes about 40 s; imports torch."""
    import torch  # noqa: PLC0415  # only needed here

    from retina.config import SyntheticConfig  # noqa: PLC0415
    from retina.data import synthetic  # noqa: PLC0415
    from retina.export.write import export  # noqa: PLC0415

    torch.set_num_threads(1)
    world = World(root)
    config = SyntheticConfig(photographs=PHOTOGRAPHS, size=HEIGHT, proportions="balanced")
    synthetic.draw(world.photographs, config, workers=1)
    _sweep(world.results / WHOLE, world, seed=3, finished=True)
    _sweep(world.results / STOPPED, world, seed=5, finished=False)
    _sweep(root / "another", world, seed=4, finished=True)
    export(world.results / WHOLE, world.export)
    export(root / "another", world.other)


def _sweep(root: Path, world: World, *, seed: int, finished: bool) -> None:
    """Write a results folder like that of a sweep, with the package's own writers; nothing is trained."""
    from retina.config.sweep import SweepSpec  # noqa: PLC0415
    from retina.data.dataset import prepare  # noqa: PLC0415
    from retina.evaluation import best_trial, ensemble  # noqa: PLC0415
    from retina.report import figures  # noqa: PLC0415
    from retina.results import checkpoints, environment  # noqa: PLC0415
    from retina.sweep.ledger import Ledger  # noqa: PLC0415

    spec = SweepSpec.model_validate(sweep_file(root.name, world.photographs))
    photographs = prepare(spec.data)
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = environment.create_run_folder(root, photographs, spec.to_yaml())
    ledger = Ledger.create(spec, folder)
    ends = ["PRUNED", "COMPLETE", "FAIL", "COMPLETE"] if finished else ["PRUNED", "COMPLETE", "RUNNING"]
    for number, state in enumerate(ends):
        name, config = ledger.ask()
        ledger.started(name, config)
        past: list[dict[str, Any]] = []
        for epoch in range(1, {"PRUNED": 2, "COMPLETE": 4, "FAIL": 1, "RUNNING": 3}[state]):
            past.append(_result(epoch, 0.2 * number + 0.05 * epoch, config.learning_rate))
            weights = _network(config, photographs, seed).state_dict()
            checkpoints.save(folder.trial(name), epoch, weights, {"epoch": epoch, "past": list(past)})
            ledger.epoch(name, epoch, past[-1])
        if state != "RUNNING":
            ledger.end(name, state, {"FAIL": "epoch 1, step 1: the training loss is nan"}.get(state, ""))
    if finished:
        ledger.close()
        best = ledger.best or ""
        best_trial.evaluate_best_trial(folder, best, photographs, spec.metric.name)
        ensemble.try_build_ensemble(folder, photographs, spec.metric.name, spec.metric.sign)
        folder.update_metadata(interrupted=False, best=best)
        figures.draw(folder)
    folder.flush()


def _result(epoch: int, value: float, learning_rate: float) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "learning_rate": learning_rate,
        **{f"train_{name}": value for name in ("loss", "accuracy", "qwk")},
        **{f"val_{name}": value for name in ("loss", "accuracy", "qwk", "auc")},
        "images_per_second": 100.0,
        "seconds": 1.5,
        "micro_batch": 4,
    }


def _network(config: Any, photographs: Any, seed: int) -> Any:
    import torch  # noqa: PLC0415

    from retina.data.loader import normalise, to_float  # noqa: PLC0415
    from retina.training import model  # noqa: PLC0415

    images = normalise(to_float(torch.from_numpy(photographs.pixels.copy())))
    torch.manual_seed(seed)
    net = model.build(config, SIZE).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for _ in range(3):
            net.train()(images)
        net.fc[-1].weight *= 40
        net.fc[-1].bias -= net.eval()(images).mean(dim=0)
    return net.eval()


def copy(source: Path, target: Path) -> Path:
    """Copy a folder; large files are hard links to the original, so replace them and never write into them."""

    def copy_or_link(file: str, to: str) -> None:
        if Path(file).stat().st_size > LINK_SIZE:
            os.link(file, to)
        else:
            shutil.copy2(file, to)

    return Path(shutil.copytree(source, target, copy_function=copy_or_link, symlinks=True))


def state(world: World) -> dict[str, tuple[int, int]]:
    """Return the size and modification time of every file, to detect changes."""
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in _files(world.root)}


def _files(root: Path) -> Iterator[Path]:
    return (file for file in sorted(root.rglob("*")) if file.is_file())
