"""Sweep logic on learning curves that cost nothing, through real Ray and Optuna."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from learning_curves import Broken, Counting, Doomed, FullDisk, Mortal, Process, ReplayTask, Short, Talking, rising
from local_ray import local_ray

from retina.config import TrialConfig
from retina.config.sweep import Resources, SweepSpec
from retina.errors import SpecError
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.results.status import SweepStatus
from retina.sweep import ray_backend as sweep_run
from retina.sweep.cluster import trial_resources
from retina.sweep.ledger import Ledger
from retina.sweep.ray_backend import SweepResult
from retina.sweep.scheduler import ResumableASHAScheduler
from retina.sweep.study import trial_name

RATE = {"distribution": "log_uniform", "min": 1e-5, "max": 1e-1}


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with local_ray(cores=2):
        yield


def spec_of(**changes: Any) -> SweepSpec:
    parameters = {"epochs": {"value": 9}, "pretrained": {"value": False}, "learning_rate": RATE}
    usual = {"name": "replay", "trials": 6, "method": "tpe", "early_stop": {"grace_epochs": 2}}
    one_at_a_time = {"cpu": 2}  # a second worker would take as long to start as all the rest
    return SweepSpec(**{**usual, "parameters": parameters, "resources": one_at_a_time, **changes})


def sweep(spec: SweepSpec, root: Path, task: ReplayTask | None = None, **how: Any) -> tuple[SweepResult, RunFolder]:
    if how.pop("resume", False):
        ledger = Ledger.open(spec, RunFolder.open(root))
    else:
        write_text(RunFolder.create(root).root / "sweep.yaml", spec.to_yaml())
        ledger = Ledger.create(spec, RunFolder.open(root))
    outcome = sweep_run.run(spec, ledger, task or ReplayTask(), trial_resources(spec.resources), **how)
    return outcome, RunFolder.open(root)


def study(root: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{root / 'study.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


def falling_after_four(config: TrialConfig, epoch: int) -> float:
    """A curve that peaks at epoch 4, higher for smaller learning rates."""
    return 0.5 - 0.05 * abs(epoch - 4) - 0.02 * math.log10(config.learning_rate)


def diverging(config: TrialConfig, epoch: int) -> float:
    """NaN from epoch 3 on where the learning rate is high."""
    return math.nan if config.learning_rate > 1e-3 and epoch >= 3 else rising(config, epoch)


def by_rate(config: TrialConfig, epoch: int) -> float:
    """The smaller the learning rate, the better; grows with the epochs."""
    return -math.log10(config.learning_rate) / 10 * (1 - 0.5**epoch)


def test_tables_study_and_weights_say_the_same(tmp_path: Path) -> None:
    outcome, folder = sweep(spec_of(trials=10, resources={"cpu": 1}), tmp_path / "replay")
    trials, result = folder.trials().set_index("trial_id"), study(folder.root)
    assert len(trials) == len(result) == 10
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    for trial in result:
        row = trials.loc[trial_name(trial.number)]
        assert row["state"] == trial.state.name
        assert row["val_qwk"] == pytest.approx(trial.value)
        assert row["learning_rate"] == pytest.approx(trial.params["learning_rate"])
        assert row["epochs_run"] == len(trial.intermediate_values)
    assert outcome == SweepResult(best=trials["val_qwk"].idxmax(), ended_by="", interrupted=False)
    kept = {path.parent.name for path in folder.root.glob("trials/*/model.pt")}
    assert kept == set(trials["val_qwk"].nlargest(3).index)
    assert not list((folder.root / "tune").glob("*/checkpoint_*"))
    history = folder.history()
    assert (history.groupby("trial_id")["epoch"].max() == trials["epochs_run"]).all()
    assert not history.duplicated(["trial_id", "epoch"]).any()


def test_a_trial_stopped_at_a_rung_is_pruned_with_its_last_value(tmp_path: Path) -> None:
    start = [{"learning_rate": rate} for rate in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)]
    spec = spec_of(trials=5, start=start)  # one after another, the best first
    _, folder = sweep(spec, tmp_path / "replay", ReplayTask(by_rate))
    trials = folder.trials()
    assert trials["state"].tolist() == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "PRUNED"]
    assert trials["reason"].tolist()[1:] == ["stopped at the rung of epoch 2"] * 4
    for trial in study(folder.root)[1:]:
        config = TrialConfig(learning_rate=trial.params["learning_rate"])
        assert trial.intermediate_values == pytest.approx({1: by_rate(config, 1), 2: by_rate(config, 2)})


def test_the_best_epoch_counts_not_the_last(tmp_path: Path) -> None:
    spec = spec_of(trials=3, early_stop={"type": "none"})
    outcome, folder = sweep(spec, tmp_path / "replay", ReplayTask(falling_after_four))
    trials = folder.trials()
    assert (trials["best_epoch"] == 4).all()
    assert (trials["epochs_run"] == 9).all()
    for trial in study(folder.root):
        assert trial.value == pytest.approx(max(trial.intermediate_values.values()))
    weights = torch.load(folder.trial(outcome.best or "") / "model.pt", weights_only=True)
    assert int(weights["epoch"]) == 4


def test_a_loss_is_minimised(tmp_path: Path) -> None:
    outcome, folder = sweep(spec_of(trials=5, metric={"name": "val_loss"}), tmp_path / "replay")
    trials = folder.trials().set_index("trial_id")
    assert outcome.best == trials["val_loss"].idxmin()


def test_a_diverged_trial_fails_with_its_reason_and_the_sweep_goes_on(tmp_path: Path) -> None:
    start = [{"learning_rate": 1e-2}, {"learning_rate": 1e-4}]
    spec = spec_of(trials=2, start=start, early_stop={"type": "none"})
    outcome, folder = sweep(spec, tmp_path / "replay", ReplayTask(diverging))
    assert folder.trials()["state"].tolist() == ["FAIL", "COMPLETE"]
    assert folder.trials()["reason"][0] == "epoch 3, step 1: the training loss is nan"
    assert "the training loss is nan" in (folder.trial("t0000") / "error.txt").read_text()
    assert [trial.state.name for trial in study(folder.root)] == ["FAIL", "COMPLETE"]
    assert outcome.best == "t0001"
    assert not (folder.trial("t0000") / "model.pt").exists()


def test_a_defect_fails_the_trial_with_its_traceback(tmp_path: Path) -> None:
    outcome, folder = sweep(spec_of(trials=2), tmp_path / "replay", Broken())
    assert outcome == SweepResult(best=None, ended_by="", interrupted=False)
    assert folder.trials()["state"].tolist() == ["FAIL", "FAIL"]
    assert "ZeroDivisionError" in (folder.trial("t0001") / "error.txt").read_text()
    assert "Traceback" in (folder.trial("t0001") / "error.txt").read_text()


def test_a_killed_worker_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    spec = spec_of(trials=1, early_stop={"type": "none"})
    outcome, folder = sweep(spec, tmp_path / "replay", Mortal(mark=tmp_path / "died"))
    assert (tmp_path / "died").exists()
    row = folder.trials().iloc[0]
    assert (row["state"], row["epochs_run"]) == ("COMPLETE", 9)
    assert outcome.best == "t0000"
    log = (folder.trial("t0000") / "log.txt").read_text()
    assert log.count("epoch 5 of 9") == 1  # it went on after the fifth, it did not begin anew
    assert folder.history()["epoch"].tolist() == list(range(1, 10))
    assert [trial.state.name for trial in study(folder.root)] == ["COMPLETE"]


@pytest.mark.parametrize(
    ("limit", "ended_by"),
    [
        ({"metric": {"name": "val_qwk", "target": 0.1}}, "metric.target=0.1"),
        ({"budget": {"hours": 1e-6}}, "budget.hours=1e-06"),
    ],
)
def test_a_limit_ends_the_sweep_and_nothing_stays_running(tmp_path: Path, limit: dict[str, Any], ended_by: str) -> None:
    outcome, folder = sweep(spec_of(trials=50, resources={"cpu": 1}, **limit), tmp_path / "replay")
    assert outcome.ended_by == ended_by
    assert not outcome.interrupted
    assert len(folder.trials()) < 50
    assert "RUNNING" not in set(folder.trials()["state"])
    assert all(trial.state.is_finished() for trial in study(folder.root))
    rows = folder.trials().set_index("trial_id")
    kept = {
        weights.parent.name: torch.load(weights, weights_only=True) for weights in folder.root.glob("trials/*/*.pt")
    }
    assert {name: int(weights["epoch"]) for name, weights in kept.items()} == rows["best_epoch"][list(kept)].to_dict()
    assert outcome.best in kept or outcome.best is None
    again, _ = sweep(spec_of(trials=50, resources={"cpu": 1}, **limit), tmp_path / "replay", resume=True)
    assert again == outcome


def test_the_hours_of_an_interrupted_sweep_count_on(tmp_path: Path) -> None:
    spec = spec_of(budget={"hours": 1})
    folder = RunFolder.create(tmp_path / "replay")
    write_text(folder.root / "sweep.yaml", spec.to_yaml())
    assert Ledger.create(spec, folder).ended_by() == ""
    folder.update_metadata(seconds=3600.0)
    assert Ledger.open(spec, folder).ended_by() == "budget.hours=1"


def test_too_many_failures_end_the_sweep(tmp_path: Path) -> None:
    outcome, folder = sweep(spec_of(trials=50, budget={"max_failed": 3}), tmp_path / "replay", Broken())
    assert outcome.ended_by == "budget.max_failed=3"
    assert 3 <= (folder.trials()["state"] == "FAIL").sum() <= 5


def test_a_grid_runs_each_combination_once(tmp_path: Path) -> None:
    parameters = {
        "epochs": {"value": 2},
        "pretrained": {"values": [True, False]},
        "arch": {"values": ["resnet18", "resnet50"]},
        "batch_size": {"values": [4, 8], "ordered": True, "when": {"arch": "resnet50"}},
    }
    spec = spec_of(trials=None, method="grid", parameters=parameters, early_stop={"type": "none"})
    _, folder = sweep(spec, tmp_path / "replay")
    trials = folder.trials()
    seen = trials[["arch", "pretrained", "batch_size"]].value_counts()
    assert len(trials) == 6
    assert (seen == 1).all()
    assert set(trials.loc[trials["arch"] == "resnet18", "batch_size"]) == {TrialConfig().batch_size}
    assert (trials["state"] == "COMPLETE").all()


@pytest.mark.parametrize("method", ["tpe", "gp", "random"])
def test_every_method_starts_with_the_start_points_and_stays_in_the_space(tmp_path: Path, method: str) -> None:
    parameters = {
        "epochs": {"value": 2},
        "pretrained": {"value": False},
        "optimizer": {"values": ["sgd", "adamw"]},
        "momentum": {"distribution": "uniform", "min": 0.8, "max": 0.99, "when": {"optimizer": "sgd"}},
        "batch_size": {"values": [4, 12, 64], "ordered": True},
        "learning_rate": RATE,
        "dropout": {"distribution": "uniform", "min": 0.0, "max": 0.5, "step": 0.25},
    }
    start = [{"optimizer": "sgd", "momentum": 0.9, "batch_size": 12, "learning_rate": 1e-3, "dropout": 0.25}]
    spec = spec_of(trials=14, method=method, parameters=parameters, start=start, early_stop={"type": "none"})
    _, folder = sweep(spec, tmp_path / "replay")
    trials = folder.trials()
    first = trials.iloc[0][["optimizer", "momentum", "batch_size", "learning_rate", "dropout"]].to_dict()
    assert first == start[0]
    assert set(trials["batch_size"]) <= {4, 12, 64}
    assert set(trials["dropout"]) <= {0.0, 0.25, 0.5}
    assert trials["learning_rate"].between(1e-5, 1e-1).all()
    assert (trials.loc[trials["optimizer"] == "adamw", "momentum"] == TrialConfig().momentum).all()
    assert len(trials.drop_duplicates(["learning_rate", "batch_size", "optimizer", "momentum"])) == 14


def test_workers_are_used_again(tmp_path: Path) -> None:
    _, folder = sweep(spec_of(trials=6), tmp_path / "replay", Process())
    workers = folder.history().groupby("trial_id")["train_loss"].first()
    assert len(workers) == 6
    assert len(set(workers)) == 1


def test_all_slots_run_trials_that_are_shorter_than_a_workers_start(tmp_path: Path) -> None:
    limits = {"metric": {"name": "val_qwk", "target": 0.9}, "early_stop": {"type": "none"}}
    parameters = {"epochs": {"value": 3}, "pretrained": {"value": False}, "learning_rate": RATE}
    spec = spec_of(trials=200, method="random", parameters=parameters, resources={"cpu": 1}, **limits)
    outcome, folder = sweep(spec, tmp_path / "replay", Short(counts=tmp_path / "counts"))
    ran = [file.stat().st_size for file in (tmp_path / "counts").iterdir()]
    assert outcome.ended_by == "metric.target=0.9", f"trials by worker: {ran}"
    assert len(ran) == 2
    assert sum(ran) <= len(folder.trials())  # one may have been asked for, and not have begun, when the target was met


def test_a_trial_gets_its_share_of_the_machine() -> None:
    share = trial_resources(Resources())
    assert (share.cpu, share.gpu) == (1, 0)  # two cores here: two trials of one thread
    assert trial_resources(Resources(cpu=2)).cpu == 2


@pytest.mark.parametrize(
    ("wish", "message"), [({"gpu": 1}, "resources.gpu: 1 requested"), ({"cpu": 3}, "resources.cpu: 3")]
)
def test_more_than_the_machine_has_is_refused(wish: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        trial_resources(Resources(**wish))


def test_the_tables_have_the_columns_of_the_contract(tmp_path: Path) -> None:
    _, folder = sweep(spec_of(trials=1), tmp_path / "replay")
    trials = pd.read_csv(folder.root / "trials.csv")
    history = pd.read_csv(folder.root / "history.csv")
    assert list(trials.columns[:3]) == ["trial_id", "state", "arch"]
    assert {"epochs_run", "best_epoch", "val_qwk", "seconds", "images_per_second", "reason"} <= set(trials.columns)
    assert set(TrialConfig.model_fields) <= set(trials.columns)
    wanted = {"trial_id", "epoch", "learning_rate", "train_loss", "val_loss", "train_accuracy", "val_accuracy"}
    assert wanted | {"train_qwk", "val_qwk", "seconds"} <= set(history.columns)


def test_a_worker_that_dies_each_time_ends_its_trial_after_a_set_number_of_tries(tmp_path: Path) -> None:
    start = [{"learning_rate": 1e-2}, {"learning_rate": 1e-4}]
    spec = spec_of(trials=2, start=start, early_stop={"type": "none"})
    outcome, folder = sweep(spec, tmp_path / "replay", Doomed(ran=tmp_path / "ran"))
    assert (tmp_path / "ran").read_text() == "x" * (1 + sweep_run.WORKER_RETRIES)
    trials = folder.trials()
    assert trials["state"].tolist() == ["FAIL", "COMPLETE"]
    assert trials["reason"][0] == "its worker died 3 times"
    assert trials["epochs_run"].tolist() == [2, 9]
    assert "its worker died 3 times" in (folder.trial("t0000") / "error.txt").read_text()
    failed = study(folder.root)[0]
    assert (failed.state.name, failed.user_attrs["reason"]) == ("FAIL", "its worker died 3 times")
    assert outcome == SweepResult(best="t0001", ended_by="", interrupted=False)


def test_a_full_disk_fails_the_trial_and_nothing_else(tmp_path: Path) -> None:
    start = [{"learning_rate": 1e-4}, {"learning_rate": 1e-2}, {"learning_rate": 2e-4}]
    spec = spec_of(trials=3, start=start, early_stop={"type": "none"})
    outcome, folder = sweep(spec, tmp_path / "replay", FullDisk())
    trials = folder.trials()
    assert trials["state"].tolist() == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials["reason"][1] == "epoch 3: its weights cannot be saved: No space left on device"
    assert outcome.best == "t0002"
    kept = {path.parent.name for path in folder.root.glob("trials/*/model.pt")}
    assert kept == {"t0000", "t0002"}
    assert len(folder.history()) == 9 + 2 + 9


def test_only_the_kept_trials_have_weights_also_while_the_sweep_runs(tmp_path: Path) -> None:
    root = tmp_path / "replay"
    spec = spec_of(trials=20, keep={"trials": 2}, resources={"cpu": 1})
    _, folder = sweep(spec, root, Counting(folder=root / "trials"))
    running = 2 * 2  # two at once; while one saves a checkpoint, the one before is there too
    deciding = 1  # one that has just ended, before it is known whether it is kept
    assert folder.history()["train_loss"].max() <= 2 + running + deciding
    assert len(folder.trials()) == 20
    assert len(list((root / "trials").rglob("*.pt"))) == 2
    assert not list((root / "tune").rglob("*.pt"))


def test_a_sweep_is_extended_with_what_it_has_learned(tmp_path: Path) -> None:
    spec = spec_of(trials=4)
    _, folder = sweep(spec, tmp_path / "replay")
    before = folder.trials()
    outcome, after = sweep(spec.model_copy(update={"trials": 7}), tmp_path / "replay", resume=True)
    assert not outcome.interrupted
    assert after.trials()["trial_id"].tolist() == [trial_name(number) for number in range(7)]
    kept = ["state", "learning_rate", "epochs_run", "best_epoch", "val_qwk"]
    assert after.trials().head(4)[kept].to_dict() == before[kept].to_dict()
    assert len(study(after.root)) == 7
    assert after.trials()["learning_rate"].is_unique


def test_the_rungs_remember_the_trials_before(tmp_path: Path) -> None:
    start = [{"learning_rate": rate} for rate in (1e-5, 1e-4, 1e-3)]
    sweep(spec_of(trials=3, start=start), tmp_path / "replay", ReplayTask(by_rate))
    later = spec_of(trials=4, start=start)
    ledger = Ledger.open(later, RunFolder.open(tmp_path / "replay"))
    rungs = ResumableASHAScheduler(later)
    for name in ledger.folder.trial_ids():
        rungs.replay_trial(name, ledger.values(name))
    first, second = rungs.current_rungs()
    assert (first.epoch, first.trials, second.epoch, second.trials) == (2, 3, 6, 1)
    rates = [TrialConfig(learning_rate=point["learning_rate"]) for point in start]
    assert first.cutoff == pytest.approx(np.percentile([by_rate(config, 2) for config in rates], 100 * 2 / 3))


def test_whoever_watches_sees_the_sweep_as_it_goes(tmp_path: Path) -> None:
    seen: list[SweepStatus] = []
    spec = spec_of(trials=8, budget={"hours": 1})
    sweep(spec, tmp_path / "replay", watch=seen.append)
    assert seen
    last = seen[-1]
    assert (last.name, last.metric, last.planned, last.slots) == ("replay", "val_qwk", 8, 1)
    assert [rung.epoch for rung in last.rungs] == [2, 6]
    assert last.seconds_left is not None
    assert last.seconds_left <= 3600
    for status in seen:
        assert sum(status.states.values()) <= 8
        assert len(status.running) == status.states.get("RUNNING", 0) <= 1


def test_a_worker_s_words_go_to_its_trial_s_log(tmp_path: Path) -> None:
    _, folder = sweep(spec_of(trials=2), tmp_path / "replay", Talking())
    for name in ("t0000", "t0001"):
        rate = folder.trial_row(name)["learning_rate"]
        log = (folder.trial(name) / "log.txt").read_text()
        assert f"a word about {rate:.6g}" in log
    assert "a warning" in (folder.trial("t0000") / "log.txt").read_text()  # Python says the same one once
