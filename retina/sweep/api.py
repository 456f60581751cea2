"""A whole sweep, from checked settings to the best model: data, weights, trials, evaluation of the best trial.

This module imports no Ray: `run_sweep` imports it when it is called, `train` never does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from retina.config import DataConfig, TrialConfig
from retina.config.sweep import Metric, SweepSpec
from retina.data.dataset import FundusDataset, prepare, read_manifest
from retina.data.manifest import Manifest
from retina.errors import DiskError, ResultsError, WeightsError
from retina.evaluation import best_trial
from retina.evaluation.comparison import run_title
from retina.evaluation.sweep_evaluation import evaluate_sweep
from retina.results import environment
from retina.results.run_folder import RunFolder
from retina.sweep import train_plan
from retina.sweep.backend import Call, Session, SweepResult, TrainingFactory
from retina.sweep.ledger import Ledger
from retina.sweep.local_backend import LocalSession
from retina.sweep.resume import refuse_changed, reopened, resumed_spec
from retina.sweep.train_plan import TRAIN_METRIC, TrainPlan
from retina.system import process
from retina.system.progress import Progress
from retina.training import model
from retina.training.epochs import Training
from retina.training.trainer import GradingTask

if TYPE_CHECKING:
    from retina.sweep.status_reporter import Watch

log = logging.getLogger(__name__)

Evaluate = Callable[[RunFolder, SweepResult, Call | None], None]


@dataclass(frozen=True)
class SweepPaths:
    """Paths that a sweep uses, and the address of its Ray cluster.

    Attributes:
        results: the folder that contains the results folders of all sweeps.
        weights: pretrained weights, a file or a folder; None: torchvision downloads them.
        address: address of a running Ray cluster; None: $RAY_ADDRESS, or else Ray is started on this machine.
    """

    results: Path
    weights: Path | None = None
    address: str | None = None


@dataclass(frozen=True)
class ResumeOptions:
    """Whether and how an existing sweep continues.

    Attributes:
        resume: run the trials that are left.
        extend: number of trials to add.
        force: continue even if the sweep file, the photographs or the code have changed.
    """

    resume: bool = False
    extend: int = 0
    force: bool = False

    @property
    def continues(self) -> bool:
        """Whether an existing sweep continues; otherwise a new one begins."""
        return self.resume or self.extend > 0


def run_sweep(
    spec: SweepSpec,
    paths: SweepPaths,
    options: ResumeOptions = ResumeOptions(),
    *,
    verbose: bool = False,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> tuple[RunFolder, SweepResult]:
    """Run a sweep on Ray, evaluate its best trial, and write the results to `paths.results/<name>/`.

    All settings, paths and data are checked before the first trial starts and before anything is written.

    Args:
        spec: the sweep.
        paths: folders, and the address of the Ray cluster.
        options: whether and how an existing sweep continues.
        verbose: let Ray and Optuna log as they do by default.
        progress: called with the progress of steps that take long.
        watch: called with the sweep's status while trials run.

    Returns:
        The results folder, and how the sweep ended.

    Raises:
        RetinaError: the data, the weights, the results folder, its disk or the cluster cannot be used.
    """
    from retina.sweep.ray_session import ray_session  # noqa: PLC0415  # `train` works without Ray

    root = (paths.results / spec.name).absolute()
    requested = resolved(spec)
    spec, options = prepare_spec(spec, paths, options)
    manifest = read_manifest(spec.data)
    weights = _load_weights(spec, paths.weights)

    def open_ledger(spec: SweepSpec) -> tuple[SweepSpec, RunFolder, Ledger]:
        if not options.continues:
            folder = RunFolder.open(root)
            return spec, folder, Ledger.create(spec, folder)
        # read again: another process may have run the sweep since `prepare_spec`
        spec = _with_layout(resumed_spec(RunFolder.open(root), requested, options.extend), dataset())
        return spec, *reopened(root, spec, dataset(), extend=options.extend, force=options.force)

    def evaluate(folder: RunFolder, result: SweepResult, call: Call | None) -> None:
        if result.best is None:
            return
        if call is None:
            evaluate_sweep(folder, result.best, dataset(), spec.metric)
        else:
            call(partial(_evaluate_on_node, folder.root, result.best, dataset(), spec.metric))

    dataset = _LazyDataset(spec.data, progress, manifest)
    return _run(
        spec,
        root,
        connection=ray_session(spec, root, paths.address, watch=watch, verbose=verbose),
        dataset=dataset,
        weights=weights,
        open_ledger=open_ledger,
        evaluate=evaluate,
        is_new=not options.continues,
    )


def train(
    plan: TrainPlan, *, load: bool = False, progress: Progress | None = None
) -> tuple[RunFolder, SweepResult, FundusDataset | None]:
    """Train networks in this process, evaluate the best by validation accuracy, and write the results to `plan.root`.

    The networks are the trials of a grid sweep; no Ray is used. All settings, paths and data are checked before the
    first network is trained and before anything is written.

    Args:
        plan: what to train.
        load: keep the networks that the folder contains and train only the missing ones. An unfinished network
            continues from the checkpoint of its best epoch so far; a failed network of the plan is trained again.
        progress: called with the progress of steps that take long.

    Returns:
        The results folder, in which a network that could not be trained is FAIL with its reason; how the sweep ended;
        and the dataset if it had to be prepared.

    Raises:
        RetinaError: the data, the weights or the results folder cannot be used.
    """
    root = plan.root
    if load and not root.exists():
        log.info("%s does not exist yet: it is created", root)
        load = False
    if load:
        train_plan.refuse_other_settings(plan)
        missing = train_plan.unfinished(RunFolder.open(root), plan)
    else:
        RunFolder.ensure_free(root, train_plan.GO_ON)
        missing = list(plan.configs)
    manifest = read_manifest(plan.data) if missing else None
    weights: dict[str, model.StateDict] = {
        config.arch: model.load_weights(config.arch, plan.weights) for config in missing if config.pretrained
    }
    spec = plan.spec()
    dataset = _LazyDataset(spec.data, progress, manifest)

    def open_ledger(spec: SweepSpec) -> tuple[SweepSpec, RunFolder, Ledger]:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return train_plan.open_ledger(plan, spec, dataset() if missing else None)

    def evaluate(folder: RunFolder, result: SweepResult, _: Call | None) -> None:
        if not folder.is_flushed:
            raise DiskError(f"{folder.root}: cannot be written to; make room and go on with --load 1")
        if result.best is not None and not train_plan.is_evaluated(folder, result.best):
            log.info("evaluating the best run, %s, on validation and test", result.best)
            train_plan.refuse_changed_photographs(folder, dataset())
            best_trial.evaluate_best_trial(folder, result.best, dataset(), TRAIN_METRIC)

    folder, result = _run(
        spec,
        root,
        connection=nullcontext(LocalSession(lambda config: run_title(config.arch, pretrained=config.pretrained))),
        dataset=dataset,
        weights=weights,
        open_ledger=open_ledger,
        evaluate=evaluate,
        is_new=not load,
        has_trials=bool(missing),
    )
    return folder, result, dataset.prepared


def _run(
    spec: SweepSpec,
    root: Path,
    *,
    connection: AbstractContextManager[Session],
    dataset: Callable[[], FundusDataset],
    weights: Mapping[str, model.StateDict],
    open_ledger: Callable[[SweepSpec], tuple[SweepSpec, RunFolder, Ledger]],
    evaluate: Evaluate,
    is_new: bool,
    has_trials: bool = True,
) -> tuple[RunFolder, SweepResult]:
    """Run a sweep whose settings have been checked, in the order that `run_sweep` and `train` share.

    Args:
        spec: the sweep.
        root: its results folder.
        connection: connects to the backend; entered before the photographs are decoded, which may take minutes, and
            left before the best trial is evaluated.
        dataset: returns the dataset; the first call prepares it.
        weights: pretrained weights by architecture.
        open_ledger: called with the spec while this process holds the folder's lock; returns the spec to run, the
            folder and the ledger.
        evaluate: evaluates the best trial; called unless the sweep was interrupted. Its third argument is, on a
            cluster, a function that calls another one on a node; None on a single machine.
        is_new: whether the results folder must be created.
        has_trials: whether trials are left to run; if not, the dataset is prepared only if `evaluate` needs it.
    """
    with ExitStack() as locks:
        with connection as backend:
            if has_trials:
                spec = _with_layout(spec, dataset())
                task: TrainingFactory = GradingTask(dataset(), weights, spec.track_test, backend.gpu_share)
                backend.prepare(root.parent if is_new else root, dataset())
            else:
                task = _no_trial
            if is_new:
                environment.create_run_folder(root, dataset(), spec.to_yaml())
            locks.enter_context(RunFolder(root).lock())
            spec, folder, ledger = open_ledger(spec)
            result = backend.run(spec, ledger, task)
            if not result.interrupted:
                process.raise_if_stop_requested()  # a signal may have arrived after the last trial ended
                if backend.call:
                    evaluate(folder, result, backend.call)
        if not result.interrupted and not backend.call:  # after the backend has freed its memory and GPUs
            evaluate(folder, result, None)
        folder.update_metadata(interrupted=result.interrupted, best=result.best)
        return folder, result


def prepare_spec(spec: SweepSpec, paths: SweepPaths, options: ResumeOptions) -> tuple[SweepSpec, ResumeOptions]:
    """Return the sweep as it would run, and the options that apply; check paths. Start and write nothing.

    The options are `ResumeOptions()` if the sweep to resume does not exist yet.

    Raises:
        RetinaError: the results folder exists or cannot be created; the folder to continue contains no sweep, or one
            that is running or has changed; or `paths.weights` does not exist.
    """
    root, spec = (paths.results / spec.name).absolute(), resolved(spec)
    if paths.weights is not None and not paths.weights.exists():
        raise WeightsError(f"--weights {paths.weights}: no such file or folder")
    if options.resume and not root.exists():
        log.info("%s does not exist yet: a new sweep begins", root)
        options = ResumeOptions()
    if options.continues:
        folder = RunFolder.open(root)
        folder.ensure_not_running()
        spec = resumed_spec(folder, spec, options.extend)
        # checked again once the photographs are known
        refuse_changed(folder, spec, extend=options.extend, force=options.force)
        return spec, options
    RunFolder.ensure_free(root)
    return spec, options


def _no_trial(config: TrialConfig) -> Training:
    """Raise: the ledger has a trial to run, although none was left when the sweep was checked."""
    raise ResultsError(f"another process has added {config.arch} to this sweep just now; give the command again")


class _LazyDataset:
    """A sweep's dataset, which the first call prepares.

    Attributes:
        prepared: the dataset; None before the first call.
    """

    def __init__(self, config: DataConfig, progress: Progress | None, manifest: Manifest | None) -> None:
        self._config, self._progress, self._manifest = config, progress, manifest
        self.prepared: FundusDataset | None = None

    def __call__(self) -> FundusDataset:
        """Return the dataset. The first call prepares it, and logs warnings and what is left out."""
        if self.prepared is None:
            self.prepared = prepare(self._config, self._progress, self._manifest)
            for warning in (*self.prepared.warnings, *self.prepared.manifest.left_out):
                log.warning("note: %s", warning)
        return self.prepared


def _evaluate_on_node(root: Path, trial_id: str, dataset: FundusDataset, metric: Metric) -> None:
    """Evaluate a sweep in another process, which reads the tables from the disk."""
    evaluate_sweep(RunFolder.open(root), trial_id, dataset, metric)


def _load_weights(spec: SweepSpec, source: Path | None) -> dict[str, model.StateDict]:
    """Return the pretrained weights by architecture; empty if no trial can use them."""
    if True not in spec.possible("pretrained"):
        return {}
    return {arch: model.load_weights(arch, source) for arch in spec.possible("arch")}


def resolved(spec: SweepSpec) -> SweepSpec:
    """Return `spec` with its number of trials and an absolute data path, so that sweep.yaml works from any folder."""
    path = spec.data.path
    if path != "synthetic":
        path = os.path.abspath(Path(path).expanduser())  # noqa: PTH100  # resolve() follows links
    data = spec.data.model_copy(update={"path": path})
    return spec.model_copy(update={"data": data, "trials": spec.planned_trials})


def _with_layout(spec: SweepSpec, dataset: FundusDataset) -> SweepSpec:
    """Return `spec` with the layout that was detected."""
    return spec.model_copy(update={"data": spec.data.model_copy(update={"layout": dataset.manifest.layout})})
