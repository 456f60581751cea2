"""The ledger after its process was killed, or its files were lost: study and folder come into step again. No Ray."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from ledger_runs import PARAMETERS, Killed, again, begun, run_one, spec_of, trials_of

from retina.errors import ResultsError
from retina.results.checkpoints import NOT_SAVED
from retina.results.run_folder import RunFolder
from retina.sweep import study_file
from retina.sweep.ledger import Ledger
from retina.sweep.sampler import create_sampler
from retina.sweep.study import SweepStudy
from retina.sweep.study_file import STUDY_FILE

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
    table, trials = resumed.folder.trials(), trials_of(root)
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
    rates = [trial.params.get("momentum") for trial in trials_of(root) if "momentum" in trial.params]
    assert len(set(rates)) == len(rates)
    drawn = [create_sampler(spec_of(method="random"), n)._rng.rng.uniform() for n in range(20)]  # type: ignore[attr-defined]
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
    before = [(one.state, one.params, one.intermediate_values) for one in trials_of(root)]
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
    assert [(one.state, one.params, one.intermediate_values) for one in trials_of(root)] == before
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


def test_a_study_that_is_an_older_copy_is_told_of_what_it_does_not_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.4, 0.2])
    older = (root / STUDY_FILE).read_bytes()
    run_one(ledger, [0.3], state="PRUNED", reason="stopped at the rung of epoch 1")
    left = run_one(ledger, [0.2], state="")
    ledger.folder.flush()
    config = ledger.folder.configs()[left]
    before = [(one.state, one.params, one.intermediate_values) for one in trials_of(root)]
    (root / STUDY_FILE).write_bytes(older)
    resumed = again(root)
    assert [(one.state, one.params, one.intermediate_values) for one in trials_of(root)] == before
    (said,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith(f"note: {root / STUDY_FILE}: lacked 2 trial(s) of trials.csv")
    assert said.endswith(": t0001, t0002")
    assert resumed.ask() == (left, config)
    resumed.end(left, "FAIL", "the loss is nan")
    while resumed.remaining:
        run_one(resumed, [0.3])
    assert resumed.close() == ""
    assert [trial.user_attrs["trial_id"] for trial in trials_of(root)] == [f"t{number:04d}" for number in range(6)]
    caplog.clear()
    assert again(root).close() == ""
    assert not caplog.records


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETE"])
def test_a_row_that_somebody_has_added_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture, state: str) -> None:
    root = tmp_path / "x"
    run_one(begun(root), [0.1, 0.4])
    file = root / "trials.csv"
    row = file.read_text().splitlines()[1]
    optimizer = RunFolder.open(root).trial_row("t0000")["optimizer"]
    added = row.replace("t0000", "t0001").replace("COMPLETE", state)
    added = added.replace(f",{optimizer},", ",sgd," if optimizer == "adamw" else ",adamw,")
    file.write_text(file.read_text() + added + "\n")
    resumed = again(root)
    assert [one.state.name for one in trials_of(root)] == ["COMPLETE", state]
    assert ": t0001" in caplog.text
    if state == "RUNNING":
        assert resumed.ask()[0] == "t0001"
    assert resumed.ask()[0] == "t0002"


def test_rows_outside_a_changed_space_are_no_news_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "x"
    run_one(begun(root, spec_of(start=[{"batch_size": 4}])), [0.1, 0.4])
    smaller = spec_of(parameters={**PARAMETERS, "batch_size": {"values": [8, 16]}})
    caplog.set_level(logging.INFO, "retina")
    again(root, smaller)
    assert "t0000  is outside the changed search space" in caplog.text
    caplog.clear()
    again(root, smaller)
    assert not caplog.records


@pytest.mark.parametrize("lost", ["all", "a trial", "the best epoch"])
def test_what_history_csv_has_lost_a_new_study_learns_from_trials_csv(tmp_path: Path, lost: str) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.4, 0.2])
    run_one(ledger, [0.3, 0.2], state="PRUNED", reason="stopped at the rung of epoch 2")
    ledger.close()
    file = root / "history.csv"
    if lost == "all":
        file.unlink()
    else:
        gone = "t0000," if lost == "a trial" else "t0000,2,"
        file.write_text(
            "".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith(gone))
        )
    (root / STUDY_FILE).unlink()
    resumed = again(root)
    first, second = trials_of(root)
    assert [(one.state.name, one.value) for one in (first, second)] == [("COMPLETE", 0.4), ("PRUNED", 0.3)]
    assert first.intermediate_values[max(first.intermediate_values)] == 0.4
    assert min(step for step, value in first.intermediate_values.items() if value == 0.4) == 2
    assert resumed.best == "t0000"
    assert run_one(resumed, [0.2, 0.3]) == "t0002"


def test_what_failed_for_want_of_disk_runs_again_also_in_a_new_study(tmp_path: Path) -> None:
    root = tmp_path / "x"
    ledger = begun(root)
    run_one(ledger, [0.1, 0.4])
    name = run_one(ledger, [0.3], state="FAIL", reason=f"epoch 2: {NOT_SAVED}: No space left on device")
    config = ledger.folder.configs()[name]
    ledger.close()
    (root / STUDY_FILE).unlink()
    resumed = again(root)
    assert resumed.folder.trial_ids("RUNNING") == [name]
    assert resumed.ask() == (name, config)
    assert resumed.ask()[0] == "t0002"


def test_a_complete_trial_without_its_number_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "x"
    run_one(begun(root), [0.1, 0.4])
    file = root / "trials.csv"
    file.write_text(file.read_text().replace(",2,0.4,", ",2,,"))
    (root / STUDY_FILE).unlink()
    with pytest.raises(ResultsError, match=r"trials.csv: t0000: val_qwk: should not be empty;\n") as caught:
        again(root)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("sizes", [[4, 8], [8, 16, 32]], ids=["shorter", "moved"])
def test_settings_that_only_a_study_of_another_space_knows_are_not_guessed(tmp_path: Path, sizes: list[int]) -> None:
    root = tmp_path / "x"
    ledger = begun(root, spec_of(start=[{"batch_size": 16, "optimizer": "adamw"}]))
    run_one(ledger, [0.1])
    file = root / "trials.csv"
    whole = file.read_text()
    file.write_text(whole.splitlines(keepends=True)[0])
    config = root / "trials" / "t0000" / "config.json"
    config.unlink()
    changed = spec_of(parameters={**PARAMETERS, "batch_size": {"values": sizes, "ordered": True}})
    with pytest.raises(ResultsError, match=r"trials.csv: lacks t0000, whose settings study.db has for another space"):
        again(root, changed)
    assert file.read_text() == whole.splitlines(keepends=True)[0]
    again(root).folder.flush()  # in the space that it was trained in they are known
    assert file.read_text() == whole
    assert again(root, changed).folder.trial_row("t0000")["batch_size"] == 16


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
    before = [trial.datetime_start for trial in trials_of(root)]
    resumed = again(root)
    assert [trial.datetime_start for trial in trials_of(root)] == before
    assert "does not name the study" in caplog.text
    assert resumed.folder.metadata()["study"] in optuna.get_all_study_names(f"sqlite:///{root / STUDY_FILE}")


def test_a_study_in_a_folder_with_an_odd_name_is_found(tmp_path: Path) -> None:
    root = tmp_path / "a {b} 100% ?c#d"
    run_one(begun(root), [0.1])
    assert run_one(again(root), [0.2]) == "t0001"
    assert (root / STUDY_FILE).is_file()
