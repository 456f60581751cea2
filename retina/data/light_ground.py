"""Find a fundus disc on a white, grey or coloured ground instead of black, for example on paper.

The disc is the region whose colour differs from the ground's or, if the ground has no even colour (a shaded scan,
noise), the red region. A region counts as a disc only if its rim lies on a circle, it covers enough of the photograph,
and its surroundings are ground. So the optic disc of a retina that fills the photograph does not count.
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
FindShape = Callable[[Mask], tuple[Mask, NDArray[np.floating[Any]]] | None]

_MAX_BLACK = 16  # largest value of the brightest channel of a black corner
_MAX_CORNER_DIFFERENCE = 24  # levels by which corners of the same ground may differ
_THRESHOLDS = (0.15, 0.25, 0.35, 0.5)  # fractions of the difference between ground and disc
_MIN_CONTRAST = 8.0  # levels between ground and disc
_MIN_AREA = 0.15  # fraction of the photograph; an optic disc has 0.02 to 0.04 of a retina that fills it
_MIN_FILLED = 0.9  # fraction of the circle's part inside the photograph
_MAX_FOREIGN = 0.15  # fraction of the surroundings that may not be ground: text, a logo
_MIN_STEEPNESS = 0.04  # fraction of the contrast per pixel: a step has 0.1 to 0.28, a darkening retina 0.01
_MAX_UNEVEN = 4  # levels by which an even colour varies after JPEG
_MIN_EVEN_BORDER = 0.7  # fraction of the photograph's border that a page's colour covers
_MIN_REDNESS = 1.15  # ratio of red to green and blue in the darkest retina


@dataclass(frozen=True)
class Ground:
    """The supposed ground around a disc: its colour, and the standard deviation of its values."""

    colour: Floats
    noise: float


def find_ground(small: Pixels) -> Ground | None:
    """Find the ground of a photograph whose corners are not black.

    Args:
        small: (height, width, 3) uint8 RGB, about 256 pixels wide.

    Returns:
        The ground; None if a corner is black, as in most photographs.
    """
    side = max(round(0.03 * min(small.shape[:2])), 1)
    corners = [small[rows, columns].reshape(-1, 3) for rows in np.s_[:side, -side:] for columns in np.s_[:side, -side:]]
    medians = np.array([np.median(corner, axis=0) for corner in corners], np.float32)
    if medians.max(axis=1).min() <= _MAX_BLACK:
        return None
    colour: Floats = np.median(medians, axis=0).astype(np.float32)
    similar = np.abs(medians - colour).max(axis=1) <= _MAX_CORNER_DIFFERENCE
    alike = [corner for corner, is_similar in zip(corners, similar, strict=True) if is_similar]
    return Ground(colour, max(float(corner.std(axis=0).max()) for corner in alike or corners))


def find_disc_mask(small: Pixels, ground: Ground, find_shape: FindShape) -> Mask | None:
    """Find the disc on the ground.

    Args:
        small: the same as for `find_ground`.
        ground: the result of `find_ground`.
        find_shape: returns the largest region of a mask, filled, and the circle (x, y, radius) that its rim lies on.

    Returns:
        The mask of the disc; None if there is no clear disc.
    """
    for level, margin in _levels(small, ground):
        high = float(np.percentile(level, 95))
        if high - margin < _MIN_CONTRAST:
            continue
        discs = [
            disc for threshold in _THRESHOLDS if (disc := _find_disc_above(level, margin, high, threshold, find_shape))
        ]
        if discs:
            return max(discs, key=lambda disc: disc[0])[1]
    return None


def may_be_retina(small: Pixels, ground: Ground) -> bool:
    """Return whether the retina may fill a photograph without a disc: its border is not of an even colour, and is red.

    For a grey photograph only the first is checked.
    """
    sides = small[:3], small[-3:], small[:, :3], small[:, -3:]
    border = np.concatenate([side.reshape(-1, 3) for side in sides]).astype(np.float32)
    distance = np.abs(border - ground.colour).max(axis=-1)
    if (distance <= _MAX_UNEVEN).mean() >= _MIN_EVEN_BORDER:
        return False
    is_grey = np.percentile(np.ptp(small.astype(np.int16), axis=-1), 95) < 12
    red, green, blue = np.median(border, axis=0)
    return bool(is_grey or red > _MIN_REDNESS * max(green, blue))


def _levels(small: Pixels, ground: Ground) -> Iterator[tuple[Floats, float]]:
    """Yield measures of each pixel's difference from the ground, with the largest value of the ground itself."""
    smooth = ndimage.gaussian_filter(small.astype(np.float32), (1, 1, 0))
    yield np.abs(smooth - ground.colour).max(axis=-1), max(3 * ground.noise, 4.0)
    redness: Floats = smooth[..., 0] - smooth[..., 1:].mean(axis=-1)
    ground_redness = float(ground.colour[0] - ground.colour[1:].mean())
    yield np.maximum(redness - ground_redness, 0), max(ground.noise, 4.0)


def _find_disc_above(
    level: Floats, margin: float, high: float, threshold: float, find_shape: FindShape
) -> tuple[float, Mask] | None:
    """Find a disc among the pixels above a threshold, and return the steepness of its rim and its mask."""
    above: Mask = level > margin + threshold * (high - margin)
    shape = find_shape(above)
    if shape is None:
        return None
    disc, (x, y, radius) = shape
    rows, columns = np.mgrid[: level.shape[0], : level.shape[1]] + 0.5
    distance = np.hypot(columns - x, rows - y)
    inside, around = distance < radius - 1, distance > radius + 2
    if disc.mean() < _MIN_AREA or not inside.any() or disc[inside].mean() < _MIN_FILLED:
        return None
    if above[around].sum() > _MAX_FOREIGN * around.sum() or around.mean() < 0.02:
        return None
    rim = disc & ~ndimage.binary_erosion(disc, border_value=1)
    steepness = float(ndimage.gaussian_gradient_magnitude(level, 1.0)[rim].mean())
    return (steepness, disc) if steepness > _MIN_STEEPNESS * high else None
