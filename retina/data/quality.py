"""Whether a photograph is fit to be graded: is there a disc, is it lit, is it sharp.

The limits were set on the 516 photographs of IDRiD (Porwal et al. 2018) and on altered copies of them:

- brightness: as they are they lie at 36 to 139, half of them above 97; darkened to a fifth, at 7 to 28. At 30 the
  vessels of a median photograph differ by two grey levels from what is around them.
- sharpness: as they are they lie at 0.59 to 1.10 and one, in which even the vessels have no edges, at 0.46; blurred by
  a Gaussian whose sigma is 1% of the disc's width, which is as wide as a large vein, at 0.33 to 0.51; by 1.5%, at 0.30
  to 0.39, and with noise over that (2 grey levels) at 0.31 to 0.49. Darkening changes it by no more than 0.02 down to
  a fifth. Of what is darker than that and blurred too, mostly the darkness is told: the steps of the grey levels are
  as fine as its finest details.
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
LEAST_BRIGHTNESS = 30.0
LEAST_SHARPNESS = 0.52
LEAST_SIDE = 100
"""Discs of fewer pixels are not judged for sharpness: nothing of a vessel is left."""

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SIDE = 224  # pixels of the disc's square in which it is measured: what differs at more, most models never see
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Quality:
    """One photograph, measured within its disc; where there is none, over all of it.

    Attributes:
        disc: where it stands, in the pixels that were measured; None if none was found.
        brightness: mean luma, 0 to 255.
        contrast: standard deviation, in grey levels, of what is finer than a tenth of the disc.
        sharpness: how strong the finest details (DoG of sigma 1 and 2, in pixels of a disc of 224) are beside those
            twice as large; independent of brightness and contrast. NaN without a disc, or with one below `LEAST_SIDE`.
    """

    disc: Disc | None
    brightness: float
    contrast: float
    sharpness: float

    @property
    def problems(self) -> list[str]:
        """What makes it unfit: some of `NO_DISC`, `VERY_DARK` and `BLURRED`, in this order; empty for a good one."""
        told = {
            NO_DISC: self.disc is None,
            VERY_DARK: self.brightness < LEAST_BRIGHTNESS,
            BLURRED: self.sharpness < LEAST_SHARPNESS,  # false for NaN
        }
        return [problem for problem, found in told.items() if found]


def measure(pixels: Pixels) -> Quality:
    """Measure a photograph, or the square that was cut from one.

    Args:
        pixels: (height, width, 3) uint8 RGB. Of the sizes that a photograph can be decoded at any will do whose disc
            has 224 pixels or more; a smaller one is measured as it is.
    """
    disc = find_disc(pixels)
    height, width = pixels.shape[:2]
    whole = disc or Disc(0, 0, width, height, width / 2, height / 2, float(np.hypot(width, height)) / 2)
    size = min(max(whole.square()[2], 1), _SIDE)
    square, inside = within(pixels, whole, size, margin=0.01)
    brightness = square @ _LUMA
    inner = _without_rim(inside)
    one, two, four, eight = (ndimage.gaussian_filter(brightness, sigma) for sigma in (1, 2, 4, 8))
    judged = disc is not None and size >= LEAST_SIDE
    return Quality(
        disc=disc,
        brightness=_mean(brightness, inside),
        contrast=_spread(brightness - eight, inner),
        sharpness=_ratio(_spread(one - two, inner), _spread(two - four, inner)) if judged else float("nan"),
    )


def within(pixels: Pixels, disc: Disc, size: int, margin: float) -> tuple[Floats, Mask]:
    """The square around a disc, and what of it lies inside the disc.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        disc: as `retina.data.fundus.find_disc` gives it.
        size: side of the result in pixels.
        margin: how far inside the disc's rim, and inside its flat cuts, as a share of the side.

    Returns:
        (size, size, 3) float32 RGB, 0 to 255, black outside the photograph, and (size, size) bool.
    """
    left, top, side = disc.square()
    cut = Image.fromarray(pixels).crop((left, top, left + side, top + side))
    square = np.asarray(cut.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=1.5), np.float32)
    scale, rim = size / side, margin * size
    across = np.arange(size, dtype=np.float32) + 0.5
    x, y = across[None, :] / scale + left, across[:, None] / scale + top  # in the photograph
    rim /= scale
    circle: Mask = np.hypot(x - disc.x, y - disc.y) < disc.radius - rim
    box = (x > disc.left + rim) & (x < disc.right - rim) & (y > disc.top + rim) & (y < disc.bottom - rim)
    return square, circle & box


def _without_rim(inside: Mask) -> Mask:
    """Farther from the rim than the filters reach, so that the step down to black is no detail."""
    distance = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    far: Mask = distance > 0.07 * len(inside)
    return far


def _mean(values: Floats, mask: Mask) -> float:
    return float(values[mask].mean()) if mask.any() else float(values.mean())


def _spread(values: Floats, mask: Mask) -> float:
    return float(values[mask].std()) if mask.any() else 0.0


def _ratio(fine: float, coarse: float) -> float:
    """`fine` over `coarse`; 0 for a disc that is one even patch."""
    return fine / coarse if coarse > 1e-3 else 0.0
