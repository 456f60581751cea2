"""One run after another, each epoch's checkpoint on the disk before the epoch is entered in the tables.

So whatever kills them, the same command with --load goes on, and comes to what it would have come to.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retina.config import TrialConfig
from retina.data.dataset import FundusDataset, Progress, prepare, read_manifest
from retina.errors import RetinaError, one_line
from retina.evaluation import best_trial
from retina.evaluation.comparison import run_title
from retina.results import checkpoints, files
from retina.results.run_folder import HISTORY_COLUMNS, METRIC_COLUMNS, RunFolder
from retina.runs import place
from retina.runs.plan import METRIC, Plan
from retina.system import temporary_files
from retina.system.printable import failure_reason, printable
from retina.training import model
from retina.training.epochs import EpochResult, Training
from retina.training.trainer import GradingTask

log = logging.getLogger(__name__)


def train(
    wanted: Plan, *, load: bool = False, progress: Progress | None = None
) -> tuple[RunFolder, FundusDataset | None]:
    """Train what is wanted, evaluate the best model by validation accuracy, and write it all to the results folder.

    Everything that a user may have got wrong is found before anything is trained or written.

    Args:
        wanted: the runs.
        load: what the folder holds already is kept, and only what it lacks is trained; an unfinished run goes on from
            the checkpoint of its best epoch so far.
        progress: told of what takes long.

    Returns:
        The folder, in which a run that could not go on is FAIL with its reason; and the photographs, if they had to be
        looked at.

    Raises:
        RetinaError: the data, the weights or the results folder are not what they must be.
    """
    if load and not wanted.root.exists():
        log.info("%s is not there yet: it begins", wanted.root)
        load = False
    if load:
        place.refuse_others(wanted)
        missing = place.missing(RunFolder.open(wanted.root), wanted)
    else:
        place.refuse_taken(wanted)
        missing = list(wanted.configs)
    photographs = None
    if missing:
        found = read_manifest(wanted.data)
        weights = _weights(missing, wanted.weights)
        photographs = prepare(wanted.data, progress, found)
        for warning in (*photographs.warnings, *photographs.manifest.left_out):
            log.warning("note: %s", warning)
        if not load:
            place.create(wanted, photographs)
    with RunFolder(wanted.root).lock():
        folder = RunFolder.open(wanted.root)
        temporary_files.remove_partials(folder.root)
        if photographs:
            place.begin(folder, wanted, photographs)
            missing = place.missing(folder, wanted)  # another process may have trained some until now
            task = GradingTask(photographs, weights, track_test=True)
            for config in missing:
                _run(folder, place.trial_id_of(folder, config), config, task)
                place.keep_weights(folder)
        best = place.settle(folder)
        if best is not None and not place.is_crowned(folder, best):
            log.info("evaluating the best run, %s, on validation and test", best)
            photographs = photographs or prepare(wanted.data, progress)
            place.refuse_changed(folder, photographs)
            best_trial.evaluate_best_trial(folder, best, photographs, METRIC)
        folder.update_metadata(ended_by="", interrupted=False, best=best)
    return folder, photographs


def _weights(configs: list[TrialConfig], source: Path | None) -> dict[str, model.StateDict]:
    return {config.arch: model.load_weights(config.arch, source) for config in configs if config.pretrained}


def _run(folder: RunFolder, trial_id: str, config: TrialConfig, task: GradingTask) -> None:
    """One run from wherever it is to its end, COMPLETE or FAIL."""
    mine, name = folder.trial(trial_id), run_title(config.arch, pretrained=config.pretrained)
    values = config.model_dump(mode="json")
    folder.record_trial(trial_id, state="RUNNING", reason=None, **values)
    try:
        files.write_json(mine / "config.json", values)
        training, past = _taken_up(folder, trial_id, lambda: task(config))
        if not past:
            folder.drop_epochs(trial_id)  # of an attempt whose checkpoint is lost
        log.info("%s %s", name, f"goes on after epoch {len(past)}" if past else "begins")
        for result in training:
            past.append(asdict(result))
            better = _save(mine, training, past)
            _enter(folder, trial_id, past[-1])
            _tell(folder, trial_id, config, result, better=better)
    except (RetinaError, OSError) as error:  # a RetinaError may be an OSError too
        reason = str(error) if isinstance(error, RetinaError) else f"{mine}: cannot be written to: {error.strerror}"
        with contextlib.suppress(OSError):
            files.write_text(mine / "error.txt", printable(reason, keep="\n") + "\n")
        folder.record_trial(trial_id, state="FAIL", reason=failure_reason(reason))
        log.warning("%s FAIL: %s", name, " ".join(reason.split()))
    else:
        (mine / "error.txt").unlink(missing_ok=True)  # of an earlier attempt
        folder.record_trial(trial_id, state="COMPLETE", reason=None)
    finally:
        folder.flush()  # whatever ends it, Ctrl-C too


def _taken_up(folder: RunFolder, trial_id: str, start: Callable[[], Training]) -> tuple[Training, list[dict[str, Any]]]:
    """A training where its run's checkpoint is, and the epochs up to there, entered in the tables; else a new one.

    It is a new one also where the checkpoint is damaged, or does not fit the model; that is logged as a warning.
    """
    training = start()
    saved = checkpoints.load_newest(folder.trial(trial_id))
    if saved is None:
        return training, []
    try:
        training.load_state_dict(saved.weights, saved.training)
    except Exception as error:  # whatever torch makes of a state that is not this model's
        problem = one_line(error, 120)
        log.warning("%s: its checkpoint does not fit, it begins again: %s", folder.trial(trial_id), problem)
        return start(), []
    for epoch in saved.past:
        _enter(folder, trial_id, epoch)
    return training, saved.past


def _save(mine: Path, training: Training, past: list[dict[str, Any]]) -> bool:
    """Write the checkpoint of an epoch that is the best so far, in the shape of a sweep's; returns whether it is."""
    *before, now = past
    if before and now[METRIC] <= max(epoch[METRIC] for epoch in before):
        return False
    state = {"training": training.state_dict(), "past": past, "best": (now[METRIC], now["epoch"])}
    checkpoints.save(mine, now["epoch"], training.model_state_dict(), state)
    return True


def _enter(folder: RunFolder, trial_id: str, epoch: dict[str, Any]) -> None:
    measures = {key: value for key, value in epoch.items() if key in HISTORY_COLUMNS and key != "epoch"}
    folder.record_epoch(trial_id, epoch["epoch"], **measures)
    epochs = folder.epochs(trial_id)
    best = max(epochs, key=lambda row: float(row.get(METRIC, -1)))  # the first of equal ones
    folder.record_trial(
        trial_id,
        epochs_run=epochs[-1]["epoch"],
        best_epoch=best["epoch"],
        **{key: best.get(key) for key in METRIC_COLUMNS},
        seconds=sum(row.get("seconds", 0.0) for row in epochs),
        images_per_second=sum(row.get("images_per_second", 0.0) for row in epochs) / len(epochs),
    )


def _tell(folder: RunFolder, trial_id: str, config: TrialConfig, result: EpochResult, *, better: bool) -> None:
    told = [f"train {result.train_accuracy:.2%}", f"validation {result.val_accuracy:.2%}"]
    if result.test_accuracy is not None:
        told.append(f"test {result.test_accuracy:.2%}")
    of = f"epoch {result.epoch} of {config.epochs}"
    best = ", the best on validation so far" if better else ""
    log.info("%s, %s: %s%s", run_title(config.arch, pretrained=config.pretrained), of, ", ".join(told), best)
    measures = "  ".join(f"{key} {value:.4g}" for key, value in asdict(result).items() if value is not None)
    log.debug("  %s", measures)
    folder.log(trial_id, f"{of}: {measures}")
