"""The next epoch is trained while the last one's weights are written down and its result is on its way."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from retina.training.epochs import EpochResult, Training


class EpochPrefetcher:
    """The epochs of one training after another, in a thread of their own.

    Writing a checkpoint takes a few tenths of a second, and so may Tune with many trials; an accelerator that waits for
    them is idle. What must be on the disk before an epoch is reported is there all the same: only the training goes on.
    """

    def __init__(self, threads: int) -> None:
        """Epochs with `threads` of torch's threads each: a setting that a new thread does not inherit."""
        self._thread = ThreadPoolExecutor(1, "epochs", initializer=torch.set_num_threads, initargs=(threads,))
        self._training: Training | None = None
        self._under_way: Future[EpochResult] | None = None

    def attach(self, training: Training) -> None:
        """Its epochs come next; the training before must be let go of."""
        self._training = training

    def start(self) -> None:
        """Let the next epoch begin, if none is under way."""
        if self._training and self._under_way is None:
            self._under_way = self._thread.submit(self._training.__next__)

    def result(self) -> EpochResult:
        """Of the epoch that is under way, or of the next one; raises what it raised."""
        self.start()
        if self._under_way is None:
            raise RuntimeError("no training was taken")
        try:
            return self._under_way.result()
        finally:
            self._under_way = None

    def cancel(self) -> None:
        """End the training where it is. What the epoch under way would have come to, an error say, nobody hears of."""
        if self._training and self._under_way:
            self._training.cancel()
            self._under_way.exception()  # waits
        self._training = self._under_way = None
