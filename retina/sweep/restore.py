"""Restores what a sweep has lost from its other files, and removes what killed processes have left."""

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
    """Remove incomplete files that killed processes have left in a results folder, except in Ray's own `tune/`."""
    removed = temporary_files.remove_partials(folder.root, "tune")
    if removed:
        names = ", ".join(str(path.relative_to(folder.root)) for path in removed[:3])
        more = f" and {len(removed) - 3} more" if len(removed) > 3 else ""
        log.info("removed incomplete files of a killed process: %s%s", names, more)


def recorded_configs(folder: RunFolder, metric: str) -> dict[str, TrialConfig]:
    """Return the configurations of all trials in the tables, by id.

    Raises:
        ResultsError: a row is not a trial of a sweep, lacks a setting, or is COMPLETE but lacks `metric`.
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
    """Return the configuration in a trial's config.json; None if the file is missing or damaged."""
    try:
        values = readers.read_json(folder.trial(name) / "config.json")
        return None if values is None else parse(TrialConfig, values, name)
    except (ResultsError, SpecError):
        return None


def study_with_trials(database: Path) -> str | None:
    """Return the name of the newest study that has trials; None if no study has."""
    return next((name for name in reversed(SweepStudy.names(database, with_trials=True))), None)


def refuse_lost_settings(folder: RunFolder, name: str) -> NoReturn:
    """Raise because a trial of the study has no known settings; its id must not be given to another trial.

    Raises:
        ResultsError: always.
    """
    raise ResultsError(
        f"{folder.root / 'trials.csv'}: lacks {name}, whose settings {STUDY_FILE} has for another space only;\n"
        f"put a copy of it, or of {folder.trial(name) / 'config.json'}, back; or go on without a changed space"
    )


def refuse_lost_tables(folder: RunFolder, problem: str) -> None:
    """Raise if trials were trained that neither the tables nor the study hold.

    Raises:
        ResultsError: there are some; names one of them.
    """
    known = set(folder.trial_ids())
    trained = (path.parent.name for path in sorted((folder.root / "trials").glob("t*/config.json")))
    lost = [name for name in trained if name not in known]
    if lost and (problem or not known):
        file = folder.root / STUDY_FILE
        raise ResultsError(
            f"{folder.root / 'trials.csv'}: lacks {lost[0]}, whose folder is in trials/, and {file.name} "
            f"{problem or 'does not know it'};\nput a copy of one of the two back"
        )
