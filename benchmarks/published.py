"""The sweep on data sets with published results: three seeds each, mean and spread, best single model and ensemble.

    python -m benchmarks.published --retinamnist data/retinamnist.npz --idrid data/idrid --weights data/weights

retinamnist-resnet18, retinamnist-resnet50   sweeps/retinamnist.yaml, from scratch, on MedMNIST's official split
retinamnist-pretrained                       the same of ResNet18 with ImageNet weights
idrid-pretrained, idrid-scratch              sweeps/idrid.yaml with and without ImageNet weights, official test split

Each seed is a sweep of its own in the results folder, of the command line that a user would give. One that was
interrupted goes on, one that has ended is only read; so the command can be stopped and given again. The seed is that of
the sweep and of the validation split where none is official. Nothing here looks at the test split but to print it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from retina.config.sweep import SweepSpec, load
from retina.results.environment import environment
from retina.results.files import read_json
from retina.results.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
WAYS = ("single", "ensemble")
NUMBERS = {"auc": "AUC", "accuracy": "accuracy", "qwk": "QWK"}


@dataclass(frozen=True)
class Case:
    """A row of the table: which sweep on which data, and what others have published of it: AUC / accuracy."""

    space: str
    data: str
    changes: tuple[str, ...]
    published: str


CASES = {
    "retinamnist-resnet18": Case("retinamnist", "retinamnist", (), ".717 / .524; AutoML .750 / .531"),
    "retinamnist-resnet50": Case(
        "retinamnist", "retinamnist", ("parameters.arch.value=resnet50",), ".726 / .528; AutoML .750 / .531"
    ),
    "retinamnist-pretrained": Case(
        "retinamnist", "retinamnist", ("parameters.pretrained.value=true",), "AutoML .750 / .531"
    ),
    "idrid-pretrained": Case("idrid", "idrid", ("parameters.pretrained.value=true",), ""),
    "idrid-scratch": Case("idrid", "idrid", ("parameters.pretrained.value=false", "start=[]"), ""),
}


def swept(name: str, case: Case, seed: int, options: argparse.Namespace) -> RunFolder:
    """One sweep, run to its end, by the command line."""
    root = options.results / f"{name}-{seed}"
    space, data = ROOT / "sweeps" / f"{case.space}.yaml", str(getattr(options, case.data))
    changes = [f"seed={seed}", f"data.seed={seed}", *case.changes]
    if not (root / "best" / "together.json").is_file():
        command = [sys.executable, str(ROOT / "tune_main.py"), "--space", str(space), "--data", data]
        command += ["--name", root.name, "--results", str(options.results), "--resume"]
        command += ["--weights", str(options.weights)] if options.weights else []
        command += ["--set", *changes]
        code = subprocess.run(command, check=False).returncode  # noqa: S603
        if code:  # it has said why
            sys.exit(code)
    wanted = load(space, overrides=changes, data=data, name=root.name)
    if other := _other(load(root / "sweep.yaml", data=data), wanted):
        sys.exit(f"{root}: was another sweep ({', '.join(other)} differ from {space}); name other --results")
    return RunFolder.open(root)


def _other(ran: SweepSpec, wanted: SweepSpec) -> list[str]:
    """Keys of a sweep file in which two sweeps differ."""
    differing = [key for key in SweepSpec.model_fields if getattr(ran, key) != getattr(wanted, key)]
    stops = {ran.early_stop.type, wanted.early_stop.type}
    return [key for key in differing if key != "early_stop" or stops != {"none"}]  # whose rungs nobody looks at


def result_of(folder: RunFolder) -> dict[str, Any]:
    """What it came to: the numbers of single model and ensemble on both splits, trials and hours."""
    told = read_json(folder.best / "together.json")
    notes = folder.metadata()
    return {
        "best": folder.trial_row(told["single"]["members"][0]),
        "members": told["ensemble"]["members"],
        "better": told["better"],
        "trials": len(folder.trial_ids()),
        "seconds": notes["seconds"],
        **{way: {split: _numbers(told[way][split]) for split in ("val", "test")} for way in WAYS},
    }


def _numbers(told: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(told[key]) for key in NUMBERS}


def spread(results: list[dict[str, Any]], way: str, key: str) -> str:
    """Mean of the seeds on test, and their least and most."""
    values = [result[way]["test"][key] for result in results]
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(found: Mapping[str, list[dict[str, Any]]]) -> Table:
    """A row a case and way."""
    shown = Table("sweep", "", *(f"test {name}" for name in NUMBERS.values()), "published", "minutes", box=MARKDOWN)
    for name, results in found.items():
        minutes = statistics.mean(result["seconds"] for result in results) / 60
        for way in WAYS:
            told = (CASES[name].published, f"{minutes:.0f}") if way == WAYS[0] else ("", "")
            shown.add_row(name if way == WAYS[0] else "", way, *(spread(results, way, key) for key in NUMBERS), *told)
    return shown


def main() -> None:
    """Run what is not there yet, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retinamnist", type=Path, help="retinamnist.npz")
    parser.add_argument("--idrid", type=Path, help="IDRiD's folder")
    parser.add_argument("--weights", type=Path, help="pretrained weights, instead of torchvision's download")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("published.json"))
    options = parser.parse_args()
    for name in options.cases:
        if getattr(options, CASES[name].data) is None:
            parser.error(f"{name} needs --{CASES[name].data}; --cases chooses others")
    found: dict[str, list[dict[str, Any]]] = {}
    for name in options.cases:
        found[name] = [result_of(swept(name, CASES[name], seed, options)) for seed in options.seeds]
        told = {"environment": environment(), "seeds": options.seeds, "cases": found}
        options.out.write_text(json.dumps(told, indent=1, default=str), encoding="utf-8")
        Console(width=160).print(table({name: found[name]}))
    Console(width=160).print(table(found))


if __name__ == "__main__":
    main()
