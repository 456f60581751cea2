"""What a sweep searches: parameters with their values or ranges, and the conditions between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from retina.config import Frozen, TrialConfig, nearest


class Parameter(Frozen):
    """One searched setting: a `value`, several `values`, or a `distribution` from `min` to `max`.

    `when` names settings of other parameters under which this one is searched at all.
    """

    value: Any = None
    values: list[Any] | None = None
    ordered: bool = False
    distribution: Literal["uniform", "log_uniform", "int_uniform", "int_log_uniform"] | None = None
    min: float | None = None
    max: float | None = None
    step: float | None = Field(None, gt=0)
    when: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        shapes = [shape for shape in ("value", "values", "distribution") if shape in self.model_fields_set]
        if len(shapes) != 1:
            raise ValueError(f"needs one of value, values, distribution; has {', '.join(shapes) or 'none of them'}")
        if self.values is not None:
            self._check_values(self.values)
        elif self.ordered:
            raise ValueError("ordered goes with values only")
        if self.distribution is None:
            stray = {"min", "max", "step"} & self.model_fields_set
            if stray:
                raise ValueError(f"{', '.join(sorted(stray))} goes with distribution only")
        else:
            self._check_range()
        return self

    @property
    def is_int(self) -> bool:
        """Whether a range gives whole numbers only."""
        return self.distribution is not None and self.distribution.startswith("int_")

    @property
    def is_log(self) -> bool:
        """Whether a range is searched by orders of magnitude."""
        return self.distribution is not None and "log" in self.distribution

    def choices(self) -> list[Any]:
        """All possible values of a parameter that is no range; ordered ones from low to high.

        Raises:
            ValueError: for a range, which has no list of values.
        """
        if self.distribution is not None:
            raise ValueError("a range has no list of values")
        if self.values is None:
            return [self.value]
        return sorted(self.values) if self.ordered else list(self.values)

    def admits(self, value: Any) -> bool:
        """Whether the search could come to `value`."""
        if self.distribution is None:
            return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.choices())
        low, high = self.bounds()
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            return False
        if self.step is None:
            return not self.is_int or value == int(value)
        steps = (value - low) / self.step
        return abs(steps - round(steps)) < 1e-9

    def bounds(self) -> tuple[float, float]:
        """The ends of a range, both inside it."""
        assert self.min is not None  # noqa: S101  # the validator saw to it; this tells the type checker
        assert self.max is not None  # noqa: S101
        return self.min, self.max

    def allowed(self) -> str:
        """What `admits` accepts, for a message."""
        if self.distribution is None:
            return f"one of {self.choices()}"
        low, high = self.bounds()
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{low:g} to {high:g}{step}"

    @staticmethod
    def _check_values(values: list[Any]) -> None:
        if not values:
            raise ValueError("values: an empty list leaves nothing to try")
        if len({(type(value), value) for value in values}) < len(values):
            raise ValueError(f"values: {values} has one value twice")

    def _check_range(self) -> None:
        if self.min is None or self.max is None:
            raise ValueError(f"{self.distribution} needs min and max")
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g}")
        if self.is_log and self.min <= 0:
            raise ValueError(f"{self.distribution} needs min above 0, got {self.min:g}")
        if self.is_log and self.step is not None:
            raise ValueError(f"{self.distribution} has no steps")
        if self.is_int and any(part is not None and part != int(part) for part in (self.min, self.max, self.step)):
            raise ValueError(f"{self.distribution} needs whole numbers for min, max and step")


Space = Mapping[str, Parameter]


def search_order(space: Space) -> list[str]:
    """The parameters' names, each after those that its `when` asks for.

    Raises:
        ValueError: a `when` names an unknown parameter, a value that it cannot take, or runs in a circle.
    """
    for name, parameter in space.items():
        _check_when(space, name, parameter)
    order: list[str] = []
    while waiting := [name for name in space if name not in order]:
        ready = [name for name in waiting if not set(space[name].when) & set(waiting)]
        if not ready:
            raise ValueError(f"parameters: the when of {', '.join(waiting)} runs in a circle")
        order += ready
    return order


def active(space: Space, name: str, chosen: Mapping[str, Any]) -> bool:
    """Whether parameter `name` is searched once the parameters that it depends on are `chosen`."""
    return all(other in chosen and chosen[other] in _as_list(wanted) for other, wanted in space[name].when.items())


def grid(space: Space) -> list[dict[str, Any]]:
    """Every combination of values once; a parameter whose `when` does not hold is left out of its combination."""
    order = search_order(space)
    points: list[dict[str, Any]] = []
    for combination in itertools.product(*(space[name].choices() for name in order)):
        point: dict[str, Any] = {}
        for name, value in zip(order, combination, strict=True):
            if active(space, name, point):
                point[name] = value
        if point not in points:
            points.append(point)
    return points


def point_of(space: Space, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The point at which a configuration lies, as far as it is searched; None where a value lies outside the space."""
    point: dict[str, Any] = {}
    for name in search_order(space):
        if active(space, name, point):
            if not space[name].admits(config[name]):
                return None
            point[name] = config[name]
    return point


def check_point(space: Space, point: Mapping[str, Any], where: str) -> None:
    """See that the search could come to `point`, which may leave parameters open.

    Raises:
        ValueError: naming `where` and the parameter that is unknown, outside its range, or not searched there.
    """
    for name, value in point.items():
        if name not in space:
            raise ValueError(f"{where}: {name} is not among the parameters; {nearest(name, [*space])}")
        if not space[name].admits(value):
            raise ValueError(
                f"{where}: {name}: {value!r} is outside the space; allowed: {space[name].allowed()}"
                " (or leave the start points out: --set start=[])"
            )
        if not active(space, name, point):
            raise ValueError(f"{where}: {name} is searched only when {space[name].when}, which does not hold there")


def typed_parameter(name: str, parameter: Any) -> Any:
    """The raw `parameter` with each value as `TrialConfig` would hold it (5e-4, not "5e-4"; 10, not 10.0).

    Raises:
        ValueError: `TrialConfig` has no such field, or it does not allow one of the values.
    """
    if name not in TrialConfig.model_fields:
        raise ValueError(
            f"parameters: unknown parameter {name!r}; {nearest(str(name), list(TrialConfig.model_fields))}"
        )
    if not isinstance(parameter, Mapping):
        return parameter
    kind = TrialConfig.model_fields[name].annotation
    if "distribution" in parameter and kind not in {int, float}:
        raise ValueError(f"parameters.{name}: is no number, so it has no distribution; give value or values")
    typed = dict(parameter)
    if "value" in typed:
        typed["value"] = typed_value(name, typed["value"])
    if isinstance(typed.get("values"), list):
        typed["values"] = [typed_value(name, value) for value in typed["values"]]
    for end in ("min", "max"):
        if typed.get(end) is not None:
            typed_value(name, typed[end])
    if kind is int and typed.get("distribution") in {"uniform", "log_uniform"}:
        typed["distribution"] = f"int_{typed['distribution']}"
    return typed


def typed_value(name: str, value: Any) -> Any:
    """`value` as `TrialConfig` would hold it; unchanged where it has no such field.

    Raises:
        ValueError: `TrialConfig` does not allow the value.
    """
    if name not in TrialConfig.model_fields:
        return value
    try:
        return getattr(TrialConfig.model_validate({name: value}), name)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Input ")
        raise ValueError(f"parameters.{name}: {value!r} {message}") from None


def _check_when(space: Space, name: str, parameter: Parameter) -> None:
    for other, wanted in parameter.when.items():
        where = f"parameters.{name}.when"
        if other not in space:
            raise ValueError(f"{where}: no parameter {other!r}; {nearest(other, [*space])}")
        for value in _as_list(wanted):
            if not space[other].admits(value):
                raise ValueError(f"{where}: {other} is never {value!r}; allowed: {space[other].allowed()}")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
