"""The dry run: it foretells what a real sweep does, says what the sweep needs, and leaves nothing behind."""

from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import yaml
from dataset_layouts import eyepacs_folder
from planned_sweeps import GIB, PARAMETERS, Usage, files, spec_of
from rich.console import Console

from retina import cli
from retina.config import DataConfig, SyntheticConfig, TrialConfig
from retina.config.sweep import Budget, EarlyStop, Keep, Metric, Resources, SweepSpec, load
from retina.data.cache.pixel_cache import cache_folder
from retina.report.terminal import tables
from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.results.status import SweepPlan
from retina.sweep import dry_run as planning
from retina.sweep.dry_run import (
    FIRST_TRIALS,
    plan,
    slots_here,
)
from retina.sweep.ledger import Ledger
from retina.sweep.study import SweepStudy

GRID: dict[str, Any] = {"batch_size": {"values": [4, 8, 16]}, "epochs": {"values": [2, 5]}}


def words(planned: SweepPlan, width: int = 120) -> str:
    file = StringIO()
    Console(width=width, file=file).print(tables.plan(planned))
    return file.getvalue()


def asked_for(spec: SweepSpec, root: Path, number: int) -> list[tuple[str, TrialConfig]]:
    """What a sweep hands out one after another, each trial having ended before the next is asked for."""
    write_text(RunFolder.create(root).root / "sweep.yaml", spec.to_yaml())
    ledger = Ledger.create(spec, RunFolder.open(root))
    handed_out = []
    for place in range(number):
        name, config = ledger.ask()
        ledger.started(name, config)
        result = {"val_qwk": 0.1 * place, "val_loss": 1.0, "seconds": 1.0, "images_per_second": 9.0}
        ledger.epoch(name, 1, result)
        ledger.end(name, "COMPLETE" if place % 2 else "PRUNED", "")
        handed_out.append((name, config))
    return handed_out


@pytest.mark.parametrize("method", ["tpe", "gp", "random", "grid"])
def test_the_first_trials_are_those_that_the_sweep_begins_with(tmp_path: Path, method: str) -> None:
    start = [{"batch_size": 8, "optimizer": "adamw"}]
    spec = (
        spec_of(method="grid", parameters=GRID, trials=None)
        if method == "grid"
        else spec_of(method=method, start=start)
    )
    planned = plan(spec, tmp_path / "x")
    number = min(FIRST_TRIALS, spec.planned_trials)
    assert [name for name, _ in planned.first] == [f"t{place:04d}" for place in range(number)]
    study = SweepStudy.create(spec)
    at_once = [study.ask() for _ in range(number)]
    one_by_one = asked_for(spec, tmp_path / "x", number)
    for real in (at_once, one_by_one):
        assert planned.first == [(name, config.model_dump(include=set(spec.parameters))) for name, config in real]


def test_start_points_come_first(tmp_path: Path) -> None:
    points: list[dict[str, Any]] = [
        {"batch_size": 16, "learning_rate": 1e-3, "optimizer": "sgd", "momentum": 0.9},
        {"batch_size": 4},
    ]
    first = [values for _, values in plan(spec_of(start=points), tmp_path).first]
    assert first[0] == {"pretrained": False, **points[0]}
    assert first[1]["batch_size"] == 4  # the rest of it was left to the search
    assert len({str(values) for values in first}) == FIRST_TRIALS


def test_a_grid_starts_in_its_own_order(tmp_path: Path) -> None:
    planned = plan(spec_of(method="grid", parameters=GRID, trials=4), tmp_path)
    assert [(one["batch_size"], one["epochs"]) for _, one in planned.first] == [(4, 2), (4, 5), (8, 2), (8, 5)]
    assert (planned.trials, planned.epochs) == (4, 20)


def test_no_more_trials_are_shown_than_there_will_be(tmp_path: Path) -> None:
    assert len(plan(spec_of(trials=3), tmp_path).first) == 3
    assert len(plan(spec_of(trials=1), tmp_path).first) == 1


@pytest.mark.parametrize(
    ("epochs", "early_stop", "rungs"),
    [
        (12, {}, [2, 6]),
        (6, {}, [2]),
        (18, {}, [2, 6]),
        (19, {}, [2, 6, 18]),
        (10, {"grace_epochs": 1, "eta": 2}, [1, 2, 4, 8]),
        (10, {"eta": 1.5}, [2, 3, 5, 7]),
        (4, {"grace_epochs": 4}, []),
        (4, {"grace_epochs": 9}, []),
        (81, {"type": "none"}, []),
    ],
)
def test_the_rungs_lie_between_the_first_epoch_and_the_last(
    tmp_path: Path, epochs: int, early_stop: dict[str, Any], rungs: list[int]
) -> None:
    spec = spec_of(parameters={**PARAMETERS, "epochs": {"value": epochs}}, early_stop={"grace_epochs": 2, **early_stop})
    assert plan(spec, tmp_path).rungs == rungs


@pytest.mark.parametrize(
    ("parameters", "changes", "epochs"),
    [
        ({}, {}, 12 * 10),  # the default of `TrialConfig`
        ({"epochs": {"values": [3, 20, 7]}}, {}, 12 * 20),
        ({"epochs": {"distribution": "uniform", "min": 3, "max": 30}}, {"trials": 5}, 5 * 30),
        ({"epochs": {"value": 4}}, {"trials": None}, 20 * 4),
        (GRID, {"method": "grid", "trials": None}, 6 * 5),
        (GRID, {"method": "grid", "trials": 100}, 6 * 5),
        (GRID, {"method": "grid", "trials": 4}, 4 * 5),
    ],
)
def test_at_worst_every_trial_runs_the_most_epochs(
    tmp_path: Path, parameters: dict[str, Any], changes: dict[str, Any], epochs: int
) -> None:
    rest = {} if changes.get("method") == "grid" else PARAMETERS
    planned = plan(spec_of(parameters={**rest, **parameters}, **changes), tmp_path)
    assert planned.epochs == epochs
    assert epochs % planned.trials == 0


@pytest.mark.parametrize(
    ("cores", "gpus", "resources", "slots"),
    [
        (1, 0, {}, 1),
        (2, 0, {}, 2),
        (16, 0, {}, 4),
        (16, 2, {}, 2),
        (16, 2, {"gpu": 0.5}, 4),
        (16, 2, {"gpu": 2}, 1),
        (16, 2, {"gpu": 0, "cpu": 4}, 4),
        (3, 2, {"cpu": 2}, 1),
    ],
)
def test_how_many_fit_is_judged_without_ray(
    monkeypatch: pytest.MonkeyPatch, cores: int, gpus: int, resources: dict[str, Any], slots: int
) -> None:
    monkeypatch.setattr(planning, "available_cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert slots_here(spec_of(resources=resources)) == slots
    assert not ray.is_initialized()


def test_a_plan_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(trials=3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(80 * GIB, 0, 80 * GIB))
    planned = plan(spec, tmp_path)
    said = words(planned)
    for word in (
        "Would start first",
        "t0000",
        "t0002",
        "after epochs 3, 9",
        "30 epochs in 3 trials",
        "85.90 GB are free",
    ):
        assert word in said
    assert f"{planned.slots} on this machine" in said
    assert f"{planned.bytes_needed / 1e9:.2f} GB at most" in said
    assert "not enough" not in said
    assert "pretrained" not in said  # the same in all of them
    for _, values in planned.first:
        assert f"{values['learning_rate']:.3g}" in said
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(80 * GIB, 80 * GIB, 0))
    assert "0.00 GB are free: not enough, it would not start" in words(plan(spec, tmp_path))
    unstopped = words(plan(spec_of(early_stop={"type": "none"}), tmp_path))
    assert "none: every trial runs to its end" in unstopped


def test_a_sweep_of_one_trial_shows_its_settings(tmp_path: Path) -> None:
    (_, values), said = plan(spec_of(trials=1), tmp_path).first[0], words(plan(spec_of(trials=1), tmp_path))
    assert "learning_rate" in said
    assert f"{values['learning_rate']:.3g}" in said


def test_planning_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cached = files(cache_folder()) if cache_folder().is_dir() else []
    plan(spec_of(), tmp_path / "results" / "planned")
    plan(spec_of(), Path("results") / "planned")
    assert files(tmp_path) == []
    assert (files(cache_folder()) if cache_folder().is_dir() else []) == cached
    assert not ray.is_initialized()


SPACE = """
trials: 3
data: {path: synthetic, image_size: 32, synthetic: {photographs: 60, size: 64}}
parameters:
  pretrained: {value: false}
  learning_rate: {distribution: log_uniform, min: 1e-4, max: 1e-2}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user is, with a sweep file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SPACE, encoding="utf-8")
    return tmp_path


def dry_run(*more: str) -> int:
    return cli.main(["sweep", "--space", "small.yaml", *more, "--dry-run"])


def printed_spec(printed: str) -> str:
    return printed.partition("Would start first")[0]


def test_the_dry_run_prints_the_sweep_with_every_default(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run("--trials", "4", "--set", "keep.trials=2") == 0
    printed = capsys.readouterr().out
    values = yaml.safe_load(printed_spec(printed))
    assert values.keys() == SweepSpec.model_fields.keys()
    parts = {
        "metric": Metric, "budget": Budget, "early_stop": EarlyStop, "resources": Resources, "keep": Keep,
        "data": DataConfig,
    }  # fmt: skip
    for part, kind in parts.items():
        assert values[part].keys() == kind.model_fields.keys()
    assert values["data"]["synthetic"].keys() == SyntheticConfig.model_fields.keys()
    assert (values["name"], values["trials"], values["keep"]["trials"]) == ("small", 4, 2)
    (home / "again.yaml").write_text(printed_spec(printed), encoding="utf-8")
    assert load(home / "again.yaml") == load(home / "small.yaml", trials=4, overrides=["keep.trials=2"])


def test_the_dry_run_starts_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run() == 0
    printed = capsys.readouterr().out
    assert "t0002" in printed
    assert "30 epochs in 3 trials" in printed
    assert printed.endswith("photographs: 60 are drawn\nNothing was started; leave --dry-run out to start it.\n")
    assert files(home) == ["small.yaml"]
    assert not ray.is_initialized()


def test_the_dry_run_reads_the_labels_that_are_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eyepacs_folder(home / "eyes")
    before = files(home)
    assert dry_run("--data", "eyes") == 0
    printed = capsys.readouterr().out
    assert "photographs: 3 photographs in " in printed
    assert yaml.safe_load(printed_spec(printed))["data"]["path"] == str(home / "eyes")  # works from anywhere
    assert files(home) == before


def test_without_its_data_the_plan_is_printed_and_then_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run("--data", "nowhere") == 2
    printed = capsys.readouterr()
    assert yaml.safe_load(printed_spec(printed.out))["data"]["path"] == str(home / "nowhere")
    assert "t0002" in printed.out
    assert "Nothing was started" not in printed.out
    assert "nowhere" in printed.err
    assert files(home) == ["small.yaml"]


def test_a_dry_run_that_could_never_start_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run("--set", "resources.cpu=9999") == 2
    assert "resources.cpu: 9999 requested" in capsys.readouterr().err
    assert dry_run("--set", "trials=0") == 2
    assert capsys.readouterr().out == ""
    assert files(home) == ["small.yaml"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--results", "small.yaml"], "small.yaml is not a folder; choose another --results"),
        (["--results", "/dev/null"], "/dev/null is not a folder"),
        (["--weights", "nowhere.pth"], "--weights nowhere.pth: no such file or folder"),
        (["--extend", "3"], "is not the results folder of a sweep"),
        (["--trials", str(10**30)], "should be less than or equal to 1000000"),
        (["--data", "x" * 5000], "[...]"),
    ],
)
def test_what_a_sweep_would_refuse_the_dry_run_refuses(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert dry_run(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) <= 3 < len(error) < 2500
    assert files(home) == ["small.yaml"]


def test_the_dry_run_of_a_sweep_that_goes_on_says_what_is_left(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = load(home / "small.yaml")
    folder = RunFolder.create(home / "results" / "small")
    write_text(folder.root / "sweep.yaml", spec.to_yaml())
    folder.record_trial("t0000", state="COMPLETE", val_qwk=0.5)
    folder.flush()
    assert dry_run() == 2
    assert "will not be overwritten" in capsys.readouterr().err
    before = files(home)
    assert dry_run("--resume") == 2
    assert "the code has changed since" in capsys.readouterr().err  # the folder says nothing of its code
    assert dry_run("--resume", "--force", "--trials", "4") == 0
    assert "30 epochs in 3 trials" in capsys.readouterr().out
    assert dry_run("--resume", "--force") == 0
    assert "20 epochs in 2 trials" in (printed := capsys.readouterr().out)
    assert "Would start first" not in printed
    assert files(home) == before
