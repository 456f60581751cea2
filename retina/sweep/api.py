"""A whole sweep from its checked file to its winner: data, weights, Ray, trials, the best model's evaluation."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retina.config.sweep import Metric, SweepSpec
from retina.data.dataset import FundusDataset, Progress, prepare, read_manifest
from retina.errors import WeightsError
from retina.evaluation.sweep_evaluation import evaluate_sweep
from retina.results import environment
from retina.results.run_folder import RunFolder
from retina.sweep.cluster import connected, is_cluster, slots, trial_resources, try_workers
from retina.sweep.dry_run import refuse_full_disk
from retina.sweep.evaluation_task import run_on_node
from retina.sweep.ledger import Ledger
from retina.sweep.nodes import Nodes
from retina.sweep.ray_backend import SweepResult, run, silence_libraries
from retina.sweep.resume import refuse_changed, reopened, resumed_spec
from retina.sweep.status_reporter import Watch
from retina.system import process
from retina.training import model
from retina.training.trainer import GradingTask

log = logging.getLogger(__name__)


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
    root = (place.results / spec.name).absolute()
    asked = resolved(spec)
    spec, going = to_run(spec, place, going)
    found = read_manifest(spec.data)
    weights = _weights(spec, place.weights)
    with ExitStack() as held:
        with connected(place.address, spec.name, verbose=verbose) as guard:  # before minutes are spent on decoding
            share = trial_resources(spec.resources)
            refuse_full_disk(spec, root, slots(share))
            try_workers(guard, share)
            photographs = prepare(spec.data, progress, found)
            spec = _with_layout(spec, photographs)
            for warning in (*photographs.warnings, *photographs.manifest.left_out):
                log.warning("note: %s", warning)
            task = GradingTask(photographs, weights, spec.track_test, share.gpu or 1.0)
            if guard:
                guard.check()
            nodes = Nodes(share, photographs)
            nodes.check(root if going.on else root.parent)
            folder = (
                RunFolder.open(root) if going.on else environment.create_run_folder(root, photographs, spec.to_yaml())
            )
            held.enter_context(folder.lock())
            if going.on:  # once more: another process may have run it until now
                spec = _with_layout(resumed_spec(RunFolder.open(root), asked, going.extend), photographs)
            folder, ledger = _ledger(spec, folder, photographs, going, verbose=verbose)
            outcome = run(spec, ledger, task, share, nodes=nodes, verbose=verbose, watch=watch, guard=guard)
            if not outcome.interrupted:
                process.raise_if_stop_requested()  # the signal came when the last trial had just ended
            best = None if outcome.interrupted else outcome.best
            if best and is_cluster(guard):
                evaluation = partial(_evaluate, folder.root, best, photographs, spec.metric)
                run_on_node(evaluation, share, nodes.checked(), guard)
        if best and not is_cluster(guard):  # after Ray has ended, whose workers hold memory and GPUs
            evaluate_sweep(folder, best, photographs, spec.metric)
        folder.update_metadata(interrupted=outcome.interrupted, best=outcome.best)
        return folder, outcome


def to_run(spec: SweepSpec, place: SweepPaths, going: ResumeOptions) -> tuple[SweepSpec, ResumeOptions]:
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


def _ledger(
    spec: SweepSpec, folder: RunFolder, photographs: FundusDataset, going: ResumeOptions, *, verbose: bool
) -> tuple[RunFolder, Ledger]:
    """The ledger of a sweep that begins or goes on, while no other process may run it."""
    silence_libraries(verbose)
    if going.on:
        return reopened(folder.root, spec, photographs, extend=going.extend, force=going.force)
    return folder, Ledger.create(spec, folder)


def _evaluate(root: Path, trial_id: str, photographs: FundusDataset, metric: Metric) -> None:
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
