"""Grow the retinal vessels: arteries and veins leave the optic disc as arcades, branch, taper and avoid the fovea.

Coordinates are those of a right eye in field units relative to the *fovea*: x towards the nose, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retina.data.synthetic.canvas import Array, Rng

ARCADE, OUTWARD, INWARD = 0, 1, 2
"""Where a vessel is pulled: along the arc around the macula, away from the optic disc, towards the fovea."""

AVASCULAR_RADIUS = 0.12
"""Radius around the fovea that vessels do not enter."""


@dataclass(frozen=True)
class Vessels:
    """Paths (n, points, 2) and widths (n, points) in field units, and which of the n vessels are veins and trunks."""

    paths: Array
    widths: Array
    vein: NDArray[np.bool_]
    trunk: NDArray[np.bool_]


@dataclass(frozen=True)
class _Shoots:
    """Parameters of vessels before they grow, a row for each vessel."""

    start: Array
    heading: Array
    length: Array
    width: Array
    vein: NDArray[np.bool_]
    pull: NDArray[np.int64]
    bend: Array  # curvature of the arcade that the vessel follows
    half: Array  # -1 above the fovea, +1 below


def grow_vessels(rng: Rng, disc: Array) -> Vessels:
    """Grow all vessels of an eye whose optic disc is at `disc` (2,): trunks, then three generations of branches."""
    trunks = _start_trunks(rng, disc)
    generations = [(trunks, *_grow(rng, trunks, disc, points=56, restless=0.3))]
    for branches_per_vessel, points, restless in ((7, 40, 0.42), (2.2, 26, 0.5), (1.3, 18, 0.55)):
        shoots, paths, widths = generations[-1]
        branches = _start_branches(rng, shoots, paths, widths, branches_per_vessel)
        generations.append((branches, *_grow(rng, branches, disc, points=points, restless=restless)))
    most_points = 56
    return Vessels(
        paths=np.concatenate([_resample(paths, most_points) for _, paths, _ in generations]),
        widths=np.concatenate([_resample(widths[..., None], most_points)[..., 0] for _, _, widths in generations]),
        vein=np.concatenate([shoots.vein for shoots, _, _ in generations]),
        trunk=np.arange(sum(len(shoots.start) for shoots, _, _ in generations)) < 8,
    )


def _start_trunks(rng: Rng, disc: Array) -> _Shoots:
    """Draw eight trunks (artery and vein, temporal and nasal, above and below) and small vessels of the disc's rim."""
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


def _start_branches(rng: Rng, parents: _Shoots, paths: Array, widths: Array, mean_count: float) -> _Shoots:
    """Draw about `mean_count` branches for each parent, more for longer parents."""
    count = rng.poisson(mean_count * np.clip(parents.length / parents.length.mean(), 0.4, 1.6))
    parent = np.repeat(np.arange(len(count)), count)
    points = paths.shape[1]
    point = (rng.uniform(0.14, 0.95, len(parent)) * points).astype(int).clip(1, points - 2)
    direction = paths[parent, point + 1] - paths[parent, point - 1]
    side = rng.choice([-1.0, 1.0], len(parent))
    start = paths[parent, point]
    heading = np.arctan2(direction[:, 1], direction[:, 0]) + side * rng.uniform(0.45, 1.15, len(parent))
    width = widths[parent, point] * rng.uniform(0.42, 0.75, len(parent))
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


def _grow(rng: Rng, shoots: _Shoots, disc: Array, *, points: int, restless: float) -> tuple[Array, Array]:
    """Grow all shoots at once, and return their paths (n, points, 2) and tapering widths (n, points)."""
    n = len(shoots.start)
    along = np.linspace(0, 1, points)
    stray = np.zeros((n, points))
    for waves in (1.5, 3.5, 7):
        amplitude = rng.normal(0, restless / np.sqrt(waves), (n, 1))
        stray += amplitude * np.sin(2 * np.pi * waves * along + rng.uniform(0, 2 * np.pi, (n, 1)))
    step = shoots.length / points
    stiffness = np.where(shoots.pull == ARCADE, 5.5, np.where(shoots.pull == INWARD, 1.2, 0.8)) * step
    position, heading = shoots.start.copy(), shoots.heading.copy()
    paths = np.empty((n, points, 2))
    for i in range(points):
        paths[:, i] = position
        target = _target_heading(position, shoots, disc)
        heading += stiffness * np.sin(target - heading)
        course = heading + stray[:, i]
        position = position + np.stack([np.cos(course) * step, np.sin(course) * step], axis=-1)
    widths = shoots.width[:, None] * (1 - 0.62 * along**0.8)
    return _stop_at_fovea(paths), widths


def _target_heading(position: Array, shoots: _Shoots, disc: Array) -> Array:
    """Return the heading (n,) to which each shoot is pulled at its position (n, 2)."""
    x, y = position[:, 0], position[:, 1] - disc[1]
    rise = np.clip((x + 0.4) / (disc[0] + 0.4), -0.25, 1)
    arcade = np.arctan2(shoots.half * rise, -2 * shoots.bend * np.abs(y))
    outward = np.arctan2(position[:, 1] - disc[1], x - disc[0])
    inward = np.arctan2(-position[:, 1], -x)
    heading: Array = np.choose(shoots.pull, [arcade, outward, inward])
    return heading


def _stop_at_fovea(paths: Array) -> Array:
    """End paths where they would enter the avascular zone, by moving all further points to that point."""
    inside = np.logical_or.accumulate(np.hypot(paths[..., 0], paths[..., 1]) < AVASCULAR_RADIUS, axis=1)
    last = np.maximum(inside.argmax(axis=1) - 1, 0)
    stop = paths[np.arange(len(paths)), last][:, None, :]
    return np.where(inside[..., None], stop, paths)


def _resample(values: Array, points: int) -> Array:
    """Interpolate (n, m, c) linearly to (n, points, c)."""
    position = np.linspace(0, values.shape[1] - 1, points)
    low = np.minimum(position.astype(int), values.shape[1] - 2)
    weight = (position - low)[:, None]
    interpolated: Array = values[:, low] * (1 - weight) + values[:, low + 1] * weight
    return interpolated
