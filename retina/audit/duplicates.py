"""Groups of identical or nearly identical photographs, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from retina.audit.inspect_photograph import PhotographFindings
from retina.audit.labels import SPLITS_AND_UNSET, effective_splits
from retina.data import duplicates


@dataclass(frozen=True)
class DuplicateGroup:
    """Photographs that are duplicates of one another.

    Attributes:
        rows: their positions in the manifest's table, ascending; two or more.
        is_exact: whether all their decoded pixels are equal.
        grades: their different grades, ascending.
        splits: their different splits, in the order of `labels.SPLITS_AND_UNSET`; "" if the layout gives no split at
            all.
        patients: number of patients that they are labelled as.
        is_blank: whether they are all of one colour; a sweep does not join such photographs.
    """

    rows: tuple[int, ...]
    is_exact: bool
    grades: tuple[int, ...]
    splits: tuple[str, ...]
    patients: int
    is_blank: bool = False

    @property
    def has_conflicting_grades(self) -> bool:
        """Whether the photographs have more than one grade."""
        return len(self.grades) > 1

    @property
    def crosses_splits(self) -> bool:
        """Whether the photographs are in more than one split."""
        return len(self.splits) > 1

    @property
    def can_be_separated(self) -> bool:
        """Whether a split by patient may separate them: they have several patients and are all yet to be split."""
        return self.patients > 1 and self.splits in {("",), ("train",)}


def find_groups(frame: pd.DataFrame, photographs: Sequence[PhotographFindings]) -> list[DuplicateGroup]:
    """Return the groups of duplicates: those across splits first, then those with conflicting grades.

    Args:
        frame: a manifest's table.
        photographs: the findings on each of its photographs; those that cannot be read have no duplicates.
    """
    frame = frame.assign(split=effective_splits(frame["split"]))
    row_groups = duplicates.find_groups(
        [photograph.digest for photograph in photographs], [photograph.details for photograph in photographs]
    )
    groups = [_to_group(frame, photographs, rows) for rows in row_groups]
    return sorted(
        groups,
        key=lambda group: (not group.crosses_splits, not group.has_conflicting_grades, not group.is_exact, group.rows),
    )


def _to_group(frame: pd.DataFrame, photographs: Sequence[PhotographFindings], rows: tuple[int, ...]) -> DuplicateGroup:
    group_frame = frame.iloc[list(rows)]
    return DuplicateGroup(
        rows=rows,
        is_exact=len({photographs[row].digest for row in rows}) == 1,
        grades=tuple(sorted(set(group_frame["grade"].tolist()))),
        splits=tuple(split for split in SPLITS_AND_UNSET if (group_frame["split"] == split).any()),
        patients=int(group_frame["patient"].nunique()),
        is_blank=all(photographs[row].is_blank for row in rows),
    )
