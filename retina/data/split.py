"""The split into train, val and test, by patient because the two eyes of one person are not independent.

scikit-learn's StratifiedGroupKFold also keeps groups together and balances classes, but it cuts k folds of about equal
size. This module cuts any share, 0.15 for example, to within the largest patient, and keeps every grade in train.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from retina.config import GRADES, DataConfig
from retina.data.duplicates import Duplicates, merge_patients
from retina.data.manifest import Manifest
from retina.errors import DataError

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """A manifest's table with every row in "train", "val" or "test".

    Attributes:
        frame: the manifest's rows and columns, `split` filled in.
        shared_patients: patients with photographs both in test and in train or val.
        leaking_photographs: test photographs of those patients.
        warnings: problems of the split that can distort a score; empty for a clean split.
    """

    frame: pd.DataFrame
    shared_patients: int = 0
    leaking_photographs: int = 0
    warnings: list[str] = field(default_factory=list)


def assign_splits(manifest: Manifest, config: DataConfig, duplicates: Duplicates | None = None) -> Split:
    """Assign every photograph to a split: keep the official split and cut the splits that it lacks.

    With `config.split` "by_patient" the official split is ignored.

    Test is cut first, a share `config.test` of the photographs that are in no official val or test split, then
    validation, a share `config.validation` of the rest. Each cut keeps a patient's photographs together and takes the
    same share of every grade. Test is cut from patients who are not in an official validation split, if there are
    enough. The same photographs, seed and shares give the same split, whatever the order of the rows.

    Patients who share a photograph of `duplicates` count as one, unless `config.join_duplicates` is "none"; the table
    keeps their names. Without duplicates the split is the same for every value of `join_duplicates`.

    Raises:
        DataError: too few patients to cut, or an official split that leaves nothing to train on.
    """
    assigned = manifest.frame.reset_index(drop=True)
    duplicates = duplicates or Duplicates(config.join_duplicates)
    joined_groups = [] if config.join_duplicates == "none" else duplicates.groups
    frame = assigned.assign(patient=merge_patients(assigned["patient"], joined_groups))
    split = frame["split"].to_numpy(dtype=object, copy=True)
    split[(split == "") | (config.split == "by_patient")] = "train"
    missing = [name for name in ("test", "val") if not (split == name).any()]
    shares = {"test": config.test, "val": config.validation}
    patients = frame.loc[split == "train", "patient"].nunique()
    _check_enough(patients, missing, manifest, has_joined=bool(joined_groups))
    for position, name in enumerate(missing):
        pool = np.flatnonzero(split == "train")
        rng = np.random.default_rng([config.seed, int(name == "test")])
        leave, share = len(missing) - position, shares[name]
        if name == "test":  # validation chooses the model, so its patients would make the test score too good
            not_in_val = pool[~frame.loc[pool, "patient"].isin(frame.loc[split == "val", "patient"]).to_numpy()]
            if frame.loc[not_in_val, "patient"].nunique() > leave and len(not_in_val) > share * len(pool):
                pool, share = not_in_val, share * len(pool) / len(not_in_val)
        taken = _cut(frame.loc[pool, ["patient", "grade"]], share, rng, leave=leave)
        split[pool[taken]] = name
    assigned["split"] = pd.Series(split, index=assigned.index).astype("str")
    return _with_warnings(assigned, duplicates)


def _check_enough(patients: int, missing: list[str], manifest: Manifest, *, has_joined: bool) -> None:
    needed = 1 + len(missing)
    if patients >= needed:
        return
    if not patients:
        raise DataError(
            f"{manifest.root}: its own split leaves no photograph to train on; data.split=by_patient makes a new one"
        )
    hint = (
        "\n(patients who share a photograph count as one; data.join_duplicates=none counts them separately)"
        if has_joined
        else ""
    )
    raise DataError(
        f"{manifest.root}: {patients} {'patient is' if patients == 1 else 'patients are'} too few to cut "
        f"{' and '.join(missing)} from train by patient; it takes at least {needed}{hint}"
    )


def _cut(rows: pd.DataFrame, share: float, rng: np.random.Generator, leave: int) -> _Mask:
    """Mark about `share` of `rows`, whole patients only, at least one, leaving at least `leave` patients."""
    grades = pd.crosstab(rows["patient"], rows["grade"]).reindex(columns=range(GRADES), fill_value=0).sort_index()
    counts = grades.to_numpy()
    sizes = counts.sum(axis=1)
    order = _order_by_worst_grade(counts, rng)
    requested = share * sizes.sum()
    # taking a patient with more photographs would miss the share by more than taking none
    candidates = order[sizes[order] <= 2 * requested]
    taken = np.zeros(len(counts), dtype=bool)
    if len(candidates):
        share_of_candidates = min(1.0, requested / sizes[candidates].sum())
        taken[candidates] = _take_evenly(sizes[candidates], share_of_candidates, rng.random())
    _return_patients(counts, taken, order, leave)
    if not taken.any():
        taken[_dispensable_patient(counts, order)] = True
    taken_patients = grades.index[taken]
    return rows["patient"].isin(taken_patients).to_numpy()


def _order_by_worst_grade(counts: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Order patients by the number of photographs of the worst grade, then the next worst; ties at random."""
    shuffled = rng.permutation(len(counts))
    return shuffled[np.lexsort(-counts[shuffled].T)]


def _take_evenly(sizes: npt.NDArray[np.int64], share: float, start: float) -> list[bool]:
    """Go through the patients in order and take one whenever at least half of its photographs are due.

    Neighbours have the same grades, so each grade contributes its share, however few photographs it has. `start`
    (0 to 1) shifts the first choice; without it the first patients of the worst grade would never be taken. The sum
    misses its share by less than the largest patient: by up to half of the first patient because of the shift, and
    half of the last.
    """
    due = (start - 0.5) * float(sizes[0])
    takes = []
    for size in sizes.tolist():
        due += share * size
        takes.append(due >= size / 2)
        due -= size * takes[-1]
    return takes


def _return_patients(counts: npt.NDArray[np.int64], taken: _Mask, order: npt.NDArray[np.int64], leave: int) -> None:
    """Return taken patients until the rest has every grade, which cannot be learnt otherwise, and `leave` patients."""
    for grade in range(GRADES):
        has = counts[:, grade] > 0
        if has.any() and not (has & ~taken).any() and taken.sum() > 1:
            taken[next(patient for patient in order[::-1] if has[patient])] = False
    for patient in order[::-1]:
        if (~taken).sum() >= leave:
            return
        taken[patient] = False


def _dispensable_patient(counts: npt.NDArray[np.int64], order: npt.NDArray[np.int64]) -> int:
    """Return a patient who is not the only one with a grade, of the commonest grades first; otherwise any."""
    total = counts.sum(axis=0)
    dispensable = (patient for patient in order[::-1] if not ((counts[patient] > 0) & (counts[patient] == total)).any())
    return int(next(dispensable, order[-1]))


def _with_warnings(frame: pd.DataFrame, duplicates: Duplicates) -> Split:
    test = frame["split"] == "test"
    test_leaking = test & frame["patient"].isin(frame.loc[~test, "patient"])
    train, val = frame["split"] == "train", frame["split"] == "val"
    val_leaking = val & frame["patient"].isin(frame.loc[train, "patient"])
    warnings = [
        f"{leaking.sum():,} of {whole.sum():,} {name} photographs ({leaking.sum() / whole.sum():.1%}) are of patients "
        f"who are in {others} too (patients on both sides: {frame.loc[leaking, 'patient'].nunique():,}), so that "
        f"{name} scores are too optimistic; data.split=by_patient makes a split without them"
        for leaking, whole, name, others in (
            (test_leaking, test, "test", "train or val"),
            (val_leaking, val, "val", "train"),
        )
        if leaking.any()
    ]
    warnings += _duplicate_warnings(frame, duplicates)
    return Split(frame, int(frame.loc[test_leaking, "patient"].nunique()), int(test_leaking.sum()), warnings)


def _duplicate_warnings(frame: pd.DataFrame, duplicates: Duplicates) -> list[str]:
    warnings = []
    if across := duplicates.groups_differing_in(frame, "split"):
        pairs = sorted({" and ".join(sorted(set(frame["split"].iloc[list(group)]))) for group in across})
        remedy = "data.split=by_patient makes a split" if duplicates.join != "none" else "data.join_duplicates=same"
        warnings.append(
            f"{_count_groups(len(across))} of {duplicates.kind} photographs ({sum(map(len, across)):,} photographs) "
            f"{'is' if len(across) == 1 else 'are'} on both sides of the split ({'; '.join(pairs)}), so that scores "
            f"are too optimistic; {remedy} {'that ' if duplicates.join != 'none' else ''}keeps them together"
        )
    if conflicting := duplicates.groups_differing_in(frame, "grade"):
        warnings.append(
            f"{_count_groups(len(conflicting))} of {duplicates.kind} photographs "
            f"{'has' if len(conflicting) == 1 else 'have'} conflicting grades; duplicates.csv in the results lists them"
        )
    return warnings


def _count_groups(n: int) -> str:
    return f"{n:,} {'group' if n == 1 else 'groups'}"
