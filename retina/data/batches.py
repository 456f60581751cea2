"""Batches of photographs on the device, augmented there.

Augmentation stands after the cache of decoded photographs, never before it. Its random numbers are drawn apart from
being applied (`draw`, `apply`), from a CPU generator seeded by trial and epoch: an epoch can be replayed on any device,
and a trial that is resumed sees what it would have seen. A batch is drawn as a whole (`drawn_batches`) but loaded by
itself (`load`), in pieces where the device cannot hold all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's channels on a 0 to 1 scale: what torchvision's weights were trained with."""

MAX_ZOOM, MAX_SHIFT = 0.1, 0.05
MAX_BRIGHTNESS, MAX_CONTRAST, MAX_SATURATION = 0.2, 0.2, 0.2


@dataclass(frozen=True)
class Part:
    """The photographs of one split.

    Attributes:
        pixels: uint8 (N, S, S, 3), usually memory-mapped and larger than the split.
        rows: int64 (M,), which of `pixels` belong to the split.
        grades: int64 (M,), 0 to 4, in the order of `rows`.
    """

    pixels: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    grades: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Photographs in the split."""
        return len(self.rows)


@dataclass(frozen=True)
class Augmentation:
    """One set of random choices for each of B photographs; what a kind of augmentation does not use is None.

    Attributes:
        flips: bool (B, 2), mirror left-right and top-bottom.
        affine: float (B, 2, 3), from output to input coordinates, -1 to 1, as torch's `affine_grid` takes it.
        colour: float (B, 3), factors of brightness, contrast and saturation around 1.
    """

    flips: torch.Tensor | None = None
    affine: torch.Tensor | None = None
    colour: torch.Tensor | None = None

    def __getitem__(self, which: slice) -> Augmentation:
        """The choices for some of the photographs."""
        parts = (self.flips, self.affine, self.colour)
        return Augmentation(*(None if choices is None else choices[which] for choices in parts))


@dataclass(frozen=True)
class Drawn:
    """A batch that is drawn but not loaded, so that it can be loaded in pieces.

    Attributes:
        chosen: int64 (B,), which of a `Part`'s photographs.
        augmentation: what was drawn for them.
    """

    chosen: npt.NDArray[np.int64]
    augmentation: Augmentation = Augmentation()

    def __len__(self) -> int:
        """Photographs in the batch."""
        return len(self.chosen)

    def __getitem__(self, which: slice) -> Drawn:
        """Some of the batch."""
        return Drawn(self.chosen[which], self.augmentation[which])


def draw(kind: str, count: int, generator: torch.Generator) -> Augmentation:
    """Random choices for `count` photographs: kind "none", "flip", "rotate" (flips, any angle, zoom, shift) or "full".

    A fundus photograph has no up: the eye is mirrored in its fellow, and cameras and patients tilt. "full" adds colour.
    """
    if kind == "none":
        return Augmentation()
    flips = torch.rand(count, 2, generator=generator) < 0.5
    if kind == "flip":
        return Augmentation(flips=flips)
    uniform = torch.rand(count, 7, generator=generator) * 2 - 1
    angle = uniform[:, 0] * math.pi
    scale = 1 + uniform[:, 1] * MAX_ZOOM
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift_x, shift_y = uniform[:, 2] * MAX_SHIFT, uniform[:, 3] * MAX_SHIFT
    affine = torch.stack([torch.stack([cos, -sin, shift_x], 1), torch.stack([sin, cos, shift_y], 1)], 1)
    if kind == "rotate":
        return Augmentation(flips=flips, affine=affine)
    limits = torch.tensor([MAX_BRIGHTNESS, MAX_CONTRAST, MAX_SATURATION])
    return Augmentation(flips=flips, affine=affine, colour=1 + uniform[:, 4:] * limits)


def apply(chosen: Augmentation, images: torch.Tensor) -> torch.Tensor:
    """`images`, float (B, 3, S, S) on a 0 to 1 scale, changed as chosen; same shape and dtype, channels last."""
    if chosen.flips is not None:
        for axis, flip in zip((3, 2), chosen.flips.to(images.device).T, strict=True):
            images = torch.where(flip[:, None, None, None], images.flip(axis), images)
    if chosen.affine is not None:
        grid = F.affine_grid(chosen.affine.to(images.device), list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if chosen.colour is not None:
        brightness, contrast, saturation = chosen.colour.to(images.device).T[:, :, None, None, None]
        images = images * brightness
        middle = images.mean(dim=(1, 2, 3), keepdim=True)
        images = middle + (images - middle) * contrast
        grey = images.mean(dim=1, keepdim=True)
        images = (grey + (images - grey) * saturation).clamp(0, 1)
    return images.contiguous(memory_format=torch.channels_last)


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (B, S, S, 3) to float32 (B, 3, S, S), 0 to 1, channels last (no copy beyond the conversion)."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Float (B, 3, S, S), 0 to 1, to ImageNet's mean 0 and deviation 1 a channel."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def seed_of(*parts: int) -> int:
    """A 63-bit seed that differs wherever one of as many parts differs, each below 2**32."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def drawn_batches(part: Part, *, batch_size: int, augmentation: str, seed: int, epoch: int) -> Iterator[Drawn]:
    """One epoch over `part` in random order, in batches to be loaded, the last of which may be smaller.

    Order and augmentation follow from `seed` and `epoch` alone.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    order = torch.randperm(len(part), generator=generator).numpy()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield Drawn(chosen, draw(augmentation, len(chosen), generator))


def load(part: Part, drawn: Drawn, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Photographs of `part`, augmented as drawn: (B, 3, S, S) float32 normalised, channels last, and (B,) int64 grades.

    Both on `device`, where nothing else is kept.
    """
    pixels = torch.from_numpy(part.pixels[part.rows[drawn.chosen]])
    grades = torch.from_numpy(part.grades[drawn.chosen])
    if device.type == "cuda":
        pixels, grades = pixels.pin_memory(), grades.pin_memory()
    images = to_float(pixels.to(device, non_blocking=True))
    return normalise(apply(drawn.augmentation, images)), grades.to(device, non_blocking=True)
