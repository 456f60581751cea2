"""Who trains, who validates, who tests: by patient, because the two eyes of one person are not independent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from retina.config import GRADES, DataConfig
from retina.data.duplicates import Duplicates, joined
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
        warnings: what a person should know before trusting a score; empty for a clean split.
    """

    frame: pd.DataFrame
    shared_patients: int = 0
    leaking_photographs: int = 0
    warnings: list[str] = field(default_factory=list)


def assign(manifest: Manifest, config: DataConfig, duplicates: Duplicates | None = None) -> Split:
    """Respect the official split, or with `config.split` "by_patient" ignore it, and cut what is missing.

    Test is cut first, a share `config.test` of the photographs that no official split claims, then validation, a share
    `config.validation` of what is left. Each cut keeps a patient's photographs together and takes the same share
    of every grade. Test is cut from patients who are not in an official validation split, where there are enough. The
    same photographs, seed and shares give the same split, whatever the order of the rows.

    Patients who share a photograph of `duplicates` count as one, unless `config.join_duplicates` is "none"; their names
    in the table stay. Without duplicates the split is the same with any of its values.

    Raises:
        DataError: too few patients to cut, or an official split that leaves nothing to train on.
    """
    named = manifest.frame.reset_index(drop=True)
    duplicates = duplicates or Duplicates(config.join_duplicates)
    together = [] if config.join_duplicates == "none" else duplicates.groups
    frame = named.assign(patient=joined(named["patient"], together))
    split = frame["split"].to_numpy(dtype=object, copy=True)
    split[(split == "") | (config.split == "by_patient")] = "train"
    missing = [name for name in ("test", "val") if not (split == name).any()]
    shares = {"test": config.test, "val": config.validation}
    pool_of_patients = frame.loc[split == "train", "patient"].nunique()
    _check_enough(pool_of_patients, missing, manifest, has_joined=bool(together))
    for at, name in enumerate(missing):
        pool = np.flatnonzero(split == "train")
        rng = np.random.default_rng([config.seed, int(name == "test")])
        leave, share = len(missing) - at, shares[name]
        if name == "test":  # validation chooses the model, so that its patients would flatter it
            apart = pool[~frame.loc[pool, "patient"].isin(frame.loc[split == "val", "patient"]).to_numpy()]
            if frame.loc[apart, "patient"].nunique() > leave and len(apart) > share * len(pool):
                pool, share = apart, share * len(pool) / len(apart)
        taken = _cut(frame.loc[pool, ["patient", "grade"]], share, rng, leave=leave)
        split[pool[taken]] = name
    named["split"] = pd.Series(split, index=named.index).astype("str")
    return _described(named, duplicates)


def _check_enough(patients: int, missing: list[str], manifest: Manifest, *, has_joined: bool) -> None:
    needed = 1 + len(missing)
    if patients >= needed:
        return
    if not patients:
        raise DataError(
            f"{manifest.root}: its own split leaves no photograph to train on; data.split=by_patient makes a new one"
        )
    hint = (
        "\n(who shares a photograph counts as one; data.join_duplicates=none counts them apart)" if has_joined else ""
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
    order = _worst_first(counts, rng)
    wanted = share * sizes.sum()
    walk = order[sizes[order] <= 2 * wanted]  # to take a larger patient would miss the share by more than taking none
    taken = np.zeros(len(counts), dtype=bool)
    if len(walk):
        taken[walk] = _evenly(sizes[walk], min(1.0, wanted / sizes[walk].sum()), rng.random())
    _give_back(counts, taken, order, leave)
    if not taken.any():
        taken[_spared(counts, order)] = True
    chosen = grades.index[taken]
    return rows["patient"].isin(chosen).to_numpy()


def _worst_first(counts: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Patients by their numbers of photographs of the worst grade, the next, and so on; at random among equals."""
    shuffled = rng.permutation(len(counts))
    return shuffled[np.lexsort(-counts[shuffled].T)]


def _evenly(sizes: npt.NDArray[np.int64], share: float, start: float) -> list[bool]:
    """Walk the patients and take one whenever half of its photographs are owed.

    Neighbours have the same grades, so that every grade gives its share, however few of it there are. `start`
    (0 to 1) shifts the walk: without it the worst grade's first patients would never be taken. The sum misses its
    share by less than the largest patient: by up to half of the first one for the shift, and half of the last one.
    """
    owed = (start - 0.5) * float(sizes[0])
    takes = []
    for size in sizes.tolist():
        owed += share * size
        takes.append(owed >= size / 2)
        owed -= size * takes[-1]
    return takes


def _give_back(counts: npt.NDArray[np.int64], taken: _Mask, order: npt.NDArray[np.int64], leave: int) -> None:
    """Return patients to the rest until it has every grade, which nothing can be learnt of otherwise, and `leave`."""
    for grade in range(GRADES):
        has = counts[:, grade] > 0
        if has.any() and not (has & ~taken).any() and taken.sum() > 1:
            taken[next(at for at in order[::-1] if has[at])] = False
    for at in order[::-1]:
        if (~taken).sum() >= leave:
            return
        taken[at] = False


def _spared(counts: npt.NDArray[np.int64], order: npt.NDArray[np.int64]) -> int:
    """A patient whose grades all remain without it, of the commonest grades first; else any."""
    total = counts.sum(axis=0)
    spared = (at for at in order[::-1] if not ((counts[at] > 0) & (counts[at] == total)).any())
    return int(next(spared, order[-1]))


def _described(frame: pd.DataFrame, duplicates: Duplicates) -> Split:
    test = frame["split"] == "test"
    leaking = test & frame["patient"].isin(frame.loc[~test, "patient"])
    train, val = frame["split"] == "train", frame["split"] == "val"
    seen = val & frame["patient"].isin(frame.loc[train, "patient"])
    warnings = [
        f"{part.sum():,} of {whole.sum():,} {name} photographs ({part.sum() / whole.sum():.1%}) are of patients "
        f"who are in {others} too (patients on both sides: {frame.loc[part, 'patient'].nunique():,}), so that "
        f"{name} scores flatter; data.split=by_patient makes a split without them"
        for part, whole, name, others in ((leaking, test, "test", "train or val"), (seen, val, "val", "train"))
        if part.any()
    ]
    warnings += _of_duplicates(frame, duplicates)
    return Split(frame, int(frame.loc[leaking, "patient"].nunique()), int(leaking.sum()), warnings)


def _of_duplicates(frame: pd.DataFrame, duplicates: Duplicates) -> list[str]:
    warnings = []
    if across := duplicates.differing(frame, "split"):
        pairs = sorted({" and ".join(sorted(set(frame["split"].iloc[list(group)]))) for group in across})
        remedy = "data.split=by_patient makes a split" if duplicates.join != "none" else "data.join_duplicates=same"
        warnings.append(
            f"{_groups(len(across))} of {duplicates.kind} photographs ({sum(map(len, across)):,} photographs) "
            f"{'is' if len(across) == 1 else 'are'} on both sides of the split ({'; '.join(pairs)}), so that scores "
            f"flatter; {remedy} {'that ' if duplicates.join != 'none' else ''}keeps them together"
        )
    if conflicting := duplicates.differing(frame, "grade"):
        warnings.append(
            f"{_groups(len(conflicting))} of {duplicates.kind} photographs "
            f"{'has' if len(conflicting) == 1 else 'have'} conflicting grades; duplicates.csv in the results lists them"
        )
    return warnings


def _groups(n: int) -> str:
    return f"{n:,} {'group' if n == 1 else 'groups'}"
