"""A sweep's results folder as a Python object whose tables are pandas frames."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from retina.config import SweepSpec, TrialConfig, parse
from retina.results import files
from retina.results.run_folder import RunFolder

if TYPE_CHECKING:
    from retina.sweep.backend import SweepResult
    from retina.system.progress import Progress

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class BestTrial:
    """The best trial of a sweep, evaluated on validation and test.

    Attributes:
        trial_id: its id, for example "t0007".
        epoch: the epoch whose weights are kept, the best by the sweep's metric on validation.
        config: its settings.
        metrics: best/metrics.json: "val" and "test" with metrics and 95% intervals, "verdict", "operating_point".
        folder: best/, with model.pt, predictions.csv and the figures.
    """

    trial_id: str
    epoch: int
    config: TrialConfig
    metrics: dict[str, Any]
    folder: Path

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """best/predictions.csv: a row a photograph of validation and test, with grade, prediction and probabilities."""
        from retina.report.page.run_data import read  # brings matplotlib

        frame = read(RunFolder.open(self.folder.parent)).predictions
        return pd.DataFrame() if frame is None else frame


@dataclass(frozen=True)
class Run:
    """A sweep's results folder.

    Attributes:
        path: the folder, `results/<name>/`.
        result: how the sweep ended in this process; None for a folder that was opened.
    """

    path: Path
    result: SweepResult | None = None

    def __post_init__(self) -> None:
        """Check that the folder is one of a sweep.

        Raises:
            ResultsError: it is none.
        """
        RunFolder.open(self.path)

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self._folder.name

    @property
    def spec(self) -> SweepSpec:
        """The sweep file, every default filled in."""
        return self._folder.spec()

    @property
    def trials(self) -> pd.DataFrame:
        """trials.csv as it is now: a row a trial, with state, settings, metrics of its best epoch, and why it ended."""
        return self._folder.trials()

    @property
    def history(self) -> pd.DataFrame:
        """history.csv as it is now: a row an epoch of a trial."""
        return self._folder.history()

    @property
    def metadata(self) -> dict[str, Any]:
        """environment.json as it is now: command, versions, commit, hardware, and a summary of the photographs."""
        return self._folder.metadata()

    @property
    def best(self) -> BestTrial | None:
        """The best trial; None where none has been evaluated yet.

        Raises:
            ResultsError: a file of best/ is damaged.
        """
        from retina.report.page.run_data import read  # brings matplotlib

        folder = self._folder
        metrics = read(folder).best
        if metrics is None:
            return None
        trial_id = str(metrics["trial_id"])
        return BestTrial(
            trial_id=trial_id,
            epoch=int(metrics.get("epoch") or folder.trial_row(trial_id)["best_epoch"]),
            config=_read_config(folder, trial_id),
            metrics=metrics,
            folder=folder.best,
        )

    def importances(self) -> pd.Series[float]:
        """Return the share of each searched parameter in the differences between trials, the largest first (PED-ANOVA).

        Empty where too few trials have a value.
        """
        from retina.sweep.importance import importances  # brings Optuna

        return pd.Series(importances(self._folder), dtype="float64", name="importance")

    def report(self, file: PathLike | None = None, *, progress: Progress | None = None) -> Path:
        """Write report.html, also while the sweep runs; return its path.

        Args:
            file: where to; report.html of the run if None.
            progress: called with what takes long: a description, the count done, the total.

        Raises:
            ResultsError: a file of the run is damaged, or `file` cannot be written.
        """
        from retina.report import page
        from retina.report.finalize import draw_comparison
        from retina.sweep.importance import importances

        folder = self._folder
        draw_comparison(folder, progress=progress)
        return page.write(folder, importances(folder), file=None if file is None else Path(file))

    def export(self, out: PathLike | None = None) -> Path:
        """Write the best model as a folder that runs elsewhere; see `retina.export`."""
        from retina.export import write

        return write.export(self.path, None if out is None else Path(out))

    @property
    def _folder(self) -> RunFolder:
        return RunFolder.open(self.path)


def _read_config(folder: RunFolder, trial_id: str) -> TrialConfig:
    file = folder.trial(trial_id) / "config.json"
    return parse(TrialConfig, files.read_json(file), str(file))
