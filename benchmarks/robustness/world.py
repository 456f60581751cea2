"""The whole inputs that are changed: drawn photographs, a sweep that has ended, one that was cut short, two exports.

Made once, in a folder of its own; nothing of it is changed afterwards. The models are random networks whose statistics
fit the photographs, so that their grades differ as a trained one's do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZE = 64
"""Side of the square that the models see, in pixels."""
HEIGHT = 128
"""Height of a drawn photograph in pixels."""
PHOTOGRAPHS = 30
WHOLE, STOPPED = "finished", "stopped"
"""Names of the sweep that has ended and of the one that was cut short."""
LINKED = 2**20
"""Files of more bytes are linked when a folder is copied, not copied."""


@dataclass(frozen=True)
class World:
    """Where everything lies, below `root`."""

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
        """The exported model of the sweep that has ended."""
        return self.root / "export"

    @property
    def other(self) -> Path:
        """An exported model of the same architecture, with other weights."""
        return self.root / "other"

    def grades(self) -> dict[str, int]:
        """The grade of each photograph, by its name without suffix."""
        lines = (self.photographs / "trainLabels.csv").read_text(encoding="utf-8").splitlines()[1:]
        return {name: int(grade) for name, grade in (line.split(",") for line in lines)}

    def files(self) -> list[Path]:
        """The photographs, by patient and eye."""
        return [self.photographs / "train" / f"{name}.jpeg" for name in self.grades()]

    def some(self, number: int) -> list[Path]:
        """So many photographs of all grades in turn."""
        grades = self.grades()
        by_grade: dict[int, list[str]] = {}
        for name, grade in grades.items():
            by_grade.setdefault(grade, []).append(name)
        turn = [name for at in range(PHOTOGRAPHS) for names in by_grade.values() for name in names[at : at + 1]]
        return [self.photographs / "train" / f"{name}.jpeg" for name in turn[:number]]


def sweep_file(name: str, data: Path, **changes: Any) -> dict[str, Any]:
    """The sweep that both results folders are of."""
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
    """Fill an empty folder. Takes some 40 s; imports torch."""
    import torch  # noqa: PLC0415  # only who makes one needs it

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
    """A results folder as a sweep leaves it, by the package's own writers; nothing is trained."""
    from retina.config.sweep import SweepSpec  # noqa: PLC0415
    from retina.data.dataset import prepare  # noqa: PLC0415
    from retina.evaluation import best_trial, ensemble  # noqa: PLC0415
    from retina.report import figures  # noqa: PLC0415
    from retina.results import checkpoints, environment  # noqa: PLC0415
    from retina.sweep.ledger import Ledger  # noqa: PLC0415

    spec = SweepSpec.model_validate(sweep_file(root.name, world.photographs))
    photographs = prepare(spec.data)
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = environment.begin(root, photographs, spec.to_yaml())
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

    seen = normalise(to_float(torch.from_numpy(photographs.pixels.copy())))
    torch.manual_seed(seed)
    net = model.build(config, SIZE).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for _ in range(3):
            net.train()(seen)
        net.fc[-1].weight *= 40
        net.fc[-1].bias -= net.eval()(seen).mean(dim=0)
    return net.eval()


def copy(source: Path, target: Path) -> Path:
    """A copy of a folder; large files are links to the same content, so replace them and never write into them."""

    def one(file: str, to: str) -> None:
        if Path(file).stat().st_size > LINKED:
            os.link(file, to)
        else:
            shutil.copy2(file, to)

    return Path(shutil.copytree(source, target, copy_function=one, symlinks=True))


def state(world: World) -> dict[str, tuple[int, int]]:
    """Size and time of every file, to see that none was changed."""
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in _files(world.root)}


def _files(root: Path) -> Iterator[Path]:
    return (file for file in sorted(root.rglob("*")) if file.is_file())
