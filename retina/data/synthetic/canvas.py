"""Where a photograph is drawn: the round field of the camera, layers of ink, clouds of noise.

Everything is placed in *field units*: the origin is the centre of the camera's field, its radius is 1, x runs to the
right and y down. So one eye looks the same at every size, but for the pixels.
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
"""How far a camera's mark on the rim may stand out of the round field."""

INK_HEIGHT = 1100
"""Ink is drawn about so many pixels high and averaged down, for smooth edges."""


@dataclass(frozen=True)
class Field:
    """The camera's round field in a photograph of `width` times `height`; may be cut by the edges of the photograph."""

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
        """Rows and columns of the window."""
        left, top, right, bottom = self.window
        return bottom - top, right - left

    @property
    def pixel(self) -> float:
        """Side of one pixel in field units."""
        return 1 / self.radius

    def axes(self) -> tuple[Pixels, Pixels]:
        """The x (1, w) and y (h, 1) of the window's pixels in field units, ready to be broadcast."""
        left, top, right, bottom = self.window
        x = (np.arange(left, right, dtype=np.float32) + 0.5 - self.x) / self.radius
        y = (np.arange(top, bottom, dtype=np.float32) + 0.5 - self.y) / self.radius
        return x[None, :].astype(np.float32), y[:, None].astype(np.float32)

    def around(self, centre: Array, reach: float) -> tuple[tuple[slice, slice], Pixels, Pixels]:
        """The square part of the window within `reach` of `centre`: its rows and columns, and x and y from `centre`."""
        x, y = self.axes()
        x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
        columns, rows = np.flatnonzero(np.abs(x[0]) < reach), np.flatnonzero(np.abs(y[:, 0]) < reach)
        part = (
            (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            if len(rows) and len(columns)
            else (slice(0), slice(0))
        )
        return part, x[:, part[1]], y[part[0]]

    def visible(self, points: Array, margin: float = 0.0) -> NDArray[np.bool_]:
        """Which of the `points` (..., 2) lie inside both the field and the photograph, `margin` away from the edge."""
        left, top, right, bottom = self.window
        x, y = points[..., 0], points[..., 1]
        inside = np.hypot(x, y) < 1 - margin
        inside &= (x > (left - self.x) / self.radius + margin) & (x < (right - self.x) / self.radius - margin)
        inside &= (y > (top - self.y) / self.radius + margin) & (y < (bottom - self.y) / self.radius - margin)
        return inside


class Ink:
    """One layer of ink over the window of a field, 0 (clear) to 1; later strokes cover earlier ones."""

    def __init__(self, field: Field, *, soft: bool = False) -> None:
        """Open a clear layer; a `soft` one is drawn coarsely, for what is blurred anyway."""
        self._field = field
        height, width = field.shape
        fine = np.clip(round(INK_HEIGHT / field.height), 1, 4)
        self._scale = float(min(1.0, 192 / field.height)) if soft else float(fine)
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
        """Draw `paths` (n, points, 2) of `widths` (n, points); too thin for a pixel means fainter, not wider."""
        thinnest = 1.2 * self._field.pixel / self._scale
        ahead = np.gradient(paths, axis=1)
        ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)
        across = np.stack([-ahead[..., 1], ahead[..., 0]], axis=-1)
        drawn = np.maximum(widths, thinnest)[..., None] / 2
        edges = np.concatenate([paths + across * drawn, (paths - across * drawn)[:, ::-1]], axis=1)
        faint = np.minimum(1, widths.mean(axis=1) / thinnest)
        self.fill(edges, np.asarray(values) * faint)

    def done(self, blur: float = 0.0) -> Pixels:
        """The layer as (h, w), 0 to 1, after a Gaussian blur of `blur` field units."""
        height, width = self._field.shape
        sigma = blur * self._field.radius * min(self._scale, 1)
        image = self._image.reduce(round(self._scale)) if self._scale > 1 else self._image
        if sigma > 0.7:  # less is not seen after the blur of the optics
            image = image.filter(ImageFilter.GaussianBlur(sigma))
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(image, dtype=np.float32) / np.float32(255)


def cloud(field: Field, rng: Rng, cells: int, octaves: int = 1) -> Pixels:
    """Smooth noise (h, w) of mean about 0 and deviation about 1; `cells` bumps across the field at the first octave."""
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


def blobs(
    rng: Rng,
    centres: Array,
    radii: Array,
    *,
    stretch: Array | float = 1.0,
    angle: Array | float = 0.0,
    roughness: float = 0.15,
    points: int = 18,
) -> Array:
    """Irregular round outlines (n, points, 2) about `centres` (n, 2); `stretch` is length over breadth."""
    n = len(centres)
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    waves = np.arange(2, 6)
    size = rng.normal(0, roughness, (n, 4, 1)) / np.sqrt(waves)[None, :, None]
    phase = rng.uniform(0, 2 * np.pi, (n, 4, 1))
    wobble = (size * np.cos(waves[None, :, None] * turn + phase)).sum(axis=1)
    reach = np.asarray(radii)[:, None] * np.clip(1 + wobble, 0.3, 2)
    root = np.sqrt(np.broadcast_to(np.asarray(stretch, dtype=float), n))[:, None]
    along, across = reach * np.cos(turn) * root, reach * np.sin(turn) / root
    cos, sin = (f(np.broadcast_to(np.asarray(angle, dtype=float), n))[:, None] for f in (np.cos, np.sin))
    outline = np.stack([along * cos - across * sin, along * sin + across * cos], axis=-1)
    placed: Array = np.asarray(centres)[:, None, :] + outline
    return placed


def wander(
    rng: Rng, starts: Array, headings: Array, lengths: Array, *, points: int = 24, restless: float = 1.0
) -> Array:
    """Winding paths (n, points, 2) from `starts` (n, 2); `restless` is about how far the heading strays, in radians."""
    n = len(starts)
    along = np.linspace(0, 1, points)
    heading = np.asarray(headings)[:, None] + np.zeros((n, points))
    for waves in (1, 2, 4):
        phase = rng.uniform(0, 2 * np.pi, (n, 1))
        heading = heading + restless * rng.normal(0, 0.6, (n, 1)) * np.sin(2 * np.pi * waves * along + phase)
    step = (np.asarray(lengths) / points)[:, None]
    moves = np.stack([np.cos(heading) * step, np.sin(heading) * step], axis=-1)
    return np.asarray(starts)[:, None, :] + np.cumsum(moves, axis=1)
