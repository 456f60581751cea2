"""Ray's trainable: a thin adapter that hands the epochs of a `Training` to Tune."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune

from retina.config import TrialConfig
from retina.errors import DataError, DiskError, RetinaError
from retina.results import checkpoints
from retina.sweep.backend import TrainingFactory
from retina.sweep.epoch_prefetch import EpochPrefetcher
from retina.sweep.nodes import here
from retina.sweep.requirements import NodeRequirements
from retina.sweep.scheduler import BEST, EPOCH
from retina.system import file_modes
from retina.system.printable import PrintableFormatter
from retina.training.epochs import Training

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainableSettings:
    """What every trial of a sweep must know besides its own configuration.

    Attributes:
        folder: of all trials, the same on every node.
        metric: a field of `EpochResult`.
        sign: 1 where more of it is better, -1 where less is.
        threads: torch's.
        gpu: whether a trial was given a GPU, or a share of one.
        rungs: epochs at which a trial may be stopped; the next one waits for what is said of it.
        needs: what the worker's node must have; None where that is known.
    """

    folder: Path
    metric: str
    sign: int
    threads: int
    gpu: bool
    rungs: frozenset[int]
    needs: NodeRequirements | None = None


class GraderTrainable(tune.Trainable):
    """One trial, or one after another: the worker is kept and given the next configuration.

    A step is an epoch. Where it was the best so far, its checkpoint is on the disk before it is reported, so that a
    sweep that ends in that very moment has the weights of every epoch it knows of; the next epoch is under way by then.
    A worker that finds a checkpoint of its trial goes on from there: it reports the saved epoch once more, with those
    before it, since the process that they were reported to may have been killed before it wrote them down.

    Whatever an epoch raises ends this trial with a reason and is not tried again: the same settings would fail in the
    same way. A worker that dies is another matter; Ray starts its trial again in another.

    A node that lacks what every trial needs is no fault of the trial's: the worker refuses it, under the key "refused",
    and the sweep stops.
    """

    _trial = "none"  # __repr__ is asked for also when setup has failed

    def setup(self, config: dict[str, Any], task: TrainingFactory, settings: TrainableSettings) -> None:
        """Called once in a new worker."""
        self._task, self._settings = task, settings
        if not settings.gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves them visible to those who were given none
        torch.set_num_threads(settings.threads)
        self._ahead = EpochPrefetcher(settings.threads)
        self._log = _TrialLog()
        self._problem = settings.needs.problem() if settings.needs else ""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called for each further trial of the worker."""
        self._ahead.cancel()
        self._trial = str(new_config["trial"])
        self._config = TrialConfig(**new_config["config"])
        self._training: Training | None = None
        self._is_taken_up = False
        self._past: list[dict[str, Any]] = []
        self._best: tuple[float, int] | None = None
        self._log.write_to(self._folder / "log.txt")
        return True  # whatever can go wrong goes wrong in step(): only there does Tune try a trial again

    def step(self) -> dict[str, Any]:
        """Train one epoch."""
        try:
            return self._refused(self._problem) if self._problem else self._epoch()
        except torch.AcceleratorError:
            raise  # the process is of no more use: Ray starts the trial again in another
        except RetinaError as error:
            return self._failed(str(error))
        except Exception as error:  # the sweep goes on, whatever became of this trial
            return self._failed(f"{type(error).__name__}: {error}", traceback.format_exc())

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune asks for one only where it is told to; ours are written by `step`."""

    def load_checkpoint(self, checkpoint: str) -> None:
        """See `save_checkpoint`."""

    def cleanup(self) -> None:
        """Let go of the model before the worker ends."""
        self._ahead.cancel()
        self._training = None

    def __repr__(self) -> str:
        """The worker's name on the dashboard."""
        return f"RetinaWorker(first trial {self._trial})"

    @property
    def _folder(self) -> Path:
        return self._settings.folder / self._trial

    def _epoch(self) -> dict[str, Any]:
        if self._training is None:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # the trial before may have needed less of what we need more of
            try:
                self._training = self._task(self._config)
            except (DataError, DiskError) as error:  # these photographs are the same for every trial
                return self._refused(str(error))
            self._ahead.take(self._training)
            self._is_taken_up = self._taken_up()
            if self._is_taken_up:
                return self._reported(self._past[-1], before=self._past[:-1])
        result = self._ahead.result()
        epoch = asdict(result)
        self._past.append(epoch)
        value, sign = float(epoch[self._settings.metric]), self._settings.sign
        improved = math.isfinite(value) and (self._best is None or sign * value > sign * self._best[0])
        try:
            if improved:
                self._best = (value, result.epoch)
                weights, state = self._training.weights(), self._training.state()  # as they are now
            if self._goes_on(result.epoch):
                self._ahead.begin()
            gone = self._settings.needs.folder_problem() if improved and self._settings.needs else ""
            if gone:  # a folder that is no longer mounted would be made anew on the node's own disk
                return self._refused(gone)
            if improved:
                state = {"training": state, "past": self._past, "best": self._best}
                checkpoints.save(self._folder, result.epoch, weights, state)
        except OSError as error:
            return self._failed(f"epoch {result.epoch}: {checkpoints.NOT_SAVED}: {error.strerror or error}")
        return self._reported(epoch)

    def _goes_on(self, epoch: int) -> bool:
        """Whether the next epoch may begin at once: not where the trial's end is likely.

        Nor where a worker has died before, or nothing is on the disk yet: what is trained ahead could be what a worker
        dies of, and would take the epoch before with it each time.
        """
        last = epoch >= self._config.epochs or epoch in self._settings.rungs
        return not (last or self._is_taken_up or self._best is None or len(self._past) < 2)

    def _taken_up(self) -> bool:
        """Bring the training to where the trial was when its last worker ended; False where it begins anew.

        It begins anew also where its checkpoint is damaged, or does not fit its model; that is in its log.
        """
        saved = checkpoints.load_newest(self._folder)
        if saved is None or self._training is None:
            return False
        try:
            self._training.restore(saved.weights, saved.training)
        except Exception as error:  # whatever torch makes of a state that is not this model's
            problem = (" ".join(str(error).split()) or type(error).__name__)[:120]
            log.warning("the checkpoint of epoch %d does not fit, the trial begins again: %s", saved.epoch, problem)
            self._training = self._task(self._config)  # what was half restored is of no use
            self._ahead.take(self._training)
            return False
        self._past, self._best = saved.past, saved.best
        return True

    def _reported(self, epoch: dict[str, Any], before: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        if self._best is None:
            return self._failed(f"epoch {epoch[EPOCH]}: {self._settings.metric} is not finite")
        finished = epoch[EPOCH] >= self._config.epochs
        return {**epoch, BEST: self._best[0], "before": before or [], "finished": finished, "done": finished}

    def _refused(self, problem: str) -> dict[str, Any]:
        return {**self._failed(problem), "refused": f"{here()}: {problem}"}

    def _failed(self, reason: str, trace: str = "") -> dict[str, Any]:
        self._ahead.cancel()
        self._training = None
        # the key must be there for Tune, and NaN is what its percentiles leave out
        return {EPOCH: 0, BEST: math.nan, "failure": reason, "traceback": trace, "finished": False, "done": True}


class _TrialLog(logging.Handler):
    """What the package and Python's warnings say in a worker goes to the log of the trial that it has in hand."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(PrintableFormatter())
        self._file: Path | None = None
        logging.captureWarnings(capture=True)
        for name in ("retina", "py.warnings"):
            logging.getLogger(name).addHandler(self)

    def write_to(self, file: Path) -> None:
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        # a log that cannot be written to fails no trial; what cannot be saved of the trial itself is said by `_epoch`
        with contextlib.suppress(OSError):
            if self._file and self._file.parent.parent.is_dir():  # else it is no longer mounted: see `_epoch`
                file_modes.make_inside(self._file.parent)
                with self._file.open("a", encoding="utf-8") as opened:
                    opened.write(self.format(record).rstrip() + "\n")
