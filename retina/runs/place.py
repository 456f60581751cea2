"""The results folder of training runs: a sweep's, but for the study."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from retina.config import DataConfig, TrialConfig
from retina.data.dataset import FundusDataset
from retina.errors import DiskError, ResultsError
from retina.evaluation.best_trial import BEST_TRIAL_FILES
from retina.evaluation.comparison import SHARED_SETTINGS
from retina.results import checkpoints, checksums, environment, files, readers, run_folder, schemas
from retina.results.run_folder import RunFolder
from retina.runs.plan import METRIC, Plan, as_sweep

log = logging.getLogger(__name__)


def refuse_taken(wanted: Plan) -> None:
    """Stop where a new folder would overwrite something.

    Raises:
        ResultsError: it is there already and not empty, or cannot be made.
    """
    RunFolder.ensure_free(wanted.root, "go on with what it holds (--load 1)")


def refuse_others(wanted: Plan) -> None:
    """Stop where the folder's runs cannot be compared with those that are wanted.

    Raises:
        ResultsError: it is no results folder, a sweep's, or of other settings; names the first differences.
    """
    folder = RunFolder.open(wanted.root)
    if "study" in folder.metadata():
        raise ResultsError(f"{folder.root}: is a sweep's; it goes on with python tune_main.py --resume")
    before = folder.spec()
    asked = wanted.data.model_copy(update={"layout": before.data.layout})
    changed = _changes(before.data, asked, list(DataConfig.model_fields))
    for config in list(folder.configs().values())[:1]:  # the others are like it
        changed += _changes(config, wanted.configs[0], SHARED_SETTINGS)
    if changed:
        raise ResultsError(
            f"{folder.root}: was trained with other settings: {'; '.join(changed[:4])}\n"
            "--load wants the flags that it was begun with; for others choose another --name"
        )


def create(wanted: Plan, photographs: FundusDataset) -> None:
    """A new results folder, whole or not there."""
    environment.create_run_folder(wanted.root, photographs, _sweep_yaml(wanted, wanted.configs, photographs))


def refuse_changed(folder: RunFolder, photographs: FundusDataset) -> None:
    """Stop where the photographs are not those of the runs that are there.

    Raises:
        ResultsError: they are not.
    """
    then = (folder.metadata().get("data") or {}).get("fingerprint")
    if then is None:
        raise ResultsError(
            f"{folder.root / 'environment.json'}: is not there, or does not say of which photographs the runs are;\n"
            "put a copy of it back, or begin anew with another --name"
        )
    if then != photographs.fingerprint:
        raise ResultsError(
            f"{photographs.config.path}: photographs, grades or splits have changed since {folder.root} began\n"
            f"(fingerprint {photographs.fingerprint}, then {then}); begin anew with another --name"
        )


def begin(folder: RunFolder, wanted: Plan, photographs: FundusDataset) -> None:
    """Note that runs begin in a folder, are added to it, or go on.

    Raises:
        ResultsError: the photographs are not those of the runs that are there.
    """
    refuse_changed(folder, photographs)
    notes = folder.metadata()
    if folder.trial_ids():
        now = environment.describe_environment()
        if (notes.get("code") or {}).get("source") != now["code"]["source"]:
            log.warning("note: the code has changed since %s began", folder.root)
        folder.update_metadata(resumed=[*(notes.get("resumed") or []), now], code=now["code"])
    there = [*folder.configs().values(), *wanted.configs]
    files.write_text(folder.root / "sweep.yaml", _sweep_yaml(wanted, there, photographs))
    folder.update_metadata(interrupted=True)  # until it has ended


def keep_weights(folder: RunFolder) -> None:
    """Make the checkpoints of runs that have ended their `model.pt`, once the tables that say so are on the disk."""
    if folder.is_flushed:
        for trial_id in folder.trial_ids("COMPLETE"):
            checkpoints.keep(folder.trial(trial_id), best_epoch(folder, trial_id))


def settle(folder: RunFolder) -> str | None:
    """Keep the weights of the runs that have ended, and note how it stands; returns the best one.

    Raises:
        ResultsError: the tables cannot be written.
    """
    if not folder.flush():
        raise DiskError(f"{folder.root}: cannot be written to; make room and go on with --load 1")
    keep_weights(folder)
    seconds = sum(float(folder.trial_row(trial_id).get("seconds", 0)) for trial_id in folder.trial_ids())
    folder.update_metadata(seconds=round(seconds, 1))
    return next(iter(folder.ranking(METRIC, 1)), None)


def is_crowned(folder: RunFolder, trial_id: str) -> bool:
    """Whether `best/` is of this run and its best epoch, and its files are as they were written."""
    file = folder.best / "metrics.json"
    try:
        checksums.verify_best(folder.best, *BEST_TRIAL_FILES)
        told = readers.read_object(file, schemas.Metrics, run_folder.METRICS_REMEDY) or {}
    except ResultsError as error:
        log.warning("note: the best run is evaluated again: %s", str(error).partition(";\n")[0])
        return False
    return (told.get("trial_id"), told.get("epoch")) == (trial_id, best_epoch(folder, trial_id))


def best_epoch(folder: RunFolder, trial_id: str) -> int:
    """The epoch that a run's weights are of."""
    return int(folder.trial_row(trial_id)["best_epoch"])  # `RunFolder.configs` has seen to it that it is there


def missing(folder: RunFolder, wanted: Plan) -> list[TrialConfig]:
    """The wanted runs that are not there, unfinished, or failed: what failed for want of disk may now succeed."""
    complete = [
        one for trial_id, one in folder.configs().items() if folder.trial_row(trial_id).get("state") == "COMPLETE"
    ]
    return [config for config in wanted.configs if config not in complete]


def trial_id_of(folder: RunFolder, config: TrialConfig) -> str:
    """The id of a run, or of a new one."""
    there = folder.configs()
    return next((trial_id for trial_id, one in there.items() if one == config), f"t{len(there):04d}")


def _changes(then: DataConfig | TrialConfig, now: DataConfig | TrialConfig, keys: list[str]) -> list[str]:
    pairs = [(key, getattr(then, key), getattr(now, key)) for key in keys]
    return [f"{key} was {old}, now {new}" for key, old, new in pairs if old != new]


def _sweep_yaml(wanted: Plan, runs: Sequence[TrialConfig], photographs: FundusDataset) -> str:
    data = wanted.data.model_copy(update={"layout": photographs.manifest.layout})
    return as_sweep(wanted.root.name, dict.fromkeys(runs), data).to_yaml()
