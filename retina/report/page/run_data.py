"""`RunData`: the content of a results folder that a page shows, read once. Missing content is None or empty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from retina.config import SweepSpec
from retina.config.search_space import Parameter
from retina.metrics.probabilities import PROBABILITY_COLUMNS
from retina.report import ensemble_results
from retina.report.ensemble_results import EnsembleResult
from retina.report.terminal import list_sweeps
from retina.results import checksums, readers, schemas, table_reader
from retina.results.run_folder import FINISHED, METRICS_REMEDY, RunFolder

_PREDICTION_COLUMNS = ["split", "image", "grade", *PROBABILITY_COLUMNS]
"""The columns of predictions.csv that every version has written."""


@dataclass(frozen=True)
class SearchedParameter:
    """A parameter that the sweep searched.

    Attributes:
        name: name of the parameter.
        is_log: whether its range is searched on a logarithmic scale.
        ends: ends of its range; None if it has `choices`.
        choices: its values as text, in the order of the sweep file; empty for a range.
        when: names of other parameters and the values, as text, with which this parameter is used.
    """

    name: str
    is_log: bool
    ends: tuple[float, float] | None
    choices: tuple[str, ...]
    when: Mapping[str, tuple[str, ...]]

    def is_used(self, row: Mapping[str, Any]) -> bool:
        """Return whether a trial uses the parameter; `row` is its row of trials.csv."""
        return all(format_setting(row[other]) in values for other, values in self.when.items())


@dataclass(frozen=True)
class RunData:
    """The content of a results folder.

    Attributes:
        folder: the folder.
        spec: sweep.yaml.
        environment: environment.json.
        trials: trials.csv, in the order in which the trials were started.
        history: history.csv.
        best: best/metrics.json; None before there is a best model.
        predictions: best/predictions.csv; None if it is missing.
        ensembles: the best model, the ensemble and the weight soup; empty if they were not evaluated.
        state: "running", "finished", "interrupted" or "ended by ...", as in `list_sweeps.SweepSummary`.
    """

    folder: RunFolder
    spec: SweepSpec
    environment: dict[str, Any]
    trials: pd.DataFrame
    history: pd.DataFrame
    best: dict[str, Any] | None
    predictions: pd.DataFrame | None
    ensembles: list[EnsembleResult]
    state: str

    @property
    def metric(self) -> str:
        """Name of the metric that the sweep optimises."""
        return self.spec.metric.name

    @cached_property
    def ranking(self) -> list[str]:
        """Ids of the trials that have a value, running ones included, the best first; ties keep their order."""
        values = pd.to_numeric(self.trials[self.metric], errors="coerce") * self.spec.metric.sign
        valid = values[values.notna() & (self.trials["state"] != "FAIL")]
        order = valid.sort_values(ascending=False, kind="stable").index
        return [str(trial) for trial in self.trials.loc[order, "trial_id"]]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of trials.csv as dictionaries."""
        return [{str(key): value for key, value in row.items()} for row in self.trials.to_dict(orient="records")]

    @cached_property
    def searched(self) -> list[SearchedParameter]:
        """The parameters that can differ between trials, in the order of the sweep file."""
        parameters = [_searched_parameter(name, parameter) for name, parameter in self.spec.parameters.items()]
        return [parameter for parameter in parameters if parameter.ends or len(parameter.choices) > 1]

    def count(self, *states: str) -> int:
        """Return the number of trials in one of `states`."""
        return int(self.trials["state"].isin(states).sum())

    @property
    def ended(self) -> int:
        """The number of trials that have ended, failed ones included."""
        return self.count(*FINISHED)


def read(folder: RunFolder) -> RunData:
    """Read a results folder.

    Raises:
        ResultsError: a file of the folder is damaged; the message names it.
    """
    spec = folder.spec()
    environment = folder.metadata()
    trials = folder.trials()
    trials_left = (spec.trials or 0) - int(trials["state"].isin(FINISHED).sum())
    metrics = folder.best / "metrics.json"
    is_evaluated = metrics.is_file() or (folder.best / checksums.SUMS).is_file()
    if is_evaluated and not checksums.verify_best(folder.best, "metrics.json", "predictions.csv"):
        checksums.log_unverified(folder.best)
    best = readers.read_object(metrics, schemas.Metrics, METRICS_REMEDY)
    return RunData(
        folder=folder,
        spec=spec,
        environment=environment,
        trials=trials,
        history=folder.history(),
        best=best,
        predictions=_read_predictions(folder) if best is not None else None,
        ensembles=ensemble_results.read(folder, str(best.get("trial_id"))) if best is not None else [],
        state=list_sweeps.sweep_state(folder, environment, trials_left=trials_left),
    )


def format_setting(value: Any) -> str:
    """Return a setting as text: `true`, `0.001`, `adamw`; empty for None and NaN."""
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
    """Return `value` as a float if it is a finite number, else None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _searched_parameter(name: str, parameter: Parameter) -> SearchedParameter:
    when = {
        other: tuple(format_setting(value) for value in (values if isinstance(values, list) else [values]))
        for other, values in parameter.when.items()
    }
    if parameter.distribution:
        return SearchedParameter(name, parameter.is_log, parameter.bounds(), (), when)
    return SearchedParameter(name, False, None, tuple(format_setting(value) for value in parameter.choices()), when)


def _read_predictions(folder: RunFolder) -> pd.DataFrame | None:
    file = folder.best / "predictions.csv"
    table = table_reader.read_table(
        file, schemas.PredictionRow, _PREDICTION_COLUMNS, ["split", "image"], METRICS_REMEDY
    )
    if table is None:
        return None
    rows, _ = table
    frame = pd.DataFrame(rows or {name: [] for name in _PREDICTION_COLUMNS})
    if "predicted" not in frame:
        frame["predicted"] = frame[PROBABILITY_COLUMNS].to_numpy(dtype=float).argmax(axis=1) if rows else []
    return frame.astype({"grade": "int64", "predicted": "int64"})
