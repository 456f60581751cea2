"""The whole walk, as a user takes it: the commands, in processes of their own, on a machine with nothing prepared."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
import pytest
from PIL import Image
from repository import ROOT
from rich.console import Console

from retina import cli
from retina.config.sweep import load
from retina.data.dataset import synthetic_folder
from retina.results import checksums

SPACE = """
name: tiny
data: {path: synthetic, image_size: 64, synthetic: {photographs: 60, size: 64, proportions: balanced}}
trials: 3
track_test: true
early_stop: {type: none}
parameters:
  pretrained: {value: false}
  batch_size: {values: [8, 16], ordered: true}
  learning_rate: {distribution: log_uniform, min: 1e-4, max: 1e-2}
  epochs: {value: 4}
keep: {trials: 1}
"""


PRETRAINED = ["parameters.pretrained.value=true"]


def command(*arguments: object, cwd: Path) -> list[str]:
    first = [str(ROOT / "tune_main.py")] if arguments[0] == "--space" else ["-m", "retina"]
    return [sys.executable, *first, *(str(argument) for argument in arguments)]


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, cwd=cwd), cwd=cwd, capture_output=True, text=True, timeout=900, check=False
    )


@dataclass(frozen=True)
class Story:
    """A sweep that was ended by Ctrl-C, resumed, killed with kill -9 and resumed to its end, and what was seen.

    Attributes:
        home: where the user is.
        after_ctrl_c: what it printed until then, and its exit code.
        trials: trials.csv at that moment.
        busy: `--resume` while another process runs the sweep.
        listed: `retina list` after the kill.
        ended: the process that came to its end.
    """

    home: Path
    after_ctrl_c: tuple[str, int]
    trials: pd.DataFrame
    busy: subprocess.CompletedProcess[str]
    listed: subprocess.CompletedProcess[str]
    ended: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.yaml").write_text(SPACE)
    os.environ["RETINA_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    after_ctrl_c = _stopped_by_ctrl_c(home)
    trials = pd.read_csv(home / "results" / "tiny" / "trials.csv")
    busy = _killed(home)
    listed = run("list", cwd=home)
    ended = run("--space", "tiny.yaml", "--resume", cwd=home)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return Story(home, after_ctrl_c, trials, busy, listed, ended)


def _stopped_by_ctrl_c(home: Path) -> tuple[str, int]:
    """Begin the sweep, and stop it when its first trial has ended."""
    process = subprocess.Popen(
        command("--space", "tiny.yaml", cwd=home),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if "COMPLETE" in line:
            process.send_signal(signal.SIGINT)
            break
    return printed + process.communicate(timeout=120)[0], process.returncode


def _killed(home: Path) -> subprocess.CompletedProcess[str]:
    """Resume the sweep, and kill it when a trial has come to a new epoch; returns what another command says to it."""
    trials = home / "results" / "tiny" / "trials"
    before = set(trials.glob("*/checkpoint_*"))
    process = subprocess.Popen(
        command("--space", "tiny.yaml", "--resume", cwd=home), cwd=home, stdout=subprocess.DEVNULL
    )
    while not set(trials.glob("*/checkpoint_*")) - before:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)  # or it may end while the next command starts
    busy = run("--space", "tiny.yaml", "--resume", cwd=home)
    process.kill()
    process.wait()
    return busy


@pytest.fixture(scope="module")
def home(story: Story) -> Path:
    """Where the user is, with a sweep that has run there to its end."""
    return story.home


def test_the_user_sees_the_trials_the_best_model_and_where_everything_is(story: Story) -> None:
    home, printed = story.home, story.ended.stdout + story.ended.stderr
    for word in (
        "Ray dashboard: http://",
        "ray get-auth-token",
        "t0002",
        "COMPLETE",
        "QWK",
        "confusion_matrix_test.png",
    ):
        assert word in printed
    assert str(home / "results" / "tiny") in printed.replace("\n", "")
    assert "Traceback" not in printed
    assert "Warning" not in printed


def test_the_results_folder_is_that_of_the_contract(home: Path) -> None:
    folder = home / "results" / "tiny"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "sweep.yaml",
        "environment.json",
        "trials.csv",
        "history.csv",
        "report.html",
        "study.db",
        "trials",
        "best",
        "tune",
    }
    best = {path.name for path in (folder / "best").iterdir()}
    matrices = {f"confusion_matrix_{part}{how}.png" for part in ("val", "test") for how in ("", "_rows")}
    whole = {"model.pt", "config.json", "metrics.json", "predictions.csv", "accuracy.png"} | matrices
    assert best == whole | {checksums.SUMS}
    assert set(checksums.read_sums(folder / "best") or {}) == whole
    assert checksums.verify(folder / "best", whole, "")
    trials = pd.read_csv(folder / "trials.csv", keep_default_na=False)
    assert trials["state"].tolist() == ["COMPLETE"] * 3
    for trial in trials["trial_id"]:
        assert {"config.json", "log.txt"} <= {path.name for path in (folder / "trials" / trial).iterdir()}
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    best_row = trials.set_index("trial_id").loc[metrics["trial_id"]]
    assert metrics["epoch"] == int(best_row["best_epoch"])
    assert float(best_row["val_qwk"]) == pytest.approx(trials["val_qwk"].astype(float).max())
    assert [path.parent.name for path in folder.glob("trials/*/model.pt")] == [metrics["trial_id"]]
    for split in ("val", "test"):
        assert sum(map(sum, metrics[split]["confusion_matrix"])) == metrics[split]["n"] > 0
        assert {"accuracy", "qwk", "auc"} <= set(metrics[split])
    for figure in (folder / "best").glob("*.png"):
        with Image.open(figure) as picture:
            assert picture.width > 300
    history = pd.read_csv(folder / "history.csv")
    assert history.groupby("trial_id")["epoch"].apply(list).tolist() == [[1, 2, 3, 4]] * 3
    assert history["test_accuracy"].between(0, 1).all()
    result = json.loads((folder / "environment.json").read_text())
    assert result["data"]["photographs"]["train"]["n"] + metrics["val"]["n"] + metrics["test"]["n"] == 60


def test_the_study_names_the_same_best_trial(home: Path) -> None:
    storage = f"sqlite:///{home / 'results' / 'tiny' / 'study.db'}"
    (name,) = optuna.get_all_study_names(storage)
    best = optuna.load_study(study_name=name, storage=storage).best_trial
    metrics = json.loads((home / "results" / "tiny" / "best" / "metrics.json").read_text())
    assert best.user_attrs["trial_id"] == metrics["trial_id"]


def test_the_written_sweep_works_as_a_sweep_file(home: Path) -> None:
    written = load(home / "results" / "tiny" / "sweep.yaml")
    assert written.planned_trials == 3
    assert written.data.layout == "synthetic"
    assert load(home / "tiny.yaml").parameters == written.parameters


def test_a_finished_sweep_is_never_overwritten(home: Path) -> None:
    before = (home / "results" / "tiny" / "trials.csv").read_bytes()
    again = run("--space", "tiny.yaml", cwd=home)
    assert again.returncode == 2
    assert "already exists and will not be overwritten" in again.stderr
    assert "--resume" in again.stderr
    assert (home / "results" / "tiny" / "trials.csv").read_bytes() == before


def test_a_changed_sweep_is_not_resumed(home: Path) -> None:
    changed = run("--space", "tiny.yaml", "--resume", "--set", "parameters.epochs.value=3", cwd=home)
    assert changed.returncode == 2
    assert "is not the sweep that is to be resumed" in changed.stderr
    assert "value: 4" in changed.stderr
    assert "value: 3" in changed.stderr


def test_the_best_model_is_exported_and_grades_new_photographs(home: Path) -> None:
    exported = run("export", "results/tiny", "--out", "model", cwd=home)
    assert exported.returncode == 0, exported.stderr
    photographs = sorted((synthetic_folder(load(home / "tiny.yaml").data.synthetic) / "train").iterdir())
    graded = run("predict", "model", photographs[0], photographs[1], "--csv", "grades.csv", cwd=home)
    assert graded.returncode == 0, graded.stderr
    grades = pd.read_csv(home / "grades.csv", keep_default_na=False)
    assert len(grades) == 2
    assert grades["grade"].isin(range(5)).all()
    assert grades[[f"p{grade}" for grade in range(5)]].sum(axis=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    predictions = pd.read_csv(home / "results" / "tiny" / "best" / "predictions.csv").set_index("image")
    for row in grades.to_dict("records"):
        stem = Path(row["image"]).stem
        if stem in predictions.index:
            of_training = predictions.loc[stem]
            assert row["grade"] == of_training["predicted"]
            assert row["referable_score"] == pytest.approx(of_training[["p2", "p3", "p4"]].sum(), abs=1e-3)


def test_ctrl_c_ends_cleanly_and_resume_goes_on(story: Story) -> None:
    printed, code = story.after_ctrl_c
    assert code == 130, printed
    assert "--resume" in printed
    assert "Traceback" not in printed
    before = story.trials.set_index("trial_id")
    finished = before[before["state"] == "COMPLETE"]
    assert 1 <= len(finished) < 3
    after = pd.read_csv(story.home / "results" / "tiny" / "trials.csv").set_index("trial_id")
    assert (after.loc[finished.index, "val_qwk"] == finished["val_qwk"]).all()


def test_a_sweep_that_runs_is_left_alone_and_killed_with_kill_9_it_goes_on(story: Story) -> None:
    assert story.busy.returncode == 2
    assert "is being run by another process" in story.busy.stderr
    assert "interrupted" in next(line for line in story.listed.stdout.splitlines() if "tiny" in line)
    folder = story.home / "results" / "tiny"
    assert pd.read_csv(folder / "trials.csv")["trial_id"].tolist() == ["t0000", "t0001", "t0002"]
    assert not list((folder / "trials").glob("*/checkpoint_*"))


def test_a_finished_sweep_is_extended(home: Path) -> None:
    before = pd.read_csv(home / "results" / "tiny" / "trials.csv").set_index("trial_id")
    extended = run("--space", "tiny.yaml", "--extend", "1", cwd=home)
    assert extended.returncode == 0, extended.stdout + extended.stderr
    assert "ended by trials=4: all were run" in extended.stdout
    after = pd.read_csv(home / "results" / "tiny" / "trials.csv").set_index("trial_id")
    assert after.index.tolist() == ["t0000", "t0001", "t0002", "t0003"]
    assert (after.loc[before.index, "val_qwk"] == before["val_qwk"]).all()


MISTAKES = [
    (("--space", "tiny.yaml", "--name", "x", "--data", "nowhere"), "--data synthetic"),
    (("--space", "tiny.yaml", "--name", "x", "--weights", "no.pth", "--set", *PRETRAINED), "no.pth"),
    (("--space", "tiny.yaml", "--name", "x", "--address", "127.0.0.1:9"), "no Ray cluster answers there"),
    (("--space", "tiny.yaml", "--name", "x", "--address", "ray://127.0.0.1:1"), "Ray Client is not supported"),
    (("--space", "tiny.yaml", "--results", "s3://bucket"), "--results s3://bucket: allowed: a folder"),
    (("--space", "tiny.yaml", "--nonsense"), "unrecognized arguments: --nonsense"),
    (("export", "results/none"), "results/none"),
    (("predict", "results/none", "x.jpg"), "x.jpg"),
    (("data", "prepare", "nowhere"), "nowhere"),
    (("data", "draw", "drawn", "--photographs", "3"), "photographs: 3"),
]
OF_A_PROCESS = [
    (("--space", "absent.yaml"), "absent.yaml: No such file or directory"),
    (("--space", "tiny.yaml", "--name", "x", "--set", "resources.cpu=999"), "resources.cpu: 999 requested"),
]


def is_plain(home: Path, code: int, printed: str, said: str, message: str) -> None:
    assert code == 2, printed + said
    assert message in said.replace("\n", " ")
    assert len(said.strip().splitlines()) <= 3
    assert "Traceback" not in printed + said
    assert not (home / "results" / "x").exists()


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_answered_in_three_lines_and_leave_nothing(
    home: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(home)
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()) as said:
        monkeypatch.setattr(cli.console, "out", Console(file=printed, soft_wrap=True))
        monkeypatch.setattr(cli.console, "err", Console(file=said, soft_wrap=True))
        try:
            code = cli.main(["sweep", *arguments] if arguments[0] == "--space" else arguments)
        except SystemExit as ended:  # argparse's way
            code = int(ended.code or 0)
    is_plain(home, code, printed.getvalue(), said.getvalue(), message)


@pytest.mark.parametrize(("arguments", "message"), OF_A_PROCESS)
def test_so_they_are_in_a_process_of_their_own(home: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments, cwd=home)
    is_plain(home, done.returncode, done.stdout, done.stderr, message)
