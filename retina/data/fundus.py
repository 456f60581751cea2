"""From the file of a fundus photograph to the square that the model sees: read it, find its disc, crop, resize.

A photograph is a bright disc on black, often cut flat at top and bottom. It is never stretched: the square around the
disc is cut out, what lies outside the photograph is black, and only then is it resized.
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
from retina.data.image_file import FORMATS, LONGEST, Pixels, Source, read

__all__ = [
    "FORMATS",
    "LONGEST",
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
"""Version of what this room does to a photograph. Raise it with every change of the pixels: caches are keyed by it."""
SAME_PIXELS = {"1", "2", PREPROCESSING}
"""Versions that give the same pixels for 8 bits a channel and a disc on black, as all 536 photographs of IDRiD have.

Version 1 read deeper colour as black and did not crop a disc on a light ground; version 2 left TIFFs of
floats or 32 bits and JPEGs of 12 bits as they lie, whatever their orientation. Such photographs differ.
"""

Points = NDArray[np.floating[Any]]

_LOOK = 256  # longest side, in pixels, of the small version in which the disc is looked for
_INSIDE = 0.99  # of the radius, of a disc on a light ground: what is farther out may be a seam of both
_SMOOTHED = 64  # shortest side from which it is smoothed; that moves the rim outwards by about one pixel
_LEAST_CONTRAST = 3.0  # grey levels between the black and the bright parts of a photograph that shows anything
_EDGES = (0.12, 0.2, 0.3)  # of the way from the black up to the disc's level: low, for the disc is darkest at its rim
_LEAST_GAIN = (
    1.25  # how much steeper a higher of these edges must be: so it is where over-exposure glows around the disc
)


@dataclass(frozen=True)
class Disc:
    """Where the disc stands in a photograph, in its pixels; `right` and `bottom` are the first ones outside.

    The box is flat where the disc is cut. `x`, `y` and `radius` are of the whole circle, so that the centre of a disc
    cut at the top lies above the middle of its box; where no circle fits they are the box's middle and half width.
    `light` says that what is around it is not black, but paper, say, and must be made so.
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
        """Left, top and side of the square that holds the box; it may reach beyond the photograph.

        Along the shorter side of the box the square is moved towards the circle's centre: equal margins where the disc
        is cut on both sides, a margin on one side only where it is cut on one.
        """
        width, height = self.right - self.left, self.bottom - self.top
        side = max(width, height)
        return _place(self.x, side, self.left, width), _place(self.y, side, self.top, height), side


def _place(centre: float, side: int, start: int, length: int) -> int:
    return min(max(round(centre - side / 2), start + length - side), start)


def to_square(photograph: Pixels, size: int) -> tuple[Pixels, bool]:
    """Cut out the square around the disc, black outside the photograph, and resize it; proportions are kept.

    Args:
        photograph: (height, width, 3) uint8 RGB.
        size: side of the result, in pixels.

    Returns:
        (size, size, 3) uint8 RGB, and whether a disc was found; if not, it is the whole photograph on a black square.
    """
    disc = find_disc(photograph)
    height, width = photograph.shape[:2]
    found = disc or _whole(width, height)
    left, top, side = found.square()
    cut = _cut(photograph, left, top, side)
    image = Image.fromarray(_blackened(cut, found) if found.light else cut)
    # averaging 2 x 2 first, where the result is 3 times smaller still, is 53 dB from LANCZOS alone in 2/5 of its time
    return np.array(image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=1.5)), disc is not None


def read_square(path: Path, size: int) -> tuple[Pixels, bool]:
    """Read a photograph as the model sees it: `to_square` of a decode at twice the size or more.

    The one way from a file to a model's pixels, so that training and prediction see the same.

    Raises:
        DataError: as `read`.
    """
    return to_square(read(path, at_least=2 * size), size)


def _cut(photograph: Pixels, left: int, top: int, side: int) -> Pixels:
    height, width = photograph.shape[:2]
    inside = photograph[max(top, 0) : min(top + side, height), max(left, 0) : min(left + side, width)]
    if inside.shape[:2] == (side, side):
        return inside
    square = np.zeros((side, side, 3), np.uint8)
    below, beside = max(-top, 0), max(-left, 0)
    square[below : below + inside.shape[0], beside : beside + inside.shape[1]] = inside
    return square


def _blackened(cut: Pixels, disc: Disc) -> Pixels:
    """The square around a disc with black around it, as all others have it."""
    left, top, side = disc.square()
    x, y = np.arange(side)[None, :] + 0.5 + left, np.arange(side)[:, None] + 0.5 + top  # in the photograph
    inside = np.hypot(x - disc.x, y - disc.y) < disc.radius * _INSIDE
    box = (x >= disc.left) & (x <= disc.right) & (y >= disc.top) & (y <= disc.bottom)
    return np.where((inside & box)[..., None], cut, np.uint8(0))


def _whole(width: int, height: int) -> Disc:
    return Disc(0, 0, width, height, width / 2, height / 2, max(width, height) / 2)


def find_disc(photograph: Pixels) -> Disc | None:
    """Find the disc of a fundus photograph, dark or over-exposed, whole or cut, with text in a corner or noise around.

    Args:
        photograph: (height, width, 3) uint8 RGB.

    Returns:
        The disc; it is the whole photograph where the retina fills all of it. None where there is nothing to see, only
        noise, a white page, or no disc on a ground that is not black.
    """
    height, width = photograph.shape[:2]
    small = _small(photograph)
    ground = light_ground.of(small) if min(small.shape[:2]) >= _SMOOTHED else None  # of fewer it is not clear
    if ground is not None:
        light = light_ground.mask(small, ground, _round)
        if light is not None:
            return replace(_disc(light, _scale(photograph, light), width, height), light=True)
        if not light_ground.may_be_retina(small, ground):
            return None
    level = _level(small)
    if level is None:
        return None
    mask = _largest(_bright(level))
    if mask is None or _is_page(small[mask][::8]):
        return None
    return _disc(mask, _scale(photograph, mask), width, height)


def _scale(photograph: Pixels, small: NDArray[Any]) -> Points:
    """How many pixels of the photograph one of the small version is, in x and y."""
    return np.array([photograph.shape[1] / small.shape[1], photograph.shape[0] / small.shape[0]])


def _small(photograph: Pixels) -> Pixels:
    height, width = photograph.shape[:2]
    longest = max(height, width)
    if longest <= _LOOK:
        return photograph
    step = max(longest // (4 * _LOOK), 1)  # averaging 4 x 4 of them is enough against noise, and much cheaper
    size = (max(round(width * _LOOK / longest), 1), max(round(height * _LOOK / longest), 1))
    return np.asarray(Image.fromarray(photograph[::step, ::step]).resize(size, Image.Resampling.BOX))


def _level(small: Pixels) -> NDArray[np.float32] | None:
    """Brightness, smoothed unless it has few pixels; None where there is no picture in it."""
    raw: NDArray[np.float32] = small.max(axis=-1).astype(np.float32)  # in a dark fundus there is little besides red
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(raw, 1.0)
    low, high = np.percentile(smooth, (1, 99))
    if high - low < _LEAST_CONTRAST or smooth.var() < 0.3 * raw.var():  # smoothing takes 9/10 of white noise
        return None
    return smooth if min(raw.shape) >= _SMOOTHED else raw


def _bright(level: NDArray[np.float32]) -> NDArray[np.bool_]:
    """What is brighter than the black around the disc; everything where there is no black."""
    height, width = level.shape
    near = max(round(0.03 * min(height, width)), 1)  # small, for a disc may reach far into the corners
    corners = [level[rows, columns] for rows in np.s_[:near, -near:] for columns in np.s_[:near, -near:]]
    darkest = min(corners, key=np.median)  # a time stamp fills one corner, seldom all
    black, high = float(np.median(darkest)), float(np.percentile(level, 90))
    if black > max(0.5 * high, 16):
        return np.ones(level.shape, np.bool_)
    margin = max(5 * float(darkest.std()), 1.5)
    steepness = ndimage.gaussian_gradient_magnitude(level, 1.0)
    masks = [level > black + max(edge * (high - black), margin) for edge in _EDGES]
    return masks[int(np.argmax([_LEAST_GAIN**-k * _mean_at_rim(steepness, mask) for k, mask in enumerate(masks)]))]


def _mean_at_rim(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    rim = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return float(values[rim].mean()) if rim.any() else 0.0


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The largest connected part, opened and filled; None where it is too small or ragged to be a disc."""
    times = round(min(mask.shape) / 100)
    if times:  # parts the disc from text beside it
        padded = np.pad(mask, 2 * times, mode="edge")
        mask = ndimage.binary_opening(padded, iterations=times)[2 * times : -2 * times, 2 * times : -2 * times]
    labels, parts = ndimage.label(mask)
    if not parts:
        return None
    part: NDArray[np.bool_] = ndimage.binary_fill_holes(labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1)
    left, top, right, bottom = _box(part)
    area = int(part.sum())
    return part if area >= 0.03 * part.size and area >= 0.55 * (right - left) * (bottom - top) else None


def _round(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Points] | None:
    """The largest part of a mask and the circle that its rim lies on."""
    part = _largest(mask)
    circle = None if part is None else _fit_circle(_rim(part))
    return None if part is None or circle is None else (part, circle)


def _is_page(colours: Pixels) -> bool:
    return bool(np.median(colours.min(axis=-1)) > 215 and np.median(np.ptp(colours, axis=-1)) < 20)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _disc(mask: NDArray[np.bool_], scale: Points, width: int, height: int) -> Disc:
    """The box of the mask and the circle that fits its rim, brought to the photograph's own pixels.

    The middle of a rim pixel lies half a pixel inside the mask; see `_SMOOTHED` for the rest.
    """
    low, high = np.array(_box(mask), np.float64).reshape(2, 2)  # x and y of two corners
    centre: Points = (low + high) / 2
    radius = float(np.max(high - low)) / 2
    circle = _fit_circle(_rim(mask))
    if circle is not None:
        centre, radius = circle[:2], float(circle[2]) + (0.5 if min(mask.shape) < _SMOOTHED else -0.5)
        # no wider than the circle, which leaves out a notch
        low, high = np.maximum(low, centre - radius), np.minimum(high, centre + radius)
    limit = np.array(mask.shape[::-1])
    start = np.floor(np.where(low < 1.5, 0, low) * scale).astype(int)
    end = np.ceil(np.where(high > limit - 1.5, limit, high) * scale).astype(int)
    (left, top), (right, bottom), (x, y) = start.tolist(), end.tolist(), (centre * scale).tolist()
    return Disc(left, top, min(right, width), min(bottom, height), x, y, radius * float(scale.mean()))


def _rim(mask: NDArray[np.bool_]) -> Points:
    """(n, 2) x and y of the mask's rim without the sides of its box, where a disc is cut flat."""
    left, top, right, bottom = _box(mask)
    y, x = np.nonzero(mask & ~ndimage.binary_erosion(mask, border_value=1))
    keep = (x > left + 1) & (x < right - 2) & (y > top + 1) & (y < bottom - 2)
    return np.stack([x[keep], y[keep]], axis=-1) + 0.5


def _fit_circle(points: Points) -> Points | None:
    """Centre x, y and radius of the circle that most of the points lie on; None where there is no such circle.

    Many circles through three points each are tried (RANSAC, always with the same draws), so that a shadow at the rim,
    a notch or text does not pull at it; the best is refined by least squares.
    """
    if len(points) < 12:
        return None
    three = np.random.default_rng(0).integers(len(points), size=(100, 3))
    circles = _through(points[three])
    tolerance = max(1.0, 0.01 * float(np.ptp(points, axis=0).max()))
    distance = np.abs(np.hypot(*(points.T[:, None] - circles.T[:2, :, None])) - circles[:, 2:])
    best = int(np.argmax((distance < tolerance).sum(axis=1)))
    near = points[distance[best] < tolerance]
    if len(near) < max(0.6 * len(points), 12):
        return None
    circle = _least_squares(near)
    angle = np.arctan2(*(near - circle[:2]).T)
    sectors = np.unique(np.floor(angle / (np.pi / 6))).size
    return circle if sectors >= 4 else None  # a short arc says little about its circle


def _through(triples: Points) -> Points:
    """(n, 3) centres and radii of the circles through (n, 3, 2) points; far away for three on a line."""
    origin = triples[:, 0]
    (ax, ay), (bx, by) = (triples[:, 1] - origin).T, (triples[:, 2] - origin).T
    twice = 2 * (ax * by - ay * bx)
    twice = np.where(np.abs(twice) < 1e-9, 1e-9, twice)
    a, b = ax**2 + ay**2, bx**2 + by**2
    offset = np.stack([(by * a - ay * b) / twice, (ax * b - bx * a) / twice], axis=-1)
    return np.column_stack([origin + offset, np.hypot(*offset.T)])


def _least_squares(points: Points) -> Points:
    middle = points.mean(axis=0)
    x, y = (points - middle).T
    solution = np.linalg.lstsq(np.column_stack([x, y, np.ones(len(points))]), x**2 + y**2, rcond=None)[0]
    centre = solution[:2] / 2
    return np.append(centre + middle, np.sqrt(solution[2] + centre @ centre))
