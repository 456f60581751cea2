"""The runs of a comparison: a network with or without pretraining each, everything else alike."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from retina.results.run_folder import PARAMETERS, RunFolder

COMPARED = ("arch", "pretrained")
SHARED = [name for name in PARAMETERS if name not in COMPARED]
"""What the runs of a comparison must agree in."""
_FOLLOWED = {"train": "train_accuracy", "test": "test_accuracy"}


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
        return titled(self.arch, pretrained=self.pretrained)

    @property
    def slug(self) -> str:
        """For names of files."""
        return f"{self.arch}_{'pretrained' if self.pretrained else 'scratch'}"

    def highest(self, split: str) -> float | None:
        """The highest accuracy of any epoch on "train" or "test", 0 to 1; None where it was not followed."""
        value = pd.to_numeric(self.curves[_FOLLOWED[split]]).max()
        return None if pd.isna(value) else float(value)

    def at_chosen(self, split: str) -> float | None:
        """The accuracy on "train" or "test" at the epoch that validation chose; None where it is not known."""
        values = pd.to_numeric(self.curves.loc[self.curves["epoch"] == self.epoch, _FOLLOWED[split]]).dropna()
        return None if values.empty else float(values.iloc[0])


def titled(arch: str, *, pretrained: bool) -> str:
    """A run in the report's words: ResNet18 (w/ pretraining)."""
    return f"{_network(arch)} ({_how(pretrained)})"


def read(folder: RunFolder) -> list[ComparisonRun]:
    """The trials of a run that differ in network and pretraining alone, each pair once, sorted by them.

    Empty where some differ in anything else, or two in nothing; with one trial alone it is no comparison yet.
    """
    rows = [folder.recorded(trial_id) for trial_id in folder.trial_ids()]
    keys = {tuple(row.get(name) for name in COMPARED) for row in rows}
    if len(keys) < len(rows) or any(len({row.get(name) for row in rows}) > 1 for name in SHARED):
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


def highest(cells: list[ComparisonRun]) -> list[str]:
    """The highest accuracies in the report's form, a line a model and split that was followed."""
    lines = []
    for cell in cells:
        for split in _FOLLOWED:
            value = cell.highest(split)
            if value is not None:
                lines.append(f"{cell.title}_{split}: {100 * value:.2f} %")
    return lines


def chosen(cells: list[ComparisonRun]) -> list[str]:
    """The test accuracies at the epochs that validation chose, a line a model; empty where test was not followed."""
    lines = []
    for cell in cells:
        value = cell.at_chosen("test")
        if value is not None:
            lines.append(f"{cell.title}: {100 * value:.2f} % at epoch {cell.epoch}")
    return lines


def describe(cells: list[ComparisonRun]) -> str:
    """The highest accuracies, and what the honest ones are; empty before the first epoch."""
    lines = highest(cells)
    by_validation = chosen(cells)
    if lines:
        lines = ["The highest accuracies of any epoch:", *lines]
    if by_validation:
        lines += [
            "The highest test accuracy is one that the test split chose. At the epoch that validation chose it is:"
        ]
        lines += by_validation
    return "\n".join(lines)


def _network(arch: str) -> str:
    return arch.replace("resnet", "ResNet")


def _how(pretrained: bool) -> str:
    return "w/ pretraining" if pretrained else "w/o pretraining"
