"""What an exported folder holds, and the reading of all of it but the weights. Knows no torch.

model.onnx          the model for onnxruntime: normalised pixels to probabilities and grade
model.pt2           the same for torch.export.load
model.safetensors   the weights alone; nothing in it can run when it is read
config.json         settings, architecture, temperature, cut-points, operating point, names of the grades, who made it
preprocess.json     what is done to a photograph before the model sees it
metrics.json        how good it was on validation and test
MODEL_CARD.md       all of that for people: what it is for, and what it is not for
SHA256SUMS          of all of these, as sha256sum writes it; each file is verified before it is used
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

import retina
from retina.config import GRADE_NAMES, Frozen, TrialConfig, parse
from retina.data.fundus import PREPROCESSING, SAME_PIXELS
from retina.errors import ResultsError, SpecError
from retina.metrics.operating_point import OperatingPoint
from retina.metrics.probabilities import MAX_TEMPERATURE, MIN_TEMPERATURE
from retina.results import checksums, files
from retina.results.checksums import SUMS

ONNX, PROGRAM, WEIGHTS, CONFIG, PREPROCESS, METRICS, CARD = LISTED = (
    "model.onnx",
    "model.pt2",
    "model.safetensors",
    "config.json",
    "preprocess.json",
    "metrics.json",
    "MODEL_CARD.md",
)
FILES = (*LISTED, SUMS)
OF_EARLIER_LAYOUTS = ("README.txt",)
LAYOUT = 3
"""Version of what the folder holds. 1 had neither graphs nor card, no temperature and no operating point. 2 had no
SHA256SUMS, and graphs that give an output that is not finite a grade, where 3 has -1."""
WITH_SUMS = 3
"""The first layout that has SHA256SUMS."""
REMEDY = (
    "export the run again (retina export RUN); "
    f"if it was changed on purpose, run in that folder: sha256sum *.* > {SUMS}"
)
IMAGES, PROBABILITIES_OUTPUT, GRADE, REFERABLE_SCORE = "images", "probabilities", "grade", "referable_score"
"""Names of the graphs' input, float32 (B, 3, S, S), and outputs, float32 (B, 5), int64 (B,) and float32 (B,)."""

Share = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(ge=0.01, le=1)]
"""Of values from 0 to 1, whose deviation is at most 0.5; 1 leaves them as they are. Below 0.01 inputs overflow."""
Temperature = Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]
"""What `retina.metrics.calibration.fit_temperature` can find."""
F = TypeVar("F", bound=Frozen)


class Preprocess(Frozen):
    """preprocess.json: what is done to a photograph, in this order."""

    channels: Literal["RGB"]
    crop: Literal["fundus disc"]
    crop_version: str = Field(description="of retina.data.fundus")
    image_size: int = Field(ge=16, le=2048, description="side of the square in pixels")
    scale: Literal["0 to 1"]
    mean: tuple[Share, Share, Share]
    std: tuple[Deviation, Deviation, Deviation]
    graph_input: dict[str, Any] = Field(default_factory=dict, description="name, dtype and shape; for other programs")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        shape = ["batch", 3, self.image_size, self.image_size]
        if self.graph_input and self.graph_input.get("shape") != shape:
            raise ValueError(f"graph_input.shape is {self.graph_input.get('shape')}, image_size asks for {shape}")
        return self

    def normalised(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Squares uint8 (B, S, S, 3) as the graphs take them, float32 (B, 3, S, S); the arithmetic of training."""
        images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
        mean, std = (np.array(three, np.float32).reshape(1, 3, 1, 1) for three in (self.mean, self.std))
        return (images - mean) / std


class Calibration(Frozen):
    """What of metrics.json the model itself needs; an earlier version knew neither."""

    temperature: Temperature = 1.0
    operating_point: OperatingPoint | None = None


class CutPoints(Frozen):
    """How the graphs turn the network's score into grades: P(worse than k) = sigmoid((score - cut k) / spread)."""

    cuts: tuple[float, float, float, float]
    spread: float = Field(ge=1e-3, le=100, description="is fitted between 0.02 and 4")

    @field_validator("cuts")
    @classmethod
    def _ascending(cls, cuts: tuple[float, ...]) -> tuple[float, ...]:
        if list(cuts) != sorted(cuts):
            raise ValueError("should ascend")
        return cuts


class Check(Frozen):
    """How the graphs were compared with torch when they were written."""

    photographs: int = Field(ge=1)
    origin: str = Field(description="where these photographs are from")
    onnx_difference: float = Field(ge=0, description="largest absolute difference of a probability, by onnxruntime")
    pt2_difference: float = Field(ge=0, description="and by torch.export.load")
    other_grades: int = Field(ge=0, description="photographs to which one of the graphs gives another grade")
    versions: dict[str, str]
    recorded: int = Field(0, ge=0, description="of the photographs, those in best/predictions.csv")
    recorded_difference: float | None = Field(
        None, description="and largest difference of torch's to what stands there"
    )
    verified: bool = Field(False, description="whether the run's files were compared with their SHA256SUMS")

    @property
    def in_words(self) -> str:
        """For a terminal and the model card."""
        onnx, pt2 = (f"{difference:.1e}" for difference in (self.onnx_difference, self.pt2_difference))
        return (
            f"{self.photographs} photographs {self.origin}: probabilities differ from torch's by at most {onnx} "
            f"({ONNX}, onnxruntime {self.versions.get('onnxruntime')}) and {pt2} ({PROGRAM}, torch "
            f"{self.versions.get('torch')}); {self.other_grades} of them get another grade; {self._of_the_run}"
        )

    @property
    def _of_the_run(self) -> str:
        files = "the run's files are as they were written" if self.verified else "the run's files have no checksums"
        if self.recorded_difference is None:
            return f"{files}; none of the photographs is in its predictions.csv"
        apart = f"{self.recorded_difference:.1e}"
        return f"{files}; torch differs by at most {apart} from its predictions.csv, on {self.recorded} photographs"


class Description(Frozen):
    """config.json: the model and where it comes from."""

    export: Literal[1, 2, 3] = Field(description="version of this layout")
    retina: str = Field(description="version that wrote it")
    sweep: str
    trial_id: str
    trial: TrialConfig
    architecture: dict[str, Any] = Field(description="for those who build the network without this package")
    grades: tuple[str, str, str, str, str]
    temperature: Temperature = Field(1.0, description="is in the graphs' probabilities already")
    operating_point: OperatingPoint | None = None
    cut_points: CutPoints | None = Field(None, description="of a network that gives a score; in the graphs already")
    check: Check | None = None
    data_fingerprint: str

    @field_validator("grades")
    @classmethod
    def _in_order(cls, grades: tuple[str, ...]) -> tuple[str, ...]:
        if grades != GRADE_NAMES:
            raise ValueError(f"should be {', '.join(GRADE_NAMES)}, in this order")
        return grades

    @model_validator(mode="after")
    def _cut_points_of_a_score(self) -> Self:
        if self.cut_points and self.trial.loss not in {"mse", "huber"}:
            raise ValueError(f"cut_points: a network trained with {self.trial.loss} gives no score to cut")
        return self


@dataclass(frozen=True)
class Folder:
    """An exported folder, as far as it can be read without torch."""

    path: Path
    description: Description
    preprocess: Preprocess

    def verify(self, name: str) -> bool:
        """Compare a file with its SHA-256 before it is used; False where the folder is of a layout without.

        Raises:
            ResultsError: it is damaged, missing or not listed.
        """
        return checksums.verify(self.path, [name], REMEDY)


def read(folder: Path) -> Folder:
    """What an exported folder says of itself.

    Raises:
        ResultsError: `folder` is none, was written by a newer version, a file in it is missing, damaged or was changed
            (named), has a value that no export has, or its photographs were cropped by another version of the
            preprocessing than this one.
    """
    if not (folder / CONFIG).is_file() or not any((folder / name).is_file() for name in (ONNX, WEIGHTS)):
        raise ResultsError(_no_export(folder))
    is_verified = checksums.verify(folder, [CONFIG, PREPROCESS], REMEDY)
    described = files.read_json(folder / CONFIG)
    _refuse_newer(folder / CONFIG, described)
    description = _parse(Description, described, folder / CONFIG)
    if not is_verified:
        checksums.verify(folder, [], REMEDY, needed=description.export >= WITH_SUMS)
        checksums.tell_unverified(folder)
    preprocess = _parse(Preprocess, files.read_json(folder / PREPROCESS), folder / PREPROCESS)
    if preprocess.crop_version not in SAME_PIXELS:
        raise ResultsError(
            f"{folder / PREPROCESS}: crop_version is {preprocess.crop_version!r}, this retina ({retina.__version__}) "
            f"has {PREPROCESSING!r}; use the one that wrote it, {description.retina}"
        )
    return Folder(folder, description, preprocess)


def _refuse_newer(file: Path, described: Any) -> None:
    layout = described.get("export") if isinstance(described, Mapping) else None
    if isinstance(layout, int) and layout > LAYOUT:
        raise ResultsError(
            f"{file}: export is {layout}, a layout newer than this retina ({retina.__version__}) reads, 1 to {LAYOUT}; "
            f"use the one that wrote it, {described.get('retina')}"
        )


def _parse(kind: type[F], values: Any, file: Path) -> F:
    try:
        return parse(kind, values, str(file))
    except SpecError as error:
        raise ResultsError(str(error)) from None


def _no_export(folder: Path) -> str:
    run = folder.parent if folder.name == "best" else folder
    if (run / "sweep.yaml").is_file():
        return f"{folder}: is not an exported model; run first: retina export {run}"
    missing = f"{ONNX} and no {WEIGHTS}" if (folder / CONFIG).is_file() else CONFIG
    why = f"it has no {missing}" if folder.is_dir() else "there is no such folder"
    return f"{folder}: is not an exported model, {why}; retina export RUN writes one"
