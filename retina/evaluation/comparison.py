"""A comparison of networks with and without pretraining: its runs, their accuracies, their evaluation on test.

    results/<name>/comparison/   <network>_<pretrained or scratch>.json: the metrics, .csv: the predictions

Each model is evaluated once, after it is trained, and the result is stored beside the figures. Nothing is chosen here:
the epoch of each model is the one that validation chose.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pandas as pd

from retina.data.dataset import FundusDataset, prepare
from retina.errors import ResultsError, RetinaError, one_line
from retina.evaluation import best_trial
from retina.results import files, readers, schemas
from retina.results.run_folder import PARAMETERS, RunFolder
from retina.system.progress import Progress

COMPARISON_FOLDER = "comparison"
COMPARED_SETTINGS = ("arch", "pretrained")
SHARED_SETTINGS = [name for name in PARAMETERS if name not in COMPARED_SETTINGS]
"""The settings that must be equal in all runs of a comparison."""
_ACCURACY_COLUMNS = {"train": "train_accuracy", "test": "test_accuracy"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonRun:
    """One trial of a comparison.

    Attributes:
        trial_id: its id.
        arch: its architecture, for example "resnet18".
        pretrained: whether training started from ImageNet weights.
        state: its state in trials.csv.
        epoch: the best epoch by the sweep's metric, whose weights are kept; None before the first epoch.
        curves: its rows of history.csv.
    """

    trial_id: str
    arch: str
    pretrained: bool
    state: str
    epoch: int | None
    curves: pd.DataFrame

    @property
    def network(self) -> str:
        """The usual spelling of the architecture: ResNet18."""
        return _network(self.arch)

    @property
    def pretraining(self) -> str:
        """The report's label for pretraining: w/ pretraining, w/o pretraining."""
        return _pretraining(pretrained=self.pretrained)

    @property
    def title(self) -> str:
        """The report's label for the run: ResNet18 (w/ pretraining)."""
        return run_title(self.arch, pretrained=self.pretrained)

    @property
    def slug(self) -> str:
        """The stem of its files' names."""
        return f"{self.arch}_{'pretrained' if self.pretrained else 'scratch'}"

    def highest_accuracy(self, split: str) -> float | None:
        """Return the highest accuracy of any epoch on "train" or "test", 0 to 1; None if it was not recorded."""
        value = pd.to_numeric(self.curves[_ACCURACY_COLUMNS[split]]).max()
        return None if pd.isna(value) else float(value)

    def accuracy_at_best_epoch(self, split: str) -> float | None:
        """Return the accuracy on "train" or "test" at the epoch that validation chose; None if it was not recorded."""
        is_best = self.curves["epoch"] == self.epoch
        values = pd.to_numeric(self.curves.loc[is_best, _ACCURACY_COLUMNS[split]]).dropna()
        return None if values.empty else float(values.iloc[0])


def run_title(arch: str, *, pretrained: bool) -> str:
    """Return the report's label for a run: ResNet18 (w/ pretraining)."""
    return f"{_network(arch)} ({_pretraining(pretrained=pretrained)})"


def read_runs(folder: RunFolder) -> list[ComparisonRun]:
    """Return a folder's trials as the runs of a comparison, sorted by network and pretraining.

    Returns:
        Empty if trials differ in any other setting, or if two have the same network and pretraining. A single run is
        not a comparison yet.
    """
    rows = [folder.trial_row(trial_id) for trial_id in folder.trial_ids()]
    keys = {tuple(row.get(name) for name in COMPARED_SETTINGS) for row in rows}
    if len(keys) < len(rows) or any(len({row.get(name) for row in rows}) > 1 for name in SHARED_SETTINGS):
        return []
    history = folder.history()
    runs = [
        ComparisonRun(
            trial_id=row["trial_id"],
            arch=str(row["arch"]),
            pretrained=bool(row["pretrained"]),
            state=str(row["state"]),
            epoch=int(row["best_epoch"]) if "best_epoch" in row else None,
            curves=history[history["trial_id"] == row["trial_id"]],
        )
        for row in rows
    ]
    return sorted(runs, key=lambda run: (int(run.arch.removeprefix("resnet")), run.pretrained))


def highest_accuracies(runs: list[ComparisonRun]) -> list[str]:
    """Return the highest accuracies in the report's format, one line for each run and recorded split."""
    lines = []
    for run in runs:
        for split in _ACCURACY_COLUMNS:
            value = run.highest_accuracy(split)
            if value is not None:
                lines.append(f"{run.title}_{split}: {100 * value:.2f} %")
    return lines


def accuracies_at_best_epoch(runs: list[ComparisonRun]) -> list[str]:
    """Return the test accuracies at the epochs that validation chose, one line for each run with recorded test."""
    lines = []
    for run in runs:
        value = run.accuracy_at_best_epoch("test")
        if value is not None:
            lines.append(f"{run.title}: {100 * value:.2f} % at epoch {run.epoch}")
    return lines


def describe(runs: list[ComparisonRun]) -> str:
    """Return the highest accuracies and the unbiased ones as text; empty before the first epoch."""
    lines = highest_accuracies(runs)
    if lines:
        lines = ["The highest accuracies of any epoch:", *lines]
    unbiased = accuracies_at_best_epoch(runs)
    if unbiased:
        lines += [
            "The highest test accuracy was chosen by the test split. At the epoch that validation chose:",
            *unbiased,
        ]
    return "\n".join(lines)


def evaluate_runs(
    folder: RunFolder,
    runs: list[ComparisonRun],
    photographs: FundusDataset | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate each model of a comparison on test, or read the stored result of an earlier call.

    A model that cannot be evaluated is logged and left out.

    Args:
        folder: the results folder.
        runs: the models; only those whose training has ended are evaluated.
        photographs: the photographs of the run. If None, they are prepared again when a model is not evaluated yet.
        progress: called during steps that take long.

    Returns:
        The content of the JSON files by trial id: `retina.metrics.grading.GradeMetrics`, "trial_id", "epoch",
        "network", "pretrained", "loss".
    """
    results: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.state not in {"COMPLETE", "PRUNED"} or run.epoch is None:
            continue
        result = _stored_result(folder, run)
        if result is None:
            try:
                photographs = photographs or _prepare_photographs(folder, progress)
                result = _evaluate(folder, run, photographs)
            except RetinaError as error:  # the curves can be drawn without it
                log.warning("note: no confusion matrix of %s: %s", run.title, error)
                continue
        results[run.trial_id] = result
    return results


def _stored_result(folder: RunFolder, run: ComparisonRun) -> dict[str, Any] | None:
    """Return the result of an earlier call if it is of the same weights and photographs."""
    file = folder.root / COMPARISON_FOLDER / f"{run.slug}.json"
    try:
        result = readers.read_object(file, schemas.ComparisonFile, "it is made again")
    except ResultsError as error:
        log.warning("note: %s", one_line(error, 1000))
        return None
    if result is None or (result.get("trial_id"), result.get("epoch")) != (run.trial_id, run.epoch):
        return None
    fingerprint = _fingerprint(folder)  # a sweep that was resumed with --force may have changed the photographs
    return result if result.get("data_fingerprint", fingerprint) == fingerprint else None


def _evaluate(folder: RunFolder, run: ComparisonRun, photographs: FundusDataset) -> dict[str, Any]:
    log.info("evaluating %s on test, epoch %d", run.title, run.epoch)
    file = folder.trial(run.trial_id) / "model.pt"
    if not file.is_file():
        raise ResultsError(f"{file}: is missing; keep.trials sets how many trials keep their weights")
    config, weights = best_trial.load_trial(folder, run.trial_id)
    predictions = best_trial.TrialEvaluator(config, weights, photographs)(photographs.split_view("test"))
    result = {
        "trial_id": run.trial_id,
        "network": run.network,
        "pretrained": run.pretrained,
        "epoch": run.epoch,
        "split": "test",
        **predictions.metrics.as_json(),
        "loss": predictions.loss,
        "data_fingerprint": photographs.fingerprint,
    }
    target = folder.root / COMPARISON_FOLDER
    frame = best_trial.predictions_frame(photographs.frame, {"test": predictions})
    files.write_frame(target / f"{run.slug}.csv", frame)
    files.write_json(target / f"{run.slug}.json", result)  # last: its presence means that the evaluation is complete
    return result


def _prepare_photographs(folder: RunFolder, progress: Progress | None) -> FundusDataset:
    """Prepare the photographs that the run was trained on.

    Raises:
        RetinaError: they are missing, or they have changed.
    """
    photographs = prepare(folder.data_config(), progress)
    recorded = _fingerprint(folder)
    if photographs.fingerprint != recorded:
        raise ResultsError(
            f"{photographs.config.path}: photographs, grades or splits have changed since the run "
            f"(fingerprint {photographs.fingerprint}, then {recorded})"
        )
    return photographs


def _fingerprint(folder: RunFolder) -> str | None:
    """Return the fingerprint of the photographs that the run was trained on."""
    data: dict[str, str] = folder.metadata().get("data") or {}
    return data.get("fingerprint")


def _network(arch: str) -> str:
    return arch.replace("resnet", "ResNet")


def _pretraining(*, pretrained: bool) -> str:
    return "w/ pretraining" if pretrained else "w/o pretraining"
