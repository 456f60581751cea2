"""The base of all configuration models, and how a value that is not allowed is explained."""

from __future__ import annotations

import difflib
import hashlib
import json
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator

from retina.errors import SpecError
from retina.system.printable import cut

M = TypeVar("M", bound=BaseModel)
Where = str | Callable[[tuple[Hashable, ...]], str]


RECORDED = {"is_recorded": True}
"""The validation context of a results folder's sweep.yaml, which an earlier version may have written."""


def is_recorded(info: ValidationInfo) -> bool:
    """Return whether a validator checks a results folder's sweep.yaml: what a sweep did, not what one is to do."""
    return bool(info.context and info.context.get("is_recorded"))


class SettingError(ValueError):
    """A value that a validator refuses; the message names its key.

    Attributes:
        key: the keys, from the model that is validated, that lead to it.
    """

    def __init__(self, message: str, *key: Hashable) -> None:
        super().__init__(message)
        self.key = key


class Frozen(BaseModel):
    """An immutable value object. Unknown keys are refused; in the context `RECORDED` they are ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _ignore_unknown_recorded_keys(cls, values: Any, info: ValidationInfo) -> Any:
        if is_recorded(info) and isinstance(values, Mapping):
            return {key: value for key, value in values.items() if key in cls.model_fields}
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python and pydantic take true for 1, and YAML takes "yes" and "on" for true
        if isinstance(value, bool) and _is_number(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("should be a number")
        return value

    def stable_hash(self) -> str:
        """Twelve hex digits over every field's value; equal for equal values on any machine and in any session."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def parse(model: type[M], values: Any, where: Where, context: dict[str, Any] | None = None) -> M:
    """Check `values` against `model`.

    Args:
        model: the model.
        values: the raw values.
        where: a file, say; or names, for a message, where the value of a key came from.
        context: for the validators.

    Raises:
        SpecError: in at most three lines, naming `where`, the key, the value and what is allowed.
    """
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        raise SpecError(_explain(error, model, where)) from None
    except RecursionError:
        raise SpecError(f"{where if isinstance(where, str) else where(())}: is nested too deeply") from None


def nearest(word: str, known: list[str]) -> str:
    """`known` as a hint for somebody who wrote `word`: the nearest one if there is one, else all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _explain(error: ValidationError, model: type[BaseModel], where: Where) -> str:
    problems = error.errors(include_url=False)
    lines = [_explain_one(problem, model, where) for problem in problems[:2]]
    if len(problems) > 2:
        lines.append(f"{where if isinstance(where, str) else where(())}: and {len(problems) - 2} more")
    return "\n".join(lines)


def _explain_one(problem: Any, model: type[BaseModel], where: Where) -> str:
    cause = problem.get("ctx", {}).get("error")
    location = (*problem["loc"], *(cause.key if isinstance(cause, SettingError) else ()))
    place = where if isinstance(where, str) else where(location)
    path = [cut(str(part) if str(part).isprintable() else repr(part), 80) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown key {key!r}; {nearest(path[-1], _known_keys(model, path[:-1]))}"
    if problem["type"] == "missing":
        return f"{place}: {key}: is required"
    given = problem["input"]
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "model_type":
        message = "should hold keys and their values"
    elif problem["type"] == "string_type" and not isinstance(given, dict | list):
        message = "should be text; a text that looks like something else is written in quotes"
    elif problem["type"] in {"invalid_key", "string_type"} and path and path[-1] == "[key]":
        message = "a key should be a word"
    shown = "" if isinstance(given, dict | BaseModel) else cut(repr(given), 80)
    return ": ".join(part for part in (place, key, shown, message) if part)


def _is_number(annotation: Any) -> bool:
    """Return whether a field is a number, or a number or None."""
    is_union = get_origin(annotation) in {Union, types.UnionType}
    kinds = set(get_args(annotation)) if is_union else {annotation}
    return bool(kinds & {int, float}) and kinds <= {int, float, type(None)}


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return list(model.model_fields)
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]
