"""Inference on a whole split: a grader's raw outputs, and the probabilities and grades decoded from them."""

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

CUTPOINT_FOLDS = 5
"""Number of folds of the patients in which cut-points are cross-fitted."""
MAX_BATCH_PIXELS = 128 * 224 * 224
"""Pixels evaluated at once: 128 photographs of 224 px, or fewer larger ones: if they fit in training, they fit here."""


@dataclass(frozen=True)
class Evaluation:
    """The predictions of a model on a split.

    Attributes:
        loss: mean negative log-likelihood of the true grades, whatever loss the model was trained with.
        grades: true grades, int64 (N,).
        probabilities: probabilities of the five grades, float64 (N, 5).
        predicted: predicted grades, int64 (N,); for an ordinal model not always the most probable ones. Where the
            model's output is not finite, the grade is `retina.metrics.probabilities.NO_GRADE` and the probabilities are
            NaN.
    """

    loss: float
    grades: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]

    @property
    def ungraded(self) -> int:
        """The number of photographs for which the model's output is not five probabilities and a grade."""
        return sum(map(bool, find_problems(self.probabilities, self.predicted)))

    @property
    def metrics(self) -> grading.GradeMetrics:
        """All metrics. Raises ValueError if a photograph is ungraded."""
        return grading.compute_metrics(self.grades, self.probabilities, self.predicted)


def evaluate(
    grader: nn.Module,
    split: SplitView,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    flips: bool = False,
) -> Evaluation:
    """Evaluate a grader on every photograph of a split, in the order of the split.

    Args:
        grader: (B, 3, S, S) float, normalised -> raw output, see `retina.training.losses`; its own output decoder is
            used.
        split: the split.
        device: device on which the grader already is.
        precision: dtype to compute in.
        flips: use the mean raw output of each photograph and its three mirror images (TTA).

    Raises:
        TrainError: a single photograph does not fit into memory.
        ModelOutputError: the grader's output on a photograph is not finite.
    """
    raw = compute_outputs(grader, split, device=device, precision=precision, flips=flips)
    evaluation = decode_outputs(raw, split, losses.get_output_decoder(grader))
    _raise_if_ungraded(evaluation.ungraded, len(split))
    return evaluation


def compute_outputs(
    grader: nn.Module,
    split: SplitView,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    flips: bool = False,
) -> torch.Tensor:
    """Compute the raw outputs, float32 (N, K) on `device`; arguments and errors as for `evaluate`.

    Where memory is short, fewer photographs are computed at once. This does not change the outputs: each photograph is
    evaluated independently.
    """
    grader.eval()
    raw = []
    message = microbatch.oom_message("evaluation", split, type(grader).__name__)
    size = at_most = _batch_size(split)
    forward = partial(with_flip_tta, grader, flips=flips)
    with torch.inference_mode(), microbatch.autocast(device, precision), disable_tf32():
        for start in range(0, len(split), size):
            batch = BatchPlan(np.arange(start, min(start + size, len(split))))
            work = partial(_forward_chunks, forward, split, batch, device)
            outputs, at_most = microbatch.run_in_chunks(work, len(batch), at_most, device=device, message=message)
            raw += outputs
    return torch.cat(raw)


@contextmanager
def disable_tf32() -> Iterator[None]:
    """Disable TF32 in this process: GPUs from Ampere on round a convolution's float32 inputs to ten bits of mantissa.

    With it disabled, a grade is the same from a GPU, a CPU and onnxruntime.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def decode_outputs(raw: torch.Tensor, split: SplitView, decoder: losses.OutputDecoder) -> Evaluation:
    """Decode the raw outputs (N, K) for the photographs of a split, in float64 whatever their precision.

    Photographs whose output is not finite are `Evaluation.ungraded`; no error is raised.
    """
    grades = split.grades.copy()
    with torch.inference_mode():
        logs, predicted = losses.log_probabilities(decoder, raw.double())
        loss = F.nll_loss(logs, torch.from_numpy(grades).to(raw.device))
    return Evaluation(float(loss), grades, logs.exp().cpu().numpy(), predicted.cpu().numpy())


def evaluate_cross_fitted(raw: torch.Tensor, split: SplitView, decoder: losses.OutputDecoder) -> Evaluation:
    """Fit a decoder's cut-points on a whole validation split, and evaluate the split with cross-fitted cut-points.

    Each fifth of the patients is evaluated with cut-points fitted on the other four. Cut-points that are evaluated on
    the photographs on which they were fitted, or on the fellow eyes of these, look better than they are (on the 62
    photographs of IDRiD: QWK 0.83, and 0.46 on test), and a search would choose such a loss for that reason alone. A
    decoder without cut-points is evaluated as it is, and so is a split with a single patient.

    Args:
        raw: raw outputs for the split, (N, K).
        split: the validation split.
        decoder: the decoder to fit, in place.

    Raises:
        ModelOutputError: a raw output is not finite; nothing is fitted then.
    """
    _raise_if_ungraded(int((~raw.isfinite().all(dim=1)).sum()), len(split))
    fold_of = _assign_folds(split)
    folds = int(fold_of.max()) + 1
    if not decoder.is_fitted or folds == 1:
        decoder.fit(raw, split.grades)
        return decode_outputs(raw, split, decoder)
    loss, probabilities, predicted = 0.0, np.zeros((len(split), GRADES)), np.zeros(len(split), dtype=np.int64)
    for fold in range(folds):
        inside = np.flatnonzero(fold_of == fold)
        outside = np.flatnonzero(fold_of != fold)
        fold_decoder = losses.OutputDecoder(decoder.loss).to(raw.device)
        fold_decoder.fit(raw[torch.from_numpy(outside).to(raw.device)], split.grades[outside])
        fold_split = SplitView(split.pixels, split.rows[inside], split.grades[inside])
        evaluation = decode_outputs(raw[torch.from_numpy(inside).to(raw.device)], fold_split, fold_decoder)
        loss += evaluation.loss * len(inside) / len(split)
        probabilities[inside], predicted[inside] = evaluation.probabilities, evaluation.predicted
    decoder.fit(raw, split.grades)
    return Evaluation(loss, split.grades.copy(), probabilities, predicted)


def with_flip_tta(grader: nn.Module, images: torch.Tensor, *, flips: bool) -> torch.Tensor:
    """Return the grader's raw output on images (B, 3, S, S); with `flips` the mean over all their mirror images."""
    if not flips:
        raw: torch.Tensor = grader(images)
        return raw
    outputs = [grader(images.flip(axes) if axes else images).float() for axes in ((), (3,), (2,), (2, 3))]
    return torch.stack(outputs).mean(dim=0)


def _raise_if_ungraded(ungraded: int, total: int) -> None:
    if ungraded:
        raise ModelOutputError(f"the model's output is not finite on {ungraded} of {total} photographs")


def _assign_folds(split: SplitView) -> npt.NDArray[np.int64]:
    """Return each photograph's fold, (N,), 0 to `CUTPOINT_FOLDS` - 1.

    A patient's photographs are in one fold, and each fold has its share of each grade.
    """
    patients = np.arange(len(split)) if split.patients is None else np.unique(split.patients, return_inverse=True)[1]
    worst = np.zeros(int(patients.max()) + 1, dtype=np.int64)
    np.maximum.at(worst, patients, split.grades)
    rank = np.argsort(np.argsort(worst, kind="stable"), kind="stable")
    folds: npt.NDArray[np.int64] = (rank % CUTPOINT_FOLDS)[patients]
    return folds


def _forward_chunks(
    forward: Callable[[torch.Tensor], torch.Tensor],
    split: SplitView,
    batch: BatchPlan,
    device: torch.device,
    chunks: list[slice],
) -> list[torch.Tensor]:
    return [forward(load(split, batch[chunk], device)[0]).float() for chunk in chunks]


def _batch_size(split: SplitView) -> int:
    side = int(split.pixels.shape[1])
    return max(1, min(128, MAX_BATCH_PIXELS // side**2))
