"""The table of all trials, which can be sorted and filtered: its columns and cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retina.report.page.run_data import RunData, finite_or_none, format_setting
from retina.results.run_folder import METRIC_COLUMNS, PARAMETERS

TEXT_COLUMNS = {"trial_id", "state", "reason"}
LABELS = {"trial_id": "trial", "images_per_second": "images/s"}
"""Column labels that differ from the names in trials.csv."""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: name in trials.csv.
        label: visible heading. A filter may use the name or the label.
        numeric: whether the column holds numbers.
    """

    name: str
    label: str
    numeric: bool


@dataclass(frozen=True)
class TrialCell:
    """A cell of the table.

    Attributes:
        text: visible text.
        key: value that the cell is sorted by; None in an empty cell.
    """

    text: str
    key: float | str | None


@dataclass(frozen=True)
class TrialTableRow:
    """A trial, with its cells in the order of the columns."""

    trial: str
    state: str
    cells: list[TrialCell]


@dataclass(frozen=True)
class TrialTable:
    """The table of the trials.

    Attributes:
        columns: the columns.
        rows: the trials, the best first, those without a value last.
        same: names and values of the settings that all trials share.
    """

    columns: list[Column]
    rows: list[TrialTableRow]
    same: list[tuple[str, str]]


def table(run: RunData) -> TrialTable:
    """Return the table of all trials of a sweep."""
    varied = [name for name in PARAMETERS if name in run.trials and len({_text(row[name]) for row in run.rows}) > 1]
    shared = [(name, _text(run.rows[0][name])) for name in PARAMETERS if run.rows and name not in varied]
    metrics = [run.metric, *(name for name in METRIC_COLUMNS if name != run.metric)]
    names = ["trial_id", "state", *metrics, "best_epoch", "epochs_run", *varied, "minutes", "images_per_second"]
    names.append("reason")
    records = [{**row, "minutes": _minutes(row["seconds"])} for row in run.rows]
    columns = [Column(name, LABELS.get(name, name), _is_numeric(name, records)) for name in names]
    ranks = {trial: rank for rank, trial in enumerate(run.ranking)}
    records.sort(key=lambda record: ranks.get(record["trial_id"], len(ranks)))
    rows = [_row(record, columns) for record in records]
    return TrialTable(columns, rows, [(name, value) for name, value in shared if value])


def _row(record: dict[str, Any], columns: list[Column]) -> TrialTableRow:
    cells = [_cell(record[column.name], column) for column in columns]
    return TrialTableRow(str(record["trial_id"]), str(record["state"]), cells)


def _cell(value: Any, column: Column) -> TrialCell:
    text = _text(value)
    if not text:
        return TrialCell("", None)
    if not column.numeric:
        return TrialCell(text, text)
    number = finite_or_none(value)
    if number is None:
        return TrialCell(text, None)
    if column.name == "minutes":
        return TrialCell(f"{number:.1f}", round(number, 4))
    return TrialCell(str(int(number)) if number == int(number) and abs(number) < 1e6 else f"{number:.4g}", number)


def _minutes(seconds: Any) -> float | None:
    number = finite_or_none(seconds)
    return None if number is None else number / 60


def _is_numeric(name: str, records: list[dict[str, Any]]) -> bool:
    values = [record[name] for record in records if _text(record[name])]
    return name not in TEXT_COLUMNS and all(
        finite_or_none(value) is not None and not _is_boolean(value) for value in values
    )


def _is_boolean(value: Any) -> bool:
    return format_setting(value) in {"true", "false"}


def _text(value: Any) -> str:
    return format_setting(value).strip()
