"""One training run: iterating over `start_training` gives one `EpochResult` per epoch. Imports nothing of Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from retina.config import TrialConfig
from retina.config.splits import SPLITS
from retina.data.dataset import FundusDataset
from retina.data.loader import SplitView, derive_seed, plan_batches
from retina.errors import ModelOutputError, TrainError
from retina.metrics import grading
from retina.metrics.probabilities import NO_GRADE
from retina.training import losses, microbatch, model, optim
from retina.training.epochs import EpochResult
from retina.training.inference import Evaluation, compute_outputs, decode_outputs, evaluate_cross_fitted

MAX_DEVICE_CACHE_SHARE = 0.2
"""Share of a trial's part of the GPU memory that may hold photographs, so that no epoch has to copy them."""


def default_device() -> torch.device:
    """Return CUDA if it is available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start_training(
    config: TrialConfig,
    train: SplitView,
    val: SplitView,
    *,
    test: SplitView | None = None,
    weights: model.StateDict | None = None,
    net: nn.Module | None = None,
    device: torch.device | None = None,
) -> TrainingRun:
    """Create a training run of a grader. It is lazy: each iteration trains one epoch and gives its `EpochResult`.

    A batch that does not fit into memory is run as micro-batches whose gradients add up to those of the whole batch;
    their size is halved until they fit, and kept for the rest of the run. Three things differ then: dropout draws
    other values, photographs are mixed with those of their own micro-batch (`mix`), and batch normalisation computes
    its statistics from micro-batches. Its running statistics are updated once per micro-batch, also by attempts that
    failed, with their part of the same batch.

    Args:
        config: the run. Its seed fixes the initial weights, the order, the augmentation and the dropout; torch's
            global generator is set to it.
        train: photographs to train on.
        val: photographs to evaluate each epoch on.
        test: photographs to evaluate each epoch on too, if given, for curves by epoch. Never used for a choice.
        weights: a torchvision state dict, if `config.pretrained`.
        net: an untrained network to train instead of `config.arch`, (B, 3, S, S) float -> (B, 5) logits.
        device: device to train on; `default_device()` if None.
    """
    return TrainingRun(config, train, val, test=test, weights=weights, net=net, device=device or default_device())


@dataclass(frozen=True)
class GradingTask:
    """The task that a sweep tunes: called with a `TrialConfig`, it creates the training run of a grader.

    Attributes:
        photographs: photographs to train and evaluate on.
        weights: torchvision state dicts by architecture, for trials with `pretrained`.
        track_test: whether to evaluate the test split after each epoch.
        gpu_share: share of a GPU that a trial gets, 0 to 1, if it gets one; `MAX_DEVICE_CACHE_SHARE` of its memory may
            hold photographs.
    """

    photographs: FundusDataset
    weights: Mapping[str, model.StateDict]
    track_test: bool = False
    gpu_share: float = 1.0

    def __call__(self, config: TrialConfig) -> TrainingRun:
        """Create the run."""
        device = default_device()
        max_bytes = 0
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all batches of an epoch but the last have one size
            memory = torch.cuda.get_device_properties(device).total_memory
            max_bytes = int(MAX_DEVICE_CACHE_SHARE * min(1.0, self.gpu_share) * memory)
        train, val, test = (self.photographs.split_view(name, device, max_bytes) for name in SPLITS)
        weights = self.weights.get(config.arch)
        return start_training(
            config, train, val, test=test if self.track_test else None, weights=weights, device=device
        )


class TrainingRun(Iterator[EpochResult]):
    """The `Training` that `start_training` creates."""

    def __init__(
        self,
        config: TrialConfig,
        train: SplitView,
        val: SplitView,
        *,
        test: SplitView | None,
        weights: model.StateDict | None,
        net: nn.Module | None,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self._train, self._val, self._test = train, val, test
        name = config.arch if net is None else type(net).__name__
        torch.manual_seed(config.seed)
        net = net or model.build(config, image_size=train.pixels.shape[1], weights=weights)
        self.model = net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._epoch = 0
        self._is_cancelled = False
        self._precision = select_precision(config.precision, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._precision is torch.float16)
        self._decoder = losses.get_output_decoder(self.model)
        self._steps_per_epoch = math.ceil(len(train) / config.batch_size)
        self._optimizer = optim.create_optimizer(config, self.model)
        self._scheduler = optim.create_scheduler(config, self._optimizer, self._steps_per_epoch)
        self._ema = optim.ModelEma(self.model, config.ema) if config.ema else None
        self._accumulator = microbatch.GradientAccumulator(
            config,
            self.model,
            train,
            name=name,
            device=device,
            precision=self._precision,
            scaler=self._scaler,
        )

    def __next__(self) -> EpochResult:
        """Train and evaluate one epoch."""
        if self._epoch >= self.config.epochs:
            raise StopIteration
        started = time.perf_counter()
        epoch = self._epoch + 1
        trained = self._train_epoch(epoch)
        training_seconds = time.perf_counter() - started
        self._raise_if_cancelled(f"epoch {epoch}")
        val = self._validate(epoch)
        test = self.evaluate(self._test) if self._test is not None else None
        if test and (test.ungraded or not math.isfinite(test.loss)):
            test = None  # the test split must not decide over a trial, not even by a failure
        self._epoch = epoch
        val_metrics, test_metrics = val.metrics, test.metrics if test else None
        return EpochResult(
            epoch=epoch,
            **trained,
            val_loss=val.loss,
            val_accuracy=val_metrics.accuracy,
            val_qwk=val_metrics.qwk,
            val_auc=val_metrics.auc,
            images_per_second=len(self._train) / training_seconds,
            seconds=time.perf_counter() - started,
            test_loss=test.loss if test else None,
            test_accuracy=test_metrics.accuracy if test_metrics else None,
            test_qwk=test_metrics.qwk if test_metrics else None,
            micro_batch=self._accumulator.micro_batch,
        )

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is evaluated and saved: the trained one, or the moving average of its weights."""
        return self._ema.net if self._ema else self.model

    def evaluate(self, split: SplitView) -> Evaluation:
        """Evaluate the model, as it is now, on a split."""
        return decode_outputs(self._compute_outputs(split), split, self._decoder)

    def model_state_dict(self) -> dict[str, torch.Tensor]:
        """See `Training`."""
        return {name: _snapshot(tensor) for name, tensor in self.evaluated_model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """See `Training`."""
        return {
            "epoch": self._epoch,
            "micro_batch": self._accumulator.micro_batch,
            "optimizer": _snapshot(self._optimizer.state_dict()),
            "schedule": self._scheduler.state_dict(),
            "scaler": self._scaler.state_dict(),
            "trained": _snapshot(self.model.state_dict()) if self._ema else None,
        }

    def load_state_dict(self, model_state: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """See `Training`."""
        self.evaluated_model.load_state_dict(model_state)
        if state["trained"]:
            self.model.load_state_dict(state["trained"])
        # a copy, so as not to train the caller's tensors
        self._optimizer.load_state_dict(_snapshot(state["optimizer"]))
        self._scheduler.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self._accumulator.micro_batch = state["micro_batch"]
        self._epoch = state["epoch"]

    def cancel(self) -> None:
        """See `Training`. The epoch ends with a `TrainError` after its current step or evaluation."""
        self._is_cancelled = True

    def _raise_if_cancelled(self, where: str) -> None:
        if self._is_cancelled:
            raise TrainError(f"{where}: cancelled")

    def _compute_outputs(self, split: SplitView) -> torch.Tensor:
        flips = self.config.flips
        return compute_outputs(self.evaluated_model, split, device=self.device, precision=self._precision, flips=flips)

    def _validate(self, epoch: int) -> Evaluation:
        """Evaluate the validation split, on which the cut-points of an ordinal model are fitted too."""
        raw = self._compute_outputs(self._val)
        try:
            val = evaluate_cross_fitted(raw, self._val, self._decoder)
        except ModelOutputError as error:
            raise TrainError(f"epoch {epoch}: the validation loss is nan: {error}") from None
        if not math.isfinite(val.loss):
            raise TrainError(f"epoch {epoch}: the validation loss is {val.loss}")
        return val

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        if self.config.freeze_epochs:
            optim.set_frozen(self.model, frozen=epoch <= self.config.freeze_epochs)
        step_losses, step_predictions, step_indices = [], [], []
        learning_rate = math.nan
        batches = plan_batches(
            self._train,
            batch_size=self.config.batch_size,
            augmentation=self.config.augmentation,
            seed=self.config.seed,
            epoch=epoch,
            mix=self.config.mix,
            mix_alpha=self.config.mix_alpha,
        )
        for step, batch in enumerate(batches, start=1):
            learning_rate = float(self._scheduler.get_last_lr()[0])
            where = f"epoch {epoch}, step {step}"
            self._raise_if_cancelled(where)
            # seeded by the step, so that a resumed epoch repeats itself
            loss, predicted = self._accumulator(batch, derive_seed(self.config.seed, epoch, step), where)
            self._update(where)
            if self._ema:
                self._ema.update((epoch - 1) * self._steps_per_epoch + step)
            if self.device.type == "cpu":  # on other devices, reading the loss would make the host wait in each step
                _raise_unless_finite(loss[None], epoch, step)
            step_losses.append(loss)
            step_predictions += predicted
            step_indices.append(batch.indices)
        _raise_unless_finite(torch.stack(step_losses), epoch)
        sizes = torch.tensor([len(indices) for indices in step_indices], dtype=torch.float64)
        train_loss = (torch.stack(step_losses).cpu().double() * sizes).sum() / sizes.sum()
        true, guess = self._train.grades[np.concatenate(step_indices)], torch.cat(step_predictions).cpu().numpy()
        if ungraded := int((guess == NO_GRADE).sum()):  # the emd loss of a logit of minus infinity is finite
            raise TrainError(f"epoch {epoch}: the model's output is not finite on {ungraded} training photographs")
        return {
            "learning_rate": learning_rate,
            "train_loss": float(train_loss),
            "train_accuracy": grading.accuracy(true, guess),
            "train_qwk": grading.quadratic_weighted_kappa(true, guess),
        }

    def _update(self, where: str) -> None:
        try:
            self._scaler.step(self._optimizer)
        except Exception as error:
            if not microbatch.is_out_of_memory(error):
                raise
            # no further attempt: some of the parameters may have been updated
            raise TrainError(
                f"{where}: out of memory in the optimizer's step ({microbatch.error_reason(error)}); "
                "a smaller arch, optimizer=sgd or a larger share of the GPU (resources.gpu) needs less"
            ) from error
        self._scaler.update()
        self._scheduler.step()


def select_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in.

    Pascal cards (compute capability 6) have no fast half precision, and CPUs without avx512_bf16 or amx emulate it.

    Args:
        precision: "float32", "bfloat16", "float16", or "auto": bfloat16 if the hardware has it, float16 on older tensor
            cores, else float32.
        device: device to compute on.
    """
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16 if major >= 7 else torch.float32
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    # torch has these two only under private names (torch 2.11 to 2.15); without them the dtype is float32
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check)


def _raise_unless_finite(step_losses: torch.Tensor, epoch: int, step: int | None = None) -> None:
    """Raise TrainError for the first loss that is not finite; `step` is that of the first loss, 1 if None."""
    finite = torch.isfinite(step_losses)
    if not bool(finite.all()):
        first = int(finite.long().argmin())
        raise TrainError(f"epoch {epoch}, step {step or first + 1}: the training loss is {float(step_losses[first])}")


def _snapshot(value: Any) -> Any:
    """Return nested dicts and lists with their tensors copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _snapshot(item) for key, item in value.items()}
    return [_snapshot(item) for item in value] if isinstance(value, list) else value
