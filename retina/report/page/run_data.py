"""Everything that a page tells, read from a results folder once: what is not there yet is None or empty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from retina.config import GRADES, SweepSpec
from retina.config.search_space import Parameter
from retina.report import ensemble_results
from retina.report.ensemble_results import EnsembleResult
from retina.report.terminal import list_sweeps
from retina.results import checksums, readers, schemas, table_reader
from retina.results.run_folder import FINISHED, METRICS_REMEDY, RunFolder

PROBABILITIES = [f"p{grade}" for grade in range(GRADES)]
_PREDICTION_COLUMNS = ["split", "image", "grade", *PROBABILITIES]
"""Those that every version wrote."""


@dataclass(frozen=True)
class SearchedParameter:
    """A parameter that the sweep searched.

    Attributes:
        name: its name.
        is_log: whether it is searched by orders of magnitude.
        ends: of a range; None where it has `choices`.
        choices: as they are shown, in their order.
        when: settings of others under which it is used at all, as they are shown.
    """

    name: str
    is_log: bool
    ends: tuple[float, float] | None
    choices: tuple[str, ...]
    when: Mapping[str, tuple[str, ...]]

    def is_used(self, row: Mapping[str, Any]) -> bool:
        """Whether a trial, a row of trials.csv, uses it."""
        return all(format_setting(row[other]) in wanted for other, wanted in self.when.items())


@dataclass(frozen=True)
class RunData:
    """What a results folder holds.

    Attributes:
        folder: the folder.
        spec: sweep.yaml.
        notes: environment.json.
        trials: trials.csv, in the order in which they were started.
        history: history.csv.
        best: best/metrics.json; None before there is a winner.
        predictions: best/predictions.csv; None where it is not there.
        ways: the best model beside ensemble and soup; empty where they were not made.
        state: "running", "finished", "interrupted", "ended by ...".
    """

    folder: RunFolder
    spec: SweepSpec
    notes: dict[str, Any]
    trials: pd.DataFrame
    history: pd.DataFrame
    best: dict[str, Any] | None
    predictions: pd.DataFrame | None
    ways: list[EnsembleResult]
    state: str

    @property
    def metric(self) -> str:
        """What the sweep goes by."""
        return self.spec.metric.name

    @cached_property
    def ranking(self) -> list[str]:
        """The trials that have a value, running ones included, best first; equal ones as they were started."""
        values = pd.to_numeric(self.trials[self.metric], errors="coerce") * self.spec.metric.sign
        of_use = values[values.notna() & (self.trials["state"] != "FAIL")]
        order = of_use.sort_values(ascending=False, kind="stable").index
        return [str(trial) for trial in self.trials.loc[order, "trial_id"]]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """trials.csv as dictionaries, in its order."""
        return [{str(key): value for key, value in row.items()} for row in self.trials.to_dict(orient="records")]

    @cached_property
    def searched(self) -> list[SearchedParameter]:
        """The parameters that could differ between trials, in the sweep file's order."""
        found = [_searched(name, parameter) for name, parameter in self.spec.parameters.items()]
        return [one for one in found if one.ends or len(one.choices) > 1]

    def count(self, *states: str) -> int:
        """How many trials are in one of `states`."""
        return int(self.trials["state"].isin(states).sum())

    @property
    def ended(self) -> int:
        """How many trials have ended, failed ones included."""
        return self.count(*FINISHED)


def read(folder: RunFolder) -> RunData:
    """Read a results folder.

    Raises:
        ResultsError: a file of it is damaged; names it.
    """
    spec = folder.spec()
    notes = folder.metadata()
    trials = folder.trials()
    left = (spec.trials or 0) - int(trials["state"].isin(FINISHED).sum())
    metrics = folder.best / "metrics.json"
    is_judged = metrics.is_file() or (folder.best / checksums.SUMS).is_file()
    if is_judged and not checksums.verify_best(folder.best, "metrics.json", "predictions.csv"):
        checksums.tell_unverified(folder.best)
    best = readers.read_object(metrics, schemas.Metrics, METRICS_REMEDY)
    return RunData(
        folder=folder,
        spec=spec,
        notes=notes,
        trials=trials,
        history=folder.history(),
        best=best,
        predictions=_predictions(folder) if best is not None else None,
        ways=ensemble_results.read(folder, str(best.get("trial_id"))) if best is not None else [],
        state=list_sweeps.sweep_state(folder, notes, left=left),
    )


def format_setting(value: Any) -> str:
    """A setting as it is shown: `true`, `0.001`, `adamw`; empty where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return ""
    if isinstance(value, bool | np.bool_) or str(value) in {"True", "False"}:
        return str(value).lower()
    if isinstance(value, int | np.integer):
        return str(value)
    try:
        return f"{float(value):.6g}"
    except ValueError:
        return str(value)


def finite_or_none(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _searched(name: str, parameter: Parameter) -> SearchedParameter:
    when = {
        other: tuple(format_setting(value) for value in (values if isinstance(values, list) else [values]))
        for other, values in parameter.when.items()
    }
    if parameter.distribution:
        return SearchedParameter(name, parameter.is_log, parameter.bounds(), (), when)
    return SearchedParameter(name, False, None, tuple(format_setting(value) for value in parameter.choices()), when)


def _predictions(folder: RunFolder) -> pd.DataFrame | None:
    file = folder.best / "predictions.csv"
    found = table_reader.read_table(
        file, schemas.PredictionRow, _PREDICTION_COLUMNS, ["split", "image"], METRICS_REMEDY
    )
    if found is None:
        return None
    rows = found[0]
    frame = pd.DataFrame(rows or {name: [] for name in _PREDICTION_COLUMNS})
    if "predicted" not in frame:
        frame["predicted"] = frame[PROBABILITIES].to_numpy(dtype=float).argmax(axis=1) if rows else []
    return frame.astype({"grade": "int64", "predicted": "int64"})
