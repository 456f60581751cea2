"""Going on with a sweep: whether it is still the same one, and what changes where the user says so."""

from __future__ import annotations

import difflib
import itertools
import logging
from pathlib import Path
from typing import Any

import yaml

from retina import provenance
from retina.config import parse
from retina.data.photographs import Photographs
from retina.errors import ResultsError, SpecError
from retina.results import FINISHED, RunFolder, write_text
from retina.sweep.ledger import Ledger, limit_reached
from retina.sweep.spec import SweepSpec

log = logging.getLogger(__name__)

SHOWN_CHANGES = 6
SHAPES_THE_STUDY = ("parameters", "method", "seed")
"""Keys whose change needs a new study, which is told of the trials so far."""


def recorded_spec(folder: RunFolder) -> SweepSpec:
    """The sweep that a results folder is of.

    Raises:
        SpecError: its sweep.yaml cannot be used.
    """
    file = folder.root / "sweep.yaml"
    return parse(SweepSpec, yaml.safe_load(file.read_text(encoding="utf-8")), str(file))


def resumed_spec(folder: RunFolder, spec: SweepSpec, extend: int) -> SweepSpec:
    """`spec` with the trials that the sweep is to have in the end: what earlier and this `--extend` added included.

    Raises:
        SpecError: a grid that is to be extended beyond its points.
    """
    before = recorded_spec(folder)
    added = int(folder.notes().get("extended", 0))
    if before.planned_trials == spec.planned_trials + added:  # the sweep file, or the command, is as it was
        spec = spec.model_copy(update={"trials": before.planned_trials})
    if not extend:
        return spec
    finished, planned = len(folder.trial_ids(*FINISHED)), spec.planned_trials
    # a limit may have ended it early: N more are N more than it has
    total = (finished if folder.notes().get("ended_by") else planned) + extend
    extended = spec.model_copy(update={"trials": total})
    if extended.planned_trials < total:
        raise SpecError(f"--extend {extend}: the grid has {extended.planned_trials} points; add values to it instead")
    return extended


def reopened(
    root: Path, spec: SweepSpec, photographs: Photographs, *, extend: int = 0, force: bool = False
) -> tuple[RunFolder, Ledger]:
    """The results folder and the ledger of a sweep that goes on as `spec` says.

    Args:
        root: the results folder.
        spec: as `resumed_spec` gave it.
        photographs: the data as they are now.
        extend: how many trials are added to those that were planned.
        force: go on although the sweep file, the photographs or the code have changed.

    Raises:
        ResultsError: something has changed, and `force` was not given; or the metric has, which no force helps. Names
            the first differences.
    """
    folder = RunFolder.open(root)
    before = recorded_spec(folder)
    if before.metric.name != spec.metric.name:
        raise ResultsError(
            f"{root / 'sweep.yaml'}: metric.name was {before.metric.name}, now {spec.metric.name};\n"
            "each trial kept the weights of its best epoch by the former: begin a new sweep with another --name"
        )
    changes = _changes(folder, before, spec, photographs, extend)
    if changes and not force:
        raise ResultsError(
            "\n".join([*itertools.islice(changes, 2), "begin a new sweep with another --name, or go on with --force"])
        )
    for change in changes:
        log.warning("note: %s", change)
    if extend and (limit := limit_reached(spec, folder, float(folder.notes().get("seconds", 0)))):
        raise ResultsError(
            f"{root}: {limit} is reached, so no trial can be added;\n"
            f"raise it: --set {limit.partition('=')[0]}=... --extend {extend} --force"
        )
    for change in changes:
        log.warning("note: %s", change)
    notes = folder.notes()
    again = {**provenance.environment(), "changes": changes, "extend": extend}
    folder.note(resumed=[*notes.get("resumed", []), again], data=photographs.summary(), code=again["code"])
    if any(getattr(before, key) != getattr(spec, key) for key in SHAPES_THE_STUDY):
        ledger = Ledger.create(spec, folder)
    else:
        ledger = Ledger.open(spec, folder)
    if extend:
        added = int(notes.get("extended", 0)) + spec.planned_trials - before.planned_trials
        folder.note(extended=added, ended_by="")
    write_text(root / "sweep.yaml", spec.to_yaml())
    return folder, ledger


def _changes(folder: RunFolder, before: SweepSpec, spec: SweepSpec, photographs: Photographs, extend: int) -> list[str]:
    """What is not as it was, a line each; empty where the sweep is the same."""
    changes = []
    notes = folder.notes()
    same_trials = spec.model_copy(update={"trials": before.trials}) if extend else spec
    then, now = before.to_yaml().splitlines(), same_trials.to_yaml().splitlines()
    if then != now:
        differing = [line for line in difflib.ndiff(then, now) if line.startswith(("- ", "+ "))]
        shown = "; ".join(" ".join(line.split()) for line in differing[:SHOWN_CHANGES])
        more = f"; and {len(differing) - SHOWN_CHANGES} more" if len(differing) > SHOWN_CHANGES else ""
        file = folder.root / "sweep.yaml"
        changes.append(f"{file}: is not the sweep that is to be resumed (- then, + now): {shown}{more}")
    fingerprint = notes["data"]["fingerprint"]
    if fingerprint != photographs.fingerprint:
        then_and_now = f"- {_counts(notes['data'])}; + {_counts(photographs.summary())}"
        changes.append(
            f"{spec.data.path}: photographs, grades or splits have changed since {folder.root} began ({then_and_now})"
        )
    code = provenance.code()
    if notes.get("code") != code:
        changes.append(
            f"the code has changed since {folder.root} was begun (- {_told(notes.get('code'))}; + {_told(code)})"
        )
    return changes


def _counts(summary: dict[str, Any]) -> str:
    counts = ", ".join(f"{split} {told['n']}" for split, told in summary["photographs"].items())
    return f"{summary['fingerprint']}, {counts}"


def _told(code: object) -> str:
    if not isinstance(code, dict):
        return "unknown"
    return f"version {code['version']}, commit {code['git'] or 'unknown'}, source {code['source']}"
