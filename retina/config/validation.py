"""The base class of all configuration models, and the messages for values that are not allowed."""

from __future__ import annotations

import difflib
import hashlib
import json
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator

from retina.errors import SpecError
from retina.system.printable import truncate

ModelT = TypeVar("ModelT", bound=BaseModel)
Origin = str | Callable[[tuple[Hashable, ...]], str]
"""The origin of values for a message: a file, for example, or a function from a value's key to its origin."""


RECORDED = {"is_recorded": True}
"""The validation context of a results folder's sweep.yaml, which an earlier version may have written."""


def is_recorded(info: ValidationInfo) -> bool:
    """Return whether a validator checks a results folder's sweep.yaml: what a sweep did, not what one is to do."""
    return bool(info.context and info.context.get("is_recorded"))


class SettingError(ValueError):
    """A value that a validator refuses; the message names its key.

    Attributes:
        key: the keys that lead to the value, from the model that is validated.
    """

    def __init__(self, message: str, *key: Hashable) -> None:
        super().__init__(message)
        self.key = key


class Frozen(BaseModel):
    """A value object: unknown keys are refused, and nothing can be changed after validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _ignore_unknown_recorded_keys(cls, values: Any, info: ValidationInfo) -> Any:
        if is_recorded(info) and isinstance(values, Mapping):
            return {key: value for key, value in values.items() if key in cls.model_fields}
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python and pydantic accept True for 1, and YAML reads "yes" and "on" as true
        if isinstance(value, bool) and _is_number(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("should be a number")
        return value

    def stable_hash(self) -> str:
        """Return twelve hex digits over every field's value; equal values have equal hashes on any machine."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def parse(model: type[ModelT], values: Any, origin: Origin, context: dict[str, Any] | None = None) -> ModelT:
    """Validate `values` against `model`.

    Args:
        model: the model.
        values: the raw values.
        origin: the origin of the values, for a message.
        context: the validators' context.

    Raises:
        SpecError: the values are not allowed; in at most three lines, naming the origin, the key, the value and what is
            allowed.
    """
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        raise SpecError(_explain(error, model, origin)) from None
    except RecursionError:
        raise SpecError(f"{_origin_of(origin, ())}: is nested too deeply") from None


def suggest(word: str, known: list[str]) -> str:
    """Return a hint to a user who wrote `word`: the most similar of the `known` words if there is one, else all."""
    similar = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {similar[0]!r}?" if similar else f"known: {', '.join(known)}"


def _origin_of(origin: Origin, key: tuple[Hashable, ...]) -> str:
    return origin if isinstance(origin, str) else origin(key)


def _explain(error: ValidationError, model: type[BaseModel], origin: Origin) -> str:
    problems = error.errors(include_url=False)
    lines = [_explain_problem(problem, model, origin) for problem in problems[:2]]
    if len(problems) > 2:
        lines.append(f"{_origin_of(origin, ())}: and {len(problems) - 2} more")
    return "\n".join(lines)


def _explain_problem(problem: Any, model: type[BaseModel], origin: Origin) -> str:
    cause = problem.get("ctx", {}).get("error")
    location = (*problem["loc"], *(cause.key if isinstance(cause, SettingError) else ()))
    where = _origin_of(origin, location)
    path = [truncate(str(part) if str(part).isprintable() else repr(part), 80) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}; {suggest(path[-1], _known_keys(model, path[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: {key}: is required"
    value = problem["input"]
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "model_type":
        message = "should hold keys and their values"
    elif problem["type"] == "string_type" and not isinstance(value, dict | list):
        message = "should be text; write text that looks like something else in quotes"
    elif problem["type"] in {"invalid_key", "string_type"} and path and path[-1] == "[key]":
        message = "a key should be a word"
    shown = "" if isinstance(value, dict | BaseModel) else truncate(repr(value), 80)
    return ": ".join(part for part in (where, key, shown, message) if part)


def _is_number(annotation: Any) -> bool:
    """Return whether a field's type is a number, or a number or None."""
    is_union = get_origin(annotation) in {Union, types.UnionType}
    members = set(get_args(annotation)) if is_union else {annotation}
    return bool(members & {int, float}) and members <= {int, float, type(None)}


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        nested = field.annotation if field else None
        if not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            return list(model.model_fields)
        model = nested
    return [field.alias or name for name, field in model.model_fields.items()]
