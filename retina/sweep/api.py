"""A whole sweep, from its checked settings to its best model: data, weights, trials, the best model's evaluation.

Imports no Ray: `run_sweep` does when it is called, `train` never.
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
from retina.data.dataset import FundusDataset, Progress, prepare, read_manifest
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
from retina.sweep.train_plan import METRIC, TrainPlan
from retina.system import process
from retina.training import model
from retina.training.epochs import Training
from retina.training.trainer import GradingTask

if TYPE_CHECKING:
    from retina.sweep.status_reporter import Watch

log = logging.getLogger(__name__)

Evaluate = Callable[[RunFolder, SweepResult, Call | None], None]


@dataclass(frozen=True)
class SweepPaths:
    """Where a sweep runs and writes: the folder that holds all sweeps, pretrained weights, the Ray cluster."""

    results: Path
    weights: Path | None = None
    address: str | None = None


@dataclass(frozen=True)
class ResumeOptions:
    """How a sweep that is there already goes on.

    Attributes:
        resume: with what is left of it.
        extend: with so many trials more.
        force: although the sweep file, the photographs or the code have changed.
    """

    resume: bool = False
    extend: int = 0
    force: bool = False

    @property
    def on(self) -> bool:
        """Whether it goes on at all, and does not begin."""
        return self.resume or self.extend > 0


def run_sweep(
    spec: SweepSpec,
    place: SweepPaths,
    going: ResumeOptions = ResumeOptions(),
    *,
    verbose: bool = False,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> tuple[RunFolder, SweepResult]:
    """Run a sweep, evaluate the best model, and write it all to `place.results/<name>/`.

    Everything that a user may have got wrong is found before the first trial starts and before anything is written.

    Raises:
        RetinaError: the data, the weights, the results folder, its disk or the cluster are not what they must be.
    """
    from retina.sweep.ray_session import ray_session  # noqa: PLC0415  # `train` does without Ray

    root = (place.results / spec.name).absolute()
    asked = resolved(spec)
    spec, going = prepare_spec(spec, place, going)
    found = read_manifest(spec.data)
    weights = _weights(spec, place.weights)

    def open_ledger(spec: SweepSpec) -> tuple[SweepSpec, RunFolder, Ledger]:
        if not going.on:
            folder = RunFolder.open(root)
            return spec, folder, Ledger.create(spec, folder)
        # once more: another process may have run it until now
        spec = _with_layout(resumed_spec(RunFolder.open(root), asked, going.extend), photographs())
        return spec, *reopened(root, spec, photographs(), extend=going.extend, force=going.force)

    def evaluate(folder: RunFolder, result: SweepResult, call: Call | None) -> None:
        if result.best is None:
            return
        if call is None:
            evaluate_sweep(folder, result.best, photographs(), spec.metric)
        else:
            call(partial(_evaluate_on_node, folder.root, result.best, photographs(), spec.metric))

    photographs = _Photographs(spec.data, progress, found)
    return _run(
        spec,
        root,
        connection=ray_session(spec, root, place.address, watch=watch, verbose=verbose),
        photographs=photographs,
        weights=weights,
        open_ledger=open_ledger,
        evaluate=evaluate,
        is_new=not going.on,
    )


def train(
    plan: TrainPlan, *, load: bool = False, progress: Progress | None = None
) -> tuple[RunFolder, SweepResult, FundusDataset | None]:
    """Train networks in this process, evaluate the best by validation accuracy, and write it all to `plan.root`.

    The networks are the trials of a grid sweep; no Ray is used. Every mistake of the user's is found before a network
    is trained or anything is written.

    Args:
        plan: what to train.
        load: keep what the folder holds and train only what it lacks. An unfinished network continues from the
            checkpoint of its best epoch so far; one of the plan that failed is trained again.
        progress: called with the progress of what takes long.

    Returns:
        The folder, in which a network that could not be trained is FAIL with its reason; how the sweep ended; and the
        dataset if it had to be prepared.

    Raises:
        RetinaError: the data, the weights or the results folder cannot be used.
    """
    root = plan.root
    if load and not root.exists():
        log.info("%s is not there yet: it begins", root)
        load = False
    if load:
        train_plan.refuse_other_settings(plan)
        missing = train_plan.unfinished(RunFolder.open(root), plan)
    else:
        RunFolder.ensure_free(root, train_plan.GO_ON)
        missing = list(plan.configs)
    found = read_manifest(plan.data) if missing else None
    weights: dict[str, model.StateDict] = {
        config.arch: model.load_weights(config.arch, plan.weights) for config in missing if config.pretrained
    }
    spec = plan.spec()
    photographs = _Photographs(spec.data, progress, found)

    def open_ledger(spec: SweepSpec) -> tuple[SweepSpec, RunFolder, Ledger]:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return train_plan.open_ledger(plan, spec, photographs() if missing else None)

    def evaluate(folder: RunFolder, result: SweepResult, _: Call | None) -> None:
        if not folder.is_flushed:
            raise DiskError(f"{folder.root}: cannot be written to; make room and go on with --load 1")
        if result.best is not None and not train_plan.is_evaluated(folder, result.best):
            log.info("evaluating the best run, %s, on validation and test", result.best)
            train_plan.refuse_changed_photographs(folder, photographs())
            best_trial.evaluate_best_trial(folder, result.best, photographs(), METRIC)

    folder, result = _run(
        spec,
        root,
        connection=nullcontext(LocalSession(lambda config: run_title(config.arch, pretrained=config.pretrained))),
        photographs=photographs,
        weights=weights,
        open_ledger=open_ledger,
        evaluate=evaluate,
        is_new=not load,
        has_trials=bool(missing),
    )
    return folder, result, photographs.prepared


def _run(
    spec: SweepSpec,
    root: Path,
    *,
    connection: AbstractContextManager[Session],
    photographs: Callable[[], FundusDataset],
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
        photographs: prepares the dataset, once.
        weights: pretrained weights by architecture.
        open_ledger: called with the spec while no other process may run the sweep; returns the spec to run.
        evaluate: evaluates the best trial; called unless the sweep was interrupted. On a cluster it gets a function
            that runs another one on a node.
        is_new: whether the results folder is to be made.
        has_trials: whether trials are left to run; if not, the dataset is prepared only if `evaluate` needs it.
    """
    with ExitStack() as held:
        with connection as backend:
            if has_trials:
                spec = _with_layout(spec, photographs())
                task: TrainingFactory = GradingTask(photographs(), weights, spec.track_test, backend.gpu_share)
                backend.prepare(root.parent if is_new else root, photographs())
            else:
                task = _no_trial
            if is_new:
                environment.create_run_folder(root, photographs(), spec.to_yaml())
            held.enter_context(RunFolder(root).lock())
            spec, folder, ledger = open_ledger(spec)
            result = backend.run(spec, ledger, task)
            if not result.interrupted:
                process.raise_if_stop_requested()  # the signal may have come when the last trial had just ended
                if backend.is_cluster:
                    evaluate(folder, result, backend.call)
        if not result.interrupted and not backend.is_cluster:  # after the backend has freed its memory and GPUs
            evaluate(folder, result, None)
        folder.update_metadata(interrupted=result.interrupted, best=result.best)
        return folder, result


def prepare_spec(spec: SweepSpec, place: SweepPaths, going: ResumeOptions) -> tuple[SweepSpec, ResumeOptions]:
    """Return the sweep as it would run in `place`, and how it goes on. Starts and writes nothing.

    Raises:
        RetinaError: the results folder is taken, is none of a sweep that is to go on, or cannot be made; no weights.
    """
    root, spec = (place.results / spec.name).absolute(), resolved(spec)
    if place.weights is not None and not place.weights.exists():
        raise WeightsError(f"--weights {place.weights}: no such file or folder")
    if going.resume and not root.exists():
        log.info("%s is not there yet: the sweep begins", root)
        going = ResumeOptions()
    if going.on:
        folder = RunFolder.open(root)
        folder.ensure_not_running()
        spec = resumed_spec(folder, spec, going.extend)
        refuse_changed(folder, spec, extend=going.extend, force=going.force)  # once more when the photographs are known
        return spec, going
    RunFolder.ensure_free(root)
    return spec, going


def _no_trial(config: TrialConfig) -> Training:
    raise ResultsError(f"another process has added {config.arch} to this sweep just now; give the command again")


class _Photographs:
    """The dataset of a sweep, prepared when it is first needed.

    Attributes:
        prepared: the dataset; None before the first call.
    """

    def __init__(self, config: DataConfig, progress: Progress | None, manifest: Manifest | None) -> None:
        self._config, self._progress, self._manifest = config, progress, manifest
        self.prepared: FundusDataset | None = None

    def __call__(self) -> FundusDataset:
        """Return the dataset; prepare it first, and log what is left out of it, if that has not been done."""
        if self.prepared is None:
            self.prepared = prepare(self._config, self._progress, self._manifest)
            for warning in (*self.prepared.warnings, *self.prepared.manifest.left_out):
                log.warning("note: %s", warning)
        return self.prepared


def _evaluate_on_node(root: Path, trial_id: str, photographs: FundusDataset, metric: Metric) -> None:
    """Evaluate a sweep in another process, which reads the tables from the disk."""
    evaluate_sweep(RunFolder.open(root), trial_id, photographs, metric)


def _weights(spec: SweepSpec, source: Path | None) -> dict[str, model.StateDict]:
    """Pretrained weights for each architecture that a trial may want them for."""
    if True not in spec.possible("pretrained"):
        return {}
    return {arch: model.load_weights(arch, source) for arch in spec.possible("arch")}


def resolved(spec: SweepSpec) -> SweepSpec:
    """With the number of trials and the absolute path of the data, so that sweep.yaml can be used from anywhere."""
    path = spec.data.path
    if path != "synthetic":
        path = os.path.abspath(Path(path).expanduser())  # noqa: PTH100  # resolve() would follow links
    data = spec.data.model_copy(update={"path": path})
    return spec.model_copy(update={"data": data, "trials": spec.planned_trials})


def _with_layout(spec: SweepSpec, photographs: FundusDataset) -> SweepSpec:
    return spec.model_copy(update={"data": spec.data.model_copy(update={"layout": photographs.manifest.layout})})
