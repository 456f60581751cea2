"""The results folder: written whole or not at all, read back as it was written."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina.config import TrialConfig
from retina.errors import ResultsError
from retina.results import files
from retina.results.run_folder import HISTORY_COLUMNS, TRIAL_COLUMNS, RunFolder

SETTINGS = TrialConfig(augmentation="none", class_weights="none").model_dump(mode="json")
EPOCH = {"learning_rate": 1e-3, "train_loss": 1.5, "val_qwk": 0.25, "seconds": 2.0}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A new sweep's folder."""
    made = RunFolder.create(tmp_path / "sweeps" / "mine")
    files.write_text(made.root / "sweep.yaml", "name: mine\n")
    return made


def reopened(folder: RunFolder) -> RunFolder:
    folder.flush()
    return RunFolder.open(folder.root)


def refused(what: Any, *arguments: Any) -> str:
    with pytest.raises(ResultsError) as caught:
        what(*arguments)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_columns_are_the_contracts(folder: RunFolder) -> None:
    folder.flush()
    assert (folder.root / "trials.csv").read_text() == (
        "trial_id,state,arch,pretrained,head_layers,dropout,batch_size,epochs,learning_rate,optimizer,momentum,"
        "weight_decay,schedule,loss,label_smoothing,class_weights,augmentation,mix,mix_alpha,freeze_epochs,"
        "backbone_rate,ema,flips,precision,seed,epochs_run,best_epoch,"
        "val_qwk,val_accuracy,val_auc,val_loss,seconds,images_per_second,reason\n"
    )
    assert (folder.root / "history.csv").read_text() == (
        "trial_id,epoch,learning_rate,train_loss,train_accuracy,train_qwk,val_loss,val_accuracy,val_qwk,val_auc,"
        "test_loss,test_accuracy,test_qwk,images_per_second,seconds,micro_batch\n"
    )


def test_a_trial_is_added_and_then_changed(folder: RunFolder) -> None:
    folder.record_trial("t0000", state="RUNNING", **SETTINGS)
    folder.record_trial("t0000", state="COMPLETE", val_qwk=0.5)
    folder.record_trial("t0001", state="RUNNING")
    assert folder.trial_row("t0000") == {"trial_id": "t0000", **SETTINGS, "state": "COMPLETE", "val_qwk": 0.5}
    assert folder.trial_row("t0009") == {}
    trials = reopened(folder).trials()
    assert trials["state"].tolist() == ["COMPLETE", "RUNNING"]
    assert list(trials.columns) == TRIAL_COLUMNS


def test_an_epoch_that_is_run_again_takes_the_place_of_the_first(folder: RunFolder) -> None:
    for trial, epoch, qwk in [("b", 2, 0.2), ("b", 1, 0.1), ("a", 1, 0.3), ("b", 2, 0.4)]:
        folder.record_epoch(trial, epoch, val_qwk=qwk)
    history = reopened(folder).history()
    assert history[["trial_id", "epoch", "val_qwk"]].to_numpy().tolist() == [
        ["a", 1, 0.3],
        ["b", 1, 0.1],
        ["b", 2, 0.4],
    ]
    assert [row["val_qwk"] for row in folder.epochs("b")] == [0.1, 0.4]
    assert folder.epochs("c") == []


def test_an_unknown_column_is_a_defect_and_leaves_nothing(folder: RunFolder) -> None:
    with pytest.raises(KeyError, match="val_kappa"):
        folder.record_trial("t0000", state="RUNNING", val_kappa=1)
    with pytest.raises(KeyError, match="best_epoch"):
        folder.record_epoch("t0000", 1, best_epoch=1)
    folder.flush()
    assert folder.trials().empty
    assert folder.history().empty


def test_the_tables_are_empty_before_the_first_trial(folder: RunFolder) -> None:
    assert list(folder.trials().columns) == TRIAL_COLUMNS
    assert list(folder.history().columns) == HISTORY_COLUMNS
    assert folder.trials().empty


def test_the_word_none_is_no_missing_value(folder: RunFolder) -> None:
    folder.record_trial("t0000", reason=None, **SETTINGS)
    row = reopened(folder).trial_row("t0000")
    assert (row["augmentation"], row["class_weights"]) == ("none", "none")
    assert "reason" not in row


def test_a_setting_that_was_added_since_had_its_default(folder: RunFolder) -> None:
    folder.record_trial("t0000", state="COMPLETE", **TrialConfig(loss="emd", ema=0.9).model_dump())
    table = pd.read_csv(folder.root / "trials.csv", dtype=str, keep_default_na=False)
    table.drop(columns=["loss", "ema"]).to_csv(folder.root / "trials.csv", index=False)
    (row,) = folder.trials().to_dict(orient="records")
    assert (row["loss"], row["ema"]) == (TrialConfig().loss, TrialConfig().ema)
    assert list(folder.trials().columns) == TRIAL_COLUMNS


def test_whole_numbers_stay_whole_beside_a_gap(folder: RunFolder) -> None:
    folder.record_trial("a", epochs_run=3, best_epoch=2)
    folder.record_trial("b", state="RUNNING")
    once = reopened(folder)
    twice = reopened(once)
    text = (folder.root / "trials.csv").read_text()
    assert ",3,2," in text
    assert "3.0" not in text
    assert (twice.trial_row("a")["epochs_run"], twice.trial_row("a")["best_epoch"]) == (3, 2)
    assert "epochs_run" not in twice.trial_row("b")


@settings(deadline=None, max_examples=40)
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
)
def test_what_is_recorded_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, number: float, reason: str) -> None:
    folder = RunFolder.create(tmp_path_factory.mktemp("sweep") / "x")
    files.write_text(folder.root / "sweep.yaml", "")
    folder.record_trial("0007", reason=reason, val_loss=number, **SETTINGS)
    assert reopened(folder).trial_row("0007") == {
        "trial_id": "0007",
        "reason": reason.replace("\r\n", "\n").replace("\r", "\n"),
        "val_loss": pytest.approx(number, rel=1e-15),
        **SETTINGS,
    }


def test_a_reopened_folder_goes_on(folder: RunFolder) -> None:
    folder.record_trial("t0000", state="COMPLETE", val_qwk=0.5, **SETTINGS)
    folder.record_epoch("t0000", 1, **EPOCH)
    again = reopened(folder)
    assert again.trial_row("t0000") == folder.trial_row("t0000")
    assert again.epochs("t0000") == [{"trial_id": "t0000", "epoch": 1, **EPOCH}]
    again.record_trial("t0001", state="RUNNING", **SETTINGS)
    again.record_epoch("t0000", 2, **EPOCH)
    third = reopened(again)
    assert third.trials()["trial_id"].tolist() == ["t0000", "t0001"]
    assert third.history()["epoch"].tolist() == [1, 2]


def test_the_ranking_follows_the_metrics_sign(folder: RunFolder) -> None:
    for trial, qwk, loss in [("a", 0.1, 3.0), ("b", 0.9, 2.0), ("c", -0.5, 1.0)]:
        folder.record_trial(trial, state="COMPLETE", val_qwk=qwk, val_loss=loss)
    assert folder.ranking("val_qwk", 1) == ["b", "a", "c"]
    assert folder.ranking("val_loss", -1) == ["c", "b", "a"]


def test_only_trials_that_ended_with_a_score_are_ranked(folder: RunFolder) -> None:
    for trial, state in [("a", "RUNNING"), ("b", "FAIL"), ("c", "PRUNED"), ("d", "COMPLETE"), ("e", "COMPLETE")]:
        folder.record_trial(trial, state=state, val_qwk=None if trial == "d" else 0.5)
    folder.record_trial("f", state="COMPLETE", val_qwk=float("nan"))
    assert folder.ranking("val_qwk", 1) == ["c", "e"]
    assert reopened(folder).ranking("val_qwk", 1) == ["c", "e"]


def test_equal_trials_are_ranked_as_they_were_started(folder: RunFolder) -> None:
    for trial in ("t9", "t10", "t2"):
        folder.record_trial(trial, state="COMPLETE", val_qwk=0.5)
    assert folder.ranking("val_qwk", 1) == ["t9", "t10", "t2"]
    assert reopened(folder).ranking("val_qwk", -1) == ["t9", "t10", "t2"]


def test_a_taken_folder_is_not_overwritten(folder: RunFolder) -> None:
    said = refused(RunFolder.create, folder.root)
    assert said.startswith(f"{folder.root} already exists and will not be overwritten;")
    assert "--resume" in said
    assert (folder.root / "sweep.yaml").read_text() == "name: mine\n"


def test_an_empty_folder_is_not_taken_but_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (RunFolder.create(tmp_path / "empty").root / "trials").is_dir()
    (tmp_path / "file").write_text("")
    assert "already exists" in refused(RunFolder.create, tmp_path / "file")
    problem = f"cannot be made: {tmp_path}/file is not a folder; choose another --results"
    assert refused(RunFolder.create, tmp_path / "file" / "x") == f"{tmp_path}/file/x: {problem}"


def test_what_is_no_sweep_is_not_opened_and_its_neighbours_are_told(folder: RunFolder) -> None:
    other = folder.root.with_name("mien")
    said = refused(RunFolder.open, other)
    assert said == (
        f"{other}: is not the results folder of a sweep (it has no sweep.yaml); sweeps in {other.parent}: mine"
    )
    assert refused(RunFolder.open, folder.root.parent).endswith(f"{folder.root.parent.parent} holds no sweep")


@pytest.mark.parametrize("content", [b"", b'a,b\n1,2\n"', b"\xff\xfe\x00", b"trial_id,state\nt0000,COMPLETE\n"])
def test_a_damaged_table_is_told_by_name(folder: RunFolder, content: bytes) -> None:
    (folder.root / "trials.csv").write_bytes(content)
    assert refused(RunFolder.open, folder.root).startswith(f"{folder.root / 'trials.csv'}: ")


def test_notes_are_added_to_and_changed(folder: RunFolder) -> None:
    assert folder.metadata() == {}
    folder.update_metadata(a=1, b="é")
    folder.update_metadata(a=2)
    assert RunFolder.open(folder.root).metadata() == {"a": 2, "b": "é"}
    assert json.loads((folder.root / "environment.json").read_text(encoding="utf-8")) == {"a": 2, "b": "é"}


def test_a_trials_log_grows_by_lines(folder: RunFolder) -> None:
    folder.log("t0000", "started")
    folder.log("t0000", "ended\n")
    assert (folder.root / "trials" / "t0000" / "log.txt").read_text() == "started\nended\n"


def test_names_and_places(folder: RunFolder) -> None:
    assert folder.name == "mine"
    assert folder.best == folder.root / "best"
    assert folder.trial("t0000") == folder.root / "trials" / "t0000"


def test_a_failing_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    files.write_text(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            files.write_text(file, "new")
        with pytest.raises(OSError, match="No space left"):
            files.copy_file(file, tmp_path / "b.txt")
    assert names_in(tmp_path) == ["a.txt"]
    assert file.read_text() == "old"


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        os, "fsync", lambda _: seen.append((names_in(tmp_path), (tmp_path / names_in(tmp_path)[0]).stat().st_size))
    )
    files.write_text(tmp_path / "a.txt", "content")
    ((names, size),) = seen
    assert (len(names), size) == (1, 7)
    assert re.fullmatch(rf"\.a\.txt\.[0-9a-f]{{8}}-{os.getpid()}-[0-9a-f]{{8}}\.partial", names[0])
    assert names_in(tmp_path) == ["a.txt"]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe, stdout = tmp_path / "pipe", tmp_path / "stdout"
    os.mkfifo(pipe)
    stdout.symlink_to("/proc/self/fd/1")
    for place in (pipe, stdout):
        with pytest.raises(OSError, match="is a device, a pipe or a socket"):
            files.write_text(place, "x")
    assert pipe.is_fifo()
    assert stdout.is_symlink()
    assert names_in(tmp_path) == ["pipe", "stdout"]


def test_what_json_lacks_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"auc": float("nan")})
    assert names_in(tmp_path) == []


def test_json_is_written_for_people_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.json"
    files.write_json(file, {"name": "Zürich", "n": [1, None]})
    assert file.read_text(encoding="utf-8") == '{\n  "name": "Zürich",\n  "n": [\n    1,\n    null\n  ]\n}\n'
    assert files.read_json(file) == {"name": "Zürich", "n": [1, None]}


def test_what_is_no_json_is_told_by_name(tmp_path: Path) -> None:
    assert refused(files.read_json, tmp_path / "a.json") == f"{tmp_path}/a.json: No such file or directory"
    (tmp_path / "a.json").write_text("{")
    assert refused(files.read_json, tmp_path / "a.json").startswith(f"{tmp_path}/a.json: is not JSON: ")


def test_copies_are_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00\xff" * 100_000)
    files.copy_file(tmp_path / "a", tmp_path / "new" / "b")
    assert (tmp_path / "new" / "b").read_bytes() == (tmp_path / "a").read_bytes()
    with pytest.raises(FileNotFoundError):
        files.copy_file(tmp_path / "none", tmp_path / "new" / "b")
    assert names_in(tmp_path / "new") == ["b"]


def test_what_a_row_lacks_stays_empty(tmp_path: Path) -> None:
    files.write_csv(tmp_path / "a.csv", [{"a": 1}, {"b": "x,y"}], ["a", "b"])
    assert (tmp_path / "a.csv").read_text() == 'a,b\n1,\n,"x,y"\n'


def test_frames_are_written_without_their_index(tmp_path: Path) -> None:
    files.write_frame(tmp_path / "a.csv", pd.DataFrame({"n": [1, 2]}, index=[7, 7]))
    assert (tmp_path / "a.csv").read_text() == "n\n1\n2\n"
