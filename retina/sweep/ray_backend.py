"""Runs a sweep: Ray Tune with our search, ASHA and the recorder."""

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
"""Trials that wait for a worker at once: no limit, `LedgerSearcher` keeps to the number of slots."""


@dataclass(frozen=True)
class _Placement:
    """Where trials run.

    Attributes:
        share: what a trial gets of its node.
        nodes: which of them may run trials.
        needs: what a worker must find there.
        refusals: what it has not found, from the workers.
    """

    share: TrialResources
    nodes: Nodes
    needs: NodeRequirements
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
    """Run `spec` to its end, or to Ctrl-C, on the Ray that this process is connected to.

    Args:
        spec: what to search, and how.
        ledger: what is known so far; a sweep that was interrupted goes on from there.
        task: starts the training run of a trial.
        share: what each trial gets of the machine.
        nodes: which nodes may run trials; all that are there now, and those that join and pass the check, if None.
        verbose: let Ray and Optuna say what they like.
        watch: is told of the sweep's status while it runs.
        guard: watches that Ray lives.

    Raises:
        DiskError: the study could not be asked for a trial, since the disk is full say.
        ClusterError: Ray has died, or starts no worker any more.
        NodeError: a worker's node lacks what trials need. Its trial is put back; others have been stopped.
    """
    silence_libraries(verbose)
    limit = ""
    refusals: list[str] = []
    nodes = nodes or Nodes(share, getattr(task, "photographs", None))
    try:
        if ledger.remaining and not ledger.ended_by():
            log.info("each trial gets %d core%s and %g GPU", share.cpu, "s" if share.cpu > 1 else "", share.gpu)
            with _own_interrupt(), nodes.serving(ledger.folder.root) as needs:
                place = _Placement(share, nodes, needs, refusals)
                _tuner(spec, ledger, task, place, verbose=verbose, watch=watch, guard=guard).fit()
    except RayGoneError as gone:
        raise gone.reason from None
    except KeyboardInterrupt:  # a second Ctrl-C: Tune has ended the workers at once
        log.info("stopped at once")
    except optuna.exceptions.StorageInternalError as error:
        raise study_file.as_results_error(ledger.folder.root / study_file.STUDY_FILE, error) from None
    finally:
        limit = ledger.close()
    if refusals:
        raise NodeError(f"{refusals[0]}\nthe sweep has stopped; go on with --resume")
    return SweepResult(best=ledger.best, ended_by=limit, interrupted=bool(ledger.remaining) and not limit)


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Tune takes Ctrl-C for itself and does not give it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Health(Callback):
    """Ends the sweep when Ray has died or starts no worker any more."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; this one is not restored."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Look, several times a second."""
        states = {trial.status for trial in trials}
        self._guard.check_trials(waiting=Trial.PENDING in states and Trial.RUNNING not in states)


class _Acknowledge(Callback):
    """Says at once that a first Ctrl-C was heard: Tune gives the epochs that run ten seconds to end."""

    def setup(self, **_: Any) -> None:
        """Tune has taken Ctrl-C for itself by now."""
        theirs = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(theirs):
            return

        def heard(number: int, frame: FrameType | None) -> None:
            if not process.stop_requested():
                process.record_stop_signal(number)
            log.info("stopping; epochs that end in ten seconds count, others begin again; Ctrl-C again stops at once")
            theirs(number, frame)

        signal.signal(signal.SIGINT, heard)


def _tuner(
    spec: SweepSpec,
    ledger: Ledger,
    task: TrainingFactory,
    place: _Placement,
    *,
    verbose: bool,
    watch: Watch | None,
    guard: Guard | None,
) -> Tuner:
    folder = ledger.folder
    rungs = ResumableASHAScheduler(spec)
    for name in folder.trial_ids():
        rungs.replay_trial(name, ledger.values(name))
    search = LedgerSearcher(ledger, place.nodes.slots)
    return Tuner(
        _trainable(spec, folder, task, place, rungs),
        tune_config=TuneConfig(
            search_alg=search,
            scheduler=rungs,
            num_samples=sys.maxsize,  # the search says when it is through: a trial may be put back
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=RunConfig(
            name=f"{len(list((folder.root / TUNE_FOLDER).glob('*'))):03d}",  # each time that the sweep goes on, anew
            storage_path=str(folder.root / TUNE_FOLDER),
            stop=BudgetStopper(ledger, place.refusals),
            callbacks=[
                LedgerCallback(
                    ledger,
                    place.refusals,
                    StatusReporter(watch, ledger, rungs, lambda: search.slots) if watch else None,
                ),
                _Acknowledge(),
                *([_Health(guard)] if guard else []),
            ],
            failure_config=FailureConfig(max_failures=WORKER_RETRIES),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # ours lie in the results folder
            verbose=1 if verbose else 0,
        ),
    )


def _trainable(
    spec: SweepSpec, folder: RunFolder, task: TrainingFactory, place: _Placement, rungs: ResumableASHAScheduler
) -> Any:
    share = place.share
    settings = TrainableSettings(
        folder=folder.root / "trials",
        metric=spec.metric.name,
        sign=spec.metric.sign,
        threads=share.cpu,
        gpu=share.gpu > 0,
        rungs=frozenset(rung.epoch for rung in rungs.current_rungs()),
        needs=place.needs,
    )
    trainable = tune.with_resources(
        tune.with_parameters(GraderTrainable, task=task, settings=settings), {"cpu": share.cpu, "gpu": share.gpu}
    )
    # what the dashboard calls a worker; Tune's wrappers have left "with_resources.<locals>.ResourceTrainable"
    trainable.__name__ = trainable.__qualname__ = GraderTrainable.__name__
    return trainable


def _trial_name(trial: Trial) -> str:
    return str(trial.config["trial"])


def silence_libraries(verbose: bool) -> None:
    """Set up Tune; its own result files and both libraries' chatter are off: our tables and lines say the same."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune prepares one trial at a time, so that workers start one after another; our search asks for no more than fit
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(MOST_PENDING))
    # Tune writes its own state down now and then, for a restore that we do not use: the ledger is on the disk already
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
    if not verbose:
        os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # error.txt has them
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints a banner even when told to be quiet
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
