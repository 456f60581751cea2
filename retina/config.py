"""Validated, frozen descriptions of one training run (`TrialConfig`) and of its photographs (`DataConfig`)."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from retina.errors import SpecError

GRADES = 5
GRADE_NAMES = ("none", "mild", "moderate", "severe", "proliferative")
"""The five grades of the International Clinical Diabetic Retinopathy scale (Wilkinson et al. 2003), 0 to 4."""

M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """A value object: unknown keys are refused, nothing can be changed after it was checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python and pydantic take true for 1, and YAML takes "yes" and "on" for true
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in {int, float}:
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
    layout: Literal["auto", "course", "eyepacs", "aptos", "idrid", "medmnist", "folders", "synthetic"] = "auto"
    image_size: int = Field(224, ge=16, le=2048, description="side of the square that the model sees, in pixels")
    split: Literal["official", "by_patient"] = "official"
    validation: float = Field(0.15, gt=0, lt=1, description="share of the training patients, where none is given")
    test: float = Field(0.15, gt=0, lt=1, description="share of all patients, where no test split is given")
    seed: int = Field(0, ge=0, description="of the split; apart from the sweep's seed, so that sweeps stay comparable")
    on_bad: Literal["stop", "skip"] = "stop"
    synthetic: SyntheticConfig = SyntheticConfig()

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


def parse(model: type[M], values: Any, where: str) -> M:
    """Check `values` against `model`.

    Raises:
        SpecError: in at most three lines, naming `where` (a file, say), the key, the value and what is allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SpecError(_explain(error, model, where)) from None


def nearest(word: str, known: list[str]) -> str:
    """`known` as a hint for somebody who wrote `word`: the nearest one if there is one, else all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    problems = error.errors(include_url=False)
    lines = []
    for problem in problems[:2]:
        path = [str(part) for part in problem["loc"]]
        key = ".".join(path)
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key {key!r}; {nearest(path[-1], _known_keys(model, path[:-1]))}")
        elif problem["type"] == "missing":
            lines.append(f"{where}: {key}: is required")
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            if problem["type"] == "model_type":
                message = "should hold keys and their values"
            given = "" if isinstance(problem["input"], dict | BaseModel) else _shortened(repr(problem["input"]))
            lines.append(": ".join(part for part in (where, key, given, message) if part))
    if len(problems) > 2:
        lines.append(f"{where}: and {len(problems) - 2} more")
    return "\n".join(lines)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return list(model.model_fields)
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]
