"""What the files hold that this package writes and reads back: a pydantic model for each."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from retina.config import GRADES
from retina.results.schema_checks import refuse_lacking, refuse_null

TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What a trial may be called: its id is the name of a folder, so it holds no separator and no dot."""
STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING")


def check_trial_id(name: str) -> str:
    """Return `name` if it may be a trial's id.

    Raises:
        ValueError: it may not; saying what is allowed.
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


class Row(BaseModel):
    """A row of a table: cells are text, an empty one is None; columns that are not known are left alone."""

    model_config = ConfigDict(extra="ignore")


class TrialRow(Row):
    """A row of trials.csv beside the settings of its trial."""

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
    def _best_is_among_those_run(self) -> Self:
        if self.best_epoch is not None and self.epochs_run is not None and self.best_epoch > self.epochs_run:
            raise ValueError(f"best_epoch {self.best_epoch} should be one of the {self.epochs_run} of epochs_run")
        return self


class HistoryRow(Row):
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


class PredictionRow(Row):
    """A row of predictions.csv; earlier versions lack the columns that have a default."""

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
    def _adds_up(self) -> Self:
        total = self.p0 + self.p1 + self.p2 + self.p3 + self.p4
        if abs(total - 1) > 1e-3:
            raise ValueError(f"p0 to p4 add up to {total:.4g}, should be 1")
        return self


class Plain(BaseModel):
    """Plain values of JSON or YAML, whose types are not bent; keys that are not known are left alone."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class SplitCounts(Plain):
    """Photographs of a split."""

    n: Count
    by_grade: Counts

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(self.by_grade) != self.n:
            raise ValueError(f"by_grade adds up to {sum(self.by_grade)}, n is {self.n}")
        return self


class DataSummary(Plain):
    """What environment.json says of the photographs."""

    path: str | None = None
    layout: str | None = None
    fingerprint: str | None = None
    photographs: dict[str, SplitCounts] | None = None
    patients: Count | None = None
    warnings: list[str] | None = None
    skipped: Count | None = None

    @model_validator(mode="after")
    def _patients_of_photographs(self) -> Self:
        if self.photographs and self.patients is None:
            raise ValueError("should say how many patients the photographs are of")
        return self


class Code(Plain):
    """Which code ran."""

    version: str | None = None
    git: str | None = None
    source: str | None = None


class Resumed(Plain):
    """One of the times that a sweep went on."""

    command: str | None = None


class Notes(Plain):
    """environment.json."""

    started: Date | None = None
    study: str | None = None
    seconds: Positive | None = None
    ended_by: str | None = None
    interrupted: bool | None = None
    best: TrialId | None = None
    data: DataSummary | None = None
    code: Code | None = None
    resumed: list[Resumed] | None = None
    trials_without_extension: Count | None = None
    packages: dict[str, str] | None = None
    cores: int | None = None
    gpus: list[str] | None = None
    cpu: str | None = None
    git: str | None = None
    command: str | None = None


class Baseline(Plain):
    """A baseline of a split."""

    accuracy: Fraction | None = None
    qwk: Kappa | None = None
    gain: dict[str, Interval | None] | None = None
    grade: Annotated[int, Field(ge=0, lt=GRADES)] | None = None
    n: Count | None = None
    with_fellow: Count | None = None

    @model_validator(mode="after")
    def _has_no_null(self) -> Self:
        refuse_null(self, "gain", "grade", "n", "with_fellow")
        return self


class Operated(Plain):
    """What a model comes to at its operating point."""

    sensitivity: Fraction | None = None
    specificity: Fraction | None = None


class Intervals(Plain):
    """The 95% intervals of a split's numbers, by their names; None where the bootstrap knows none."""

    __pydantic_extra__: dict[str, Interval | None] = Field(init=False)

    recall: IntervalByGrade | None = None
    precision: IntervalByGrade | None = None
    auc_by_grade: IntervalByGrade | None = None


class SplitMetrics(Plain):
    """What metrics.json says of a split; None where a number is not defined, absent where a version did not know it."""

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
    operating: Operated | None = None
    intervals: Intervals | None = None
    resamples: Count | None = None
    baselines: dict[str, Baseline] | None = None

    @model_validator(mode="after")
    def _has_no_null(self) -> Self:
        refuse_null(self, "n", "patients", "recall", "precision", "auc_by_grade", "confusion_matrix")
        refuse_null(self, "operating", "intervals", "resamples", "baselines")
        return self

    @model_validator(mode="after")
    def _matrix_holds_each_photograph(self) -> Self:
        total = sum(map(sum, self.confusion_matrix)) if self.confusion_matrix else None
        if total is not None and self.n is not None and total != self.n:
            raise ValueError(f"confusion_matrix holds {total} photographs, n is {self.n}")
        return self


class Judged(SplitMetrics):
    """The same of a model that was judged on the split: how many photographs it has every version knew."""

    @model_validator(mode="after")
    def _is_judged(self) -> Self:
        refuse_lacking(self, "n")
        return self


class Target(Plain):
    """What an operating point is to reach."""

    sensitivity: Fraction
    specificity: Fraction


class Operating(Plain):
    """The operating point."""

    threshold: float | None = None
    met: bool | None = None
    target: Target | None = None

    @model_validator(mode="after")
    def _has_no_null(self) -> Self:
        refuse_null(self, "met", "target")
        return self

    @model_validator(mode="after")
    def _is_met_by_a_threshold(self) -> Self:
        if self.met and self.threshold is None:
            raise ValueError("should hold the threshold that has met its target")
        return self


class Metrics(Plain):
    """best/metrics.json."""

    trial_id: TrialId
    epoch: Natural | None = None
    chosen_by: str | None = None
    verdict: str | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None
    operating_point: Operating | None = None
    val: Judged | None = None
    test: Judged

    @model_validator(mode="after")
    def _has_no_null(self) -> Self:
        refuse_null(self, "epoch", "chosen_by", "verdict", "temperature", "operating_point", "val")
        return self

    @model_validator(mode="after")
    def _says_what_the_verdict_is_from(self) -> Self:
        if self.verdict is not None:
            refuse_lacking(self, "operating_point")
            refuse_lacking(self.operating_point, "target", "met", under="operating_point")
            refuse_lacking(self.test, "resamples", "baselines", under="test")
        return self


class Member(Plain):
    """One of the ways to use the kept trials."""

    members: Annotated[list[TrialId], Field(min_length=1)]
    val: Judged
    test: Judged


class Together(Plain):
    """best/together.json."""

    metric: str
    single: Member
    ensemble: Member
    soup: Member
    better: Literal["single", "ensemble", "soup"]


class Compared(SplitMetrics):
    """A JSON file of comparison/."""

    trial_id: TrialId
    epoch: Natural
    n: Count
    accuracy: Fraction
    qwk: Kappa
    confusion_matrix: Matrix
    data_fingerprint: str | None = None
