"""Schemas of the files that this package writes and reads back: one pydantic model per file."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from retina.config import GRADES
from retina.results.schema_checks import forbid_null, require_keys

TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Allowed trial ids: an id is the name of a folder, so it contains no separator and no dot."""
STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING")


def check_trial_id(name: str) -> str:
    """Return `name` if it is a valid trial id.

    Raises:
        ValueError: it is not valid; the message says what is allowed.
    """
    if not TRIAL_ID.fullmatch(name):
        raise ValueError("should be a trial's id such as t0007: letters, digits, - and _")
    return name


def _check_date(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("should be a date and time with a time zone")
    return text


TrialId = Annotated[str, AfterValidator(check_trial_id)]
Date = Annotated[str, AfterValidator(_check_date)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Kappa = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]
Natural = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ByGrade = Annotated[list[Fraction | None], Field(min_length=GRADES, max_length=GRADES)]
Counts = Annotated[list[Count], Field(min_length=GRADES, max_length=GRADES)]
Matrix = Annotated[list[Counts], Field(min_length=GRADES, max_length=GRADES)]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
IntervalByGrade = Annotated[list[Interval | None], Field(min_length=GRADES, max_length=GRADES)]


class CsvRow(BaseModel):
    """A row of a table: cells are text, an empty one is None; unknown columns are ignored."""

    model_config = ConfigDict(extra="ignore")


class TrialRow(CsvRow):
    """A row of trials.csv, without the trial's settings."""

    trial_id: TrialId
    state: Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING"] | None
    epochs_run: Count | None
    best_epoch: Natural | None
    val_qwk: Kappa | None
    val_accuracy: Fraction | None
    val_auc: Fraction | None
    val_loss: Finite | None
    seconds: Positive | None
    images_per_second: Positive | None
    reason: str | None

    @model_validator(mode="after")
    def _best_epoch_was_run(self) -> Self:
        if self.best_epoch is not None and self.epochs_run is not None and self.best_epoch > self.epochs_run:
            raise ValueError(f"best_epoch {self.best_epoch} should be one of the {self.epochs_run} of epochs_run")
        return self


class HistoryRow(CsvRow):
    """A row of history.csv."""

    trial_id: TrialId
    epoch: Natural
    learning_rate: Positive | None
    train_loss: Finite | None
    train_accuracy: Fraction | None
    train_qwk: Kappa | None
    val_loss: Finite | None
    val_accuracy: Fraction | None
    val_qwk: Kappa | None
    val_auc: Fraction | None
    test_loss: Finite | None
    test_accuracy: Fraction | None
    test_qwk: Kappa | None
    images_per_second: Positive | None
    seconds: Positive | None
    micro_batch: Natural | None


class PredictionRow(CsvRow):
    """A row of predictions.csv; early versions lack the columns that have a default."""

    split: Literal["train", "val", "test"]
    image: Annotated[str, Field(min_length=1)]
    grade: Annotated[int, Field(ge=0, lt=GRADES)]
    p0: Fraction
    p1: Fraction
    p2: Fraction
    p3: Fraction
    p4: Fraction
    patient: str | None = None
    eye: str | None = None
    predicted: Annotated[int, Field(ge=0, lt=GRADES)] | None = None
    majority: Annotated[int, Field(ge=0, lt=GRADES)] | None = None
    fellow_eye: Annotated[int, Field(ge=0, lt=GRADES)] | None = None

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.p0 + self.p1 + self.p2 + self.p3 + self.p4
        if abs(total - 1) > 1e-3:
            raise ValueError(f"p0 to p4 add up to {total:.4g}, should be 1")
        return self


class JsonModel(BaseModel):
    """Plain values of JSON or YAML, whose types are not converted; unknown keys are kept."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class SplitCounts(JsonModel):
    """The number of photographs of a split."""

    n: Count
    by_grade: Counts

    @model_validator(mode="after")
    def _counts_match_n(self) -> Self:
        if sum(self.by_grade) != self.n:
            raise ValueError(f"by_grade adds up to {sum(self.by_grade)}, n is {self.n}")
        return self


class DataSummary(JsonModel):
    """The summary of the photographs in environment.json."""

    path: str | None = None
    layout: str | None = None
    fingerprint: str | None = None
    photographs: dict[str, SplitCounts] | None = None
    patients: Count | None = None
    warnings: list[str] | None = None
    skipped: Count | None = None

    @model_validator(mode="after")
    def _has_patients_of_photographs(self) -> Self:
        if self.photographs and self.patients is None:
            raise ValueError("should hold patients, the number of patients of the photographs")
        return self


class Code(JsonModel):
    """The version of the code that ran."""

    version: str | None = None
    git: str | None = None
    source: str | None = None


class ResumeEntry(JsonModel):
    """One resume of a sweep."""

    command: str | None = None


class EnvironmentFile(JsonModel):
    """The content of environment.json."""

    started: Date | None = None
    study: str | None = None
    seconds: Positive | None = None
    ended_by: str | None = None
    interrupted: bool | None = None
    best: TrialId | None = None
    data: DataSummary | None = None
    code: Code | None = None
    resumed: list[ResumeEntry] | None = None
    trials_without_extension: Count | None = None
    packages: dict[str, str] | None = None
    cores: int | None = None
    gpus: list[str] | None = None
    cpu: str | None = None
    git: str | None = None
    command: str | None = None


class RecordedBaseline(JsonModel):
    """A baseline's metrics on a split."""

    accuracy: Fraction | None = None
    qwk: Kappa | None = None
    gain: dict[str, Interval | None] | None = None
    grade: Annotated[int, Field(ge=0, lt=GRADES)] | None = None
    n: Count | None = None
    with_fellow: Count | None = None

    @model_validator(mode="after")
    def _has_no_null(self) -> Self:
        forbid_null(self, "gain", "grade", "n", "with_fellow")
        return self


class OperatingMetrics(JsonModel):
    """A model's metrics at its operating point."""

    sensitivity: Fraction | None = None
    specificity: Fraction | None = None


class Intervals(JsonModel):
    """The 95% intervals of a split's metrics, by their names; None where the bootstrap gives none."""

    __pydantic_extra__: dict[str, Interval | None] = Field(init=False)

    recall: IntervalByGrade | None = None
    precision: IntervalByGrade | None = None
    auc_by_grade: IntervalByGrade | None = None


class SplitMetrics(JsonModel):
    """The metrics of a split in metrics.json; None if a number is undefined, absent if a version did not write it."""

    n: Count | None = None
    patients: Count | None = None
    accuracy: Fraction | None = None
    balanced_accuracy: Fraction | None = None
    qwk: Kappa | None = None
    macro_f1: Fraction | None = None
    auc: Fraction | None = None
    referable_auc: Fraction | None = None
    sensitivity_at_90_specificity: Fraction | None = None
    ece: Fraction | None = None
    ece_calibrated: Fraction | None = None
    nll: Positive | None = None
    nll_calibrated: Positive | None = None
    recall: ByGrade | None = None
    precision: ByGrade | None = None
    auc_by_grade: ByGrade | None = None
    confusion_matrix: Matrix | None = None
    operating: OperatingMetrics | None = None
    intervals: Intervals | None = None
    resamples: Count | None = None
    baselines: dict[str, RecordedBaseline] | None = None

    @model_validator(mode="after")
    def _has_no_null(self) -> Self:
        forbid_null(self, "n", "patients", "recall", "precision", "auc_by_grade", "confusion_matrix")
        forbid_null(self, "operating", "intervals", "resamples", "baselines")
        return self

    @model_validator(mode="after")
    def _confusion_matrix_matches_n(self) -> Self:
        total = sum(map(sum, self.confusion_matrix)) if self.confusion_matrix else None
        if total is not None and self.n is not None and total != self.n:
            raise ValueError(f"confusion_matrix holds {total} photographs, n is {self.n}")
        return self


class EvaluatedSplit(SplitMetrics):
    """The metrics of a split on which a model was evaluated: every version wrote the number of photographs."""

    @model_validator(mode="after")
    def _has_n(self) -> Self:
        require_keys(self, "n")
        return self


class Target(JsonModel):
    """The target of an operating point."""

    sensitivity: Fraction
    specificity: Fraction


class RecordedOperatingPoint(JsonModel):
    """The operating point in metrics.json."""

    threshold: float | None = None
    met: bool | None = None
    target: Target | None = None

    @model_validator(mode="after")
    def _has_no_null(self) -> Self:
        forbid_null(self, "met", "target")
        return self

    @model_validator(mode="after")
    def _met_needs_a_threshold(self) -> Self:
        if self.met and self.threshold is None:
            raise ValueError("should hold the threshold that meets the target")
        return self


class Metrics(JsonModel):
    """The content of best/metrics.json."""

    trial_id: TrialId
    epoch: Natural | None = None
    chosen_by: str | None = None
    verdict: str | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None
    operating_point: RecordedOperatingPoint | None = None
    val: EvaluatedSplit | None = None
    test: EvaluatedSplit

    @model_validator(mode="after")
    def _has_no_null(self) -> Self:
        forbid_null(self, "epoch", "chosen_by", "verdict", "temperature", "operating_point", "val")
        return self

    @model_validator(mode="after")
    def _has_what_the_verdict_needs(self) -> Self:
        if self.verdict is not None:
            require_keys(self, "operating_point")
            require_keys(self.operating_point, "target", "met", under="operating_point")
            require_keys(self.test, "resamples", "baselines", under="test")
        return self


class EnsembleCandidate(JsonModel):
    """One combination of the kept trials: the best one alone, their ensemble, or the mean of their weights."""

    members: Annotated[list[TrialId], Field(min_length=1)]
    val: EvaluatedSplit
    test: EvaluatedSplit


class EnsembleFile(JsonModel):
    """The content of best/together.json."""

    metric: str
    single: EnsembleCandidate
    ensemble: EnsembleCandidate
    soup: EnsembleCandidate
    better: Literal["single", "ensemble", "soup"]


class ComparisonFile(SplitMetrics):
    """The content of a JSON file in comparison/."""

    trial_id: TrialId
    epoch: Natural
    n: Count
    accuracy: Fraction
    qwk: Kappa
    confusion_matrix: Matrix
    data_fingerprint: str | None = None
