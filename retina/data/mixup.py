"""MixUp and CutMix: blend the photographs of a batch, or paste boxes of one into another, and weight their grades.

Each photograph is mixed with its neighbour in the batch, whose order is random, the first one with the last.
torchvision's `v2.MixUp` and `v2.CutMix` mix in the same manner, but they turn grades into five class probabilities,
which ordinal losses do not take. Nothing here waits for the device.
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
        share: weight of the photograph itself, 0 to 1; the neighbour has the rest.
        centre: x and y, 0 to 1, of the centre of the box that is cut from the neighbour; None to blend the two.
    """

    share: float
    centre: tuple[float, float] | None = None

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Mix float (B, 3, S, S) images, for the loss `share * loss(grades) + (1 - share) * loss(grades.roll(1))`.

        Returns:
            The mixed images in the same shape and memory format, and the weight of the photograph itself, which for a
            box is computed from its area in whole pixels.
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


def draw_mix_plan(kind: str, alpha: float, seed: int) -> MixPlan | None:
    """Draw how a batch is mixed.

    "mixup" blends (Zhang et al. 2018, arXiv 1710.09412), "cutmix" cuts a box (Yun et al. 2019, arXiv 1905.04899).

    Args:
        kind: "none", "mixup" or "cutmix".
        alpha: the share is drawn from Beta(alpha, alpha): near 0 or 1 for a small alpha, uniform for 1.
        seed: seed of the random numbers.

    Returns:
        The plan; None for the kind "none".
    """
    if kind == "none":
        return None
    generator = np.random.default_rng(seed)
    share = float(generator.beta(alpha, alpha))
    return MixPlan(share, (generator.random(), generator.random()) if kind == "cutmix" else None)
