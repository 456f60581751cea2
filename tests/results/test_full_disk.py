"""A disk that is full, over its quota, read-only or broken: said, exit code 1, nothing lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cache_builder
import interrupted_sweep
import optuna
import pandas as pd
import pytest
import torch
from interrupted_sweep import go_on, ran, spec_of
from sqlalchemy.exc import OperationalError

from retina import cli, predict
from retina.config import yaml_reader
from retina.errors import DiskError, ResultsError, WeightsError
from retina.evaluation import best_trial
from retina.export import write
from retina.report import page
from retina.results import checkpoints, files
from retina.results.run_folder import RunFolder
from retina.sweep import ray_backend as sweep_run
from retina.sweep import study_file
from retina.sweep.cluster import TrialResources
from retina.system import file_modes
from retina.training import model

DISK = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG]


def _sqlite(code: int, text: str) -> Exception:
    """An error as Optuna raises it: its own, caused by SQLAlchemy's, caused by SQLite's."""
    original = sqlite3.OperationalError(text)
    original.sqlite_errorcode = code
    result = optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
    result.__cause__ = OperationalError("INSERT", {}, original)
    return result


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (sqlite3.SQLITE_FULL, "database or disk is full", DiskError),
        (sqlite3.SQLITE_IOERR, "disk I/O error", DiskError),
        (sqlite3.SQLITE_READONLY, "attempt to write a readonly database", DiskError),
        (sqlite3.SQLITE_CANTOPEN, "unable to open database file", DiskError),
        (sqlite3.SQLITE_BUSY, "database is locked", ResultsError),
        (sqlite3.SQLITE_CORRUPT, "database disk image is malformed", ResultsError),
    ],
)
def test_a_sweep_that_cannot_write_its_study_ends_with_the_right_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, text: str, kind: type[ResultsError]
) -> None:
    root = ran(tmp_path / "x").root
    ledger = go_on(root, spec_of())

    class Full:
        def fit(self) -> None:
            raise _sqlite(code, text)

    monkeypatch.setattr(sweep_run, "_tuner", lambda *_, **__: Full())
    with pytest.raises(ResultsError) as caught:
        sweep_run.run(spec_of(), ledger, lambda _: None, TrialResources(1, 0), nodes=interrupted_sweep.NoNodes())  # type: ignore[arg-type,return-value]
    assert type(caught.value) is kind
    assert caught.value.exit_code == (1 if kind is DiskError else 2)
    assert str(caught.value).startswith(f"{root / 'study.db'}: ")
    assert len(str(caught.value).splitlines()) <= 2
    assert "--resume" in str(caught.value)
    is_forbidden = code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
    assert ("you may not write to it" in str(caught.value)) is is_forbidden  # the usual cause
    assert ("make room" in str(caught.value)) is (code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
    assert len(interrupted_sweep.run(go_on(root, spec_of()))) == 2  # when there is room again, nothing is lost


@pytest.mark.parametrize("number", DISK)
def test_a_report_that_cannot_be_written_is_no_mistake_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    root = ran(tmp_path / "x").root

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(page, "render", lambda *_, **__: "page")
    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(["report", str(root)]) == 1
    assert capsys.readouterr().err == f"{root / 'report.html'}: cannot be written: {os.strerror(number)}\n"
    assert not list(root.glob(".*.partial"))
    assert cli.main(["list", str(tmp_path)]) == 0


@pytest.mark.parametrize("write", [predict.write_csv, predict.write_json])
def test_grades_that_cannot_be_written_are_no_mistake_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[pd.DataFrame, Path], None]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError) as caught:
        write(pd.DataFrame({"image": ["a"], "grade": [1]}), tmp_path / "grades")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cause", [OSError(errno.ENOSPC, "No space left on device"), None])
def test_what_torch_makes_of_a_full_disk_is_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: OSError | None
) -> None:
    def full(*_: Any) -> None:
        error = RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0")
        error.__context__ = cause
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        checkpoints.save(tmp_path, 1, {}, {})
    assert caught.value.errno == (errno.ENOSPC if cause else errno.EIO)
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_a_broken_disk_is_no_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "resnet18.pth"
    file.touch()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.pt").touch()
    folder = RunFolder(tmp_path)
    monkeypatch.setattr(folder, "trial", lambda _: tmp_path)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(torch, "load", broken)
    reads: list[tuple[Path, Callable[[], Any]]] = [
        (file, lambda: model.load_weights("resnet18", file)),
        (tmp_path / "model.pt", lambda: best_trial.load_trial(folder, "t0000")),
        (tmp_path / "model.pt", lambda: write._read_weights(tmp_path / "model.pt")),
    ]
    for read, call in reads:
        with pytest.raises(DiskError) as caught:
            call()
        assert str(caught.value) == f"{read}: cannot be read: {os.strerror(errno.EIO)}"
    sweep_file = tmp_path / "x.yaml"
    sweep_file.touch()
    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(DiskError, match=r"x\.yaml: cannot be read: Input/output error"):
        yaml_reader.read(sweep_file)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskError), (errno.ECONNRESET, WeightsError)])
def test_weights_for_which_there_is_no_room_are_told_from_those_that_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(kind, match=os.strerror(number)) as caught:
        model.load_weights("resnet18")
    assert type(caught.value) is kind


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of its own of `size`, for root only."""
    mount = shutil.which("mount")
    if os.geteuid() or not mount:
        pytest.skip("only root can mount a small disk to fill")
    place.mkdir()
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("this container cannot mount a small disk to fill")
    try:
        yield place
    finally:
        subprocess.run([str(Path(mount).with_name("umount")), "-l", str(place)], check=True)


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as opened:
        while opened.write(b"x" * 4096) == 4096:
            pass


def test_a_real_disk_that_is_full_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        folder = ran(disk / "x")
        before = folder.trials()
        filler = disk / "filler"
        fill(filler)
        with pytest.raises(OSError) as caught:  # noqa: PT011
            interrupted_sweep.run(go_on(folder.root, spec_of()))
        error = caught.value
        assert error.exit_code == 1 if isinstance(error, ResultsError) else error.errno == errno.ENOSPC
        assert list(RunFolder.open(folder.root).trial_ids()) == before["trial_id"].tolist()
        with pytest.raises(DiskError, match=r"new.db: cannot be written to"):
            study_file.open_storage(disk / "new.db")
        filler.unlink()
        ledger = go_on(folder.root, spec_of())
        interrupted_sweep.run(ledger)
        ledger.close()
        after = RunFolder.open(folder.root).trials()
        assert after["state"].tolist() == ["COMPLETE"] * 4
        assert after.head(2).equals(before)
        assert not [path for path in folder.root.rglob(".*") if "partial" in path.name]


LIMITED = """
import resource, sys
from pathlib import Path
from retina import cli
from retina.report import page
page.render = lambda *_, **__: "x" * 100_000
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
sys.exit(cli.main(["report", sys.argv[1]]))
"""


def limited(most: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that may write files of so many bytes."""
    script = "import resource, sys; from retina import cli; most = int(sys.argv[1]); "
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)); sys.exit(cli.main(sys.argv[2:]))"
    return subprocess.run(
        [sys.executable, "-c", script, str(most), *arguments], capture_output=True, text=True, check=False
    )


def test_photographs_that_cannot_be_decoded_onto_a_disk_are_no_mistake_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "cache"))
    paths = cache_builder.draw(tmp_path / "set", 6)
    (tmp_path / "set" / "labels.csv").write_text("\n".join(["image,level", *(f"{one.name},0" for one in paths)]))
    for most in (1, 50_000):  # the journal, the photographs
        done = limited(most, "data", "prepare", str(tmp_path / "set"), "--image-size", "64")
        assert done.returncode == 1, done.stderr
        assert done.stderr.endswith(f"photographs cannot be decoded into it: {os.strerror(errno.EFBIG)}\n")
        assert len(done.stderr.splitlines()) == 1
    done = limited(100, "data", "draw", str(tmp_path / "drawn"), "--photographs", "20", "--size", "64")
    assert done.returncode == 1
    said = f"{tmp_path / 'drawn'}: photographs cannot be drawn into it: {os.strerror(errno.EFBIG)}\n"
    assert done.stderr == said
    assert not [file.name for file in tmp_path.iterdir() if "drawn" in file.name]


@pytest.mark.parametrize("number", DISK)
def test_a_cache_on_a_disk_that_is_at_fault_is_no_mistake_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "cache"))
    photograph = cache_builder.draw(tmp_path / "set", 1)[0]
    (tmp_path / "set" / "labels.csv").write_text(f"image,level\n{photograph.name},0\n")
    monkeypatch.setattr(file_modes, "make_private_folder", full)
    for path, folder in ((tmp_path / "set", "cache"), ("synthetic", "cache/drawn")):
        assert cli.main(["data", "prepare", str(path), "--image-size", "64"]) == 1
        wanted = f"{tmp_path / folder}: cannot keep photographs here (set RETINA_CACHE): {os.strerror(number)}\n"
        assert capsys.readouterr().err == wanted


def test_a_file_that_may_not_grow_so_large_is_told(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "x")
    files.write_text(folder.root / "sweep.yaml", spec_of().to_yaml())
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"{folder.root / 'report.html'}: cannot be written: {os.strerror(errno.EFBIG)}\n"
    assert not list(folder.root.glob(".*.partial"))
