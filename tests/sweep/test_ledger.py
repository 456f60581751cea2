"""The ledger: a changed space, limits, full disks. No Ray."""

from __future__ import annotations

import errno
import math
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_curves import ReplayTask, epoch_result
from ledger_runs import PARAMETERS, again, begun, kept, locked, result, run_one, save, spec_of, trials_of

from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.results import checkpoints
from retina.results.run_folder import RunFolder
from retina.sweep import study_file
from retina.sweep.ledger import Ledger
from retina.sweep.limits import limit_reached
from retina.sweep.study import SweepStudy
from retina.sweep.study_file import STUDY_FILE
from retina.sweep.trainable import GraderTrainable, TrainableSettings
from retina.sweep.trial_report import TrialReport, from_tune
from retina.sweep.tune_hooks import LedgerCallback, trial_outcome


@pytest.mark.parametrize(
    ("last", "state", "reason"),
    [
        (None, "FAIL", "ended without a result"),
        (TrialReport(failure="the loss is nan"), "FAIL", "the loss is nan"),
        (TrialReport(epoch_result(4), 0.5, finished=True), "COMPLETE", ""),
        (TrialReport(epoch_result(2), 0.5), "PRUNED", "stopped at the rung of epoch 2"),
    ],
)
def test_the_verdict_follows_from_the_last_result(last: TrialReport | None, state: str, reason: str) -> None:
    assert trial_outcome(last) == (state, reason)


def test_the_best_so_far_is_what_counts(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "x")
    run_one(ledger, [0.2, 0.5, 0.3, math.nan])
    assert ledger.values("t0000") == {1: 0.2, 2: 0.5, 3: 0.5, 4: 0.5}
    (trial,) = trials_of(tmp_path / "x")
    assert (trial.state.name, trial.value, trial.intermediate_values) == ("COMPLETE", 0.5, ledger.values("t0000"))
    assert ledger.folder.trial_row("t0000")["best_epoch"] == 2


def test_less_is_better_for_a_loss(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "x", spec_of(metric={"name": "val_loss"}))
    run_one(ledger, [0.2, 0.5, 0.3])  # losses of 0.8, 0.5, 0.7
    assert ledger.values("t0000") == pytest.approx({1: 0.8, 2: 0.5, 3: 0.5})
    assert trials_of(tmp_path / "x")[0].value == pytest.approx(0.5)


def test_a_changed_space_keeps_the_tables_and_learns_from_what_lies_in_it(tmp_path: Path) -> None:
    root = tmp_path / "x"
    points = [
        {"batch_size": 4, "optimizer": "sgd", "momentum": 0.9},
        {"batch_size": 8, "optimizer": "adamw"},
        {"batch_size": 16, "optimizer": "sgd", "momentum": 0.85},
        {"batch_size": 16, "optimizer": "adamw"},
    ]
    ledger = begun(root, spec_of(start=points))
    run_one(ledger, [0.1, 0.2])
    run_one(ledger, [0.3], state="PRUNED", reason="stopped at the rung of epoch 1")
    run_one(ledger, [], state="FAIL", reason="the loss is nan")
    run_one(ledger, [0.4], state="")  # is running still
    smaller = {**PARAMETERS, "batch_size": {"values": [8, 16, 32]}, "dropout": {"values": [0.25, 0.5]}}
    changed = spec_of(parameters=smaller)
    ledger = Ledger.create(changed, RunFolder.open(root))
    learned = {trial.user_attrs["trial_id"]: trial for trial in trials_of(root)}
    assert list(learned) == ["t0001", "t0002", "t0003"]  # t0000 had a batch of 4
    assert [trial.state.name for trial in learned.values()] == ["PRUNED", "FAIL", "RUNNING"]
    assert learned["t0001"].params == {"batch_size": 8, "optimizer": "adamw", "dropout": 0.25}
    assert learned["t0001"].intermediate_values == {1: 0.3}
    assert ledger.ask()[0] == "t0003"
    assert ledger.ask()[0] == "t0004"  # names go on
    assert ledger.folder.trial_row("t0000")["val_qwk"] == 0.2
    back = Ledger.create(spec_of(start=points), RunFolder.open(root))
    assert back.ask()[1].batch_size in {4, 8, 16}


def test_a_running_trial_outside_the_changed_space_has_failed(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root, spec_of(start=[{"batch_size": 4, "optimizer": "adamw"}]))
    run_one(ledger, [0.1], state="")
    larger = {**PARAMETERS, "batch_size": {"values": [64, 128]}}
    changed = Ledger.create(spec_of(parameters=larger), RunFolder.open(root))
    assert changed.folder.trial_row("t0000")["state"] == "FAIL"
    assert changed.folder.trial_row("t0000")["reason"] == "outside the space since it was changed"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-1, 1) | st.just(math.nan), min_size=1, max_size=12), st.sampled_from(["val_qwk", "val_loss"])
)
def test_values_never_get_worse(curve: list[float], metric: str) -> None:

    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place) / "x")
        ledger = Ledger(spec_of(metric={"name": metric}), folder, SweepStudy.create(spec_of()))
        for epoch, value in enumerate(curve, start=1):
            folder.record_epoch("t0000", epoch, **{metric: value})
        values = list(ledger.values("t0000").values())
    known = [value for value in curve if math.isfinite(value)]
    best = (max if metric == "val_qwk" else min)(known, default=None)
    assert (values[-1] if values else None) == best
    assert values == sorted(values, reverse=metric == "val_loss")


def test_everything_in_a_trial_can_be_searched() -> None:
    fields = TrialConfig.model_fields
    for name in fields:
        default = getattr(TrialConfig(), name)
        spec = spec_of(parameters={name: {"values": [default]}}, trials=1)
        assert getattr(SweepStudy.create(spec).ask()[1], name) == default


@pytest.mark.parametrize(
    "limit", [{"budget": {"hours": 1e-9}}, {"metric": {"name": "val_qwk", "target": 0.25}}], ids=["hours", "target"]
)
def test_a_limit_reached_before_the_sweep_goes_on_ends_what_was_running(tmp_path: Path, limit: dict[str, Any]) -> None:
    root = tmp_path / "x"
    ledger = begun(root, spec_of(**limit))
    run_one(ledger, [0.1, 0.2])
    save(root, run_one(ledger, [0.3], state=""), [0.3], 1)
    ledger.ask()  # has no epoch yet
    resumed = again(root, spec_of(**limit))
    resumed.close()
    resumed.close()
    table = resumed.folder.trials()
    assert table["state"].tolist() == ["COMPLETE", "PRUNED", "PRUNED"]
    assert table["reason"].str.contains("before its first epoch was over").tolist()[1:] == [False, True]
    assert [trial.state.name for trial in trials_of(root)] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert limit_reached(spec_of(**limit), resumed.folder, resumed.seconds).startswith(
        ("budget.hours", "metric.target")
    )


def test_fewer_trials_than_were_begun_leave_nothing_running(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.2])
    save(root, run_one(ledger, [0.3], state=""), [0.3], 1)
    ledger.folder.flush()
    fewer = again(root, spec_of(trials=1))
    assert fewer.close() == ""
    assert fewer.folder.trials()["state"].tolist() == ["COMPLETE", "PRUNED"]
    assert fewer.folder.trials()["reason"][1] == "stopped by trials=1"
    assert all(trial.state.is_finished() for trial in trials_of(root))


def test_the_study_names_the_sweeps_best_trial_also_where_it_was_stopped_early(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.2])
    run_one(ledger, [0.5, 0.4], state="PRUNED", reason="stopped at the rung of epoch 2")
    ledger.close()
    storage = f"sqlite:///{root / STUDY_FILE}"
    study = optuna.load_study(study_name=optuna.get_all_study_names(storage)[0], storage=storage)
    assert study.user_attrs["best"] == {"trial_id": "t0001", "epoch": 1, "value": 0.5}
    assert ledger.best == "t0001"


def test_a_changed_grid_runs_only_what_is_new(tmp_path: Path) -> None:
    def grid(sizes: list[int]) -> SweepSpec:
        parameters = {
            "epochs": {"value": 4},
            "batch_size": {"values": sizes},
            "optimizer": {"values": ["sgd", "adamw"]},
        }
        return spec_of(method="grid", trials=None, parameters=parameters)

    root = tmp_path / "x"
    ledger = begun(root, grid([4, 8]))
    while ledger.remaining:
        run_one(ledger, [0.1])
    larger = Ledger.create(grid([4, 8, 16]), RunFolder.open(root))
    while larger.remaining:
        run_one(larger, [0.1])
    table = larger.folder.trials()
    assert len(table) == 6
    assert not table.duplicated(["batch_size", "optimizer"]).any()
    assert set(table["batch_size"]) == {4, 8, 16}


def test_start_points_are_tried_once_also_when_the_driver_was_killed_among_them(tmp_path: Path) -> None:
    root = tmp_path / "x"
    points = [{"optimizer": "adamw"}, {"batch_size": 4, "optimizer": "adamw"}, {"batch_size": 16, "optimizer": "adamw"}]
    run_one(begun(root, spec_of(start=points)), [0.1])
    resumed = again(root, spec_of(start=[*points, {"batch_size": 8, "optimizer": "adamw"}]))
    tried = [int(resumed.folder.trial_row("t0000")["batch_size"])]
    while len(tried) < 3 or not {4, 8, 16} <= set(tried):
        tried.append(resumed.ask()[1].batch_size)
    assert len(tried) == len(set(tried)) == 3


def test_an_abandoned_study_keeps_nothing_running(tmp_path: Path) -> None:
    root = tmp_path / "x"
    run_one(begun(root), [0.1], state="")
    Ledger.create(spec_of(parameters={**PARAMETERS, "dropout": {"values": [0.25, 0.5]}}), RunFolder.open(root))
    states = {trial.state.name for study in (0, 1) for trial in trials_of(root, study)}
    assert states == {"FAIL", "RUNNING"}
    again(root, spec_of(parameters={**PARAMETERS, "dropout": {"values": [0.25, 0.5]}})).close()
    (old,) = [study for study in (0, 1) if trials_of(root, study)[0].state.name == "FAIL"]
    assert trials_of(root, 1 - old)[0].state.name == "RUNNING"  # it goes on there


def test_a_full_disk_loses_nothing_that_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.2])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        for place in (
            "retina.results.files.write_text",
            "retina.results.files.write_csv",
            "retina.sweep.ledger.write_text",
        ):
            patch.setattr(place, full)
        patch.setattr("retina.sweep.ledger.write_json", full)
        patch.setattr(RunFolder, "log", full)
        patch.setattr(SweepStudy, "report", _broken_storage)
        run_one(ledger, [0.3, 0.4, 0.35], state="PRUNED", reason="stopped at the rung of epoch 3")
        assert [trial.state.name for trial in trials_of(root)] == ["COMPLETE", "RUNNING"]  # the tables come first
        assert RunFolder.open(root).trials()["trial_id"].tolist() == ["t0000"]
    ledger.close()
    assert RunFolder.open(root).trials()["val_qwk"].tolist() == [0.2, 0.4]
    assert trials_of(root)[1].intermediate_values == {1: 0.3, 2: 0.4, 3: 0.4}
    assert trials_of(root)[1].state.name == "PRUNED"


def test_a_trial_that_failed_for_want_of_disk_runs_again(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.2])
    full = f"epoch 2: {checkpoints.NOT_SAVED}: No space left on device"
    name = run_one(ledger, [0.3], state="FAIL", reason=full)
    run_one(ledger, [], state="FAIL", reason="the loss is nan")
    config = ledger.folder.configs()[name]
    ledger.close()
    for _ in range(2):  # killed before it began, it is asked for again, too
        resumed = again(root)
        assert resumed.folder.trial_ids("RUNNING") == [name]
        assert resumed.folder.trial_ids("FAIL") == ["t0002"]
    assert resumed.ask() == (name, config)
    resumed.started(name, config)
    for epoch, value in enumerate([0.3, 0.5, 0.4, 0.4], start=1):
        resumed.epoch(name, epoch, result(epoch, value))
    resumed.end(name, "COMPLETE", "")
    resumed.close()
    table = again(root).folder.trials()
    assert table["state"].tolist() == ["COMPLETE", "COMPLETE", "FAIL"]
    assert table["val_qwk"].tolist()[:2] == [0.2, 0.5]
    assert [one.state.name for one in trials_of(root) if one.user_attrs["trial_id"] == name] == ["FAIL", "COMPLETE"]


def test_a_damaged_checkpoint_does_not_keep_a_sweep_from_closing(tmp_path: Path) -> None:
    root = tmp_path / "x"
    limit = {"budget": {"hours": 1e-9}}
    ledger = begun(root, spec_of(**limit))
    run_one(ledger, [0.1, 0.2])
    running = [run_one(ledger, [0.3], state="") for _ in range(2)]
    state = {"training": {"epoch": 2}, "past": [result(1, 0.3), result(2, 0.6)], "best": (0.6, 2)}
    for name in running:
        checkpoints.save(root / "trials" / name, 2, {"layer": torch.zeros(100)}, state)
    file = root / "trials" / running[0] / "checkpoint_00002" / "state.pt"
    file.write_bytes(file.read_bytes()[:100])
    resumed = again(root, spec_of(**limit))
    assert resumed.close() == "budget.hours=1e-09"
    table = resumed.folder.trials()
    assert table["state"].tolist() == ["COMPLETE", "FAIL", "PRUNED"]
    assert table["reason"][1].endswith("its checkpoint cannot be read, so its weights are lost")
    assert resumed.best == running[1]


LIMITED = {"budget": {"hours": 1e-9}}


def test_no_epoch_is_the_best_whose_weights_are_lost(tmp_path: Path) -> None:
    """A trial that begins anew, since its checkpoint is damaged, is ended by a limit before it is as good again."""
    root = tmp_path / "x"
    first = work(begun(root), 3)
    state = root / "trials" / "t0000" / "checkpoint_00003" / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    resumed = again(root, spec_of(**LIMITED))
    (anew,) = work(resumed, 1)
    assert anew == first[0]  # not the third, which it would have come to
    resumed.close()
    row = resumed.folder.trial_row("t0000")
    assert (row["state"], row["epochs_run"], row["best_epoch"], row["val_qwk"]) == ("PRUNED", 1, 1, first[0])
    assert resumed.folder.history()["epoch"].tolist() == [1]
    assert (resumed.best, kept(root, "t0000")) == ("t0000", 1)


def test_a_trial_that_goes_on_keeps_what_it_reached(tmp_path: Path) -> None:
    root = tmp_path / "x"
    values = work(begun(root), 3)
    resumed = again(root, spec_of(**LIMITED))
    assert work(resumed, 1) == values[2:]  # from its checkpoint
    resumed.close()
    row = resumed.folder.trial_row("t0000")
    assert (row["epochs_run"], row["best_epoch"], row["val_qwk"]) == (3, 3, values[2])
    assert kept(root, "t0000") == 3


def test_a_trial_that_runs_again_for_want_of_disk_begins_with_no_epoch(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    name = run_one(ledger, [0.3, 0.9, 0.5], state="FAIL", reason=f"epoch 4: {checkpoints.NOT_SAVED}: full")
    ledger.close()
    resumed = again(root, spec_of(**LIMITED))
    assert (resumed.values(name), resumed.folder.epochs(name)) == ({}, [])
    assert "val_qwk" not in resumed.folder.trial_row(name)
    run_one(resumed, [0.2], state="")
    save(root, name, [0.2], 1)
    resumed.close()
    row = resumed.folder.trial_row(name)
    assert (row["state"], row["epochs_run"], row["best_epoch"], row["val_qwk"]) == ("PRUNED", 1, 1, 0.2)
    assert (resumed.best, kept(root, name)) == (name, 1)
    assert trials_of(root)[-1].intermediate_values == {1: 0.2}


@pytest.mark.parametrize("held", [0, 1])
def test_a_limit_ends_a_trial_with_the_weights_that_are_there(tmp_path: Path, held: int) -> None:
    root = tmp_path / "x"
    ledger = begun(root, spec_of(**LIMITED))
    done = run_one(ledger, [0.1, 0.2], state="")
    save(root, done, [0.1, 0.2], 2)
    ledger.end(done, "COMPLETE", "")
    name = run_one(ledger, [0.3, 0.4, 0.9], state="")
    if held:
        save(root, name, [0.3, 0.4, 0.9], held)  # of the third there are none
    ledger.folder.flush()
    resumed = again(root, spec_of(**LIMITED))
    resumed.close()
    row = resumed.folder.trial_row(name)
    if held:
        assert (row["state"], row["best_epoch"], row["val_qwk"]) == ("PRUNED", 1, 0.3)
        assert (resumed.best, kept(root, name)) == (name, 1)
    else:
        assert row["state"] == "FAIL"
        assert row["reason"].endswith("; its checkpoint is missing, so its weights are lost")
        assert (resumed.best, kept(root, done)) == (done, 2)


def test_what_a_locked_study_could_not_be_told_it_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(study_file, "BUSY_SECONDS", 0.05)
    root = tmp_path / "x"
    ledger = begun(root)
    name = run_one(ledger, [0.3, 0.4], state="")
    with locked(root):
        ledger.end(name, "COMPLETE", "")
    assert "cannot be written to now; the sweep continues" in caplog.text
    assert trials_of(root)[0].state.name == "RUNNING"
    ledger.close()
    assert [(one.state.name, one.value) for one in trials_of(root)] == [("COMPLETE", 0.4)]
    assert again(root).folder.trials()["state"].tolist() == ["COMPLETE"]


def test_a_trial_that_a_locked_study_cannot_give_back_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_file, "BUSY_SECONDS", 0.05)
    root = tmp_path / "x"
    ledger = begun(root)
    asked = ledger.ask()
    with locked(root), pytest.raises(optuna.exceptions.StorageInternalError):
        ledger.requeue(asked[0])
    ledger.requeue(asked[0])
    with locked(root), pytest.raises(optuna.exceptions.StorageInternalError):
        ledger.ask()
    assert ledger.ask() == asked


@pytest.mark.parametrize("reason", ["x" * 200_000, "a\0b", "\n".join(["y" * 900] * 300)], ids=["long", "NUL", "lines"])
def test_a_reason_of_any_length_leaves_tables_that_can_be_read(tmp_path: Path, reason: str) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    name = run_one(ledger, [0.1], state="FAIL", reason=reason)
    ledger.close()
    content = again(root).folder.trial_row(name)["reason"]
    assert content[:1] == reason[:1]
    assert len(content) <= 4000
    assert (root / "trials" / name / "error.txt").read_text() == reason.replace("\0", "\\x00") + "\n"


def work(ledger: Ledger, epochs: int) -> list[float]:
    """A worker of the next trial and so many epochs in it, reported as in a sweep; then both are killed."""
    name, config = ledger.ask()
    values = {"trial": name, "config": config.model_dump(mode="json")}
    trial: Any = SimpleNamespace(config=values, last_result={}, num_failures=0)
    recorder = LedgerCallback(ledger, [])
    recorder.on_trial_start(0, [trial], trial)
    worker = GraderTrainable.__new__(GraderTrainable)  # Tune's own __init__ wants a session
    trials = ledger.folder.root / "trials"
    worker.setup(
        values, ReplayTask(), TrainableSettings(trials, "val_qwk", sign=1, threads=1, gpu=False, rungs=frozenset())
    )
    found = []
    for _ in range(epochs):
        values = worker.step()
        recorder.on_trial_result(0, [trial], trial, values)
        report = from_tune(values)
        assert report
        assert report.result
        found.append(report.result.val_qwk)
    worker.cleanup()
    ledger.folder.flush()
    return found


def _broken_storage(*_: Any, **__: Any) -> None:
    raise optuna.exceptions.StorageInternalError("database or disk is full")


def test_a_trial_that_never_began_is_put_back_and_keeps_its_name(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "x")
    asked = ledger.ask()
    ledger.requeue(asked[0])
    assert ledger.ask() == asked
    assert ledger.folder.trial_ids() == ["t0000"]
