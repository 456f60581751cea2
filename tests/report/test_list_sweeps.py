"""`retina list`: the sweeps of a folder at a glance, whatever became of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from lock_holder import held_elsewhere
from rich.console import Console

from retina import cli
from retina.config.sweep import SweepSpec
from retina.errors import ResultsError
from retina.report.terminal.list_sweeps import SweepSummary, read_summaries, table
from retina.results.files import write_json, write_text
from retina.results.run_folder import RunFolder

PARAMETERS = {"epochs": {"value": 4}, "learning_rate": {"distribution": "log_uniform", "min": 1e-4, "max": 1e-2}}


def sweep(results: Path, name: str = "demo", *, hours_ago: float = 2.0, trials: int = 3, **changes: Any) -> RunFolder:
    """A sweep that was begun and has no trial yet."""
    folder = RunFolder.create(results / name)
    started = datetime.now(UTC) - timedelta(hours=hours_ago)
    folder.update_metadata(started=started.isoformat(timespec="seconds"))
    write_text(
        folder.root / "sweep.yaml", SweepSpec(name=name, trials=trials, parameters=PARAMETERS, **changes).to_yaml()
    )
    folder.flush()
    return folder


def finished(results: Path, name: str = "demo", **changes: Any) -> RunFolder:
    """A sweep that has run to its end."""
    folder = sweep(results, name, **changes)
    folder.record_trial("t0000", state="COMPLETE", val_qwk=0.25, val_loss=0.5)
    folder.record_trial("t0001", state="PRUNED", val_qwk=0.75, val_loss=2.0)
    folder.record_trial("t0002", state="FAIL", reason="the loss is nan")
    write_json(folder.best / "metrics.json", {"trial_id": "t0001", "test": {"n": 8, "qwk": 0.625}})
    folder.update_metadata(ended_by="", interrupted=False, best="t0001")
    return folder


def one(results: Path) -> SweepSummary:
    (found,) = read_summaries(results)
    return found


def shown(found: list[SweepSummary]) -> list[list[str]]:
    """The lines of the table, cut where two spaces are."""
    file = StringIO()
    Console(width=200, file=file).print(table(found))
    lines = file.getvalue().splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines if line.strip(" ─")]


def test_a_clock_that_was_set_back_is_named(tmp_path: Path) -> None:
    sweep(tmp_path, hours_ago=-2)
    assert shown(read_summaries(tmp_path))[1][-1] == "in the future"


def test_a_finished_sweep(tmp_path: Path) -> None:
    finished(tmp_path)
    found = one(tmp_path)
    assert (found.name, found.state, found.planned, found.finished, found.failed) == ("demo", "finished", 3, 3, 1)
    assert (found.metric, found.best, found.test_qwk) == ("val_qwk", ("t0001", 0.75), 0.625)
    assert found.seconds_ago == pytest.approx(7200, abs=60)


def test_a_line_a_sweep(tmp_path: Path) -> None:
    finished(tmp_path)
    sweep(tmp_path, "later", hours_ago=1, trials=20)
    assert shown(read_summaries(tmp_path)) == [
        ["sweep", "state", "trials", "best", "test QWK", "age"],
        ["later", "interrupted", "0 of 20", "-", "-", "1 h"],
        ["demo", "finished", "3 of 3, 1 failed", "val_qwk 0.750 by t0001", "0.625", "2 h"],
    ]


def test_a_sweep_that_a_process_runs_is_running_until_that_process_ends(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    folder.record_trial("t0000", state="RUNNING", val_qwk=0.5)
    folder.update_metadata(ended_by="budget.hours=1")  # before it went on
    with held_elsewhere(folder.root) as other:
        assert one(tmp_path).state == "running"
        assert one(tmp_path).best == ("t0000", 0.5)  # of a trial that still runs
        assert one(tmp_path).state == "running"  # to look has not taken the lock away
        other.kill()
        other.wait()
        assert one(tmp_path).state == "ended by budget.hours=1"
    folder.update_metadata(ended_by="")
    assert one(tmp_path).state == "interrupted"


def test_looking_does_not_keep_the_sweep_from_running(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.lock():
        pass
    assert one(tmp_path).state == "interrupted"
    with folder.lock():
        assert one(tmp_path).state == "running"


def test_a_sweep_that_a_limit_ended_says_which(tmp_path: Path) -> None:
    folder = sweep(tmp_path, budget={"max_failed": 1})
    folder.record_trial("t0000", state="FAIL", reason="the loss is nan")
    folder.update_metadata(ended_by="budget.max_failed=1", interrupted=False, best=None)
    found = one(tmp_path)
    assert (found.state, found.finished, found.failed, found.best) == ("ended by budget.max_failed=1", 1, 1, None)


@pytest.mark.parametrize("states", [[], ["COMPLETE"], ["COMPLETE", "RUNNING"], ["FAIL", "PRUNED", "RUNNING"]])
def test_a_sweep_with_trials_left_is_interrupted(tmp_path: Path, states: list[str]) -> None:
    folder = sweep(tmp_path)
    for number, state in enumerate(states):
        folder.record_trial(f"t{number:04d}", state=state)
    assert one(tmp_path).state == "interrupted"


def test_a_sweep_without_its_winner_is_not_finished(tmp_path: Path) -> None:
    folder = sweep(tmp_path, trials=1)
    folder.record_trial("t0000", state="COMPLETE", val_qwk=0.5)
    folder.update_metadata(ended_by="")  # killed while the best model was evaluated: --resume does that
    assert one(tmp_path).state == "interrupted"


def test_a_sweep_whose_trials_all_failed_is_finished_and_has_no_best(tmp_path: Path) -> None:
    folder = sweep(tmp_path, trials=1)
    folder.record_trial("t0000", state="FAIL", val_qwk=0.9)
    folder.update_metadata(ended_by="", interrupted=False, best=None)
    found = one(tmp_path)
    assert (found.state, found.failed, found.best, found.test_qwk) == ("finished", 1, None, None)
    assert shown([found])[1] == ["demo", "finished", "1 of 1, 1 failed", "-", "-", "2 h"]


def test_less_is_better_for_a_loss(tmp_path: Path) -> None:
    finished(tmp_path, metric={"name": "val_loss"})
    found = one(tmp_path)
    assert (found.metric, found.best) == ("val_loss", ("t0000", 0.5))


def test_a_winner_whose_kappa_is_not_defined(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    write_json(folder.best / "metrics.json", {"trial_id": "t0001", "test": {"n": 8, "qwk": None}})
    assert one(tmp_path).test_qwk is None


def test_the_newest_comes_first_and_what_has_no_age_last(tmp_path: Path) -> None:
    for name, hours in [("b", 5.0), ("a", 1.0), ("c", 30.0), ("d", 0.01)]:
        sweep(tmp_path, name, hours_ago=hours)
    for name in ("z", "y"):
        write_text(tmp_path / name / "sweep.yaml", "name: [")
    assert [found.name for found in read_summaries(tmp_path)] == ["d", "a", "b", "c", "y", "z"]


def _no_environment(root: Path) -> None:
    (root / "environment.json").unlink()


def _no_start(root: Path) -> None:
    write_text(root / "environment.json", "{}")


def _start_of_another_kind(root: Path) -> None:
    write_json(root / "environment.json", {"started": 3})


def _list_of_notes(root: Path) -> None:
    write_text(root / "environment.json", "[1, 2]")


def _half_notes(root: Path) -> None:
    write_text(root / "environment.json", '{"started": ')


def _half_yaml(root: Path) -> None:
    write_text(root / "sweep.yaml", "name: demo\nmetric: {name: val_qwk")


def _no_mapping(root: Path) -> None:
    write_text(root / "sweep.yaml", "- 1\n")


def _empty_yaml(root: Path) -> None:
    write_text(root / "sweep.yaml", "")


def _no_metric(root: Path) -> None:
    write_text(root / "sweep.yaml", "name: demo\ntrials: 3\n")


def _no_text(root: Path) -> None:
    (root / "sweep.yaml").write_bytes(b"\xff\xfe\x00")


def _no_table(root: Path) -> None:
    (root / "trials.csv").write_bytes(b"")


def _other_table(root: Path) -> None:
    (root / "trials.csv").write_text("a,b\n1,2\n", encoding="utf-8")


def _no_metrics(root: Path) -> None:
    write_text(root / "best" / "metrics.json", "{}")


def _other_metrics(root: Path) -> None:
    write_text(root / "best" / "metrics.json", '{"test": [0.5]}')


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_no_environment, "environment.json"),
        (_no_start, "environment.json"),
        (_start_of_another_kind, "environment.json: started: 3: should be text"),
        (_list_of_notes, "environment.json: [1, 2]: should hold keys and their values"),
        (_half_notes, "environment.json: is not JSON"),
        (_half_yaml, "sweep.yaml: line "),
        (_no_mapping, "sweep.yaml: holds [1], not a mapping of keys"),
        (_empty_yaml, "sweep.yaml: holds nothing, not a mapping of keys"),
        (_no_metric, "is required"),
        (_no_text, "sweep.yaml: is not a text file in UTF-8"),
        (_no_table, "trials.csv: is not a table"),
        (_other_table, "trials.csv: lacks the columns"),
        (_no_metrics, "best/metrics.json: trial_id: is required"),
        (_other_metrics, "best/metrics.json: trial_id: is required"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named_and_hides_no_other(tmp_path: Path, damage: Any, named: str) -> None:
    finished(tmp_path, "good")
    damage(finished(tmp_path, "damaged").root)
    good, bad = read_summaries(tmp_path)
    assert (good.name, good.state) == ("good", "finished")
    assert bad.name == "damaged"
    assert bad.state.startswith("unreadable: ")
    assert named in bad.state
    assert 12 < len(bad.state) < 100
    assert "\n" not in bad.state
    assert str(tmp_path) not in bad.state  # the reason would be cut off after so long a path
    assert shown([good, bad])[-1] == ["damaged", bad.state, "-", "-", "-", "-"]


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path)
    original = Path.read_bytes

    def forbidden(file: Path) -> bytes:
        if file.name == "sweep.yaml":
            raise PermissionError(13, "Permission denied", str(file))
        return original(file)

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert one(tmp_path).state == "unreadable: sweep.yaml: cannot be read: Permission denied"


def test_what_is_no_sweep_is_passed_over(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("results", encoding="utf-8")
    sweep(tmp_path, "begun").root.rename(tmp_path / ".begun.1234.new")  # was being made when its process was killed
    assert [found.name for found in read_summaries(tmp_path)] == ["demo"]


def test_a_name_is_shown_as_it_is(tmp_path: Path) -> None:
    finished(tmp_path, "demo").root.rename(tmp_path / "demo [old]")
    assert shown(read_summaries(tmp_path))[1][0] == "demo [old]"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="none: no such folder"):
        read_summaries(tmp_path / "none")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ResultsError, match="file: no such folder"):
        read_summaries(tmp_path / "file")


def test_the_command_for_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", str(tmp_path / "none")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{tmp_path / 'none'}: no such folder\n"


def test_the_command_for_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path} holds no sweep yet\n"
    assert printed.err == ""


def test_the_command_looks_at_the_usual_folder_and_cuts_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path / "results", "a-rather-long-name-of-a-sweep-that-fills-the-terminal-by-itself")
    sweep(tmp_path / "results", "other", hours_ago=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["list"]) == 0
    head, _, first, second = filter(str.strip, capsys.readouterr().out.splitlines())
    assert head.split() == ["sweep", "state", "trials", "best", "test", "QWK", "age"]
    assert "a-rather-long-name-of-a-sweep-that-fills-the-terminal-by-itself" in first
    assert "val_qwk 0.750 by t0001" in first
    assert second.split() == ["other", "interrupted", "0", "of", "3", "-", "-", "3", "h"]
