"""Draw one photograph: a healthy eye, its lesions and the effects of the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retina.config import GRADES
from retina.data.synthetic import appearance as camera
from retina.data.synthetic.canvas import Field, Pixels, Rng
from retina.data.synthetic.eye import absorb, blend, draw_anatomy, draw_drusen, paint_retina, vessel_density
from retina.data.synthetic.lesion_counts import draw_lesion_counts
from retina.data.synthetic.lesions import Layers, paint_lesions

DRUSEN = np.array([0.95, 0.70, 0.36])
REFLEX = np.array([0.10, 0.065, 0.05], dtype=np.float32)


def draw_photograph(
    grade: int, eye: str, size: int, rng: Rng, *, appearance: camera.Appearance | None = None
) -> NDArray[np.uint8]:
    """Draw one fundus photograph.

    Anatomy, lesions and camera have separate random number generators: the same `rng` with another `grade` gives the
    same eye in the same light with other lesions.

    Args:
        grade: 0 to 4, International Clinical Diabetic Retinopathy scale.
        eye: "left" or "right"; the optic disc is on the left of a left eye's photograph.
        size: height in pixels.
        rng: source of the random numbers.
        appearance: pigment and camera, which the eyes of one patient share; drawn from `rng` by default.

    Returns:
        uint8 (size, width, 3), RGB; width is `size` times 4/3, 3/2 or 1.

    Raises:
        ValueError: the grade or the eye does not exist.
    """
    if grade not in range(GRADES):
        raise ValueError(f"grade is {grade!r}; it must be 0 to {GRADES - 1}")
    if eye not in {"left", "right"}:
        raise ValueError(f"eye is {eye!r}; it must be 'left' or 'right'")
    appearance_rng, anatomy_rng, retina_rng, lesions_rng, light_rng, noise_rng = rng.spawn(6)
    appearance = appearance or camera.draw_appearance(appearance_rng)
    view = camera.field_of(appearance, size)
    anatomy = draw_anatomy(anatomy_rng, eye)
    lesions = paint_lesions(view, anatomy, draw_lesion_counts(grade, lesions_rng), lesions_rng)

    retina = paint_retina(view, anatomy, appearance, retina_rng)
    if retina_rng.random() < 0.13:
        blend(retina, draw_drusen(view, anatomy, retina_rng), DRUSEN)
    vessels, reflex = vessel_density(view, anatomy)
    _add_lesions(retina, lesions, vessels, reflex)
    shot = camera.draw_exposure(light_rng)
    lit = camera.apply_exposure(retina, view, appearance, shot, light_rng)
    return _develop(lit, view, appearance, shot, noise_rng)


def _add_lesions(retina: Pixels, lesions: Layers, vessels: Pixels, reflex: Pixels) -> None:
    """Paint the lesions below the vessels, the vessels, and the lesions above, in place."""
    for cover, colour in lesions.below:
        blend(retina, cover, colour)
    if lesions.beads is not None:
        vessels = np.maximum(vessels, lesions.beads)
    absorb(retina, vessels if lesions.blood is None else vessels + lesions.blood)
    retina += reflex[..., None] * REFLEX
    for cover, colour in lesions.above:
        blend(retina, cover, colour)
    if lesions.veil is not None:
        absorb(retina, lesions.veil)


def _develop(
    lit: Pixels, view: Field, appearance: camera.Appearance, shot: camera.Exposure, rng: Rng
) -> NDArray[np.uint8]:
    """Blur, add sensor noise, clip to bytes, and place the round field on a black photograph."""
    soft = camera.blur(np.clip(lit, 0, 1), (appearance.blur + shot.defocus) * view.radius)
    soft += camera.draw_sensor_noise(view, appearance.noise, rng)
    soft *= camera.field_coverage(view, appearance)[..., None]
    left, top, right, bottom = view.window
    black = np.abs(rng.normal(0, 0.7, 3))
    whole = np.empty((view.height, view.width, 3), dtype=np.uint8)
    whole[:] = np.round(black)
    whole[top:bottom, left:right] = np.clip(soft * 255 + black, 0, 255).astype(np.uint8)
    return whole
