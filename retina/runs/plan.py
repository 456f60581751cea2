"""What `retina train` is asked for, and the sweep that would come to the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retina.config import DataConfig, TrialConfig, parse
from retina.config.sweep import SweepSpec
from retina.evaluation.comparison import COMPARED_SETTINGS, SHARED_SETTINGS

WHERE = "retina train"
METRIC = "val_accuracy"
"""Chooses a run's epoch and the best run. The report followed the test accuracy; here test chooses nothing."""


@dataclass(frozen=True)
class Plan:
    """What to train.

    Attributes:
        root: the results folder.
        configs: the runs, which differ in network and pretraining alone.
        data: the photographs.
        weights: pretrained ones, a file or a folder of them; None: torchvision's.
    """

    root: Path
    configs: tuple[TrialConfig, ...]
    data: DataConfig
    weights: Path | None = None


def plan(
    root: Path,
    settings: Mapping[str, Any],
    photographs: Mapping[str, Any],
    *,
    pretrained: Iterable[bool],
    weights: Path | None = None,
) -> Plan:
    """The runs that a command line asks for.

    Args:
        root: the results folder; its name is the run's.
        settings: of `TrialConfig`, all but `pretrained`.
        photographs: of `DataConfig`.
        pretrained: a run for each.
        weights: see `Plan`.

    Raises:
        SpecError: a setting, or a name, that is not allowed.
    """
    configs = tuple(parse(TrialConfig, {**settings, "pretrained": one}, WHERE) for one in pretrained)
    path = str(photographs["path"])
    absolute = path if path in {"synthetic", ""} else os.path.abspath(Path(path).expanduser())  # noqa: PTH100  # no links
    data = parse(DataConfig, {**photographs, "path": absolute}, WHERE)
    as_sweep(root.name, configs, data)  # a name that is not allowed is refused before anything is read
    return Plan(root.absolute(), configs, data, weights)


def as_sweep(name: str, runs: Iterable[TrialConfig], data: DataConfig) -> SweepSpec:
    """A sweep of just these runs: a grid where they are one, else their list."""
    configs = list(runs)
    shared = {key: getattr(configs[0], key) for key in SHARED_SETTINGS if key != "seed"}
    default = TrialConfig()
    settings = {key: {"value": value} for key, value in shared.items() if value != getattr(default, key)}
    cells = [{key: getattr(config, key) for key in COMPARED_SETTINGS} for config in configs]
    values = {key: list(dict.fromkeys(cell[key] for cell in cells)) for key in COMPARED_SETTINGS}
    is_grid = len(values["arch"]) * len(values["pretrained"]) == len(cells)
    whole = {
        "name": name,
        "data": data,
        "metric": {"name": METRIC},
        "method": "grid" if is_grid else "random",
        "seed": configs[0].seed,
        "trials": len(cells),
        "early_stop": {"type": "none"},
        "parameters": {**{key: {"values": values[key]} for key in COMPARED_SETTINGS}, **settings},
        "start": [] if is_grid else cells,
        "keep": {"trials": len(cells)},
        "track_test": True,
    }
    return parse(SweepSpec, whole, WHERE)
