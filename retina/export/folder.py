"""What an exported folder holds, and the reading of one.

model.safetensors   the weights; nothing in it can run when it is read
config.json         settings, architecture, names of the grades, who made it
preprocess.json     what is done to a photograph before the model sees it
metrics.json        how good it was on validation and test
README.txt          how to use it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import Field
from torch import nn

import retina
from retina import model, results
from retina.config import Frozen, TrialConfig, parse
from retina.data.fundus import PREPROCESSING
from retina.errors import ResultsError, SpecError

WEIGHTS, CONFIG, PREPROCESS, METRICS, README = FILES = (
    "model.safetensors",
    "config.json",
    "preprocess.json",
    "metrics.json",
    "README.txt",
)
Three = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
F = TypeVar("F", bound=Frozen)


class Preprocess(Frozen):
    """preprocess.json: what is done to a photograph, in this order."""

    channels: Literal["RGB"]
    crop: Literal["fundus disc"]
    crop_version: str = Field(description="of retina.data.fundus")
    image_size: int = Field(ge=16, le=2048, description="side of the square in pixels")
    scale: Literal["0 to 1"]
    mean: Three
    std: tuple[Positive, Positive, Positive]


class Description(Frozen):
    """config.json: the model and where it comes from."""

    export: Literal[1] = Field(description="version of this layout")
    retina: str = Field(description="version that wrote it")
    sweep: str
    trial_id: str
    trial: TrialConfig
    architecture: dict[str, Any] = Field(description="for those who build the network without this package")
    grades: tuple[str, str, str, str, str]
    data_fingerprint: str


@dataclass(frozen=True)
class Exported:
    """An exported model: `model`, on the CPU and in evaluation mode, turns float (B, 3, S, S) into (B, 5) logits."""

    model: nn.Module
    preprocess: Preprocess
    description: Description

    @property
    def grades(self) -> tuple[str, ...]:
        """The names of the five grades."""
        return self.description.grades


def load(folder: Path) -> Exported:
    """The model in an exported folder.

    Raises:
        ResultsError: `folder` is none, a file in it is missing or damaged (named), or its photographs were cropped by
            another version of the preprocessing than this one.
    """
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ResultsError(_no_export(folder))
    description = _parse(Description, folder / CONFIG)
    preprocess = _parse(Preprocess, folder / PREPROCESS)
    if preprocess.crop_version != PREPROCESSING:
        raise ResultsError(
            f"{folder / PREPROCESS}: crop_version is {preprocess.crop_version!r}, this retina ({retina.__version__}) "
            f"has {PREPROCESSING!r}; use the one that wrote it, {description.retina}"
        )
    weights = _read_weights(folder / WEIGHTS)
    grader = build(description.trial, preprocess.image_size, weights, folder / WEIGHTS)
    return Exported(grader, preprocess, description)


def build(trial: TrialConfig, image_size: int, weights: dict[str, torch.Tensor], file: Path) -> nn.Module:
    """A model with these weights, in evaluation mode.

    Raises:
        ResultsError: the weights, which come from `file`, do not fit `trial` or are not finite.
    """
    with torch.device("meta"):  # no time and no random numbers for weights that are replaced at once
        grader = model.build(trial.model_copy(update={"pretrained": False}), image_size)
    try:
        grader.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise ResultsError(f"{file}: does not fit {trial.arch} as config.json has it: {problem}") from None
    broken = [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ResultsError(f"{file}: {broken[0]} is not finite; this model grades nothing")
    return grader.eval()


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise ResultsError(f"{file}: cannot be read as weights: {first_line(error)}") from None


def _parse(kind: type[F], file: Path) -> F:
    try:
        return parse(kind, results.read_json(file), str(file))
    except SpecError as error:
        raise ResultsError(str(error)) from None


def _no_export(folder: Path) -> str:
    run = folder.parent if folder.name == "best" else folder
    if (run / "sweep.yaml").is_file():
        return f"{folder}: is not an exported model; run first: retina export {run}"
    missing = WEIGHTS if (folder / CONFIG).is_file() else CONFIG
    why = f"it has no {missing}" if folder.is_dir() else "there is no such folder"
    return f"{folder}: is not an exported model, {why}; retina export RUN writes one"


def first_line(error: Exception) -> str:
    """What an error says, short enough for a message of our own."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
