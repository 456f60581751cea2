"""The search space of a sweep: parameters with their values or ranges, and the conditions between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from retina.config import spellings
from retina.config.trial import TrialConfig
from retina.config.validation import Frozen, SettingError, is_recorded, suggest
from retina.system.printable import truncate

MAX_GRID = 10_000
"""Maximum number of grid points; ten parameters of ten values would be 10^10."""

MAX_STEPS = 10**9
"""Maximum number of steps of a range; with more the step has no practical effect, and Optuna's arithmetic fails."""


class Parameter(Frozen):
    """One searched setting: a `value`, several `values`, or a `distribution` from `min` to `max`.

    `ordered` values are searched as an ordinal scale in the order in which they are written. A `step` divides the range
    into equal parts; both ends are possible values. `when` names values of other parameters that this one depends on:
    it is searched only if they hold.
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
    def _has_one_form(self, info: ValidationInfo) -> Self:
        forms = [form for form in ("value", "values", "distribution") if form in self.model_fields_set]
        if len(forms) != 1:
            given = ", ".join(forms) or "none of them"
            if not forms and {"min", "max"} & self.model_fields_set:
                given += "; min and max go with distribution: uniform, log_uniform, int_uniform or int_log_uniform"
            raise ValueError(f"needs one of value, values, distribution; has {given}")
        if forms != ["value"] and getattr(self, forms[0]) is None:
            raise SettingError(f"{forms[0]}: is empty; a parameter needs value, values or distribution", forms[0])
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
            if not is_recorded(info):
                self._check_step()
        return self

    @property
    def is_int(self) -> bool:
        """Whether the parameter is a range of whole numbers."""
        return self.distribution is not None and self.distribution.startswith("int_")

    @property
    def is_log(self) -> bool:
        """Whether the parameter is a range that is searched on a logarithmic scale."""
        return self.distribution is not None and "log" in self.distribution

    def choices(self) -> list[Any]:
        """Return all values of a parameter that is not a range, in the order in which they are written.

        Raises:
            ValueError: the parameter is a range, which has no list of values.
        """
        if self.distribution is not None:
            raise ValueError("a range has no list of values")
        return [self.value] if self.values is None else list(self.values)

    def contains(self, value: Any) -> bool:
        """Return whether the search could choose `value`."""
        if self.distribution is None:
            return any(
                value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.choices()
            )
        low, high = self.bounds()
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            return False
        if self.step is None:
            return not self.is_int or value == int(value)
        return math.isclose(value, self.round_to_step(value), rel_tol=1e-9, abs_tol=1e-9 * self.step)

    def round_to_step(self, value: float) -> float:
        """Return the decimal number nearest to `value` that is a whole number of steps: 0.85, not 0.8500000001."""
        if self.step is None:
            return value
        low, step = _exact(self.bounds()[0]), _exact(self.step)
        return float(low + round((_exact(value) - low) / step) * step)

    def bounds(self) -> tuple[float, float]:
        """Return the ends of a range, both inclusive."""
        assert self.min is not None  # noqa: S101  # the validator ensures it; this informs the type checker
        assert self.max is not None  # noqa: S101
        return self.min, self.max

    def allowed(self) -> str:
        """Return a description of the values that `contains` accepts, for a message."""
        if self.distribution is None:
            return f"one of {self.choices()}"
        low, high = self.bounds()
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{low:g} to {high:g}{step}"

    @staticmethod
    def _check_values(values: list[Any]) -> None:
        if not values:
            raise SettingError("values: an empty list leaves nothing to try", "values")
        known: set[tuple[bool, Hashable]] = set()
        for index, value in enumerate(values):
            if isinstance(value, list | dict):
                raise SettingError(f"values: {_shown(value)} is not a single value", "values", index)
            typed = (isinstance(value, bool), value)
            if typed in known:
                raise SettingError(f"values: {_shown(values)} has one value twice, {value!r}", "values", index)
            known.add(typed)

    def _check_range(self) -> None:
        if self.min is None or self.max is None:
            raise ValueError(f"{self.distribution} needs min and max")
        if self.min >= self.max:
            raise SettingError(f"min {self.min:g} is not below max {self.max:g}", "max")
        if self.is_log and self.min <= 0:
            raise SettingError(
                f"{self.distribution} needs min above 0, got {self.min:g} (values, not logarithms)",
                "min",
            )
        if self.is_log and self.step is not None:
            raise SettingError(f"{self.distribution} has no steps", "step")
        if self.is_int and any(bound is not None and bound != int(bound) for bound in (self.min, self.max, self.step)):
            raise ValueError(f"{self.distribution} needs whole numbers for min, max and step")

    def _check_step(self) -> None:
        """Raise if `max` is not a whole number of steps from `min`: the end of the range would never be tried."""
        if self.step is None:
            return
        low, high, step = *self.bounds(), self.step
        first, width = _exact(low), _exact(step)
        steps = (_exact(high) - first) / width
        if steps > MAX_STEPS:
            raise SettingError(f"step {step:g} makes {float(steps):.3g} steps; allowed: {MAX_STEPS:,}", "step")
        if steps == int(steps):
            return
        below, above = (float(first + int(steps + extra) * width) for extra in (0, 1))
        fitting = f"{above:.10g}" if int(steps) == 0 else f"{below:.10g} or {above:.10g}"
        raise SettingError(
            f"step {step:.10g} from min {low:.10g} does not reach max {high:.10g}; a max that fits: {fitting}", "step"
        )


Space = Mapping[str, Parameter]


def known_parameters(parameters: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the raw parameters that `TrialConfig` has, each without the conditions on others that it lacks."""
    known = {}
    for name, parameter in parameters.items():
        if name not in TrialConfig.model_fields:
            continue
        known[name] = parameter
        if isinstance(parameter, Mapping) and isinstance(parameter.get("when"), Mapping):
            when = {other: values for other, values in parameter["when"].items() if other in TrialConfig.model_fields}
            known[name] = {**parameter, "when": when}
    return known


def search_order(space: Space) -> list[str]:
    """Return the parameters' names, each after those that its `when` refers to.

    Raises:
        ValueError: a `when` names an unknown parameter or a value that it cannot have, or the conditions form a cycle.
    """
    for name, parameter in space.items():
        _check_when(space, name, parameter)
    order: list[str] = []
    while waiting := [name for name in space if name not in order]:
        ready = [name for name in waiting if not set(space[name].when) & set(waiting)]
        if not ready:
            raise ValueError(f"parameters: the when conditions of {', '.join(waiting)} form a cycle")
        order += ready
    return order


def is_active(space: Space, name: str, chosen: Mapping[str, Any]) -> bool:
    """Return whether parameter `name` is searched, given the `chosen` values of the parameters that it depends on."""
    return all(other in chosen and chosen[other] in _as_list(values) for other, values in space[name].when.items())


def grid_points(space: Space) -> list[dict[str, Any]]:
    """Return every combination of values once; a parameter whose `when` does not hold is left out of a combination."""
    order = search_order(space)
    points: list[dict[str, Any]] = []
    known: set[tuple[tuple[str, Any], ...]] = set()
    for combination in itertools.product(*(space[name].choices() for name in order)):
        point: dict[str, Any] = {}
        for name, value in zip(order, combination, strict=True):
            if is_active(space, name, point):
                point[name] = value
        if (items := tuple(point.items())) not in known:
            known.add(items)
            points.append(point)
    return points


def point_from_config(space: Space, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the point of the space that a configuration is at; None where one of its values is outside the space."""
    point: dict[str, Any] = {}
    for name in search_order(space):
        if is_active(space, name, point):
            if not space[name].contains(config[name]):
                return None
            point[name] = config[name]
    return point


def grid_size(space: Space) -> int:
    """Return the number of combinations of values, including those that a `when` excludes."""
    return math.prod(len(parameter.choices()) for parameter in space.values())


def check_start_points(space: Space, points: Sequence[Mapping[str, Any]]) -> None:
    """Raise unless the search could choose each of `points`, which may leave parameters open, and they all differ.

    Raises:
        SettingError: a parameter is unknown, outside its range or not searched at this point, or two points are equal;
            names the point and the parameter.
    """
    known: dict[str, int] = {}
    for number, point in enumerate(points, start=1):
        try:
            _check_point(space, point, f"start: point {number}")
        except SettingError as error:
            raise SettingError(str(error), "start", number - 1, *error.key) from None
        searched = {name: value for name, value in point.items() if not _is_fixed(space[name])}
        identity = repr(sorted(searched.items()))
        if identity in known:
            raise SettingError(f"start: point {number} is the same as point {known[identity]}", "start", number - 1)
        known[identity] = number


def check_conditions(space: Space) -> None:
    """Raise unless each `when` can hold.

    Raises:
        SettingError: a `when` names no value, or values of a continuous range, which a draw practically never equals.
    """
    for name, parameter in space.items():
        for other, values in parameter.when.items():
            path, key = f"parameters.{name}.when", ("parameters", name, "when", other)
            if values == []:
                raise SettingError(f"{path}: {other}: an empty list never holds; name its values", *key)
            dependency = space[other]
            if dependency.distribution and not dependency.is_int and dependency.step is None:
                raise SettingError(
                    f"{path}: {other} is a range, which is never exactly {_shown(values)}; give {other} values", *key
                )


def _is_fixed(parameter: Parameter) -> bool:
    return parameter.distribution is None and not parameter.when and len(parameter.choices()) == 1


def _check_point(space: Space, point: Mapping[str, Any], path: str) -> None:
    for name, value in point.items():
        if name not in space:
            raise SettingError(f"{path}: {name} is not among the parameters; {suggest(name, [*space])}", name)
        if not space[name].contains(value):
            raise SettingError(
                f"{path}: {name}: {value!r} is outside the space; allowed: {space[name].allowed()}"
                " (or leave the start points out: --set start=[])",
                name,
            )
        if not is_active(space, name, point):
            raise SettingError(
                f"{path}: {name} is searched only when {space[name].when}, which does not hold for this point", name
            )


def coerce_parameter(name: str, parameter: Any) -> Any:
    """Return the raw `parameter` with each value as `TrialConfig` would hold it (5e-4, not "5e-4"; 10, not 10.0).

    Raises:
        SettingError: `TrialConfig` has no such field, or does not allow one of the values.
    """
    key = ("parameters", name)
    if name not in TrialConfig.model_fields:
        raise SettingError(f"parameters: unknown parameter {name!r}; {spellings.suggest_setting(str(name))}", *key)
    if not isinstance(parameter, Mapping):
        form = f"{{values: {_shown(parameter)}}}" if isinstance(parameter, list) else f"{{value: {_shown(parameter)}}}"
        raise SettingError(f"parameters.{name}: a parameter is written as a mapping, such as {form}", *key)
    field_type = TrialConfig.model_fields[name].annotation
    parameter = spellings.normalize_parameter(name, parameter)
    if "distribution" in parameter and field_type not in {int, float}:
        problem = f"parameters.{name}: is not a number, so it has no distribution; give value or values"
        raise SettingError(problem, *key)
    typed = dict(parameter)
    if "value" in typed:
        typed["value"] = coerce_value(name, typed["value"], *key, "value")
    if isinstance(typed.get("values"), list):
        typed["values"] = [coerce_value(name, value, *key, "values", n) for n, value in enumerate(typed["values"])]
    for end in ("min", "max"):
        if typed.get(end) is not None:
            coerce_value(name, typed[end], *key, end)
    if field_type is int and typed.get("distribution") in ("uniform", "log_uniform"):
        typed["distribution"] = f"int_{typed['distribution']}"
    if isinstance(typed.get("when"), Mapping):
        typed["when"] = {other: _coerce_when(other, values, *key, "when") for other, values in typed["when"].items()}
    return typed


def coerce_value(name: Any, value: Any, *key: Hashable) -> Any:
    """Return `value` as `TrialConfig` would hold it; unchanged where it has no field `name`.

    Raises:
        SettingError: `TrialConfig` does not allow the value at `key`.
    """
    if name not in TrialConfig.model_fields:
        return value
    try:
        return getattr(TrialConfig.model_validate({name: value}), name)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Input ").removeprefix("Value error, ")
        raise SettingError(f"parameters.{name}: {_shown(value)} {message}", *key) from None


def _coerce_when(other: Any, values: Any, *key: Hashable) -> Any:
    if isinstance(values, list):
        return [coerce_value(other, value, *key, other, index) for index, value in enumerate(values)]
    return coerce_value(other, values, *key, other)


def _check_when(space: Space, name: str, parameter: Parameter) -> None:
    for other, values in parameter.when.items():
        path = f"parameters.{name}.when"
        key = ("parameters", name, "when", other)
        if other not in space:
            raise SettingError(f"{path}: no parameter {other!r}; {suggest(other, [*space])}", *key)
        for value in _as_list(values):
            if not space[other].contains(value):
                raise SettingError(f"{path}: {other} is never {_shown(value)}; allowed: {space[other].allowed()}", *key)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _exact(number: float) -> Fraction:
    """Return the exact value of the number's decimal digits: 5/100 for 0.05, which no float equals."""
    return Fraction(repr(float(number)))


def _shown(value: Any) -> str:
    return truncate(repr(value), 80)
