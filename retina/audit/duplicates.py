"""Groups of photographs that are the same one, or nearly, and what their labels make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retina.audit.labels import SPLITS, settled
from retina.audit.look import Seen
from retina.data import likeness
from retina.data.likeness import SIDE, Pairs


@dataclass(frozen=True)
class Group:
    """Photographs that belong together.

    Attributes:
        rows: their positions in the manifest's table, ascending; two or more.
        exact: whether all of them are the very same file (in an npz file: the same pixels).
        grades: that they are labelled with, ascending, each once.
        splits: that they are in, each once, in the order of `labels.SPLITS`; "" where the layout gives no split at all.
        patients: how many they are labelled as.
    """

    rows: tuple[int, ...]
    exact: bool
    grades: tuple[int, ...]
    splits: tuple[str, ...]
    patients: int

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


def find(frame: pd.DataFrame, seen: Sequence[Seen]) -> list[Group]:
    """The groups of duplicates, those first that cross a split, then those with conflicting grades.

    Args:
        frame: a manifest's table.
        seen: what was seen on each of its photographs; those that cannot be read have no duplicates.
    """
    frame = frame.assign(split=settled(frame["split"]))
    same = _same([one.digest for one in seen])
    edges = np.concatenate([same, _near(seen, twins=same[:, 1])])
    groups = [_group(frame, seen, rows) for rows in _components(edges, len(seen))]
    return sorted(groups, key=lambda group: (not group.crosses, not group.conflict, not group.exact, group.rows))


def _same(digests: Sequence[str]) -> Pairs:
    """Each photograph with the first one that has the same digest, (p, 2) int64."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, row), row) for row, digest in enumerate(digests) if digest]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _near(seen: Sequence[Seen], twins: NDArray[np.int64]) -> Pairs:
    """Pairs that look alike; of those with the same digest only the first is looked at."""
    left_out = set(twins.tolist())
    rows = [row for row, one in enumerate(seen) if one.details and row not in left_out]
    details = np.frombuffer(b"".join(seen[row].details for row in rows), np.int8).reshape(-1, SIDE, SIDE)
    return np.array(rows, np.int64)[likeness.near_pairs(details)]


def _components(edges: Pairs, n: int) -> list[tuple[int, ...]]:
    ones = np.ones(len(edges), np.bool_)
    _, labels = connected_components(coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(n, n)), directed=False)
    members = pd.Series(np.arange(n)).groupby(labels).agg(list)
    return [tuple(rows) for rows in members if len(rows) > 1]


def _group(frame: pd.DataFrame, seen: Sequence[Seen], rows: tuple[int, ...]) -> Group:
    mine = frame.iloc[list(rows)]
    return Group(
        rows=rows,
        exact=len({seen[row].digest for row in rows}) == 1,
        grades=tuple(sorted(set(mine["grade"].tolist()))),
        splits=tuple(split for split in SPLITS if (mine["split"] == split).any()),
        patients=int(mine["patient"].nunique()),
    )
