"""Results folders with damaged or edited files, for `report`, `list`, `export`, `--resume` and `--extend`."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.robustness import damage, world
from benchmarks.robustness.case import Check, Command, CommandResult, Input, Rng
from benchmarks.robustness.classify import NOT_A_NUMBER
from benchmarks.robustness.oracle import Prediction, predicts
from benchmarks.robustness.world import STOPPED, WHOLE, World

DEEP = Path("a", "b", "c", "results")
"""Path of the results in the input's folder: deep enough that a name with a few ../ stays inside it."""
OF_THE_BEST = ("best/config.json", "best/metrics.json", "best/predictions.csv", "best/model.pt")
TABLES = ("trials.csv", "history.csv", "best/predictions.csv")
JSON = ("environment.json", "best/metrics.json", "best/config.json", "trials/t0001/config.json", "best/together.json")
OTHERS = (
    "study.db", "sweep.yaml", "best/model.pt", "trials/t0001/model.pt", "trials/t0002/checkpoint_00002/state.pt",
    "trials/t0002/checkpoint_00002/model.pt", "trials/t0000/log.txt", "trials/t0002/error.txt",
)  # fmt: skip
PHOTOGRAPHS = 5


def make(whole: World, truth: Mapping[str, Mapping[str, Prediction]], folder: Path, rng: Rng, number: int) -> Input:
    """Create a changed results folder beside an intact one."""
    results = folder / DEEP
    world.copy(whole.results, results)
    kind = number % 10
    candidates = TABLES if kind < 4 else JSON if kind < 6 else OTHERS if kind < 8 else (*TABLES, *JSON, *OTHERS)
    files = [(name, file) for name in (WHOLE, STOPPED) for file in candidates if (results / name / file).is_file()]
    name, file = files[int(rng.integers(len(files)))]
    run = results / name
    what = f"{name}/{file}: {_change(run / file, whole, rng, kind, number // 10)}"
    commands = [_list(name, results)]
    if file in OF_THE_BEST and number % 3 == 0:
        commands += _export(folder, run, whole, truth)
    elif number % 2:
        commands.append(_report(folder, run))
    else:
        # resuming a finished sweep evaluates its best model again, which takes long; extending it reaches Ray
        commands += _resume(folder, run, whole, extend=bool(number % (16 if name == WHOLE else 4)))
    return Input(what, commands)


def _change(file: Path, whole: World, rng: Rng, kind: int, number: int) -> str:
    if kind == 9:
        other = whole.root / "another" / Path(*file.parts[file.parts.index("results") + 2 :])
        replacements = damage.REPLACED
        if number % 3 == 0 and other.is_file():
            return damage.swapped(file, other)
        return replacements[number % len(replacements)](file, rng)
    if kind == 8 or file.suffix not in {".csv", ".json"}:
        return damage.damage_bytes(file, rng, int(rng.integers(len(damage.BYTES))))
    if file.suffix == ".json":
        return damage.change_json(file, rng, int(rng.integers(6)))
    return damage.change_table(file, rng, int(rng.integers(10)))


def _path(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))


def _list(changed: str, results: Path) -> Command:
    other = STOPPED if changed == WHOLE else WHOLE

    def check(result: CommandResult) -> str:
        return "" if other in result.out else "a damaged sweep hides the others in the list"

    return Command(("list", str(DEEP)), check=check, names=("results",))


def _report(folder: Path, run: Path) -> Command:
    page, path = run / "report.html", _path(run, folder)

    def check(_: CommandResult) -> str:
        if not page.is_file():
            return "no report.html is written"
        text = page.read_text(encoding="utf-8", errors="replace")
        body = text.partition("<body")[2].partition("<script")[0]
        match = NOT_A_NUMBER.search(body)
        if not match:
            return ""
        return f"NaN or infinity in report.html: {' '.join(body[match.start() - 60 : match.end() + 20].split())}"

    return Command(("report", path), (f"{path}/report.html", f"{path}/comparison"), check, names=(run.name,))


def _export(folder: Path, run: Path, whole: World, truth: Mapping[str, Mapping[str, Prediction]]) -> list[Command]:
    (folder / "eyes").mkdir()
    files = whole.some(PHOTOGRAPHS)
    for file in files:
        shutil.copyfile(file, folder / "eyes" / file.name)
    path = _path(run, folder)
    right = {file.name: truth["onnx"][file.name] for file in files}
    argv = ("predict", f"{path}/export", "eyes", "--runtime", "onnx", "--csv", "out.csv")
    check_grades = (
        predicts(folder / "out.csv", right) if run.name == WHOLE else lambda _: "exported an unfinished sweep"
    )
    return [
        Command(("export", path), (f"{path}/export",), names=(run.name,)),
        Command(argv, ("out.csv",), check_grades, names=("export",)),
    ]


def _resume(folder: Path, run: Path, whole: World, *, extend: bool) -> list[Command]:
    """Resume or extend the sweep with its original sweep file."""
    space = folder / f"{run.name}.yaml"
    space.write_text(yaml.safe_dump(world.sweep_file(run.name, whole.photographs), sort_keys=False), encoding="utf-8")
    text = (run / "trials.csv").read_bytes() if (run / "trials.csv").is_file() else b""
    known = {name: state for name, state in _ended(whole.results / run.name).items() if f"\n{name},".encode() in text}
    argv = ("sweep", "--space", space.name, "--results", str(DEEP), *(("--extend", "1") if extend else ("--resume",)))
    path = _path(run, folder)
    return [Command(argv, (path,), _check_trials_kept(run, known), names=(run.name,))]


def _ended(run: Path) -> dict[str, Any]:
    with (run / "trials.csv").open(newline="", encoding="utf-8") as file:
        return {row["trial_id"]: row["state"] for row in csv.DictReader(file) if row["state"] != "RUNNING"}


def _check_trials_kept(run: Path, before: Mapping[str, Any]) -> Check:
    def check(result: CommandResult) -> str:
        try:
            after = _ended(run)
        except (OSError, KeyError, csv.Error, UnicodeDecodeError):
            return "trials.csv cannot be read any more"
        lost = [name for name in before if name not in after]
        if lost:
            return f"the ended trial {lost[0]} is not in trials.csv any more"
        metrics = run / "best" / "metrics.json"
        if metrics.is_file() and not result.at_ray:  # after Ray's trials the best trial would be evaluated again
            try:
                json.loads(metrics.read_text(encoding="utf-8"))
            except ValueError:
                return "best/metrics.json is not JSON after the sweep continued"
        return ""

    return check
