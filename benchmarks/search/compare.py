"""Compare searches over the table of learning curves: epochs until 99% of the table's best QWK.

    python -m benchmarks.search.compare --seeds 30 --workers 2

Nothing is trained: each search asks the project's own study for configurations and its ASHA rungs for decisions, and
reads the epochs from the table. Prints a table, writes it with every run to JSON, and draws a figure. Takes about half
an hour on 2 cores; a method whose seeds are all in the JSON file is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table as Lines

from benchmarks.search.simulate import RayWiring, RetinaSearch, Search, Table, quiet, simulate
from benchmarks.search.table import CURVES, SPACE
from retina.config.sweep import SweepSpec, load
from retina.results.environment import describe_environment

MOST_EPOCHS = 4000
MOST_TRIALS = 2000
GP_TRIALS = 200
"""Limit of trials for GP, whose time per suggestion grows with the cube of the number of trials."""

NO_STOP = {"type": "none"}


def asha(grace: int, eta: float) -> dict[str, Any]:
    """Return the settings of ASHA with the first rung after `grace` epochs, where one trial in `eta` continues."""
    return {"type": "asha", "grace_epochs": grace, "eta": eta}


def _retina(
    method: str, early_stop: dict[str, Any], random_share: float = 0.0
) -> tuple[type[RetinaSearch], dict[str, Any]]:
    return RetinaSearch, {"method": method, "early_stop": early_stop, "random_share": random_share}


METHODS: dict[str, tuple[Callable[[SweepSpec], Search], dict[str, Any]]] = {
    "random, no stopping": _retina("random", NO_STOP),
    "random + ASHA 2/3": _retina("random", asha(2, 3)),
    "random + ASHA 3/3": _retina("random", asha(3, 3)),
    "TPE, no stopping": _retina("tpe", NO_STOP),
    "TPE + ASHA 2/3, Ray's wiring": (RayWiring, {"method": "tpe", "early_stop": asha(2, 3)}),
    "TPE + ASHA 3/3, Ray's wiring": (RayWiring, {"method": "tpe", "early_stop": asha(3, 3)}),
    "TPE + ASHA 2/3": _retina("tpe", asha(2, 3)),
    "TPE + ASHA 3/3": _retina("tpe", asha(3, 3)),
    "TPE, 30% random + ASHA 2/3": _retina("tpe", asha(2, 3), 0.3),
    "TPE, 30% random + ASHA 3/3": _retina("tpe", asha(3, 3), 0.3),
    "TPE, 30% random + ASHA 3/2": _retina("tpe", asha(3, 2), 0.3),
    "TPE, 50% random + ASHA 3/3": _retina("tpe", asha(3, 3), 0.5),
    "GP + ASHA 3/3": _retina("gp", asha(3, 3)),
    "GP, 30% random + ASHA 3/3": _retina("gp", asha(3, 3), 0.3),
    "GP, 50% random + ASHA 3/3": _retina("gp", asha(3, 3), 0.5),
}
"""ASHA g/e: the first rung is after g epochs, and one trial in e continues.

TPE and GP without a random share learn from all trials that they suggest.
"""


def run_search(job: tuple[str, int, str, str]) -> tuple[str, int, dict[str, Any]]:
    """Run one method with one seed; return both and the run."""
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


def quartiles(runs: list[dict[str, Any]], target: float) -> tuple[float, float, float]:
    """Return the first quartile, median and third quartile of the epochs to `target`; infinite where it was missed."""
    epochs = sorted(_epochs_to(run["trace"], target) for run in runs)
    low, middle, high = (epochs[round(share * (len(epochs) - 1))] for share in (0.25, 0.5, 0.75))
    return low, middle, high


def _epochs_to(trace: list[list[float]], target: float) -> float:
    return next((epochs for epochs, value in trace if value >= target), math.inf)


def report(results: dict[str, list[dict[str, Any]]], best: float) -> Lines:
    """Return a table with a row per method, in the order of `results`."""
    lines = Lines(box=MARKDOWN)
    for column in ("search", "reached", "epochs to 99%: median", "quartiles", "of random's", "to 97%", "trials", "s"):
        lines.add_column(column, justify="left" if column == "search" else "right")
    first = quartiles(results["random, no stopping"], 0.99 * best)[1] if "random, no stopping" in results else math.nan
    for method, runs in results.items():
        low, middle, high = quartiles(runs, 0.99 * best)
        reached = sum(_epochs_to(run["trace"], 0.99 * best) < math.inf for run in runs)
        trials, seconds = np.median([run["trials"] for run in runs]), np.median([run["seconds"] for run in runs])
        share = f"{middle / first:.2f}" if middle < math.inf else "-"
        near = f"{quartiles(runs, 0.97 * best)[1]:.0f}"
        cells = [f"{reached} of {len(runs)}", f"{middle:.0f}", f"{low:.0f} to {high:.0f}", share, near, f"{trials:.0f}"]
        lines.add_row(method, *cells, f"{seconds:.1f}")
    return lines


def figure(results: dict[str, list[dict[str, Any]]], best: float) -> Figure:
    """Draw the epochs to 99% of the table's best, a line per method: median and quartiles, the fewest at the top."""
    order = sorted(results, key=lambda method: quartiles(results[method], 0.99 * best)[1:], reverse=True)
    drawn = Figure(figsize=(9, 0.4 * len(order) + 1.4), layout="constrained")
    axes = drawn.add_subplot()
    for row, method in enumerate(order):
        low, middle, high = quartiles(results[method], 0.99 * best)
        colour = "#d55e00" if "Ray" in method else "#0072b2"
        axes.plot([min(low, MOST_EPOCHS), min(high, MOST_EPOCHS)], [row, row], color=colour, linewidth=2)
        if high == math.inf:  # fewer than three in four reached the target
            axes.plot(MOST_EPOCHS, row, marker=">", color=colour, markersize=7)
        if middle < math.inf:
            axes.plot(middle, row, marker="o", color=colour, markersize=8)
        reached = sum(_epochs_to(run["trace"], 0.99 * best) < math.inf for run in results[method])
        axes.text(MOST_EPOCHS * 1.1, row, f"{reached} of {len(results[method])}", va="center", fontsize=8)
    axes.set_yticks(range(len(order)), order, fontsize=8)
    axes.set(
        xscale="log", xlabel="epochs of all trials to 99% of the table's best QWK: median and quartiles of 30 seeds"
    )
    axes.set_xlim(100, MOST_EPOCHS * 1.8)
    axes.set_title(f"reached within {MOST_EPOCHS} epochs", loc="right", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return drawn


def _read_results(file: Path, between: str) -> dict[str, list[dict[str, Any]]]:
    """Return the runs that `file` holds from an earlier call, by method."""
    saved = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"between": between, "results": {}}
    return dict(saved["results"]) if saved["between"] == between else {}


def main() -> None:
    """Run the searches, print the table, write the JSON file and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--between", choices=["forest", "nearest"], default="forest")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("search.json"))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    done = _read_results(options.out, options.between)
    missing = [method for method in options.methods if len(done.get(method, [])) != options.seeds]
    jobs = [(method, seed, str(options.curves), options.between) for seed in range(options.seeds) for method in missing]
    results: dict[str, list[dict[str, Any]]] = {m: [] if m in missing else done[m] for m in options.methods}
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        for method, _, run in pool.imap_unordered(run_search, jobs):
            results[method].append(run)
    table = Table(options.curves, options.between)
    Console(width=170).print(report(results, table.best))
    print(f"{len(table.curves)} configurations, best QWK {table.best:.4f}, {options.between} between them")  # noqa: T201
    summary = {"environment": describe_environment(), "best": table.best, "between": options.between}
    options.out.write_text(json.dumps({**summary, "results": results}), encoding="utf-8")
    if options.figure:
        figure(results, table.best).savefig(options.figure, dpi=110)


if __name__ == "__main__":
    main()
