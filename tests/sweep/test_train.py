"""`retina train`: the report's command line, what it trains and tells, and that nothing that kills it costs more."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torchvision
from lock_holder import held_elsewhere

from retina import cli
from retina.cli import train_arguments
from retina.config import SyntheticConfig
from retina.config import sweep as spec
from retina.data import synthetic
from retina.errors import DiskError, ResultsError, TrainError
from retina.report.terminal import list_sweeps
from retina.results.run_folder import RunFolder
from retina.training.trainer import TrainingRun

REPORT = {
    "target_model": "resnet18",
    "comparison": True,
    "pretrain": False,
    "load": False,
    "show_only": False,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "epochs": 10,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 5e-4,
}
TIMES = ["images_per_second", "seconds"]
FAST = ("-e", "2", "-b", "16", "--image-size", "16")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user is: drawn photographs, made-up weights of both networks, and a comparison of ResNet18."""
    home = tmp_path_factory.mktemp("home")
    synthetic.draw(home / "eyes", SyntheticConfig(photographs=40, size=64, proportions="balanced"))
    (home / "weights").mkdir()
    for name in ("resnet18", "resnet50"):
        torch.manual_seed(3)
        torch.save(torchvision.models.get_model(name).state_dict(), home / "weights" / f"{name}-mine.pth")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETINA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert cli.main(["train", *words(home, "first")]) == 0
    return home


def words(home: Path, name: str, *more: str) -> list[str]:
    places = ("--data", f"{home}/eyes", "--weights", f"{home}/weights", "--results", f"{home}/results")
    return [*FAST, *places, "--name", name, *more]


def train(home: Path, name: str, *more: str) -> int:
    return cli.main(["train", *words(home, name, *more)])


@pytest.fixture
def copy(home: Path) -> Path:
    """A copy of the comparison of ResNet18, to be changed."""
    target = home / "results" / "copy"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(home / "results" / "first", target)
    sweep = target / "sweep.yaml"
    sweep.write_text(sweep.read_text().replace("name: first", "name: copy"))
    return target


def parsed(given: str = "") -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    train_arguments.add_arguments(parser)
    return vars(parser.parse_args(given.split()))


def history(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "history.csv").drop(columns=TIMES)


def test_the_flags_have_the_reports_defaults() -> None:
    assert {key: value for key, value in parsed().items() if key in REPORT} == REPORT


def test_the_flags_are_the_reports_short_and_long() -> None:
    short = parsed("-t ResNet50 -c 0 -p 1 -l 1 -s 1 -b 8 -lr 0.5 -e 3 -o adam -m 0.5 -w 0.25 -v 2")
    long = parsed(
        "--target_model resnet50 --comparison false --pretrain true --load --show_only --batch_size 8"
        " --learning_rate 5e-1 --epochs 3 --optimizer adam --momentum .5 --weight_decay .25 --verbosity 2"
    )
    assert short == long
    wanted = {"target_model": "resnet50", "comparison": False, "pretrain": True, "load": True, "show_only": True}
    wanted |= {"batch_size": 8, "learning_rate": 0.5, "epochs": 3, "optimizer": "adam", "momentum": 0.5}
    assert {**short, **wanted, "weight_decay": 0.25, "verbosity": 2} == short


def test_both_runs_are_in_a_results_folder_of_the_usual_shape(home: Path) -> None:
    root = home / "results" / "first"
    trials = pd.read_csv(root / "trials.csv")
    assert trials[["trial_id", "state", "pretrained"]].to_numpy().tolist() == [
        ["t0000", "COMPLETE", True],
        ["t0001", "COMPLETE", False],
    ]
    result = {**REPORT, "epochs": 2, "batch_size": 16, "arch": "resnet18", "head_layers": 2, "seed": 0}
    assert all((trials[key] == value).all() for key, value in result.items() if key in trials)
    for _, row in trials.iterrows():
        own = history(root).query(f"trial_id == '{row['trial_id']}'").set_index("epoch")
        assert list(own.index) == [1, 2]
        assert own["test_accuracy"].between(0, 1).all()
        assert row["best_epoch"] == own["val_accuracy"].idxmax(), "validation chooses, and not test"
        assert row["val_accuracy"] == own["val_accuracy"].max()
        files = {file.name for file in (root / "trials" / row["trial_id"]).iterdir()}
        assert files == {"config.json", "log.txt", "model.pt", "SHA256SUMS"}
    metrics = json.loads((root / "best" / "metrics.json").read_text())
    assert metrics["trial_id"] == trials.loc[trials["val_accuracy"].idxmax(), "trial_id"]
    matrices = {f"confusion_matrix_resnet18_{how}.png" for how in ("pretrained", "scratch")}
    assert {file.name for file in (root / "comparison").glob("*.png")} == {"accuracy_resnet18.png", *matrices}
    assert (root / "best" / "accuracy.png").is_file()


def test_pretraining_is_in_the_one_and_not_in_the_other(home: Path) -> None:
    given = torch.load(home / "weights" / "resnet18-mine.pth", weights_only=True)["layer4.1.conv2.weight"]
    moved = []
    for trial_id in ("t0000", "t0001"):
        weights = torch.load(home / "results" / "first" / "trials" / trial_id / "model.pt", weights_only=True)
        moved.append(float((weights["layer4.1.conv2.weight"] - given).abs().mean() / given.abs().mean()))
    assert moved[0] < 0.2
    assert moved[1] > 1


def test_the_sweep_file_says_what_was_trained(home: Path) -> None:
    result = spec.load(home / "results" / "first" / "sweep.yaml")
    assert (result.planned_trials, result.method, result.metric.name, result.track_test) == (
        2,
        "grid",
        "val_accuracy",
        True,
    )
    assert result.possible("pretrained") == [True, False]
    assert [result.possible(key) for key in ("arch", "epochs", "batch_size")] == [["resnet18"], [2], [16]]
    assert result.data.path == str(home / "eyes")
    assert result.data.layout == "eyepacs"


def test_it_is_listed_as_finished(home: Path) -> None:
    (found,) = [one for one in list_sweeps.read_summaries(home / "results") if one.name == "first"]
    assert (found.state, found.planned, found.finished, found.metric) == ("finished", 2, 2, "val_accuracy")


def test_what_is_there_is_not_overwritten(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "results" / "first" / "trials.csv").read_bytes()
    assert train(home, "first") == 2
    assert "already exists and will not be overwritten" in capsys.readouterr().err
    assert (home / "results" / "first" / "trials.csv").read_bytes() == before


@pytest.mark.parametrize("error", [DiskError("the disk is full"), ResultsError("it is damaged")])
def test_a_comparison_that_cannot_be_drawn_is_no_success(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: ResultsError
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("retina.report.comparison_figures.draw", broken)
    assert train(home, "first", "-s", "1") == error.exit_code > 0
    assert capsys.readouterr().err == f"{error}\n"


def test_load_goes_straight_to_the_comparison(home: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for figure in copy.glob("*/*.png"):
        figure.unlink()
    before = {file: file.read_bytes() for file in (copy / "trials.csv", copy / "history.csv")}
    (home / "eyes").rename(home / "moved")
    try:
        assert train(home, "copy", "-l", "1", "--weights", "nowhere") == 0
    finally:
        (home / "moved").rename(home / "eyes")
    assert {file: file.read_bytes() for file in before} == before
    assert len(list(copy.glob("*/*.png"))) == 5 + 3
    printed = capsys.readouterr().out
    assert "epoch 1 of 2" not in printed
    for how in ("w/", "w/o"):
        for split in ("train", "test"):
            assert re.search(rf"^ResNet18 \({how} pretraining\)_{split}: \d+\.\d\d %$", printed, re.MULTILINE)


@pytest.mark.usefixtures("_stub_figures")
def test_show_only_draws_without_photographs_and_trains_nothing(copy: Path) -> None:
    shutil.rmtree(copy / "trials")
    (copy / "comparison" / "accuracy_resnet18.png").unlink()
    before = (copy / "history.csv").read_bytes()
    asked = ["train", "-s", "1", "--results", str(copy.parent), "--name", "copy", "--data", "nowhere"]
    assert cli.main(asked) == 0
    assert (copy / "comparison" / "accuracy_resnet18.png").is_file()
    assert (copy / "history.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("-e", "3"), "epochs was 2, now 3"),
        (("-lr", "0.5", "-m", "0.1"), "learning_rate was 0.001, now 0.5; momentum was 0.9, now 0.1"),
        (("--image-size", "32"), "image_size was 16, now 32"),
    ],
)
def test_load_refuses_other_settings(
    home: Path, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(home, "first", "-l", *more) == 2
    assert said in capsys.readouterr().err


def test_load_refuses_a_sweep_and_a_folder_in_use(home: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with held_elsewhere(copy):
        assert train(home, "copy", "-l") == 2
    assert "is being run by another process" in capsys.readouterr().err
    RunFolder.open(copy).update_metadata(study="copy-123", backend=None)  # as `retina sweep` notes it
    assert train(home, "copy", "-l") == 2
    assert "is a sweep's" in capsys.readouterr().err


@pytest.mark.usefixtures("_stub_figures")
def test_a_second_network_under_the_same_name_makes_the_comparison_of_both(home: Path, copy: Path) -> None:
    before = history(copy)
    assert train(home, "copy", "-l", "-t", "ResNet50") == 0
    assert pd.read_csv(copy / "trials.csv")["arch"].tolist() == ["resnet18", "resnet18", "resnet50", "resnet50"]
    assert history(copy).iloc[: len(before)].equals(before)
    figures = {file.name for file in (copy / "comparison").glob("*.png")}
    assert figures == {
        *(f"accuracy_{arch}.png" for arch in ("resnet18", "resnet50")),
        *(
            f"confusion_matrix_{arch}_{how}.png"
            for arch in ("resnet18", "resnet50")
            for how in ("pretrained", "scratch")
        ),
    }
    result = spec.load(copy / "sweep.yaml")
    assert (result.method, result.planned_trials, result.possible("arch")) == ("grid", 4, ["resnet18", "resnet50"])


@pytest.mark.usefixtures("_stub_figures")
def test_one_run_alone_is_no_comparison(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(home, "alone", "-c", "0", "-e", "1", "-v", "0") == 0
    printed = capsys.readouterr().out
    assert "ResNet18 (w/o pretraining)_test: " in printed
    assert "w/ pretraining" not in printed
    assert "epoch 1 of 1" not in printed
    assert not (home / "results" / "alone" / "comparison").exists()


KILLED = """
import os, sys
from retina import cli
from retina.results import checkpoints
save = checkpoints.save
def save_and_die(folder, epoch, *rest):
    save(folder, epoch, *rest)
    os._exit(9 if "ray" not in sys.modules else 1)  # the epoch is saved, and in no table yet
checkpoints.save = save_and_die
cli.main(sys.argv[1:])
"""


@pytest.mark.usefixtures("_stub_figures")
def test_what_was_killed_goes_on_and_comes_to_the_same(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [sys.executable, "-c", KILLED, "train", *words(home, "killed", "-c", "0")]
    done = subprocess.run(
        asked, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 9, done.stdout + done.stderr
    root = home / "results" / "killed"
    assert history(root).empty
    (found,) = [one for one in list_sweeps.read_summaries(home / "results") if one.name == "killed"]
    assert found.state == "interrupted"
    assert train(home, "killed", "--load", "true", "-v", "2") == 0
    printed = capsys.readouterr().out
    assert "ResNet18 (w/o pretraining) goes on after epoch 1" in printed
    assert "ResNet18 (w/ pretraining) begins" in printed
    assert "train_loss" in printed
    names = {"t0000": "t0001", "t0001": "t0000"}  # the other way round: the one with pretraining was an afterthought
    there = history(root).assign(trial_id=lambda table: table["trial_id"].map(names)).sort_values(["trial_id", "epoch"])
    pd.testing.assert_frame_equal(there.reset_index(drop=True), history(home / "results" / "first"))
    assert not list(root.glob("trials/*/checkpoint_*"))


def test_interrupted_by_ctrl_c(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(self: TrainingRun) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TrainingRun, "__next__", stop)
        assert train(home, "stopped", "-c", "0") == 130
    assert "Continue with the same command and --load 1" in capsys.readouterr().out
    assert pd.read_csv(home / "results" / "stopped" / "trials.csv")["state"].tolist() == ["RUNNING"]


@pytest.mark.usefixtures("_stub_figures")
def test_a_run_that_cannot_go_on_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(home, "wild", "-c", "0", "-lr", "1e30") == 1
    assert "the training loss is" in capsys.readouterr().err
    root = home / "results" / "wild"
    assert pd.read_csv(root / "trials.csv")["state"].tolist() == ["FAIL"]
    assert "the training loss is" in (root / "trials" / "t0000" / "error.txt").read_text()


def test_a_run_that_begins_anew_has_no_epochs_of_before_and_a_reason_that_can_be_read_back(
    home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "the loss is " + "x" * 200_000

    def fail(self: TrainingRun) -> None:
        raise TrainError(reason)

    table = copy / "trials.csv"
    *lines, last = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*lines, last.replace("COMPLETE", "RUNNING")]))  # its checkpoint is not there
    (copy / "study.db").unlink()  # else the ledger knows from it that the trial has ended
    monkeypatch.setattr(TrainingRun, "__next__", fail)
    assert train(home, "copy", "--load", "true") == 1
    row = RunFolder.open(copy).trial_row("t0001")
    assert (row["state"], "best_epoch" in row) == ("FAIL", False)
    assert row["reason"][:12] == reason[:12]
    assert len(row["reason"]) <= 4000
    assert set(history(copy)["trial_id"]) == {"t0000"}
    assert (copy / "trials" / "t0001" / "error.txt").read_text() == reason + "\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--weights", "nowhere"), "--weights nowhere: no such file or folder"),
        (("--data", "nowhere"), "nowhere"),
        (("-o", "rmsprop"), "optimizer: 'rmsprop': should be 'sgd', 'adam' or 'adamw'"),
        (("-e", "0"), "epochs: 0"),
        (("--name", "a b"), "name: 'a b'"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    home: Path, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in (home / "results").iterdir()}
    assert train(home, "mistaken", *more) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) <= 3
    assert {path.name for path in (home / "results").iterdir()} == before


@pytest.mark.parametrize("given", [("-t", "ResNet34"), ("-c", "2"), ("-v", "3"), ("-b", "few")])
def test_a_wrong_argument_is_told_in_two_lines(given: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", *given])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
