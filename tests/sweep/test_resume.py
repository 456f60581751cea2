"""A sweep that goes on: only as the one it was, unless the user says so; longer where it is extended. No Ray."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import tiny_dataset
from interrupted_sweep import GRID, PARAMETERS, contents, go_on, noted, others, ran, refused, run, spec_of
from lock_holder import held_elsewhere

from retina.config import DataConfig
from retina.errors import ResultsError
from retina.results import environment
from retina.results.run_folder import RunFolder
from retina.sweep.resume import reopened

CODE, code_now = environment.code_version(), environment.code_version
OTHER_CODE = {"version": "0.0.1", "git": "0123456789ab-dirty", "source": "fedcba987654"}


@pytest.fixture(autouse=True)
def _same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the code is, is found out once: somebody may be at work on it."""
    monkeypatch.setattr(environment, "code_version", lambda: dict(CODE))


def test_a_sweep_that_is_as_it_was_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ran(tmp_path / "x")
    ledger = go_on(folder.root, spec_of())
    assert ledger.remaining == 2
    assert run(ledger) == ["t0002", "t0003"]
    assert noted(folder.root) == [{"changes": [], "extend": 0}]
    assert folder.spec() == spec_of()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_sweep_goes_on_from_the_file_that_it_wrote(tmp_path: Path) -> None:
    folder = ran(tmp_path / "x", spec_of(method="grid", trials=None, parameters=GRID))
    assert go_on(folder.root, folder.spec()).remaining == 4


def test_each_time_that_it_goes_on_is_noted_with_its_circumstances(tmp_path: Path) -> None:
    folder = ran(tmp_path / "x")
    started = folder.metadata()["started"]
    go_on(folder.root, spec_of())
    go_on(folder.root, spec_of(), extend=1)
    notes = RunFolder.open(folder.root).metadata()
    assert [one["extend"] for one in notes["resumed"]] == [0, 1]
    assert {"command", "started", "code", "packages", "cores"} <= notes["resumed"][0].keys()
    assert notes["started"] == started


@pytest.mark.parametrize(
    ("changes", "then", "now"),
    [
        ({"parameters": {**PARAMETERS, "epochs": {"value": 3}}}, "- value: 4", "+ value: 3"),
        ({"trials": 7}, "- trials: 4", "+ trials: 7"),
        ({"trials": 2}, "- trials: 4", "+ trials: 2"),
        ({"seed": 1}, "- seed: 0", "+ seed: 1"),
        ({"method": "random"}, "- method: gp", "+ method: random"),
        ({"keep": {"trials": 1}}, "- trials: 3", "+ trials: 1"),
        ({"budget": {"hours": 2}}, "- hours: null", "+ hours: 2.0"),
        ({"metric": {"target": 0.9}}, "- target: null", "+ target: 0.9"),
        ({"early_stop": {"type": "none"}}, "- type: asha", "+ type: none"),
        ({"data": tiny_dataset.DATA.model_copy(update={"seed": 5})}, "- seed: 0", "+ seed: 5"),
        ({"track_test": True}, "- track_test: false", "+ track_test: true"),
    ],
)
def test_a_changed_sweep_file_is_refused_and_the_change_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], then: str, now: str
) -> None:
    root = ran(tmp_path / "x").root
    said = refused(root, spec_of(**changes))
    assert said.startswith(f"{root / 'sweep.yaml'}: is not the sweep that is to be resumed (- then, + now): ")
    assert then in said
    assert now in said
    assert "--force" in said
    ledger = go_on(root, spec_of(**changes), force=True)
    ((change,), extend) = noted(root)[0].values()
    assert (extend, change) == (0, said.splitlines()[0])
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [f"note: {change}"]
    assert RunFolder.open(root).spec() == spec_of(**changes)
    run(ledger)
    assert refused(root, spec_of())  # now it is the other one that has changed
    assert go_on(root, spec_of(**changes)).remaining == 0


def test_of_many_changes_the_first_are_shown(tmp_path: Path) -> None:
    root = ran(tmp_path / "x").root
    many = spec_of(trials=9, seed=3, method="random", budget={"hours": 1, "max_failed": 4}, track_test=True)
    said = refused(root, many)
    assert said.count("; ") == 6
    assert "and 6 more" in said.splitlines()[0]
    assert go_on(root, many, force=True).remaining == 7


def test_a_changed_space_is_searched_with_what_was_learned(tmp_path: Path) -> None:
    root = ran(tmp_path / "x").root
    wider = spec_of(parameters={**PARAMETERS, "batch_size": {"values": [64, 128]}})
    assert refused(root, wider)
    ledger = go_on(root, wider, force=True)
    assert ledger.remaining == 2
    assert run(ledger) == ["t0002", "t0003"]
    assert {ledger.folder.trial_row(name)["batch_size"] for name in ("t0002", "t0003")} <= {64, 128}
    assert ledger.folder.trial_row("t0000")["batch_size"] == 12


def test_changed_photographs_are_refused(tmp_path: Path) -> None:
    root = ran(tmp_path / "x").root
    said = refused(root, spec_of(), photographs=others())
    assert said.startswith(f"synthetic: photographs, grades or splits have changed since {root} began")
    assert f"- {tiny_dataset.photographs().fingerprint}, train " in said
    assert "+ 0123456789abcdef, train " in said
    assert "--force" in said
    go_on(root, spec_of(), photographs=others(), force=True)
    assert noted(root) == [{"changes": [said.splitlines()[0]], "extend": 0}]
    assert RunFolder.open(root).metadata()["data"]["fingerprint"] == "0123456789abcdef"
    go_on(root, spec_of(), photographs=others())
    assert tiny_dataset.photographs().fingerprint in refused(root, spec_of())


@pytest.mark.parametrize(
    ("code", "then"),
    [
        (OTHER_CODE, "- version 0.0.1, commit 0123456789ab-dirty, source fedcba987654; + version "),
        ({**OTHER_CODE, "git": None}, "- version 0.0.1, commit unknown, source fedcba987654; "),
        (None, "- unknown; + version "),
    ],
)
def test_changed_code_is_refused(tmp_path: Path, code: dict[str, str | None] | None, then: str) -> None:
    folder = ran(tmp_path / "x")
    folder.update_metadata(code=code)
    said = refused(folder.root, spec_of())
    assert said.startswith(f"the code has changed since {folder.root} was begun ({then}")
    assert f"source {environment.code_version()['source']}" in said.partition("; + ")[2]
    assert "--force" in said
    go_on(folder.root, spec_of(), force=True)
    assert noted(folder.root) == [{"changes": [said.splitlines()[0]], "extend": 0}]
    assert RunFolder.open(folder.root).metadata()["code"] == environment.code_version()
    go_on(folder.root, spec_of())


def test_all_changes_at_once_are_refused_in_three_lines_and_all_noted(tmp_path: Path) -> None:
    folder = ran(tmp_path / "x")
    folder.update_metadata(code=OTHER_CODE)
    changed = spec_of(seed=1)
    first, second, how = refused(folder.root, changed, photographs=others()).splitlines()
    assert "+ seed: 1" in first
    assert "photographs, grades or splits have changed" in second
    assert "--force" in how
    go_on(folder.root, changed, photographs=others(), force=True)
    (resumed,) = noted(folder.root)
    assert resumed["changes"][:2] == [first, second]
    assert "the code has changed" in resumed["changes"][2]
    assert len(resumed["changes"]) == 3


def test_the_code_that_is_the_same_elsewhere_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "code_version", code_now)
    root = ran(tmp_path / "x").root
    monkeypatch.chdir(tmp_path)
    go_on(root, spec_of())
    assert noted(root)[0]["changes"] == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("extend", [0, 2])
def test_another_metric_is_refused_also_by_force(tmp_path: Path, extend: int, *, force: bool) -> None:
    root = ran(tmp_path / "x").root
    said = refused(root, spec_of(metric={"name": "val_loss"}), force=force, extend=extend)
    assert said.startswith(f"{root / 'sweep.yaml'}: metric.name was val_qwk, now val_loss;")
    assert "--name" in said
    assert "--force" not in said


def test_another_image_size_is_refused_also_by_force(tmp_path: Path) -> None:
    root = ran(tmp_path / "x").root
    other = spec_of(data=tiny_dataset.DATA.model_copy(update={"image_size": 32}))
    with pytest.raises(ResultsError, match=r"data.image_size was 16, now 32;\n.*begin a new sweep"):
        go_on(root, other, force=True)


def test_a_sweep_that_another_process_runs_is_left_alone(tmp_path: Path) -> None:
    folder = ran(tmp_path / "x")
    with held_elsewhere(folder.root) as other:
        before = contents(folder.root)
        with pytest.raises(ResultsError) as caught, folder.lock():
            pass
        assert str(caught.value) == f"{folder.root}: this sweep is being run by another process; wait for it or end it"
        assert contents(folder.root) == before
        other.kill()  # however it ends, the lock goes with it
        other.wait()
        with folder.lock():
            go_on(folder.root, spec_of())


def test_what_is_no_sweep_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"is not the results folder of a sweep \(it has no sweep.yaml\)"):
        reopened(tmp_path / "x", spec_of(), tiny_dataset.photographs())


@pytest.mark.parametrize("content", [b"name: [", b"", b"- 1\n", b"\xff\xfe", b"name: sweep\nparameters: {}\n"])
def test_a_damaged_sweep_file_is_told_by_name(tmp_path: Path, content: bytes) -> None:
    root = ran(tmp_path / "x").root
    (root / "sweep.yaml").write_bytes(content)
    assert str(root / "sweep.yaml") in refused(root, spec_of())
    assert str(root / "sweep.yaml") in refused(root, spec_of(), force=True)


def test_a_sweep_that_lost_its_notes_goes_on_by_force_only(tmp_path: Path) -> None:
    root = ran(tmp_path / "x").root
    (root / "environment.json").unlink()
    photographs, code, how = refused(root, spec_of()).splitlines()
    assert "(- unknown; + " in photographs
    assert "(- unknown; + " in code
    assert "--force" in how
    assert run(go_on(root, spec_of(), force=True)) == ["t0002", "t0003"]
    assert go_on(root, spec_of()).remaining == 0


def test_the_photographs_are_named_by_their_place(tmp_path: Path) -> None:
    there = spec_of(data=DataConfig(path=str(tmp_path / "eyes")))
    root = ran(tmp_path / "x", there).root
    assert refused(root, there, photographs=others()).startswith(f"{tmp_path / 'eyes'}: photographs, grades or splits")
