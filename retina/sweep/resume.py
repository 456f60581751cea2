"""Resumes a sweep: checks that it is still the same sweep, and applies the changes that the user allows."""

from __future__ import annotations

import difflib
import itertools
import logging
from pathlib import Path
from typing import Any

from retina.config.sweep import MAX_TRIALS, SweepSpec
from retina.data.dataset import FundusDataset
from retina.errors import ResultsError, SpecError
from retina.results import checksums, environment
from retina.results.files import write_text
from retina.results.run_folder import FINISHED, RunFolder
from retina.sweep.ledger import Ledger
from retina.sweep.limits import limit_reached

log = logging.getLogger(__name__)

WITHOUT_EXTENSION = "trials_without_extension"
"""Key of environment.json: the number of trials in the sweep file or the command, without those of `--extend`."""
SHOWN_CHANGES = 6


def resumed_spec(folder: RunFolder, spec: SweepSpec, extend: int) -> SweepSpec:
    """Return `spec` with its final number of trials, including those of earlier `--extend` and of this one.

    Raises:
        SpecError: a grid would be extended beyond its points, or a sweep beyond `MAX_TRIALS`.
    """
    before = folder.spec()
    is_unchanged = spec.planned_trials in {before.planned_trials, folder.metadata().get(WITHOUT_EXTENSION)}
    if is_unchanged:  # in the sweep file or the command
        spec = spec.model_copy(update={"trials": before.planned_trials})
    if not extend:
        return spec
    total = _total(folder, before, extend) if is_unchanged else spec.planned_trials + extend
    if total > MAX_TRIALS:
        raise SpecError(f"--extend {extend:,}: makes {total:,} trials; allowed: {MAX_TRIALS:,}")
    extended = spec.model_copy(update={"trials": total})
    if extended.planned_trials < total:
        raise SpecError(f"--extend {extend}: the grid has {extended.planned_trials} points; add values to it instead")
    return extended


def reopened(
    root: Path, spec: SweepSpec, photographs: FundusDataset, *, extend: int = 0, force: bool = False
) -> tuple[RunFolder, Ledger]:
    """Open the results folder and the ledger of a sweep that continues as `spec`.

    Args:
        root: the results folder.
        spec: the sweep, from `resumed_spec`.
        photographs: the dataset as it is now.
        extend: number of trials to add to the planned ones.
        force: continue even if the sweep file, the photographs or the code have changed.

    Raises:
        ResultsError: something has changed and `force` is False, or the metric or the image size has changed, which
            `force` does not allow. Names the first differences.
    """
    folder = RunFolder.open(root)
    before = folder.spec()
    _refuse_incomparable(root, before, spec)
    changes = _changes(folder, before, spec, photographs, extend)
    _refuse_changes(changes, force=force)
    notes = folder.metadata()
    limit = limit_reached(spec, folder, float(notes.get("seconds") or 0))
    if extend and limit:
        raise ResultsError(
            f"{root}: {limit} is reached, so no trial can be added;\n"
            f"raise it: --set {limit.partition('=')[0]}=... --extend {extend} --force"
        )
    for change in changes:
        log.warning("note: %s", change)
    again = {**environment.describe_environment(), "changes": changes, "extend": extend}
    same_trials = spec.planned_trials == _total(folder, before, extend)
    without_extension = (
        (notes.get(WITHOUT_EXTENSION) or before.planned_trials) if same_trials else spec.planned_trials - extend
    )
    folder.update_metadata(
        resumed=[*(notes.get("resumed") or []), again],
        data=photographs.summary(),
        code=again["code"],
        **{WITHOUT_EXTENSION: without_extension},
    )
    ledger = Ledger.open(spec, folder)
    _warn_of_damaged(folder)
    write_text(root / "sweep.yaml", spec.to_yaml())
    folder.update_metadata(ended_by=limit)
    return folder, ledger


def refuse_changed(folder: RunFolder, spec: SweepSpec, *, extend: int, force: bool) -> None:
    """Raise if a sweep cannot continue as `spec`, before its photographs are read.

    Args:
        folder: the results folder.
        spec: the sweep, from `resumed_spec`; the layout "auto" counts as the recorded one.
        extend: number of trials to add to the planned ones.
        force: continue even if the sweep file or the code has changed.

    Raises:
        ResultsError: as in `reopened`, except for the photographs.
    """
    before = folder.spec()
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
    """Raise if results of the recorded trials cannot be compared with those of new ones."""
    if before.metric.name != spec.metric.name:
        raise ResultsError(
            f"{root / 'sweep.yaml'}: metric.name was {before.metric.name}, now {spec.metric.name};\n"
            "each trial kept the weights of its best epoch by the old metric: begin a new sweep with another --name"
        )
    if before.data.image_size != spec.data.image_size:
        raise ResultsError(
            f"{root / 'sweep.yaml'}: data.image_size was {before.data.image_size}, now {spec.data.image_size};\n"
            "results at two image sizes cannot be compared: begin a new sweep with another --name"
        )


def _warn_of_damaged(folder: RunFolder) -> None:
    """Warn of kept weights that are damaged: the final evaluation may need them, hours from now."""
    for name in folder.trial_ids(*FINISHED):
        path = folder.trial(name)
        if (path / "model.pt").is_file():
            try:
                checksums.verify(path, ("model.pt", "config.json"), "its evaluation will be refused")
            except ResultsError as error:
                log.warning("note: %s", error)


def _changes(
    folder: RunFolder, before: SweepSpec, spec: SweepSpec, photographs: FundusDataset | None, extend: int
) -> list[str]:
    """Return a line for each change; empty if the sweep is the same. Photographs are compared if they are given."""
    changes = []
    notes = folder.metadata()
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
    code, then_code = environment.code_version(), notes.get("code")
    # the commit alone is not enough: it changes with every README, and not with uncommitted code
    if not isinstance(then_code, dict) or then_code.get("source") != code["source"]:
        changes.append(
            f"the code has changed since {folder.root} was begun (- {_version(then_code)}; + {_version(code)})"
        )
    return changes


def _total(folder: RunFolder, before: SweepSpec, extend: int) -> int:
    """Return the number of trials of a sweep to which `extend` are added and in which nothing else has changed."""
    if extend and folder.metadata().get("ended_by"):  # a limit ended it early: count from its trials
        return len(folder.trial_ids(*FINISHED)) + extend
    return before.planned_trials + extend


def _counts(summary: dict[str, Any]) -> str:
    if not summary.get("fingerprint") or not summary.get("photographs"):
        return "unknown"
    counts = ", ".join(f"{split} {counts['n']}" for split, counts in summary["photographs"].items())
    return f"{summary['fingerprint']}, {counts}"


def _version(code: object) -> str:
    if not isinstance(code, dict):
        return "unknown"
    version, commit, source = (code.get(key) or "unknown" for key in ("version", "git", "source"))
    return f"version {version}, commit {commit}, source {source}"
