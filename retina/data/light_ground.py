"""A fundus disc on paper: on white, grey or coloured ground instead of black.

The disc is what differs from the ground's colour. Where the ground is no even colour (a shaded scan, noise), it is what
is red. Either way it is taken for a disc only if its rim lies on a circle, it takes a fair part of the photograph, and
what is around it is ground: so the optic disc of a retina that fills the photograph is not taken for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Shape = Callable[[Mask], tuple[Mask, NDArray[np.floating[Any]]] | None]

_DARK = 16  # brightest channel of a corner, up to which it is black
_ALIKE = 24  # levels by which corners of one ground differ
_EDGES = (0.15, 0.25, 0.35, 0.5)  # of the way from the ground to the disc
_LEAST_CONTRAST = 8.0  # levels between ground and disc
_LEAST_AREA = 0.15  # of the photograph; an optic disc takes 0.02 to 0.04 of a retina that fills it
_LEAST_FILLED = 0.9  # of the circle, as far as it is in the photograph
_MOST_AROUND = 0.15  # of what is around the circle may not be ground: text, a logo
_LEAST_STEEP = 0.04  # of the contrast, a pixel: a step has 0.1 to 0.28, a retina that grows darker 0.01
_EVEN = 4  # levels by which what is even differs from itself, as JPEG leaves it
_LEAST_FLAT = 0.7  # of the photograph's border that a page's colour takes
_REDDER = 1.15  # how many times as much red as green and blue the darkest retina has


@dataclass(frozen=True)
class Ground:
    """What is around a disc, or seems to be: its colour, and how much it varies."""

    colour: Floats
    noise: float


def of(small: Pixels) -> Ground | None:
    """The ground of a photograph whose corners are not black; None for the usual photograph.

    Args:
        small: (height, width, 3) uint8 RGB, some 256 pixels wide.
    """
    near = max(round(0.03 * min(small.shape[:2])), 1)
    corners = [small[rows, columns].reshape(-1, 3) for rows in np.s_[:near, -near:] for columns in np.s_[:near, -near:]]
    medians = np.array([np.median(corner, axis=0) for corner in corners], np.float32)
    if medians.max(axis=1).min() <= _DARK:
        return None
    colour: Floats = np.median(medians, axis=0).astype(np.float32)
    like = [corner for corner, one in zip(corners, medians, strict=True) if np.abs(one - colour).max() <= _ALIKE]
    return Ground(colour, max(float(corner.std(axis=0).max()) for corner in like or corners))


def mask(small: Pixels, ground: Ground, shape: Shape) -> Mask | None:
    """What of a photograph is a disc on the ground; None where that is not clear.

    Args:
        small: as for `of`.
        ground: what that returned.
        shape: gives the largest part of a mask, filled, and the circle (x, y, radius) that its rim lies on.
    """
    for level, margin in _levels(small, ground):
        high = float(np.percentile(level, 95))
        if high - margin < _LEAST_CONTRAST:
            continue
        found = [seen for edge in _EDGES if (seen := _disc_above(level, margin, high, edge, shape))]
        if found:
            return max(found, key=lambda one: one[0])[1]
    return None


def may_be_retina(small: Pixels, ground: Ground) -> bool:
    """Whether a photograph without a disc may be one that the retina fills: its border is no even colour, and is red.

    Of a grey photograph only the first can be told.
    """
    edges = small[:3], small[-3:], small[:, :3], small[:, -3:]
    border = np.concatenate([edge.reshape(-1, 3) for edge in edges]).astype(np.float32)
    distance = np.abs(border - ground.colour).max(axis=-1)
    if (distance <= _EVEN).mean() >= _LEAST_FLAT:
        return False
    is_grey = np.percentile(np.ptp(small.astype(np.int16), axis=-1), 95) < 12
    red, green, blue = np.median(border, axis=0)
    return bool(is_grey or red > _REDDER * max(green, blue))


def _levels(small: Pixels, ground: Ground) -> Iterator[tuple[Floats, float]]:
    """How unlike the ground each pixel is, and how unlike the ground itself is at most."""
    smooth = ndimage.gaussian_filter(small.astype(np.float32), (1, 1, 0))
    yield np.abs(smooth - ground.colour).max(axis=-1), max(3 * ground.noise, 4.0)
    redness: Floats = smooth[..., 0] - smooth[..., 1:].mean(axis=-1)
    own = float(ground.colour[0] - ground.colour[1:].mean())
    yield np.maximum(redness - own, 0), max(ground.noise, 4.0)


def _disc_above(level: Floats, margin: float, high: float, edge: float, shape: Shape) -> tuple[float, Mask] | None:
    """A disc among what is above an edge, and how steep its rim is."""
    above: Mask = level > margin + edge * (high - margin)
    found = shape(above)
    if found is None:
        return None
    part, (x, y, radius) = found
    rows, columns = np.mgrid[: level.shape[0], : level.shape[1]] + 0.5
    distance = np.hypot(columns - x, rows - y)
    inside, around = distance < radius - 1, distance > radius + 2
    if part.mean() < _LEAST_AREA or not inside.any() or part[inside].mean() < _LEAST_FILLED:
        return None
    if above[around].sum() > _MOST_AROUND * around.sum() or around.mean() < 0.02:
        return None
    rim = part & ~ndimage.binary_erosion(part, border_value=1)
    steepness = float(ndimage.gaussian_gradient_magnitude(level, 1.0)[rim].mean())
    return (steepness, part) if steepness > _LEAST_STEEP * high else None
