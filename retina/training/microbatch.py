"""The gradients of a batch, in micro-batches where memory is short, and the detection of out-of-memory errors."""

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

_OUT_OF_MEMORY_TEXTS = (
    "error: out of memory",  # from the CUDA runtime or driver, not torch's allocator: pinned memory, a new context
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "not enough memory: you tried to allocate",  # DefaultCPUAllocator on Windows
)
"""Texts of out-of-memory errors that have no type of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` means that memory was short, so that the same work may succeed in smaller chunks.

    Other errors of the device (`torch.AcceleratorError`) do not count: after them the process cannot use the device.
    Source: accelerate's `should_reduce_batch_size`, without its CUDNN_STATUS_NOT_SUPPORTED, which is mostly a defect.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def error_reason(error: BaseException) -> str:
    """Return the error's first line, cut to 160 characters, or its type if it has no text."""
    return first_line(error, 160)


def split_into_chunks(count: int, at_most: int) -> list[slice]:
    """Return the fewest slices of at most `at_most` that cover 0 to `count` in order; sizes differ by at most one."""
    n_chunks = math.ceil(count / at_most)
    edges = [count * index // n_chunks for index in range(n_chunks + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def run_in_chunks(
    work: Callable[[list[slice]], T], count: int, at_most: int, *, device: torch.device, message: str
) -> tuple[T, int]:
    """Run `work` on `count` photographs in chunks, and halve the chunks as long as memory is short.

    Args:
        work: called with the chunks; each call starts anew.
        count: number of photographs.
        at_most: largest number of photographs in a chunk in the first attempt.
        device: device whose cached memory is freed before each further attempt.
        message: beginning of the error message if single photographs do not fit either; see `oom_message`.

    Returns:
        The result of `work`, and `at_most` or the smaller number that fitted.

    Raises:
        TrainError: memory is short for single photographs too. Other errors of `work` are passed on.
    """
    while True:
        chunks = split_into_chunks(count, at_most)
        try:
            return work(chunks), at_most
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = error_reason(error)
        # the traceback holds tensors, which are free only here, outside of the handler
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        largest = max(chunk.stop - chunk.start for chunk in chunks)  # half of `at_most` may give the same chunks again
        if largest == 1:
            remedy = "a smaller data.image_size or arch, or a larger share of the GPU (resources.gpu), needs less"
            raise TrainError(f"{message} ({reason}); {remedy}")
        at_most = math.ceil(largest / 2)


def oom_message(where: str, split: SplitView, net: str) -> str:
    """Return the `message` of `run_in_chunks`: epoch and step, the size of the photographs, the network's name."""
    return f"{where}: out of memory with a single photograph of {split.pixels.shape[1]} px in {net}"


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[torch.autocast | None]:
    """Return a context that computes in `precision` where that is safe; it does nothing for float32."""
    return nullcontext() if precision is torch.float32 else torch.autocast(device.type, dtype=precision)


class GradientAccumulator:
    """Computes a network's gradients of a batch's mean loss, weighted by class.

    Attributes:
        micro_batch: number of photographs at once on the device: the batch size until memory is short, then the number
            that fitted.
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
        self._decoder = losses.get_output_decoder(net)
        self._photograph_weights = weights.double().numpy()[train.grades]  # on the host, so no wait for the device

    def __call__(self, batch: BatchPlan, seed: int, where: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Replace the gradients. Sets torch's global generators to `seed`, for dropout.

        Args:
            batch: the batch, drawn but not loaded.
            seed: seed of the dropout.
            where: epoch and step, for the error message.

        Returns:
            The batch's loss, a scalar, and the predicted grades, int64 (B,) in all, both on the device.

        Raises:
            TrainError: a single photograph does not fit into memory; the message begins with `where`.
        """
        work = partial(self._accumulate, batch, seed)
        message = oom_message(where, self._train, self._name)
        result, fitted = run_in_chunks(work, len(batch), self.micro_batch, device=self._device, message=message)
        if fitted < self.micro_batch:
            self.micro_batch = fitted
            text = "a batch of %d does not fit into memory: run as micro-batches of %d, gradients accumulated"
            log.warning(text, len(batch), fitted)
        return result

    def _accumulate(self, batch: BatchPlan, seed: int, chunks: list[slice]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        # a further attempt draws the dropout anew from the same seed: reading a generator's state, to restore it, would
        # make the host wait for the device in every step. torch.default_generator is seeded directly, because
        # torch.manual_seed takes 0.1 ms for the kinds of device that are absent
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed_all(seed)
        self._net.zero_grad(set_to_none=True)
        total_weight = float(self._photograph_weights[batch.indices].sum())
        chunk_losses, predicted = zip(*(self._backward(batch[chunk], total_weight) for chunk in chunks), strict=True)
        return sum(chunk_losses[1:], start=chunk_losses[0]), list(predicted)

    def _backward(self, chunk: BatchPlan, total_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the gradients of one chunk of a batch, and return its loss and predicted grades.

        A function of its own, so that the chunk's tensors are freed before the next chunk.

        Args:
            chunk: the micro-batch.
            total_weight: sum of the class weights of the whole batch.
        """
        images, grades = load(self._train, chunk, self._device)
        images, share = chunk.mix(images) if chunk.mix else (images, 1.0)
        with autocast(self._device, self._precision):
            logits = self._net(images)
        raw = logits.float()
        summed = self._summed_loss(raw, grades)
        if chunk.mix:
            summed = share * summed + (1 - share) * self._summed_loss(raw, grades.roll(1))
        loss = summed / total_weight  # for a batch in one chunk, and without smoothing, torch's own weighted mean
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), self._decoder(raw.detach())[1]

    def _summed_loss(self, raw: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
        return losses.summed_loss(self._decoder.loss, raw, grades, self._class_weights, self._smoothing)


def _class_weights(config: TrialConfig, train: SplitView) -> torch.Tensor:
    """Return ones, or for "balanced" n / (5 x count) of each grade, as scikit-learn's balanced class weights."""
    if config.class_weights == "none":
        return torch.ones(GRADES)
    counts = np.bincount(train.grades, minlength=GRADES)
    return torch.tensor(len(train) / (GRADES * np.maximum(counts, 1)), dtype=torch.float32)
