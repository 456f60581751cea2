"""Batches of photographs, loaded and augmented on the device.

Augmentation follows the cache of decoded photographs and is never cached. Its random numbers are drawn
(`draw_augmentation`) apart from being applied (`apply_augmentation`), by a CPU generator seeded by trial and epoch: an
epoch can be replayed on any device, and a resumed trial trains on the same batches. A batch is planned as a whole
(`plan_batches`) and loaded separately (`load`), in slices where the device cannot hold all of it. Nothing here waits
for a GPU: data is sent from pinned memory on a separate stream, so that the copy for one batch overlaps with the
computation of the batch before.
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
"""Mean and standard deviation of ImageNet's channels, 0 to 1, with which torchvision's weights are trained."""

MAX_ZOOM, MAX_SHIFT = 0.1, 0.05
UPLOAD_BYTES = 64 * 2**20
"""Bytes sent at a time when a whole data set is copied to the device."""
MAX_BRIGHTNESS, MAX_CONTRAST, MAX_SATURATION = 0.2, 0.2, 0.2


@dataclass(frozen=True)
class SplitView:
    """The photographs of one split.

    Attributes:
        pixels: uint8 (N, S, S, 3) of all splits, usually memory-mapped; a tensor if it is on the device.
        rows: int64 (M,), the rows of `pixels` that belong to the split.
        grades: int64 (M,), 0 to 4, in the order of `rows`.
        patients: int64 (M,), a number for each patient; None if every photograph counts as a patient of its own.
    """

    pixels: npt.NDArray[np.uint8] | torch.Tensor
    rows: npt.NDArray[np.int64]
    grades: npt.NDArray[np.int64]
    patients: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of photographs in the split."""
        return len(self.rows)


@dataclass(frozen=True)
class Augmentation:
    """The random parameters of B photographs; a parameter that the kind of augmentation does not use is None.

    Attributes:
        flips: bool (B, 2), mirror left-right and top-bottom.
        affine: float (B, 2, 3), from output to input coordinates, -1 to 1, as torch's `affine_grid` takes it.
        colour: float (B, 3), factors of brightness, contrast and saturation around 1.
    """

    flips: torch.Tensor | None = None
    affine: torch.Tensor | None = None
    colour: torch.Tensor | None = None

    def __getitem__(self, rows: slice) -> Augmentation:
        """Return the parameters of a slice of the photographs."""
        fields = (self.flips, self.affine, self.colour)
        return Augmentation(*(None if values is None else values[rows] for values in fields))

    def to(self, device: torch.device) -> Augmentation:
        """Return a copy on `device`."""
        fields = (self.flips, self.affine, self.colour)
        return Augmentation(*(None if values is None else _send(values, device) for values in fields))


@dataclass(frozen=True)
class BatchPlan:
    """A batch that is drawn but not loaded, so that it can be loaded in slices.

    Attributes:
        indices: int64 (B,), positions in a `SplitView`.
        augmentation: the parameters drawn for these photographs.
        mix: how to mix them, None for not at all. `load` leaves mixing to the caller; a slice of a batch is mixed
            within itself.
    """

    indices: npt.NDArray[np.int64]
    augmentation: Augmentation = Augmentation()
    mix: MixPlan | None = None

    def __len__(self) -> int:
        """Return the number of photographs in the batch."""
        return len(self.indices)

    def __getitem__(self, rows: slice) -> BatchPlan:
        """Return a slice of the batch."""
        return BatchPlan(self.indices[rows], self.augmentation[rows], self.mix)


def draw_augmentation(kind: str, count: int, generator: torch.Generator) -> Augmentation:
    """Draw random augmentation parameters for `count` photographs.

    A fundus photograph has no fixed orientation: the fellow eye is a mirror image, and cameras and patients tilt.

    Args:
        kind: "none", "flip", "rotate" (flips, any angle, zoom, shift) or "full" (the same and colour).
        count: number of photographs.
        generator: source of the random numbers.
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


def apply_augmentation(augmentation: Augmentation, images: torch.Tensor) -> torch.Tensor:
    """Apply an augmentation to `images`, float (B, 3, S, S) on a 0 to 1 scale.

    Both must be on the same device.

    Returns:
        The same shape and dtype, channels last.
    """
    flips, affine = augmentation.flips, augmentation.affine
    if flips is not None and affine is not None:  # one pass for both: a mirrored photograph is sampled mirrored
        affine, flips = affine * torch.where(flips, -1.0, 1.0)[:, :, None], None
    if flips is not None:
        for axis, flip in zip((3, 2), flips.T, strict=True):
            images = torch.where(flip[:, None, None, None], images.flip(axis), images)
    if affine is not None:
        grid = F.affine_grid(affine, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if augmentation.colour is not None:
        brightness, contrast, saturation = augmentation.colour.T[:, :, None, None, None]
        images = images * brightness
        middle = images.mean(dim=(1, 2, 3), keepdim=True)
        images = middle + (images - middle) * contrast
        grey = images.mean(dim=1, keepdim=True)
        images = (grey + (images - grey) * saturation).clamp(0, 1)
    return images.contiguous(memory_format=torch.channels_last)


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """Convert uint8 (B, S, S, 3) to float32 (B, 3, S, S), 0 to 1, channels last (no copy beyond the conversion)."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Normalise float (B, 3, S, S), 0 to 1, by ImageNet's mean and standard deviation of each channel."""
    mean, std = _statistics(images.device)
    return (images - mean) / std


@cache
def _statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    # cached: sending them with each batch would wait for the device each time
    with torch.inference_mode(mode=False):  # the first call may be in inference mode, later ones in training
        return tuple(torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))  # type: ignore[return-value]


def derive_seed(*parts: int) -> int:
    """Return a 63-bit seed that depends on every one of `parts`, each below 2**32."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def plan_batches(
    split: SplitView,
    *,
    batch_size: int,
    augmentation: str,
    seed: int,
    epoch: int,
    mix: str = "none",
    mix_alpha: float = 1.0,
) -> Iterator[BatchPlan]:
    """Plan the batches of one epoch over `split` in random order; the last batch may be smaller.

    If the last batch would be less than half full, the last two share their photographs evenly: the step of a single
    photograph would be as large as any other and move BatchNorm's running statistics as much, just before validation.

    Order, augmentation and mixing (see `retina.data.mixup.draw_mix_plan`) depend on `seed` and `epoch` alone.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    order = torch.randperm(len(split), generator=generator).numpy()
    for start, end in _batch_bounds(len(order), batch_size):
        indices = order[start:end]
        mix_plan = mixup.draw_mix_plan(mix, mix_alpha, derive_seed(seed, epoch, start, 1))
        yield BatchPlan(indices, draw_augmentation(augmentation, len(indices), generator), mix_plan)


def _batch_bounds(count: int, batch_size: int) -> Iterator[tuple[int, int]]:
    cuts = [*range(0, count, batch_size), count]
    if len(cuts) > 2 and 2 * (count - cuts[-2]) < batch_size:
        cuts[-2] = math.ceil((cuts[-3] + count) / 2)
    return pairwise(cuts)


def load(split: SplitView, plan: BatchPlan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Load and augment the photographs of a batch.

    Returns:
        Images (B, 3, S, S) float32, normalised, channels last, and grades (B,) int64, both on `device`. Nothing else
        stays on the device.
    """
    rows = torch.from_numpy(split.rows[plan.indices])
    if isinstance(split.pixels, torch.Tensor):
        pixels = split.pixels.index_select(0, _send(rows, split.pixels.device)).to(device)
    else:
        pixels = _send(torch.from_numpy(split.pixels[rows.numpy()]), device)
    images = apply_augmentation(plan.augmentation.to(device), to_float(pixels))
    return normalise(images), _send(torch.from_numpy(split.grades[plan.indices]), device)


def upload_if_fits(
    pixels: npt.NDArray[np.uint8], device: torch.device, most_bytes: int
) -> npt.NDArray[np.uint8] | torch.Tensor:
    """Copy `pixels`, uint8 (N, S, S, 3), to a GPU if they take `most_bytes` or fewer; otherwise return them as is."""
    if device.type == "cpu" or pixels.nbytes > most_bytes:
        return pixels
    on_device = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    rows = max(1, UPLOAD_BYTES // max(1, pixels[:1].nbytes))
    for start in range(0, len(pixels), rows):
        on_device[start : start + rows].copy_(torch.from_numpy(np.array(pixels[start : start + rows])))
    return on_device


def _send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the host to `device`, waiting for neither."""
    if device.type != "cuda":
        return tensor.to(device)
    with torch.cuda.stream(_copy_stream(device)):
        on_device = tensor.pin_memory().to(device, non_blocking=True)
    current = torch.cuda.current_stream(device)
    current.wait_stream(_copy_stream(device))
    on_device.record_stream(current)  # else its memory could be reused while a kernel still reads it
    return on_device


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
