"""A grader on a whole split: its raw outputs, and what they say of each photograph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import nn

from retina.config import GRADES
from retina.data.loader import BatchPlan, SplitView, load
from retina.errors import ModelOutputError
from retina.metrics import grading
from retina.metrics.probabilities import find_problems
from retina.training import losses, microbatch

FOLDS = 5
MAX_BATCH_PIXELS = 128 * 224 * 224
"""Evaluated at once: 128 photographs of 224 px, fewer of larger ones, so that what fits in training fits here."""


@dataclass(frozen=True)
class Evaluation:
    """A model on a split.

    Attributes:
        loss: mean negative logarithm of the true grades' probabilities, whatever loss the model was trained with.
        grades: int64 (N,), the true ones.
        probabilities: float64 (N, 5).
        predicted: int64 (N,), the model's grades; of an ordinal model not always the most probable ones. Where the
            model's output is not finite it is `retina.metrics.probabilities.NO_GRADE`, and the probabilities are NaN.
    """

    loss: float
    grades: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]

    @property
    def ungraded(self) -> int:
        """Photographs of which the model's output is no probabilities."""
        return sum(map(bool, find_problems(self.probabilities, self.predicted)))

    @property
    def metrics(self) -> grading.GradeMetrics:
        """Accuracy, QWK and the rest. Raises ValueError where a photograph is ungraded."""
        return grading.compute_metrics(self.grades, self.probabilities, self.predicted)


def evaluate(
    grader: nn.Module,
    part: SplitView,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    flips: bool = False,
) -> Evaluation:
    """`grader`, on `device` already, on every photograph of `part`, in its order, read as its `reading` says.

    Args:
        grader: (B, 3, S, S) float, normalised -> raw output, see `retina.training.losses`.
        part: the split.
        device: where the grader is.
        precision: to compute in.
        flips: mean raw output of each photograph and its three mirror images.

    Raises:
        TrainError: a single photograph does not fit into memory.
        ModelOutputError: the grader's output on a photograph is not finite.
    """
    raw = compute_outputs(grader, part, device=device, precision=precision, flips=flips)
    seen = decode_outputs(raw, part, losses.get_output_decoder(grader))
    _refuse_ungraded(seen.ungraded, len(part))
    return seen


def compute_outputs(
    grader: nn.Module,
    part: SplitView,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    flips: bool = False,
) -> torch.Tensor:
    """The raw outputs, float32 (N, K) on `device`; as `evaluate`.

    Fewer photographs are taken at once where memory is short, which changes nothing: each is judged by itself.
    """
    grader.eval()
    found = []
    refusal = microbatch.oom_message("evaluation", part, type(grader).__name__)
    size = at_most = _batch(part)
    ask = partial(with_flip_tta, grader, flips=flips)
    with torch.inference_mode(), microbatch.autocast(device, precision), disable_tf32():
        for start in range(0, len(part), size):
            batch = BatchPlan(np.arange(start, min(start + size, len(part))))
            judge = partial(_pieces, ask, part, batch, device)
            done, at_most = microbatch.run_in_chunks(judge, len(batch), at_most, device=device, refusal=refusal)
            found += done
    return torch.cat(found)


@contextmanager
def disable_tf32() -> Iterator[None]:
    """Let float32 be float32, in this process: GPUs from Ampere on round a convolution's inputs to ten bits (TF32).

    So that a grade is the same from a GPU, a CPU and onnxruntime.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def decode_outputs(raw: torch.Tensor, part: SplitView, reading: losses.OutputDecoder) -> Evaluation:
    """What raw outputs (N, K) for the photographs of `part` say; in float64, whatever they were computed in.

    Some may be `ungraded`.
    """
    grades = part.grades.copy()
    with torch.inference_mode():
        logs, predicted = losses.log_probabilities(reading, raw.double())
        loss = F.nll_loss(logs, torch.from_numpy(grades).to(raw.device))
    return Evaluation(float(loss), grades, logs.exp().cpu().numpy(), predicted.cpu().numpy())


def evaluate_cross_fitted(raw: torch.Tensor, part: SplitView, reading: losses.OutputDecoder) -> Evaluation:
    """Fit a reading's cut-points on all of a validation split, and judge it as if it had not seen it.

    What is said of each fifth of the patients comes from cut-points fitted on the other four. Cut-points that are
    judged by the photographs they were fitted on, or by the fellow eyes of these, look better than they are (on the 62
    of IDRiD, QWK 0.83 beside 0.46 on test), and a search would choose such a loss for that alone. A reading without
    cut-points is simply read, and so is a single patient.

    Raises:
        ModelOutputError: a raw output is not finite; nothing is fitted then.
    """
    _refuse_ungraded(int((~raw.isfinite().all(dim=1)).sum()), len(part))
    fold_of = _folds(part)
    folds = int(fold_of.max()) + 1
    if not reading.is_fitted or folds == 1:
        reading.fit(raw, part.grades)
        return decode_outputs(raw, part, reading)
    loss, probabilities, predicted = 0.0, np.zeros((len(part), GRADES)), np.zeros(len(part), dtype=np.int64)
    for fold in range(folds):
        inside = np.flatnonzero(fold_of == fold)
        outside = np.flatnonzero(fold_of != fold)
        other = losses.OutputDecoder(reading.loss).to(raw.device)
        other.fit(raw[torch.from_numpy(outside).to(raw.device)], part.grades[outside])
        here = SplitView(part.pixels, part.rows[inside], part.grades[inside])
        seen = decode_outputs(raw[torch.from_numpy(inside).to(raw.device)], here, other)
        loss += seen.loss * len(inside) / len(part)
        probabilities[inside], predicted[inside] = seen.probabilities, seen.predicted
    reading.fit(raw, part.grades)
    return Evaluation(loss, part.grades.copy(), probabilities, predicted)


def _refuse_ungraded(ungraded: int, of: int) -> None:
    if ungraded:
        raise ModelOutputError(f"the model's output is not finite on {ungraded} of {of} photographs")


def _folds(part: SplitView) -> npt.NDArray[np.int64]:
    """A fold for each photograph, (N,), 0 to `FOLDS` - 1: a patient's are in one, and each has its share of a grade."""
    patients = np.arange(len(part)) if part.patients is None else np.unique(part.patients, return_inverse=True)[1]
    worst = np.zeros(int(patients.max()) + 1, dtype=np.int64)
    np.maximum.at(worst, patients, part.grades)
    rank = np.argsort(np.argsort(worst, kind="stable"), kind="stable")
    folds: npt.NDArray[np.int64] = (rank % FOLDS)[patients]
    return folds


def with_flip_tta(grader: nn.Module, images: torch.Tensor, *, flips: bool) -> torch.Tensor:
    """The grader's raw output on (B, 3, S, S) images; with `flips` the mean over them and their mirror images."""
    if not flips:
        raw: torch.Tensor = grader(images)
        return raw
    seen = [grader(images.flip(axes) if axes else images).float() for axes in ((), (3,), (2,), (2, 3))]
    return torch.stack(seen).mean(dim=0)


def _pieces(
    ask: Callable[[torch.Tensor], torch.Tensor],
    part: SplitView,
    batch: BatchPlan,
    device: torch.device,
    cut: list[slice],
) -> list[torch.Tensor]:
    return [ask(load(part, batch[piece], device)[0]).float() for piece in cut]


def _batch(part: SplitView) -> int:
    size = int(part.pixels.shape[1])
    return max(1, min(128, MAX_BATCH_PIXELS // size**2))
