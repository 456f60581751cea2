"""A whole sweep from its checked file to its winner: data, weights, Ray, trials, the best model's evaluation."""

from __future__ import annotations

import difflib
import itertools
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from retina import model, provenance, winner
from retina.config import TrialConfig, parse
from retina.data.photographs import Photographs, Progress, find, prepare, skipped_rows
from retina.errors import ResultsError
from retina.results import RunFolder, write_csv, write_text
from retina.sweep.cluster import connected, share_of_a_trial
from retina.sweep.run import Outcome, run
from retina.sweep.spec import SweepSpec
from retina.train import GradingTask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a sweep runs and writes: the folder that holds all sweeps, pretrained weights, the Ray cluster."""

    results: Path
    weights: Path | None = None
    address: str | None = None


def sweep(
    spec: SweepSpec, place: Place, *, resume: bool = False, verbose: bool = False, progress: Progress | None = None
) -> tuple[RunFolder, Outcome]:
    """Run a sweep, evaluate the best model, and write it all to `place.results/<name>/`.

    Everything that a user may have got wrong is found before the first trial starts and before anything is written.

    Raises:
        RetinaError: the data, the weights, the results folder or the cluster are not what they must be.
    """
    root = (place.results / spec.name).absolute()
    if resume:
        RunFolder.open(root)
    else:
        RunFolder.refuse_taken(root)
    spec = _resolved(spec)
    found = find(spec.data)
    weights = _weights(spec, place.weights)
    photographs = prepare(spec.data, progress, found)
    spec = _with_layout(spec, photographs)
    for warning in photographs.warnings:
        log.warning("note: %s", warning)
    task = GradingTask(photographs, weights, spec.track_test)
    started = time.monotonic()
    with connected(place.address, spec.name, verbose=verbose):
        share = share_of_a_trial(spec.resources)
        folder = _reopened(root, spec, photographs) if resume else _created(root, spec, photographs)
        outcome = run(spec, folder, task, share, resume=resume, verbose=verbose)
    folder = RunFolder.open(root)
    if outcome.best and not outcome.interrupted:
        log.info("evaluating the best trial, %s, on validation and test", outcome.best)
        winner.crown(folder, outcome.best, photographs, spec.metric.name)
    seconds = folder.notes().get("seconds", 0) + time.monotonic() - started
    folder.note(seconds=round(seconds, 1), interrupted=outcome.interrupted, best=outcome.best)
    return folder, outcome


def _weights(spec: SweepSpec, source: Path | None) -> dict[str, model.StateDict]:
    """Pretrained weights for each architecture that a trial may want them for."""
    if True not in _possible(spec, "pretrained"):
        return {}
    return {arch: model.load_weights(arch, source) for arch in _possible(spec, "arch")}


def _possible(spec: SweepSpec, name: str) -> list[Any]:
    """The values that a trial may have for a setting that is no range: the searched ones, or the default without."""
    default = getattr(TrialConfig(), name)
    parameter = spec.parameters.get(name)
    if parameter is None:
        return [default]
    return parameter.choices() if not parameter.when else list({*parameter.choices(), default})


def _resolved(spec: SweepSpec) -> SweepSpec:
    """With the number of trials and the absolute path of the data, so that sweep.yaml can be used from anywhere."""
    path = spec.data.path
    if path != "synthetic":
        path = os.path.abspath(Path(path).expanduser())  # noqa: PTH100  # resolve() would follow links
    data = spec.data.model_copy(update={"path": path})
    return spec.model_copy(update={"data": data, "trials": spec.planned_trials})


def _with_layout(spec: SweepSpec, photographs: Photographs) -> SweepSpec:
    return spec.model_copy(update={"data": spec.data.model_copy(update={"layout": photographs.manifest.layout})})


def _created(root: Path, spec: SweepSpec, photographs: Photographs) -> RunFolder:
    folder = RunFolder.create(root)
    folder.note(**provenance.environment(), data=photographs.summary())
    skipped = skipped_rows(photographs)
    if skipped:
        write_csv(root / "skipped.csv", skipped, ["where", "image", "problem"])
    write_text(root / "sweep.yaml", spec.to_yaml())  # last: a folder with it is a sweep's
    folder.flush()
    return folder


def _reopened(root: Path, spec: SweepSpec, photographs: Photographs) -> RunFolder:
    """The interrupted sweep's folder, if it is still the same sweep.

    Raises:
        ResultsError: there is none, or the sweep file or the photographs have changed; names the first differences.
    """
    folder = RunFolder.open(root)
    file = root / "sweep.yaml"
    before = parse(SweepSpec, yaml.safe_load(file.read_text(encoding="utf-8")), str(file)).to_yaml()
    if before != spec.to_yaml():
        changes = [
            line
            for line in difflib.ndiff(before.splitlines(), spec.to_yaml().splitlines())
            if line.startswith(("- ", "+ "))
        ]
        shown = "; ".join(itertools.islice((" ".join(line.split()) for line in changes), 4))
        raise ResultsError(f"{file}: is not the sweep that is to be resumed (- then, + now): {shown}")
    fingerprint = folder.notes()["data"]["fingerprint"]
    if fingerprint != photographs.fingerprint:
        raise ResultsError(
            f"{spec.data.path}: photographs, grades or splits have changed since {root} was begun\n"
            f"(fingerprint then {fingerprint}, now {photographs.fingerprint}); begin a new sweep with another --name"
        )
    return folder
