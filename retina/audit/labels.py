"""Statistics of the labels: photographs by grade and split, patients, eyes, and patients on both sides of a split.

No photograph is read, so this also works for label lists whose photographs are absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from retina.config import GRADES
from retina.config.splits import SPLITS
from retina.data.formats import strip_image_suffix
from retina.metrics import baselines
from retina.metrics.baselines import KNOWN_SPLITS, Baseline

SPLITS_AND_UNSET = (*SPLITS, "")
"""The splits in the order of display; "" for rows without one, see `effective_splits`."""


@dataclass(frozen=True)
class Overlap:
    """Patients of a held-out split who are also in train, or for test in train or val.

    Attributes:
        split: "val" or "test".
        others: the other splits as text, "train" or "train or val".
        patients: number of patients on both sides.
        photographs: number of their photographs in `split`.
        split_size: number of all photographs in `split`.
    """

    split: str
    others: str
    patients: int
    photographs: int
    split_size: int


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of a manifest's labels.

    Attributes:
        counts: number of photographs, int64, with a row for each split that has any (index "train", "val", "test", ""
            in this order) and a column for each grade 0 to 4.
        patients: number of patients; each photograph without a patient counts as one.
        has_patients: whether the labels name the patient of at least one photograph.
        eyes: number of photographs by eye: "left", "right", and "" for unknown.
        both_eyes: number of patients with photographs of both eyes.
        overlaps: the splits that share patients with others.
        majority: the baseline "always the most common grade of train", for val and test if they exist.
        fellow_eye: the baseline "the grade of the patient's other photographs", for splits with an overlap.
    """

    counts: pd.DataFrame
    patients: int
    has_patients: bool
    eyes: dict[str, int]
    both_eyes: int
    overlaps: list[Overlap] = field(default_factory=list)
    majority: dict[str, Baseline] = field(default_factory=dict)
    fellow_eye: dict[str, Baseline] = field(default_factory=dict)

    @property
    def effective_counts(self) -> pd.DataFrame:
        """`counts` by the splits that a sweep uses, see `effective_splits`."""
        splits = self.counts.index.to_series()
        counts: pd.DataFrame = self.counts.groupby(effective_splits(splits), sort=False).sum()
        return counts.loc[[split for split in SPLITS_AND_UNSET if split in counts.index]]

    @property
    def photographs(self) -> int:
        """The number of photographs."""
        return int(self.counts.to_numpy().sum())


def effective_splits(splits: pd.Series[str]) -> pd.Series[str]:
    """Return the splits that a sweep uses: if any row has one, rows without one are train (see `retina.data.split`)."""
    return splits.replace("", "train") if (splits != "").any() else splits


def summarize(frame: pd.DataFrame) -> LabelStatistics:
    """Return the statistics of a manifest's table (see `retina.data.manifest.COLUMNS`)."""
    counts = pd.crosstab(frame["split"], frame["grade"]).reindex(
        index=[split for split in SPLITS_AND_UNSET if (frame["split"] == split).any()],
        columns=range(GRADES),
        fill_value=0,
    )
    frame = frame.assign(split=effective_splits(frame["split"]))
    held_out = [split for split in KNOWN_SPLITS if {split, "train"} <= set(frame["split"])]
    overlaps = [overlap for split in held_out if (overlap := _overlap(frame, split))]
    eyes_of = frame[frame["eye"] != ""].groupby("patient")["eye"].nunique()
    return LabelStatistics(
        counts=counts,
        patients=int(frame["patient"].nunique()),
        has_patients=any(map(_names_a_patient, frame["patient"], frame["image"], frame["path"])),
        eyes={eye: int((frame["eye"] == eye).sum()) for eye in ("left", "right", "")},
        both_eyes=int((eyes_of == 2).sum()),
        overlaps=overlaps,
        majority={split: baselines.majority_baseline(frame, split) for split in held_out},
        fellow_eye={overlap.split: baselines.fellow_eye_baseline(frame, overlap.split) for overlap in overlaps},
    )


def _names_a_patient(patient: str, image: str, path: str) -> bool:
    """Return whether a row's patient is known, and is not only the photograph's own name.

    If several photographs have one name, their own names begin with the folders that distinguish them.
    """
    is_path = "/" in patient and strip_image_suffix(path).endswith(f"/{patient}")
    return patient != strip_image_suffix(image) and not is_path


def _overlap(frame: pd.DataFrame, split: str) -> Overlap | None:
    is_in_split = frame["split"] == split
    others = [other for other in KNOWN_SPLITS[split] if (frame["split"] == other).any()]
    shared = is_in_split & frame["patient"].isin(frame.loc[frame["split"].isin(others), "patient"])
    if not shared.any():
        return None
    patients = int(frame.loc[shared, "patient"].nunique())
    return Overlap(split, " or ".join(others), patients, int(shared.sum()), int(is_in_split.sum()))
