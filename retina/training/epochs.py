"""The interface between a training run and its caller. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EpochResult:
    """The metrics of one epoch.

    Attributes:
        epoch: number of the epoch, 1 for the first.
        learning_rate: learning rate of the epoch's last step.
        train_loss: mean loss over the epoch's photographs as the model was trained on them, with augmentation and
            dropout. train_accuracy and train_qwk are of the same outputs.
        val_loss: mean loss over the validation split after the epoch. val_accuracy, val_qwk and val_auc are of the same
            outputs.
        images_per_second: training photographs per second of training; evaluation is not counted.
        seconds: duration of the whole epoch, evaluation included.
        test_loss: as val_loss, on the test split. None unless the sweep tracks the test split, as are test_accuracy and
            test_qwk.
        micro_batch: training photographs at once on the device. Smaller than the batch size where memory was short,
            see `start_training`. None in results of a version that did not record it.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    train_qwk: float
    val_loss: float
    val_accuracy: float
    val_qwk: float
    val_auc: float
    images_per_second: float
    seconds: float
    test_loss: float | None = None
    test_accuracy: float | None = None
    test_qwk: float | None = None
    micro_batch: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the result whose fields `values` holds, as `dataclasses.asdict` makes it and checkpoints store it.

        Keys that are no field are ignored. A field that `values` lacks gets its default.

        Raises:
            TypeError: `values` lacks a field without a default.
        """
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


class Training(Protocol):
    """A training run: an iterator of epochs whose state can be saved and loaded again."""

    def __iter__(self) -> Iterator[EpochResult]: ...

    def __next__(self) -> EpochResult:
        """Train one epoch.

        Raises:
            StopIteration: all epochs are trained.
            TrainError: the training cannot continue.
        """
        ...

    def model_state_dict(self) -> dict[str, torch.Tensor]:
        """Return a copy of the model's state dict on the CPU; later epochs do not change it."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything else that is needed to resume: epoch, optimizer, learning-rate schedule, ..."""
        ...

    def load_state_dict(self, model_state: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Resume from what `model_state_dict` and `state_dict` have returned after the same epoch."""
        ...

    def cancel(self) -> None:
        """End the running epoch as soon as possible; no more epochs are requested. Called from another thread."""
        ...
