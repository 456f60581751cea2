"""The Ray backend: a sweep's trials in Ray Tune, with the ledger's searcher, ASHA and callbacks."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import optuna
from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial

from retina.config.sweep import SweepSpec
from retina.errors import NodeError
from retina.results.run_folder import RunFolder
from retina.sweep import study_file
from retina.sweep.backend import SweepResult, TrainingFactory
from retina.sweep.cluster import TrialResources
from retina.sweep.guard import Guard, RayGoneError
from retina.sweep.ledger import Ledger
from retina.sweep.nodes import Nodes
from retina.sweep.requirements import NodeRequirements
from retina.sweep.scheduler import ResumableASHAScheduler
from retina.sweep.status_reporter import StatusReporter, Watch
from retina.sweep.trainable import GraderTrainable, TrainableSettings
from retina.sweep.tune_hooks import WORKER_RETRIES, BudgetStopper, LedgerCallback, LedgerSearcher
from retina.system import process

log = logging.getLogger(__name__)


TUNE_FOLDER = "tune"
MOST_PENDING = 100_000
"""Most trials that wait for a worker at once. No limit in practice: `LedgerSearcher` proposes no more than fit."""


@dataclass(frozen=True)
class _Workers:
    """The workers of trials.

    Attributes:
        resources: resources of a trial.
        nodes: the nodes that may run trials.
        requirements: requirements that a worker checks on its node.
        refusals: unmet requirements that workers have reported.
    """

    resources: TrialResources
    nodes: Nodes
    requirements: NodeRequirements
    refusals: list[str]


def run(
    spec: SweepSpec,
    ledger: Ledger,
    task: TrainingFactory,
    share: TrialResources,
    *,
    nodes: Nodes | None = None,
    verbose: bool = False,
    watch: Watch | None = None,
    guard: Guard | None = None,
) -> SweepResult:
    """Run the trials of `spec` on the Ray that this process is connected to, until the end or Ctrl-C.

    Args:
        spec: the sweep.
        ledger: the trials so far; an interrupted sweep continues from there.
        task: starts the training run of a trial.
        share: resources of a trial.
        nodes: the nodes that may run trials; all present ones, and those that join and pass the check, if None.
        verbose: show the log output of Ray and Optuna.
        watch: called with the sweep's status while it runs.
        guard: watches whether Ray is alive.

    Raises:
        DiskError: the study cannot propose a trial, for example because the disk is full.
        ClusterError: Ray has died, or does not start workers any more.
        NodeError: the node of a worker does not meet the requirements. Its trial is requeued; the others are stopped.
    """
    silence_libraries(verbose)
    limit = ""
    refusals: list[str] = []
    nodes = nodes or Nodes(share, getattr(task, "photographs", None))
    try:
        if ledger.remaining and not ledger.ended_by():
            log.info("each trial gets %d core%s and %g GPU", share.cpu, "s" if share.cpu > 1 else "", share.gpu)
            with _own_interrupt(), nodes.serving(ledger.folder.root) as requirements:
                workers = _Workers(share, nodes, requirements, refusals)
                _tuner(spec, ledger, task, workers, verbose=verbose, watch=watch, guard=guard).fit()
    except RayGoneError as gone:
        raise gone.reason from None
    except KeyboardInterrupt:  # a second Ctrl-C: Tune has ended the workers immediately
        log.info("stopped immediately")
    except optuna.exceptions.StorageInternalError as error:
        raise study_file.as_results_error(ledger.folder.root / study_file.STUDY_FILE, error) from None
    finally:
        limit = ledger.close()
    if refusals:
        raise NodeError(f"{refusals[0]}\nthe sweep has stopped; continue with --resume")
    return SweepResult(best=ledger.best, ended_by=limit, interrupted=bool(ledger.remaining) and not limit)


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Restore the handler of Ctrl-C, which Tune replaces and does not restore."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Health(Callback):
    """Ends the sweep when Ray has died or does not start workers any more."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as an empty object: Tune pickles its callbacks, and this one is never restored."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Check Ray, several times a second."""
        states = {trial.status for trial in trials}
        self._guard.check_trials(waiting=Trial.PENDING in states and Trial.RUNNING not in states)


class _Acknowledge(Callback):
    """Acknowledges a first Ctrl-C immediately: Tune gives running epochs ten seconds to end."""

    def setup(self, **_: Any) -> None:
        """Wrap the handler of Ctrl-C that Tune has installed by now."""
        tune_handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(tune_handler):
            return

        def acknowledge(number: int, frame: FrameType | None) -> None:
            if not process.stop_requested():
                process.record_stop_signal(number)
            log.info(
                "stopping: epochs that end within ten seconds count, others are repeated;"
                " Ctrl-C again stops immediately"
            )
            tune_handler(number, frame)

        signal.signal(signal.SIGINT, acknowledge)


def _tuner(
    spec: SweepSpec,
    ledger: Ledger,
    task: TrainingFactory,
    workers: _Workers,
    *,
    verbose: bool,
    watch: Watch | None,
    guard: Guard | None,
) -> Tuner:
    folder = ledger.folder
    rungs = ResumableASHAScheduler(spec)
    for name in folder.trial_ids():
        rungs.replay_trial(name, ledger.values(name))
    search = LedgerSearcher(ledger, workers.nodes.slots)
    return Tuner(
        _trainable(spec, folder, task, workers, rungs),
        tune_config=TuneConfig(
            search_alg=search,
            scheduler=rungs,
            num_samples=sys.maxsize,  # the searcher ends the sweep: a trial may be requeued
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=RunConfig(
            # each time that the sweep continues, it is a new experiment
            name=f"{len(list((folder.root / TUNE_FOLDER).glob('*'))):03d}",
            storage_path=str(folder.root / TUNE_FOLDER),
            stop=BudgetStopper(ledger, workers.refusals),
            callbacks=[
                LedgerCallback(
                    ledger,
                    workers.refusals,
                    StatusReporter(watch, ledger, rungs, lambda: search.slots) if watch else None,
                ),
                _Acknowledge(),
                *([_Health(guard)] if guard else []),
            ],
            failure_config=FailureConfig(max_failures=WORKER_RETRIES),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # checkpoints are in the results folder
            verbose=1 if verbose else 0,
        ),
    )


def _trainable(
    spec: SweepSpec, folder: RunFolder, task: TrainingFactory, workers: _Workers, rungs: ResumableASHAScheduler
) -> Any:
    share = workers.resources
    settings = TrainableSettings(
        folder=folder.root / "trials",
        metric=spec.metric.name,
        sign=spec.metric.sign,
        threads=share.cpu,
        gpu=share.gpu > 0,
        rungs=frozenset(rung.epoch for rung in rungs.current_rungs()),
        needs=workers.requirements,
    )
    trainable = tune.with_resources(
        tune.with_parameters(GraderTrainable, task=task, settings=settings), {"cpu": share.cpu, "gpu": share.gpu}
    )
    # the dashboard's name of a worker; Tune's wrappers leave "with_resources.<locals>.ResourceTrainable"
    trainable.__name__ = trainable.__qualname__ = GraderTrainable.__name__
    return trainable


def _trial_name(trial: Trial) -> str:
    return str(trial.config["trial"])


def silence_libraries(verbose: bool) -> None:
    """Turn off the result files of Tune and, unless `verbose`, the log output of Ray and Optuna.

    The tables and log of the results folder have the same information.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # by default Tune prepares one trial at a time, so that workers start one after another; the searcher proposes no
    # more trials than fit
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(MOST_PENDING))
    # Tune saves its own state periodically for `Tuner.restore`, which is not used: the ledger is on the disk already
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
    if not verbose:
        os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # error.txt has the errors
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints a banner even with verbose=0
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
