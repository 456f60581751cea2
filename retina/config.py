"""Validated, frozen descriptions of one training run (`TrialConfig`) and of its photographs (`DataConfig`)."""

from __future__ import annotations

import difflib
import hashlib
import json
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from retina.errors import SpecError
from retina.printable import cut

GRADES = 5
GRADE_NAMES = ("none", "mild", "moderate", "severe", "proliferative")
"""The five grades of the International Clinical Diabetic Retinopathy scale (Wilkinson et al. 2003), 0 to 4."""

UNGRADABLE = "ungradable"
"""What `DataConfig.grade_mapping` calls a label that says that nobody could grade the photograph."""

M = TypeVar("M", bound=BaseModel)
Where = str | Callable[[tuple[Hashable, ...]], str]


class SettingError(ValueError):
    """A value that a validator refuses; the message names its key.

    Attributes:
        key: the keys, from the model that is validated, that lead to it.
    """

    def __init__(self, message: str, *key: Hashable) -> None:
        super().__init__(message)
        self.key = key


class Frozen(BaseModel):
    """A value object: unknown keys are refused, nothing can be changed after it was checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

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


class SyntheticConfig(Frozen):
    """Which photographs `path: synthetic` draws."""

    photographs: int = Field(600, ge=20, description="how many to draw, two eyes a patient")
    size: int = Field(512, ge=64, le=4096, description="height of a photograph in pixels")
    proportions: Literal["eyepacs", "balanced"] = "eyepacs"
    seed: int = Field(0, ge=0)


class DataConfig(Frozen):
    """Where the photographs are, how they are split and how large the model sees them."""

    path: str = "synthetic"
    layout: Literal["auto", "course", "eyepacs", "aptos", "idrid", "list", "medmnist", "folders", "synthetic"] = "auto"
    image_folder: str | None = Field(None, min_length=1, description="the only folder below `path` that is looked at")
    image_column: str | None = Field(None, min_length=1, description="of the label file, where it is not found")
    grade_column: str | None = Field(None, min_length=1, description="likewise")
    patient_column: str | None = Field(None, min_length=1, description="likewise")
    eye_column: str | None = Field(None, min_length=1, description="likewise")
    grade_mapping: dict[str, int | Literal["ungradable"]] = Field(
        default_factory=dict, description="what a label stands for, a grade 0 to 4 or ungradable; before anything else"
    )
    image_size: int = Field(224, ge=16, le=2048, description="side of the square that the model sees, in pixels")
    split: Literal["official", "by_patient"] = "official"
    validation: float = Field(0.15, gt=0, lt=1, description="share of the training patients, where none is given")
    test: float = Field(0.15, gt=0, lt=1, description="share of all patients, where no test split is given")
    seed: int = Field(0, ge=0, description="of the split; apart from the sweep's seed, so that sweeps stay comparable")
    on_bad: Literal["stop", "skip"] = "stop"
    join_duplicates: Literal["same", "near", "none"] = Field(
        "same", description="which photographs count as one patient's when a split is made; see data/duplicates.py"
    )
    synthetic: SyntheticConfig = SyntheticConfig()

    @field_validator("path")
    @classmethod
    def _can_be_a_path(cls, path: str) -> str:
        # Field(min_length=1) would also refuse names that are not UTF-8, which the readers explain
        if not path:
            raise ValueError("should have at least 1 character")
        if "\0" in path:
            raise ValueError("should hold no NUL")
        return path

    @field_validator("grade_mapping", mode="before")
    @classmethod
    def _labels_are_text_and_grades_are_grades(cls, mapping: Any) -> Any:
        if not isinstance(mapping, Mapping):
            raise ValueError("should be labels and their grades, such as {5: ungradable}")  # noqa: TRY004
        for label, grade in mapping.items():
            if isinstance(label, bool) or label is None:
                raise ValueError(f"YAML reads a bare yes, no, on, off or null as {label}; write the label in quotes")
            if grade != UNGRADABLE and (type(grade) is not int or grade not in range(GRADES)):
                raise ValueError(f"{label}: {grade!r} is no grade; allowed: 0 to {GRADES - 1}, {UNGRADABLE}")
        grades = {str(label): grade for label, grade in mapping.items()}
        if len(grades) < len(mapping):  # YAML's 5 and "5" are two keys, and one label
            twice = next(label for label in grades if sum(str(one) == label for one in mapping) > 1)
            raise ValueError(f"{twice}: this label stands there twice")
        return grades

    @model_validator(mode="after")
    def _something_left_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test is {self.validation + self.test:g}; they must leave photographs to train on"
            )
        return self


class TrialConfig(Frozen):
    """One training run. Every field can be searched; the defaults are the settings of the report we start from."""

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet18"
    pretrained: bool = True
    head_layers: Literal[2, 3] = 2
    dropout: float = Field(0.25, ge=0, lt=1)
    batch_size: int = Field(12, ge=1)
    epochs: int = Field(10, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd; adam and adamw do not use it")
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    loss: Literal["cross_entropy", "emd", "corn", "mse", "huber"] = Field("cross_entropy", description="see ordinal.py")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of cross_entropy; the others do not use it")
    class_weights: Literal["none", "balanced"] = "none"
    augmentation: Literal["none", "flip", "rotate", "full"] = "flip"
    mix: Literal["none", "mixup", "cutmix"] = Field("none", description="of photographs and grades within a batch")
    mix_alpha: float = Field(0.2, gt=0, description="of mix: shares are drawn from Beta(alpha, alpha)")
    freeze_epochs: int = Field(0, ge=0, description="first epochs in which only the head learns")
    backbone_rate: float = Field(1.0, gt=0, description="the backbone's learning rate, as a multiple of the head's")
    ema: float = Field(0.0, ge=0, lt=1, description="decay a step of the weights' moving average; 0: none is kept")
    flips: bool = Field(False, description="judge a photograph as the mean of itself and its three mirror images")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = Field(0, ge=0, lt=2**32)


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
