"""The page's text besides the results: the sweep's state, its data, its environment, and how to repeat it."""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass

from retina.config import GRADE_NAMES
from retina.config.splits import SPLIT_NAMES
from retina.evaluation.comparison import COMPARISON_FOLDER
from retina.report.page.run_data import RunData, finite_or_none, format_setting
from retina.report.terminal import tables
from retina.report.terminal.live_view import format_duration
from retina.results.run_folder import PARAMETERS


@dataclass(frozen=True)
class Image:
    """A PNG of the results folder.

    Attributes:
        uri: data URI.
        alt: alternative text.
    """

    uri: str
    alt: str


def headline(run: RunData) -> str:
    """Return the verdict; before there is one, the state of the sweep in a sentence."""
    if run.best and run.best.get("verdict"):
        return str(run.best["verdict"])
    planned = run.spec.trials or len(run.rows)
    if run.ended and run.ended == run.count("FAIL") and not run.ranking:
        return f"No result: all {run.ended} trials that have ended failed."
    if not run.ranking:
        return f"No result yet: {run.ended} of {planned} trials have ended."
    if run.best:
        test = run.best.get("test") or {}
        values = {"QWK": test.get("qwk"), "accuracy": test.get("accuracy")}
        metrics = " and ".join(
            f"{name} {value:.3f}" for name, value in values.items() if finite_or_none(value) is not None
        )
        return f"Best model: trial {run.best.get('trial_id')}, on test {metrics} (n = {test.get('n')})."
    best = run.ranking[0]
    value = next(finite_or_none(row[run.metric]) for row in run.rows if row["trial_id"] == best)
    best_so_far = f"the best so far is {best} with {run.metric} {value:.3f}"
    return f"No best model yet: {run.ended} of {planned} trials have ended, {best_so_far}."


def status_line(run: RunData) -> str:
    """Return the sweep's state, the number of trials in each state, and the duration."""
    counts = {state: run.count(state) for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")}
    trials = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none yet"
    seconds = finite_or_none(run.environment.get("seconds"))
    duration = f", {format_duration(seconds)}" if seconds else ""
    return f"{run.state}; trials: {trials}{duration}"


def best_settings(run: RunData) -> list[tuple[str, str]]:
    """Return the best trial's settings as pairs of name and value."""
    trial = (run.best or {}).get("trial_id")
    row = next((row for row in run.rows if row["trial_id"] == trial), None)
    if row is None:
        return []
    return [(name, format_setting(row[name])) for name in PARAMETERS if name in row]


def split_counts(run: RunData) -> list[tuple[str, int, list[int]]]:
    """Return the number of photographs of each split: the split, all photographs, and the five grades' counts."""
    splits = (run.environment.get("data") or {}).get("photographs") or {}
    return [
        (SPLIT_NAMES.get(name, name), int(counts["n"]), [int(n) for n in counts["by_grade"]])
        for name, counts in splits.items()
    ]


def dataset_details(run: RunData) -> list[tuple[str, str]]:
    """Return the origin of the photographs and what was skipped or duplicate, as pairs of name and value."""
    dataset = run.environment.get("data") or {}
    names = ("path", "layout", "fingerprint", "image_size", "patients", "without_a_disc", "skipped")
    details = [
        (name.replace("_", " "), format_setting(dataset[name])) for name in names if dataset.get(name) not in {None, ""}
    ]
    if duplicates := tables.duplicates(dataset):
        details.append(("duplicates", duplicates))
    return details


def dataset_warnings(run: RunData) -> list[str]:
    """Return the warnings of the dataset, which limit how far a score can be trusted."""
    return [str(warning) for warning in (run.environment.get("data") or {}).get("warnings") or []]


def environment_details(run: RunData) -> list[tuple[str, str]]:
    """Return code, versions and hardware as pairs of name and value."""
    environment = run.environment
    code = environment.get("code") or {}
    details = {
        "started": environment.get("started"),
        "retina": environment.get("retina"),
        "git commit": environment.get("git"),
        "source hash": code.get("source"),
        "python": environment.get("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in (environment.get("packages") or {}).items()),
        "platform": environment.get("platform"),
        "cpu": environment.get("cpu"),
        "cores": environment.get("cores"),
        "gpus": ", ".join(map(str, environment.get("gpus") or [])) or "none",
    }
    return [(name, str(value)) for name, value in details.items() if value not in {None, ""}]


def commands(run: RunData) -> list[tuple[str, str]]:
    """Return the commands that were run and those that repeat the sweep, as pairs of heading and command."""
    environment, root = run.environment, run.folder.root
    pairs: list[tuple[str, str]] = []
    if environment.get("git"):
        commit = str(environment["git"]).removesuffix("-dirty")
        pairs.append(("Check out the code", f"git checkout {shlex.quote(commit)}"))
    if environment.get("command"):
        pairs.append(("Original command", str(environment["command"])))
    resumed = environment.get("resumed") or []
    pairs += [("Command that resumed the sweep", str(entry["command"])) for entry in resumed if entry.get("command")]
    repeat = ["python", "tune_main.py", "--space", str(root / "sweep.yaml"), "--name", f"{run.folder.name}-again"]
    pairs.append(("Repeat the sweep from the file in which every default is filled in", shlex.join(repeat)))
    if run.best:
        pairs.append(("Export the best model", shlex.join(["retina", "export", str(root)])))
    return pairs


def has_uncommitted_changes(run: RunData) -> bool:
    """Return whether the code differed from its commit."""
    return str(run.environment.get("git") or "").endswith("-dirty")


def comparison_figures(run: RunData) -> list[Image]:
    """Return the figures of `retina.report.comparison_figures`; empty if none were drawn."""
    files = sorted((run.folder.root / COMPARISON_FOLDER).glob("*.png"))
    return [Image(_data_uri(file.read_bytes()), file.stem.replace("_", " ")) for file in files]


def grade_headings() -> list[str]:
    """Return the five grades as column headings."""
    return [f"{grade} {name}" for grade, name in enumerate(GRADE_NAMES)]


def rank_importances(importances: dict[str, float]) -> list[tuple[str, float, str]]:
    """Return the parameters, the most important first.

    Returns:
        For each parameter its name, its importance divided by the largest importance (0 to 1), and its importance as
        text in percent.
    """
    largest = max(importances.values(), default=0.0)
    ranked = sorted(importances.items(), key=lambda item: -item[1])
    return [(name, value / largest if largest else 0.0, f"{value:.1%}") for name, value in ranked]


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
