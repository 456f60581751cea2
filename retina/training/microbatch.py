"""A batch's gradients, in micro-batches where memory is short; what counts as out of memory."""

from __future__ import annotations

import gc
import itertools
import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from retina.config import GRADES, TrialConfig
from retina.data.loader import BatchPlan, SplitView, load
from retina.errors import TrainError, first_line
from retina.training import losses

log = logging.getLogger(__name__)

T = TypeVar("T")

_TEXTS = (
    "error: out of memory",  # of the CUDA runtime or driver, apart from torch's allocator: pinned memory, a new context
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "not enough memory: you tried to allocate",  # the same on Windows
)
"""How errors that have no type of their own say that memory was short."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory was short, so that the same work in smaller pieces may pass.

    Other errors of the device (`torch.AcceleratorError`) are none: after them the process is of no more use.
    Source: accelerate's `should_reduce_batch_size`, without its CUDNN_STATUS_NOT_SUPPORTED, which is mostly a defect.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def error_reason(error: BaseException) -> str:
    """The error's first line, cut to 160 characters, or its type where it has no text."""
    return first_line(error, 160)


def split_into_chunks(count: int, at_most: int) -> list[slice]:
    """0 to `count` in as few slices of 1 to `at_most` as cover it in order, their sizes differing by one at most."""
    number = math.ceil(count / at_most)
    edges = [count * index // number for index in range(number + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def run_in_chunks(
    work: Callable[[list[slice]], T], count: int, at_most: int, *, device: torch.device, refusal: str
) -> tuple[T, int]:
    """`work` on `count` photographs cut into pieces, halved for as long as memory is short.

    Args:
        work: given the pieces, it begins anew whenever it is called.
        count: photographs.
        at_most: photographs in a piece, to begin with.
        device: whose cached memory is given back before each further attempt.
        refusal: how the error begins where single photographs do not fit either; see `oom_message`.

    Returns:
        What `work` returned, and `at_most` or the smaller number that passed.

    Raises:
        TrainError: memory is short for single photographs too. Whatever else `work` raises is passed on.
    """
    while True:
        cut = split_into_chunks(count, at_most)
        try:
            return work(cut), at_most
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = error_reason(error)
        # not before here, outside of the handler, are the tensors free that the traceback holds
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        largest = max(piece.stop - piece.start for piece in cut)  # half of `at_most` may mean the same pieces again
        if largest == 1:
            remedy = "a smaller data.image_size or arch, or a larger share of the GPU (resources.gpu), needs less"
            raise TrainError(f"{refusal} ({reason}); {remedy}")
        at_most = math.ceil(largest / 2)


def oom_message(where: str, part: SplitView, net: str) -> str:
    """The `refusal` of `run_in_chunks`: where it was, the size of the photographs and the network."""
    return f"{where}: out of memory with a single photograph of {part.pixels.shape[1]} px in {net}"


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[torch.autocast | None]:
    """Compute in `precision` where that is safe; nothing for float32."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, dtype=precision)


class GradientAccumulator:
    """Fills a network's gradients with those of a batch's mean loss, weighted by class.

    Attributes:
        micro_batch: photographs at once on the device: the batch size until memory was short, then what fitted.
    """

    def __init__(
        self,
        config: TrialConfig,
        net: nn.Module,
        train: SplitView,
        *,
        name: str,
        device: torch.device,
        precision: torch.dtype,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.micro_batch = config.batch_size
        self._net, self._train, self._name, self._device = net, train, name, device
        self._precision, self._scaler, self._smoothing = precision, scaler, config.label_smoothing
        weights = _class_weights(config, train)
        self._class_weights = weights.to(device)
        self._reading = losses.get_output_decoder(net)
        self._photograph_weights = weights.double().numpy()[train.grades]  # on the host: no need to ask the device

    def __call__(self, drawn: BatchPlan, seed: int, where: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Replace the gradients; torch's global generators are set to `seed`, for dropout.

        Returns:
            The batch's loss, a scalar, and the guessed grades, int64 (B,) in all, both on the device.

        Raises:
            TrainError: a single photograph does not fit into memory; begins with `where`.
        """
        work = partial(self._accumulate, drawn, seed)
        refusal = oom_message(where, self._train, self._name)
        done, fits = run_in_chunks(work, len(drawn), self.micro_batch, device=self._device, refusal=refusal)
        if fits < self.micro_batch:
            self.micro_batch = fits
            text = "a batch of %d does not fit into memory: run as micro-batches of %d, gradients accumulated"
            log.warning(text, len(drawn), fits)
        return done

    def _accumulate(self, drawn: BatchPlan, seed: int, cut: list[slice]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        # a further attempt draws the dropout anew from the same seed: to read a generator's state, so as to go back to
        # it, would halt the device in every step. torch.manual_seed takes 0.1 ms, for the kinds of device not there
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed_all(seed)
        self._net.zero_grad(set_to_none=True)
        total = float(self._photograph_weights[drawn.chosen].sum())
        summed, guesses = zip(*(self._piece(drawn[piece], total) for piece in cut), strict=True)
        return sum(summed[1:], start=summed[0]), list(guesses)

    def _piece(self, drawn: BatchPlan, total: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the gradients of one piece, of a batch whose photographs weigh `total`. Its tensors go with the call."""
        images, grades = load(self._train, drawn, self._device)
        images, share = drawn.mix(images) if drawn.mix else (images, 1.0)
        with autocast(self._device, self._precision):
            logits = self._net(images)
        raw = logits.float()
        summed = self._losses(raw, grades)
        if drawn.mix:
            summed = share * summed + (1 - share) * self._losses(raw, grades.roll(1))
        loss = summed / total  # of a batch in one piece, and without smoothing, torch's own weighted mean
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), self._reading(raw.detach())[1]

    def _losses(self, raw: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
        return losses.summed_loss(self._reading.loss, raw, grades, self._class_weights, self._smoothing)


def _class_weights(config: TrialConfig, train: SplitView) -> torch.Tensor:
    """Ones, or for "balanced" n / (5 x count) a grade, as scikit-learn's balanced class weights."""
    if config.class_weights == "none":
        return torch.ones(GRADES)
    counts = np.bincount(train.grades, minlength=GRADES)
    return torch.tensor(len(train) / (GRADES * np.maximum(counts, 1)), dtype=torch.float32)
