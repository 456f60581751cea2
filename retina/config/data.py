"""The photographs that a sweep trains on, their split, and the size at which the model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from retina.config.grades import GRADES, UNGRADABLE
from retina.config.validation import Frozen


class SyntheticConfig(Frozen):
    """The photographs that `path: synthetic` draws."""

    photographs: int = Field(600, ge=20, description="number of photographs, two eyes per patient")
    size: int = Field(512, ge=64, le=4096, description="height of a photograph in pixels")
    proportions: Literal["eyepacs", "balanced"] = "eyepacs"
    seed: int = Field(0, ge=0)


class DataConfig(Frozen):
    """The path and layout of the photographs, their split, and the size at which the model sees them."""

    path: str = "synthetic"
    layout: Literal["auto", "course", "eyepacs", "aptos", "idrid", "list", "medmnist", "folders", "synthetic"] = "auto"
    image_folder: str | None = Field(None, min_length=1, description="the only folder below `path` that is searched")
    image_column: str | None = Field(
        None, min_length=1, description="image column of the label file, if it is not detected"
    )
    grade_column: str | None = Field(None, min_length=1, description="likewise")
    patient_column: str | None = Field(None, min_length=1, description="likewise")
    eye_column: str | None = Field(None, min_length=1, description="likewise")
    grade_mapping: dict[str, int | Literal["ungradable"]] = Field(
        default_factory=dict, description="label to a grade 0 to 4 or ungradable; applied before any other rule"
    )
    image_size: int = Field(224, ge=16, le=2048, description="side of the square that the model sees, in pixels")
    split: Literal["official", "by_patient"] = "official"
    validation: float = Field(0.15, gt=0, lt=1, description="share of the training patients, if no split is given")
    test: float = Field(0.15, gt=0, lt=1, description="share of all patients, if no test split is given")
    seed: int = Field(
        0, ge=0, description="seed of the split; separate from the sweep's, so that sweeps stay comparable"
    )
    on_bad: Literal["stop", "skip"] = "stop"
    join_duplicates: Literal["same", "near", "none"] = Field(
        "same", description="photographs that count as one patient's in a split; see data/duplicates.py"
    )
    synthetic: SyntheticConfig = SyntheticConfig()

    @field_validator("path")
    @classmethod
    def _is_valid_path(cls, path: str) -> str:
        # Field(min_length=1) would also reject names that are not UTF-8, which the readers explain
        if not path:
            raise ValueError("should have at least 1 character")
        if "\0" in path:
            raise ValueError("should not contain NUL")
        return path

    @field_validator("grade_mapping", mode="before")
    @classmethod
    def _labels_are_text_and_grades_are_valid(cls, mapping: Any) -> Any:
        if not isinstance(mapping, Mapping):
            raise ValueError("should map labels to grades, such as {5: ungradable}")  # noqa: TRY004
        for label, grade in mapping.items():
            if isinstance(label, bool) or label is None:
                raise ValueError(f"YAML reads a bare yes, no, on, off or null as {label}; write the label in quotes")
            if grade != UNGRADABLE and (type(grade) is not int or grade not in range(GRADES)):
                raise ValueError(f"{label}: {grade!r} is not a grade; allowed: 0 to {GRADES - 1}, {UNGRADABLE}")
        grades = {str(label): grade for label, grade in mapping.items()}
        if len(grades) < len(mapping):  # YAML's 5 and "5" are two keys but one label
            duplicate = next(label for label in grades if sum(str(key) == label for key in mapping) > 1)
            raise ValueError(f"{duplicate}: this label is given twice")
        return grades

    @model_validator(mode="after")
    def _leaves_photographs_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test is {self.validation + self.test:g}; they must leave photographs for training"
            )
        return self
