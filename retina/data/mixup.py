"""MixUp and CutMix: photographs of a batch blended with, or cut into, one another, and their grades with them.

Each photograph is mixed with its neighbour in the batch, whose order is random, the first one with the last; so do
torchvision's own, which take grades as five shares each and so no ordinal loss. Nothing here looks at the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class MixPlan:
    """How the photographs of one batch are mixed.

    Attributes:
        share: of a photograph itself, 0 to 1; the rest is its neighbour's.
        centre: of the box that is cut from the neighbour, x and y, 0 to 1; None where the two are blended.
    """

    share: float
    centre: tuple[float, float] | None = None

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Mix float (B, 3, S, S) images, for grades `share * loss(grades) + (1 - share) * loss(grades.roll(1))`.

        Returns:
            The same shape and memory format, and the share of a photograph itself: that of the box in whole pixels.
        """
        other = images.roll(1, 0)
        if self.centre is None:
            return images.lerp(other, 1 - self.share), self.share
        size = images.shape[-1]
        half = math.sqrt(1 - self.share) / 2
        (left, right), (top, bottom) = (
            (round(max(at - half, 0) * size), round(min(at + half, 1) * size)) for at in self.centre
        )
        images = images.clone()
        images[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        return images, 1 - (right - left) * (bottom - top) / size**2


def draw(kind: str, alpha: float, seed: int) -> MixPlan | None:
    """How a batch is mixed; None where it is not.

    "mixup" blends (Zhang et al. 2018, arXiv 1710.09412), "cutmix" cuts a box (Yun et al. 2019, arXiv 1905.04899).

    Args:
        kind: "none", "mixup" or "cutmix".
        alpha: the share is drawn from Beta(alpha, alpha): near 0 or 1 where it is small, evenly where it is 1.
        seed: everything follows from it.
    """
    if kind == "none":
        return None
    generator = np.random.default_rng(seed)
    share = float(generator.beta(alpha, alpha))
    return MixPlan(share, (generator.random(), generator.random()) if kind == "cutmix" else None)
