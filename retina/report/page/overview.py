"""What the page says of the sweep besides its results: how it stands, its data, its environment, how to repeat it."""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from typing import Any

from retina.config import GRADE_NAMES
from retina.config.splits import SPLIT_NAMES
from retina.evaluation.comparison import COMPARISON_FOLDER
from retina.report.page.run_data import RunData, finite_or_none, format_setting
from retina.report.terminal import tables
from retina.report.terminal.live_view import format_duration
from retina.results.run_folder import PARAMETERS


@dataclass(frozen=True)
class Image:
    """A PNG of the results folder as a data URI, and what it shows."""

    uri: str
    alt: str


def first_line(facts: RunData) -> str:
    """The verdict; before there is one, how the sweep stands."""
    if facts.best and facts.best.get("verdict"):
        return str(facts.best["verdict"])
    planned = facts.spec.trials or len(facts.rows)
    if facts.ended and facts.ended == facts.count("FAIL") and not facts.ranking:
        return f"No result: all {facts.ended} trials that have ended failed."
    if not facts.ranking:
        return f"No result yet: {facts.ended} of {planned} trials have ended."
    if facts.best:
        test = facts.best.get("test") or {}
        known = {"QWK": test.get("qwk"), "accuracy": test.get("accuracy")}
        told = " and ".join(f"{name} {value:.3f}" for name, value in known.items() if finite_or_none(value) is not None)
        return f"Best model: trial {facts.best.get('trial_id')}, on test {told} (n = {test.get('n')})."
    best = facts.ranking[0]
    value = next(finite_or_none(row[facts.metric]) for row in facts.rows if row["trial_id"] == best)
    told = f"the best so far is {best} with {facts.metric} {value:.3f}"
    return f"No best model yet: {facts.ended} of {planned} trials have ended, {told}."


def standing(facts: RunData) -> str:
    """The sweep's state and how many trials have ended how."""
    states = [f"{facts.count(state)} {state}" for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")]
    counted = ", ".join(told for told in states if not told.startswith("0 ")) or "none yet"
    seconds = finite_or_none(facts.notes.get("seconds"))
    took = f", {format_duration(seconds)}" if seconds else ""
    return f"{facts.state}; trials: {counted}{took}"


def settings(facts: RunData) -> list[tuple[str, str]]:
    """The best trial's, by name."""
    trial = (facts.best or {}).get("trial_id")
    row = next((row for row in facts.rows if row["trial_id"] == trial), None)
    if row is None:
        return []
    return [(name, format_setting(row[name])) for name in PARAMETERS if name in row]


def data(facts: RunData) -> list[tuple[str, int, list[int]]]:
    """Photographs by split and grade: split, all, and five counts."""
    told = (facts.notes.get("data") or {}).get("photographs") or {}
    return [
        (SPLIT_NAMES.get(name, name), int(one["n"]), [int(n) for n in one["by_grade"]]) for name, one in told.items()
    ]


def data_facts(facts: RunData) -> list[tuple[str, str]]:
    """Where the photographs are from and how they were taken, by name."""
    told = facts.notes.get("data") or {}
    names = ("path", "layout", "fingerprint", "image_size", "patients", "without_a_disc", "skipped")
    found = [(name.replace("_", " "), format_setting(told[name])) for name in names if told.get(name) not in {None, ""}]
    return [*found, *(("duplicates", one) for one in [tables.duplicates(told)] if one)]


def warnings(facts: RunData) -> list[str]:
    """What a person should know before trusting a score."""
    return [str(one) for one in (facts.notes.get("data") or {}).get("warnings") or []]


def environment(facts: RunData) -> list[tuple[str, str]]:
    """Code, versions and hardware, by name."""
    notes = facts.notes
    code = notes.get("code") or {}
    told = {
        "started": notes.get("started"),
        "retina": notes.get("retina"),
        "git commit": notes.get("git"),
        "source hash": code.get("source"),
        "python": notes.get("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in (notes.get("packages") or {}).items()),
        "platform": notes.get("platform"),
        "cpu": notes.get("cpu"),
        "cores": notes.get("cores"),
        "gpus": ", ".join(map(str, notes.get("gpus") or [])) or "none",
    }
    return [(name, str(value)) for name, value in told.items() if value not in {None, ""}]


def commands(facts: RunData) -> list[tuple[str, str]]:
    """What was run, and what runs it again: a heading and a command each."""
    notes, root = facts.notes, facts.folder.root
    found = [("as it was started", str(notes["command"]))] if notes.get("command") else []
    found += [("and went on", str(one["command"])) for one in notes.get("resumed") or [] if one.get("command")]
    again = ["python", "tune_main.py", "--space", str(root / "sweep.yaml"), "--name", f"{facts.folder.name}-again"]
    found.append(("the same sweep again, from the file with every default filled in", shlex.join(again)))
    if notes.get("git"):
        commit = str(notes["git"]).removesuffix("-dirty")
        found.insert(0, ("the code", f"git checkout {shlex.quote(commit)}"))
    if facts.best:
        found.append(("the model as a folder that runs elsewhere", shlex.join(["retina", "export", str(root)])))
    return found


def is_dirty(facts: RunData) -> bool:
    """Whether the code differed from its commit."""
    return str(facts.notes.get("git") or "").endswith("-dirty")


def comparison(facts: RunData) -> list[Image]:
    """The figures of a comparison of networks, if `retina.report.comparison_figures` has drawn any."""
    files = sorted((facts.folder.root / COMPARISON_FOLDER).glob("*.png"))
    return [Image(_uri(file.read_bytes()), file.stem.replace("_", " ")) for file in files]


def grades() -> list[str]:
    """The five grades as they head a table."""
    return [f"{grade} {name}" for grade, name in enumerate(GRADE_NAMES)]


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def importances(told: dict[str, float]) -> list[tuple[str, float, str]]:
    """Parameters by their importance: name, share of the most important one (0 to 1), and the share of all as text."""
    most = max(told.values(), default=0.0)
    ordered: list[tuple[str, Any]] = sorted(told.items(), key=lambda pair: -pair[1])
    return [(name, value / most if most else 0.0, f"{value:.1%}") for name, value in ordered]
