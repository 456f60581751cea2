"""All trials as a table that can be sorted and filtered: its columns and cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retina.report.page.run_data import RunData, finite_or_none, format_setting
from retina.results.run_folder import METRIC_COLUMNS, PARAMETERS

TEXTS = {"trial_id", "state", "reason"}
NAMES = {"trial_id": "trial", "images_per_second": "images/s", "reason": "why it ended"}


@dataclass(frozen=True)
class Column:
    """A column: `name` as in trials.csv and `label` as it is shown, a filter may use both; whether it holds numbers."""

    name: str
    label: str
    numeric: bool


@dataclass(frozen=True)
class TrialCell:
    """What is shown, and what it is sorted by: a number, a text, or None where there is nothing."""

    text: str
    key: float | str | None


@dataclass(frozen=True)
class Row:
    """A trial, and its cells in the order of the columns."""

    trial: str
    state: str
    cells: list[TrialCell]


@dataclass(frozen=True)
class Table:
    """The trials, best first, those without a value last; `same` are the settings that all of them share."""

    columns: list[Column]
    rows: list[Row]
    same: list[tuple[str, str]]


def table(facts: RunData) -> Table:
    """All trials of a sweep."""
    varied = [name for name in PARAMETERS if name in facts.trials and len({_word(row[name]) for row in facts.rows}) > 1]
    same = [(name, _word(facts.rows[0][name])) for name in PARAMETERS if facts.rows and name not in varied]
    measures = [facts.metric, *(name for name in METRIC_COLUMNS if name != facts.metric)]
    names = ["trial_id", "state", *measures, "best_epoch", "epochs_run", *varied, "minutes", "images_per_second"]
    names.append("reason")
    told = [{**row, "minutes": _minutes(row["seconds"])} for row in facts.rows]
    columns = [Column(name, NAMES.get(name, name), _is_numeric(name, told)) for name in names]
    places = {trial: place for place, trial in enumerate(facts.ranking)}
    rows = sorted(told, key=lambda row: places.get(row["trial_id"], len(places)))
    return Table(columns, [_row(row, columns) for row in rows], [(name, told) for name, told in same if told])


def _row(told: dict[str, Any], columns: list[Column]) -> Row:
    return Row(str(told["trial_id"]), str(told["state"]), [_cell(told[one.name], one) for one in columns])


def _cell(value: Any, column: Column) -> TrialCell:
    text = _word(value)
    if not text:
        return TrialCell("", None)
    if not column.numeric:
        return TrialCell(text, text)
    found = finite_or_none(value)
    if found is None:
        return TrialCell(text, None)
    if column.name == "minutes":
        return TrialCell(f"{found:.1f}", round(found, 4))
    return TrialCell(str(int(found)) if found == int(found) and abs(found) < 1e6 else f"{found:.4g}", found)


def _minutes(seconds: Any) -> float | None:
    found = finite_or_none(seconds)
    return None if found is None else found / 60


def _is_numeric(name: str, rows: list[dict[str, Any]]) -> bool:
    told = [row[name] for row in rows if _word(row[name])]
    return name not in TEXTS and all(finite_or_none(value) is not None and not _is_truth(value) for value in told)


def _is_truth(value: Any) -> bool:
    return format_setting(value) in {"true", "false"}


def _word(value: Any) -> str:
    return format_setting(value).strip()
