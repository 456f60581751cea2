"""What a model card can say of a run: read from its files, and in the words and digits of a table."""

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

NUMBERS = {
    **METRIC_NAMES,
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "AUC, mean of the grades",
    "referable_auc": "AUC of referable (grade 2 or worse)",
    "sensitivity_at_90_specificity": "sensitivity for referable at 90% specificity",
}
CALIBRATION = {"ece": "as trained", "ece_calibrated": "at the temperature, as exported"}
BY_GRADE = {"recall": "recall", "precision": "precision", "auc_by_grade": "AUC"}
FEW = 30
"""Photographs of a grade below which its recall says little: the 95% interval of 80% is then 30 points wide."""
NOTHING = "-"
Told = Mapping[str, Any]
Rows = list[list[str]]


@dataclass(frozen=True)
class CardData:
    """What is known of a run beside its model.

    Attributes:
        metrics: metrics.json of its best model.
        spec: sweep.yaml; without parameters where a run of an early version lacks them.
        notes: environment.json.
        states: trials that ended in each state of trials.csv.
    """

    metrics: Told
    spec: SweepSpec
    notes: Told
    states: dict[str, int]

    @classmethod
    def of(cls, run: RunFolder, metrics: Told) -> CardData:
        """Read them.

        Raises:
            ResultsError: a file of the run is damaged.
        """
        return cls(metrics, run.spec(allow_no_parameters=True), run.metadata(), _states(run))

    @property
    def data(self) -> Told:
        """What environment.json says of the photographs; empty where it says nothing, as in runs of early versions."""
        return self.notes.get("data") or {}

    @property
    def is_drawn(self) -> bool:
        """Whether the model has seen drawn photographs only."""
        return bool(self.data.get("layout") == "synthetic")

    @property
    def photographs(self) -> Rows:
        """A row a split: its name, photographs, and how many of each grade."""
        counts: Told = self.data.get("photographs") or {}
        return [[split, str(one["n"]), *map(str, one["by_grade"])] for split, one in counts.items()]

    @property
    def of_patients(self) -> str:
        """How many patients there are, and whether they are known at all."""
        patients, total = self.data["patients"], sum(int(row[1]) for row in self.photographs)
        if patients < total:
            return f"{total:,} photographs of {patients:,} patients"
        return f"{total:,} photographs, no two of which are known to be of one patient"

    def size(self, split: str) -> str:
        """Photographs of a split of metrics.json, and patients where it tells."""
        told: Told = self.metrics[split]
        patients = known_patients(told)
        return f"{SPLIT_NAMES[split]} (n={told['n']:,}{f', {patients:,} patients' if patients else ''})"

    @property
    def resampling_unit(self) -> str:
        """What the intervals are drawn from."""
        return resampling_unit(self.metrics["test"])

    @property
    def results(self) -> Rows:
        """A row a number: its name, and validation and test with 95% intervals."""
        return self._rows(NUMBERS)

    @property
    def calibration(self) -> Rows:
        """The expected calibration error before and after the temperature; empty where none was fitted."""
        return self._rows(CALIBRATION)

    @property
    def operating(self) -> Rows:
        """Sensitivity and specificity at the operating point; empty where there is none."""
        rows = []
        for name in ("sensitivity", "specificity"):
            cells = []
            for split in EVALUATED_SPLITS:
                one = self.metrics[split]
                value = (one.get("operating") or {}).get(name)
                cells.append(cell(value, (one.get("intervals") or {}).get(f"operating_{name}")))
            rows.append([name, *cells])
        return [row for row in rows if set(row[1:]) != {NOTHING}]

    @property
    def baselines(self) -> Rows:
        """A row a baseline that needs no photograph: its name, split, QWK and accuracy, and what the model has more."""
        rows = []
        for split, name in SPLIT_NAMES.items():
            for kind, one in (self.metrics[split].get("baselines") or {}).items():
                gain: Told = one.get("gain") or {}
                shown = [cell(one.get(number)) for number in ("qwk", "accuracy")]
                shown += [between(gain.get(number)) for number in ("qwk", "accuracy")]
                rows.append([baseline_name(kind, one), name, *shown])
        return rows

    @property
    def by_grade(self) -> Rows:
        """A row a grade, on test: its name, photographs, recall, precision and AUC with intervals."""
        test = self.metrics["test"]
        counts = self.test_counts
        rows = []
        for grade, name in enumerate(GRADE_NAMES):
            cells = [cell(_at(test.get(key), grade), _at(_intervals(test, key), grade)) for key in BY_GRADE]
            rows.append([f"{grade} {name}", str(counts[grade]) if counts else NOTHING, *cells])
        return rows

    @property
    def confusion(self) -> Rows:
        """A row a true grade, on test: its name, and how many photographs were called each grade."""
        matrix = self.metrics["test"].get("confusion_matrix") or []
        return [[f"{grade} {GRADE_NAMES[grade]}", *map(str, row)] for grade, row in enumerate(matrix)]

    @property
    def test_counts(self) -> list[int]:
        """Test photographs of each grade; empty where metrics.json does not tell."""
        return [sum(row) for row in self.metrics["test"].get("confusion_matrix") or []]

    @property
    def referable(self) -> list[list[int]]:
        """A pair a split of `photographs`: not referable, referable."""
        rows = [[int(count) for count in row[2:]] for row in self.photographs]
        return [[sum(row[:REFERABLE_GRADE]), sum(row[REFERABLE_GRADE:])] for row in rows]

    @property
    def scarce(self) -> list[str]:
        """Grades of which test has too few photographs to say much."""
        counts = enumerate(self.test_counts)
        return [f"{count} of {grade} {GRADE_NAMES[grade]}" for grade, count in counts if count < FEW]

    @property
    def is_split_by_patient(self) -> bool:
        """Whether a split that came with the photographs was ignored for one by patient."""
        return self.spec.data.split == "by_patient"

    @property
    def effort(self) -> str:
        """The search in a line: its method, trials, hours, machine, and what ended it; empty where it is not known."""
        if not self.states:
            return ""
        trials = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        method = self.spec.method if "method" in self.spec.model_fields_set else "a"  # a default is not known
        told = [f"{method} search over {sum(self.states.values())} trials ({trials})"]
        if "seconds" in self.notes:
            minutes = self.notes["seconds"] / 60
            spent = f"{minutes / 60:.1f} hours" if minutes >= 60 else f"{minutes:.0f} minutes"
            told.append(f"{spent}{self._machine}")
        if self.notes.get("ended_by"):
            told.append(f"ended by {self.notes['ended_by']}")
        return ", ".join(told)

    @property
    def _machine(self) -> str:
        if self.notes.get("gpus"):
            return f" on {', '.join(self.notes['gpus'])}"
        return f" on {self.notes['cores']} cores of {self.notes['cpu']}" if "cpu" in self.notes else ""

    @property
    def searched(self) -> Rows:
        """A row a parameter that was searched: its name and where."""
        return [[name, told] for name, one in self.spec.parameters.items() if (told := _space(one))]

    def _rows(self, labels: Mapping[str, str]) -> Rows:
        rows = []
        for key, label in labels.items():
            both = [self.metrics[split] for split in EVALUATED_SPLITS]
            rows.append([label, *(cell(one.get(key), _intervals(one, key)) for one in both)])
        return [row for row in rows if set(row[1:]) != {NOTHING}]


def settings(trial: TrialConfig) -> Rows:
    """A row a setting of the chosen trial."""
    return [[name, str(value)] for name, value in trial.model_dump(mode="json").items()]


def cell(value: Any, interval: Any = None) -> str:
    """A number to three digits, its interval behind it if there is one."""
    return NOTHING if value is None else " ".join(filter(None, [f"{value:.3f}", between(interval, "")]))


def between(interval: Any, nothing: str = NOTHING) -> str:
    """An interval."""
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else nothing


def _intervals(split: Told, key: str) -> Any:
    return (split.get("intervals") or {}).get(key)


def _at(values: Any, grade: int) -> Any:
    return values[grade] if values and len(values) == GRADES else None


def _space(parameter: Parameter) -> str:
    """Where a parameter was searched; empty where it was not."""
    if parameter.distribution:
        told = f"{parameter.min} to {parameter.max}, {parameter.distribution}"
    elif parameter.values is not None:
        told = ", ".join(str(value) for value in parameter.values)
    else:
        return ""
    when = ", ".join(f"{name} is {value}" for name, value in parameter.when.items())
    return f"{told}; where {when}" if when else told


def _states(run: RunFolder) -> dict[str, int]:
    counts = run.trials()["state"].value_counts()
    return {str(state): int(count) for state, count in counts.items()}
