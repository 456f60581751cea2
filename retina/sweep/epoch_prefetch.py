"""Trains the next epoch while the checkpoint of the last one is written and its result is reported."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from retina.training.epochs import EpochResult, Training


class EpochPrefetcher:
    """Runs the epochs of one training after another in a thread of its own.

    Writing a checkpoint takes a few tenths of a second, and so may Tune with many trials; an accelerator that waits for
    them is idle. The checkpoint of an epoch is nevertheless on disk before the epoch is reported: only the training
    continues meanwhile.
    """

    def __init__(self, threads: int) -> None:
        """Create the thread.

        Args:
            threads: number of torch's threads for an epoch: a setting that a new thread does not inherit.
        """
        self._thread = ThreadPoolExecutor(1, "epochs", initializer=torch.set_num_threads, initargs=(threads,))
        self._training: Training | None = None
        self._running: Future[EpochResult] | None = None

    def attach(self, training: Training) -> None:
        """Take the next epochs from `training`; an epoch of the previous training must have been cancelled."""
        self._training = training

    def start(self) -> None:
        """Start the next epoch in the background, unless one is running."""
        if self._training and self._running is None:
            self._running = self._thread.submit(self._training.__next__)

    def result(self) -> EpochResult:
        """Wait for the running epoch, or for the next one if none is running, and return its result.

        Raises:
            RuntimeError: no training is attached.
            Exception: whatever the epoch has raised.
        """
        self.start()
        if self._running is None:
            raise RuntimeError("no training is attached")
        try:
            return self._running.result()
        finally:
            self._running = None

    def cancel(self) -> None:
        """Cancel the running epoch, wait for it to end, and detach the training. Its result or error is discarded."""
        if self._training and self._running:
            self._training.cancel()
            self._running.exception()  # waits
        self._training = self._running = None
