"""The data of a model card: read from a run's files and formatted as the rows of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retina.config import GRADE_NAMES, GRADES, SweepSpec, TrialConfig
from retina.config.search_space import Parameter
from retina.config.splits import EVALUATED_SPLITS, SPLIT_NAMES
from retina.metrics.probabilities import REFERABLE_GRADE
from retina.metrics.verdict import METRIC_NAMES, baseline_name, known_patients, resampling_unit
from retina.results.run_folder import RunFolder

CARD_METRIC_NAMES = {
    **METRIC_NAMES,
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "AUC, mean of the grades",
    "referable_auc": "AUC of referable (grade 2 or worse)",
    "sensitivity_at_90_specificity": "sensitivity for referable at 90% specificity",
}
CALIBRATION_NAMES = {"ece": "as trained", "ece_calibrated": "at the temperature, as exported"}
GRADE_METRIC_NAMES = {"recall": "recall", "precision": "precision", "auc_by_grade": "AUC"}
MIN_PHOTOGRAPHS = 30
"""Photographs of a grade below which its recall is uncertain: the 95% interval of 80% is then 30 points wide."""
MISSING = "-"
JsonObject = Mapping[str, Any]
Rows = list[list[str]]


@dataclass(frozen=True)
class CardData:
    """The data of a run that its model card shows, beside the model.

    Attributes:
        metrics: metrics.json of its best model.
        spec: sweep.yaml; without parameters where a run of an early version lacks them.
        environment: environment.json.
        states: number of trials in each final state of trials.csv.
    """

    metrics: JsonObject
    spec: SweepSpec
    environment: JsonObject
    states: dict[str, int]

    @classmethod
    def of(cls, run: RunFolder, metrics: JsonObject) -> CardData:
        """Read the data of a run.

        Raises:
            ResultsError: a file of the run is damaged.
        """
        return cls(metrics, run.spec(allow_no_parameters=True), run.metadata(), _states(run))

    @property
    def data(self) -> JsonObject:
        """The photographs' summary in environment.json; empty where it has none, as in runs of early versions."""
        return self.environment.get("data") or {}

    @property
    def is_synthetic(self) -> bool:
        """Whether the model was trained on synthetic photographs only."""
        return bool(self.data.get("layout") == "synthetic")

    @property
    def photographs(self) -> Rows:
        """One row per split: its name, its photographs, and how many of each grade."""
        counts: JsonObject = self.data.get("photographs") or {}
        return [[split, str(count["n"]), *map(str, count["by_grade"])] for split, count in counts.items()]

    @property
    def patient_summary(self) -> str:
        """The number of photographs and of patients, or that no two photographs are known to be of one patient."""
        patients, total = self.data["patients"], sum(int(row[1]) for row in self.photographs)
        if patients < total:
            return f"{total:,} photographs of {patients:,} patients"
        return f"{total:,} photographs, no two of which are known to be of one patient"

    def size(self, split: str) -> str:
        """Return the number of photographs of a split of metrics.json, and of patients if it is known."""
        metrics: JsonObject = self.metrics[split]
        patients = known_patients(metrics)
        return f"{SPLIT_NAMES[split]} (n={metrics['n']:,}{f', {patients:,} patients' if patients else ''})"

    @property
    def resampling_unit(self) -> str:
        """What the bootstrap resamples for the intervals."""
        return resampling_unit(self.metrics["test"])

    @property
    def results(self) -> Rows:
        """One row per metric: its name, and its values on validation and test with 95% intervals."""
        return self._rows(CARD_METRIC_NAMES)

    @property
    def calibration(self) -> Rows:
        """The expected calibration error before and after the temperature; empty where none was fitted."""
        return self._rows(CALIBRATION_NAMES)

    @property
    def operating(self) -> Rows:
        """Sensitivity and specificity at the operating point; empty where there is none."""
        rows = []
        for name in ("sensitivity", "specificity"):
            cells = []
            for split in EVALUATED_SPLITS:
                metrics = self.metrics[split]
                value = (metrics.get("operating") or {}).get(name)
                cells.append(format_cell(value, (metrics.get("intervals") or {}).get(f"operating_{name}")))
            rows.append([name, *cells])
        return [row for row in rows if set(row[1:]) != {MISSING}]

    @property
    def baselines(self) -> Rows:
        """One row per baseline that uses no photograph: name, split, QWK and accuracy, and the model's gain over it."""
        rows = []
        for split, name in SPLIT_NAMES.items():
            for kind, baseline in (self.metrics[split].get("baselines") or {}).items():
                gain: JsonObject = baseline.get("gain") or {}
                cells = [format_cell(baseline.get(metric)) for metric in ("qwk", "accuracy")]
                cells += [format_interval(gain.get(metric)) for metric in ("qwk", "accuracy")]
                rows.append([baseline_name(kind, baseline), name, *cells])
        return rows

    @property
    def by_grade(self) -> Rows:
        """One row per grade, on test: name, photographs, and recall, precision and AUC with intervals."""
        test = self.metrics["test"]
        counts = self.test_counts
        rows = []
        for grade, name in enumerate(GRADE_NAMES):
            cells = [
                format_cell(_at(test.get(key), grade), _at(_intervals(test, key), grade)) for key in GRADE_METRIC_NAMES
            ]
            rows.append([f"{grade} {name}", str(counts[grade]) if counts else MISSING, *cells])
        return rows

    @property
    def confusion(self) -> Rows:
        """One row per true grade, on test: its name, and the number of photographs predicted as each grade."""
        matrix = self.metrics["test"].get("confusion_matrix") or []
        return [[f"{grade} {GRADE_NAMES[grade]}", *map(str, row)] for grade, row in enumerate(matrix)]

    @property
    def test_counts(self) -> list[int]:
        """Test photographs of each grade; empty where metrics.json has no confusion matrix."""
        return [sum(row) for row in self.metrics["test"].get("confusion_matrix") or []]

    @property
    def referable(self) -> list[list[int]]:
        """One pair per split of `photographs`: the number of not referable and of referable ones."""
        rows = [[int(count) for count in row[2:]] for row in self.photographs]
        return [[sum(row[:REFERABLE_GRADE]), sum(row[REFERABLE_GRADE:])] for row in rows]

    @property
    def scarce_grades(self) -> list[str]:
        """Grades with too few test photographs for reliable metrics, each with its number of photographs."""
        counts = enumerate(self.test_counts)
        return [f"{count} of {grade} {GRADE_NAMES[grade]}" for grade, count in counts if count < MIN_PHOTOGRAPHS]

    @property
    def is_split_by_patient(self) -> bool:
        """Whether the photographs' own split was replaced by a split by patient."""
        return self.spec.data.split == "by_patient"

    @property
    def search_summary(self) -> str:
        """The search in one line: method, trials, hours, machine and reason of its end; empty if trials.csv is."""
        if not self.states:
            return ""
        trials = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        method = self.spec.method if "method" in self.spec.model_fields_set else "a"  # a default is not known
        parts = [f"{method} search over {sum(self.states.values())} trials ({trials})"]
        if "seconds" in self.environment:
            minutes = self.environment["seconds"] / 60
            duration = f"{minutes / 60:.1f} hours" if minutes >= 60 else f"{minutes:.0f} minutes"
            parts.append(f"{duration}{self._machine}")
        if self.environment.get("ended_by"):
            parts.append(f"ended by {self.environment['ended_by']}")
        return ", ".join(parts)

    @property
    def _machine(self) -> str:
        if self.environment.get("gpus"):
            return f" on {', '.join(self.environment['gpus'])}"
        if "cpu" not in self.environment:
            return ""
        return f" on {self.environment['cores']} cores of {self.environment['cpu']}"

    @property
    def searched(self) -> Rows:
        """One row per searched parameter: its name and its values or range."""
        return [[name, text] for name, parameter in self.spec.parameters.items() if (text := _space(parameter))]

    def _rows(self, labels: Mapping[str, str]) -> Rows:
        rows = []
        for key, label in labels.items():
            splits = [self.metrics[split] for split in EVALUATED_SPLITS]
            rows.append([label, *(format_cell(split.get(key), _intervals(split, key)) for split in splits)])
        return [row for row in rows if set(row[1:]) != {MISSING}]


def setting_rows(trial: TrialConfig) -> Rows:
    """Return one row per setting of the chosen trial."""
    return [[name, str(value)] for name, value in trial.model_dump(mode="json").items()]


def format_cell(value: Any, interval: Any = None) -> str:
    """Return a number to three digits, followed by its interval if there is one."""
    return MISSING if value is None else " ".join(filter(None, [f"{value:.3f}", format_interval(interval, "")]))


def format_interval(interval: Any, missing: str = MISSING) -> str:
    """Return an interval to three digits, or `missing` if there is none."""
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else missing


def _intervals(split: JsonObject, key: str) -> Any:
    return (split.get("intervals") or {}).get(key)


def _at(values: Any, grade: int) -> Any:
    return values[grade] if values and len(values) == GRADES else None


def _space(parameter: Parameter) -> str:
    """Return the values or the range of a searched parameter, "" if it has a single value."""
    if parameter.distribution:
        text = f"{parameter.min} to {parameter.max}, {parameter.distribution}"
    elif parameter.values is not None:
        text = ", ".join(str(value) for value in parameter.values)
    else:
        return ""
    when = ", ".join(f"{name} is {value}" for name, value in parameter.when.items())
    return f"{text}; where {when}" if when else text


def _states(run: RunFolder) -> dict[str, int]:
    counts = run.trials()["state"].value_counts()
    return {str(state): int(count) for state, count in counts.items()}
