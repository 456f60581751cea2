"""Preprocessing of a fundus photograph: read it, find its disc, crop the square around the disc, resize it.

A photograph is a bright disc on black, often cut flat at top and bottom. It is never stretched: the square around the
disc is cropped, filled with black outside the photograph, and then resized.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from retina.data import light_ground
from retina.data.image_file import FORMATS, MAX_SIDE, Pixels, Source, read

__all__ = [
    "FORMATS",
    "MAX_SIDE",
    "PREPROCESSING",
    "SAME_PIXELS",
    "Disc",
    "Pixels",
    "Source",
    "find_disc",
    "read",
    "read_square",
    "to_square",
]

PREPROCESSING = "3"
"""Version of this preprocessing, part of the caches' keys. Increase it with every change of the resulting pixels."""
SAME_PIXELS = {"1", "2", PREPROCESSING}
"""Versions that give the same pixels for 8 bits a channel and a disc on black, as in all 536 photographs of IDRiD.

Version 1 read deeper colour as black and did not crop a disc on a light ground; version 2 ignored the orientation of
TIFFs of floats or 32 bits and of JPEGs of 12 bits. Such photographs differ.
"""

Points = NDArray[np.floating[Any]]

_SMALL_SIDE = 256  # longest side, in pixels, of the reduced photograph in which the disc is searched
_INNER_RADIUS = 0.99  # fraction of the radius of a disc on a light ground; farther out the two may be mixed
_MIN_SMOOTHED_SIDE = 64  # shortest side that is smoothed; smoothing moves the rim outwards by about one pixel
_MIN_CONTRAST = 3.0  # grey levels between the dark and the bright parts of a photograph that is not empty
# Thresholds as fractions of the difference between black and the disc; low because the disc is darkest at its rim.
_THRESHOLDS = (0.12, 0.2, 0.3)
# How much steeper the rim must be for the next higher threshold to be chosen; over-exposure glows around a disc.
_MIN_GAIN = 1.25


@dataclass(frozen=True)
class Disc:
    """The disc of a photograph, in pixels.

    Attributes:
        left, top, right, bottom: the bounding box, flat where the disc is cut; `right` and `bottom` are exclusive.
        x, y, radius: the whole circle, so that the centre of a disc cut at the top lies above the middle of its box. If
            no circle fits, they are the box's middle and half width.
        light: whether the ground around the disc is not black, for example paper, and must be replaced by black.
    """

    left: int
    top: int
    right: int
    bottom: int
    x: float
    y: float
    radius: float
    light: bool = False

    def square(self) -> tuple[int, int, int]:
        """Return left, top and side of the square that contains the box; it may extend beyond the photograph.

        Along the shorter side of the box the square is moved towards the circle's centre: it has equal margins if the
        disc is cut on both sides, and a margin on one side only if it is cut on one.
        """
        width, height = self.right - self.left, self.bottom - self.top
        side = max(width, height)
        x, y = _square_start(self.x, side, self.left, width), _square_start(self.y, side, self.top, height)
        return x, y, side


def _square_start(centre: float, side: int, start: int, length: int) -> int:
    return min(max(round(centre - side / 2), start + length - side), start)


def to_square(photograph: Pixels, size: int) -> tuple[Pixels, bool]:
    """Crop the square around the disc, black outside the photograph, and resize it; proportions are kept.

    Args:
        photograph: (height, width, 3) uint8 RGB.
        size: side of the result, in pixels.

    Returns:
        (size, size, 3) uint8 RGB, and whether a disc was found; if not, it is the whole photograph on a black square.
    """
    disc = find_disc(photograph)
    height, width = photograph.shape[:2]
    region = disc or _whole(width, height)
    left, top, side = region.square()
    crop = _crop(photograph, left, top, side)
    image = Image.fromarray(_blacken_ground(crop, region) if region.light else crop)
    # averaging 2 x 2 first, if the result is 3 times smaller still, has 53 dB to LANCZOS alone in 2/5 of its time
    return np.array(image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=1.5)), disc is not None


def read_square(path: Path, size: int) -> tuple[Pixels, bool]:
    """Read a photograph as a model's input: `to_square` of the file decoded at twice the size or more.

    Training and prediction both read files like this, so that they get the same pixels.

    Raises:
        DataError: as `read`.
    """
    return to_square(read(path, min_side=2 * size), size)


def _crop(photograph: Pixels, left: int, top: int, side: int) -> Pixels:
    height, width = photograph.shape[:2]
    inside = photograph[max(top, 0) : min(top + side, height), max(left, 0) : min(left + side, width)]
    if inside.shape[:2] == (side, side):
        return inside
    square = np.zeros((side, side, 3), np.uint8)
    row, column = max(-top, 0), max(-left, 0)
    square[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return square


def _blacken_ground(crop: Pixels, disc: Disc) -> Pixels:
    """Replace the ground around a disc by black, as other photographs have it."""
    left, top, side = disc.square()
    x, y = np.arange(side)[None, :] + 0.5 + left, np.arange(side)[:, None] + 0.5 + top  # in the photograph
    inside = np.hypot(x - disc.x, y - disc.y) < disc.radius * _INNER_RADIUS
    box = (x >= disc.left) & (x <= disc.right) & (y >= disc.top) & (y <= disc.bottom)
    return np.where((inside & box)[..., None], crop, np.uint8(0))


def _whole(width: int, height: int) -> Disc:
    return Disc(0, 0, width, height, width / 2, height / 2, max(width, height) / 2)


def find_disc(photograph: Pixels) -> Disc | None:
    """Find the disc of a fundus photograph, which may be dark, over-exposed, cut, noisy or with text in a corner.

    Args:
        photograph: (height, width, 3) uint8 RGB.

    Returns:
        The disc; it is the whole photograph if the retina fills it. None if the photograph is empty, only noise or a
        white page, or has a ground that is not black and no disc.
    """
    height, width = photograph.shape[:2]
    small = _reduce(photograph)
    is_large_enough = min(small.shape[:2]) >= _MIN_SMOOTHED_SIDE  # with fewer pixels the ground is not clear
    ground = light_ground.find_ground(small) if is_large_enough else None
    if ground is not None:
        light_mask = light_ground.find_disc_mask(small, ground, _find_round_region)
        if light_mask is not None:
            return replace(_to_disc(light_mask, _scale(photograph, light_mask), width, height), light=True)
        if not light_ground.may_be_retina(small, ground):
            return None
    level = _brightness(small)
    if level is None:
        return None
    mask = _largest_region(_bright_mask(level))
    if mask is None or _is_page(small[mask][::8]):
        return None
    return _to_disc(mask, _scale(photograph, mask), width, height)


def _scale(photograph: Pixels, small: NDArray[Any]) -> Points:
    """Return the size, in pixels of the photograph, of a pixel of the reduced photograph, in x and y."""
    return np.array([photograph.shape[1] / small.shape[1], photograph.shape[0] / small.shape[0]])


def _reduce(photograph: Pixels) -> Pixels:
    height, width = photograph.shape[:2]
    longest = max(height, width)
    if longest <= _SMALL_SIDE:
        return photograph
    step = max(longest // (4 * _SMALL_SIDE), 1)  # averaging 4 x 4 samples is enough against noise, and much faster
    size = (max(round(width * _SMALL_SIDE / longest), 1), max(round(height * _SMALL_SIDE / longest), 1))
    return np.asarray(Image.fromarray(photograph[::step, ::step]).resize(size, Image.Resampling.BOX))


def _brightness(small: Pixels) -> NDArray[np.float32] | None:
    """Return the brightness, smoothed unless it has few pixels; None for an empty photograph."""
    raw: NDArray[np.float32] = small.max(axis=-1).astype(np.float32)  # a dark fundus has little besides red
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(raw, 1.0)
    low, high = np.percentile(smooth, (1, 99))
    if high - low < _MIN_CONTRAST or smooth.var() < 0.3 * raw.var():  # smoothing removes 9/10 of white noise
        return None
    return smooth if min(raw.shape) >= _MIN_SMOOTHED_SIDE else raw


def _bright_mask(level: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the pixels brighter than the black around the disc; all pixels if there is no black."""
    height, width = level.shape
    side = max(round(0.03 * min(height, width)), 1)  # small, because a disc may reach far into the corners
    corners = [level[rows, columns] for rows in np.s_[:side, -side:] for columns in np.s_[:side, -side:]]
    darkest = min(corners, key=np.median)  # a time stamp fills one corner, rarely all
    black, high = float(np.median(darkest)), float(np.percentile(level, 90))
    if black > max(0.5 * high, 16):
        return np.ones(level.shape, np.bool_)
    margin = max(5 * float(darkest.std()), 1.5)
    steepness = ndimage.gaussian_gradient_magnitude(level, 1.0)
    masks = [level > black + max(threshold * (high - black), margin) for threshold in _THRESHOLDS]
    return masks[int(np.argmax([_MIN_GAIN**-k * _mean_at_rim(steepness, mask) for k, mask in enumerate(masks)]))]


def _mean_at_rim(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    rim = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return float(values[rim].mean()) if rim.any() else 0.0


def _largest_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return the largest connected region, opened and filled; None if it is too small or ragged for a disc."""
    iterations = round(min(mask.shape) / 100)
    if iterations:  # separates the disc from text beside it
        margin = 2 * iterations
        padded = np.pad(mask, margin, mode="edge")
        mask = ndimage.binary_opening(padded, iterations=iterations)[margin:-margin, margin:-margin]
    labels, count = ndimage.label(mask)
    if not count:
        return None
    region: NDArray[np.bool_] = ndimage.binary_fill_holes(labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1)
    left, top, right, bottom = _box(region)
    area = int(region.sum())
    return region if area >= 0.03 * region.size and area >= 0.55 * (right - left) * (bottom - top) else None


def _find_round_region(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Points] | None:
    """Return the largest region of a mask and the circle that its rim lies on; None if there is no such circle."""
    region = _largest_region(mask)
    circle = None if region is None else _fit_circle(_rim(region))
    return None if region is None or circle is None else (region, circle)


def _is_page(colours: Pixels) -> bool:
    return bool(np.median(colours.min(axis=-1)) > 215 and np.median(np.ptp(colours, axis=-1)) < 20)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _to_disc(mask: NDArray[np.bool_], scale: Points, width: int, height: int) -> Disc:
    """Convert a mask to its box and the circle that fits its rim, in pixels of the photograph.

    The radius is corrected because the middle of a rim pixel lies half a pixel inside the mask, and because smoothing
    moves the rim, see `_MIN_SMOOTHED_SIDE`.
    """
    low, high = np.array(_box(mask), np.float64).reshape(2, 2)  # x and y of two corners
    centre: Points = (low + high) / 2
    radius = float(np.max(high - low)) / 2
    circle = _fit_circle(_rim(mask))
    if circle is not None:
        centre, radius = circle[:2], float(circle[2]) + (0.5 if min(mask.shape) < _MIN_SMOOTHED_SIDE else -0.5)
        # no wider than the circle, so that a notch outside it is left out
        low, high = np.maximum(low, centre - radius), np.minimum(high, centre + radius)
    limit = np.array(mask.shape[::-1])
    start = np.floor(np.where(low < 1.5, 0, low) * scale).astype(int)
    end = np.ceil(np.where(high > limit - 1.5, limit, high) * scale).astype(int)
    (left, top), (right, bottom), (x, y) = start.tolist(), end.tolist(), (centre * scale).tolist()
    return Disc(left, top, min(right, width), min(bottom, height), x, y, radius * float(scale.mean()))


def _rim(mask: NDArray[np.bool_]) -> Points:
    """Return x and y (n, 2) of the mask's rim without the sides of its box, where a disc is cut flat."""
    left, top, right, bottom = _box(mask)
    y, x = np.nonzero(mask & ~ndimage.binary_erosion(mask, border_value=1))
    keep = (x > left + 1) & (x < right - 2) & (y > top + 1) & (y < bottom - 2)
    return np.stack([x[keep], y[keep]], axis=-1) + 0.5


def _fit_circle(points: Points) -> Points | None:
    """Fit a circle on which most of the points lie, robustly against a shadow at the rim, a notch or text.

    Many circles through three points each are tried (RANSAC with a fixed seed); the best is refined by least squares.

    Returns:
        Centre x, y and radius; None if there is no such circle.
    """
    if len(points) < 12:
        return None
    triples = np.random.default_rng(0).integers(len(points), size=(100, 3))
    circles = _circles_through(points[triples])
    tolerance = max(1.0, 0.01 * float(np.ptp(points, axis=0).max()))
    distance = np.abs(np.hypot(*(points.T[:, None] - circles.T[:2, :, None])) - circles[:, 2:])
    best = int(np.argmax((distance < tolerance).sum(axis=1)))
    near = points[distance[best] < tolerance]
    if len(near) < max(0.6 * len(points), 12):
        return None
    circle = _fit_least_squares(near)
    angle = np.arctan2(*(near - circle[:2]).T)
    sectors = np.unique(np.floor(angle / (np.pi / 6))).size
    return circle if sectors >= 4 else None  # a short arc says little about its circle


def _circles_through(triples: Points) -> Points:
    """Return centres and radii (n, 3) of the circles through (n, 3, 2) points; far away for three on a line."""
    origin = triples[:, 0]
    (ax, ay), (bx, by) = (triples[:, 1] - origin).T, (triples[:, 2] - origin).T
    twice = 2 * (ax * by - ay * bx)
    twice = np.where(np.abs(twice) < 1e-9, 1e-9, twice)
    a, b = ax**2 + ay**2, bx**2 + by**2
    offset = np.stack([(by * a - ay * b) / twice, (ax * b - bx * a) / twice], axis=-1)
    return np.column_stack([origin + offset, np.hypot(*offset.T)])


def _fit_least_squares(points: Points) -> Points:
    middle = points.mean(axis=0)
    x, y = (points - middle).T
    solution = np.linalg.lstsq(np.column_stack([x, y, np.ones(len(points))]), x**2 + y**2, rcond=None)[0]
    centre = solution[:2] / 2
    return np.append(centre + middle, np.sqrt(solution[2] + centre @ centre))
