"""Photographs that are in a data set more than once, and which patients that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retina.data import perceptual_hash
from retina.data.perceptual_hash import SIDE, Pairs

COLUMNS = ["group", "image", "grade", "split", "patient", "where", "conflicting_grades", "across_splits"]
"""Of duplicates.csv."""


@dataclass(frozen=True)
class Duplicates:
    """Groups of photographs of a table that are the same, or with `join` "near" nearly the same.

    Attributes:
        join: `data.join_duplicates`.
        groups: positions in the table, two or more each, ascending.
    """

    join: str = "same"
    groups: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """What they are called."""
        return "nearly identical" if self.join == "near" else "identical"

    def summary(self, frame: pd.DataFrame) -> dict[str, Any]:
        """What environment.json says: how many groups and photographs in them; across splits; with several grades."""
        return {
            "join": self.join,
            "groups": len(self.groups),
            "photographs": sum(map(len, self.groups)),
            "across_splits": len(self.differing(frame, "split")),
            "conflicting_grades": len(self.differing(frame, "grade")),
        }

    def differing(self, frame: pd.DataFrame, column: str) -> list[tuple[int, ...]]:
        """The groups that are not of one value in a column of the table."""
        values = frame[column].to_numpy()
        return [group for group in self.groups if len(set(values[list(group)])) > 1]

    def rows(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """Rows of duplicates.csv: all photographs of all groups; those with several grades come first."""
        conflicting, across = set(self.differing(frame, "grade")), set(self.differing(frame, "split"))
        ordered = sorted(self.groups, key=lambda group: (group not in conflicting, group not in across, group))
        return [
            {
                "group": number,
                **{name: frame[name].iloc[row] for name in ("image", "grade", "split", "patient", "where")},
                "conflicting_grades": "yes" if group in conflicting else "",
                "across_splits": "yes" if group in across else "",
            }
            for number, group in enumerate(ordered, 1)
            for row in group
        ]


def find(digests: Sequence[str], details: Sequence[bytes] | None = None) -> list[tuple[int, ...]]:
    """Groups of photographs that belong together, by their first members.

    Args:
        digests: `pixel_hash` of each.
        details: `likeness.details_of` each; without, only those with the same hash are found.
    """
    edges = same_pairs(digests)
    if details is not None:
        edges = np.concatenate([edges, near_pairs(details, twins=edges[:, 1])])
    return components(edges, len(digests))


def same_pairs(digests: Sequence[str]) -> Pairs:
    """Each photograph with the first one that has the same hash, (p, 2) int64."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, row), row) for row, digest in enumerate(digests) if digest]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def near_pairs(details: Sequence[bytes], twins: NDArray[np.int64]) -> Pairs:
    """Pairs that look alike, (p, 2) int64; `twins`, whose hash another one has, are not looked at."""
    left_out = set(twins.tolist())
    rows = [row for row, one in enumerate(details) if one and row not in left_out]
    described = np.frombuffer(b"".join(details[row] for row in rows), np.int8).reshape(-1, SIDE, SIDE)
    return np.array(rows, np.int64)[perceptual_hash.near_pairs(described)]


def components(edges: Pairs, n: int) -> list[tuple[int, ...]]:
    """Groups of two or more of `n` that edges connect, ascending."""
    if not len(edges):
        return []
    labels = _labels(edges, n)
    members = pd.Series(np.arange(n)).groupby(labels).agg(list)
    return sorted(tuple(rows) for rows in members if len(rows) > 1)


def joined(patients: pd.Series[str], groups: list[tuple[int, ...]]) -> pd.Series[str]:
    """The patients with those made one who share a duplicate, named by the first of them in alphabetical order.

    A chain of such patients is one; without groups they are as they were.
    """
    if not groups:
        return patients
    codes, names = pd.factorize(patients, sort=True)
    edges = [(codes[group[0]], codes[other]) for group in groups for other in group[1:]]
    labels = _labels(np.array(edges, np.int64), len(names))
    first = pd.Series(np.asarray(names)).groupby(labels).first().to_numpy()  # `names` are sorted
    return pd.Series(first[labels[codes]], index=patients.index).astype("str")


def _labels(edges: Pairs, n: int) -> NDArray[np.int32]:
    ones = np.ones(len(edges), np.bool_)
    found = connected_components(coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(n, n)), directed=False)
    labels: NDArray[np.int32] = found[1]
    return labels
