"""Which photographs a sweep trains on, how they are split, and how large the model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from retina.config.grades import GRADES, UNGRADABLE
from retina.config.validation import Frozen


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
