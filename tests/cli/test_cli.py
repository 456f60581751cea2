"""What the commands say, and with which exit code, where something is in the way."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_layouts import photographs, text
from PIL import Image
from repository import ROOT

from retina import cli
from retina.config import SyntheticConfig
from retina.data import synthetic
from retina.errors import DataError, ResultsError
from retina.results.run_folder import RunFolder

DEMO = str(ROOT / "sweeps" / "demo.yaml")
LONG = "x" * 300


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A data set of labels alone."""
    text(tmp_path / "set" / "labels.csv", "image,level\n10_left,0\n10_right,1\n")
    return tmp_path / "set"


@pytest.mark.parametrize("command", ["prepare", "audit"])
def test_names_and_row_numbers_are_no_pictures(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = "\n" * 96  # by default rich turns the row's number into 💯
    text(tmp_path / "set" / "labels.csv", f"image,level\ngood,0\nfine,1\n{empty}an:eye:gone,1\n")
    photographs(tmp_path / "set", "good.png", "fine.png")
    cli.main(["data", command, "set"])
    said = capsys.readouterr()
    assert "labels.csv:100: an:eye:gone" in said.out + said.err


def test_one_very_long_photograph_does_not_cost_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "set", "0/good.png", "1/good.png")
    Image.new("L", (20_000, 100), 90).save(tmp_path / "set" / "1" / "long.png")
    assert cli.main(["data", "audit", "set"]) == 0
    assert "long.png" in capsys.readouterr().out


def test_an_audit_of_a_path_that_cannot_be_looked_at_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "audit", "a" * 300]) == 2
    assert "File name too long" in capsys.readouterr().err

    def forbidding(_: Path) -> bool:  # root may enter every folder, so the refusal is played
        raise PermissionError(13, "Permission denied", "closed/set")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_file", forbidding)
    assert cli.main(["data", "audit", "closed/set"]) == 2
    assert "closed/set: this folder or file cannot be read: [Errno 13]" in capsys.readouterr().err


def test_an_audit_names_no_flag_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "audit", "synthetic"]) == 2
    said = capsys.readouterr().err
    assert "or give another path" in said
    assert "--data PATH" not in said
    assert "retina data draw DIR" in said


def test_a_full_disk_costs_the_page_and_not_the_audit(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        code = cli.main(["data", "audit", str(listed), "--html", str(page)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr()
    assert code == 1
    assert "2 photographs" in said.out
    assert said.err == f"{page}: cannot be written: File too large\n"
    assert not page.exists()


def answer(arguments: list[str]) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.mark.parametrize("path", [LONG, f"{LONG}/a", "loop", "loop/a", "a\0b"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "PATH"],
        ["sweep", "--space", "PATH"],
        ["sweep", "--space", DEMO, "--dry-run", "--weights", "PATH"],
        ["sweep", "--space", DEMO, "--dry-run", "--data", "PATH"],
        ["sweep", "--space", DEMO, "--extend", "2", "--dry-run", "--results", "PATH"],
        ["train", "--data", "PATH"],
        ["train", "--data", "synthetic", "--results", "PATH"],
        ["train", "--data", "synthetic", "--weights", "PATH"],
        ["data", "draw", "PATH"],
        ["data", "prepare", "PATH"],
        ["data", "audit", "PATH"],
        ["data", "audit", "plain", "--html", "PATH"],
        ["report", "PATH"],
        ["report", "plain", "--out", "PATH"],
        ["export", "PATH"],
        ["export", "plain", "--out", "PATH"],
        ["predict", "PATH", "plain"],
        ["predict", "plain", "PATH"],
        ["predict", "plain", "plain", "--csv", "PATH"],
    ],
)
def test_a_path_that_can_never_be_there_is_refused_by_every_command(
    arguments: list[str], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    assert answer([path if one == "PATH" else one for one in arguments]) == 2
    said = capsys.readouterr().err
    assert 1 <= len(said.splitlines()) <= 3
    assert max(map(len, said.splitlines())) < 1000
    assert {file.name for file in tmp_path.iterdir()} == {"plain", "loop"}


@pytest.mark.parametrize(("name", "reason"), [("n", "File name too long"), ("loop/n", "is not a folder")])
def test_a_results_folder_that_can_never_be_made_is_refused_also_by_resume(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for going in ([], ["--resume"]):
        results = LONG if name == "n" else "loop"
        assert answer(["sweep", "--space", DEMO, "--dry-run", "--results", results, *going]) == 2
        assert reason in capsys.readouterr().err


def test_links_in_circles_are_refused_by_what_the_commands_call(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(ResultsError, match="loop: cannot be read: Too many levels of symbolic links"):
        RunFolder.ensure_free(loop)
    for folder in (loop, loop / "a", tmp_path / LONG):
        with pytest.raises(DataError, match="cannot be written: "):
            synthetic.draw(folder, SyntheticConfig())
    nowhere = tmp_path / "link"
    nowhere.symlink_to(tmp_path / "absent")
    RunFolder.ensure_free(nowhere)  # a folder can be made there


@pytest.mark.parametrize(
    "name",
    ["ESTALE", "ENOTCONN", "ETIMEDOUT", "EREMOTEIO", "ENXIO", "ENODEV", "EHOSTDOWN", "EMFILE", "ENFILE", "EIO"],
)
def test_a_machine_that_fails_is_said_without_a_traceback(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retina.report.terminal import list_sweeps

    number = getattr(errno, name, errno.EIO)  # EREMOTEIO is Linux's

    def fail(_: Path) -> None:
        raise OSError(number, os.strerror(number), "results/x")

    monkeypatch.setattr(list_sweeps, "read_summaries", fail)
    assert cli.main(["list", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"results/x: {os.strerror(number)}\n"


def test_a_results_folder_whose_server_is_gone_is_no_mistake_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stale(path: Path) -> bool:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr(Path, "is_file", stale)
    assert cli.main(["report", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'x'}: cannot be read: {os.strerror(errno.ESTALE)}\n"


@pytest.mark.parametrize("arguments", [["--version"], ["list"], ["data", "audit", "set"]])
def test_a_current_folder_that_was_removed_is_named(arguments: list[str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = "import os, sys; from retina.__main__ import main; os.rmdir(os.getcwd()); sys.exit(main())"
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(
        command, cwd=gone, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("the current folder was removed")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["sweep", "--space", DEMO, "--name", "x"], ["train", "--name", "x"]])
def test_an_interruption_before_anything_was_begun_advises_no_resume(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retina.sweep import api

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "x").mkdir()  # a mounted volume, say
    monkeypatch.setattr(api, "run_sweep", stopped)
    monkeypatch.setattr(api, "train", stopped)
    assert cli.main([*command, "--results", str(tmp_path)]) == 130
    said = capsys.readouterr()
    assert "nterrupted" in said.out + said.err
    assert "--resume" not in said.out
    assert "--load" not in said.out
