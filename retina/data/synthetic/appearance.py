"""Pigment and camera, which the photographs of a patient share, and the exposure of each photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from retina.data.synthetic.canvas import MARGIN, Field, Ink, Pixels, Rng, blob_outlines, smooth_noise

LIGHT, MEDIUM, DARK = np.array([[0.88, 0.47, 0.24], [0.76, 0.40, 0.18], [0.50, 0.235, 0.115]])


@dataclass(frozen=True)
class Appearance:
    """The pigment of one patient and the camera of the photographs of both eyes."""

    colour: tuple[float, float, float]  # of the retina, 0 to 1
    cast: tuple[float, float, float]  # the camera's factors on red, green and blue
    grey: float  # how much colour the camera loses, 0 to about 0.2
    tigroid: float  # how strongly the choroid's vessels shine through, 0 or 0.05 to 0.16
    aspect: float  # width over height
    fill: float  # diameter of the field over the height; above 1 the field is cut at top and bottom
    shift: tuple[float, float]  # of the field's centre, in heights
    notch: float  # angle of the camera's mark on the rim, in radians; NaN without a mark
    blur: float  # of the optics, in field units
    noise: float
    quality: int  # of the JPEG


def draw_appearance(rng: Rng) -> Appearance:
    """Draw the appearance of one patient's photographs at random."""
    pigment = rng.beta(2.0, 1.9)
    low, high, weight = (LIGHT, MEDIUM, pigment * 2) if pigment < 0.5 else (MEDIUM, DARK, pigment * 2 - 1)
    colour = (low * (1 - weight) + high * weight) * np.exp(rng.normal(0, [0.03, 0.06, 0.12]))
    cast = np.exp(rng.normal(0, [0.04, 0.055, 0.16]))
    is_cut = rng.random() < 0.55
    aspect = float(rng.choice([4 / 3, 3 / 2, 1.0], p=[0.45, 0.38, 0.17]))
    fill = rng.uniform(1.06, min(1.26, aspect * 0.97)) if is_cut and aspect > 1.2 else rng.uniform(0.9, 1.0)
    return Appearance(
        colour=(float(colour[0]), float(colour[1]), float(colour[2])),
        cast=(float(cast[0]), float(cast[1]), float(cast[2])),
        grey=float(rng.uniform(0.04, 0.22)) if rng.random() < 0.4 else 0.0,
        tigroid=float(rng.uniform(0.05, 0.16)) if rng.random() < 0.3 else 0.0,
        aspect=aspect,
        fill=float(fill),
        shift=(float(rng.normal(0, 0.008)), float(rng.normal(0, 0.006))),
        notch=float(rng.choice([-0.7, 0.7, 0.0]) + rng.normal(0, 0.1)) if rng.random() < 0.35 else float("nan"),
        blur=float(rng.uniform(0.0012, 0.004)),
        noise=float(rng.uniform(0.004, 0.016)),
        quality=int(rng.integers(72, 96)),
    )


def field_of(appearance: Appearance, size: int) -> Field:
    """Return the camera's field in a photograph of height `size`."""
    width = round(size * appearance.aspect)
    return Field(
        width,
        size,
        width / 2 + appearance.shift[0] * size,
        size / 2 + appearance.shift[1] * size,
        size * appearance.fill / 2,
    )


@dataclass(frozen=True)
class Exposure:
    """The exposure of one photograph: light, haze, focus; not shared with the fellow eye."""

    light: float
    lamp: tuple[float, float]  # position of the brightest light, in field units
    vignette: float
    haze: float  # pale blue crescent at the rim, 0 to about 0.4
    haze_angle: float
    defocus: float  # in field units


def draw_exposure(rng: Rng) -> Exposure:
    """Draw an exposure at random; about one in seven is clearly too dark, too bright or out of focus."""
    light = float(np.exp(rng.normal(0.02, 0.11)))
    fault = rng.random()
    if fault < 0.05:
        light *= 0.6
    elif fault < 0.09:
        light *= 1.35
    return Exposure(
        light=light,
        lamp=(float(rng.normal(0, 0.25)), float(rng.normal(0, 0.22))),
        vignette=float(rng.uniform(0.12, 0.5)),
        haze=float(rng.uniform(0.08, 0.4)) if rng.random() < 0.4 else 0.0,
        haze_angle=float(rng.uniform(0, 2 * np.pi)),
        defocus=float(rng.uniform(0.004, 0.009)) if rng.random() < 0.06 else 0.0,
    )


def apply_exposure(retina: Pixels, field: Field, appearance: Appearance, shot: Exposure, rng: Rng) -> Pixels:
    """Illuminate the retina, (h, w, 3), with uneven light, vignette, haze and dirt."""
    x, y = field.axes()
    from_lamp = (x - shot.lamp[0]) ** 2 + (y - shot.lamp[1]) ** 2  # squared distances
    from_centre = x**2 + y**2
    light = shot.light * (1 - shot.vignette * np.minimum(from_lamp, 1.6) / 1.6 - 0.22 * shot.vignette * from_centre**3)
    light = np.maximum(light * (1 + 0.03 * smooth_noise(field, rng, 2)), 0.02)
    if appearance.grey:
        mean = retina.mean(axis=-1, keepdims=True)
        retina = retina + np.float32(appearance.grey) * (mean - retina)
    lit = np.empty_like(retina)
    for channel, (cast, warmth) in enumerate(zip(appearance.cast, (-0.15, 0.0, 0.1), strict=True)):
        lit[..., channel] = retina[..., channel] * (np.float32(cast) * light * (1 + np.float32(warmth) * (light - 1)))
    if shot.haze:
        towards = x * np.cos(shot.haze_angle) + y * np.sin(shot.haze_angle)
        veil = shot.haze * np.clip(from_centre - 0.45, 0, 1) * np.clip(0.6 + towards, 0, 1.4)
        for channel, pale in enumerate((0.62, 0.56, 0.58)):
            lit[..., channel] += veil * (np.float32(pale) - np.float32(0.4) * lit[..., channel])
    dirt = _draw_dirt(field, rng)
    if dirt is not None:
        lit *= 1 + dirt[..., None]
    if rng.random() < 0.12:
        lit += _draw_ghost(field, rng)
    return lit


def _draw_dirt(field: Field, rng: Rng) -> Pixels | None:
    """Draw dust on the lens or the sensor: a few grey specks, darker or paler than the retina, out of focus."""
    if rng.random() > 0.3:
        return None
    n = int(rng.integers(1, 6))
    ink = Ink(field)
    ink.fill(blob_outlines(rng, rng.uniform(-0.8, 0.8, (n, 2)), rng.uniform(0.008, 0.022, n)), rng.uniform(0.3, 1, n))
    return ink.render(rng.uniform(0.006, 0.014)) * np.float32(rng.choice([-0.22, 0.2]))


def _draw_ghost(field: Field, rng: Rng) -> Pixels:
    """Draw a reflection inside the lens: a soft pale disc, bluish or greenish, (h, w, 3)."""
    ink = Ink(field, soft=True)
    centre = rng.uniform(-0.85, 0.85, (1, 2))
    ink.fill(blob_outlines(rng, centre, rng.uniform(0.06, 0.16, 1), roughness=0.03, points=30), rng.uniform(0.3, 0.8))
    tint = np.array([0.14, 0.2, 0.22]) if rng.random() < 0.6 else np.array([0.16, 0.22, 0.1])
    return ink.render(0.03)[..., None] * tint.astype(np.float32)


def field_coverage(field: Field, appearance: Appearance) -> Pixels:
    """Return how much of each pixel the camera's field covers: (h, w), 1 inside, 0 outside, including the notch."""
    x, y = field.axes()
    distance = np.sqrt(x**2 + y**2)
    cover = np.clip((1 - distance) / (2.2 * field.pixel) + 0.5, 0, 1)
    if np.isfinite(appearance.notch):
        along = x * np.cos(appearance.notch) + y * np.sin(appearance.notch)
        across = -x * np.sin(appearance.notch) + y * np.cos(appearance.notch)
        cover = np.where((np.abs(across) < 0.03) & (along > 0.9) & (along < MARGIN - 0.008), 1, cover)
    coverage: Pixels = cover.astype(np.float32)
    return coverage


def draw_sensor_noise(field: Field, noise: float, rng: Rng) -> Pixels:
    """Draw the sensor's noise, (h, w, 3): mostly brightness, some colour at half the resolution."""
    height, width = field.shape
    grey = rng.standard_normal((height, width), dtype=np.float32)
    half = rng.standard_normal(((height + 1) // 2, (width + 1) // 2, 3), dtype=np.float32)
    colour = half.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.float32(noise) * (grey[..., None] + np.float32(0.6) * colour)


def blur(image: Pixels, sigma: float) -> Pixels:
    """Blur `image` (h, w, 3), 0 to 1, by `sigma` pixels."""
    if sigma < 0.25:
        return image
    sharp = Image.fromarray((image * 255).astype(np.uint8))
    return np.asarray(sharp.filter(ImageFilter.GaussianBlur(sigma)), dtype=np.float32) / np.float32(255)
