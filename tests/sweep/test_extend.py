"""A sweep that is extended: by so many trials, once, and not beyond what its limits and its grid allow. No Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from interrupted_sweep import GRID, begun, go_on, noted, others, ran, refused, run, spec_of

from retina.config.sweep import MAX_TRIALS
from retina.errors import SpecError
from retina.results import environment
from retina.results.run_folder import RunFolder
from retina.sweep.dry_run import plan
from retina.sweep.resume import WITHOUT_EXTENSION

CODE = environment.code_version()


@pytest.fixture(autouse=True)
def _same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the code is, is found out once: somebody may be at work on it."""
    monkeypatch.setattr(environment, "code_version", lambda: dict(CODE))


def test_to_extend_adds_trials_to_those_that_were_planned(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=None).root
    ledger = go_on(root, spec_of(), extend=3)
    assert (ledger.spec.planned_trials, ledger.remaining) == (7, 3)
    assert noted(root) == [{"changes": [], "extend": 3}]
    assert run(ledger) == ["t0004", "t0005", "t0006"]
    assert ledger.folder.spec() == spec_of(trials=7)


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
    [
        "retina.results.run_folder.RunFolder.update_metadata",
        "retina.sweep.ledger.Ledger.open",
        "retina.sweep.resume.write_text",
    ],
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
    assert folder.metadata()["ended_by"] == "budget.max_failed=2"
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
    assert RunFolder.open(root).metadata()["ended_by"] == ""
    run(ledger, 1)
    assert go_on(root, higher).remaining == 2  # the sweep file still says four trials
    run(go_on(root, higher))
    assert go_on(root, higher, extend=3).remaining == 3
    assert RunFolder.open(root).spec().planned_trials == 8


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
    RunFolder.open(tmp_path / "x").update_metadata(seconds=3600, ended_by=f"{key}=...")
    said = refused(tmp_path / "x", spec_of(**limit), extend=2)
    assert f"raise it: --set {key}=... --extend 2 --force" in said
    assert go_on(tmp_path / "x", spec_of(**raised), extend=2, force=True).remaining == 2


def test_a_sweep_that_a_limit_ended_is_resumed_to_no_more(tmp_path: Path) -> None:
    root = ended_by_failures(tmp_path / "x")
    ledger = go_on(root, spec_of(**LIMITED))
    assert ledger.ended_by() == "budget.max_failed=2"
    assert RunFolder.open(root).metadata()["ended_by"] == "budget.max_failed=2"


def test_with_a_higher_limit_it_is_resumed_and_no_longer_ended(tmp_path: Path) -> None:
    root = ended_by_failures(tmp_path / "x")
    higher = spec_of(budget={"max_failed": 5})
    ledger = go_on(root, higher, force=True)
    assert (ledger.spec.planned_trials, ledger.remaining) == (4, 2)
    run(ledger, 1)
    # killed here: what ended it once must not count when it is extended
    assert RunFolder.open(root).metadata()["ended_by"] == ""
    assert go_on(root, higher, extend=3).spec.planned_trials == 7


def test_a_sweep_is_not_extended_beyond_what_its_own_file_may_say(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=None).root
    said = refused(root, spec_of(), extend=MAX_TRIALS - 3)
    assert said == f"--extend {MAX_TRIALS - 3:,}: makes 1,000,001 trials; allowed: 1,000,000"
    assert go_on(root, spec_of(), extend=MAX_TRIALS - 4).spec.planned_trials == MAX_TRIALS
    assert go_on(root, spec_of()).remaining == MAX_TRIALS - 4


def test_a_sweep_that_was_extended_too_far_before_goes_on(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=None).root
    file = root / "sweep.yaml"
    file.write_text(file.read_text().replace("trials: 4\n", "trials: 1000020\n"))
    RunFolder.open(root).update_metadata(**{WITHOUT_EXTENSION: 4})
    assert go_on(root, spec_of()).remaining == 1_000_016
    assert "makes 1,000,021 trials" in refused(root, spec_of(), extend=1)


def test_a_plan_of_fewer_trials_than_have_ended_has_none_left(tmp_path: Path) -> None:
    root = ran(tmp_path / "x", number=None).root
    left = plan(spec_of(trials=2), root)
    assert (left.trials, left.epochs) == (0, 0)


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
