"""Draw a healthy eye: the positions of its disc, fovea and vessels, and the pixels of its retina."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.data.synthetic.appearance import Appearance
from retina.data.synthetic.canvas import Array, Field, Ink, Pixels, Rng, blob_outlines, smooth_noise, winding_paths
from retina.data.synthetic.vessels import Vessels, grow_vessels

BLOOD = np.array([0.26, 0.80, 0.74], dtype=np.float32)
"""How strongly blood of density 1 absorbs red, green and blue."""


@dataclass(frozen=True)
class Eye:
    """The anatomy of one eye in field units, in the camera's view."""

    disc: Array  # (2,)
    disc_radius: float
    fovea: Array  # (2,)
    vessels: Vessels
    nasal: float  # +1 where the nose is to the right (a right eye), else -1


def draw_anatomy(rng: Rng, eye: str) -> Eye:
    """Draw the anatomy of a "left" or "right" eye and its direction relative to the camera at random."""
    nasal = 1.0 if eye == "right" else -1.0
    disc = np.array([rng.uniform(0.64, 0.76), rng.uniform(-0.13, 0.02)])
    vessels = grow_vessels(rng, disc)
    # Most photographs are centred between fovea and disc, some on the fovea, few on the disc.
    towards_disc = rng.choice([0.0, 0.28, 0.75], p=[0.35, 0.57, 0.08])
    centre = disc * towards_disc + rng.normal(0, 0.045, 2)
    tilt = rng.normal(0, 0.05)
    rotation = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])

    def to_view(points: Array) -> Array:
        rotated: Array = np.asarray((points - centre)[..., None, :] * rotation).sum(axis=-1)
        mirrored: Array = rotated * np.array([nasal, 1.0])
        return mirrored

    return Eye(
        disc=to_view(disc),
        disc_radius=float(rng.uniform(0.118, 0.15)),
        fovea=to_view(np.zeros(2)),
        vessels=Vessels(to_view(vessels.paths), vessels.widths, vessels.vein, vessels.trunk),
        nasal=nasal,
    )


def paint_retina(field: Field, eye: Eye, appearance: Appearance, rng: Rng) -> Pixels:
    """Paint the retina without vessels, (h, w, 3), about 0 to 1: pigment, choroid, macula, optic disc."""
    tone = 0.03 * smooth_noise(field, rng, 3, octaves=3) + 0.018 * smooth_noise(field, rng, 40, octaves=2)
    if appearance.tigroid > 0:
        tone += appearance.tigroid * _draw_choroid(field, eye, rng)
    hue = 0.05 * smooth_noise(field, rng, 2)
    retina = np.empty((*field.shape, 3), dtype=np.float32)
    for channel, (colour, by_tone, by_hue) in enumerate(
        zip(appearance.colour, (0.7, 1.2, 1.5), (0.2, 1, 1.3), strict=True)
    ):
        retina[..., channel] = np.float32(colour) * (1 + by_tone * tone + by_hue * hue)
    _darken_macula(retina, field, eye, rng)
    _paint_disc(retina, field, eye, rng)
    return retina


def _draw_choroid(field: Field, eye: Eye, rng: Rng) -> Pixels:
    """Draw the broad pale vessels behind the retina of a fair eye, (h, w), about -0.6 to 1.2, hidden by the macula."""
    n = 90
    starts = rng.uniform(-1, 1, (n, 2))
    heading = np.arctan2(starts[:, 1], starts[:, 0] - eye.fovea[0]) + rng.normal(0, 0.35, n)
    paths = winding_paths(rng, starts, heading, rng.uniform(0.3, 0.8, n), points=16, restless=0.45)
    ink = Ink(field, soft=True)
    ink.strokes(paths, rng.uniform(0.02, 0.045, (n, 1)) + np.zeros((n, 16)), rng.uniform(0.4, 1, n))
    x, y = field.axes()
    squared_distance = (x - eye.fovea[0]) ** 2 + (y - eye.fovea[1]) ** 2
    visible: Pixels = (1.8 * ink.render(0.012) - 0.6) * (1 - 0.8 * np.exp(-squared_distance / 0.12))
    return visible


def _darken_macula(retina: Pixels, field: Field, eye: Eye, rng: Rng) -> None:
    window, x, y = field.around(eye.fovea, 0.62)
    squared_distance = x**2 + (1.15 * y) ** 2
    macula, fovea = rng.uniform(0.14, 0.42), rng.uniform(0.08, 0.38)
    density = macula * np.exp(-squared_distance / 0.055) + fovea * np.exp(-squared_distance / 0.0045)
    retina[window] *= np.exp(-density[..., None] * np.array([0.75, 1.0, 0.9], dtype=np.float32))
    if rng.random() < 0.35:  # the foveal reflex of young eyes
        ring = np.exp(-((np.sqrt(squared_distance) - rng.uniform(0.12, 0.17)) ** 2) / rng.uniform(0.0006, 0.0016))
        reflex = rng.uniform(0.02, 0.09) * ring * np.clip(0.6 - 3 * y, 0, 1)
        retina[window] += reflex[..., None] * np.array([0.7, 0.8, 0.6], dtype=np.float32)


def _paint_disc(retina: Pixels, field: Field, eye: Eye, rng: Rng) -> None:
    window, x, y = field.around(eye.disc, eye.disc_radius * 2.8)
    image = retina[window]
    tall, lean = rng.uniform(1.02, 1.16), rng.normal(0, 0.15)
    along = (x * eye.nasal + lean * y) / eye.disc_radius
    up = y / (eye.disc_radius * tall)
    distance = np.sqrt(along**2 + up**2)
    glow = rng.uniform(0.1, 0.3) * np.exp(-((np.maximum(distance - 0.9, 0) / 0.7) ** 2))
    image *= 1 + glow[..., None] * np.array([0.5, 0.9, 0.8], dtype=np.float32)
    if rng.random() < 0.35:  # a pale crescent of bare choroid on the temporal side
        crescent = np.sqrt((along + rng.uniform(0.12, 0.3)) ** 2 + up**2)
        blend(image, 0.45 * _inside(crescent, 0.05), np.array([0.86, 0.66, 0.45]))
    warm = rng.uniform(0, 1)
    rim = np.array([0.96, 0.57, 0.32]) * (1 - warm) + np.array([0.99, 0.74, 0.42]) * warm
    level = rng.uniform(0.85, 1.06) * (0.45 + 0.55 * min(1, _fairness(retina)))
    blend(image, rng.uniform(0.75, 0.92) * _inside(distance, rng.uniform(0.06, 0.14)), rim * level)
    size = rng.uniform(0.3, 0.62)
    cup = np.sqrt((along + 0.12) ** 2 + (up * 1.05) ** 2) / size
    blend(image, rng.uniform(0.5, 0.95) * _inside(cup, rng.uniform(0.16, 0.4)), np.array([1.02, 0.90, 0.64]) * level)


def _fairness(retina: Pixels) -> float:
    """Return the lightness of the retina's pigment: about 1 for a fair eye, 0.6 for a dark one."""
    return float(retina[::16, ::16, 0].mean()) / 0.85


def _inside(distance: Array, softness: float) -> Pixels:
    """Return 1 where `distance` is below 1 and 0 elsewhere, with an edge about `softness` wide."""
    edge: Pixels = np.clip((1 - distance) / (2 * softness) + 0.5, 0, 1)
    return edge * edge * (3 - 2 * edge)


def blend(image: Pixels, cover: Pixels, colour: Array) -> None:
    """Blend `colour` (3,) into `image` (h, w, 3) with the opacity `cover` (h, w), in place."""
    for channel in range(3):
        plane = image[..., channel]
        plane += cover * (np.float32(colour[channel]) - plane)


def vessel_density(field: Field, eye: Eye) -> tuple[Pixels, Pixels]:
    """Draw the blood of all vessels and the bright reflex along the wide ones, each (h, w), 0 to 1."""
    vessels = eye.vessels
    ink, reflex = Ink(field), Ink(field)
    thin_first = np.argsort(vessels.widths[:, 0], kind="stable")
    thickness = np.minimum(1, 0.3 + vessels.widths[:, 0] * 38)
    tone = np.where(vessels.vein, 0.95, 0.64) * thickness
    ink.strokes(vessels.paths[thin_first], vessels.widths[thin_first], tone[thin_first])
    wide = vessels.trunk
    reflex.strokes(vessels.paths[wide], vessels.widths[wide] * 0.3, np.where(vessels.vein, 0.45, 1.0)[wide])
    return ink.render(0.0022), reflex.render(0.002)


def absorb(image: Pixels, density: Pixels) -> None:
    """Darken `image` (h, w, 3) by blood of `density` (h, w), in place."""
    for channel in range(3):
        image[..., channel] *= np.exp(density * -BLOOD[channel])


def draw_drusen(field: Field, eye: Eye, rng: Rng) -> Pixels:
    """Draw faint pale spots around the macula of an ageing but healthy eye, (h, w), 0 to 1."""
    n = int(rng.integers(6, 40))
    ink = Ink(field)
    centres = eye.fovea + rng.normal(0, 0.2, (n, 2))
    ink.fill(blob_outlines(rng, centres, rng.uniform(0.005, 0.013, n)), rng.uniform(0.1, 0.42, n))
    return ink.render(0.005)
