"""One healthy eye: where its disc, fovea and vessels lie, and the retina painted with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.data.synthetic.appearance import Look
from retina.data.synthetic.canvas import Array, Field, Ink, Pixels, Rng, blobs, cloud, wander
from retina.data.synthetic.vessels import Vessels, grow

BLOOD = np.array([0.26, 0.80, 0.74], dtype=np.float32)
"""How strongly blood of density 1 absorbs red, green and blue."""


@dataclass(frozen=True)
class Eye:
    """The anatomy of one eye in field units, as the camera sees it."""

    disc: Array  # (2,)
    disc_radius: float
    fovea: Array  # (2,)
    vessels: Vessels
    nasal: float  # +1 where the nose is to the right (a right eye), else -1


def anatomy(rng: Rng, eye: str) -> Eye:
    """Draw the anatomy of a "left" or "right" eye and the way it looks into the camera."""
    nasal = 1.0 if eye == "right" else -1.0
    disc = np.array([rng.uniform(0.64, 0.76), rng.uniform(-0.13, 0.02)])
    vessels = grow(rng, disc)
    # Most photographs are centred between fovea and disc, some on the fovea, few on the disc.
    share = rng.choice([0.0, 0.28, 0.75], p=[0.35, 0.57, 0.08])
    centre = disc * share + rng.normal(0, 0.045, 2)
    tilt = rng.normal(0, 0.05)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])

    def seen(points: Array) -> Array:
        turned: Array = np.asarray((points - centre)[..., None, :] * turn).sum(axis=-1)
        facing: Array = turned * np.array([nasal, 1.0])
        return facing

    return Eye(
        disc=seen(disc),
        disc_radius=float(rng.uniform(0.118, 0.15)),
        fovea=seen(np.zeros(2)),
        vessels=Vessels(seen(vessels.paths), vessels.widths, vessels.vein, vessels.trunk),
        nasal=nasal,
    )


def paint_retina(field: Field, eye: Eye, look: Look, rng: Rng) -> Pixels:
    """The retina without vessels, (h, w, 3), about 0 to 1: pigment, choroid, macula, optic disc."""
    tone = 0.03 * cloud(field, rng, 3, octaves=3) + 0.018 * cloud(field, rng, 40, octaves=2)
    if look.tigroid > 0:
        tone += look.tigroid * _choroid(field, eye, rng)
    hue = 0.05 * cloud(field, rng, 2)
    retina = np.empty((*field.shape, 3), dtype=np.float32)
    for channel, (colour, by_tone, by_hue) in enumerate(zip(look.colour, (0.7, 1.2, 1.5), (0.2, 1, 1.3), strict=True)):
        retina[..., channel] = np.float32(colour) * (1 + by_tone * tone + by_hue * hue)
    _darken_macula(retina, field, eye, rng)
    _paint_disc(retina, field, eye, rng)
    return retina


def _choroid(field: Field, eye: Eye, rng: Rng) -> Pixels:
    """The broad pale vessels behind the retina of a fair eye, (h, w), about -0.6 to 1.2; hidden behind the macula."""
    n = 90
    starts = rng.uniform(-1, 1, (n, 2))
    heading = np.arctan2(starts[:, 1], starts[:, 0] - eye.fovea[0]) + rng.normal(0, 0.35, n)
    paths = wander(rng, starts, heading, rng.uniform(0.3, 0.8, n), points=16, restless=0.45)
    ink = Ink(field, soft=True)
    ink.strokes(paths, rng.uniform(0.02, 0.045, (n, 1)) + np.zeros((n, 16)), rng.uniform(0.4, 1, n))
    x, y = field.axes()
    far = (x - eye.fovea[0]) ** 2 + (y - eye.fovea[1]) ** 2
    shown: Pixels = (1.8 * ink.done(0.012) - 0.6) * (1 - 0.8 * np.exp(-far / 0.12))
    return shown


def _darken_macula(retina: Pixels, field: Field, eye: Eye, rng: Rng) -> None:
    part, x, y = field.around(eye.fovea, 0.62)
    far = x**2 + (1.15 * y) ** 2
    wide, fovea = rng.uniform(0.14, 0.42), rng.uniform(0.08, 0.38)
    density = wide * np.exp(-far / 0.055) + fovea * np.exp(-far / 0.0045)
    retina[part] *= np.exp(-density[..., None] * np.array([0.75, 1.0, 0.9], dtype=np.float32))
    if rng.random() < 0.35:  # the foveal reflex of young eyes
        ring = np.exp(-((np.sqrt(far) - rng.uniform(0.12, 0.17)) ** 2) / rng.uniform(0.0006, 0.0016))
        reflex = rng.uniform(0.02, 0.09) * ring * np.clip(0.6 - 3 * y, 0, 1)
        retina[part] += reflex[..., None] * np.array([0.7, 0.8, 0.6], dtype=np.float32)


def _paint_disc(retina: Pixels, field: Field, eye: Eye, rng: Rng) -> None:
    part, x, y = field.around(eye.disc, eye.disc_radius * 2.8)
    image = retina[part]
    tall, lean = rng.uniform(1.02, 1.16), rng.normal(0, 0.15)
    along = (x * eye.nasal + lean * y) / eye.disc_radius
    up = y / (eye.disc_radius * tall)
    far = np.sqrt(along**2 + up**2)
    glow = rng.uniform(0.1, 0.3) * np.exp(-((np.maximum(far - 0.9, 0) / 0.7) ** 2))
    image *= 1 + glow[..., None] * np.array([0.5, 0.9, 0.8], dtype=np.float32)
    if rng.random() < 0.35:  # a pale crescent of bare choroid on the temporal side
        crescent = np.sqrt((along + rng.uniform(0.12, 0.3)) ** 2 + up**2)
        blend(image, 0.45 * _inside(crescent, 0.05), np.array([0.86, 0.66, 0.45]))
    warm = rng.uniform(0, 1)
    rim = np.array([0.96, 0.57, 0.32]) * (1 - warm) + np.array([0.99, 0.74, 0.42]) * warm
    level = rng.uniform(0.85, 1.06) * (0.45 + 0.55 * min(1, _fairness(retina)))
    blend(image, rng.uniform(0.75, 0.92) * _inside(far, rng.uniform(0.06, 0.14)), rim * level)
    size = rng.uniform(0.3, 0.62)
    cup = np.sqrt((along + 0.12) ** 2 + (up * 1.05) ** 2) / size
    blend(image, rng.uniform(0.5, 0.95) * _inside(cup, rng.uniform(0.16, 0.4)), np.array([1.02, 0.90, 0.64]) * level)


def _fairness(retina: Pixels) -> float:
    """How light this retina's pigment is: about 1 for a fair eye, 0.6 for a dark one."""
    return float(retina[::16, ::16, 0].mean()) / 0.85


def _inside(far: Array, soft: float) -> Pixels:
    """1 where `far` is below 1, 0 beyond, with an edge about `soft` wide."""
    edge: Pixels = np.clip((1 - far) / (2 * soft) + 0.5, 0, 1)
    return edge * edge * (3 - 2 * edge)


def blend(image: Pixels, cover: Pixels, colour: Array) -> None:
    """Lay `colour` (3,) over `image` (h, w, 3) where `cover` (h, w) says so, in place."""
    for channel in range(3):
        plane = image[..., channel]
        plane += cover * (np.float32(colour[channel]) - plane)


def vessel_density(field: Field, eye: Eye) -> tuple[Pixels, Pixels]:
    """The blood of all vessels and the bright reflex along the wide ones, each (h, w), 0 to 1."""
    vessels = eye.vessels
    ink, shine = Ink(field), Ink(field)
    thin_first = np.argsort(vessels.widths[:, 0], kind="stable")
    thick = np.minimum(1, 0.3 + vessels.widths[:, 0] * 38)
    tone = np.where(vessels.vein, 0.95, 0.64) * thick
    ink.strokes(vessels.paths[thin_first], vessels.widths[thin_first], tone[thin_first])
    wide = vessels.trunk
    shine.strokes(vessels.paths[wide], vessels.widths[wide] * 0.3, np.where(vessels.vein, 0.45, 1.0)[wide])
    return ink.done(0.0022), shine.done(0.002)


def absorb(image: Pixels, density: Pixels) -> None:
    """Let blood of `density` (h, w) darken `image` (h, w, 3) in place."""
    for channel in range(3):
        image[..., channel] *= np.exp(density * -BLOOD[channel])


def drusen(field: Field, eye: Eye, rng: Rng) -> Pixels:
    """Faint pale spots round the macula of an ageing but healthy eye, (h, w), 0 to 1."""
    n = int(rng.integers(6, 40))
    ink = Ink(field)
    centres = eye.fovea + rng.normal(0, 0.2, (n, 2))
    ink.fill(blobs(rng, centres, rng.uniform(0.005, 0.013, n)), rng.uniform(0.1, 0.42, n))
    return ink.done(0.005)
