"""Runs a sweep's trials in this process, one after another, without Ray.

A trial writes the same checkpoints as in one of Ray's workers: that of each epoch which is the best so far, before the
epoch is reported to the ledger. A trial that was interrupted or killed at any moment therefore continues from
its checkpoint and has the same results as a trial that was never interrupted.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import torch

from retina.config import TrialConfig
from retina.config.sweep import Metric, SweepSpec
from retina.data.dataset import FundusDataset
from retina.errors import RetinaError, SpecError, one_line
from retina.results import checkpoints
from retina.sweep import curve, study_file
from retina.sweep.backend import Call, SweepResult, TrainingFactory
from retina.sweep.ledger import Ledger

log = logging.getLogger(__name__)

Title = Callable[[TrialConfig], str]
"""Returns a trial's name for people, for example "ResNet18 (w/ pretraining)"."""


class LocalSession:
    """This process. Implements `retina.sweep.backend.Session`."""

    gpu_share = 1.0
    call: Call | None = None

    def __init__(self, title: Title | None = None) -> None:
        """Name trials in log lines by `title`; by their ids if it is None."""
        self._title = title

    def prepare(self, folder: Path, dataset: FundusDataset) -> None:
        """Check nothing: this process has made the folder and the dataset itself."""

    def run(self, spec: SweepSpec, ledger: Ledger, task: TrainingFactory) -> SweepResult:
        """Run the sweep's trials; see `run`."""
        return run(spec, ledger, task, title=self._title)


def run(spec: SweepSpec, ledger: Ledger, task: TrainingFactory, *, title: Title | None = None) -> SweepResult:
    """Run `spec` to its end, or until Ctrl-C or SIGTERM, one trial after another.

    Implements `retina.sweep.backend.Backend`. A trial fails with its reason if its training raises; the next trial then
    runs. Only an error of the accelerator is raised, since the process cannot use the device after it; the trial stays
    unfinished and continues when the sweep is resumed.

    Args:
        spec: the sweep. Trials are never stopped early, so `early_stop.type` must be "none".
        ledger: the trials so far; a sweep that was interrupted continues from there. It logs no lines of its own about
            trials: this backend logs one an epoch.
        task: starts the training run of a trial.
        title: names a trial in log lines; None: its id.

    Raises:
        SpecError: the sweep asks for early stopping.
        DiskError: study.db cannot be written, for example because the disk is full.
    """
    if spec.early_stop.type != "none":
        raise SpecError("early_stop.type: trials that run one after another are not stopped early; allowed: none")
    ledger.logs_trials = False
    limit = ""
    try:
        while ledger.remaining and not ledger.ended_by():
            trial_id, config = ledger.ask()
            _run_trial(ledger, trial_id, config, task, title(config) if title else trial_id)
    except KeyboardInterrupt:
        log.debug("interrupted; trials that were begun stay unfinished")
    except optuna.exceptions.StorageInternalError as error:
        raise study_file.as_results_error(ledger.folder.root / study_file.STUDY_FILE, error) from None
    finally:
        limit = ledger.close()
    return SweepResult(best=ledger.best, ended_by=limit, interrupted=bool(ledger.remaining) and not limit)


class _TrialError(Exception):
    """A trial cannot go on: `reason` and, for an unexpected error, its traceback."""

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.reason, self.trace = reason, trace


class _Trial:
    """A trial's training run, and the epochs and the best value that its checkpoint holds.

    Attributes:
        past: the results of all epochs so far, of earlier processes too.
    """

    def __init__(self, folder: Path, metric: Metric, config: TrialConfig, task: TrainingFactory) -> None:
        """Start the training run and continue from the checkpoint in `folder`, if there is one that fits.

        Where the checkpoint is damaged or is not of this model, the trial begins again; that is logged as a warning.
        """
        self._folder, self._metric = folder, metric
        self._training = task(config)
        self.past: list[dict[str, Any]] = []
        self._best: tuple[float, int] | None = None
        saved = checkpoints.load_newest(folder)
        if saved is None:
            return
        try:
            self._training.load_state_dict(saved.weights, saved.training)
        except Exception as error:  # torch raises various errors for a state that is not this model's
            problem = one_line(error, 120)
            log.warning("%s: its checkpoint does not fit, it begins again: %s", folder, problem)
            self._training = task(config)
        else:
            self.past, self._best = saved.past, saved.best

    def step(self) -> tuple[dict[str, Any], bool] | None:
        """Train one epoch and write its checkpoint if it is the best so far.

        Returns:
            The epoch's results and whether it is the best so far; None after the last epoch.

        Raises:
            _TrialError: no epoch so far has a finite metric, or the checkpoint cannot be written.
        """
        result = next(self._training, None)
        if result is None:
            return None
        epoch = asdict(result)
        self.past.append(epoch)
        value, sign = float(epoch[self._metric.name]), self._metric.sign
        improved = curve.is_improvement(value, self._best and self._best[0], sign)
        if improved:
            self._best = (value, result.epoch)
            try:
                state = {"training": self._training.state_dict(), "past": self.past, "best": self._best}
                checkpoints.save(self._folder, result.epoch, self._training.model_state_dict(), state)
            except OSError as error:
                problem = f"{checkpoints.NOT_SAVED}: {error.strerror or error}"
                raise _TrialError(f"epoch {result.epoch}: {problem}") from error
        if self._best is None:
            raise _TrialError(f"epoch {result.epoch}: {self._metric.name} is not finite")
        return epoch, improved


def _run_trial(ledger: Ledger, trial_id: str, config: TrialConfig, task: TrainingFactory, title: str) -> None:
    """Run a trial from its checkpoint, or from its beginning, to its end: COMPLETE or FAIL.

    Where a limit of the sweep is reached meanwhile, the trial stays RUNNING, and `Ledger.close` ends it.
    """
    ledger.started(trial_id, config)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the trial before this one may have left blocks of sizes that this one cannot use
    try:
        with _as_trial_error():
            trial = _Trial(ledger.folder.trial(trial_id), ledger.spec.metric, config, task)
        if trial.past:
            for epoch in trial.past:  # the process that trained them may have been killed before it reported them
                ledger.epoch(trial_id, epoch["epoch"], epoch)
            ledger.taken_up(trial_id, trial.past[-1]["epoch"])
            log.info("%s goes on after epoch %d", title, trial.past[-1]["epoch"])
        else:
            ledger.restarted(trial_id)
            log.info("%s begins", title)
        while True:
            ledger.tick()
            if ledger.ended_by():
                return
            with _as_trial_error():
                step = trial.step()
            if step is None:
                break
            epoch, improved = step
            ledger.epoch(trial_id, epoch["epoch"], epoch)
            _log_epoch(title, config, epoch, improved=improved)
    except _TrialError as error:
        log.warning("%s FAIL: %s", title, " ".join(error.reason.split()))
        ledger.end(trial_id, "FAIL", error.reason, error.trace)
    else:
        ledger.end(trial_id, "COMPLETE", "")


@contextmanager
def _as_trial_error() -> Iterator[None]:
    """Turn what a training run raises into a `_TrialError`, but for an error of the accelerator."""
    try:
        yield
    except (_TrialError, torch.AcceleratorError):
        raise
    except RetinaError as error:
        raise _TrialError(str(error)) from error
    except Exception as error:  # the sweep continues, whatever is wrong with this trial
        raise _TrialError(f"{type(error).__name__}: {error}", traceback.format_exc()) from error


def _log_epoch(title: str, config: TrialConfig, epoch: dict[str, Any], *, improved: bool) -> None:
    accuracies = [f"train {epoch['train_accuracy']:.2%}", f"validation {epoch['val_accuracy']:.2%}"]
    if epoch["test_accuracy"] is not None:
        accuracies.append(f"test {epoch['test_accuracy']:.2%}")
    best = ", the best on validation so far" if improved else ""
    log.info("%s, epoch %d of %d: %s%s", title, epoch["epoch"], config.epochs, ", ".join(accuracies), best)
    log.debug("  %s", "  ".join(f"{key} {value:.4g}" for key, value in epoch.items() if value is not None))
