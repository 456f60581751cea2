"""What the labels alone tell: photographs a grade and split, patients and eyes, who is on both sides of a split.

No photograph is looked at, so this works on label lists whose photographs are absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from retina.config import GRADES
from retina.config.splits import SPLITS
from retina.data.layouts.file_index import own_name
from retina.metrics import baselines
from retina.metrics.baselines import KNOWN_SPLITS, Baseline

SPLITS_AND_UNSET = (*SPLITS, "")
"""In the order in which they are shown; "" is what the layout leaves open, see `settled`."""


@dataclass(frozen=True)
class Overlap:
    """Patients of `split` who are in train, or for test in validation, too.

    Attributes:
        split: "val" or "test".
        others: the splits on the other side, "train or val".
        patients: on both sides.
        photographs: theirs in `split`.
        of: photographs in `split`.
    """

    split: str
    others: str
    patients: int
    photographs: int
    of: int


@dataclass(frozen=True)
class Labels:
    """What was counted.

    Attributes:
        counts: photographs, int64, one row a split that has any (index "train", "val", "test", "" in this order), one
            column a grade 0 to 4.
        patients: how many; photographs that name none count as a patient each.
        named: whether the labels say of at least one photograph which patient it is of.
        eyes: photographs by eye: "left", "right" and "" for those that do not say.
        both_eyes: patients with photographs of the left and of the right eye.
        overlaps: only splits that do overlap.
        majority: the baseline "always train's commonest grade", of val and test where there are such.
        fellow_eye: the baseline "the grade of the patient's other photographs", where a split overlaps.
    """

    counts: pd.DataFrame
    patients: int
    named: bool
    eyes: dict[str, int]
    both_eyes: int
    overlaps: list[Overlap] = field(default_factory=list)
    majority: dict[str, Baseline] = field(default_factory=dict)
    fellow_eye: dict[str, Baseline] = field(default_factory=dict)

    @property
    def settled(self) -> pd.DataFrame:
        """`counts` with "" counted as a sweep does, see the function of this name."""
        given = self.counts.index.to_series()
        counts: pd.DataFrame = self.counts.groupby(settled(given), sort=False).sum()
        return counts.loc[[split for split in SPLITS_AND_UNSET if split in counts.index]]

    @property
    def photographs(self) -> int:
        """All of them."""
        return int(self.counts.to_numpy().sum())


def settled(splits: pd.Series[str]) -> pd.Series[str]:
    """The splits as a sweep takes them: where any is given, what is left open trains (see `retina.data.split`)."""
    return splits.replace("", "train") if (splits != "").any() else splits


def count(frame: pd.DataFrame) -> Labels:
    """Count a manifest's table (see `retina.data.manifest.COLUMNS`)."""
    counts = pd.crosstab(frame["split"], frame["grade"]).reindex(
        index=[split for split in SPLITS_AND_UNSET if (frame["split"] == split).any()],
        columns=range(GRADES),
        fill_value=0,
    )
    frame = frame.assign(split=settled(frame["split"]))
    held_out = [split for split in KNOWN_SPLITS if {split, "train"} <= set(frame["split"])]
    overlaps = [overlap for split in held_out if (overlap := _overlap(frame, split))]
    eyes_of = frame[frame["eye"] != ""].groupby("patient")["eye"].nunique()
    return Labels(
        counts=counts,
        patients=int(frame["patient"].nunique()),
        named=any(map(_names_a_patient, frame["patient"], frame["image"], frame["path"])),
        eyes={eye: int((frame["eye"] == eye).sum()) for eye in ("left", "right", "")},
        both_eyes=int((eyes_of == 2).sum()),
        overlaps=overlaps,
        majority={split: baselines.majority_baseline(frame, split) for split in held_out},
        fellow_eye={overlap.split: baselines.fellow_eye_baseline(frame, overlap.split) for overlap in overlaps},
    )


def _names_a_patient(patient: str, image: str, path: str) -> bool:
    """Whether a row's patient is more than its photograph's own name, which stands where nothing is known.

    Where several photographs have one name, their own names have the folders in front that tell them apart.
    """
    in_folders = "/" in patient and own_name(path).endswith(f"/{patient}")
    return patient != own_name(image) and not in_folders


def _overlap(frame: pd.DataFrame, split: str) -> Overlap | None:
    mine = frame["split"] == split
    others = [other for other in KNOWN_SPLITS[split] if (frame["split"] == other).any()]
    shared = mine & frame["patient"].isin(frame.loc[frame["split"].isin(others), "patient"])
    if not shared.any():
        return None
    patients = int(frame.loc[shared, "patient"].nunique())
    return Overlap(split, " or ".join(others), patients, int(shared.sum()), int(mine.sum()))
