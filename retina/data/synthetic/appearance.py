"""What the photographs of one patient share: pigment and camera; and what the camera does to each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from retina.data.synthetic.canvas import MARGIN, Field, Ink, Pixels, Rng, blobs, cloud

LIGHT, MEDIUM, DARK = np.array([[0.88, 0.47, 0.24], [0.76, 0.40, 0.18], [0.50, 0.235, 0.115]])


@dataclass(frozen=True)
class Look:
    """One patient's pigment and the camera that both eyes are taken with."""

    colour: tuple[float, float, float]  # of the retina, 0 to 1
    cast: tuple[float, float, float]  # the camera's factors on red, green and blue
    grey: float  # how much colour the camera loses, 0 to about 0.2
    tigroid: float  # how strongly the choroid's vessels shine through, 0 or 0.05 to 0.16
    aspect: float  # width over height
    fill: float  # diameter of the field over the height; above 1 the field is cut at top and bottom
    shift: tuple[float, float]  # of the field's centre, in heights
    notch: float  # where on the rim the camera marks its side, in radians; NaN: nowhere
    blur: float  # of the optics, in field units
    noise: float
    quality: int  # of the JPEG


def patient_look(rng: Rng) -> Look:
    """Draw one patient's look."""
    pigment = rng.beta(2.0, 1.9)
    low, high, part = (LIGHT, MEDIUM, pigment * 2) if pigment < 0.5 else (MEDIUM, DARK, pigment * 2 - 1)
    colour = (low * (1 - part) + high * part) * np.exp(rng.normal(0, [0.03, 0.06, 0.12]))
    cast = np.exp(rng.normal(0, [0.04, 0.055, 0.16]))
    cut = rng.random() < 0.55
    aspect = float(rng.choice([4 / 3, 3 / 2, 1.0], p=[0.45, 0.38, 0.17]))
    fill = rng.uniform(1.06, min(1.26, aspect * 0.97)) if cut and aspect > 1.2 else rng.uniform(0.9, 1.0)
    return Look(
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


def field_of(look: Look, size: int) -> Field:
    """The field of this camera in a photograph of height `size`."""
    width = round(size * look.aspect)
    return Field(width, size, width / 2 + look.shift[0] * size, size / 2 + look.shift[1] * size, size * look.fill / 2)


@dataclass(frozen=True)
class Exposure:
    """One press of the shutter: light, haze, dirt; not shared by the fellow eye."""

    light: float
    lamp: tuple[float, float]  # where the light is brightest, in field units
    vignette: float
    haze: float  # pale blue crescent at the rim, 0 to about 0.4
    haze_angle: float
    defocus: float  # in field units


def exposure(rng: Rng) -> Exposure:
    """Draw one exposure; about one in seven is clearly too dark, too bright or out of focus."""
    light = float(np.exp(rng.normal(0.02, 0.11)))
    odd = rng.random()
    if odd < 0.05:
        light *= 0.6
    elif odd < 0.09:
        light *= 1.35
    return Exposure(
        light=light,
        lamp=(float(rng.normal(0, 0.25)), float(rng.normal(0, 0.22))),
        vignette=float(rng.uniform(0.12, 0.5)),
        haze=float(rng.uniform(0.08, 0.4)) if rng.random() < 0.4 else 0.0,
        haze_angle=float(rng.uniform(0, 2 * np.pi)),
        defocus=float(rng.uniform(0.004, 0.009)) if rng.random() < 0.06 else 0.0,
    )


def expose(retina: Pixels, field: Field, look: Look, shot: Exposure, rng: Rng) -> Pixels:
    """Light the retina: (h, w, 3), uneven, vignetted, hazy, dirty."""
    x, y = field.axes()
    far = (x - shot.lamp[0]) ** 2 + (y - shot.lamp[1]) ** 2
    rim = x**2 + y**2
    light = shot.light * (1 - shot.vignette * np.minimum(far, 1.6) / 1.6 - 0.22 * shot.vignette * rim**3)
    light = np.maximum(light * (1 + 0.03 * cloud(field, rng, 2)), 0.02)
    if look.grey:
        mean = retina.mean(axis=-1, keepdims=True)
        retina = retina + np.float32(look.grey) * (mean - retina)
    lit = np.empty_like(retina)
    for channel, (cast, warmth) in enumerate(zip(look.cast, (-0.15, 0.0, 0.1), strict=True)):
        lit[..., channel] = retina[..., channel] * (np.float32(cast) * light * (1 + np.float32(warmth) * (light - 1)))
    if shot.haze:
        towards = x * np.cos(shot.haze_angle) + y * np.sin(shot.haze_angle)
        veil = shot.haze * np.clip(rim - 0.45, 0, 1) * np.clip(0.6 + towards, 0, 1.4)
        for channel, pale in enumerate((0.62, 0.56, 0.58)):
            lit[..., channel] += veil * (np.float32(pale) - np.float32(0.4) * lit[..., channel])
    dirt = _dirt(field, rng)
    if dirt is not None:
        lit *= 1 + dirt[..., None]
    if rng.random() < 0.12:
        lit += _ghost(field, rng)
    return lit


def _dirt(field: Field, rng: Rng) -> Pixels | None:
    """Dust on the lens or the sensor: a few grey specks, darker or paler than the retina, out of focus."""
    if rng.random() > 0.3:
        return None
    n = int(rng.integers(1, 6))
    ink = Ink(field)
    ink.fill(blobs(rng, rng.uniform(-0.8, 0.8, (n, 2)), rng.uniform(0.008, 0.022, n)), rng.uniform(0.3, 1, n))
    return ink.done(rng.uniform(0.006, 0.014)) * np.float32(rng.choice([-0.22, 0.2]))


def _ghost(field: Field, rng: Rng) -> Pixels:
    """A reflection inside the lens: a soft pale disc, bluish or greenish, (h, w, 3)."""
    ink = Ink(field, soft=True)
    centre = rng.uniform(-0.85, 0.85, (1, 2))
    ink.fill(blobs(rng, centre, rng.uniform(0.06, 0.16, 1), roughness=0.03, points=30), rng.uniform(0.3, 0.8))
    tint = np.array([0.14, 0.2, 0.22]) if rng.random() < 0.6 else np.array([0.16, 0.22, 0.1])
    return ink.done(0.03)[..., None] * tint.astype(np.float32)


def rim(field: Field, look: Look) -> Pixels:
    """How much of each pixel the camera's field covers: (h, w), 1 inside, 0 outside, with the notch if there is one."""
    x, y = field.axes()
    far = np.sqrt(x**2 + y**2)
    cover = np.clip((1 - far) / (2.2 * field.pixel) + 0.5, 0, 1)
    if np.isfinite(look.notch):
        along = x * np.cos(look.notch) + y * np.sin(look.notch)
        across = -x * np.sin(look.notch) + y * np.cos(look.notch)
        cover = np.where((np.abs(across) < 0.03) & (along > 0.9) & (along < MARGIN - 0.008), 1, cover)
    covered: Pixels = cover.astype(np.float32)
    return covered


def grain(field: Field, noise: float, rng: Rng) -> Pixels:
    """The sensor's noise, (h, w, 3): mostly brightness, some colour at half the resolution."""
    height, width = field.shape
    grey = rng.standard_normal((height, width), dtype=np.float32)
    half = rng.standard_normal(((height + 1) // 2, (width + 1) // 2, 3), dtype=np.float32)
    colour = half.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.float32(noise) * (grey[..., None] + np.float32(0.6) * colour)


def soften(image: Pixels, sigma: float) -> Pixels:
    """Blur `image` (h, w, 3), 0 to 1, by `sigma` pixels."""
    if sigma < 0.25:
        return image
    sharp = Image.fromarray((image * 255).astype(np.uint8))
    return np.asarray(sharp.filter(ImageFilter.GaussianBlur(sigma)), dtype=np.float32) / np.float32(255)
