"""Run a mutation test of every command: `python -m benchmarks.robustness --inputs 1000`.

Each input is an intact verdict with a random change: photographs, label lists, npz files, sweep files, exported models,
results folders, command lines. It is passed to the commands that read it, and each result is classified: right result,
clear error, unclear error; or, as a failure, wrong result, traceback, hang or crash. An input depends on --seed, its
kind and its number only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmarks.robustness.case import CLASSES, FAILURES, UNCLEAR, Verdict

INPUTS_PER_CAUSE = 3
"""Number of inputs listed per cause."""
console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code.

    It is 1 if any input led to a wrong result, a traceback, a hang or a crash, and 2 if the benchmark itself is broken.
    """
    options = _options(arguments)
    # before torch is imported: a child that is forked while torch's threads run may deadlock
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.update(MPLBACKEND="Agg", RAY_USAGE_STATS_ENABLED="0", HF_HUB_OFFLINE="1")
    from benchmarks.robustness import campaign  # noqa: PLC0415  # it imports torch
    from benchmarks.robustness.process import Limits  # noqa: PLC0415
    from benchmarks.robustness.world import World  # noqa: PLC0415

    started = time.monotonic()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="retina-robustness-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    whole = World((options.world or folder / "world").absolute())
    limits = Limits(seconds=options.timeout)
    try:
        run = campaign.Campaign(campaign.import_package(), folder, whole, options.seed, limits)
        run.prepare()
        numbers = {kind: list(range(many)) for kind, many in campaign.shares(options.inputs, options.kinds).items()}
        if options.only:
            numbers = {kind: [number] for kind, number in [options.only]}

        def report_progress(done: int, total: int) -> None:
            if sys.stderr.isatty() or done % 100 == 0:
                Console(stderr=True).print(f"{done} of {total} inputs", end="\r" if sys.stderr.isatty() else "\n")

        verdicts = run.run(numbers, options.jobs, report_progress, keep=bool(options.keep))
    except campaign.BrokenError as error:
        console.print(f"the benchmark is broken: {error}")
        return 2
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    counts = campaign.counts(verdicts)
    Console(width=140).print(table(counts))
    print_failures(list(campaign.worst(verdicts)), options.seed)
    console.print(f"seed {options.seed}, {time.monotonic() - started:.0f} s")
    if options.only:
        print_input(verdicts, run.folder(*options.only) if options.keep else None)
    for broken in run.broken:
        console.print(f"the benchmark is broken: {broken}")
    if options.out:
        _write(options.out, options, counts, verdicts)
    failed = any(row[name] for row in counts.values() for name in FAILURES)
    return 2 if run.broken else int(failed)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("photographs", "lists", "npz", "sweep", "export", "results", "commands")
    add = parser.add_argument
    add("--inputs", type=int, default=1000, metavar="N", help="total, divided among the kinds (default: 1000)")
    add("--seed", type=int, default=0)
    add("--kinds", type=lambda text: text.split(","), default=list(kinds), metavar="KIND,...", help=", ".join(kinds))
    add("--out", type=Path, metavar="FILE.json", help="write every verdict to this file as JSON")
    add(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="concurrent inputs (default: cores)"
    )
    add(
        "--timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="time after which a command counts as hanging (default: 120 s)",
    )
    add("--only", type=_input_id, metavar="KIND:NUMBER", help="run verdict input only and print its verdicts")
    add("--keep", type=Path, metavar="DIR", help="keep inputs and outputs in this empty folder")
    add("--world", type=Path, metavar="DIR", help="folder of the intact inputs; created once and reused")
    options = parser.parse_args(arguments)
    if unknown := set(options.kinds) - set(kinds):
        parser.error(f"--kinds {','.join(sorted(unknown))}: unknown; allowed: {', '.join(kinds)}")
    return options


def _input_id(text: str) -> tuple[str, int]:
    kind, _, number = text.partition(":")
    return kind, int(number)


def table(counts: dict[str, dict[str, int]]) -> Table:
    """Return a table of the inputs by kind and class."""
    rows = Table("inputs", *CLASSES, "all", box=MARKDOWN)
    for kind, row in counts.items():
        rows.add_row(kind, *(str(row[name]) for name in CLASSES), str(sum(row.values())))
    sums = [sum(row[name] for row in counts.values()) for name in CLASSES]
    rows.add_row("all", *map(str, sums), str(sum(sums)))
    return rows


def print_failures(verdicts: Sequence[Verdict], seed: int) -> None:
    """Print failures and unclear errors by cause, with a command that reproduces verdict of each."""
    causes: dict[tuple[str, str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.outcome in (*FAILURES, UNCLEAR):
            causes[verdict.outcome, verdict.kind, verdict.cause].append(verdict)
    for (outcome, kind, cause), group in sorted(causes.items(), key=lambda pair: (pair[0][0], -len(pair[1]))):
        console.print(f"\n{len(group)} x {outcome}: {kind}: {cause}")
        for verdict in group[:INPUTS_PER_CAUSE]:
            detail = " ".join(verdict.detail.split())[:250]
            console.print(f"    {verdict.kind}:{verdict.number}  {verdict.what[:150]}  |  {detail}")
        console.print(f"    python -m benchmarks.robustness --seed {seed} --only {kind}:{group[0].number} --keep DIR")


def print_input(verdicts: Sequence[Verdict], folder: Path | None) -> None:
    """Print the verdicts on verdict input, command by command."""
    for verdict in verdicts:
        console.print(f"{verdict.what}\n  retina {' '.join(map(repr, verdict.argv))}")
        console.print(f"  {verdict.outcome}: {verdict.cause} {verdict.detail}")
    console.print(f"input in {folder}, output in {folder}.ran" if folder else "(--keep DIR keeps the input)")


def _write(file: Path, options: argparse.Namespace, counts: dict[str, dict[str, int]], verdicts: list[Verdict]) -> None:
    import retina  # noqa: PLC0415

    report = {
        "seed": options.seed,
        "timeout": options.timeout,
        "retina": retina.__version__,
        "python": platform.python_version(),
        "counts": counts,
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }
    file.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
