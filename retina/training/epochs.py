"""What a training run gives out epoch by epoch; apart from the run itself, so that a sweep imports no networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to.

    Attributes:
        epoch: 1 for the first one.
        learning_rate: of the epoch's last step.
        train_loss: mean over the epoch's photographs, as seen in training (augmented, dropout on), and so on.
        images_per_second: training photographs by the time spent training; evaluation is not in it.
        seconds: the whole epoch, evaluation included.
        test_loss: None unless the test split is tracked, as are test_accuracy and test_qwk.
        micro_batch: training photographs at once on the device: the batch size unless memory was short, see `fit`.
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
        """Return the result whose fields `dataclasses.asdict` once gave, as checkpoints hold them.

        Keys that are no field are ignored; fields that a later version has added keep their default.

        Raises:
            TypeError: `values` lacks a field that has no default.
        """
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


class Training(Protocol):
    """A run that is under way: an iterator of epochs whose state can be saved and taken up again."""

    def __iter__(self) -> Iterator[EpochResult]: ...

    def __next__(self) -> EpochResult:
        """Train one epoch. Raises StopIteration after the last, `TrainError` when it cannot go on."""
        ...

    def model_state_dict(self) -> dict[str, torch.Tensor]:
        """The model's state dict on the CPU, as it is now: it does not change as the training goes on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights that is needed to go on, as it is now: the epoch, optimizer, schedule, ..."""
        ...

    def load_state_dict(self, model_state: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Go on from what `weights` and `state` once gave."""
        ...

    def cancel(self) -> None:
        """Called from another thread: no more epochs are wanted, and one that is under way had better end at once."""
        ...
