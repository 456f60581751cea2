"""Batches of photographs on the device, augmented there.

Augmentation stands after the cache of decoded photographs, never before it. Its random numbers are drawn apart from
being applied (`draw`, `apply`), from a CPU generator seeded by trial and epoch: an epoch can be replayed on any device,
and a trial that is resumed sees what it would have seen. A batch is drawn as a whole (`drawn_batches`) but loaded by
itself (`load`), in pieces where the device cannot hold all of it. Nothing here waits for a GPU: what is sent to it goes
from pinned memory on a stream of its own, so that the copy for one batch runs beside the arithmetic of the one before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it

from retina.data import mixup
from retina.data.mixup import MixPlan

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's channels on a 0 to 1 scale: what torchvision's weights were trained with."""

MAX_ZOOM, MAX_SHIFT = 0.1, 0.05
UPLOAD_BYTES = 64 * 2**20
"""Sent at once when all of a data set goes to the device."""
MAX_BRIGHTNESS, MAX_CONTRAST, MAX_SATURATION = 0.2, 0.2, 0.2


@dataclass(frozen=True)
class SplitView:
    """The photographs of one split.

    Attributes:
        pixels: uint8 (N, S, S, 3), larger than the split, usually memory-mapped; a tensor where it lies on the device.
        rows: int64 (M,), which of `pixels` belong to the split.
        grades: int64 (M,), 0 to 4, in the order of `rows`.
        patients: int64 (M,), a number for each patient; None where every photograph stands for itself.
    """

    pixels: npt.NDArray[np.uint8] | torch.Tensor
    rows: npt.NDArray[np.int64]
    grades: npt.NDArray[np.int64]
    patients: npt.NDArray[np.int64] | None = None

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

    def on(self, device: torch.device) -> Augmentation:
        """The same on `device`."""
        parts = (self.flips, self.affine, self.colour)
        return Augmentation(*(None if choices is None else _sent(choices, device) for choices in parts))


@dataclass(frozen=True)
class BatchPlan:
    """A batch that is drawn but not loaded, so that it can be loaded in pieces.

    Attributes:
        chosen: int64 (B,), which of a `SplitView`'s photographs.
        augmentation: what was drawn for them.
        mix: how they are to be mixed, which `load` leaves to the caller; pieces of a batch are mixed each in itself.
    """

    chosen: npt.NDArray[np.int64]
    augmentation: Augmentation = Augmentation()
    mix: MixPlan | None = None

    def __len__(self) -> int:
        """Photographs in the batch."""
        return len(self.chosen)

    def __getitem__(self, which: slice) -> BatchPlan:
        """Some of the batch."""
        return BatchPlan(self.chosen[which], self.augmentation[which], self.mix)


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
    """`images`, float (B, 3, S, S) on a 0 to 1 scale, changed as chosen; same shape and dtype, channels last.

    Both on the same device.
    """
    flips, affine = chosen.flips, chosen.affine
    if flips is not None and affine is not None:  # one pass for both: a mirrored photograph is sampled mirrored
        affine, flips = affine * torch.where(flips, -1.0, 1.0)[:, :, None], None
    if flips is not None:
        for axis, flip in zip((3, 2), flips.T, strict=True):
            images = torch.where(flip[:, None, None, None], images.flip(axis), images)
    if affine is not None:
        grid = F.affine_grid(affine, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if chosen.colour is not None:
        brightness, contrast, saturation = chosen.colour.T[:, :, None, None, None]
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
    mean, std = _statistics(images.device)
    return (images - mean) / std


@cache
def _statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    # made once: to send them with each batch would wait for the device each time
    with torch.inference_mode(mode=False):  # for training too, whoever asks first
        return tuple(torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))  # type: ignore[return-value]


def seed_of(*parts: int) -> int:
    """A 63-bit seed that differs wherever one of as many parts differs, each below 2**32."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def drawn_batches(
    part: SplitView,
    *,
    batch_size: int,
    augmentation: str,
    seed: int,
    epoch: int,
    mix: str = "none",
    mix_alpha: float = 1.0,
) -> Iterator[BatchPlan]:
    """One epoch over `part` in random order, in batches to be loaded, the last of which may be smaller.

    Where it would be less than half a batch, the last two share their photographs evenly: a step by a single photograph
    would be as large as any, and move BatchNorm's running statistics as much, just before validation.

    Order, augmentation and mixing (see `mixing.draw`) follow from `seed` and `epoch` alone.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    order = torch.randperm(len(part), generator=generator).numpy()
    for start, end in _edges(len(order), batch_size):
        chosen = order[start:end]
        mixed = mixup.draw(mix, mix_alpha, seed_of(seed, epoch, start, 1))
        yield BatchPlan(chosen, draw(augmentation, len(chosen), generator), mixed)


def _edges(count: int, batch_size: int) -> Iterator[tuple[int, int]]:
    cuts = [*range(0, count, batch_size), count]
    if len(cuts) > 2 and 2 * (count - cuts[-2]) < batch_size:
        cuts[-2] = math.ceil((cuts[-3] + count) / 2)
    return pairwise(cuts)


def load(part: SplitView, drawn: BatchPlan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Photographs of `part`, augmented as drawn: (B, 3, S, S) float32 normalised, channels last, and (B,) int64 grades.

    Both on `device`, where nothing else is kept.
    """
    rows = torch.from_numpy(part.rows[drawn.chosen])
    if isinstance(part.pixels, torch.Tensor):
        pixels = part.pixels.index_select(0, _sent(rows, part.pixels.device)).to(device)
    else:
        pixels = _sent(torch.from_numpy(part.pixels[rows.numpy()]), device)
    images = apply(drawn.augmentation.on(device), to_float(pixels))
    return normalise(images), _sent(torch.from_numpy(part.grades[drawn.chosen]), device)


def resident(
    pixels: npt.NDArray[np.uint8], device: torch.device, most_bytes: int
) -> npt.NDArray[np.uint8] | torch.Tensor:
    """`pixels`, uint8 (N, S, S, 3), on `device` if they take `most_bytes` or fewer there; else, and on a CPU, as is."""
    if device.type == "cpu" or pixels.nbytes > most_bytes:
        return pixels
    there = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    rows = max(1, UPLOAD_BYTES // max(1, pixels[:1].nbytes))
    for start in range(0, len(pixels), rows):
        there[start : start + rows].copy_(torch.from_numpy(np.array(pixels[start : start + rows])))
    return there


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor`, of the host, on `device`, without waiting for either."""
    if device.type != "cuda":
        return tensor.to(device)
    with torch.cuda.stream(_copies(device)):
        there = tensor.pin_memory().to(device, non_blocking=True)
    now = torch.cuda.current_stream(device)
    now.wait_stream(_copies(device))
    there.record_stream(now)  # else its memory could be given away when it is dropped here and still read there
    return there


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
