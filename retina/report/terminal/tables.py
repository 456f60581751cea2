"""Tables that the command line prints: trials, files, a data set, a planned sweep, predictions."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from retina.config import GRADE_NAMES
from retina.results.run_folder import METRIC_COLUMNS, PARAMETERS, RunFolder
from retina.results.status import SweepPlan
from retina.system.printable import printable


def trials(folder: RunFolder, metric: str) -> Table:
    """Return the trials, the best by `metric` first, with the parameters that differ between them."""
    frame = folder.trials()
    varied = [name for name in PARAMETERS if len(frame[name].unique()) > 1]
    shown = [metric, *(name for name in METRIC_COLUMNS[:2] if name != metric)]
    table = Table(title=f"Trials of {folder.name}, best first by {metric}", title_justify="left", box=SIMPLE_HEAD)
    for column in ["trial", "state", *shown, "best epoch", *varied, "min", "img/s"]:
        table.add_column(column, justify="left" if column in {"trial", "state"} else "right", no_wrap=True)
    ranks = {name: rank for rank, name in enumerate(folder.ranking(metric, -1 if metric == "val_loss" else 1))}
    order = sorted(frame.to_dict(orient="records"), key=lambda row: ranks.get(row["trial_id"], len(ranks)))
    for row in order:
        epochs = "" if pd.isna(row["epochs_run"]) else f"{_short(row['best_epoch'])} of {_short(row['epochs_run'])}"
        minutes = "" if pd.isna(row["seconds"]) else f"{row['seconds'] / 60:.1f}"
        values = [row["trial_id"], row["state"], *(_short(row[name]) for name in shown), epochs]
        values += [*(_short(row[name]) for name in varied), minutes, _short(row["images_per_second"])]
        table.add_row(*values)
    return table


def files(folder: RunFolder) -> Table:
    """Return the files that the sweep has written, each with a description."""
    table = Table(title=f"Written to {folder.root}", title_justify="left", show_header=False, box=None)
    descriptions = [
        ("report.html", "the whole sweep on one page, for a browser"),
        ("trials.csv", "one row for each trial"),
        ("history.csv", "one row for each epoch of a trial"),
        ("study.db", "the Optuna study; opens in optuna-dashboard"),
        ("sweep.yaml", "this sweep, every default filled in; works as --space"),
        ("environment.json", "command, versions, hardware, data"),
        ("skipped.csv", "photographs and labels that could not be used"),
        ("unused.csv", "files in the data folder that were not used"),
        ("duplicates.csv", "photographs that occur more than once, and whether their grades differ"),
        ("comparison/", "networks with and without pretraining: accuracy by epoch, confusion matrices on test"),
        ("trials/", "configuration and log of each trial, weights of the best"),
        ("best/", "the best model, its metrics and predictions, and these figures:"),
    ]
    for name, description in descriptions:
        if (folder.root / name).exists():
            table.add_row(name, description)
    for figure in sorted(folder.best.glob("*.png")):
        table.add_row(f"best/{figure.name}", "")
    table.add_row("tune/", "Ray Tune's own state")
    return table


def decoding_speed(photographs: int, seconds: float) -> str:
    """Return a line with the number of decoded photographs, the seconds, and the photographs a second."""
    return f"{photographs:,} photographs decoded in {seconds:,.1f} s, {photographs / seconds:,.1f} a second"


def data(summary: dict[str, Any]) -> Table:
    """Return the photographs of a data set by split and grade, with notes, from its summary in environment.json."""
    total = sum(counts["n"] for counts in summary["photographs"].values())
    patients = f"{summary['patients']:,} patients" if summary["patients"] < total else "patients unknown"
    title = f"{summary['path']} ({summary['layout']}, {patients})"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ["", "photographs", *(f"{grade} {name}" for grade, name in enumerate(GRADE_NAMES))]:
        table.add_column(column, justify="right")
    for split, counts in summary["photographs"].items():
        table.add_row(split, str(counts["n"]), *(str(count) for count in counts["by_grade"]))
    notes = [*summary["warnings"]]
    if description := duplicates(summary):
        notes.append(description)
    if summary["skipped"]:
        notes.append(f"{summary['skipped']} photographs or labels were left out")
    table.caption = "\n".join(f"note: {note}" for note in notes) or None
    table.caption_justify = "left"
    return table


def duplicates(summary: dict[str, Any]) -> str:
    """Describe a data set's duplicate photographs in a line, from its summary; "" if there are none."""
    counts = summary.get("duplicates") or {}
    if not counts.get("groups"):
        return ""
    groups = "1 group" if counts["groups"] == 1 else f"{counts['groups']:,} groups"
    joined = "not joined in a new split" if counts["join"] == "none" else "each is one patient in a new split"
    return (
        f"{groups} of duplicates, {counts['photographs']:,} photographs ({joined}; across splits: "
        f"{counts['across_splits']:,}, with conflicting grades: {counts['conflicting_grades']:,})"
    )


def plan(planned: SweepPlan) -> Group:
    """Return a table of the first trials and the numbers of a sweep that is to start."""
    shown = [_first_trials(planned)] if planned.first else []
    numbers = Table.grid(padding=(0, 2))
    rungs = ", ".join(str(epoch) for epoch in planned.rungs)
    numbers.add_row("rungs", f"after epochs {rungs}" if rungs else "none: every trial runs to its end")
    numbers.add_row("at most", f"{planned.epochs} epochs in {planned.trials} trials")
    numbers.add_row("at once", f"{planned.slots} on this machine")
    disk = f"{planned.bytes_needed / 1e9:.2f} GB at most for the results, {planned.bytes_free / 1e9:.2f} GB are free"
    problem = ": not enough, it would not start" if planned.bytes_needed > planned.bytes_free else ""
    numbers.add_row("disk", disk + problem)
    return Group(*shown, numbers)


def predictions(frame: pd.DataFrame) -> Table:
    """Return the grades and probabilities of photographs, one row for each."""
    table = Table(box=SIMPLE_HEAD)
    for column in frame.columns:
        table.add_column(str(column), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(_short(value) for value in row))
    return table


def _first_trials(planned: SweepPlan) -> Table:
    first = Table(title="Would start first", title_justify="left", box=SIMPLE_HEAD)
    trials = planned.first
    is_single = len(trials) == 1
    names = [name for name in trials[0][1] if is_single or len({str(values[name]) for _, values in trials}) > 1]
    for column in ("trial", *names):
        first.add_column(column, justify="left" if column == "trial" else "right", no_wrap=True)
    for trial, values in trials:
        first.add_row(trial, *(_short(values[name]) for name in names))
    return first


def _short(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e6 else f"{value:.3g}"
    return printable(str(value))
