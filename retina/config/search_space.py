"""What a sweep searches: parameters with their values or ranges, and the conditions between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from retina.config import spellings
from retina.config.trial import TrialConfig
from retina.config.validation import Frozen, SettingError, is_recorded, nearest
from retina.system.printable import cut

MAX_GRID = 10_000
"""Points of a grid at most; ten parameters of ten values would be 10^10."""

MAX_STEPS = 10**9
"""Of a range; with more of them a step means nothing, and Optuna's arithmetic ends somewhere beyond."""


class Parameter(Frozen):
    """One searched setting: a `value`, several `values`, or a `distribution` from `min` to `max`.

    `ordered` values are searched as an ordinal scale in the order in which they are written. A `step` divides its
    range: both ends can come up. `when` names settings of other parameters under which this one is searched at all.
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
    def _one_shape(self, info: ValidationInfo) -> Self:
        shapes = [shape for shape in ("value", "values", "distribution") if shape in self.model_fields_set]
        if len(shapes) != 1:
            has = ", ".join(shapes) or "none of them"
            if not shapes and {"min", "max"} & self.model_fields_set:
                has += "; min and max go with distribution: uniform, log_uniform, int_uniform or int_log_uniform"
            raise ValueError(f"needs one of value, values, distribution; has {has}")
        if shapes != ["value"] and getattr(self, shapes[0]) is None:
            raise SettingError(f"{shapes[0]}: is empty; a parameter needs value, values or distribution", shapes[0])
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
        """Whether a range gives whole numbers only."""
        return self.distribution is not None and self.distribution.startswith("int_")

    @property
    def is_log(self) -> bool:
        """Whether a range is searched by orders of magnitude."""
        return self.distribution is not None and "log" in self.distribution

    def choices(self) -> list[Any]:
        """All possible values of a parameter that is no range, in the order in which they are written.

        Raises:
            ValueError: for a range, which has no list of values.
        """
        if self.distribution is not None:
            raise ValueError("a range has no list of values")
        return [self.value] if self.values is None else list(self.values)

    def admits(self, value: Any) -> bool:
        """Whether the search could come to `value`."""
        if self.distribution is None:
            return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.choices())
        low, high = self.bounds()
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            return False
        if self.step is None:
            return not self.is_int or value == int(value)
        return math.isclose(value, self.on_step(value), rel_tol=1e-9, abs_tol=1e-9 * self.step)

    def on_step(self, value: float) -> float:
        """Return the decimal number nearest to `value` that a whole number of steps reaches: 0.85, not 0.8500000001."""
        if self.step is None:
            return value
        low, step = _exact(self.bounds()[0]), _exact(self.step)
        return float(low + round((_exact(value) - low) / step) * step)

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
            raise SettingError("values: an empty list leaves nothing to try", "values")
        seen: set[tuple[bool, Hashable]] = set()
        for place, value in enumerate(values):
            if isinstance(value, list | dict):
                raise SettingError(f"values: {_shown(value)} is no single value", "values", place)
            told = (isinstance(value, bool), value)
            if told in seen:
                raise SettingError(f"values: {_shown(values)} has one value twice, {value!r}", "values", place)
            seen.add(told)

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
        if self.is_int and any(part is not None and part != int(part) for part in (self.min, self.max, self.step)):
            raise ValueError(f"{self.distribution} needs whole numbers for min, max and step")

    def _check_step(self) -> None:
        """Refuse a step that does not come to `max`: the end of the range would never be tried."""
        if self.step is None:
            return
        low, high, step = *self.bounds(), self.step
        first, width = _exact(low), _exact(step)
        steps = (_exact(high) - first) / width
        if steps > MAX_STEPS:
            raise SettingError(f"step {step:g} makes {float(steps):.3g} steps; allowed: {MAX_STEPS:,}", "step")
        if steps == int(steps):
            return
        below, above = (float(first + int(steps + more) * width) for more in (0, 1))
        fitting = f"{above:.10g}" if int(steps) == 0 else f"{below:.10g} or {above:.10g}"
        raise SettingError(
            f"step {step:.10g} from min {low:.10g} does not come to max {high:.10g}; a max that fits: {fitting}", "step"
        )


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
    known: set[tuple[tuple[str, Any], ...]] = set()
    for combination in itertools.product(*(space[name].choices() for name in order)):
        point: dict[str, Any] = {}
        for name, value in zip(order, combination, strict=True):
            if active(space, name, point):
                point[name] = value
        if (told := tuple(point.items())) not in known:
            known.add(told)
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


def size_of_grid(space: Space) -> int:
    """Return how many combinations of values there are, those that a `when` rules out included."""
    return math.prod(len(parameter.choices()) for parameter in space.values())


def check_starts(space: Space, points: Sequence[Mapping[str, Any]]) -> None:
    """See that the search could come to each of `points`, which may leave parameters open, and none is there twice.

    Raises:
        SettingError: naming the point and the parameter that is unknown, outside its range, or not searched there.
    """
    seen: dict[str, int] = {}
    for number, point in enumerate(points, start=1):
        try:
            _check_point(space, point, f"start: point {number}")
        except SettingError as error:
            raise SettingError(str(error), "start", number - 1, *error.key) from None
        open_to_choice = {name: value for name, value in point.items() if not _is_fixed(space[name])}
        told = repr(sorted(open_to_choice.items()))
        if told in seen:
            raise SettingError(f"start: point {number} is the same as point {seen[told]}", "start", number - 1)
        seen[told] = number


def check_conditions(space: Space) -> None:
    """See that each `when` can hold.

    Raises:
        SettingError: it names no value, or values of a range, which a draw from it practically never equals.
    """
    for name, parameter in space.items():
        for other, wanted in parameter.when.items():
            where, key = f"parameters.{name}.when", ("parameters", name, "when", other)
            if wanted == []:
                raise SettingError(f"{where}: {other}: an empty list never holds; name its values", *key)
            asked = space[other]
            if asked.distribution and not asked.is_int and asked.step is None:
                raise SettingError(
                    f"{where}: {other} is a range, which is never exactly {_shown(wanted)}; give {other} values", *key
                )


def _is_fixed(parameter: Parameter) -> bool:
    return parameter.distribution is None and not parameter.when and len(parameter.choices()) == 1


def _check_point(space: Space, point: Mapping[str, Any], where: str) -> None:
    for name, value in point.items():
        if name not in space:
            raise SettingError(f"{where}: {name} is not among the parameters; {nearest(name, [*space])}", name)
        if not space[name].admits(value):
            raise SettingError(
                f"{where}: {name}: {value!r} is outside the space; allowed: {space[name].allowed()}"
                " (or leave the start points out: --set start=[])",
                name,
            )
        if not active(space, name, point):
            raise SettingError(
                f"{where}: {name} is searched only when {space[name].when}, which does not hold there", name
            )


def typed_parameter(name: str, parameter: Any) -> Any:
    """The raw `parameter` with each value as `TrialConfig` would hold it (5e-4, not "5e-4"; 10, not 10.0).

    Raises:
        SettingError: `TrialConfig` has no such field, or it does not allow one of the values.
    """
    where = ("parameters", name)
    if name not in TrialConfig.model_fields:
        raise SettingError(f"parameters: unknown parameter {name!r}; {spellings.nearest_setting(str(name))}", *where)
    if not isinstance(parameter, Mapping):
        shape = f"{{values: {_shown(parameter)}}}" if isinstance(parameter, list) else f"{{value: {_shown(parameter)}}}"
        raise SettingError(f"parameters.{name}: a parameter needs a shape, such as {shape}", *where)
    kind = TrialConfig.model_fields[name].annotation
    parameter = spellings.parameter(name, parameter)
    if "distribution" in parameter and kind not in {int, float}:
        raise SettingError(f"parameters.{name}: is no number, so it has no distribution; give value or values", *where)
    typed = dict(parameter)
    if "value" in typed:
        typed["value"] = typed_value(name, typed["value"], *where, "value")
    if isinstance(typed.get("values"), list):
        typed["values"] = [typed_value(name, one, *where, "values", n) for n, one in enumerate(typed["values"])]
    for end in ("min", "max"):
        if typed.get(end) is not None:
            typed_value(name, typed[end], *where, end)
    if kind is int and typed.get("distribution") in ("uniform", "log_uniform"):
        typed["distribution"] = f"int_{typed['distribution']}"
    if isinstance(typed.get("when"), Mapping):
        typed["when"] = {other: _typed_when(other, wanted, *where, "when") for other, wanted in typed["when"].items()}
    return typed


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


def typed_value(name: Any, value: Any, *where: Hashable) -> Any:
    """`value` as `TrialConfig` would hold it; unchanged where it has no such field.

    Raises:
        SettingError: `TrialConfig` does not allow the value, which stands at `where`.
    """
    if name not in TrialConfig.model_fields:
        return value
    try:
        return getattr(TrialConfig.model_validate({name: value}), name)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Input ").removeprefix("Value error, ")
        raise SettingError(f"parameters.{name}: {_shown(value)} {message}", *where) from None


def _typed_when(other: Any, wanted: Any, *where: Hashable) -> Any:
    if isinstance(wanted, list):
        return [typed_value(other, one, *where, other, place) for place, one in enumerate(wanted)]
    return typed_value(other, wanted, *where, other)


def _check_when(space: Space, name: str, parameter: Parameter) -> None:
    for other, wanted in parameter.when.items():
        where = f"parameters.{name}.when"
        key = ("parameters", name, "when", other)
        if other not in space:
            raise SettingError(f"{where}: no parameter {other!r}; {nearest(other, [*space])}", *key)
        for value in _as_list(wanted):
            if not space[other].admits(value):
                raise SettingError(
                    f"{where}: {other} is never {_shown(value)}; allowed: {space[other].allowed()}", *key
                )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _exact(number: float) -> Fraction:
    """Return the number as its decimal digits say, 5/100 for 0.05, which no float is."""
    return Fraction(repr(float(number)))


def _shown(value: Any) -> str:
    return cut(repr(value), 80)
