"""The models of a comparison on the test split: evaluated once, when each is trained, and stored beside the figures.

    results/<name>/comparison/   <network>_<pretrained or scratch>.json: the numbers, .csv: the predictions

Nothing is chosen here: the epoch of each model is the one that validation chose.
"""

from __future__ import annotations

import logging
from typing import Any

from retina.data.dataset import FundusDataset, Progress, prepare
from retina.errors import ResultsError, RetinaError, one_line
from retina.evaluation import best_trial
from retina.evaluation.comparison_runs import ComparisonRun
from retina.results import files, readers, schemas
from retina.results.run_folder import RunFolder

FOLDER = "comparison"

log = logging.getLogger(__name__)


def evaluate_runs(
    folder: RunFolder,
    cells: list[ComparisonRun],
    photographs: FundusDataset | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """What each model of a comparison comes to on test, by trial; one that cannot be judged is told of and left out.

    Args:
        folder: the run.
        cells: its models; only those whose training has ended are judged.
        photographs: the run's, if they are at hand; else they are prepared again where a model is still to be judged.
        progress: told of what takes long.

    Returns:
        What the JSON files say: `retina.metrics.grading.GradeMetrics`, "trial_id", "epoch", "network", "pretrained",
        "loss".
    """
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell.state not in {"COMPLETE", "PRUNED"} or cell.epoch is None:
            continue
        stored = _stored(folder, cell)
        if stored is None:
            try:
                photographs = photographs or _photographs(folder, progress)
                stored = _judge(folder, cell, photographs)
            except RetinaError as error:  # the curves can be drawn all the same
                log.warning("note: no confusion matrix of %s: %s", cell.title, error)
                continue
        found[cell.trial_id] = stored
    return found


def _stored(folder: RunFolder, cell: ComparisonRun) -> dict[str, Any] | None:
    """What an earlier call has found, if it was of the same weights and photographs."""
    try:
        told = readers.read_object(folder.root / FOLDER / f"{cell.slug}.json", schemas.Compared, "it is made again")
    except ResultsError as error:
        log.warning("note: %s", one_line(error, 1000))
        return None
    if told is None or (told.get("trial_id"), told.get("epoch")) != (cell.trial_id, cell.epoch):
        return None
    now = _fingerprint(folder)  # of the photographs, which a sweep that was forced on may have changed
    return told if told.get("data_fingerprint", now) == now else None


def _judge(folder: RunFolder, cell: ComparisonRun, photographs: FundusDataset) -> dict[str, Any]:
    log.info("evaluating %s on test, epoch %d", cell.title, cell.epoch)
    file = folder.trial(cell.trial_id) / "model.pt"
    if not file.is_file():
        raise ResultsError(f"{file}: is not there; keep.trials says how many trials keep their weights")
    config, weights = best_trial.load_trial(folder, cell.trial_id)
    seen = best_trial.TrialEvaluator(config, weights, photographs)(photographs.part("test"))
    told = {
        "trial_id": cell.trial_id,
        "network": cell.network,
        "pretrained": cell.pretrained,
        "epoch": cell.epoch,
        "split": "test",
        **seen.metrics.as_json(),
        "loss": seen.loss,
        "data_fingerprint": photographs.fingerprint,
    }
    place = folder.root / FOLDER
    files.write_frame(place / f"{cell.slug}.csv", best_trial.predictions_of(photographs.frame, {"test": seen}))
    files.write_json(place / f"{cell.slug}.json", told)  # last: it says that the evaluation is whole
    return told


def _photographs(folder: RunFolder, progress: Progress | None) -> FundusDataset:
    """The photographs that the run was trained on, prepared once more.

    Raises:
        RetinaError: they are not there any more, or not the same.
    """
    photographs = prepare(folder.data_config(), progress)
    then = _fingerprint(folder)
    if photographs.fingerprint != then:
        raise ResultsError(
            f"{photographs.config.path}: photographs, grades or splits have changed since the run "
            f"(fingerprint {photographs.fingerprint}, then {then})"
        )
    return photographs


def _fingerprint(folder: RunFolder) -> str | None:
    """Of the photographs that the run was trained on."""
    told: dict[str, str] = folder.notes().get("data") or {}
    return told.get("fingerprint")
