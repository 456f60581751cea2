"""One drawn photograph: healthy eye, lesions, camera, put together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retina.config import GRADES
from retina.data.synthetic import appearance as camera
from retina.data.synthetic.canvas import Field, Pixels, Rng
from retina.data.synthetic.eye import absorb, anatomy, blend, drusen, paint_retina, vessel_density
from retina.data.synthetic.lesions import Layers, paint_lesions
from retina.data.synthetic.load import load_of

DRUSEN = np.array([0.95, 0.70, 0.36])
REFLEX = np.array([0.10, 0.065, 0.05], dtype=np.float32)


def photograph(grade: int, eye: str, size: int, rng: Rng, *, look: camera.Look | None = None) -> NDArray[np.uint8]:
    """Draw one fundus photograph.

    Anatomy, lesions and camera take their chances from separate streams: the same `rng` with another `grade` gives the
    same eye in the same light, and only the lesions differ.

    Args:
        grade: 0 to 4, International Clinical Diabetic Retinopathy scale.
        eye: "left" or "right"; the optic disc is on the left of a left eye's photograph.
        size: height in pixels.
        rng: where the chances come from.
        look: pigment and camera, which the eyes of one patient share; drawn from `rng` if not given.

    Returns:
        uint8 (size, width, 3), RGB; width is `size` times 4/3, 3/2 or 1.

    Raises:
        ValueError: for a grade or an eye that does not exist.
    """
    if grade not in range(GRADES):
        raise ValueError(f"grade is {grade!r}; it must be 0 to {GRADES - 1}")
    if eye not in {"left", "right"}:
        raise ValueError(f"eye is {eye!r}; it must be 'left' or 'right'")
    for_look, for_anatomy, for_retina, for_lesions, for_light, for_grain = rng.spawn(6)
    look = look or camera.patient_look(for_look)
    view = camera.field_of(look, size)
    seen = anatomy(for_anatomy, eye)
    lesions = paint_lesions(view, seen, load_of(grade, for_lesions), for_lesions)

    retina = paint_retina(view, seen, look, for_retina)
    if for_retina.random() < 0.13:
        blend(retina, drusen(view, seen, for_retina), DRUSEN)
    vessels, shine = vessel_density(view, seen)
    _add_lesions(retina, lesions, vessels, shine)
    shot = camera.exposure(for_light)
    lit = camera.expose(retina, view, look, shot, for_light)
    return _develop(lit, view, look, shot, for_grain)


def _add_lesions(retina: Pixels, lesions: Layers, vessels: Pixels, shine: Pixels) -> None:
    """Stack what lies below the vessels, the vessels, and what lies above, in place."""
    for cover, colour in lesions.below:
        blend(retina, cover, colour)
    if lesions.beads is not None:
        vessels = np.maximum(vessels, lesions.beads)
    absorb(retina, vessels if lesions.blood is None else vessels + lesions.blood)
    retina += shine[..., None] * REFLEX
    for cover, colour in lesions.above:
        blend(retina, cover, colour)
    if lesions.veil is not None:
        absorb(retina, lesions.veil)


def _develop(lit: Pixels, view: Field, look: camera.Look, shot: camera.Exposure, rng: Rng) -> NDArray[np.uint8]:
    """Blur, add grain, clip to bytes, and lay the round field onto the black of the whole photograph."""
    soft = camera.soften(np.clip(lit, 0, 1), (look.blur + shot.defocus) * view.radius)
    soft += camera.grain(view, look.noise, rng)
    soft *= camera.rim(view, look)[..., None]
    left, top, right, bottom = view.window
    black = np.abs(rng.normal(0, 0.7, 3))
    whole = np.empty((view.height, view.width, 3), dtype=np.uint8)
    whole[:] = np.round(black)
    whole[top:bottom, left:right] = np.clip(soft * 255 + black, 0, 255).astype(np.uint8)
    return whole
