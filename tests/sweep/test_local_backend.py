"""The backend that runs trials in this process, on replayed learning curves: no Ray, no network."""

from __future__ import annotations

import errno
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import tiny_dataset
import torch
from learning_curves import Broken, FullDisk, Replay, ReplayTask, rising
from ledger_runs import Killed, again, begun, kept, trials_of

from benchmarks.search.simulate import SimulatedBackend
from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.errors import ResultsError, SpecError
from retina.results import checkpoints, environment
from retina.results.run_folder import RunFolder
from retina.sweep import local_backend, train_plan
from retina.sweep.backend import Backend, SweepResult
from retina.sweep.ledger import Ledger
from retina.sweep.trainable import GraderTrainable, TrainableSettings
from retina.sweep.tune_hooks import LedgerCallback
from retina.training.epochs import EpochResult

RATES = [1e-3, 1e-2]
TIMES = ["seconds", "images_per_second"]


def spec_of(**changes: Any) -> SweepSpec:
    grid = {
        "epochs": {"value": 4},
        "pretrained": {"value": False},
        "learning_rate": {"values": RATES},
    }
    whole = {"name": "local", "method": "grid", "early_stop": {"type": "none"}, "keep": {"trials": 2}}
    return SweepSpec(**{**whole, "parameters": grid, **changes})


def run(ledger: Ledger, task: Callable[[TrialConfig], Any] = Replay) -> SweepResult:
    return local_backend.run(ledger.spec, ledger, task)


def tables(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = RunFolder.open(root)
    return folder.trials().drop(columns=TIMES), folder.history().drop(columns=TIMES)


def assert_same_tables(one: Path, other: Path) -> None:
    for table, expected in zip(tables(one), tables(other), strict=True):
        pd.testing.assert_frame_equal(table, expected)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A sweep that was never interrupted."""
    run(begun(tmp_path / "whole", spec_of()))
    return tmp_path / "whole"


@dataclass
class Stopped(Replay):
    """Raises `error` in the epoch after `after`, once."""

    after: int = 2
    error: type[BaseException] = KeyboardInterrupt

    def __next__(self) -> EpochResult:
        if self.epoch == self.after:
            raise self.error
        return super().__next__()


def peaked(config: TrialConfig, epoch: int) -> float:
    """Best in the second epoch, so that the checkpoint is older than the last epoch."""
    return rising(config, epoch) * (0.5 if epoch > 2 else 1)


def test_every_trial_is_run_and_the_best_is_named(whole: Path) -> None:
    assert RunFolder.open(whole).trial_ids("COMPLETE") == ["t0000", "t0001"]
    ledger = again(whole, spec_of())
    assert run(ledger, Broken()) == SweepResult(best="t0000", ended_by="", interrupted=False)  # nothing is left to run
    assert [trial.state.name for trial in trials_of(whole)] == ["COMPLETE", "COMPLETE"]
    assert [kept(whole, name) for name in ("t0000", "t0001")] == [4, 4]


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("curve", [rising, peaked])
def test_what_was_interrupted_continues_and_has_the_same_results(
    tmp_path: Path, after: int, curve: Callable[[TrialConfig, int], float]
) -> None:
    run(begun(tmp_path / "whole", spec_of()), ReplayTask(curve))
    root = tmp_path / "x"
    result = run(begun(root, spec_of()), lambda config: Stopped(config, curve, after=after))
    assert result == SweepResult(best=None, ended_by="", interrupted=True)
    assert RunFolder.open(root).trial_ids("RUNNING") == ["t0000"]
    assert run(again(root, spec_of()), ReplayTask(curve)) == SweepResult("t0000", ended_by="", interrupted=False)
    assert_same_tables(root, tmp_path / "whole")


def test_a_process_killed_between_checkpoint_and_tables_loses_no_epoch(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, ledger = tmp_path / "x", begun(tmp_path / "x", spec_of())

    def die(*_: Any) -> None:
        raise Killed

    save = checkpoints.save

    def save_and_die(folder: Path, epoch: int, *rest: Any) -> None:
        save(folder, epoch, *rest)
        if epoch == 3:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", save_and_die)
        patched.setattr(ledger, "close", die)  # a killed process closes nothing
        with pytest.raises(Killed):
            run(ledger)
    assert 3 not in set(RunFolder.open(root).history()["epoch"])
    begun_at: list[int] = []

    def task(config: TrialConfig) -> Replay:
        return Noting(config, notes=begun_at)

    run(again(root, spec_of()), task)
    assert begun_at == [4, 1, 2, 3, 4]
    assert_same_tables(root, whole)


class Noting(Replay):
    """Notes each epoch that is trained."""

    def __init__(self, config: TrialConfig, notes: list[int]) -> None:
        super().__init__(config)
        self._notes = notes

    def __next__(self) -> EpochResult:
        result = super().__next__()
        self._notes.append(result.epoch)
        return result


@pytest.mark.parametrize("file", ["model.pt", "state.pt"])
def test_a_trial_whose_checkpoint_is_damaged_begins_again(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    root = tmp_path / "x"
    run(begun(root, spec_of()), lambda config: Stopped(config, after=3))
    (checkpoint,) = (root / "trials" / "t0000").glob("checkpoint_*")
    (checkpoint / file).write_bytes((checkpoint / file).read_bytes()[:-40])
    seen: list[int] = []

    def task(config: TrialConfig) -> Replay:
        seen.append(len(RunFolder.open(root).epochs("t0000")))
        return Replay(config)

    run(again(root, spec_of()), task)
    assert "cannot be read" in caplog.text
    assert seen[0] == 3
    assert_same_tables(root, whole)


class Strange(Replay):
    """Its state does not fit any other."""

    def load_state_dict(self, model_state: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        raise RuntimeError("size mismatch for fc.weight")


def test_a_checkpoint_of_another_model_is_not_used(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "x"
    run(begun(root, spec_of()), lambda config: Stopped(config, after=3))
    run(again(root, spec_of()), Strange)
    assert "its checkpoint does not fit, it begins again: size mismatch" in caplog.text
    assert_same_tables(root, whole)


def diverging(config: TrialConfig, epoch: int) -> float:
    return math.nan if config.learning_rate == RATES[0] and epoch == 3 else rising(config, epoch)


def test_a_trial_that_fails_has_a_reason_and_the_next_one_runs(tmp_path: Path) -> None:
    root = tmp_path / "x"
    assert run(begun(root, spec_of()), ReplayTask(diverging)).best == "t0001"
    trials = RunFolder.open(root).trials().set_index("trial_id")
    assert trials["state"].tolist() == ["FAIL", "COMPLETE"]
    assert trials.loc["t0000", "reason"] == "epoch 3, step 1: the training loss is nan"
    assert (root / "trials" / "t0000" / "error.txt").read_text() == "epoch 3, step 1: the training loss is nan\n"
    assert [trial.state.name for trial in trials_of(root)] == ["FAIL", "COMPLETE"]


def test_an_unexpected_error_fails_the_trial_with_its_traceback(tmp_path: Path) -> None:
    root = tmp_path / "x"
    assert run(begun(root, spec_of()), Broken()) == SweepResult(best=None, ended_by="", interrupted=False)
    assert RunFolder.open(root).trials()["reason"].tolist() == ["ZeroDivisionError: a defect"] * 2
    assert "Traceback" in (root / "trials" / "t0001" / "error.txt").read_text()


class Endless(Replay):
    """Its metric is not finite."""

    def __next__(self) -> EpochResult:
        self.epoch += 1
        values = dict.fromkeys(("train", "val"), math.inf)
        measures = {f"{split}_{name}": value for split, value in values.items() for name in ("loss", "accuracy", "qwk")}
        return EpochResult(self.epoch, 1e-3, **measures, val_auc=math.nan, images_per_second=9.0, seconds=1.0)


def test_a_metric_that_is_not_finite_fails_the_trial(tmp_path: Path) -> None:
    root = tmp_path / "x"
    run(begun(root, spec_of()), Endless)
    assert RunFolder.open(root).trials()["reason"].tolist() == ["epoch 1: val_qwk is not finite"] * 2
    assert not list(root.glob("trials/*/checkpoint_*"))


def test_a_full_disk_fails_the_trial_and_it_runs_again(tmp_path: Path, whole: Path) -> None:
    root = tmp_path / "x"
    assert run(begun(root, spec_of()), FullDisk(rising)).best == "t0000"
    reason = RunFolder.open(root).trial_row("t0001")["reason"]
    assert reason == f"epoch 3: {checkpoints.NOT_SAVED}: {os.strerror(errno.ENOSPC)}"
    resumed = again(root, spec_of())
    assert resumed.remaining == 1
    run(resumed)
    assert_same_tables(root, whole)
    assert not (root / "trials" / "t0001" / "error.txt").exists()


@pytest.mark.parametrize("keep_failed", [True, False])
def test_a_failed_trial_that_is_tried_again_goes_on_from_its_checkpoint_if_that_was_kept(
    tmp_path: Path, whole: Path, keep_failed: bool
) -> None:
    root = tmp_path / "x"
    begun(root, spec_of()).close()
    run(Ledger.open(spec_of(), RunFolder.open(root), keep_failed=keep_failed), ReplayTask(diverging))
    ledger = Ledger.open(spec_of(), RunFolder.open(root), keep_failed=keep_failed)
    assert ledger.remaining == 0
    ledger.retry("t0000")
    epochs: list[int] = []
    run(ledger, lambda config: Noting(config, notes=epochs))
    assert epochs == ([3, 4] if keep_failed else [1, 2, 3, 4])
    assert_same_tables(root, whole)


def test_an_error_of_the_accelerator_ends_the_process_and_not_the_trial(tmp_path: Path, whole: Path) -> None:
    root = tmp_path / "x"
    with pytest.raises(torch.AcceleratorError):
        run(begun(root, spec_of()), lambda config: Stopped(config, error=torch.AcceleratorError))
    assert RunFolder.open(root).trial_ids("RUNNING") == ["t0000"]
    run(again(root, spec_of()))
    assert_same_tables(root, whole)


def test_a_limit_ends_the_sweep_within_a_trial(tmp_path: Path) -> None:
    root, spec = tmp_path / "x", spec_of(metric={"target": 0.3})
    result = run(begun(root, spec))
    assert result == SweepResult(best="t0000", ended_by="metric.target=0.3", interrupted=False)
    row = RunFolder.open(root).trial_row("t0000")
    assert (row["state"], row["epochs_run"]) == ("PRUNED", 2)
    assert kept(root, "t0000") == 2


def test_early_stopping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"early_stop\.type: .*; allowed: none"):
        run(begun(tmp_path / "x", spec_of(early_stop={"type": "asha"})))


def test_the_lines_name_trials_by_their_title(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = begun(tmp_path / "x", spec_of())
    with caplog.at_level(logging.INFO, logger="retina"):
        local_backend.run(ledger.spec, ledger, ReplayTask(), title=lambda config: f"rate {config.learning_rate:g}")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("retina")]
    assert lines[:2] == [
        "rate 0.001 begins",
        "rate 0.001, epoch 1 of 4: train 25.51%, validation 25.51%, the best on validation so far",
    ]
    assert not [line for line in lines if line.startswith("t000")]


@pytest.mark.parametrize("curve", [rising, peaked, diverging])
def test_the_tables_are_those_of_rays_workers(tmp_path: Path, curve: Callable[[TrialConfig, int], float]) -> None:
    """The same sweep by a worker's trainable and the callback that Tune would call, without Ray."""
    run(begun(tmp_path / "local", spec_of()), ReplayTask(curve))
    ledger = begun(tmp_path / "ray", spec_of())
    callback = LedgerCallback(ledger, [])
    while ledger.remaining:
        name, config = ledger.ask()
        values = {"trial": name, "config": config.model_dump(mode="json")}
        trial: Any = SimpleNamespace(config=values)
        callback.on_trial_start(0, [trial], trial)
        worker = GraderTrainable.__new__(GraderTrainable)  # Tune's own __init__ needs a session
        trials = ledger.folder.root / "trials"
        settings = TrainableSettings(trials, "val_qwk", sign=1, threads=1, gpu=False, rungs=frozenset())
        worker.setup(values, ReplayTask(curve), settings)
        while True:
            result = worker.step()
            callback.on_trial_result(0, [trial], trial, result)
            if result["done"]:
                break
        worker.cleanup()
    ledger.close()
    assert_same_tables(tmp_path / "local", tmp_path / "ray")
    for name in RunFolder.open(tmp_path / "ray").trial_ids("COMPLETE"):
        assert kept(tmp_path / "local", name) == kept(tmp_path / "ray", name)


@pytest.mark.parametrize("curve", [rising, peaked])
def test_a_simulated_sweep_has_the_same_tables(tmp_path: Path, curve: Callable[[TrialConfig, int], float]) -> None:
    backends: list[Backend] = [local_backend.LocalSession(), SimulatedBackend(workers=1)]
    results = []
    for number, backend in enumerate(backends):
        ledger = begun(tmp_path / str(number), spec_of())
        results.append(backend.run(ledger.spec, ledger, ReplayTask(curve)))
    assert results == [SweepResult(best="t0000", ended_by="", interrupted=False)] * 2
    assert_same_tables(tmp_path / "0", tmp_path / "1")


def test_a_simulated_sweep_stops_trials_early(tmp_path: Path) -> None:
    rates = {"values": [1e-3, 1e-2, 1e-1, 1.0]}
    spec = spec_of(
        early_stop={"type": "asha", "grace_epochs": 1, "eta": 2},
        parameters={"epochs": {"value": 4}, "pretrained": {"value": False}, "learning_rate": rates},
    )
    ledger = begun(tmp_path / "x", spec)
    assert SimulatedBackend().run(spec, ledger, ReplayTask()).best == "t0000"
    assert set(ledger.folder.trials()["state"]) == {"COMPLETE", "PRUNED"}


def test_a_folder_without_a_study_continues_and_gets_one(tmp_path: Path) -> None:
    """As earlier versions of `retina train` wrote it; other networks can be added to it later."""
    data = {"path": "synthetic", "image_size": 16}

    def plan_of(arch: str, *pretrained: bool) -> train_plan.TrainPlan:
        return train_plan.create_plan(tmp_path / "x", {"arch": arch, "epochs": 4}, data, pretrained=pretrained)

    def left(plan: train_plan.TrainPlan) -> list[tuple[str, bool]]:
        found = train_plan.unfinished(RunFolder.open(plan.root), plan)
        return [(config.arch, config.pretrained) for config in found]

    def go_on(plan: train_plan.TrainPlan) -> SweepResult:
        train_plan.refuse_other_settings(plan)
        spec, _, ledger = train_plan.open_ledger(plan, plan.spec(), tiny_dataset.photographs())
        return local_backend.run(spec, ledger, ReplayTask())

    plan = plan_of("resnet18", True, False)
    folder = environment.create_run_folder(plan.root, tiny_dataset.photographs(), plan.spec().to_yaml())
    for name, config, state in zip(["t0000", "t0001"], plan.configs, ["COMPLETE", "FAIL"], strict=True):
        if state == "COMPLETE":
            measures = {"val_accuracy": 0.5, "seconds": 1.0, "images_per_second": 9.0}
            folder.record_epoch(name, 1, **measures)
            folder.record_trial(name, epochs_run=1, best_epoch=1, **measures)
        folder.record_trial(name, state=state, **config.model_dump(mode="json"))
    assert not (plan.root / "study.db").exists()
    assert left(plan) == [("resnet18", False)]
    assert go_on(plan).interrupted is False
    other = plan_of("resnet50", True)
    assert left(plan) == []
    assert left(other) == [("resnet50", True)]
    assert go_on(other).ended_by == ""
    trials = RunFolder.open(plan.root).trials()
    assert trials[["trial_id", "arch", "pretrained", "state"]].to_numpy().tolist() == [
        ["t0000", "resnet18", True, "COMPLETE"],
        ["t0001", "resnet18", False, "COMPLETE"],
        ["t0002", "resnet50", True, "COMPLETE"],
    ]
    assert trials["epochs_run"].tolist() == [1, 4, 4]
    assert (plan.root / "study.db").is_file()
    with pytest.raises(ResultsError, match=r"learning_rate was 0\.001, now 0\.5"):
        train_plan.refuse_other_settings(
            train_plan.create_plan(plan.root, {"epochs": 4, "learning_rate": 0.5}, data, pretrained=[True])
        )


def test_no_ray_is_imported() -> None:
    script = "import sys, retina.sweep.local_backend, retina.sweep.api; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
