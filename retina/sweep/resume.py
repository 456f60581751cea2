"""Going on with a sweep: whether it is still the same one, and what changes where the user says so."""

from __future__ import annotations

import difflib
import itertools
import logging
from pathlib import Path
from typing import Any

from retina.config.sweep import MAX_TRIALS, SweepSpec, load_recorded
from retina.data.dataset import FundusDataset
from retina.errors import ResultsError, SpecError
from retina.results import checksums, environment
from retina.results.files import write_text
from retina.results.readers import read_yaml
from retina.results.run_folder import FINISHED, SPEC_REMEDY, RunFolder
from retina.sweep.ledger import Ledger
from retina.sweep.limits import limit_reached

log = logging.getLogger(__name__)

WITHOUT_EXTENSION = "trials_without_extension"
"""The note of how many trials the sweep file, or the command, says; what `--extend` added comes on top of them."""
SHOWN_CHANGES = 6


def recorded_spec(folder: RunFolder) -> SweepSpec:
    """The sweep that a results folder is of.

    Raises:
        SpecError: its sweep.yaml cannot be used.
    """
    file = folder.root / "sweep.yaml"
    read_yaml(file, None, SPEC_REMEDY)  # as a file of ours: it may be a folder, or no text
    return load_recorded(file)


def resumed_spec(folder: RunFolder, spec: SweepSpec, extend: int) -> SweepSpec:
    """`spec` with the trials that the sweep is to have in the end: what earlier and this `--extend` added included.

    Raises:
        SpecError: a grid that is to be extended beyond its points, or a sweep beyond `MAX_TRIALS`.
    """
    before = recorded_spec(folder)
    as_before = spec.planned_trials in {before.planned_trials, folder.notes().get(WITHOUT_EXTENSION)}
    if as_before:  # the sweep file, or the command
        spec = spec.model_copy(update={"trials": before.planned_trials})
    if not extend:
        return spec
    total = _total(folder, before, extend) if as_before else spec.planned_trials + extend
    if total > MAX_TRIALS:
        raise SpecError(f"--extend {extend:,}: makes {total:,} trials; allowed: {MAX_TRIALS:,}")
    extended = spec.model_copy(update={"trials": total})
    if extended.planned_trials < total:
        raise SpecError(f"--extend {extend}: the grid has {extended.planned_trials} points; add values to it instead")
    return extended


def reopened(
    root: Path, spec: SweepSpec, photographs: FundusDataset, *, extend: int = 0, force: bool = False
) -> tuple[RunFolder, Ledger]:
    """The results folder and the ledger of a sweep that goes on as `spec` says.

    Args:
        root: the results folder.
        spec: as `resumed_spec` gave it.
        photographs: the data as they are now.
        extend: how many trials are added to those that were planned.
        force: go on although the sweep file, the photographs or the code have changed.

    Raises:
        ResultsError: something has changed, and `force` was not given; or the metric or the image size has, which no
            force helps. Names the first differences.
    """
    folder = RunFolder.open(root)
    before = recorded_spec(folder)
    _refuse_incomparable(root, before, spec)
    changes = _changes(folder, before, spec, photographs, extend)
    _refuse_changes(changes, force=force)
    notes = folder.notes()
    limit = limit_reached(spec, folder, float(notes.get("seconds") or 0))
    if extend and limit:
        raise ResultsError(
            f"{root}: {limit} is reached, so no trial can be added;\n"
            f"raise it: --set {limit.partition('=')[0]}=... --extend {extend} --force"
        )
    for change in changes:
        log.warning("note: %s", change)
    again = {**environment.environment(), "changes": changes, "extend": extend}
    same_trials = spec.planned_trials == _total(folder, before, extend)
    said = (notes.get(WITHOUT_EXTENSION) or before.planned_trials) if same_trials else spec.planned_trials - extend
    folder.note(
        resumed=[*(notes.get("resumed") or []), again],
        data=photographs.summary(),
        code=again["code"],
        **{WITHOUT_EXTENSION: said},
    )
    ledger = Ledger.open(spec, folder)
    _tell_damaged(folder)
    write_text(root / "sweep.yaml", spec.to_yaml())
    folder.note(ended_by=limit)
    return folder, ledger


def refuse_changed(folder: RunFolder, spec: SweepSpec, *, extend: int, force: bool) -> None:
    """Stop where a sweep cannot go on as `spec` says, as `reopened` does, before its photographs are looked at.

    Args:
        folder: the results folder.
        spec: as `resumed_spec` gave it; a layout that is to be found is taken for the recorded one.
        extend: how many trials are added to those that were planned.
        force: go on although the sweep file or the code have changed.

    Raises:
        ResultsError: as `reopened`, but for the photographs.
    """
    before = recorded_spec(folder)
    if spec.data.layout == "auto":
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"layout": before.data.layout})})
    _refuse_incomparable(folder.root, before, spec)
    _refuse_changes(_changes(folder, before, spec, None, extend), force=force)


def _refuse_changes(changes: list[str], *, force: bool) -> None:
    if changes and not force:
        raise ResultsError(
            "\n".join([*itertools.islice(changes, 2), "begin a new sweep with another --name, or go on with --force"])
        )


def _refuse_incomparable(root: Path, before: SweepSpec, spec: SweepSpec) -> None:
    """Stop where what the trials before have reached says nothing about those to come."""
    if before.metric.name != spec.metric.name:
        raise ResultsError(
            f"{root / 'sweep.yaml'}: metric.name was {before.metric.name}, now {spec.metric.name};\n"
            "each trial kept the weights of its best epoch by the former: begin a new sweep with another --name"
        )
    if before.data.image_size != spec.data.image_size:
        raise ResultsError(
            f"{root / 'sweep.yaml'}: data.image_size was {before.data.image_size}, now {spec.data.image_size};\n"
            "what trials reached at two sizes cannot be compared: begin a new sweep with another --name"
        )


def _tell_damaged(folder: RunFolder) -> None:
    """Say which kept weights are damaged: they may be needed in the end, and hours may pass until then."""
    for name in folder.trial_ids(*FINISHED):
        place = folder.trial(name)
        if (place / "model.pt").is_file():
            try:
                checksums.verify(place, ("model.pt", "config.json"), "its evaluation will be refused")
            except ResultsError as error:
                log.warning("note: %s", error)


def _changes(
    folder: RunFolder, before: SweepSpec, spec: SweepSpec, photographs: FundusDataset | None, extend: int
) -> list[str]:
    """What is not as it was, a line each; empty where the sweep is the same. Photographs are compared if given."""
    changes = []
    notes = folder.notes()
    if spec.planned_trials == _total(folder, before, extend):
        spec = spec.model_copy(update={"trials": before.trials})
    then, now = before.to_yaml().splitlines(), spec.to_yaml().splitlines()
    if then != now:
        differing = [line for line in difflib.ndiff(then, now) if line.startswith(("- ", "+ "))]
        shown = "; ".join(" ".join(line.split()) for line in differing[:SHOWN_CHANGES])
        more = f"; and {len(differing) - SHOWN_CHANGES} more" if len(differing) > SHOWN_CHANGES else ""
        file = folder.root / "sweep.yaml"
        changes.append(f"{file}: is not the sweep that is to be resumed (- then, + now): {shown}{more}")
    data = notes.get("data") or {}
    if photographs and data.get("fingerprint") != photographs.fingerprint:
        then_and_now = f"- {_counts(data)}; + {_counts(photographs.summary())}"
        changes.append(
            f"{spec.data.path}: photographs, grades or splits have changed since {folder.root} began ({then_and_now})"
        )
    code, then_code = environment.code(), notes.get("code")
    # the commit alone says little: it changes with every README, and does not with what is not committed
    if not isinstance(then_code, dict) or then_code.get("source") != code["source"]:
        changes.append(f"the code has changed since {folder.root} was begun (- {_told(then_code)}; + {_told(code)})")
    return changes


def _total(folder: RunFolder, before: SweepSpec, extend: int) -> int:
    """The trials of a sweep to which `extend` are added and nothing else is changed."""
    if extend and folder.notes().get("ended_by"):  # a limit ended it early: N more are N more than it has
        return len(folder.trial_ids(*FINISHED)) + extend
    return before.planned_trials + extend


def _counts(summary: dict[str, Any]) -> str:
    if not summary.get("fingerprint") or not summary.get("photographs"):
        return "unknown"
    counts = ", ".join(f"{split} {told['n']}" for split, told in summary["photographs"].items())
    return f"{summary['fingerprint']}, {counts}"


def _told(code: object) -> str:
    if not isinstance(code, dict):
        return "unknown"
    version, commit, source = (code.get(key) or "unknown" for key in ("version", "git", "source"))
    return f"version {version}, commit {commit}, source {source}"
