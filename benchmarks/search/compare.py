"""Compares searches over the table of learning curves: epochs until 99% of the table's best QWK.

    python -m benchmarks.search.compare --seeds 30 --workers 2

Nothing is trained: each search asks the project's own study for configurations and its rungs for decisions, and reads
the epochs from the table. Prints a table, writes it with every run to JSON, and draws a figure. About half an hour on 2
cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table as Lines

from benchmarks.search.simulate import Ours, RayWiring, Search, Table, quiet, simulate
from benchmarks.search.table import CURVES, SPACE
from retina.provenance import environment
from retina.sweep.spec import SweepSpec, load

MOST_EPOCHS = 4000
MOST_TRIALS = 2000
GP_TRIALS = 200
"""GP's time for a suggestion grows with the cube of the trials."""

NO_STOP = {"type": "none"}


def asha(grace: int, eta: float) -> dict[str, Any]:
    """ASHA with the first rung after `grace` epochs, one in `eta` going on."""
    return {"type": "asha", "grace_epochs": grace, "eta": eta}


def _ours(method: str, early_stop: dict[str, Any], random_share: float = 0.0) -> tuple[type[Ours], dict[str, Any]]:
    return Ours, {"method": method, "early_stop": early_stop, "random_share": random_share}


METHODS: dict[str, tuple[Callable[[SweepSpec], Search], dict[str, Any]]] = {
    "random, no stopping": _ours("random", NO_STOP),
    "random + ASHA 2/3": _ours("random", asha(2, 3)),
    "random + ASHA 3/3": _ours("random", asha(3, 3)),
    "TPE, no stopping": _ours("tpe", NO_STOP),
    "TPE + ASHA 2/3, Ray's wiring": (RayWiring, {"method": "tpe", "early_stop": asha(2, 3)}),
    "TPE + ASHA 3/3, Ray's wiring": (RayWiring, {"method": "tpe", "early_stop": asha(3, 3)}),
    "TPE + ASHA 2/3": _ours("tpe", asha(2, 3)),
    "TPE + ASHA 3/3": _ours("tpe", asha(3, 3)),
    "TPE, 30% random + ASHA 2/3": _ours("tpe", asha(2, 3), 0.3),
    "TPE, 30% random + ASHA 3/3": _ours("tpe", asha(3, 3), 0.3),
    "TPE, 30% random + ASHA 3/2": _ours("tpe", asha(3, 2), 0.3),
    "TPE, 50% random + ASHA 3/3": _ours("tpe", asha(3, 3), 0.5),
    "GP, 30% random + ASHA 3/3": _ours("gp", asha(3, 3), 0.3),
}
"""ASHA g/e: the first rung after g epochs, one in e goes on. TPE and GP without a share learn from all they draw."""


def one(job: tuple[str, int, str, str]) -> tuple[str, int, dict[str, Any]]:
    """One search of one seed."""
    method, seed, curves, between = job
    quiet()
    torch.set_num_threads(1)
    make, changes = METHODS[method]
    table = _table(curves, between)
    base = load(SPACE)
    spec = SweepSpec.model_validate(
        {**base.model_dump(exclude_unset=True), "trials": MOST_TRIALS, "seed": seed, **changes}
    )
    started = time.perf_counter()
    trials = GP_TRIALS if changes["method"] == "gp" else MOST_TRIALS
    run = simulate(make(spec), table, target=0.99 * table.best, most_epochs=MOST_EPOCHS, most_trials=trials)
    return method, seed, {**asdict(run), "seconds": time.perf_counter() - started}


_tables: dict[tuple[str, str], Table] = {}


def _table(curves: str, between: str) -> Table:
    if (curves, between) not in _tables:
        _tables[curves, between] = Table(Path(curves), between)
    return _tables[curves, between]


def quartiles(runs: list[dict[str, Any]]) -> tuple[float, float, float]:
    """First quartile, median, third quartile of the epochs; a search that did not arrive counts as infinitely many."""
    epochs = sorted(float("inf") if run["epochs"] is None else run["epochs"] for run in runs)
    low, middle, high = (epochs[round(share * (len(epochs) - 1))] for share in (0.25, 0.5, 0.75))
    return low, middle, high


def report(results: dict[str, list[dict[str, Any]]]) -> Lines:
    """The table: a line a method, in the order of `METHODS`."""
    lines = Lines()
    for column in ("search", "n", "arrived", "epochs: median", "quartiles", "share of random", "trials", "s a search"):
        lines.add_column(column, justify="left" if column == "search" else "right")
    first = results.get("random, no stopping")
    for method, runs in results.items():
        low, middle, high = quartiles(runs)
        share = f"{middle / quartiles(first)[1]:.3f}" if first else "-"
        arrived = sum(run["epochs"] is not None for run in runs)
        trials, seconds = np.median([run["trials"] for run in runs]), np.median([run["seconds"] for run in runs])
        cells = [str(len(runs)), str(arrived), f"{middle:.0f}", f"{low:.0f} to {high:.0f}", share, f"{trials:.0f}"]
        lines.add_row(method, *cells, f"{seconds:.1f}")
    return lines


def figure(results: dict[str, list[dict[str, Any]]], best: float) -> Figure:
    """Median best QWK by epochs trained, with quartiles, a line a method."""
    drawn = Figure(figsize=(9, 5.5), layout="constrained")
    axes = drawn.add_subplot()
    grid = np.unique(np.geomspace(10, MOST_EPOCHS, 200).astype(int))
    for number, (method, runs) in enumerate(results.items()):
        curves = np.array([_best_at(run["trace"], grid) for run in runs])
        middle = np.quantile(curves, 0.5, axis=0)
        axes.plot(grid, middle, label=method, color=f"C{number % 10}", linestyle="-" if number < 10 else "--")
        if method in {"random, no stopping", "TPE, 30% random + ASHA 3/3"}:
            low, high = np.quantile(curves, [0.25, 0.75], axis=0)
            axes.fill_between(grid, low, high, color=f"C{number % 10}", alpha=0.15)
    axes.axhline(0.99 * best, color="black", linewidth=0.8, linestyle=":")
    axes.text(grid[0], 0.99 * best, "99% of the table's best", va="bottom", fontsize=8)
    axes.set(xscale="log", xlabel="epochs trained, all trials together", ylabel="best validation QWK so far (median)")
    axes.set_ylim(0.5 * best, 1.02 * best)
    axes.legend(fontsize=8, loc="lower right")
    return drawn


def _best_at(trace: list[list[float]], grid: np.ndarray) -> np.ndarray:
    epochs, values = np.array(trace).T
    place = np.searchsorted(epochs, grid, side="right") - 1
    return np.where(place >= 0, values[np.maximum(place, 0)], 0.0)


def main() -> None:
    """Run, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--between", choices=["forest", "nearest"], default="forest")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("search.json"))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    jobs = [(m, seed, str(options.curves), options.between) for seed in range(options.seeds) for m in options.methods]
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in options.methods}
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for method, _, run in pool.imap_unordered(one, jobs):
            results[method].append(run)
    table = Table(options.curves, options.between)
    Console(width=150).print(report(results))
    print(f"{len(table.curves)} configurations, best QWK {table.best:.4f}, {options.between} between them")  # noqa: T201
    told = {"environment": environment(), "best": table.best, "between": options.between, "results": results}
    options.out.write_text(json.dumps(told), encoding="utf-8")
    if options.figure:
        figure(results, table.best).savefig(options.figure, dpi=110)


if __name__ == "__main__":
    main()
