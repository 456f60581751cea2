"""Ray's trainable: a thin adapter that hands the epochs of a `Training` to Tune."""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from retina.config import TrialConfig
from retina.errors import RetinaError
from retina.sweep.search import BEST, EPOCH
from retina.train import Training

Task = Callable[[TrialConfig], Training]
"""What a sweep tunes: starts one training run. Runs in the workers, so it must be picklable."""

WEIGHTS_FILE = "model.pt"
STATE_FILE = "state.pt"


@dataclass(frozen=True)
class Settings:
    """What every trial of a sweep must know besides its own configuration."""

    metric: str
    sign: int
    threads: int
    gpu: bool


class GraderTrial(tune.Trainable):
    """One trial, or one after another: the worker is kept and given the next configuration.

    A step is an epoch. A checkpoint is asked for when an epoch was the best so far, so that the one checkpoint a trial
    has is of its best epoch. Whatever an epoch raises ends this trial with a reason and is not tried again: the same
    settings would fail in the same way. A worker that dies is another matter; Ray starts its trial again.
    """

    _trial = "none"  # __repr__ is asked for also when setup has failed

    def setup(self, config: dict[str, Any], task: Task, settings: Settings) -> None:
        """Called once in a new worker."""
        self._task, self._settings = task, settings
        if not settings.gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves them visible to those who were given none
        torch.set_num_threads(settings.threads)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called for each further trial of the worker."""
        self._trial = str(new_config["trial"])
        self._config = TrialConfig(**new_config["config"])
        self._training: Training | None = None
        self._saved: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None
        self._best: tuple[float, int] | None = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the trial before may have needed less of what we need more of
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch."""
        try:
            return self._epoch()
        except torch.OutOfMemoryError:
            return self._failed(f"out of GPU memory; the batch is {self._config.batch_size}", traceback.format_exc())
        except torch.AcceleratorError:
            raise  # the process is of no more use: Ray starts the trial again in another
        except RetinaError as error:
            return self._failed(str(error))
        except Exception as error:  # the sweep goes on, whatever became of this trial
            return self._failed(f"{type(error).__name__}: {error}", traceback.format_exc())

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the weights and, apart from them, what else is needed to go on."""
        if self._training is None:
            return
        torch.save(self._training.weights(), Path(checkpoint_dir) / WEIGHTS_FILE)
        torch.save({"training": self._training.state(), "best": self._best}, Path(checkpoint_dir) / STATE_FILE)

    def load_checkpoint(self, checkpoint: str) -> None:  # Ray passes the folder
        """Go on from there at the next step."""
        weights = torch.load(Path(checkpoint) / WEIGHTS_FILE, map_location="cpu", weights_only=True)
        state = torch.load(Path(checkpoint) / STATE_FILE, map_location="cpu", weights_only=True)
        self._training, self._saved, self._best = None, (weights, state["training"]), state["best"]

    def cleanup(self) -> None:
        """Let go of the model before the worker ends."""
        self._training = None

    def __repr__(self) -> str:
        """The worker's name on the dashboard."""
        return f"RetinaWorker(first trial {self._trial})"

    def _epoch(self) -> dict[str, Any]:
        if self._training is None:
            self._training = self._task(self._config)
            if self._saved:
                self._training.restore(*self._saved)
                self._saved = None
        result = next(self._training, None)
        if result is None:  # restored at its end, which was not recorded
            return self._reported({EPOCH: self._config.epochs}, improved=False)
        value = float(getattr(result, self._settings.metric))
        sign = self._settings.sign
        improved = math.isfinite(value) and (self._best is None or sign * value > sign * self._best[0])
        if improved:
            self._best = (value, result.epoch)
        return self._reported(asdict(result), improved=improved)

    def _reported(self, epoch: dict[str, Any], *, improved: bool) -> dict[str, Any]:
        if self._best is None:
            return self._failed(f"epoch {epoch[EPOCH]}: {self._settings.metric} is not finite")
        finished = epoch[EPOCH] >= self._config.epochs
        return {
            **epoch,
            BEST: self._best[0],
            "best_epoch": self._best[1],
            "finished": finished,
            "done": finished,
            "should_checkpoint": improved,
        }

    def _failed(self, reason: str, trace: str = "") -> dict[str, Any]:
        self._training = None
        # the key must be there for Tune, and NaN is what its percentiles leave out
        return {EPOCH: 0, BEST: math.nan, "failure": reason, "traceback": trace, "finished": False, "done": True}
