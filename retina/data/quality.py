"""Quality checks of a photograph: whether it shows a disc, is bright enough and is sharp enough to be graded.

The limits were set on the 516 photographs of IDRiD (Porwal et al. 2018) and on altered copies of them:

- brightness: 36 to 139 for the originals, half of them above 97; 7 to 28 when darkened to a fifth. At 30 the vessels of
  a median photograph differ by two grey levels from their surroundings.
- sharpness: 0.59 to 1.10 for the originals, except for one at 0.46, in which even the vessels have no edges. Blurred by
  a Gaussian whose sigma is 1% of the disc's width, which is the width of a large vein, 0.33 to 0.51; by 1.5%, 0.30 to
  0.39, and with additional noise of 2 grey levels 0.31 to 0.49. Darkening down to a fifth changes it by at most 0.02.
  Of a photograph that is both blurred and darker than that, mostly the darkness is reported: the steps between its grey
  levels are as fine as its finest details.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from retina.data.fundus import Disc, Pixels, find_disc

NO_DISC = "no disc"
VERY_DARK = "very dark"
BLURRED = "blurred"
MIN_BRIGHTNESS = 30.0
MIN_SHARPNESS = 0.52
MIN_SIDE = 100
"""The sharpness of discs with fewer pixels is not measured, because vessels are no longer visible."""

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SIDE = 224  # side, in pixels, of the measured square; most models see no finer details
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Quality:
    """The quality of one photograph, measured within its disc, or on the whole photograph if there is no disc.

    Attributes:
        disc: the disc, in pixels of the measured photograph; None if none was found.
        brightness: mean luma, 0 to 255.
        contrast: standard deviation, in grey levels, of details finer than a tenth of the disc.
        sharpness: strength of the finest details (DoG of sigma 1 and 2, in pixels of a disc of 224) relative to details
            twice as large; independent of brightness and contrast. NaN without a disc or with one below `MIN_SIDE`.
    """

    disc: Disc | None
    brightness: float
    contrast: float
    sharpness: float

    @property
    def problems(self) -> list[str]:
        """The problems among `NO_DISC`, `VERY_DARK` and `BLURRED`, in this order; empty for a good photograph."""
        checks = {
            NO_DISC: self.disc is None,
            VERY_DARK: self.brightness < MIN_BRIGHTNESS,
            BLURRED: self.sharpness < MIN_SHARPNESS,  # false for NaN
        }
        return [problem for problem, has_problem in checks.items() if has_problem]


def measure(pixels: Pixels) -> Quality:
    """Measure the quality of a photograph or of the square that was cropped from one.

    Args:
        pixels: (height, width, 3) uint8 RGB, decoded at any size at which the disc has 224 pixels or more; a smaller
            disc is measured without resizing.
    """
    disc = find_disc(pixels)
    height, width = pixels.shape[:2]
    whole = disc or Disc(0, 0, width, height, width / 2, height / 2, float(np.hypot(width, height)) / 2)
    size = min(max(whole.square()[2], 1), _SIDE)
    square, inside = crop_disc(pixels, whole, size, margin=0.01)
    brightness = square @ _LUMA
    inner = _without_rim(inside)
    one, two, four, eight = (ndimage.gaussian_filter(brightness, sigma) for sigma in (1, 2, 4, 8))
    has_sharpness = disc is not None and size >= MIN_SIDE
    return Quality(
        disc=disc,
        brightness=_mean(brightness, inside),
        contrast=_spread(brightness - eight, inner),
        sharpness=_ratio(_spread(one - two, inner), _spread(two - four, inner)) if has_sharpness else float("nan"),
    )


def crop_disc(pixels: Pixels, disc: Disc, size: int, margin: float) -> tuple[Floats, Mask]:
    """Crop the square around a disc and mark the pixels inside the disc.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        disc: the result of `retina.data.fundus.find_disc`.
        size: side of the result in pixels.
        margin: distance to keep from the disc's rim and from its flat cuts, as a fraction of the side.

    Returns:
        (size, size, 3) float32 RGB, 0 to 255, black outside the photograph, and (size, size) bool.
    """
    left, top, side = disc.square()
    cut = Image.fromarray(pixels).crop((left, top, left + side, top + side))
    square = np.asarray(cut.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=1.5), np.float32)
    scale, rim = size / side, margin * size
    centres = np.arange(size, dtype=np.float32) + 0.5
    x, y = centres[None, :] / scale + left, centres[:, None] / scale + top  # in the photograph
    rim /= scale
    circle: Mask = np.hypot(x - disc.x, y - disc.y) < disc.radius - rim
    box = (x > disc.left + rim) & (x < disc.right - rim) & (y > disc.top + rim) & (y < disc.bottom - rim)
    return square, circle & box


def _without_rim(inside: Mask) -> Mask:
    """Return the pixels farther from the rim than the filters reach, so that the step to black is not a detail."""
    distance = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    far: Mask = distance > 0.07 * len(inside)
    return far


def _mean(values: Floats, mask: Mask) -> float:
    return float(values[mask].mean()) if mask.any() else float(values.mean())


def _spread(values: Floats, mask: Mask) -> float:
    return float(values[mask].std()) if mask.any() else 0.0


def _ratio(fine: float, coarse: float) -> float:
    """Return `fine` / `coarse`, or 0 for a disc of one even colour."""
    return fine / coarse if coarse > 1e-3 else 0.0
