"""The ledger: study and folder kept in step, a changed space, limits. No Ray."""

from __future__ import annotations

import errno
import math
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retina import checkpoints
from retina.config import TrialConfig
from retina.errors import ResultsError
from retina.results import RunFolder, write_text
from retina.sweep import study_file
from retina.sweep.ledger import Ledger, limit_reached
from retina.sweep.recorder import verdict
from retina.sweep.spec import SweepSpec
from retina.sweep.study import SweepStudy, sampler
from retina.sweep.study_file import STUDY_FILE

PARAMETERS: dict[str, Any] = {
    "epochs": {"value": 4},
    "pretrained": {"value": False},
    "batch_size": {"values": [4, 8, 16], "ordered": True},
    "optimizer": {"values": ["sgd", "adamw"]},
    "momentum": {"distribution": "uniform", "min": 0.8, "max": 0.99, "when": {"optimizer": "sgd"}},
}


class Killed(BaseException):
    """Stands for `kill -9`: nothing may catch it."""


def spec_of(**changes: Any) -> SweepSpec:
    return SweepSpec(**{"name": "ledger", "trials": 6, "parameters": PARAMETERS, **changes})


def begun(root: Path, spec: SweepSpec | None = None) -> Ledger:
    write_text(RunFolder.create(root).root / "sweep.yaml", "name: ledger\n")
    return Ledger.create(spec or spec_of(), RunFolder.open(root))


def again(root: Path, spec: SweepSpec | None = None) -> Ledger:
    return Ledger.open(spec or spec_of(), RunFolder.open(root))


def result(epoch: int, qwk: float) -> dict[str, Any]:
    return {"epoch": epoch, "val_qwk": qwk, "val_loss": 1 - qwk, "seconds": 1.0, "images_per_second": 9.0}


def run_one(ledger: Ledger, values: list[float], state: str = "COMPLETE", reason: str = "") -> str:
    name, config = ledger.ask()
    ledger.started(name, config)
    for epoch, value in enumerate(values, start=1):
        ledger.epoch(name, epoch, result(epoch, value))
    if state:
        ledger.end(name, state, reason)
    return name


def told(root: Path, study: int = -1) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{root / STUDY_FILE}"
    name = optuna.get_all_study_names(storage)[study]
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return [trial for trial in trials if trial.user_attrs.get("reason") != "tried before"]


@pytest.mark.parametrize(
    ("last", "state", "reason"),
    [
        (None, "FAIL", "ended without a result"),
        ({"failure": "the loss is nan", "epoch": 0}, "FAIL", "the loss is nan"),
        ({"finished": True, "epoch": 4}, "COMPLETE", ""),
        ({"finished": False, "epoch": 2}, "PRUNED", "stopped at the rung of epoch 2"),
    ],
)
def test_the_verdict_follows_from_the_last_result(last: dict[str, Any] | None, state: str, reason: str) -> None:
    assert verdict(last) == (state, reason)


def test_the_best_so_far_is_what_counts(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "x")
    run_one(ledger, [0.2, 0.5, 0.3, math.nan])
    assert ledger.values("t0000") == {1: 0.2, 2: 0.5, 3: 0.5, 4: 0.5}
    (trial,) = told(tmp_path / "x")
    assert (trial.state.name, trial.value, trial.intermediate_values) == ("COMPLETE", 0.5, ledger.values("t0000"))
    assert ledger.folder.recorded("t0000")["best_epoch"] == 2


def test_less_is_better_for_a_loss(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "x", spec_of(metric={"name": "val_loss"}))
    run_one(ledger, [0.2, 0.5, 0.3])  # losses of 0.8, 0.5, 0.7
    assert ledger.values("t0000") == pytest.approx({1: 0.8, 2: 0.5, 3: 0.5})
    assert told(tmp_path / "x")[0].value == pytest.approx(0.5)


MOMENTS: list[tuple[Any, str]] = [
    (SweepStudy, "ask"),
    (SweepStudy, "report"),
    (SweepStudy, "tell"),
    (RunFolder, "record_trial"),
    (RunFolder, "record_epoch"),
    (RunFolder, "log"),
    (Ledger, "_settle_weights"),
    (optuna.Trial, "set_user_attr"),
    (optuna.Trial, "suggest_categorical"),
    (optuna.Trial, "suggest_int"),
    (optuna.Study, "tell"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "method"), MOMENTS, ids=[f"{owner.__name__}.{name}" for owner, name in MOMENTS])
def test_killed_at_any_step_the_three_come_into_step_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, *, after: bool
) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.2])
    original: Callable[..., Any] = getattr(owner, method)

    def deadly(*arguments: Any, **more: Any) -> Any:
        if after:
            original(*arguments, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, deadly)
        with pytest.raises(Killed):
            run_one(ledger, [0.3, 0.4], state="PRUNED", reason="stopped at the rung of epoch 2")
    resumed = again(root)
    left = resumed.folder.trial_ids("RUNNING")
    while resumed.remaining:
        run_one(resumed, [0.3, 0.4, 0.35, 0.2])
    table, trials = resumed.folder.trials(), told(root)
    assert table["trial_id"].tolist() == [f"t{number:04d}" for number in range(6)]
    assert [trial.user_attrs["trial_id"] for trial in trials] == table["trial_id"].tolist()
    assert [trial.state.name for trial in trials] == table["state"].tolist()
    assert [trial.value for trial in trials] == pytest.approx(table["val_qwk"].tolist())
    assert set(left) <= {"t0001"}
    for trial, row in zip(trials, table.to_dict("records"), strict=True):
        assert trial.params["optimizer"] == row["optimizer"]
        assert sorted(trial.intermediate_values) == list(range(1, int(row["epochs_run"]) + 1))


def test_a_resumed_search_does_not_repeat_its_random_numbers(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    for _ in range(2):
        run_one(ledger, [0.1])
    run_one(again(root), [0.1])
    run_one(again(root), [0.1])
    rates = [trial.params.get("momentum") for trial in told(root) if "momentum" in trial.params]
    assert len(set(rates)) == len(rates)
    drawn = [sampler(spec_of(method="random"), n)._rng.rng.uniform() for n in range(20)]  # type: ignore[attr-defined]
    assert len(set(drawn)) == 20


def test_a_trial_that_was_begun_is_handed_out_again_before_a_new_one(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1])
    name, config = ledger.ask()
    assert again(root).ask() == (name, config)


@pytest.mark.parametrize("damage", ["gone", "truncated", "no database", "empty", "of something else", "another study"])
def test_a_lost_study_is_made_anew_from_the_tables_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.4, 0.2])
    run_one(ledger, [0.3], state="PRUNED", reason="stopped at the rung of epoch 1")
    run_one(ledger, [0.2], state="")
    ledger.folder.flush()
    before = [(one.state, one.params, one.intermediate_values) for one in told(root)]
    study = root / STUDY_FILE
    content = study.read_bytes()
    study.unlink()
    if damage == "of something else":
        with closing(sqlite3.connect(study)) as other:
            other.execute("CREATE TABLE letters (a TEXT)")
            other.commit()
    elif damage == "another study":
        optuna.create_study(study_name="another", storage=f"sqlite:///{study}")
    elif damage != "gone":
        study.write_bytes({"truncated": content[: len(content) // 2], "no database": b"x" * 9000, "empty": b""}[damage])
    was = study.read_bytes() if study.exists() else b""
    resumed = again(root)
    assert [(one.state, one.params, one.intermediate_values) for one in told(root)] == before
    (said,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert str(study) in said
    assert "a new study is made from trials.csv and history.csv" in said
    aside = root / f"{STUDY_FILE}.damaged-1"
    assert (aside.read_bytes() if aside.exists() else b"") == was  # nothing is thrown away
    assert run_one(resumed, [0.2, 0.3]) == "t0002"


def test_a_locked_study_and_one_of_another_optuna_are_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "x"
    run_one(begun(root), [0.1])
    monkeypatch.setattr(study_file, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(root / STUDY_FILE)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ResultsError, match=r"study.db: is locked by another process"):
            again(root)
        other.rollback()
        other.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
        other.commit()
    with pytest.raises(ResultsError, match=r"study.db: was written by another version of Optuna") as caught:
        again(root)
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) <= 3
    assert [file.name for file in root.glob("study*")] == [STUDY_FILE]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_rows_that_trials_csv_has_lost_are_restored_from_the_study(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.4, 0.2])
    run_one(ledger, [0.3], state="PRUNED", reason="stopped at the rung of epoch 1")
    run_one(ledger, [0.2], state="FAIL", reason="the loss is nan")
    run_one(ledger, [0.25], state="")
    ledger.folder.flush()
    file = root / "trials.csv"
    whole = file.read_text()
    if left:
        file.write_text("".join(whole.splitlines(keepends=True)[: 1 + left]))
    else:
        file.unlink()
    again(root).folder.flush()
    assert file.read_text() == whole
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert f"had lost {4 - left} trial(s)" in said[0]


def test_what_neither_knows_is_not_begun_anew_over_it(tmp_path: Path) -> None:
    root = tmp_path / "x"
    run_one(begun(root), [0.1, 0.4])
    (root / "trials.csv").unlink()
    (root / STUDY_FILE).write_bytes(b"x" * 100)
    with pytest.raises(
        ResultsError, match=r"trials.csv: lacks t0000, whose folder is in trials/, and study.db is damaged"
    ):
        again(root)
    assert (root / STUDY_FILE).read_bytes() == b"x" * 100


def test_a_sweep_whose_notes_do_not_name_its_study_goes_on_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.4])
    (root / "environment.json").unlink()
    before = [trial.datetime_start for trial in told(root)]
    resumed = again(root)
    assert [trial.datetime_start for trial in told(root)] == before
    assert "does not name the study" in caplog.text
    assert resumed.folder.notes()["study"] in optuna.get_all_study_names(f"sqlite:///{root / STUDY_FILE}")


def test_a_study_in_a_folder_with_an_odd_name_is_found(tmp_path: Path) -> None:
    root = tmp_path / "a {b} 100% ?c#d"
    run_one(begun(root), [0.1])
    assert run_one(again(root), [0.2]) == "t0001"
    assert (root / STUDY_FILE).is_file()


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
    learned = {trial.user_attrs["trial_id"]: trial for trial in told(root)}
    assert list(learned) == ["t0001", "t0002", "t0003"]  # t0000 had a batch of 4
    assert [trial.state.name for trial in learned.values()] == ["PRUNED", "FAIL", "RUNNING"]
    assert learned["t0001"].params == {"batch_size": 8, "optimizer": "adamw", "dropout": 0.25}
    assert learned["t0001"].intermediate_values == {1: 0.3}
    assert ledger.ask()[0] == "t0003"
    assert ledger.ask()[0] == "t0004"  # names go on
    assert ledger.folder.recorded("t0000")["val_qwk"] == 0.2
    back = Ledger.create(spec_of(start=points), RunFolder.open(root))
    assert back.ask()[1].batch_size in {4, 8, 16}


def test_a_running_trial_outside_the_changed_space_has_failed(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root, spec_of(start=[{"batch_size": 4, "optimizer": "adamw"}]))
    run_one(ledger, [0.1], state="")
    larger = {**PARAMETERS, "batch_size": {"values": [64, 128]}}
    changed = Ledger.create(spec_of(parameters=larger), RunFolder.open(root))
    assert changed.folder.recorded("t0000")["state"] == "FAIL"
    assert changed.folder.recorded("t0000")["reason"] == "outside the space since it was changed"


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
    run_one(ledger, [0.3], state="")
    ledger.ask()  # has no epoch yet
    resumed = again(root, spec_of(**limit))
    resumed.close()
    resumed.close()
    table = resumed.folder.trials()
    assert table["state"].tolist() == ["COMPLETE", "PRUNED", "PRUNED"]
    assert table["reason"].str.contains("before its first epoch was over").tolist()[1:] == [False, True]
    assert [trial.state.name for trial in told(root)] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert limit_reached(spec_of(**limit), resumed.folder, resumed.seconds).startswith(
        ("budget.hours", "metric.target")
    )


def test_fewer_trials_than_were_begun_leave_nothing_running(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.2])
    run_one(ledger, [0.3], state="")
    ledger.folder.flush()
    fewer = again(root, spec_of(trials=1))
    assert fewer.close() == ""
    assert fewer.folder.trials()["state"].tolist() == ["COMPLETE", "PRUNED"]
    assert fewer.folder.trials()["reason"][1] == "stopped by trials=1"
    assert all(trial.state.is_finished() for trial in told(root))


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
    tried = [int(resumed.folder.recorded("t0000")["batch_size"])]
    while len(tried) < 3 or not {4, 8, 16} <= set(tried):
        tried.append(resumed.ask()[1].batch_size)
    assert len(tried) == len(set(tried)) == 3


def test_an_abandoned_study_keeps_nothing_running(tmp_path: Path) -> None:
    root = tmp_path / "x"
    run_one(begun(root), [0.1], state="")
    Ledger.create(spec_of(parameters={**PARAMETERS, "dropout": {"values": [0.25, 0.5]}}), RunFolder.open(root))
    states = {trial.state.name for study in (0, 1) for trial in told(root, study)}
    assert states == {"FAIL", "RUNNING"}
    again(root, spec_of(parameters={**PARAMETERS, "dropout": {"values": [0.25, 0.5]}})).close()
    (old,) = [study for study in (0, 1) if told(root, study)[0].state.name == "FAIL"]
    assert told(root, 1 - old)[0].state.name == "RUNNING"  # it goes on there


def test_a_full_disk_loses_nothing_that_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.2])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        for place in ("retina.results.write_text", "retina.results.write_csv", "retina.sweep.ledger.write_text"):
            patch.setattr(place, full)
        patch.setattr("retina.sweep.ledger.write_json", full)
        patch.setattr(RunFolder, "log", full)
        patch.setattr(SweepStudy, "report", _broken_storage)
        run_one(ledger, [0.3, 0.4, 0.35], state="PRUNED", reason="stopped at the rung of epoch 3")
        assert [trial.state.name for trial in told(root)] == ["COMPLETE", "RUNNING"]  # the tables come first
        assert RunFolder.open(root).trials()["trial_id"].tolist() == ["t0000"]
    ledger.close()
    assert RunFolder.open(root).trials()["val_qwk"].tolist() == [0.2, 0.4]
    assert told(root)[1].intermediate_values == {1: 0.3, 2: 0.4, 3: 0.4}
    assert told(root)[1].state.name == "PRUNED"


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
    assert [one.state.name for one in told(root) if one.user_attrs["trial_id"] == name] == ["FAIL", "COMPLETE"]


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


def _broken_storage(*_: Any, **__: Any) -> None:
    raise optuna.exceptions.StorageInternalError("database or disk is full")


def test_a_trial_that_never_began_is_put_back_and_keeps_its_name(tmp_path: Path) -> None:
    ledger = begun(tmp_path / "x")
    asked = ledger.ask()
    ledger.put_back(asked[0])
    assert ledger.ask() == asked
    assert ledger.folder.trial_ids() == ["t0000"]


def test_a_share_of_the_trials_is_drawn_at_random() -> None:
    def rates(share: float) -> list[float]:
        space = {"epochs": {"value": 4}, "learning_rate": {"distribution": "log_uniform", "min": 1e-5, "max": 1e-1}}
        study, found = SweepStudy.create(spec_of(parameters=space, random_share=share)), []
        for _ in range(60):
            name, config = study.ask()
            off = abs(math.log10(config.learning_rate) + 3)
            study.tell(name, "COMPLETE", {4: 1 - off}, "")
            found.append(off)
        return found[30:]

    learned, random = np.mean(rates(0.0)), np.mean(rates(1.0))
    assert learned < 0.5 < random  # orders of magnitude from the best; 1 for a uniform draw
    assert learned < np.mean(rates(0.5)) < random


@pytest.mark.parametrize("method", ["gp", "tpe", "random"])
def test_no_configuration_is_tried_twice_while_there_are_others(tmp_path: Path, method: Any) -> None:
    """Else the search proposes the end of a range, or the best choice of a small space, again and again."""
    parameters = {"batch_size": {"values": [4, 8, 16, 32, 64], "ordered": True}, "head_layers": {"values": [2, 3]}}
    spec = spec_of(parameters=parameters, method=method, trials=12)
    ledger = begun(tmp_path / "run", spec)
    asked = []
    for _ in range(10):
        name, config = ledger.ask()
        asked.append(config)
        ledger.started(name, config)
        ledger.epoch(name, 1, result(1, config.batch_size / 100 + config.head_layers / 10))
        ledger.end(name, "COMPLETE", "")
    assert len({config.stable_hash() for config in asked}) >= 9  # twenty draws may miss the last of ten
    ledger.ask()  # there is no other left, and the sweep goes on all the same
    assert [trial.user_attrs["trial_id"] for trial in told(tmp_path / "run")] == [f"t{i:04d}" for i in range(11)]


WRITES: list[tuple[Any, str]] = [
    (optuna.Study, "ask"),
    (optuna.Study, "tell"),
    (optuna.Trial, "suggest_categorical"),
    (optuna.Trial, "set_user_attr"),
    (optuna.Trial, "report"),
    (RunFolder, "flush"),
    (RunFolder, "log"),
]


def _drawing_first(values: dict[str, Any], times: int) -> Callable[..., Any]:
    """What a random sampler draws, but that the first so many configurations are `values`."""
    original, left = optuna.samplers.RandomSampler.sample_independent, times * len(values)

    def sample(sampler: Any, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            return values[name]
        return original(sampler, study, trial, name, distribution)

    return sample


class Killer:
    """Kills the process after the write with the number `at`, and counts them."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self.at, self.count = at, 0
        for owner, method in WRITES:
            patch.setattr(owner, method, self._counted(getattr(owner, method)))

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **more: Any) -> Any:
            done = original(*arguments, **more)
            self.count += 1
            if self.count == self.at:
                raise Killed
            return done

        return write


def test_killed_at_each_write_no_configuration_is_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler draws a configuration twice that was tried before, and the process is killed among these draws."""
    small = {
        "epochs": {"value": 4},
        "pretrained": {"value": False},
        "batch_size": {"values": [4, 8, 16, 32]},
        "optimizer": {"values": ["sgd", "adamw"]},
    }
    spec = spec_of(parameters=small, method="random", trials=3, seed=2)
    ledger = begun(tmp_path / "begun", spec)
    for value in (0.1, 0.3):
        run_one(ledger, [value])
    ledger.close()
    ledger.folder.flush()
    at, was_killed = 0, True
    while was_killed:
        at += 1
        root = Path(shutil.copytree(tmp_path / "begun", tmp_path / f"killed-{at}"))
        with monkeypatch.context() as patch:
            drawn = {name: ledger.folder.recorded("t0000")[name] for name in ("batch_size", "optimizer")}
            patch.setattr(optuna.samplers.RandomSampler, "sample_independent", _drawing_first(drawn, times=2))
            killed = Killer(patch, at)
            try:
                run_one(again(root, spec), [0.3])
                was_killed = False
            except Killed:
                assert killed.count == at
        resumed = again(root, spec)
        while resumed.remaining:
            run_one(resumed, [0.3])
        configs = resumed.folder.configs()
        assert list(configs) == ["t0000", "t0001", "t0002"]
        assert len({config.stable_hash() for config in configs.values()}) == 3, f"killed at write {at}"
    assert at > 12  # draws, the passing over of two, an id, an epoch, an end


def test_killed_between_the_new_study_and_the_new_sweep_file_the_old_file_goes_on(tmp_path: Path) -> None:
    """The study searches one space, the file says another: the study is made anew, and told of every trial."""
    old = spec_of()
    ledger = begun(tmp_path / "run", old)
    run_one(ledger, [0.1, 0.2])
    changed = spec_of(parameters={**PARAMETERS, "batch_size": {"values": [8, 16, 32], "ordered": True}})
    again(tmp_path / "run", changed)  # killed here, before sweep.yaml was written
    back = again(tmp_path / "run", old)
    names = [run_one(back, [0.3]) for _ in range(4)]
    assert names == ["t0001", "t0002", "t0003", "t0004"]
    trials = told(tmp_path / "run")
    assert [trial.user_attrs["trial_id"] for trial in trials] == ["t0000", *names]
    stored = [PARAMETERS["batch_size"]["values"][trial.params["batch_size_index"]] for trial in trials]
    assert stored == [back.folder.recorded(name)["batch_size"] for name in ["t0000", *names]]
