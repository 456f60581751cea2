"""The retinal vessels: arteries and veins leave the optic disc as arcades, branch, taper, and keep off the fovea.

Grown in the frame of a right eye in field units about the *fovea*: x towards the nose, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retina.data.synthetic.canvas import Array, Rng

ARCADE, OUTWARD, INWARD = 0, 1, 2
"""What pulls a vessel: the arc round the macula, away from the optic disc, towards the fovea."""

AVASCULAR = 0.12
"""Radius round the fovea that vessels do not enter."""


@dataclass(frozen=True)
class Vessels:
    """Paths (n, points, 2), widths (n, points) in field units, and which of the n are veins, and which are trunks."""

    paths: Array
    widths: Array
    vein: NDArray[np.bool_]
    trunk: NDArray[np.bool_]


@dataclass(frozen=True)
class _Shoots:
    """Vessels about to grow, one row each."""

    start: Array
    heading: Array
    length: Array
    width: Array
    vein: NDArray[np.bool_]
    pull: NDArray[np.int64]
    bend: Array  # curvature of the arcade that it follows
    half: Array  # -1 above the fovea, +1 below


def grow(rng: Rng, disc: Array) -> Vessels:
    """All vessels of one eye whose optic disc is at `disc` (2,): trunks, then three generations of branches."""
    trunks = _trunks(rng, disc)
    generations = [(trunks, *_follow(rng, trunks, disc, points=56, restless=0.3))]
    for share, points, restless in ((7, 40, 0.42), (2.2, 26, 0.5), (1.3, 18, 0.55)):
        shoots, paths, widths = generations[-1]
        young = _branches(rng, shoots, paths, widths, share)
        generations.append((young, *_follow(rng, young, disc, points=points, restless=restless)))
    longest = 56
    return Vessels(
        paths=np.concatenate([_resample(paths, longest) for _, paths, _ in generations]),
        widths=np.concatenate([_resample(widths[..., None], longest)[..., 0] for _, _, widths in generations]),
        vein=np.concatenate([shoots.vein for shoots, _, _ in generations]),
        trunk=np.arange(sum(len(shoots.start) for shoots, _, _ in generations)) < 8,
    )


def _trunks(rng: Rng, disc: Array) -> _Shoots:
    """Eight trunks (artery and vein, temporal and nasal, above and below), and the small vessels of the disc's rim."""
    half = np.array([-1.0, -1, 1, 1, -1, -1, 1, 1])
    vein = np.array([True, False] * 4)
    temporal = np.arange(8) < 4
    up = half * np.pi / 2
    heading = np.where(temporal, up + half * rng.uniform(-0.1, 0.5, 8), half * rng.uniform(0.75, 1.35, 8))
    base = np.repeat(rng.uniform(1.5, 2.5, 4), 2)
    caliber = rng.uniform(0.9, 1.12)
    width = np.where(vein, 0.0235, 0.0175) * np.where(temporal, 1, 0.72) * rng.uniform(0.9, 1.1, 8) * caliber
    small = int(rng.integers(5, 9))
    to_macula = rng.random(small) < 0.5
    small_half = rng.choice([-1.0, 1.0], small)
    small_heading = np.where(
        to_macula, np.pi + small_half * rng.uniform(-0.9, -0.35, small), small_half * rng.uniform(0.0, 0.6, small)
    )
    return _Shoots(
        start=disc + np.concatenate([rng.normal((0.015, 0), 0.012, (8, 2)), rng.normal(0, 0.03, (small, 2))]),
        heading=np.concatenate([heading, small_heading]),
        length=np.concatenate(
            [np.where(temporal, 2.1, 1.3) * rng.uniform(0.9, 1.1, 8), rng.uniform(0.35, 0.65, small)]
        ),
        width=np.concatenate([width, rng.uniform(0.006, 0.009, small)]),
        vein=np.concatenate([vein, rng.random(small) < 0.5]),
        pull=np.concatenate([np.where(temporal, ARCADE, OUTWARD), np.where(to_macula, INWARD, OUTWARD)]),
        bend=np.concatenate([base * rng.uniform(0.85, 1.15, 8), np.full(small, 6.0)]),
        half=np.concatenate([half, small_half]),
    )


def _branches(rng: Rng, parents: _Shoots, paths: Array, widths: Array, share: float) -> _Shoots:
    """About `share` branches of each parent, longer parents having more."""
    count = rng.poisson(share * np.clip(parents.length / parents.length.mean(), 0.4, 1.6))
    parent = np.repeat(np.arange(len(count)), count)
    points = paths.shape[1]
    spot = (rng.uniform(0.14, 0.95, len(parent)) * points).astype(int).clip(1, points - 2)
    ahead = paths[parent, spot + 1] - paths[parent, spot - 1]
    side = rng.choice([-1.0, 1.0], len(parent))
    start = paths[parent, spot]
    heading = np.arctan2(ahead[:, 1], ahead[:, 0]) + side * rng.uniform(0.45, 1.15, len(parent))
    width = widths[parent, spot] * rng.uniform(0.42, 0.75, len(parent))
    towards_fovea = (np.cos(heading) * -start[:, 0] + np.sin(heading) * -start[:, 1]) > 0
    inward = towards_fovea & (np.hypot(*start.T) < 0.85)
    keep = (width > 0.0012) & ~(inward & (rng.random(len(parent)) < 0.35))
    return _Shoots(
        start=start[keep],
        heading=heading[keep],
        length=(width * rng.uniform(38, 80, len(parent)) + rng.uniform(0.04, 0.12, len(parent)))[keep],
        width=width[keep],
        vein=parents.vein[parent][keep],
        pull=np.where(inward, INWARD, OUTWARD)[keep],
        bend=parents.bend[parent][keep],
        half=parents.half[parent][keep],
    )


def _follow(rng: Rng, shoots: _Shoots, disc: Array, *, points: int, restless: float) -> tuple[Array, Array]:
    """Let all shoots grow side by side; their paths (n, points, 2) and tapering widths (n, points)."""
    n = len(shoots.start)
    along = np.linspace(0, 1, points)
    stray = np.zeros((n, points))
    for waves in (1.5, 3.5, 7):
        amplitude = rng.normal(0, restless / np.sqrt(waves), (n, 1))
        stray += amplitude * np.sin(2 * np.pi * waves * along + rng.uniform(0, 2 * np.pi, (n, 1)))
    step = shoots.length / points
    stiffness = np.where(shoots.pull == ARCADE, 5.5, np.where(shoots.pull == INWARD, 1.2, 0.8)) * step
    place, heading = shoots.start.copy(), shoots.heading.copy()
    paths = np.empty((n, points, 2))
    for i in range(points):
        paths[:, i] = place
        target = _target(place, shoots, disc)
        heading += stiffness * np.sin(target - heading)
        course = heading + stray[:, i]
        place = place + np.stack([np.cos(course) * step, np.sin(course) * step], axis=-1)
    widths = shoots.width[:, None] * (1 - 0.62 * along**0.8)
    return _stop_at_fovea(paths), widths


def _target(place: Array, shoots: _Shoots, disc: Array) -> Array:
    """The heading (n,) that each shoot is pulled to at its `place`."""
    x, y = place[:, 0], place[:, 1] - disc[1]
    rise = np.clip((x + 0.4) / (disc[0] + 0.4), -0.25, 1)
    arcade = np.arctan2(shoots.half * rise, -2 * shoots.bend * np.abs(y))
    outward = np.arctan2(place[:, 1] - disc[1], x - disc[0])
    inward = np.arctan2(-place[:, 1], -x)
    chosen: Array = np.choose(shoots.pull, [arcade, outward, inward])
    return chosen


def _stop_at_fovea(paths: Array) -> Array:
    """Paths that end where they would enter the avascular zone: the rest collapses onto that point."""
    inside = np.logical_or.accumulate(np.hypot(paths[..., 0], paths[..., 1]) < AVASCULAR, axis=1)
    last = np.maximum(inside.argmax(axis=1) - 1, 0)
    stop = paths[np.arange(len(paths)), last][:, None, :]
    return np.where(inside[..., None], stop, paths)


def _resample(values: Array, points: int) -> Array:
    """Linear interpolation of (n, m, c) to (n, points, c)."""
    position = np.linspace(0, values.shape[1] - 1, points)
    low = np.minimum(position.astype(int), values.shape[1] - 2)
    part = (position - low)[:, None]
    between: Array = values[:, low] * (1 - part) + values[:, low + 1] * part
    return between
