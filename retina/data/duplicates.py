"""Photographs that are in a data set more than once, and the patients who share them."""

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
"""The columns of duplicates.csv."""


@dataclass(frozen=True)
class Duplicates:
    """Groups of identical photographs of a table, or with `join` "near" of nearly identical ones.

    Attributes:
        join: the setting `data.join_duplicates`.
        groups: positions in the table, two or more in each group, ascending.
    """

    join: str = "same"
    groups: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The kind of duplicates, for messages: "identical" or "nearly identical"."""
        return "nearly identical" if self.join == "near" else "identical"

    def summary(self, frame: pd.DataFrame) -> dict[str, Any]:
        """Return the entry of environment.json: numbers of groups, photographs, and groups with a conflict."""
        return {
            "join": self.join,
            "groups": len(self.groups),
            "photographs": sum(map(len, self.groups)),
            "across_splits": len(self.groups_differing_in(frame, "split")),
            "conflicting_grades": len(self.groups_differing_in(frame, "grade")),
        }

    def groups_differing_in(self, frame: pd.DataFrame, column: str) -> list[tuple[int, ...]]:
        """Return the groups with more than one value in a column of the table."""
        values = frame[column].to_numpy()
        return [group for group in self.groups if len(set(values[list(group)])) > 1]

    def rows(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        """Return the rows of duplicates.csv: all photographs of all groups; groups with several grades come first."""
        conflicting = set(self.groups_differing_in(frame, "grade"))
        across = set(self.groups_differing_in(frame, "split"))
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


def find_groups(digests: Sequence[str], details: Sequence[bytes] | None = None) -> list[tuple[int, ...]]:
    """Find groups of duplicates, ordered by their first members.

    Args:
        digests: `pixel_hash` of each photograph.
        details: `perceptual_hash.read_details` of each photograph; if None, only equal hashes make a group.
    """
    pairs = identical_pairs(digests)
    if details is not None:
        pairs = np.concatenate([pairs, find_near_pairs(details, skip=pairs[:, 1])])
    return connected_groups(pairs, len(digests))


def identical_pairs(digests: Sequence[str]) -> Pairs:
    """Pair each photograph with the first one that has the same hash, (p, 2) int64."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, row), row) for row, digest in enumerate(digests) if digest]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def find_near_pairs(details: Sequence[bytes], skip: NDArray[np.int64]) -> Pairs:
    """Find pairs that look alike, (p, 2) int64; rows in `skip`, which have a twin of equal hash, are not compared."""
    skipped = set(skip.tolist())
    rows = [row for row, data in enumerate(details) if data and row not in skipped]
    images = np.frombuffer(b"".join(details[row] for row in rows), np.int8).reshape(-1, SIDE, SIDE)
    return np.array(rows, np.int64)[perceptual_hash.find_near_pairs(images)]


def connected_groups(pairs: Pairs, n: int) -> list[tuple[int, ...]]:
    """Return the groups of two or more of `n` nodes that `pairs` connect, ascending."""
    if not len(pairs):
        return []
    labels = _component_labels(pairs, n)
    members = pd.Series(np.arange(n)).groupby(labels).agg(list)
    return sorted(tuple(rows) for rows in members if len(rows) > 1)


def merge_patients(patients: pd.Series[str], groups: list[tuple[int, ...]]) -> pd.Series[str]:
    """Merge patients who share a duplicate into one, named after the first of them in alphabetical order.

    A chain of such patients is merged into one. Without groups the patients are returned unchanged.
    """
    if not groups:
        return patients
    codes, names = pd.factorize(patients, sort=True)
    pairs = [(codes[group[0]], codes[other]) for group in groups for other in group[1:]]
    labels = _component_labels(np.array(pairs, np.int64), len(names))
    first = pd.Series(np.asarray(names)).groupby(labels).first().to_numpy()  # `names` are sorted
    return pd.Series(first[labels[codes]], index=patients.index).astype("str")


def _component_labels(pairs: Pairs, n: int) -> NDArray[np.int32]:
    ones = np.ones(len(pairs), np.bool_)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels
