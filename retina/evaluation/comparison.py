"""The models of a comparison on the test split: evaluated once, when each is trained, and stored beside the figures.

    results/<name>/comparison/   <network>_<pretrained or scratch>.json: the numbers, .csv: the predictions

Nothing is chosen here: the epoch of each model is the one that validation chose.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pandas as pd

from retina.data.dataset import FundusDataset, Progress, prepare
from retina.errors import ResultsError, RetinaError, one_line
from retina.evaluation import best_trial
from retina.results import files, readers, schemas
from retina.results.run_folder import PARAMETERS, RunFolder

COMPARISON_FOLDER = "comparison"
COMPARED_SETTINGS = ("arch", "pretrained")
SHARED_SETTINGS = [name for name in PARAMETERS if name not in COMPARED_SETTINGS]
"""What the runs of a comparison must agree in."""
_FOLLOWED = {"train": "train_accuracy", "test": "test_accuracy"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonRun:
    """One trial of a comparison.

    Attributes:
        trial_id: its name.
        arch: "resnet18", say.
        pretrained: whether it began with ImageNet's weights.
        state: as in trials.csv.
        epoch: the one whose weights are kept, the best by the sweep's metric; None before the first.
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
        """The architecture as people write it: ResNet18."""
        return _network(self.arch)

    @property
    def how(self) -> str:
        """In the report's words: w/ pretraining, w/o pretraining."""
        return _how(self.pretrained)

    @property
    def title(self) -> str:
        """In the report's words: ResNet18 (w/ pretraining)."""
        return run_title(self.arch, pretrained=self.pretrained)

    @property
    def slug(self) -> str:
        """For names of files."""
        return f"{self.arch}_{'pretrained' if self.pretrained else 'scratch'}"

    def highest(self, split: str) -> float | None:
        """The highest accuracy of any epoch on "train" or "test", 0 to 1; None where it was not followed."""
        value = pd.to_numeric(self.curves[_FOLLOWED[split]]).max()
        return None if pd.isna(value) else float(value)

    def accuracy_at_best_epoch(self, split: str) -> float | None:
        """The accuracy on "train" or "test" at the epoch that validation chose; None where it is not known."""
        values = pd.to_numeric(self.curves.loc[self.curves["epoch"] == self.epoch, _FOLLOWED[split]]).dropna()
        return None if values.empty else float(values.iloc[0])


def run_title(arch: str, *, pretrained: bool) -> str:
    """A run in the report's words: ResNet18 (w/ pretraining)."""
    return f"{_network(arch)} ({_how(pretrained)})"


def read_runs(folder: RunFolder) -> list[ComparisonRun]:
    """The trials of a run that differ in network and pretraining alone, each pair once, sorted by them.

    Empty where some differ in anything else, or two in nothing; with one trial alone it is no comparison yet.
    """
    rows = [folder.trial_row(trial_id) for trial_id in folder.trial_ids()]
    keys = {tuple(row.get(name) for name in COMPARED_SETTINGS) for row in rows}
    if len(keys) < len(rows) or any(len({row.get(name) for row in rows}) > 1 for name in SHARED_SETTINGS):
        return []
    history = folder.history()
    cells = [
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
    return sorted(cells, key=lambda cell: (int(cell.arch.removeprefix("resnet")), cell.pretrained))


def highest_accuracies(cells: list[ComparisonRun]) -> list[str]:
    """The highest accuracies in the report's form, a line a model and split that was followed."""
    lines = []
    for cell in cells:
        for split in _FOLLOWED:
            value = cell.highest(split)
            if value is not None:
                lines.append(f"{cell.title}_{split}: {100 * value:.2f} %")
    return lines


def accuracies_at_best_epoch(cells: list[ComparisonRun]) -> list[str]:
    """The test accuracies at the epochs that validation chose, a line a model; empty where test was not followed."""
    lines = []
    for cell in cells:
        value = cell.accuracy_at_best_epoch("test")
        if value is not None:
            lines.append(f"{cell.title}: {100 * value:.2f} % at epoch {cell.epoch}")
    return lines


def describe(cells: list[ComparisonRun]) -> str:
    """The highest accuracies, and what the honest ones are; empty before the first epoch."""
    lines = highest_accuracies(cells)
    by_validation = accuracies_at_best_epoch(cells)
    if lines:
        lines = ["The highest accuracies of any epoch:", *lines]
    if by_validation:
        lines += [
            "The highest test accuracy is one that the test split chose. At the epoch that validation chose it is:"
        ]
        lines += by_validation
    return "\n".join(lines)


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
        told = readers.read_object(
            folder.root / COMPARISON_FOLDER / f"{cell.slug}.json", schemas.Compared, "it is made again"
        )
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
    place = folder.root / COMPARISON_FOLDER
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
    told: dict[str, str] = folder.metadata().get("data") or {}
    return told.get("fingerprint")


def _network(arch: str) -> str:
    return arch.replace("resnet", "ResNet")


def _how(pretrained: bool) -> str:
    return "w/ pretraining" if pretrained else "w/o pretraining"
