"""The best trial alone, the kept trials as an ensemble, and their weight soup: as a terminal and the page show them."""

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
    """One of the three.

    Attributes:
        name: what it is, in words.
        metric: by which validation compares them.
        members: ids of its trials.
        split_metrics: what `best/together.json` says of it, by split.
        is_best: whether it is the best of the three by validation.
    """

    name: str
    metric: str
    members: list[str]
    split_metrics: dict[str, Mapping[str, Any]]
    is_best: bool


def read(folder: RunFolder, trial_id: str) -> list[EnsembleResult]:
    """Those that were judged, the best trial first; a soup of that trial alone is left out.

    Args:
        folder: the sweep's.
        trial_id: of the best model; what was made of another one, before the sweep was extended say, does not count.

    Raises:
        ResultsError: `best/together.json` is damaged, or gone though it was written.
    """
    file = folder.best / "together.json"
    if not file.is_file() and file.name not in (checksums.read_sums(folder.best) or {}):
        return []
    checksums.verify_best(folder.best, file.name)
    told = readers.read_object(file, schemas.EnsembleFile, METRICS_REMEDY)
    return [] if told is None else _ways(told, trial_id)


def _ways(told: Mapping[str, Any], trial_id: str) -> list[EnsembleResult]:
    if told["single"]["members"] != [trial_id]:
        return []
    made = [way for way in NAMES if way != "soup" or len(told[way]["members"]) > 1]
    best = told["better"] if told["better"] in made else "single"
    return [
        EnsembleResult(
            name=NAMES[way].format(len(told[way]["members"])),
            metric=str(told["metric"]),
            members=list(told[way]["members"]),
            split_metrics={split: told[way][split] for split in EVALUATED_SPLITS},
            is_best=way == best,
        )
        for way in made
    ]


def note(ways: list[EnsembleResult]) -> str:
    """What the table says, in a sentence or two; which trials the ensemble is of."""
    (best,) = (way for way in ways if way.is_best)
    everyone = next(way for way in ways if len(way.members) > 1)
    added = any("soup" in way.name for way in ways)
    soup = "" if added else " No other trial's weights could be averaged with the best one's to its gain."
    return f"Best by {best.metric}: {best.name}. The ensemble: {', '.join(everyone.members)}.{soup}"


def table(ways: list[EnsembleResult]) -> Table:
    """Validation and test beside each other, with the 95% intervals of test; 100 columns wide at most."""
    shown = Table(Column("", no_wrap=True), box=SIMPLE_HEAD, caption=note(ways), caption_justify="left")
    shown.add_column("val.\nQWK", justify="right")
    for name in NUMBERS.values():
        shown.add_column(f"test\n{name}", justify="right", no_wrap=True)
    for way in ways:
        val, test = way.split_metrics["val"], way.split_metrics["test"]
        shown.add_row(way.name, _cell({"qwk": val.get("qwk")}, "qwk"), *(_cell(test, key) for key in NUMBERS))
    return shown


def _cell(told: Mapping[str, Any], key: str) -> str:
    value, between = told.get(key), told.get("intervals", {}).get(key)
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{between[0]:.3f}, {between[1]:.3f}]" if between else "")
