"""The content of an exported folder, and the reader of all of it but the weights. Imports no torch.

model.onnx          the model for onnxruntime: normalized pixels to probabilities and grade
model.pt2           the same for torch.export.load
model.safetensors   the weights alone; reading them cannot execute code
config.json         settings, architecture, temperature, cut-points, operating point, grade names, version that wrote it
preprocess.json     the preprocessing of a photograph
metrics.json        the metrics on validation and test
MODEL_CARD.md       all of this for people: intended use and limits
SHA256SUMS          the checksums of these files in sha256sum's format; each file is verified before it is used
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
FILES_OF_EARLIER_LAYOUTS = ("README.txt",)
LAYOUT = 3
"""Version of the folder's layout. 1 had neither graphs nor card, no temperature and no operating point. 2 had no
SHA256SUMS, and its graphs give a non-finite output a grade, where those of 3 give -1."""
FIRST_LAYOUT_WITH_CHECKSUMS = 3
"""The first layout that has SHA256SUMS."""
REMEDY = (
    "export the run again (retina export RUN); "
    f"if it was changed on purpose, run in that folder: sha256sum *.* > {SUMS}"
)
IMAGES, PROBABILITIES_OUTPUT, GRADE, REFERABLE_SCORE = "images", "probabilities", "grade", "referable_score"
"""Names of the graphs' input, float32 (B, 3, S, S), and outputs, float32 (B, 5), int64 (B,) and float32 (B,)."""

UnitInterval = Annotated[float, Field(ge=0, le=1)]
StandardDeviation = Annotated[float, Field(ge=0.01, le=1)]
"""Standard deviation of values from 0 to 1: at most 0.5, or 1 to leave them unscaled. Below 0.01 inputs overflow."""
Temperature = Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]
"""The range of `retina.metrics.calibration.fit_temperature`."""
FrozenT = TypeVar("FrozenT", bound=Frozen)


class Preprocess(Frozen):
    """preprocess.json: the preprocessing of a photograph, in this order."""

    channels: Literal["RGB"]
    crop: Literal["fundus disc"]
    crop_version: str = Field(description="version of the preprocessing in retina.data.fundus")
    image_size: int = Field(ge=16, le=2048, description="side of the square in pixels")
    scale: Literal["0 to 1"]
    mean: tuple[UnitInterval, UnitInterval, UnitInterval]
    std: tuple[StandardDeviation, StandardDeviation, StandardDeviation]
    graph_input: dict[str, Any] = Field(default_factory=dict, description="name, dtype, shape; for other programs")

    @model_validator(mode="after")
    def _shape_matches_image_size(self) -> Self:
        shape = ["batch", 3, self.image_size, self.image_size]
        if self.graph_input and self.graph_input.get("shape") != shape:
            raise ValueError(f"graph_input.shape is {self.graph_input.get('shape')}, image_size requires {shape}")
        return self

    def normalize(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return squares uint8 (B, S, S, 3) as graph inputs float32 (B, 3, S, S), computed as in training."""
        images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
        mean, std = (np.array(channels, np.float32).reshape(1, 3, 1, 1) for channels in (self.mean, self.std))
        return (images - mean) / std


class Calibration(Frozen):
    """The part of metrics.json that the model needs; early versions wrote neither of the two."""

    temperature: Temperature = 1.0
    operating_point: OperatingPoint | None = None


class CutPoints(Frozen):
    """The conversion of the network's score to grades: P(worse than k) = sigmoid((score - cut k) / spread)."""

    cuts: tuple[float, float, float, float]
    spread: float = Field(ge=1e-3, le=100, description="fitted between 0.02 and 4")

    @field_validator("cuts")
    @classmethod
    def _cuts_are_ascending(cls, cuts: tuple[float, ...]) -> tuple[float, ...]:
        if list(cuts) != sorted(cuts):
            raise ValueError("should be in ascending order")
        return cuts


class Check(Frozen):
    """The comparison of the graphs with torch at the time of the export."""

    photographs: int = Field(ge=1)
    origin: str = Field(description="where these photographs come from")
    onnx_difference: float = Field(ge=0, description="largest absolute difference of a probability with onnxruntime")
    pt2_difference: float = Field(ge=0, description="the same with torch.export.load")
    other_grades: int = Field(ge=0, description="photographs to which one of the graphs gives another grade than torch")
    versions: dict[str, str]
    recorded: int = Field(0, ge=0, description="number of the photographs that are in best/predictions.csv")
    recorded_difference: float | None = Field(
        None, description="largest absolute difference of torch's probabilities from those in best/predictions.csv"
    )
    verified: bool = Field(False, description="whether the run's files were verified with their SHA256SUMS")

    @property
    def summary(self) -> str:
        """The comparison's result as text, for a terminal and the model card."""
        onnx, pt2 = (f"{difference:.1e}" for difference in (self.onnx_difference, self.pt2_difference))
        return (
            f"{self.photographs} photographs {self.origin}: probabilities differ from torch's by at most {onnx} "
            f"({ONNX}, onnxruntime {self.versions.get('onnxruntime')}) and {pt2} ({PROGRAM}, torch "
            f"{self.versions.get('torch')}); {self.other_grades} of them get another grade; {self._run_summary}"
        )

    @property
    def _run_summary(self) -> str:
        files = "the run's files are unchanged" if self.verified else "the run's files have no checksums"
        if self.recorded_difference is None:
            return f"{files}; none of the photographs is in its predictions.csv"
        difference = f"{self.recorded_difference:.1e}"
        return (
            f"{files}; torch differs by at most {difference} from its predictions.csv, on {self.recorded} photographs"
        )


class Description(Frozen):
    """config.json: the model and its origin."""

    export: Literal[1, 2, 3] = Field(description="version of this layout")
    retina: str = Field(description="version of retina that wrote it")
    sweep: str
    trial_id: str
    trial: TrialConfig
    architecture: dict[str, Any] = Field(description="for programs that build the network without this package")
    grades: tuple[str, str, str, str, str]
    temperature: Temperature = Field(1.0, description="already applied in the graphs' probabilities")
    operating_point: OperatingPoint | None = None
    cut_points: CutPoints | None = Field(None, description="of a network that gives a score; applied in the graphs")
    check: Check | None = None
    data_fingerprint: str

    @field_validator("grades")
    @classmethod
    def _grades_are_in_order(cls, grades: tuple[str, ...]) -> tuple[str, ...]:
        if grades != GRADE_NAMES:
            raise ValueError(f"should be {', '.join(GRADE_NAMES)}, in this order")
        return grades

    @model_validator(mode="after")
    def _cut_points_need_a_score(self) -> Self:
        if self.cut_points and self.trial.loss not in {"mse", "huber"}:
            raise ValueError(f"cut_points: a network trained with {self.trial.loss} gives no score to cut")
        return self


@dataclass(frozen=True)
class ExportFolder:
    """An exported folder: its path and the descriptions that are read without torch."""

    path: Path
    description: Description
    preprocess: Preprocess

    def verify(self, name: str) -> bool:
        """Compare a file with its SHA-256 before it is used; return False if the folder's layout has no checksums.

        Raises:
            ResultsError: the file is damaged, missing or not listed.
        """
        return checksums.verify(self.path, [name], REMEDY)


def read_export(folder: Path) -> ExportFolder:
    """Read the descriptions of an exported folder.

    Raises:
        ResultsError: `folder` is not an export or was written by a newer version, a file in it is missing, damaged or
            changed (named), has a value that no export has, or its photographs were cropped by another version of the
            preprocessing than this one.
    """
    if not (folder / CONFIG).is_file() or not any((folder / name).is_file() for name in (ONNX, WEIGHTS)):
        raise ResultsError(_not_an_export(folder))
    is_verified = checksums.verify(folder, [CONFIG, PREPROCESS], REMEDY)
    values = files.read_json(folder / CONFIG)
    _check_layout(folder / CONFIG, values)
    description = _parse(Description, values, folder / CONFIG)
    if not is_verified:
        checksums.verify(folder, [], REMEDY, needed=description.export >= FIRST_LAYOUT_WITH_CHECKSUMS)
        checksums.log_unverified(folder)
    preprocess = _parse(Preprocess, files.read_json(folder / PREPROCESS), folder / PREPROCESS)
    if preprocess.crop_version not in SAME_PIXELS:
        raise ResultsError(
            f"{folder / PREPROCESS}: crop_version is {preprocess.crop_version!r}, this retina ({retina.__version__}) "
            f"has {PREPROCESSING!r}; use the version that wrote it, {description.retina}"
        )
    return ExportFolder(folder, description, preprocess)


def _check_layout(file: Path, values: Any) -> None:
    layout = values.get("export") if isinstance(values, Mapping) else None
    if isinstance(layout, int) and layout > LAYOUT:
        raise ResultsError(
            f"{file}: export is {layout}, a newer layout than this retina ({retina.__version__}) reads, 1 to {LAYOUT}; "
            f"use the version that wrote it, {values.get('retina')}"
        )


def _parse(model: type[FrozenT], values: Any, file: Path) -> FrozenT:
    try:
        return parse(model, values, str(file))
    except SpecError as error:
        raise ResultsError(str(error)) from None


def _not_an_export(folder: Path) -> str:
    run = folder.parent if folder.name == "best" else folder
    if (run / "sweep.yaml").is_file():
        return f"{folder}: is not an exported model; run first: retina export {run}"
    missing = f"{ONNX} and no {WEIGHTS}" if (folder / CONFIG).is_file() else CONFIG
    reason = f"it has no {missing}" if folder.is_dir() else "there is no such folder"
    return f"{folder}: is not an exported model, {reason}; retina export RUN writes one"
