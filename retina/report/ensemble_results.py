"""Results of the best trial alone, the ensemble of the kept trials, and their weight soup, for terminal and page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from retina.config.splits import EVALUATED_SPLITS
from retina.results import checksums, readers, schemas
from retina.results.run_folder import METRICS_REMEDY, RunFolder

NAMES = {"single": "best trial alone", "ensemble": "ensemble of {}", "soup": "soup of {}"}
NUMBERS = {"qwk": "QWK", "accuracy": "accuracy", "auc": "AUC"}


@dataclass(frozen=True)
class EnsembleResult:
    """The result of one model: the best trial alone, the ensemble or the soup.

    Attributes:
        name: the model in words.
        metric: name of the validation metric that ranks the models.
        members: ids of its trials.
        split_metrics: its metrics in `best/together.json`, by split.
        is_best: whether it is the best of the models by `metric`.
    """

    name: str
    metric: str
    members: list[str]
    split_metrics: dict[str, Mapping[str, Any]]
    is_best: bool


def read(folder: RunFolder, trial_id: str) -> list[EnsembleResult]:
    """Return the results of the models that were evaluated, the best trial alone first.

    A soup that consists of the best trial alone is left out.

    Args:
        folder: a results folder.
        trial_id: id of the best trial. Results that belong to another one, for example from before the sweep was
            extended, are not returned.

    Raises:
        ResultsError: `best/together.json` is damaged, or listed in SHA256SUMS and missing.
    """
    file = folder.best / "together.json"
    if not file.is_file() and file.name not in (checksums.read_sums(folder.best) or {}):
        return []
    checksums.verify_best(folder.best, file.name)
    content = readers.read_object(file, schemas.EnsembleFile, METRICS_REMEDY)
    return [] if content is None else _results(content, trial_id)


def _results(content: Mapping[str, Any], trial_id: str) -> list[EnsembleResult]:
    if content["single"]["members"] != [trial_id]:
        return []
    models = [model for model in NAMES if model != "soup" or len(content[model]["members"]) > 1]
    best = content["better"] if content["better"] in models else "single"
    return [
        EnsembleResult(
            name=NAMES[model].format(len(content[model]["members"])),
            metric=str(content["metric"]),
            members=list(content[model]["members"]),
            split_metrics={split: content[model][split] for split in EVALUATED_SPLITS},
            is_best=model == best,
        )
        for model in models
    ]


def note(results: list[EnsembleResult]) -> str:
    """Return a caption for the table: the best model, the ensemble's trials, and whether the soup is left out."""
    (best,) = (result for result in results if result.is_best)
    ensemble = next(result for result in results if len(result.members) > 1)
    has_soup = any("soup" in result.name for result in results)
    soup = "" if has_soup else " No soup: no other trial's weights improve the best trial's when averaged with them."
    return f"Best by {best.metric}: {best.name}. The ensemble: {', '.join(ensemble.members)}.{soup}"


def table(results: list[EnsembleResult]) -> Table:
    """Return a table of validation and test metrics with the 95% intervals of test, at most 100 columns wide."""
    shown = Table(Column("", no_wrap=True), box=SIMPLE_HEAD, caption=note(results), caption_justify="left")
    shown.add_column("val.\nQWK", justify="right")
    for name in NUMBERS.values():
        shown.add_column(f"test\n{name}", justify="right", no_wrap=True)
    for result in results:
        val, test = result.split_metrics["val"], result.split_metrics["test"]
        shown.add_row(result.name, _cell({"qwk": val.get("qwk")}, "qwk"), *(_cell(test, key) for key in NUMBERS))
    return shown


def _cell(metrics: Mapping[str, Any], key: str) -> str:
    value, interval = metrics.get(key), metrics.get("intervals", {}).get(key)
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
