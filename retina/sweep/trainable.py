"""Ray Tune's trainable: a thin adapter between the epochs of a `Training` and Tune."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from ray import tune

from retina.config import TrialConfig
from retina.errors import DataError, DiskError, RetinaError
from retina.results import checkpoints
from retina.sweep import curve
from retina.sweep.backend import TrainingFactory
from retina.sweep.epoch_prefetch import EpochPrefetcher
from retina.sweep.nodes import here
from retina.sweep.requirements import NodeRequirements
from retina.sweep.trial_report import TrialReport
from retina.system import file_modes
from retina.system.printable import EscapingFormatter
from retina.training.epochs import EpochResult, Training

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainableSettings:
    """What all trials of a sweep have in common; a trial's own configuration comes from the searcher.

    Attributes:
        folder: folder that holds one folder per trial; the same path on every node.
        metric: name of the field of `EpochResult` that the sweep optimises.
        sign: 1 where a larger metric is better, -1 where a smaller one is.
        threads: number of torch's threads in a worker.
        gpu: whether a trial gets a GPU, or a share of one.
        rungs: epochs after which the scheduler may stop a trial. The next epoch does not start before it has decided.
        needs: what the worker's node must provide; None where that needs no check.
    """

    folder: Path
    metric: str
    sign: int
    threads: int
    gpu: bool
    rungs: frozenset[int]
    needs: NodeRequirements | None = None


class GraderTrainable(tune.Trainable):
    """Trains one trial after another: Tune keeps the worker and resets it with the configuration of the next trial.

    One step is one epoch, and its result is a `TrialReport`. If the epoch is the best so far, its checkpoint is on disk
    before the epoch is reported. A sweep that is killed at any moment therefore has the weights of every best epoch
    that it knows of. The next epoch is already being trained by then.

    A worker that finds a checkpoint of its trial resumes from it. It reports the saved epoch once more, together with
    the epochs before it, because the process that they were reported to may have been killed before it wrote them down.

    An exception in an epoch ends the trial with a reason. The trial is not retried, because the same configuration
    would fail in the same way. If the worker process dies, Ray starts the trial again in another worker.

    A node that lacks what every trial needs is not the trial's failure. The worker reports a refusal, and the sweep
    stops.
    """

    _trial = "none"  # __repr__ is called even if setup has failed

    def setup(self, config: dict[str, Any], task: TrainingFactory, settings: TrainableSettings) -> None:
        """Prepare a new worker; Tune calls this once per worker."""
        self._task, self._settings = task, settings
        if not settings.gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves the GPUs visible to workers that have requested none
        torch.set_num_threads(settings.threads)
        self._epochs = EpochPrefetcher(settings.threads)
        self._log = _TrialLog()
        self._problem = settings.needs.problem() if settings.needs else ""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare the worker for its next trial.

        Returns:
            Always True. Errors are left to `step`, the only method after whose failure Tune retries a trial.
        """
        self._epochs.cancel()
        self._trial = str(new_config["trial"])
        self._config = TrialConfig(**new_config["config"])
        self._training: Training | None = None
        self._is_resumed = False
        self._past: list[EpochResult] = []
        self._best: tuple[float, int] | None = None
        self._log.write_to(self._folder / "log.txt")
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch and return its `TrialReport` as the dict that Tune requires."""
        return self._step().to_tune()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: `step` writes the checkpoints, and Tune is configured not to ask for any."""

    def load_checkpoint(self, checkpoint: str) -> None:
        """Do nothing, see `save_checkpoint`."""

    def cleanup(self) -> None:
        """Release the model before the worker ends."""
        self._epochs.cancel()
        self._training = None

    def __repr__(self) -> str:
        """Return the worker's name on Ray's dashboard."""
        return f"RetinaWorker(first trial {self._trial})"

    @property
    def _folder(self) -> Path:
        return self._settings.folder / self._trial

    def _step(self) -> TrialReport:
        try:
            return self._refusal(self._problem) if self._problem else self._train_epoch()
        except torch.AcceleratorError:
            raise  # the process cannot use the device any more: Ray starts the trial again in another one
        except RetinaError as error:
            return self._failure(str(error))
        except Exception as error:  # one trial's error must not end the sweep
            return self._failure(f"{type(error).__name__}: {error}", traceback.format_exc())

    def _train_epoch(self) -> TrialReport:
        if self._training is None:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # this trial may need larger blocks than the previous one has left cached
            try:
                self._training = self._task(self._config)
            except (DataError, DiskError) as error:  # the photographs are the same for every trial
                return self._refusal(str(error))
            self._epochs.attach(self._training)
            self._is_resumed = self._resume()
            if self._is_resumed:
                return self._report(self._past[-1], earlier=self._past[:-1])
        result = self._epochs.result()
        self._past.append(result)
        value, sign = float(getattr(result, self._settings.metric)), self._settings.sign
        improved = curve.is_improvement(value, self._best and self._best[0], sign)
        try:
            if improved:
                self._best = (value, result.epoch)
                model_state = self._training.model_state_dict()  # both before the next epoch changes them
                state = self._training.state_dict()
            if self._may_start_next(result.epoch):
                self._epochs.start()
            problem = self._settings.needs.folder_problem() if improved and self._settings.needs else ""
            if problem:  # if the folder is no longer mounted, saving would create it on the node's own disk
                return self._refusal(problem)
            if improved:
                past = [asdict(epoch) for epoch in self._past]
                checkpoints.save(
                    self._folder, result.epoch, model_state, {"training": state, "past": past, "best": self._best}
                )
        except OSError as error:
            return self._failure(f"epoch {result.epoch}: {checkpoints.NOT_SAVED}: {error.strerror or error}")
        return self._report(result)

    def _may_start_next(self, epoch: int) -> bool:
        """Return whether the epoch after `epoch` may start before `epoch` is reported.

        It may not where the trial is likely to end: after its last epoch and at a rung. Nor may it where the trial was
        resumed, or has no checkpoint yet: if the epoch that is trained in advance kills the worker, the epoch before it
        would be lost with it each time.
        """
        may_end = epoch >= self._config.epochs or epoch in self._settings.rungs
        return not (may_end or self._is_resumed or self._best is None or len(self._past) < 2)

    def _resume(self) -> bool:
        """Resume the training from the trial's newest checkpoint.

        Returns:
            False where the trial starts from its first epoch: it has no checkpoint, or one that is damaged or does not
            fit the model, which the trial's log says.
        """
        saved = checkpoints.load_newest(self._folder)
        if saved is None or self._training is None:
            return False
        try:
            past = [EpochResult.from_dict(epoch) for epoch in saved.past]
            self._training.load_state_dict(saved.weights, saved.training)
        except Exception as error:  # torch raises various types for the state of another model
            problem = (" ".join(str(error).split()) or type(error).__name__)[:120]
            log.warning("the checkpoint of epoch %d does not fit, the trial begins again: %s", saved.epoch, problem)
            self._training = self._task(self._config)  # the old one may have loaded half of the state
            self._epochs.attach(self._training)
            return False
        self._past, self._best = past, saved.best
        return True

    def _report(self, result: EpochResult, earlier: Sequence[EpochResult] = ()) -> TrialReport:
        if self._best is None:
            return self._failure(f"epoch {result.epoch}: {self._settings.metric} is not finite")
        finished = result.epoch >= self._config.epochs
        return TrialReport(result, self._best[0], tuple(earlier), finished)

    def _refusal(self, problem: str) -> TrialReport:
        return replace(self._failure(problem), refusal=f"{here()}: {problem}")

    def _failure(self, reason: str, trace: str = "") -> TrialReport:
        self._epochs.cancel()
        self._training = None
        return TrialReport(failure=reason, traceback=trace)


class _TrialLog(logging.Handler):
    """Writes what the package logs and Python warns of in a worker to the log of the worker's current trial."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(EscapingFormatter())
        self._file: Path | None = None
        logging.captureWarnings(capture=True)
        for name in ("retina", "py.warnings"):
            logging.getLogger(name).addHandler(self)

    def write_to(self, file: Path) -> None:
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        # a log that cannot be written fails no trial; `_train_epoch` reports what cannot be saved of the trial itself
        with contextlib.suppress(OSError):
            if self._file and self._file.parent.parent.is_dir():  # else it is not mounted any more: see `_train_epoch`
                file_modes.make_folder_with_inherited_mode(self._file.parent)
                with self._file.open("a", encoding="utf-8") as opened:
                    opened.write(self.format(record).rstrip() + "\n")
