"""Groups of photographs that are the same one, or nearly, and what their labels make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from retina.audit.inspect_photograph import PhotographFindings
from retina.audit.labels import SPLITS_AND_UNSET, settled
from retina.data import duplicates


@dataclass(frozen=True)
class Group:
    """Photographs that belong together.

    Attributes:
        rows: their positions in the manifest's table, ascending; two or more.
        exact: whether all their decoded pixels are the same.
        grades: that they are labelled with, ascending, each once.
        splits: that they are in, each once, in the order of `labels.SPLITS_AND_UNSET`; "" where the layout gives no
            split at all.
        patients: how many they are labelled as.
        blank: whether they are of one colour all over; a sweep does not join such.
    """

    rows: tuple[int, ...]
    exact: bool
    grades: tuple[int, ...]
    splits: tuple[str, ...]
    patients: int
    blank: bool = False

    @property
    def conflict(self) -> bool:
        """Whether one photograph has two grades."""
        return len(self.grades) > 1

    @property
    def crosses(self) -> bool:
        """Whether it is on both sides of a split."""
        return len(self.splits) > 1

    @property
    def loose(self) -> bool:
        """Whether a cut by patient may part it: it counts as several patients, and all of it is there to be cut."""
        return self.patients > 1 and self.splits in {("",), ("train",)}


def find(frame: pd.DataFrame, seen: Sequence[PhotographFindings]) -> list[Group]:
    """The groups of duplicates, those first that cross a split, then those with conflicting grades.

    Args:
        frame: a manifest's table.
        seen: what was seen on each of its photographs; those that cannot be read have no duplicates.
    """
    frame = frame.assign(split=settled(frame["split"]))
    found = duplicates.find([one.digest for one in seen], [one.details for one in seen])
    groups = [_group(frame, seen, rows) for rows in found]
    return sorted(groups, key=lambda group: (not group.crosses, not group.conflict, not group.exact, group.rows))


def _group(frame: pd.DataFrame, seen: Sequence[PhotographFindings], rows: tuple[int, ...]) -> Group:
    mine = frame.iloc[list(rows)]
    return Group(
        rows=rows,
        exact=len({seen[row].digest for row in rows}) == 1,
        grades=tuple(sorted(set(mine["grade"].tolist()))),
        splits=tuple(split for split in SPLITS_AND_UNSET if (mine["split"] == split).any()),
        patients=int(mine["patient"].nunique()),
        blank=all(seen[row].blank for row in rows),
    )
