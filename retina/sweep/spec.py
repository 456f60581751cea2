"""A sweep file, checked: YAML to `SweepSpec`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from retina.config import DataConfig, Frozen, TrialConfig, parse
from retina.errors import SpecError
from retina.sweep import space
from retina.sweep.space import Parameter

METRICS = {"val_qwk": "maximize", "val_accuracy": "maximize", "val_auc": "maximize", "val_loss": "minimize"}
"""What a sweep may go by, and its natural goal. Always of the validation split: the test split chooses nothing."""


class Metric(Frozen):
    """What is optimised, and from where on it is good enough."""

    name: Literal["val_qwk", "val_accuracy", "val_auc", "val_loss"] = "val_qwk"
    goal: Literal["maximize", "minimize"] = "maximize"
    target: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _natural_goal(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "goal" not in values:
            name = values.get("name", "val_qwk")
            return {**values, "goal": METRICS.get(name, "maximize") if isinstance(name, str) else "maximize"}
        return values

    @model_validator(mode="after")
    def _goal_fits(self) -> Self:
        if self.goal != METRICS[self.name]:
            raise ValueError(f"goal: {self.goal!r} does not go with {self.name}; allowed: {METRICS[self.name]}")
        return self

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.goal == "maximize" else -1


class Budget(Frozen):
    """When a sweep ends before all its trials are run."""

    hours: float | None = Field(None, gt=0)
    max_failed: int | None = Field(None, ge=1, description="end when this many trials have failed")


class EarlyStop(Frozen):
    """ASHA (Li et al. 2020, arXiv 1810.05934): at rungs grace, grace x eta, ... only the best 1/eta go on.

    The defaults here, and of `method` and `random_share`, are those that benchmarks/search found best.
    """

    type: Literal["asha", "none"] = "asha"
    grace_epochs: int = Field(3, ge=1)
    eta: float = Field(3, gt=1)


class Resources(Frozen):
    """What one trial gets. Left out, it follows from the machine."""

    gpu: float | None = Field(None, ge=0, description="GPUs a trial; a fraction shares one")
    cpu: int | None = Field(None, ge=1, description="cores (and torch threads) a trial")

    @model_validator(mode="after")
    def _whole_or_fraction(self) -> Self:
        if self.gpu is not None and self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError(f"gpu: {self.gpu:g} is more than one and no whole number")
        return self


class Keep(Frozen):
    """What stays on disk."""

    trials: int = Field(3, ge=1, description="how many of the best trials keep their weights")


class SweepSpec(Frozen):
    """A whole sweep, every default filled in."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    data: DataConfig = DataConfig()
    metric: Metric = Metric()
    method: Literal["tpe", "gp", "random", "grid"] = "gp"
    random_share: float = Field(
        0.3, ge=0, le=1, description="of tpe and gp: trials that are drawn at random all the same"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    trials: int | None = Field(None, ge=1, description="left out: the whole grid, else 20")
    budget: Budget = Budget()
    early_stop: EarlyStop = EarlyStop()
    resources: Resources = Resources()
    parameters: dict[str, Parameter] = Field(min_length=1)
    start: list[dict[str, Any]] = Field(default_factory=list)
    keep: Keep = Keep()
    track_test: bool = Field(False, description="record the test split by epoch, for curves; it chooses nothing")

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, values: Any) -> Any:
        """Every value of a parameter as `TrialConfig` would hold it (5e-4, not "5e-4"; 10, not 10.0)."""
        if not isinstance(values, Mapping) or not isinstance(values.get("parameters"), Mapping):
            return values
        typed = {name: space.typed_parameter(name, parameter) for name, parameter in values["parameters"].items()}
        start = values.get("start")
        if isinstance(start, list) and all(isinstance(point, Mapping) for point in start):
            values = {**values, "start": [{k: space.typed_value(k, v) for k, v in point.items()} for point in start]}
        return {**values, "parameters": typed}

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        space.search_order(self.parameters)
        if self.method == "grid":
            ranges = [name for name, parameter in self.parameters.items() if parameter.distribution]
            if ranges:
                raise ValueError(f"parameters.{ranges[0]}: a range has no grid; give values, or another method")
            if self.start:
                raise ValueError("start: a grid has its own order; leave start out, or choose another method")
        for number, point in enumerate(self.start, start=1):
            space.check_point(self.parameters, point, f"start: point {number}")
        return self

    @property
    def planned_trials(self) -> int:
        """How many trials the sweep runs when nothing ends it before."""
        if self.method == "grid":
            points = len(space.grid(self.parameters))
            return min(self.trials or points, points)
        return self.trials or 20

    @property
    def max_epochs(self) -> int:
        """The most epochs that a trial of this sweep can ask for."""
        parameter = self.parameters.get("epochs")
        if parameter is None:
            return TrialConfig().epochs
        return int(parameter.bounds()[1]) if parameter.distribution else int(max(parameter.choices()))

    def possible(self, name: str) -> list[Any]:
        """The values that a trial may have for a setting that is no range: the searched ones, or its default."""
        default = getattr(TrialConfig(), name)
        parameter = self.parameters.get(name)
        if parameter is None:
            return [default]
        return parameter.choices() if not parameter.when else list({*parameter.choices(), default})

    def to_yaml(self) -> str:
        """The sweep as a file that can be given to `--space` again."""
        values = self.model_dump(mode="json", exclude={"parameters"})
        values["parameters"] = {
            name: parameter.model_dump(mode="json", exclude_unset=True) for name, parameter in self.parameters.items()
        }
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


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
        overrides: `KEY=VALUE`, the key dotted, the value YAML; applied in order.
        data: replaces `data.path`, whose layout is then found anew.
        name: replaces `name`.
        trials: replaces `trials`.

    Raises:
        SpecError: no such file, no YAML, or anything in it that is not allowed.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"--space {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"--space {file}: is not a text file") from None
    values = _yaml(text, str(file))
    if not isinstance(values, dict):
        raise SpecError(f"{file}: is not a sweep file; it must hold keys such as parameters")
    values.setdefault("name", file.stem)
    for override in overrides:
        _apply(values, override)
    if data is not None:
        rest = values.get("data")
        values["data"] = {**(rest if isinstance(rest, dict) else {}), "path": data, "layout": "auto"}
    given = {"name": name, "trials": trials}
    values.update({key: value for key, value in given.items() if value is not None})
    return parse(SweepSpec, values, str(file))


_REPLACES = {
    "value": ("values", "ordered", "distribution", "min", "max", "step"),
    "values": ("value", "distribution", "min", "max", "step"),
    "distribution": ("value", "values", "ordered"),
}
"""Which keys of a parameter make room when `--set` gives it another shape."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-5 as a number (YAML 1.2), which PyYAML, being YAML 1.1, takes for text."""


_Loader.yaml_implicit_resolvers = {key: list(found) for key, found in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        raise SpecError(f"{where}: no valid YAML: {' '.join(str(error).split())[:200]}") from None


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise SpecError(f"--set {override}: allowed: KEY=VALUE, such as data.image_size=64")
    place = values
    *parents, last = key.split(".")
    for parent in parents:
        inner = place.get(parent)
        if not isinstance(inner, dict):
            inner = place[parent] = {}
        place = inner
    value = _yaml(text, f"--set {override}")
    if len(parents) == 1 and parents[0] == "parameters" and not isinstance(value, dict):
        raise SpecError(f"--set {override}: a parameter needs a shape, such as {key}={{value: {text}}}")
    if parents[:1] == ["parameters"]:
        for other in _REPLACES.get(last, ()):
            place.pop(other, None)
    place[last] = value
