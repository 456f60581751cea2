"""One training run: `start_training` yields an `EpochResult` an epoch. Knows nothing of Ray."""

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
from retina.data.dataset import FundusDataset
from retina.data.loader import SplitView, drawn_batches, seed_of
from retina.errors import ModelOutputError, TrainError
from retina.metrics import grading
from retina.metrics.probabilities import NO_GRADE
from retina.training import losses, microbatch, model, optim
from retina.training.epochs import EpochResult
from retina.training.inference import Evaluation, compute_outputs, decode_outputs, evaluate_cross_fitted

MAX_DEVICE_CACHE_SHARE = 0.2
"""Of a trial's share of the GPU's memory: as much may hold photographs, so that none need be sent in an epoch."""


def default_device() -> torch.device:
    """CUDA where it is there, the CPU else."""
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
    """Train a grader as `config` says; iterate to get one `EpochResult` an epoch.

    A batch that does not fit into memory is run as micro-batches whose gradients add up to those of the whole; their
    size is halved until they fit, and kept. What differs then: dropout draws anew, photographs are mixed with those of
    their own micro-batch (`mix`), and batch normalisation sees a micro-batch at a time: its statistics are of fewer
    photographs, and its running statistics are updated once a micro-batch (and by the attempts that failed, with what
    they had seen of the same batch).

    Args:
        config: the run. Its seed fixes the initial weights, the order, the augmentation and the dropout; torch's
            global generator is set to it.
        train: photographs to learn from.
        val: photographs to judge each epoch by.
        test: followed too where given, for curves by epoch. Never used for a choice.
        weights: a torchvision state dict, where `config.pretrained`.
        net: an untrained network to train instead of `config.arch`, (B, 3, S, S) float -> (B, 5) logits.
        device: where to train; `default_device()` if None.
    """
    return TrainingRun(config, train, val, test=test, weights=weights, net=net, device=device or default_device())


@dataclass(frozen=True)
class GradingTask:
    """What a sweep tunes: called with a `TrialConfig`, it starts the training of a grader on these photographs.

    Attributes:
        photographs: to train and judge on.
        weights: torchvision state dicts by architecture, for trials with `pretrained`.
        track_test: follow the test split by epoch.
        gpu_share: what a trial gets of a GPU, 0 to 1, if it gets one; `MAX_DEVICE_CACHE_SHARE` of its memory may hold
            photographs.
    """

    photographs: FundusDataset
    weights: Mapping[str, model.StateDict]
    track_test: bool = False
    gpu_share: float = 1.0

    def __call__(self, config: TrialConfig) -> TrainingRun:
        """Start the run."""
        device = default_device()
        most_bytes = 0
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # an epoch's batches are all of one size, but for the last
            memory = torch.cuda.get_device_properties(device).total_memory
            most_bytes = int(MAX_DEVICE_CACHE_SHARE * min(1.0, self.gpu_share) * memory)
        train, val, test = (self.photographs.part(name, device, most_bytes) for name in ("train", "val", "test"))
        weights = self.weights.get(config.arch)
        return start_training(
            config, train, val, test=test if self.track_test else None, weights=weights, device=device
        )


class TrainingRun(Iterator[EpochResult]):
    """The `Training` that `start_training` starts."""

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
        self._abandoned = False
        self._precision = select_precision(config.precision, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._precision is torch.float16)
        self._reading = losses.get_output_decoder(self.model)
        self._steps_an_epoch = math.ceil(len(train) / config.batch_size)
        self._optimizer = optim.create_optimizer(config, self.model)
        self._schedule = optim.create_scheduler(config, self._optimizer, self._steps_an_epoch)
        self._averaged = optim.ModelEma(self.model, config.ema) if config.ema else None
        self._gradients = microbatch.GradientAccumulator(
            config,
            self.model,
            train,
            name=name,
            device=device,
            precision=self._precision,
            scaler=self._scaler,
        )

    def __next__(self) -> EpochResult:
        """Train and judge one epoch."""
        if self._epoch >= self.config.epochs:
            raise StopIteration
        started = time.perf_counter()
        epoch = self._epoch + 1
        trained = self._train_epoch(epoch)
        training_seconds = time.perf_counter() - started
        self._end_if_abandoned(f"epoch {epoch}")
        val = self._validate(epoch)
        test = self.evaluate(self._test) if self._test is not None else None
        if test and (test.ungraded or not math.isfinite(test.loss)):
            test = None  # not even by failing does the test split decide over a trial
        self._epoch = epoch
        judged, seen = val.metrics, test.metrics if test else None
        return EpochResult(
            epoch=epoch,
            **trained,
            val_loss=val.loss,
            val_accuracy=judged.accuracy,
            val_qwk=judged.qwk,
            val_auc=judged.auc,
            images_per_second=len(self._train) / training_seconds,
            seconds=time.perf_counter() - started,
            test_loss=test.loss if test else None,
            test_accuracy=seen.accuracy if seen else None,
            test_qwk=seen.qwk if seen else None,
            micro_batch=self._gradients.micro_batch,
        )

    @property
    def judged(self) -> nn.Module:
        """The network that is judged and saved: the one that is trained, or the moving average of its weights."""
        return self._averaged.net if self._averaged else self.model

    def evaluate(self, part: SplitView) -> Evaluation:
        """The model as it is now, on `part`."""
        return decode_outputs(self._outputs(part), part, self._reading)

    def weights(self) -> dict[str, torch.Tensor]:
        """See `Training`."""
        return {name: _snapshot(tensor) for name, tensor in self.judged.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """See `Training`."""
        return {
            "epoch": self._epoch,
            "micro_batch": self._gradients.micro_batch,
            "optimizer": _snapshot(self._optimizer.state_dict()),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "trained": _snapshot(self.model.state_dict()) if self._averaged else None,
        }

    def restore(self, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """See `Training`."""
        self.judged.load_state_dict(weights)
        if state["trained"]:
            self.model.load_state_dict(state["trained"])
        self._optimizer.load_state_dict(_snapshot(state["optimizer"]))  # else it would train on the caller's tensors
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self._gradients.micro_batch = state["micro_batch"]
        self._epoch = state["epoch"]

    def cancel(self) -> None:
        """See `Training`. The epoch ends after the step or the evaluation that it is at, with a `TrainError`."""
        self._abandoned = True

    def _end_if_abandoned(self, where: str) -> None:
        if self._abandoned:
            raise TrainError(f"{where}: abandoned")

    def _outputs(self, part: SplitView) -> torch.Tensor:
        flips = self.config.flips
        return compute_outputs(self.judged, part, device=self.device, precision=self._precision, flips=flips)

    def _validate(self, epoch: int) -> Evaluation:
        """Judge the validation split, on which the cut-points of an ordinal model are fitted too."""
        raw = self._outputs(self._val)
        try:
            val = evaluate_cross_fitted(raw, self._val, self._reading)
        except ModelOutputError as error:
            raise TrainError(f"epoch {epoch}: the validation loss is nan: {error}") from None
        if not math.isfinite(val.loss):
            raise TrainError(f"epoch {epoch}: the validation loss is {val.loss}")
        return val

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        if self.config.freeze_epochs:
            optim.set_frozen(self.model, frozen=epoch <= self.config.freeze_epochs)
        step_losses, guesses, batches = [], [], []
        learning_rate = math.nan
        drawing = drawn_batches(
            self._train,
            batch_size=self.config.batch_size,
            augmentation=self.config.augmentation,
            seed=self.config.seed,
            epoch=epoch,
            mix=self.config.mix,
            mix_alpha=self.config.mix_alpha,
        )
        for step, drawn in enumerate(drawing, start=1):
            learning_rate = float(self._schedule.get_last_lr()[0])
            where = f"epoch {epoch}, step {step}"
            self._end_if_abandoned(where)
            # seeded by the step, so that a resumed epoch repeats itself
            loss, guessed = self._gradients(drawn, seed_of(self.config.seed, epoch, step), where)
            self._update(where)
            if self._averaged:
                self._averaged.update((epoch - 1) * self._steps_an_epoch + step)
            if self.device.type == "cpu":  # elsewhere a look at the loss would halt the device: see _finite
                _finite(loss[None], epoch, step)
            step_losses.append(loss)
            guesses += guessed
            batches.append(drawn.chosen)
        _finite(torch.stack(step_losses), epoch)
        sizes = torch.tensor([len(batch) for batch in batches], dtype=torch.float64)
        train_loss = (torch.stack(step_losses).cpu().double() * sizes).sum() / sizes.sum()
        true, guess = self._train.grades[np.concatenate(batches)], torch.cat(guesses).cpu().numpy()
        if ungraded := int((guess == NO_GRADE).sum()):  # of emd a logit of minus infinity has a finite loss
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
            # not tried again: some of the parameters may have been updated
            raise TrainError(
                f"{where}: out of memory in the optimizer's step ({microbatch.error_reason(error)}); "
                "a smaller arch, optimizer=sgd or a larger share of the GPU (resources.gpu) needs less"
            ) from error
        self._scaler.update()
        self._schedule.step()


def select_precision(wish: str, device: torch.device) -> torch.dtype:
    """The dtype to compute in. "auto": bfloat16 where the hardware has it, float16 on older tensor cores, else float32.

    Pascal cards (compute capability 6) have no fast half precision, and CPUs without avx512_bf16 or amx emulate it.
    """
    if wish != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wish]
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16 if major >= 7 else torch.float32
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    # torch publishes these two only under private names (torch 2.11 to 2.15); without them we stay at float32
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check)


def _finite(step_losses: torch.Tensor, epoch: int, step: int | None = None) -> None:
    finite = torch.isfinite(step_losses)
    if not bool(finite.all()):
        first = int(finite.long().argmin())
        raise TrainError(f"epoch {epoch}, step {step or first + 1}: the training loss is {float(step_losses[first])}")


def _snapshot(value: Any) -> Any:
    """The tensors of nested dicts and lists, copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _snapshot(one) for key, one in value.items()}
    return [_snapshot(one) for one in value] if isinstance(value, list) else value
