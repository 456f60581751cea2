"""A sweep that goes on: only as the one it was, unless the user says so; longer where it is extended. No Ray."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import tiny
from elsewhere import held_elsewhere

from retina import provenance
from retina.config import DataConfig
from retina.data.photographs import Photographs
from retina.errors import ResultsError, RetinaError, SpecError
from retina.results import LOCK_FILE, RunFolder, write_text
from retina.sweep.ledger import Ledger
from retina.sweep.resume import recorded_spec, reopened, resumed_spec
from retina.sweep.spec import SweepSpec

PARAMETERS: dict[str, Any] = {
    "epochs": {"value": 4},
    "pretrained": {"value": False},
    "learning_rate": {"distribution": "log_uniform", "min": 1e-4, "max": 1e-2},
}
GRID: dict[str, Any] = {"epochs": {"values": [2, 3]}, "batch_size": {"values": [4, 8, 16]}}
CODE, code_now = provenance.code(), provenance.code
OTHER_CODE = {"version": "0.0.1", "git": "0123456789ab-dirty", "source": "fedcba987654"}


@pytest.fixture(autouse=True)
def _same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the code is, is found out once: somebody may be at work on it."""
    monkeypatch.setattr(provenance, "code", lambda: dict(CODE))


def spec_of(**changes: Any) -> SweepSpec:
    return SweepSpec(**{"name": "sweep", "data": tiny.DATA, "trials": 4, "parameters": PARAMETERS, **changes})


def begun(root: Path, spec: SweepSpec) -> Ledger:
    """A sweep that has just begun, as a session writes it."""
    folder = RunFolder.create(root)
    folder.note(**provenance.environment(), data=tiny.photographs().summary())
    write_text(root / "sweep.yaml", spec.to_yaml())
    folder.flush()
    return Ledger.create(spec, folder)


def run(ledger: Ledger, number: int | None = None, *, state: str = "COMPLETE") -> list[str]:
    """Run so many of the trials that are left, or all of them, to their end."""
    names = []
    for _ in range(ledger.remaining if number is None else number):
        name, config = ledger.ask()
        ledger.started(name, config)
        if state != "FAIL":
            result = {"val_qwk": 0.1 * len(names), "val_loss": 1.0, "seconds": 1.0, "images_per_second": 9.0}
            ledger.epoch(name, 1, {"epoch": 1, **result})
        ledger.end(name, state, "" if state == "COMPLETE" else "because")
        names.append(name)
    return names


def ran(root: Path, spec: SweepSpec | None = None, number: int | None = 2, *, state: str = "COMPLETE") -> RunFolder:
    """A sweep of which some trials have ended, and whose process has ended too."""
    ledger = begun(root, spec or spec_of())
    run(ledger, number, state=state)
    ledger.close()
    return RunFolder.open(root)


def go_on(
    root: Path, spec: SweepSpec, *, extend: int = 0, force: bool = False, photographs: Photographs | None = None
) -> Ledger:
    """What a session does with `--resume` or `--extend` before it runs anything."""
    resumed = resumed_spec(RunFolder.open(root), spec, extend)
    return reopened(root, resumed, photographs or tiny.photographs(), extend=extend, force=force)[1]


def contents(root: Path) -> dict[str, bytes]:
    """Every file and its bytes, but the lock, which holds nothing."""
    files = (file for file in root.rglob("*") if file.is_file() and file.name != LOCK_FILE)
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def refused(root: Path, spec: SweepSpec, **how: Any) -> str:
    """Why the sweep does not go on; it is told in three lines at most, and nothing has changed on the disk."""
    before = contents(root)
    with pytest.raises(RetinaError) as caught:
        go_on(root, spec, **how)
    assert contents(root) == before
    said = str(caught.value)
    assert len(said.splitlines()) <= 3
    assert caught.value.exit_code == 2
    return said


def noted(root: Path) -> list[dict[str, Any]]:
    return [{key: one[key] for key in ("changes", "extend")} for one in RunFolder.open(root).notes()["resumed"]]


def others() -> Photographs:
    """The same photographs, had one of them another grade."""
    return dataclasses.replace(tiny.photographs(), fingerprint="0123456789abcdef")


def test_a_sweep_that_is_as_it_was_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = ran(tmp_path / "x")
    ledger = go_on(folder.root, spec_of())
    assert ledger.remaining == 2
    assert run(ledger) == ["t0002", "t0003"]
    assert noted(folder.root) == [{"changes": [], "extend": 0}]
    assert recorded_spec(folder) == spec_of()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_sweep_goes_on_from_the_file_that_it_wrote(tmp_path: Path) -> None:
    folder = ran(tmp_path / "x", spec_of(method="grid", trials=None, parameters=GRID))
    assert go_on(folder.root, recorded_spec(folder)).remaining == 4


def test_each_time_that_it_goes_on_is_noted_with_its_circumstances(tmp_path: Path) -> None:
    folder = ran(tmp_path / "x")
    started = folder.notes()["started"]
    go_on(folder.root, spec_of())
    go_on(folder.root, spec_of(), extend=1)
    notes = RunFolder.open(folder.root).notes()
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
        ({"data": tiny.DATA.model_copy(update={"seed": 5})}, "- seed: 0", "+ seed: 5"),
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
    assert recorded_spec(RunFolder.open(root)) == spec_of(**changes)
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
    assert {ledger.folder.recorded(name)["batch_size"] for name in ("t0002", "t0003")} <= {64, 128}
    assert ledger.folder.recorded("t0000")["batch_size"] == 12


def test_changed_photographs_are_refused(tmp_path: Path) -> None:
    root = ran(tmp_path / "x").root
    said = refused(root, spec_of(), photographs=others())
    assert said.startswith(f"synthetic: photographs, grades or splits have changed since {root} began")
    assert f"- {tiny.photographs().fingerprint}, train " in said
    assert "+ 0123456789abcdef, train " in said
    assert "--force" in said
    go_on(root, spec_of(), photographs=others(), force=True)
    assert noted(root) == [{"changes": [said.splitlines()[0]], "extend": 0}]
    assert RunFolder.open(root).notes()["data"]["fingerprint"] == "0123456789abcdef"
    go_on(root, spec_of(), photographs=others())
    assert tiny.photographs().fingerprint in refused(root, spec_of())


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
    folder.note(code=code)
    said = refused(folder.root, spec_of())
    assert said.startswith(f"the code has changed since {folder.root} was begun ({then}")
    assert f"source {provenance.code()['source']}" in said.partition("; + ")[2]
    assert "--force" in said
    go_on(folder.root, spec_of(), force=True)
    assert noted(folder.root) == [{"changes": [said.splitlines()[0]], "extend": 0}]
    assert RunFolder.open(folder.root).notes()["code"] == provenance.code()
    go_on(folder.root, spec_of())


def test_all_changes_at_once_are_refused_in_three_lines_and_all_noted(tmp_path: Path) -> None:
    folder = ran(tmp_path / "x")
    folder.note(code=OTHER_CODE)
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
    monkeypatch.setattr(provenance, "code", code_now)
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


def test_to_extend_adds_trials_to_those_that_were_planned(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=None).root
    ledger = go_on(root, spec_of(), extend=3)
    assert (ledger.spec.planned_trials, ledger.remaining) == (7, 3)
    assert noted(root) == [{"changes": [], "extend": 3}]
    assert run(ledger) == ["t0004", "t0005", "t0006"]
    assert recorded_spec(ledger.folder) == spec_of(trials=7)


def test_to_extend_one_that_was_interrupted_adds_to_what_is_left(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=1).root
    ledger = go_on(root, spec_of(), extend=3)
    assert (ledger.spec.planned_trials, ledger.remaining) == (7, 6)


def test_to_extend_twice_adds_twice(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=None).root
    run(go_on(root, spec_of(), extend=3))
    ledger = go_on(root, spec_of(), extend=3)
    assert (ledger.spec.planned_trials, ledger.remaining) == (10, 3)
    assert go_on(root, spec_of(), extend=3).spec.planned_trials == 13  # though the second one ran none of them


@pytest.mark.parametrize("trials", [4, 9])
def test_an_extended_sweep_is_resumed_with_the_file_that_it_began_with_or_wrote(tmp_path: Path, trials: int) -> None:
    root = ran(tmp_path / "x", number=None).root
    go_on(root, spec_of(), extend=3)
    run(go_on(root, spec_of(), extend=2), 1)
    for _ in range(2):
        ledger = go_on(root, spec_of(trials=trials))
        assert (ledger.spec.planned_trials, ledger.remaining) == (9, 4)
    assert noted(root)[-1] == {"changes": [], "extend": 0}
    assert "- trials: 9; + trials: 5" in refused(root, spec_of(trials=5))
    assert "- trials: 9; + trials: 14" in refused(root, spec_of(trials=14))
    assert "+ seed: 1" in refused(root, spec_of(seed=1))


def test_what_changes_besides_is_refused_when_it_is_extended_too(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=None).root
    assert "- seed: 0; + seed: 1" in refused(root, spec_of(seed=1), extend=2)
    assert "have changed" in refused(root, spec_of(), extend=2, photographs=others())
    ledger = go_on(root, spec_of(seed=1), extend=2, force=True)
    assert ledger.remaining == 2
    assert noted(root)[0]["extend"] == 2
    assert "trials" not in noted(root)[0]["changes"][0].partition("(")[2]  # that is what was asked for


def test_another_number_of_trials_in_the_file_is_a_change_also_when_it_is_extended(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=None).root
    run(go_on(root, spec_of(), extend=1))
    more = spec_of(trials=10)
    assert "- trials: 5; + trials: 12" in refused(root, more, extend=2)
    assert go_on(root, more, extend=2, force=True).remaining == 7
    assert go_on(root, more).remaining == 7  # the same command, with --resume
    assert "- trials: 12; + trials: 4" in refused(root, spec_of())


def test_a_number_of_trials_that_was_changed_by_force_counts_from_then_on(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=None).root
    go_on(root, spec_of(), extend=3)
    go_on(root, spec_of(trials=9), force=True)
    assert go_on(root, spec_of(trials=9)).spec.planned_trials == 9
    assert "- trials: 9; + trials: 6" in refused(root, spec_of(trials=6))
    assert "- trials: 9; + trials: 4" in refused(root, spec_of())
    assert go_on(root, spec_of(trials=9), extend=3).spec.planned_trials == 12
    assert go_on(root, spec_of(trials=9)).spec.planned_trials == 12


class Killed(BaseException):
    """Stands for `kill -9`: nothing may catch it."""


@pytest.mark.parametrize(
    "step",
    ["retina.results.RunFolder.note", "retina.sweep.ledger.Ledger.open", "retina.sweep.resume.write_text"],
)
def test_killed_before_it_was_extended_it_is_extended_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    root = ran(tmp_path / "x", number=None).root

    def deadly(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(step, deadly)
        with pytest.raises(Killed):
            go_on(root, spec_of(), extend=3)
    assert go_on(root, spec_of()).remaining == 0  # not yet
    assert run(go_on(root, spec_of(), extend=3)) == ["t0004", "t0005", "t0006"]
    assert go_on(root, spec_of()).remaining == 0
    assert go_on(root, spec_of(), extend=3).remaining == 3


LIMITED = {"budget": {"max_failed": 2}}


def ended_by_failures(root: Path) -> Path:
    """A sweep of four trials that ended with its second failure."""
    folder = ran(root, spec_of(**LIMITED), 2, state="FAIL")
    assert folder.notes()["ended_by"] == "budget.max_failed=2"
    return root


def test_a_limit_that_is_still_reached_lets_no_trial_be_added(tmp_path: Path) -> None:
    root = ended_by_failures(tmp_path / "x")
    said = refused(root, spec_of(**LIMITED), extend=3)
    assert said.startswith(f"{root}: budget.max_failed=2 is reached, so no trial can be added;")
    assert "--set budget.max_failed=... --extend 3 --force" in said
    higher = spec_of(budget={"max_failed": 5})
    assert "+ max_failed: 5" in refused(root, higher, extend=3)
    assert "budget.max_failed=1 is reached" in refused(root, spec_of(budget={"max_failed": 1}), extend=3, force=True)


def test_a_sweep_that_a_limit_ended_gets_trials_on_top_of_those_it_has(tmp_path: Path) -> None:
    root = ended_by_failures(tmp_path / "x")
    higher = spec_of(budget={"max_failed": 5})
    ledger = go_on(root, higher, extend=3, force=True)
    assert (ledger.spec.planned_trials, ledger.remaining) == (5, 3)
    (resumed,) = noted(root)
    assert resumed["extend"] == 3
    assert "max_failed" in resumed["changes"][0]
    assert " trials: " not in resumed["changes"][0]
    assert ledger.ended_by() == ""
    assert RunFolder.open(root).notes()["ended_by"] == ""
    run(ledger, 1)
    assert go_on(root, higher).remaining == 2  # the sweep file still says four trials
    run(go_on(root, higher))
    assert go_on(root, higher, extend=3).remaining == 3
    assert recorded_spec(RunFolder.open(root)).planned_trials == 8


@pytest.mark.parametrize(
    ("limit", "raised", "key"),
    [
        ({"budget": {"hours": 0.5}}, {"budget": {"hours": 2}}, "budget.hours"),
        ({"metric": {"target": 0.05}}, {"metric": {"target": 0.9}}, "metric.target"),
    ],
)
def test_every_limit_says_how_it_is_raised(
    tmp_path: Path, limit: dict[str, Any], raised: dict[str, Any], key: str
) -> None:
    ledger = begun(tmp_path / "x", spec_of(**limit))
    run(ledger, 2)
    ledger.close()
    RunFolder.open(tmp_path / "x").note(seconds=3600, ended_by=f"{key}=...")
    said = refused(tmp_path / "x", spec_of(**limit), extend=2)
    assert f"raise it: --set {key}=... --extend 2 --force" in said
    assert go_on(tmp_path / "x", spec_of(**raised), extend=2, force=True).remaining == 2


def test_a_sweep_that_a_limit_ended_is_resumed_to_no_more(tmp_path: Path) -> None:
    root = ended_by_failures(tmp_path / "x")
    ledger = go_on(root, spec_of(**LIMITED))
    assert ledger.ended_by() == "budget.max_failed=2"
    assert RunFolder.open(root).notes()["ended_by"] == "budget.max_failed=2"


def test_with_a_higher_limit_it_is_resumed_and_no_longer_ended(tmp_path: Path) -> None:
    root = ended_by_failures(tmp_path / "x")
    higher = spec_of(budget={"max_failed": 5})
    ledger = go_on(root, higher, force=True)
    assert (ledger.spec.planned_trials, ledger.remaining) == (4, 2)
    run(ledger, 1)
    # killed here: what ended it once must not count when it is extended
    assert RunFolder.open(root).notes()["ended_by"] == ""
    assert go_on(root, higher, extend=3).spec.planned_trials == 7


def test_a_grid_is_extended_to_its_points_and_not_beyond(tmp_path: Path) -> None:
    spec = spec_of(method="grid", parameters=GRID)
    root = ran(tmp_path / "x", spec, None).root
    said = refused(root, spec, extend=3)
    assert said == "--extend 3: the grid has 6 points; add values to it instead"
    with pytest.raises(SpecError):
        go_on(root, spec, extend=3, force=True)
    ledger = go_on(root, spec, extend=2)
    run(ledger)
    table = ledger.folder.trials()
    assert len(table) == 6
    assert len(table[["epochs", "batch_size"]].drop_duplicates()) == 6
    assert "the grid has 6 points" in refused(root, spec, extend=1)
    whole = spec_of(method="grid", parameters=GRID, trials=None)
    assert go_on(root, whole).remaining == 0


def test_a_sweep_that_another_process_runs_is_left_alone(tmp_path: Path) -> None:
    folder = ran(tmp_path / "x")
    with held_elsewhere(folder.root) as other:
        before = contents(folder.root)
        with pytest.raises(ResultsError) as caught, folder.held():
            pass
        assert str(caught.value) == f"{folder.root}: this sweep is being run by another process; wait for it or end it"
        assert contents(folder.root) == before
        other.kill()  # however it ends, the lock goes with it
        other.wait()
        with folder.held():
            go_on(folder.root, spec_of())


def test_what_is_no_sweep_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"is not the results folder of a sweep \(it has no sweep.yaml\)"):
        reopened(tmp_path / "x", spec_of(), tiny.photographs())


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
