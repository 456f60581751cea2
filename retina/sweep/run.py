"""Runs a sweep: Ray Tune with our search, ASHA and the recorder."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import optuna
from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from retina.errors import ResultsError
from retina.results import RunFolder
from retina.sweep.cluster import Share
from retina.sweep.recorder import Limits, Recorder
from retina.sweep.search import BEST, EPOCH, StudySearch
from retina.sweep.spec import SweepSpec
from retina.sweep.trial import GraderTrial, Settings, Task

log = logging.getLogger(__name__)

WORKER_RETRIES = 2
"""How often a trial whose worker died goes on from its last checkpoint."""


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        best: the best trial's id; None where none has a result.
        ended_by: the limit that ended it, in words; empty where every trial was run, or it was interrupted.
        interrupted: trials are left that `--resume` goes on with.
    """

    best: str | None
    ended_by: str
    interrupted: bool


def run(
    spec: SweepSpec, folder: RunFolder, task: Task, share: Share, *, resume: bool = False, verbose: bool = False
) -> Outcome:
    """Run `spec` to its end, or to Ctrl-C, on the Ray that this process is connected to.

    Args:
        spec: what to search, and how.
        folder: where the results go; for `resume` the one that the interrupted sweep wrote.
        task: starts the training run of a trial.
        share: what each trial gets of the machine.
        resume: go on with a sweep that was interrupted.
        verbose: let Ray and Optuna say what they like.

    Raises:
        ResultsError: nothing is there that could be resumed.
    """
    _quiet(verbose)
    log.info("each trial gets %d core%s and %g GPU", share.cpu, "s" if share.cpu > 1 else "", share.gpu)
    settings = Settings(metric=spec.metric.name, sign=spec.metric.sign, threads=share.cpu, gpu=share.gpu > 0)
    trainable = tune.with_resources(
        tune.with_parameters(GraderTrial, task=task, settings=settings), {"cpu": share.cpu, "gpu": share.gpu}
    )
    # what the dashboard calls a worker; Tune's wrappers have left "with_resources.<locals>.ResourceTrainable"
    trainable.__name__ = trainable.__qualname__ = GraderTrial.__name__
    tuner = _restored(folder, trainable) if resume else _fresh(spec, folder, trainable, verbose=verbose)
    tuner.fit()
    return _outcome(spec, RunFolder.open(folder.root))


def _fresh(spec: SweepSpec, folder: RunFolder, trainable: Any, *, verbose: bool) -> Tuner:
    recorder = Recorder(folder.root, spec)
    return Tuner(
        trainable,
        tune_config=TuneConfig(
            metric=BEST,
            mode="max" if spec.metric.sign > 0 else "min",
            search_alg=StudySearch(spec, folder.root / "study.db"),
            scheduler=_scheduler(spec),
            num_samples=spec.planned_trials,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str(folder.root),
            stop=Limits(recorder),
            callbacks=[recorder],
            failure_config=FailureConfig(max_failures=WORKER_RETRIES),
            # left out, Tune saves a class's last epoch too, over the best one
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_at_end=False),
            verbose=1 if verbose else 0,
        ),
    )


def _restored(folder: RunFolder, trainable: Any) -> Tuner:
    state = folder.root / "tune"
    if not Tuner.can_restore(str(state)):
        raise ResultsError(f"{folder.root}: holds nothing that could be resumed (no state of Ray Tune in {state})")
    return Tuner.restore(str(state), trainable=trainable, resume_unfinished=True)


def _scheduler(spec: SweepSpec) -> TrialScheduler:
    if spec.early_stop.type == "none":
        return FIFOScheduler()
    longest = spec.max_epochs
    return ASHAScheduler(
        time_attr=EPOCH,
        max_t=longest,
        grace_period=min(spec.early_stop.grace_epochs, longest),
        reduction_factor=spec.early_stop.eta,
        stop_last_trials=False,
    )


def _outcome(spec: SweepSpec, folder: RunFolder) -> Outcome:
    trials = folder.trials()
    ranking = folder.ranking(spec.metric.name, spec.metric.sign)
    ended_by = str(folder.notes()["ended_by"])  # the recorder's word: Tune may have run with a copy of it
    unfinished = bool((trials["state"] == "RUNNING").any()) or len(trials) < spec.planned_trials
    return Outcome(best=ranking[0] if ranking else None, ended_by=ended_by, interrupted=unfinished and not ended_by)


def _trial_name(trial: Trial) -> str:
    return str(trial.config["trial"])


def _quiet(verbose: bool) -> None:
    """Ray's own result files and both libraries' chatter are off; our tables and lines say the same."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    if not verbose:
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints a banner even when told to be quiet
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("ray").setLevel(logging.ERROR)
