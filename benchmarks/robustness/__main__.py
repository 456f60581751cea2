"""Mutation test of every command: `python -m benchmarks.robustness --inputs 1000`.

Each input is a whole one with a random change: photographs, label lists, npz files, sweep files, exported models,
results folders, command lines. It is given to the commands that read it, and each answer is judged: right result, clear
error, unclear error; or, which is a failure, wrong result, traceback, hang or crash. An input depends on --seed and its
number alone.
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

SHOWN = 3
"""Inputs that are named for a cause."""
console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if any input was answered by a wrong result, a traceback, a hang or a crash."""
    options = _options(arguments)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(
            name, "1"
        )  # before torch is imported: a child forked beside its threads may wait for ever
    os.environ.update(MPLBACKEND="Agg", RAY_USAGE_STATS_ENABLED="0", HF_HUB_OFFLINE="1")
    from benchmarks.robustness import campaign  # noqa: PLC0415  # it imports torch
    from benchmarks.robustness.process import Limits  # noqa: PLC0415
    from benchmarks.robustness.world import World  # noqa: PLC0415

    started = time.monotonic()
    place = Path(options.keep or tempfile.mkdtemp(prefix="retina-robustness-")).absolute()
    place.mkdir(parents=True, exist_ok=True)
    whole = World((options.world or place / "world").absolute())
    limits = Limits(seconds=options.timeout)
    try:
        run = campaign.Campaign(campaign.warm(), place, whole, options.seed, limits)
        run.prepare()
        numbers = {kind: list(range(many)) for kind, many in campaign.shares(options.inputs, options.kinds).items()}
        if options.only:
            numbers = {kind: [number] for kind, number in [options.only]}

        def told(done: int, total: int) -> None:
            if sys.stderr.isatty() or done % 100 == 0:
                Console(stderr=True).print(f"{done} of {total} inputs", end="\r" if sys.stderr.isatty() else "\n")

        verdicts = run.run(numbers, options.jobs, told, keep=bool(options.keep))
    except campaign.BrokenError as error:
        console.print(f"the benchmark is broken: {error}")
        return 2
    finally:
        if not options.keep:
            shutil.rmtree(place, ignore_errors=True)
    found = campaign.counts(verdicts)
    Console(width=140).print(table(found))
    tell_failures(list(campaign.worst(verdicts)), options.seed)
    console.print(f"seed {options.seed}, {time.monotonic() - started:.0f} s")
    if options.only:
        tell_one(verdicts, run.folder(*options.only) if options.keep else None)
    for broken in run.broken:
        console.print(f"the benchmark is broken: {broken}")
    if options.out:
        _write(options.out, options, found, verdicts)
    failed = any(row[name] for row in found.values() for name in FAILURES)
    return 2 if run.broken else int(failed)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("photographs", "lists", "npz", "sweep", "export", "results", "commands")
    add = parser.add_argument
    add("--inputs", type=int, default=1000, metavar="N", help="in all, shared out over the kinds (default: 1000)")
    add("--seed", type=int, default=0)
    add("--kinds", type=lambda text: text.split(","), default=list(kinds), metavar="KIND,...", help=", ".join(kinds))
    add("--out", type=Path, metavar="FILE.json", help="every verdict, as JSON")
    add("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="inputs at a time (default: cores)")
    add("--timeout", type=float, default=120.0, metavar="S", help="a command that takes longer hangs (default: 120 s)")
    add("--only", type=_one, metavar="KIND:NUMBER", help="one input alone, with what was said of it")
    add("--keep", type=Path, metavar="DIR", help="an empty folder for inputs and outputs, which stay there")
    add("--world", type=Path, metavar="DIR", help="a folder for the whole inputs, made there once and used again")
    options = parser.parse_args(arguments)
    if unknown := set(options.kinds) - set(kinds):
        parser.error(f"--kinds {','.join(sorted(unknown))}: known: {', '.join(kinds)}")
    return options


def _one(text: str) -> tuple[str, int]:
    kind, _, number = text.partition(":")
    return kind, int(number)


def table(found: dict[str, dict[str, int]]) -> Table:
    """Inputs by kind and class."""
    shown = Table("inputs", *CLASSES, "all", box=MARKDOWN)
    for kind, row in found.items():
        shown.add_row(kind, *(str(row[name]) for name in CLASSES), str(sum(row.values())))
    sums = [sum(row[name] for row in found.values()) for name in CLASSES]
    shown.add_row("all", *map(str, sums), str(sum(sums)))
    return shown


def tell_failures(verdicts: Sequence[Verdict], seed: int) -> None:
    """Failures and unclear errors by their cause, with a command that shows one of each."""
    causes: dict[tuple[str, str, str], list[Verdict]] = defaultdict(list)
    for one in verdicts:
        if one.outcome in (*FAILURES, UNCLEAR):
            causes[one.outcome, one.kind, one.cause].append(one)
    for (outcome, kind, cause), some in sorted(causes.items(), key=lambda pair: (pair[0][0], -len(pair[1]))):
        console.print(f"\n{len(some)} x {outcome}: {kind}: {cause}")
        for one in some[:SHOWN]:
            console.print(f"    {one.kind}:{one.number}  {one.what[:150]}  |  {' '.join(one.detail.split())[:250]}")
        console.print(f"    python -m benchmarks.robustness --seed {seed} --only {kind}:{some[0].number} --keep DIR")


def tell_one(verdicts: Sequence[Verdict], folder: Path | None) -> None:
    """What was said of one input, command by command."""
    for one in verdicts:
        console.print(
            f"{one.what}\n  retina {' '.join(map(repr, one.argv))}\n  {one.outcome}: {one.cause} {one.detail}"
        )
    console.print(f"in {folder}, its output in {folder}.ran" if folder else "(--keep DIR keeps it)")


def _write(file: Path, options: argparse.Namespace, found: dict[str, dict[str, int]], verdicts: list[Verdict]) -> None:
    import retina  # noqa: PLC0415

    told = {
        "seed": options.seed,
        "timeout": options.timeout,
        "retina": retina.__version__,
        "python": platform.python_version(),
        "counts": found,
        "verdicts": [asdict(one) for one in verdicts],
    }
    file.write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
