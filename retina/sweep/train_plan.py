"""What `retina train` is asked to train, the grid sweep of it, and whether an existing results folder can hold it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retina.config import DataConfig, TrialConfig, parse
from retina.config.sweep import SweepSpec
from retina.data.dataset import FundusDataset
from retina.errors import ResultsError
from retina.evaluation.best_trial import BEST_TRIAL_FILES
from retina.evaluation.comparison import COMPARED_SETTINGS, SHARED_SETTINGS
from retina.results import checkpoints, checksums, environment, files, readers, run_folder, schemas
from retina.results.run_folder import RunFolder
from retina.sweep.ledger import Ledger

log = logging.getLogger(__name__)

WHERE = "retina train"
TRAIN_METRIC = "val_accuracy"
"""Chooses a network's epoch and the best network. The report followed the test accuracy; here test chooses nothing."""
GO_ON = "go on with what it holds (--load 1)"
LOCAL = "local"
"""In environment.json, the backend of a folder that `retina train` has written."""


@dataclass(frozen=True)
class TrainPlan:
    """What to train.

    Attributes:
        root: the results folder; its name is the sweep's.
        configs: the networks to train, which differ in `COMPARED_SETTINGS` only.
        data: the dataset.
        weights: file or folder of pretrained weights; None: torchvision's.
    """

    root: Path
    configs: tuple[TrialConfig, ...]
    data: DataConfig
    weights: Path | None = None

    def spec(self, recorded: Iterable[TrialConfig] = ()) -> SweepSpec:
        """Return the sweep of this plan's networks and of those that the folder holds already.

        It is a grid where every architecture occurs with the same choices of `pretrained`; otherwise, a list of start
        points.

        Args:
            recorded: the networks that the folder holds, which come first.

        Raises:
            SpecError: the folder's name is not allowed as the name of a sweep.
        """
        configs = list(dict.fromkeys([*recorded, *self.configs]))
        shared = {key: getattr(configs[0], key) for key in SHARED_SETTINGS if key != "seed"}
        default = TrialConfig()
        settings = {key: {"value": value} for key, value in shared.items() if value != getattr(default, key)}
        cells = [{key: getattr(config, key) for key in COMPARED_SETTINGS} for config in configs]
        values = {key: list(dict.fromkeys(cell[key] for cell in cells)) for key in COMPARED_SETTINGS}
        is_grid = len(values["arch"]) * len(values["pretrained"]) == len(cells)
        whole = {
            "name": self.root.name,
            "data": self.data,
            "metric": {"name": TRAIN_METRIC},
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


def create_plan(
    root: Path,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    pretrained: Iterable[bool],
    weights: Path | None = None,
) -> TrainPlan:
    """Return the plan of a command line.

    Args:
        root: the results folder; its name is the sweep's.
        settings: fields of `TrialConfig`, without `pretrained`.
        data: fields of `DataConfig`; `path` is made absolute, links are not followed.
        pretrained: one network is trained for each.
        weights: see `TrainPlan`.

    Raises:
        SpecError: a setting or the folder's name is not allowed.
    """
    configs = tuple(parse(TrialConfig, {**settings, "pretrained": value}, WHERE) for value in pretrained)
    path = str(data["path"])
    absolute = path if path in {"synthetic", ""} else os.path.abspath(Path(path).expanduser())  # noqa: PTH100  # no links
    plan = TrainPlan(root.absolute(), configs, parse(DataConfig, {**data, "path": absolute}, WHERE), weights)
    plan.spec()  # refuses a name that is not allowed before anything is read
    return plan


def refuse_other_settings(plan: TrainPlan) -> None:
    """Raise if the networks of an existing folder cannot be compared with those of the plan.

    Raises:
        ResultsError: it is no results folder, it is one of `retina sweep`, or its settings differ; names the first
            differences.
    """
    folder = RunFolder.open(plan.root)
    notes = folder.metadata()
    if "study" in notes and notes.get("backend") != LOCAL:
        raise ResultsError(f"{folder.root}: is a sweep's; it goes on with python tune_main.py --resume")
    before = folder.spec()
    changed = _changes(before.data, _with_layout(plan.data, before.data.layout), list(DataConfig.model_fields))
    for config in list(folder.configs().values())[:1]:  # the others have the same settings
        changed += _changes(config, plan.configs[0], SHARED_SETTINGS)
    if changed:
        raise ResultsError(
            f"{folder.root}: was trained with other settings: {'; '.join(changed[:4])}\n"
            "--load wants the flags that it was begun with; for others choose another --name"
        )


def refuse_changed_photographs(folder: RunFolder, photographs: FundusDataset) -> None:
    """Raise if the dataset is not the one that the folder's networks were trained on.

    Raises:
        ResultsError: its fingerprint differs, or environment.json does not hold one.
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


def unfinished(folder: RunFolder, plan: TrainPlan) -> list[TrialConfig]:
    """Return the networks that are left to train.

    These are the ones of the plan that are not COMPLETE, and those of the folder that were interrupted or that failed
    because the disk was full.
    """
    configs = folder.configs()
    complete = [configs[trial_id] for trial_id in folder.trial_ids("COMPLETE")]
    failed = [
        name for name in folder.trial_ids("FAIL") if checkpoints.NOT_SAVED in str(folder.trial_row(name).get("reason"))
    ]
    left = [configs[trial_id] for trial_id in (*folder.trial_ids("RUNNING"), *failed)]
    return list(dict.fromkeys([*left, *(config for config in plan.configs if config not in complete)]))


def open_ledger(
    plan: TrainPlan, spec: SweepSpec, photographs: FundusDataset | None
) -> tuple[SweepSpec, RunFolder, Ledger]:
    """Open the ledger of the plan's folder and let those networks of the plan be trained again that failed.

    The folder's networks are added to the sweep; a folder without study.db, which earlier versions of `retina train`
    wrote, gets one.

    Args:
        plan: what to train.
        spec: the sweep, of whose dataset the layout is known.
        photographs: the dataset; None if nothing is left to train.

    Returns:
        The sweep to run, the folder and its ledger.

    Raises:
        ResultsError: the photographs are not those of the folder, or a file of the folder is damaged.
    """
    folder = RunFolder.open(plan.root)
    configs = folder.configs()
    spec = plan.spec(configs.values()).model_copy(update={"data": spec.data})
    if photographs is None:
        return spec, folder, _ledger(spec, folder)
    refuse_changed_photographs(folder, photographs)
    notes = folder.metadata()
    if configs:
        now = environment.describe_environment()
        if (notes.get("code") or {}).get("source") != now["code"]["source"]:
            log.warning("note: the code has changed since %s began", folder.root)
        folder.update_metadata(resumed=[*(notes.get("resumed") or []), now], code=now["code"])
    files.write_text(folder.root / "sweep.yaml", spec.to_yaml())
    folder.update_metadata(interrupted=True)  # until the sweep has ended
    ledger = _ledger(spec, folder)
    for trial_id, config in folder.configs().items():
        if config in plan.configs and folder.trial_row(trial_id)["state"] == "FAIL":
            ledger.retry(trial_id)
    return spec, folder, ledger


def is_evaluated(folder: RunFolder, trial_id: str) -> bool:
    """Return whether `best/` holds the evaluation of a trial's best epoch, with every file as it was written."""
    file = folder.best / "metrics.json"
    try:
        checksums.verify_best(folder.best, *BEST_TRIAL_FILES)
        metrics = readers.read_object(file, schemas.Metrics, run_folder.METRICS_REMEDY) or {}
    except ResultsError as error:
        log.warning("note: the best run is evaluated again: %s", str(error).partition(";\n")[0])
        return False
    best_epoch = int(folder.trial_row(trial_id)["best_epoch"])  # `RunFolder.configs` has refused rows without it
    return (metrics.get("trial_id"), metrics.get("epoch")) == (trial_id, best_epoch)


def _ledger(spec: SweepSpec, folder: RunFolder) -> Ledger:
    folder.update_metadata(backend=LOCAL)  # first: a study without it is taken for that of `retina sweep`
    return Ledger.open(spec, folder, keep_failed=True)


def _changes(then: DataConfig | TrialConfig, now: DataConfig | TrialConfig, keys: list[str]) -> list[str]:
    pairs = [(key, getattr(then, key), getattr(now, key)) for key in keys]
    return [f"{key} was {old}, now {new}" for key, old, new in pairs if old != new]


def _with_layout(data: DataConfig, layout: str) -> DataConfig:
    return data.model_copy(update={"layout": layout})
