"""The schema of a sweep file: YAML to a validated `SweepSpec`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from retina.config import search_space, spellings, yaml_reader
from retina.config.data import DataConfig
from retina.config.search_space import Parameter
from retina.config.sweep_file import RawSweep
from retina.config.trial import TrialConfig
from retina.config.validation import RECORDED, Frozen, Origin, SettingError, is_recorded, parse
from retina.errors import SpecError

METRICS = {"val_qwk": "maximize", "val_accuracy": "maximize", "val_auc": "maximize", "val_loss": "minimize"}
"""The metrics that a sweep may optimise, and their goals. Always of the validation split: the test split is not used
to choose anything."""
RANGES = {"val_qwk": (-1.0, 1.0), "val_accuracy": (0.0, 1.0), "val_auc": (0.0, 1.0), "val_loss": (0.0, math.inf)}
"""The range of values of each metric."""

MAX_TRIALS = 1_000_000
"""The trials' ids and rows are kept in memory, and trials.csv is rewritten."""
MAX_RUNGS = 10_000
"""Ray lists all rungs before a sweep begins."""


class Metric(Frozen):
    """The optimised metric, and the value at which the sweep may stop."""

    name: Literal["val_qwk", "val_accuracy", "val_auc", "val_loss"] = "val_qwk"
    goal: Literal["maximize", "minimize"] = "maximize"
    target: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _set_default_goal(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "goal" not in values:
            name = values.get("name", "val_qwk")
            return {**values, "goal": METRICS.get(name, "maximize") if isinstance(name, str) else "maximize"}
        return values

    @model_validator(mode="after")
    def _goal_matches_metric(self) -> Self:
        if self.goal != METRICS[self.name]:
            raise SettingError(
                f"goal: {self.goal!r} does not go with {self.name}; allowed: {METRICS[self.name]}", "goal"
            )
        return self

    @model_validator(mode="after")
    def _target_is_in_range(self, info: ValidationInfo) -> Self:
        low, high = RANGES[self.name]
        if self.target is not None and not (low <= self.target <= high or is_recorded(info)):
            allowed = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} and more"
            raise SettingError(f"target: {self.target:g} is outside {self.name}; allowed: {allowed}", "target")
        return self

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is better."""
        return 1 if self.goal == "maximize" else -1


class Budget(Frozen):
    """The limits that end a sweep before all its trials have run."""

    hours: float | None = Field(None, gt=0)
    max_failed: int | None = Field(None, ge=1, description="end the sweep when this many trials have failed")


class EarlyStop(Frozen):
    """ASHA (Li et al. 2020, arXiv 1810.05934): at rungs grace, grace x eta, ... only the best 1/eta continue.

    The defaults of this class, of `method` and of `random_share` are those that performed best in benchmarks/search.
    """

    type: Literal["asha", "none"] = "asha"
    grace_epochs: int = Field(3, ge=1)
    eta: float = Field(3, gt=1)


MIN_ETA = 1.0001
"""Below it ASHA has too many rungs to list."""
MIN_GPU = 0.0001
"""Smallest share of a GPU; Ray counts in this unit."""


class Resources(Frozen):
    """The resources of one trial; by default derived from the machine's."""

    gpu: float | None = Field(None, ge=0, description="GPUs per trial; a fraction shares one GPU")
    cpu: int | None = Field(None, ge=1, description="cores (and torch threads) per trial")

    @model_validator(mode="after")
    def _gpu_is_whole_or_fraction(self) -> Self:
        if self.gpu is not None and self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError(f"gpu: {self.gpu:g} is more than one and not a whole number")
        if self.gpu is not None and 0 < self.gpu < MIN_GPU:
            raise ValueError(f"gpu: {self.gpu:g} is less than Ray can allocate; allowed: 0, or {MIN_GPU:g} and more")
        return self


class Keep(Frozen):
    """What a sweep keeps on disk."""

    trials: int = Field(3, ge=1, description="number of best trials that keep their weights")


class SweepSpec(Frozen):
    """The settings of a whole sweep, with every default filled in."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    data: DataConfig = DataConfig()
    metric: Metric = Metric()
    method: Literal["tpe", "gp", "random", "grid"] = "gp"
    random_share: float = Field(
        0.3, ge=0, le=1, description="of tpe and gp: share of the trials that are drawn at random"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    trials: int | None = Field(None, ge=1, description="default: the whole grid, else 20")
    budget: Budget = Budget()
    early_stop: EarlyStop = EarlyStop()
    resources: Resources = Resources()
    parameters: dict[str, Parameter]
    start: list[dict[str, Any]] = Field(default_factory=list)
    keep: Keep = Keep()
    track_test: bool = Field(
        False, description="record the test split's metrics by epoch, for curves; not used to choose anything"
    )

    @model_validator(mode="before")
    @classmethod
    def _coerce_values(cls, values: Any, info: ValidationInfo) -> Any:
        """Return `values` with each of a parameter as `TrialConfig` would hold it (5e-4, not "5e-4"; 10, not 10.0)."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values) if is_recorded(info) else spellings.normalize_sweep(values)
        if isinstance(values.get("parameters"), Mapping):
            parameters = values["parameters"]
            if is_recorded(info):
                parameters = search_space.known_parameters(parameters)
            values["parameters"] = {
                name: search_space.coerce_parameter(name, parameter) for name, parameter in parameters.items()
            }
        start = values.get("start")
        if isinstance(start, list) and all(isinstance(point, Mapping) for point in start):
            values["start"] = [
                {name: search_space.coerce_value(name, value, "start", index, name) for name, value in point.items()}
                for index, point in enumerate(start)
            ]
        return values

    @model_validator(mode="after")
    def _is_consistent(self, info: ValidationInfo) -> Self:
        if not self.parameters and not (info.context and info.context.get("allow_no_parameters")):
            raise SettingError("parameters: should hold at least one parameter", "parameters")
        search_space.search_order(self.parameters)
        if self.method == "grid":
            ranges = [name for name, parameter in self.parameters.items() if parameter.distribution]
            if ranges:
                problem = f"parameters.{ranges[0]}: a range has no grid; give values, or choose another method"
                raise SettingError(problem, "parameters", ranges[0])
            if self.start:
                problem = "start: a grid has its own order; leave start out, or choose another method"
                raise SettingError(problem, "start")
            if not is_recorded(info) and (size := search_space.grid_size(self.parameters)) > search_space.MAX_GRID:
                problem = (
                    f"method: a grid of {size:,} points; allowed: {search_space.MAX_GRID:,}; choose another method"
                )
                raise SettingError(problem, "method")
        if is_recorded(info):
            self._check_eta()
            return self
        if self.trials is not None and self.trials > MAX_TRIALS:
            raise SettingError(f"trials: {self.trials}: should be less than or equal to {MAX_TRIALS}", "trials")
        search_space.check_conditions(self.parameters)
        self._check_rungs()
        search_space.check_start_points(self.parameters, self.start)
        if len(self.start) > self.planned_trials:
            raise SettingError(
                f"start: {len(self.start)} points are more than trials: {self.planned_trials}; each point is a trial"
                " (or leave the start points out: --set start=[])",
                "start",
            )
        return self

    def _check_rungs(self) -> None:
        ratio = self.max_epochs / self.early_stop.grace_epochs
        rungs = math.log(ratio) / math.log(self.early_stop.eta) if ratio > 1 else 0
        if self.early_stop.type != "none" and rungs > MAX_RUNGS:
            raise SettingError(
                f"early_stop.eta: {self.early_stop.eta!r} makes {rungs:.3g} rungs; allowed: {MAX_RUNGS:,}",
                "early_stop",
                "eta",
            )
        self._check_eta()

    def _check_eta(self) -> None:
        if self.early_stop.eta < MIN_ETA:
            problem = f"early_stop.eta: {self.early_stop.eta!r}; allowed: {MIN_ETA} and more"
            raise SettingError(problem, "early_stop", "eta")

    @property
    def planned_trials(self) -> int:
        """Number of trials that the sweep runs unless it ends early."""
        if self.method == "grid":
            points = len(search_space.grid_points(self.parameters))
            return min(self.trials or points, points)
        return self.trials or 20

    @property
    def max_epochs(self) -> int:
        """Largest number of epochs that a trial of this sweep can have."""
        parameter = self.parameters.get("epochs")
        if parameter is None:
            return TrialConfig().epochs
        return int(parameter.bounds()[1]) if parameter.distribution else int(max(parameter.choices()))

    def rungs(self) -> list[int]:
        """Return the epochs after which ASHA may stop a trial, ascending; empty if `early_stop.type` is none.

        The milestones are grace_epochs x eta^k below `max_epochs`. One that is no whole number is reached by the epoch
        after it.
        """
        grace, eta, longest = self.early_stop.grace_epochs, self.early_stop.eta, self.max_epochs
        if self.early_stop.type == "none" or grace >= longest:
            return []
        count = 1 + int(math.log(longest / grace) / math.log(eta))  # as Ray counts them
        milestones = (grace * eta**exponent for exponent in range(count))
        return [math.ceil(milestone) for milestone in milestones if milestone < longest]

    def possible(self, name: str) -> list[Any]:
        """Return the values that a trial can have for a setting that is not a range: those searched, or its default."""
        default = getattr(TrialConfig(), name)
        parameter = self.parameters.get(name)
        if parameter is None:
            return [default]
        return parameter.choices() if not parameter.when else list(dict.fromkeys([*parameter.choices(), default]))

    def to_yaml(self) -> str:
        """Return the sweep as the text of a file that `--space` accepts."""
        values = self.model_dump(mode="json", exclude={"parameters"})
        values["parameters"] = {
            name: parameter.model_dump(mode="json", exclude_unset=True) for name, parameter in self.parameters.items()
        }
        return yaml_reader.dump(values)


def load(
    file: Path,
    *,
    overrides: Sequence[str] = (),
    data: str | None = None,
    name: str | None = None,
    trials: int | None = None,
) -> SweepSpec:
    """Read and check a sweep file.

    Args:
        file: the YAML file.
        overrides: `KEY=VALUE`, with a dotted key and a YAML value; applied in order.
        data: replaces `data.path`; the layout is then detected again.
        name: replaces `name`.
        trials: replaces `trials`.

    Raises:
        SpecError: the file does not exist, is not YAML, or holds something that is not allowed.
    """
    raw = RawSweep.read(file)
    for override in overrides:
        raw.override(override)
    if data is not None:
        raw.replace_data(data)
    if name is not None:
        raw.replace("name", name)
    if trials is not None:
        raw.replace("trials", trials)
    return parse(SweepSpec, raw.values, raw.origin_of)


def parse_recorded(values: Mapping[str, Any], where: Origin, *, allow_no_parameters: bool = False) -> SweepSpec:
    """Check the values of a results folder's sweep.yaml, which an earlier version may have written.

    Unknown keys and parameters are ignored, missing keys get their defaults, and what only matters to a sweep that is
    to start is not checked. `retina.results.RunFolder.spec` reads the file.

    Args:
        values: the content of sweep.yaml.
        where: see `parse`.
        allow_no_parameters: whether `parameters` may be missing or empty.

    Raises:
        SpecError: a value that no version wrote.
    """
    if not allow_no_parameters and "metric" not in values:  # a default would rank the trials by another metric
        origin = where if isinstance(where, str) else where(("metric",))
        raise SpecError(f"{origin}: metric: is required")
    defaults: dict[str, Any] = {"name": "sweep"}
    if allow_no_parameters:
        defaults["parameters"] = {}
    return parse(SweepSpec, {**defaults, **values}, where, {**RECORDED, "allow_no_parameters": allow_no_parameters})
