"""What a sweep's files can give back of each other when one of them was lost, and what killed processes have left."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NoReturn

from retina.config import TrialConfig, parse
from retina.errors import ResultsError, SpecError
from retina.results import readers
from retina.results.run_folder import TRIALS_REMEDY, RunFolder
from retina.sweep.study import SweepStudy, trial_number
from retina.sweep.study_file import STUDY_FILE
from retina.system import temporary_files

log = logging.getLogger(__name__)


def remove_partials(folder: RunFolder) -> None:
    """Remove what killed processes have left half-written in a results folder; Ray's own `tune/` is left alone."""
    removed = temporary_files.remove_partials(folder.root, "tune")
    if removed:
        names = ", ".join(str(path.relative_to(folder.root)) for path in removed[:3])
        more = f" and {len(removed) - 3} more" if len(removed) > 3 else ""
        log.info("removed what a killed process had left half-written: %s%s", names, more)


def recorded_configs(folder: RunFolder, metric: str) -> dict[str, TrialConfig]:
    """The configurations of all trials in the tables, by their ids.

    Raises:
        ResultsError: a row is no trial of a sweep, or lacks a setting or, though it is COMPLETE, its `metric`.
    """
    for name in folder.trial_ids():
        try:
            trial_number(name)
        except ResultsError as error:
            raise ResultsError(f"{folder.root / 'trials.csv'}: trial_id: {error}") from None
    for name in folder.trial_ids("COMPLETE"):
        if folder.trial_row(name).get(metric) is None:
            readers.raise_results_error(
                folder.root / "trials.csv", f"{name}: {metric}: should not be empty", TRIALS_REMEDY
            )
    return folder.configs()


def recorded_config(folder: RunFolder, name: str) -> TrialConfig | None:
    """What a trial's config.json says; None where it is not there or damaged."""
    try:
        values = readers.read_json(folder.trial(name) / "config.json")
        return None if values is None else parse(TrialConfig, values, name)
    except (ResultsError, SpecError):
        return None


def study_with_trials(database: Path) -> str | None:
    """The last study that has trials; None where none has."""
    return next((name for name in reversed(SweepStudy.names(database, with_trials=True))), None)


def refuse_lost_settings(folder: RunFolder, name: str) -> NoReturn:
    """Stop where the study knows a trial whose settings nothing knows any more: its name must not be given to another.

    Raises:
        ResultsError: always.
    """
    raise ResultsError(
        f"{folder.root / 'trials.csv'}: lacks {name}, whose settings {STUDY_FILE} has for another space only;\n"
        f"put a copy of it, or of {folder.trial(name) / 'config.json'}, back; or go on without a changed space"
    )


def refuse_lost_tables(folder: RunFolder, problem: str) -> None:
    """Stop where trials were trained that neither the tables nor the study know.

    Raises:
        ResultsError: naming one.
    """
    known = set(folder.trial_ids())
    begun = (path.parent.name for path in sorted((folder.root / "trials").glob("t*/config.json")))
    lost = [name for name in begun if name not in known]
    if lost and (problem or not known):
        file = folder.root / STUDY_FILE
        raise ResultsError(
            f"{folder.root / 'trials.csv'}: lacks {lost[0]}, whose folder is in trials/, and {file.name} "
            f"{problem or 'does not know it'};\nput a copy of one of the two back"
        )
