"""A finished sweep and its exported model, on photographs that are quick to draw."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import nn

from retina.config import DataConfig, TrialConfig
from retina.data import dataset, fundus
from retina.data.dataset import FundusDataset
from retina.data.loader import normalise, to_float
from retina.evaluation import best_trial
from retina.export.write import export
from retina.results import checksums, files
from retina.results.run_folder import RunFolder
from retina.training import model
from retina.training.inference import Evaluation, evaluate

CPU = torch.device("cpu")
P = [f"p{grade}" for grade in range(5)]
TRIAL = "t0001"
SIZE = 64
CONFIG = TrialConfig(pretrained=False, head_layers=3)


def draw(file: Path, seed: int) -> Path:
    """Draw an off-centre disc of coloured blotches on black, larger than the model's input; seed 0 has no disc."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((420, 300))
    colours = np.array(noise.filter(ImageFilter.GaussianBlur(4))) * (0.4 + 0.6 * rng.random(3)) + 30
    rows, columns = np.mgrid[:300, :420]
    disc = np.hypot(rows - 150, columns - 200 - seed) < 120 + seed
    pixels = np.where(disc[..., None], colours, 2) if seed else np.full((300, 420, 3), 7)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return file


def tuned(config: TrialConfig, size: int, images: torch.Tensor) -> nn.Module:
    """Build a random grader whose batch statistics fit `images` and whose grades vary like those of a trained one."""
    torch.manual_seed(3)
    net: Any = model.build(config, size).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for _ in range(12):
            net.train()(images)
        net.fc[-1].weight *= 40
        net.fc[-1].bias -= net.eval()(images).mean(dim=0)
    return net.eval()  # type: ignore[no-any-return]


@dataclass
class World:
    """Prepared photographs, a model, its results folder and its exported folder; no test may change them."""

    data: FundusDataset
    net: nn.Module
    run: Path
    exported: Path

    def evaluated(self, split: str) -> tuple[list[Path], Evaluation]:
        """Return the photographs of a split and their evaluation by the training code."""
        frame = self.data.frame
        paths = [Path(path) for path in frame.loc[frame["split"] == split, "path"]]
        return paths, evaluate(self.net, self.data.split_view(split), device=CPU)

    @property
    def checked(self) -> int:
        """The number of photographs that an export is checked on: up to four of each grade."""
        return int(self.data.frame["grade"].value_counts().clip(upper=4).sum())

    @property
    def paths(self) -> list[Path]:
        """All photographs by name; the first shows no disc."""
        return sorted((Path(path) for path in self.data.frame["path"]), key=lambda path: path.name)


def make(root: Path) -> World:
    """Draw photographs, evaluate a model on them as a sweep evaluates its best trial, and export it.

    In each split the model is wrong by one grade on the second photograph and every third one after it.
    """
    torch.set_num_threads(1)
    drawn = [draw(root / f"{seed:02}.{'png' if seed % 4 == 3 else 'jpg'}", seed) for seed in range(24)]
    squares = torch.from_numpy(np.stack([fundus.read_square(file, SIZE)[0] for file in drawn]))
    net = tuned(CONFIG, SIZE, normalise(to_float(squares)))
    with torch.inference_mode():
        grades = net(normalise(to_float(squares))).argmax(dim=1).tolist()
    for index, (file, grade) in enumerate(zip(drawn, grades, strict=True)):
        true = grade if index % 3 != 1 else grade + 1 if grade < 4 else 3
        grade_folder = root / "eyes" / ("train", "val", "test")[index // 8] / str(true)
        grade_folder.mkdir(parents=True, exist_ok=True)
        file.rename(grade_folder / file.name)
    data = dataset.prepare(DataConfig(path=str(root / "eyes"), layout="folders", image_size=SIZE))
    run = write_run(root / "results" / "demo", data, net)
    return World(data, net, run, export(run))


def copy(source: Path, target: Path, *without: str) -> Path:
    """Copy a folder except files that match `without`. Weights are hard links: replace them, do not write into them.

    A few dozen copies of 45 MB would take most of these tests' time.
    """

    def copy_or_link(file: str, to: str) -> None:
        if Path(file).suffix in {".pt", ".pt2", ".onnx", ".safetensors"}:
            os.link(file, to)
        else:
            shutil.copy2(file, to)

    return Path(shutil.copytree(source, target, ignore=shutil.ignore_patterns(*without), copy_function=copy_or_link))


def update_checksums(folder: Path) -> None:
    """Write the checksums of a folder's current files, as after a deliberate change."""
    checksums.write(folder, [file.name for file in folder.iterdir() if file.name != checksums.SUMS])


def without_sums(best: Path) -> None:
    """Turn a run's `best/` into one of retina 0.1.0, which has no checksums."""
    (best / checksums.SUMS).unlink()
    config = files.read_json(best / "config.json")
    del config["checksums"]
    files.write_json(best / "config.json", config)


def write_run(root: Path, data: FundusDataset, net: nn.Module, config: TrialConfig = CONFIG) -> Path:
    """Write the parts of a finished sweep's results folder that concern its best model."""
    folder = RunFolder.create(root)
    searched = {"optimizer": {"values": ["sgd", "adamw"]}, "pretrained": {"value": False}}
    metric = {"name": "val_qwk", "goal": "maximize"}
    spec = {
        "name": root.name,
        "metric": metric,
        "data": data.config.model_dump(mode="json"),
        "method": "gp",
        "parameters": searched,
    }
    files.write_json(root / "sweep.yaml", spec)  # JSON is YAML
    folder.update_metadata(data=data.summary(), seconds=7200.0, cores=2, cpu="a processor", gpus=[], git="0123456789ab")
    files.write_json(folder.trial(TRIAL) / "config.json", config.model_dump(mode="json"))
    torch.save(net.state_dict(), folder.trial(TRIAL) / "model.pt")
    folder.record_trial("t0000", state="PRUNED", best_epoch=1, epochs_run=3, val_qwk=0.1)
    folder.record_trial(TRIAL, state="COMPLETE", best_epoch=2, epochs_run=5, val_qwk=0.9)
    best_trial.evaluate_best_trial(folder, TRIAL, data, "val_qwk")
    return root
