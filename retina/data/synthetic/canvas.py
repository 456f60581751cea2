"""Drawing tools: the round field of the camera, layers of ink, smooth noise, outlines and paths.

All positions are in *field units*: the origin is the centre of the camera's field, its radius is 1, x runs to the
right and y down. So an eye looks the same at every size, except for the resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.floating[Any]]
Pixels = NDArray[np.float32]
Rng = np.random.Generator

MARGIN = 1.04
"""Largest distance of a camera's mark on the rim from the field's centre, in field units."""

INK_HEIGHT = 1100
"""Approximate height in pixels at which ink is drawn before it is averaged down, for smooth edges."""


@dataclass(frozen=True)
class Field:
    """The camera's round field in a photograph of `width` x `height` pixels, whose borders may cut the field."""

    width: int
    height: int
    x: float
    y: float
    radius: float

    @property
    def window(self) -> tuple[int, int, int, int]:
        """The part of the photograph that the field covers: left, top, right, bottom, in pixels."""
        reach = self.radius * MARGIN
        return (
            max(0, math.floor(self.x - reach)),
            max(0, math.floor(self.y - reach)),
            min(self.width, math.ceil(self.x + reach)),
            min(self.height, math.ceil(self.y + reach)),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns of the window."""
        left, top, right, bottom = self.window
        return bottom - top, right - left

    @property
    def pixel(self) -> float:
        """Side of one pixel in field units."""
        return 1 / self.radius

    def axes(self) -> tuple[Pixels, Pixels]:
        """Return x (1, w) and y (h, 1) of the window's pixels in field units, ready for broadcasting."""
        left, top, right, bottom = self.window
        x = (np.arange(left, right, dtype=np.float32) + 0.5 - self.x) / self.radius
        y = (np.arange(top, bottom, dtype=np.float32) + 0.5 - self.y) / self.radius
        return x[None, :].astype(np.float32), y[:, None].astype(np.float32)

    def around(self, centre: Array, reach: float) -> tuple[tuple[slice, slice], Pixels, Pixels]:
        """Return slices of the window's square within `reach` of `centre`, and x and y relative to `centre`."""
        x, y = self.axes()
        x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
        columns, rows = np.flatnonzero(np.abs(x[0]) < reach), np.flatnonzero(np.abs(y[:, 0]) < reach)
        window = (
            (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            if len(rows) and len(columns)
            else (slice(0), slice(0))
        )
        return window, x[:, window[1]], y[window[0]]

    def is_visible(self, points: Array, margin: float = 0.0) -> NDArray[np.bool_]:
        """Return which `points` (..., 2) are in both the field and the photograph, `margin` away from the edge."""
        left, top, right, bottom = self.window
        x, y = points[..., 0], points[..., 1]
        inside = np.hypot(x, y) < 1 - margin
        inside &= (x > (left - self.x) / self.radius + margin) & (x < (right - self.x) / self.radius - margin)
        inside &= (y > (top - self.y) / self.radius + margin) & (y < (bottom - self.y) / self.radius - margin)
        return inside


class Ink:
    """A layer of ink over the window of a field, 0 (clear) to 1; later strokes replace earlier ones."""

    def __init__(self, field: Field, *, soft: bool = False) -> None:
        """Create a clear layer; a `soft` layer has a low resolution, for shapes that are blurred anyway."""
        self._field = field
        height, width = field.shape
        oversampling = np.clip(round(INK_HEIGHT / field.height), 1, 4)
        self._scale = float(min(1.0, 192 / field.height)) if soft else float(oversampling)
        size = (max(8, round(width * self._scale)), max(8, round(height * self._scale)))
        self._image = Image.new("L", size)
        self._pen = ImageDraw.Draw(self._image)

    def fill(self, outlines: Array, values: Array | float) -> None:
        """Fill closed `outlines` (n, points, 2) with `values` (n,), 0 to 1."""
        left, top, _, _ = self._field.window
        origin = np.array([self._field.x - left, self._field.y - top])
        pixels = (outlines * self._field.radius + origin) * self._scale
        tones = np.broadcast_to(np.asarray(values), len(outlines)).clip(0, 1) * 255
        for outline, tone in zip(pixels, tones, strict=True):
            self._pen.polygon(outline.ravel().tolist(), fill=round(tone))

    def strokes(self, paths: Array, widths: Array, values: Array | float) -> None:
        """Draw `paths` (n, points, 2) of `widths` (n, points); strokes thinner than a pixel are fainter, not wider."""
        min_width = 1.2 * self._field.pixel / self._scale
        direction = np.gradient(paths, axis=1)
        direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-9)
        normal = np.stack([-direction[..., 1], direction[..., 0]], axis=-1)
        half_width = np.maximum(widths, min_width)[..., None] / 2
        outlines = np.concatenate([paths + normal * half_width, (paths - normal * half_width)[:, ::-1]], axis=1)
        faintness = np.minimum(1, widths.mean(axis=1) / min_width)
        self.fill(outlines, np.asarray(values) * faintness)

    def render(self, blur: float = 0.0) -> Pixels:
        """Return the layer, (h, w), 0 to 1, after a Gaussian blur of `blur` field units."""
        height, width = self._field.shape
        sigma = blur * self._field.radius * min(self._scale, 1)
        image = self._image.reduce(round(self._scale)) if self._scale > 1 else self._image
        if sigma > 0.7:  # less is not visible after the blur of the optics
            image = image.filter(ImageFilter.GaussianBlur(sigma))
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(image, dtype=np.float32) / np.float32(255)


def smooth_noise(field: Field, rng: Rng, cells: int, octaves: int = 1) -> Pixels:
    """Draw smooth noise (h, w), mean about 0, standard deviation about 1, with `cells` cells across the field.

    Each further octave has twice as many cells and 0.6 times the amplitude.
    """
    height, width = field.shape
    left, top, right, bottom = field.window
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        side = cells * 2**octave
        grid = Image.fromarray(rng.standard_normal((side + 4, side + 4)).astype(np.float32))
        unit = side / (2 * field.radius + 6)
        box = (
            2 + (left - field.x + field.radius + 3) * unit,
            2 + (top - field.y + field.radius + 3) * unit,
            2 + (right - field.x + field.radius + 3) * unit,
            2 + (bottom - field.y + field.radius + 3) * unit,
        )
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC, box=box)) * np.float32(0.6**octave)
    return total * np.float32(1.3)


def blob_outlines(
    rng: Rng,
    centres: Array,
    radii: Array,
    *,
    stretch: Array | float = 1.0,
    angle: Array | float = 0.0,
    roughness: float = 0.15,
    points: int = 18,
) -> Array:
    """Draw irregular round outlines (n, points, 2) around `centres` (n, 2); `stretch` is length over breadth."""
    n = len(centres)
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    waves = np.arange(2, 6)
    size = rng.normal(0, roughness, (n, 4, 1)) / np.sqrt(waves)[None, :, None]
    phase = rng.uniform(0, 2 * np.pi, (n, 4, 1))
    wobble = (size * np.cos(waves[None, :, None] * turn + phase)).sum(axis=1)
    radius = np.asarray(radii)[:, None] * np.clip(1 + wobble, 0.3, 2)
    root = np.sqrt(np.broadcast_to(np.asarray(stretch, dtype=float), n))[:, None]
    along, across = radius * np.cos(turn) * root, radius * np.sin(turn) / root
    cos, sin = (f(np.broadcast_to(np.asarray(angle, dtype=float), n))[:, None] for f in (np.cos, np.sin))
    offsets = np.stack([along * cos - across * sin, along * sin + across * cos], axis=-1)
    outlines: Array = np.asarray(centres)[:, None, :] + offsets
    return outlines


def winding_paths(
    rng: Rng, starts: Array, headings: Array, lengths: Array, *, points: int = 24, restless: float = 1.0
) -> Array:
    """Draw winding paths (n, points, 2) from `starts` (n, 2); the heading strays by about `restless` radians."""
    n = len(starts)
    along = np.linspace(0, 1, points)
    heading = np.asarray(headings)[:, None] + np.zeros((n, points))
    for waves in (1, 2, 4):
        phase = rng.uniform(0, 2 * np.pi, (n, 1))
        heading = heading + restless * rng.normal(0, 0.6, (n, 1)) * np.sin(2 * np.pi * waves * along + phase)
    step = (np.asarray(lengths) / points)[:, None]
    moves = np.stack([np.cos(heading) * step, np.sin(heading) * step], axis=-1)
    return np.asarray(starts)[:, None, :] + np.cumsum(moves, axis=1)
