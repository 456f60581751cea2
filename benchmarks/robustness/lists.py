"""Changed label lists and folders, for `data prepare`, `data audit` and `sweep --dry-run`.

Each change sets the expected result: the number of photographs per grade, or that the list must be refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from benchmarks.robustness import world
from benchmarks.robustness.case import Command, Input, Rng, must_be_refused
from benchmarks.robustness.datasets import draw, draw_folders
from benchmarks.robustness.folderchanges import FOLDERS
from benchmarks.robustness.listchanges import LISTS
from benchmarks.robustness.oracle import Prediction, finds, prepares
from benchmarks.robustness.world import World


def make(whole: World, _: Mapping[str, Mapping[str, Prediction]], folder: Path, rng: Rng, number: int) -> Input:
    """Create a changed data set."""
    changes = [*((draw, change) for change in LISTS), *((draw_folders, change) for change in FOLDERS)]
    create, change = changes[number % len(changes)]
    dataset = create(whole, folder, rng)
    what = change(dataset, rng)
    if create is draw:
        dataset.write()
    skip = rng.random() < 0.4
    refused = dataset.always_refused or ("" if skip else dataset.bad)
    unused = dataset.unused
    if refused:
        prepare = dry = must_be_refused(refused)
    else:
        by_grade = dataset.by_grade
        prepare, dry = prepares(by_grade, unused), finds(sum(by_grade) if by_grade is not None else None, unused)
    on_bad = "skip" if skip else "stop"
    commands = [
        Command(("data", "prepare", "set", "--image-size", "64", "--on-bad", on_bad), check=prepare, names=("set",))
    ]
    if rng.random() < 0.5:
        argv = ("data", "audit", "set", "--image-size", "64", "--html", "page.html")
        commands.append(Command(argv, ("page.html", "page-unused.csv"), names=("set",)))
    else:
        values = world.sweep_file("x", folder / "set")
        values["data"] = {"path": "set", "image_size": 64, "on_bad": on_bad, "validation": 0.3, "test": 0.3}
        (folder / "x.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        commands.append(Command(("sweep", "--space", "x.yaml", "--dry-run"), check=dry, names=("set",)))
    return Input(f"{dataset.file.name if create is draw else 'folders'}: {what}", commands)
