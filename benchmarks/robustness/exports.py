"""Exported folders with damaged, changed, missing or foreign files, for `predict` with both runtimes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks.robustness import damage, world
from benchmarks.robustness.case import Command, Input, Rng
from benchmarks.robustness.oracle import Prediction, predicts
from benchmarks.robustness.world import World

RUNTIMES = ("onnx", "torch")
JSON = ("config.json", "preprocess.json", "metrics.json")
GRAPHS = ("model.onnx", "model.safetensors", "model.pt2")
PHOTOGRAPHS = 6


def make(whole: World, truth: Mapping[str, Mapping[str, Prediction]], folder: Path, rng: Rng, number: int) -> Input:
    """Create a changed export. A command that accepts it must predict what the intact export predicts."""
    export = world.copy(whole.export, folder / "export")
    eyes = folder / "eyes"
    eyes.mkdir()
    files = whole.some(PHOTOGRAPHS)
    for file in files:
        shutil.copyfile(file, eyes / file.name)
    what = _change(export, whole, rng, number)
    commands = []
    for runtime in RUNTIMES:
        right = {file.name: truth[runtime][file.name] for file in files}
        csv = f"out-{runtime}.csv"
        argv = ("predict", "export", "eyes", "--runtime", runtime, "--csv", csv)
        commands.append(Command(argv, (csv,), predicts(folder / csv, right), names=("export",)))
    return Input(what, commands)


def _change(export: Path, whole: World, rng: Rng, number: int) -> str:
    kind, number = number % 10, number // 10
    if kind < 4:  # mostly a value in the two files that `predict` reads
        return damage.change_json(export / JSON[(0, 1, 0, 1, 2)[number % 5]], rng, kind + number)
    if kind < 7:
        return damage.damage_bytes(export / GRAPHS[number % 2 if rng.random() < 0.9 else 2], rng, kind + number)
    if kind == 7:
        return damage.damage_bytes(export / JSON[number % len(JSON)], rng, int(rng.integers(len(damage.BYTES))))
    files = (*JSON, *GRAPHS, "MODEL_CARD.md")
    file = files[int(rng.integers(len(files)))]
    if kind == 8:
        return damage.REPLACED[number % len(damage.REPLACED)](export / file, rng)
    return damage.swapped(export / file, whole.other / file)
