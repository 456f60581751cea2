"""Run sweeps on data sets with published results: three seeds each; report the best single model and the ensemble.

    python -m benchmarks.published --retinamnist data/retinamnist.npz --idrid data/idrid --weights data/weights

retinamnist-resnet18, retinamnist-resnet50   sweeps/retinamnist.yaml, from scratch, on MedMNIST's official split
retinamnist-pretrained                       the same with ResNet18 and ImageNet weights
idrid-pretrained, idrid-scratch              sweeps/idrid.yaml with and without ImageNet weights, official test split

Each seed is a sweep of its own in the results folder, started with the command line that a user would give. An
interrupted sweep is resumed and a finished one is only read, so the command can be stopped and repeated. The seed is
used for the sweep and, where there is no official validation split, for that split. The test split is only used to
print its metrics.
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
from retina.results.environment import describe_environment
from retina.results.files import read_json
from retina.results.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
MODELS = ("single", "ensemble")
METRICS = {"auc": "AUC", "accuracy": "accuracy", "qwk": "QWK"}


@dataclass(frozen=True)
class Case:
    """A row of the table: the sweep, its data, and the published results for this data: AUC / accuracy."""

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


def run_sweep(name: str, case: Case, seed: int, options: argparse.Namespace) -> RunFolder:
    """Run a sweep to its end with the command line, and return its results folder."""
    root = options.results / f"{name}-{seed}"
    space, data = ROOT / "sweeps" / f"{case.space}.yaml", str(getattr(options, case.data))
    changes = [f"seed={seed}", f"data.seed={seed}", *case.changes]
    if not (root / "best" / "together.json").is_file():
        command = [sys.executable, str(ROOT / "tune_main.py"), "--space", str(space), "--data", data]
        command += ["--name", root.name, "--results", str(options.results), "--resume"]
        command += ["--weights", str(options.weights)] if options.weights else []
        command += ["--set", *changes]
        code = subprocess.run(command, check=False).returncode  # noqa: S603
        if code:  # the command has printed the reason
            sys.exit(code)
    expected = load(space, overrides=changes, data=data, name=root.name)
    if differing := _differing_keys(load(root / "sweep.yaml", data=data), expected):
        sys.exit(f"{root}: holds another sweep ({', '.join(differing)} differ from {space}); choose other --results")
    return RunFolder.open(root)


def _differing_keys(stored: SweepSpec, expected: SweepSpec) -> list[str]:
    """Return the keys of a sweep file in which two sweeps differ."""
    differing = [key for key in SweepSpec.model_fields if getattr(stored, key) != getattr(expected, key)]
    types = {stored.early_stop.type, expected.early_stop.type}
    return [key for key in differing if key != "early_stop" or types != {"none"}]  # "none" ignores the rungs


def result_of(folder: RunFolder) -> dict[str, Any]:
    """Read a sweep's results: metrics of the single model and the ensemble on both splits, trials and seconds."""
    comparison = read_json(folder.best / "together.json")
    metadata = folder.metadata()
    return {
        "best": folder.trial_row(comparison["single"]["members"][0]),
        "members": comparison["ensemble"]["members"],
        "better": comparison["better"],
        "trials": len(folder.trial_ids()),
        "seconds": metadata["seconds"],
        **{kind: {split: _metrics(comparison[kind][split]) for split in ("val", "test")} for kind in MODELS},
    }


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(values[key]) for key in METRICS}


def spread(results: list[dict[str, Any]], kind: str, key: str) -> str:
    """Return the mean over the seeds on the test split, with minimum and maximum."""
    values = [result[kind]["test"][key] for result in results]
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(results_by_case: Mapping[str, list[dict[str, Any]]]) -> Table:
    """Return a table with a row per case and kind of model."""
    rows = Table("sweep", "", *(f"test {name}" for name in METRICS.values()), "published", "minutes", box=MARKDOWN)
    for name, results in results_by_case.items():
        minutes = statistics.mean(result["seconds"] for result in results) / 60
        for kind in MODELS:
            ends = (CASES[name].published, f"{minutes:.0f}") if kind == MODELS[0] else ("", "")
            metrics = (spread(results, kind, key) for key in METRICS)
            rows.add_row(name if kind == MODELS[0] else "", kind, *metrics, *ends)
    return rows


def main() -> None:
    """Run the missing sweeps, print the tables and write the JSON file."""
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
            parser.error(f"{name} needs --{CASES[name].data}; choose other cases with --cases")
    results_by_case: dict[str, list[dict[str, Any]]] = {}
    for name in options.cases:
        results_by_case[name] = [result_of(run_sweep(name, CASES[name], seed, options)) for seed in options.seeds]
        summary = {"environment": describe_environment(), "seeds": options.seeds, "cases": results_by_case}
        options.out.write_text(json.dumps(summary, indent=1, default=str), encoding="utf-8")
        Console(width=160).print(table({name: results_by_case[name]}))
    Console(width=160).print(table(results_by_case))


if __name__ == "__main__":
    main()
