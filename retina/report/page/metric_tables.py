"""The best model's numbers, as the cells of the page's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retina.config import GRADE_NAMES, GRADES
from retina.config.splits import EVALUATED_SPLITS, SPLIT_NAMES
from retina.metrics.verdict import baseline_name, known_patients, resampling_unit
from retina.report.ensemble_results import NUMBERS, EnsembleResult
from retina.report.figures import BLUES, ink_on
from retina.report.page.run_data import finite_or_none
from retina.report.terminal.best_model import SHOWN

BY_GRADE = {"recall": "recall", "precision": "precision", "auc_by_grade": "AUC"}
Told = Mapping[str, Any]


@dataclass(frozen=True)
class TableCell:
    """A number as it is shown, and its 95% interval where there is one."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table: what it is, and a cell a split."""

    name: str
    cells: list[TableCell]


@dataclass(frozen=True)
class Square:
    """A cell of a confusion matrix: count, share, colours of its ground and ink."""

    count: str
    share: str
    ground: str
    ink: str


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: heading, and for each true grade its name, photographs and five squares, none if empty."""

    title: str
    rows: list[tuple[str, int, list[Square]]]


def splits(best: Told) -> dict[str, str]:
    """The splits that the best model was judged on: key and heading."""
    told = {key: best[key] for key in EVALUATED_SPLITS if isinstance(best.get(key), Mapping)}
    return {key: _heading(SPLIT_NAMES[key], one) for key, one in told.items()}


def resamples(best: Told) -> str:
    """What the intervals are from; empty where there are none."""
    told = [best[split] for split in splits(best) if best[split].get("resamples")]
    return f"{told[-1]['resamples']:,} resamples of {resampling_unit(told[-1])}" if told else ""


def overall(best: Told) -> list[Line]:
    """The numbers over all grades that are known."""
    rows = {key: name.strip() for key, name in SHOWN.items()} | {
        "ece": "calibration error (ECE)",
        "ece_calibrated": "calibration error, tempered",
        "nll": "negative log-likelihood",
        "loss": "loss",
    }
    lines = [Line(name, [_cell(best[split], key) for split in splits(best)]) for key, name in rows.items()]
    lines[-4:-4] = _operating(best)
    return [line for line in lines if any(cell.value for cell in line.cells)]


def by_grade(best: Told) -> list[Line]:
    """Recall, precision and AUC of each grade."""
    lines = [
        Line(f"{name} of {grade} {GRADE_NAMES[grade]}", [_cell(best[split], key, grade) for split in splits(best)])
        for key, name in BY_GRADE.items()
        for grade in range(GRADES)
    ]
    return [line for line in lines if any(cell.value for cell in line.cells)]


def baselines(best: Told) -> list[Line]:
    """What needs no photograph, beside the model: accuracy and QWK on each split; empty where none were measured."""
    known = {split: best[split].get("baselines") or {} for split in splits(best)}
    names = {name: told for one in known.values() for name, told in one.items()}
    if not names:
        return []
    lines = [Line("the model", [_cell(best[split], key) for split in known for key in ("qwk", "accuracy")])]
    for name, told in names.items():
        cells = [
            TableCell(_three(known[split].get(name, {}).get(key))) for split in known for key in ("qwk", "accuracy")
        ]  # fmt: skip
        lines.append(Line(baseline_name(name, told), cells))
    return lines


def baseline_notes(best: Told) -> list[str]:
    """How many photographs the fellow eye's rule knows a grade of."""
    found = []
    for split in splits(best):
        fellow = (best[split].get("baselines") or {}).get("fellow_eye")
        if fellow and "with_fellow" in fellow:
            known = "train" if split == "val" else "train or validation"
            n = f"{fellow['with_fellow']:,} of {fellow.get('n', best[split].get('n', 0)):,}"
            found.append(
                f"On {SPLIT_NAMES[split]} the grade of a fellow eye is known, from {known}, for {n} photographs."
            )
    return found


def ways(made: list[EnsembleResult]) -> list[Line]:
    """The best trial alone, the ensemble and the soup: `NUMBERS` on validation, then on test."""
    return [
        Line(way.name, [_cell(way.split_metrics[split], key) for split in EVALUATED_SPLITS for key in NUMBERS])
        for way in made
    ]


def matrices(best: Told) -> Iterator[Matrix]:
    """Confusion matrices of the splits: shares of all photographs, and of each true grade's."""
    for split in splits(best):
        counts = np.asarray(best[split].get("confusion_matrix", []))
        if counts.shape == (GRADES, GRADES) and counts.sum() > 0:
            n = f"n = {counts.sum():,}"
            yield _matrix(counts, f"{SPLIT_NAMES[split]}, {n}: shares of all photographs", by_row=False)
            yield _matrix(counts, f"{SPLIT_NAMES[split]}, {n}: shares of each true grade", by_row=True)


def _matrix(counts: np.ndarray[Any, Any], title: str, *, by_row: bool) -> Matrix:
    whole = counts.sum(axis=1, keepdims=True) if by_row else counts.sum(keepdims=True)
    shares = counts / np.maximum(whole, 1)
    top = 1.0 if by_row else max(float(shares.max()), 0.01)
    rows = []
    for grade in range(GRADES):
        n = int(counts[grade].sum())
        squares = [_square(int(counts[grade, k]), float(shares[grade, k]), top) for k in range(GRADES)]
        rows.append((f"{grade} {GRADE_NAMES[grade]}", n, [] if by_row and not n else squares))
    return Matrix(title, rows)


def _square(count: int, share: float, top: float) -> Square:
    colour = BLUES(share / top)
    red, green, blue = (round(255 * part) for part in colour[:3])
    return Square(f"{count:,}", f"{share:.1%}", f"rgb({red} {green} {blue})", ink_on(colour))


def _heading(name: str, told: Told) -> str:
    patients = known_patients(told) if "n" in told else None
    return f"{name} (n = {told.get('n', 0):,}{f', {patients:,} patients' if patients else ''})"


def _operating(best: Told) -> list[Line]:
    threshold = finite_or_none((best.get("operating_point") or {}).get("threshold"))
    if threshold is None:
        return []
    return [
        Line(
            f"{name} at the operating point, {threshold:.3f}", [_operated(best[split], name) for split in splits(best)]
        )
        for name in ("sensitivity", "specificity")
    ]


def _operated(told: Told, name: str) -> TableCell:
    value = (told.get("operating") or {}).get(name)
    between = (told.get("intervals") or {}).get(f"operating_{name}")
    return TableCell(_three(value), _between(between))


def _cell(told: Told, key: str, grade: int | None = None) -> TableCell:
    """A number; empty where this sweep's version did not know it, "-" where it is not defined."""
    if key not in told:
        return TableCell("")
    value, between = told[key], (told.get("intervals") or {}).get(key)
    if grade is not None:
        value, between = value[grade], between[grade] if between else None
    return TableCell(_three(value) or "-", _between(between))


def _three(value: Any) -> str:
    found = finite_or_none(value)
    return "" if found is None else f"{found:.3f}"


def _between(between: Any) -> str:
    return f"{between[0]:.3f} to {between[1]:.3f}" if between else ""
