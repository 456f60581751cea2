"""All sweeps of a results folder at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from retina import checksums, yaml_reader
from retina.errors import ResultsError, SpecError
from retina.report.live import clock
from retina.results import FINISHED, RunFolder, read_json


@dataclass(frozen=True)
class Summary:
    """One sweep.

    Attributes:
        name: of its folder.
        state: "running", "finished", "ended by ...", "interrupted" (`--resume` goes on), or "unreadable: ...".
        planned: trials that it is to run.
        finished: those that have ended, failed ones included.
        failed: those that failed.
        metric: what it goes by.
        best: trial and value of the best so far, running ones included.
        test_qwk: of the winner; None before the sweep has ended.
        seconds_ago: when it was started.
    """

    name: str
    state: str
    planned: int = 0
    finished: int = 0
    failed: int = 0
    metric: str = ""
    best: tuple[str, float] | None = None
    test_qwk: float | None = None
    seconds_ago: float | None = None


def summaries(results: Path) -> list[Summary]:
    """The sweeps in a folder, the newest first; what cannot be read is named as such.

    Raises:
        ResultsError: no such folder.
    """
    if not results.is_dir():
        raise ResultsError(f"{results}: no such folder")
    # one whose name begins with a dot is being made, or was when its process was killed
    found = [_summary(file.parent) for file in results.glob("[!.]*/sweep.yaml")]
    return sorted(found, key=lambda one: (one.seconds_ago is None, one.seconds_ago, one.name))


def table(found: list[Summary]) -> Table:
    """A line a sweep."""
    shown = Table(box=SIMPLE_HEAD)
    for column in ("sweep", "state", "trials", "best", "test QWK", "age"):
        shown.add_column(column, justify="right" if column in {"test QWK", "age"} else "left", no_wrap=True)
    for one in found:
        trials = f"{one.finished} of {one.planned}" + (f", {one.failed} failed" if one.failed else "")
        best = "-" if one.best is None else f"{one.metric} {one.best[1]:.3f} by {one.best[0]}"
        test = "-" if one.test_qwk is None else f"{one.test_qwk:.3f}"
        age = "-" if one.seconds_ago is None else clock(one.seconds_ago)
        # Text: a folder's name, or what is wrong with it, may look like rich's markup
        shown.add_row(Text(one.name), Text(one.state), trials if one.planned else "-", best, test, age)
    return shown


def _summary(root: Path) -> Summary:
    try:
        return _read(root)
    except KeyError as error:
        problem = f"sweep.yaml or best/metrics.json lacks {error}"
    except (OSError, SpecError) as error:  # ResultsError is an OSError
        problem = " ".join(str(error).split()).replace(f"{root}/", "")
    except (AttributeError, TypeError, ValueError) as error:
        problem = f"a file holds what it should not: {error}"
    return Summary(root.name, f"unreadable: {problem[:80]}")


def _read(root: Path) -> Summary:
    folder = RunFolder.open(root)
    spec = yaml_reader.read(root / "sweep.yaml").content
    notes = folder.notes()
    if "started" not in notes:
        raise ResultsError(f"{root}/environment.json: is not there, or does not say when the sweep was started")
    metric, sign = spec["metric"]["name"], 1 if spec["metric"]["goal"] == "maximize" else -1
    finished = len(folder.trial_ids(*FINISHED))
    rows = [folder.recorded(name) for name in folder.trial_ids("COMPLETE", "PRUNED", "RUNNING")]
    scored = [(row["trial_id"], float(row[metric])) for row in rows if metric in row]
    test = {}
    if any((folder.best / name).is_file() for name in ("metrics.json", checksums.SUMS)):
        checksums.verify_best(folder.best, "metrics.json")
        test = read_json(folder.best / "metrics.json")["test"]
    return Summary(
        name=root.name,
        state=state_of(folder, notes, left=spec["trials"] - finished),
        planned=spec["trials"],
        finished=finished,
        failed=len(folder.trial_ids("FAIL")),
        metric=metric,
        best=max(scored, key=lambda pair: sign * pair[1], default=None),
        test_qwk=test.get("qwk"),
        seconds_ago=(datetime.now(UTC) - datetime.fromisoformat(notes["started"])).total_seconds(),
    )


def state_of(folder: RunFolder, notes: dict[str, Any], *, left: int) -> str:
    """A sweep's state, as in `Summary`; `left` are the trials that are still to end."""
    if folder.is_running:
        return "running"
    if notes.get("ended_by"):
        return f"ended by {notes['ended_by']}"
    return "interrupted" if left > 0 or "best" not in notes else "finished"  # the winner is judged after the trials
