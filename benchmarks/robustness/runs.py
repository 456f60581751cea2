"""Results folders with damaged or hand-edited files, given to `report`, `list`, `export`, `--resume` and `--extend`."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.robustness import damage, world
from benchmarks.robustness.case import Check, Command, Input, Ran, Rng
from benchmarks.robustness.judge import NOT_A_NUMBER
from benchmarks.robustness.oracle import Prediction, predicts
from benchmarks.robustness.world import STOPPED, WHOLE, World

DEEP = Path("a", "b", "c", "results")
"""Where the results lie in the case's folder: a name with some ../ still ends inside it."""
OF_THE_BEST = ("best/config.json", "best/metrics.json", "best/predictions.csv", "best/model.pt")
TABLES = ("trials.csv", "history.csv", "best/predictions.csv")
JSON = ("environment.json", "best/metrics.json", "best/config.json", "trials/t0001/config.json", "best/together.json")
OTHERS = (
    "study.db", "sweep.yaml", "best/model.pt", "trials/t0001/model.pt", "trials/t0002/checkpoint_00002/state.pt",
    "trials/t0002/checkpoint_00002/model.pt", "trials/t0000/log.txt", "trials/t0002/error.txt",
)  # fmt: skip
PHOTOGRAPHS = 5


def make(whole: World, truth: Mapping[str, Mapping[str, Prediction]], folder: Path, rng: Rng, number: int) -> Input:
    """One changed results folder, beside one that is whole."""
    results = folder / DEEP
    world.copy(whole.results, results)
    way = number % 10
    kind = TABLES if way < 4 else JSON if way < 6 else OTHERS if way < 8 else (*TABLES, *JSON, *OTHERS)
    places = [(name, file) for name in (WHOLE, STOPPED) for file in kind if (results / name / file).is_file()]
    name, file = places[int(rng.integers(len(places)))]
    run = results / name
    what = f"{name}/{file}: {_change(run / file, whole, rng, way, number // 10)}"
    commands = [_list(name, results)]
    if file in OF_THE_BEST and number % 3 == 0:
        commands += _export(folder, run, whole, truth)
    elif number % 2:
        commands.append(_report(folder, run))
    else:
        # a sweep that has ended is judged once more when it is resumed, which takes long; extended, it comes to Ray
        commands += _go_on(folder, run, whole, extend=bool(number % (16 if name == WHOLE else 4)))
    return Input(what, commands)


def _change(file: Path, whole: World, rng: Rng, way: int, number: int) -> str:
    if way == 9:
        other = whole.root / "another" / Path(*file.parts[file.parts.index("results") + 2 :])
        replacements = damage.REPLACED
        if number % 3 == 0 and other.is_file():
            return damage.swapped(file, other)
        return replacements[number % len(replacements)](file, rng)
    if way == 8 or file.suffix not in {".csv", ".json"}:
        return damage.damage_bytes(file, rng, int(rng.integers(len(damage.BYTES))))
    if file.suffix == ".json":
        return damage.change_json(file, rng, int(rng.integers(6)))
    return damage.change_table(file, rng, int(rng.integers(10)))


def _path(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def _list(changed: str, results: Path) -> Command:
    other = STOPPED if changed == WHOLE else WHOLE

    def check(ran: Ran) -> str:
        return "" if other in ran.out else "one damaged sweep hides the others from the list"

    return Command(("list", str(DEEP)), check=check, names=("results",))


def _report(folder: Path, run: Path) -> Command:
    page, place = run / "report.html", _path(run, folder)

    def check(_: Ran) -> str:
        if not page.is_file():
            return "no report.html is written"
        text = page.read_text(encoding="utf-8", errors="replace")
        body = text.partition("<body")[2].partition("<script")[0]
        found = NOT_A_NUMBER.search(body)
        return (
            f"NaN or infinity in report.html: {' '.join(body[found.start() - 60 : found.end() + 20].split())}"
            if found
            else ""
        )

    return Command(("report", place), (f"{place}/report.html", f"{place}/comparison"), check, names=(run.name,))


def _export(folder: Path, run: Path, whole: World, truth: Mapping[str, Mapping[str, Prediction]]) -> list[Command]:
    (folder / "eyes").mkdir()
    files = whole.some(PHOTOGRAPHS)
    for file in files:
        shutil.copyfile(file, folder / "eyes" / file.name)
    place = _path(run, folder)
    right = {file.name: truth["onnx"][file.name] for file in files}
    argv = ("predict", f"{place}/export", "eyes", "--runtime", "onnx", "--csv", "out.csv")
    graded = predicts(folder / "out.csv", right) if run.name == WHOLE else lambda _: "exported an unfinished sweep"
    return [
        Command(("export", place), (f"{place}/export",), names=(run.name,)),
        Command(argv, ("out.csv",), graded, names=("export",)),
    ]


def _go_on(folder: Path, run: Path, whole: World, *, extend: bool) -> list[Command]:
    """Resume, or extend, with the sweep file that the sweep began with."""
    space = folder / f"{run.name}.yaml"
    space.write_text(yaml.safe_dump(world.sweep_file(run.name, whole.photographs), sort_keys=False), encoding="utf-8")
    text = (run / "trials.csv").read_bytes() if (run / "trials.csv").is_file() else b""
    known = {name: state for name, state in _ended(whole.results / run.name).items() if f"\n{name},".encode() in text}
    argv = ("sweep", "--space", space.name, "--results", str(DEEP), *(("--extend", "1") if extend else ("--resume",)))
    place = _path(run, folder)
    return [Command(argv, (place,), _nothing_lost(run, known), names=(run.name,))]


def _ended(run: Path) -> dict[str, Any]:
    with (run / "trials.csv").open(newline="", encoding="utf-8") as file:
        return {row["trial_id"]: row["state"] for row in csv.DictReader(file) if row["state"] != "RUNNING"}


def _nothing_lost(run: Path, before: Mapping[str, Any]) -> Check:
    def check(ran: Ran) -> str:
        try:
            after = _ended(run)
        except (OSError, KeyError, csv.Error, UnicodeDecodeError):
            return "trials.csv cannot be read any more"
        lost = [name for name in before if name not in after]
        if lost:
            return f"the ended trial {lost[0]} is not in trials.csv any more"
        metrics = run / "best" / "metrics.json"
        if metrics.is_file() and not ran.at_ray:  # else the best trial would be evaluated once more at the end
            try:
                json.loads(metrics.read_text(encoding="utf-8"))
            except ValueError:
                return "best/metrics.json is no JSON after the sweep went on"
        return ""

    return check
