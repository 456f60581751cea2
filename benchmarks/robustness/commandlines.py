"""Command lines with arguments dropped, repeated, swapped or garbled; the inputs that they name are intact."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from benchmarks.robustness import world
from benchmarks.robustness.case import Command, Input, Rng, pick
from benchmarks.robustness.oracle import Prediction
from benchmarks.robustness.world import WHOLE, World

GARBLED = (
    "", " ", "-", "--", "---", "no such thing", "x" * 300, "\x1b[2Jx", "a\x07b", "\udcff\udcfe", "-1", "0", "1e309",
    "nan", "%s", "{}", "1.5", "99999999999999999999", "\u0663", "é", "[red]x", "=1", "True", "None", "*", "a\nb", ".",
    "..", "~unknown/x", "x/y/z", "\u202ex", "$HOME", "http://x/y", "a=b", "--help=1",
)  # fmt: skip
"""Replacements for arguments; no absolute paths, so that nothing outside the input's folder is written."""
HERE = "here"
"""Working directory of the commands in the input's folder, so that `..` lies in that folder too."""
SETS = (
    "", "=", "a=b", "trials", "trials=", "trials=[", "trials=0", "data=5", "data.path=", "data..path=x", ".=1",
    "parameters=5", "parameters.x=1", "parameters.epochs=3", "parameters.epochs={values: []}",
    "parameters.epochs={value: 1e9}", "data.image_size=65.5", "metric.target=80", "seed=-1", "name=../x", "name=",
    "a.b.c.d.e=1", "data={path: x}", "early_stop.eta=.nan", "budget.hours=.inf",
    "parameters.learning_rate={distribution: log_uniform, min: 0, max: 1}", "start=[{epochs: 99}]", "trials=&a [*a]",
    "\x1b=1", "parameters.epochs.values=[1, 2", "keep.trials=1e400", "resources.gpu=-1",
    "data.seed=!!python/object/apply:os.getcwd []",
)  # fmt: skip


def make(whole: World, _: Mapping[str, Mapping[str, Prediction]], folder: Path, rng: Rng, number: int) -> Input:
    """Create a changed command line."""
    here = folder / HERE
    shutil.copytree(whole.photographs, here / "eyes")
    shutil.copytree(whole.results / WHOLE, here / "results" / WHOLE, ignore=shutil.ignore_patterns("*.pt", "*.png"))
    values = {**world.sweep_file("x", whole.photographs), "data": {"path": "eyes", "image_size": 64}}
    (here / "x.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    eye, export = f"eyes/train/{whole.some(1)[0].name}", str(whole.export)
    sweep = ["sweep", "--space", "x.yaml"]
    lines: tuple[list[str], ...] = (
        ["predict", export, eye, "--runtime", "onnx", "--csv", "out.csv", "--json", "out.json", "--on-bad", "skip"],
        ["data", "prepare", "eyes", "--layout", "eyepacs", "--image-size", "64", "--on-bad", "skip"],
        ["data", "audit", "eyes", "--html", "page.html", "--layout", "auto", "--image-size", "64", "--seed", "1"],
        [*sweep, "--data", "eyes", "--results", "new", "--name", "n", "--trials", "3", "--dry-run"],
        ["list", "results"],
        ["data", "draw", "drawn", "--photographs", "20", "--size", "64", "--proportions", "balanced", "--seed", "1"],
        [*sweep, "--dry-run", "--set", pick(rng, SETS), pick(rng, SETS)],
        [*sweep, "--results", "new", "--set", pick(rng, SETS)],
        ["report", f"results/{WHOLE}", "--out", "page.html"],
        [*sweep, "--data", "eyes", "--results", "results", "--name", WHOLE, "--extend", "1", "--force"],
    )  # fmt: skip
    argv = list(lines[number % len(lines)])
    what = "unchanged"
    if argv[0] != "sweep" or "--set" not in argv or rng.random() < 0.3:
        changes = [_changed(argv, rng) for _ in range(1 + int(rng.random() < 0.3))]
        what = "; ".join(changes)
    what = f"{' '.join(argv[:2])}: {what}".encode(errors="backslashreplace").decode()
    return Input(what, (Command(tuple(argv), _writes(argv), cwd=HERE),))


def _writes(argv: list[str]) -> tuple[str, ...]:
    """Return the paths that may be written: those that the arguments name, by their first folder."""
    paths = {
        "out.csv",
        "out.json",
        "page.html",
        "page-unused.csv",
        "drawn",
        "new",
        "results",
        "audit-eyes.html",
        "audit-eyes-unused.csv",
    }
    paths |= {argument.partition("/")[0] for argument in argv} - {"eyes", "x.yaml", ""}
    return tuple(f"{HERE}/{path}" for path in sorted(paths))


def _changed(argv: list[str], rng: Rng) -> str:
    if len(argv) < 2:  # an earlier change has removed the rest
        argv.append(pick(rng, GARBLED))
        return f"{argv[-1][:40]!r} added"
    index = int(rng.integers(1, len(argv)))
    kind = int(rng.integers(6))
    if kind == 0:
        return f"without {argv.pop(index)!r}"
    if kind == 1:
        argv.insert(index, argv[index])
        return f"{argv[index]!r} twice"
    if kind == 2 and len(argv) > 2:
        other = int(rng.integers(1, len(argv)))
        argv[index], argv[other] = argv[other], argv[index]
        return f"{argv[index]!r} and {argv[other]!r} swapped"
    if kind == 3:
        argv.insert(index, pick(rng, GARBLED))
        return f"{argv[index][:40]!r} added"
    was, argv[index] = argv[index], pick(rng, GARBLED)
    return f"{was!r} is now {argv[index][:40]!r}"
