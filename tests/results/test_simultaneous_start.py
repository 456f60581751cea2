"""Two processes that begin the same results folder: one makes it, the other says so, nothing of either is removed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_dataset
from interrupted_sweep import contents, go_on, ran, spec_of

from benchmarks.started_twice import pair
from retina.errors import DiskError, ResultsError
from retina.results import environment
from retina.results.run_folder import RunFolder
from retina.system import temporary_files

YAML = spec_of(name="x").to_yaml()


def begin(root: Path) -> RunFolder:
    return environment.create_run_folder(root, tiny_dataset.photographs(), YAML)


def dead_process() -> int:
    """The id of a process that has ended."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("begun", [False, True], ids=["begin", "go on"])
def test_of_two_processes_one_has_the_folder_and_the_other_says_so(tmp_path: Path, *, begun: bool) -> None:
    photographs = tiny_dataset.photographs()
    for number in range(1 if begun else 8):
        root = tmp_path / f"results-{number}" / "demo"
        if begun:
            begin(root)
        assert pair(root, photographs, begun=begun) == ["refused", "won"]
        assert RunFolder.open(root).metadata()["data"]["fingerprint"] == photographs.fingerprint
        assert [file.name for file in root.parent.iterdir()] == ["demo"]


def test_a_folder_that_another_process_makes_is_left_alone(tmp_path: Path) -> None:
    live = tmp_path / f".x.{temporary_files.unique_tag()}.new"  # of a process that lives: this one
    live.mkdir(parents=True)
    left = tmp_path / f".x.{temporary_files.unique_tag().replace(str(os.getpid()), str(dead_process()))}.new"
    left.mkdir()
    begin(tmp_path / "x")
    assert live.is_dir()
    assert not left.exists()


def test_who_comes_second_is_refused_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "x"
    first = environment.describe_environment

    def meanwhile() -> dict[str, Any]:
        monkeypatch.setattr(environment, "describe_environment", first)
        begin(root)
        return first()

    monkeypatch.setattr(environment, "describe_environment", meanwhile)
    with pytest.raises(ResultsError, match="another process has just created it") as caught:
        begin(root)
    assert caught.value.exit_code == 2
    assert RunFolder.open(root).metadata()
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_a_link_to_an_empty_folder_and_one_to_none_lead_to_the_results(tmp_path: Path) -> None:
    for name, made in [("there", True), ("absent", False)]:
        target = tmp_path / "disk" / name
        (target if made else target.parent).mkdir(parents=True, exist_ok=True)
        link = tmp_path / f"link-to-{name}"
        link.symlink_to(target)
        begin(link)
        assert link.is_symlink()
        assert (target / "sweep.yaml").read_text() == YAML
        with pytest.raises(ResultsError, match="already exists"):
            begin(link)


def test_a_mounted_folder_gets_the_files_since_it_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, rename = tmp_path / "x", Path.rename
    root.mkdir()

    def busy(source: Path, target: Path) -> Path:
        if target == root:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", busy)
    assert begin(root).metadata()["data"]
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    with pytest.raises(ResultsError, match="already exists"):
        begin(root)


@contextmanager
def volume() -> Iterator[Path]:
    """An empty folder that we may write to, below one that we may not; root becomes another user for a while."""
    above = Path(tempfile.mkdtemp())  # that user may not enter pytest's folders
    (root := above / "demo").mkdir()
    is_root = os.getuid() == 0
    if is_root:
        os.chown(root, 65534, -1)
    above.chmod(0o555)
    try:
        if is_root:
            os.setresuid(65534, 65534, 0)
        yield root
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
        above.chmod(0o755)
        shutil.rmtree(above)


def test_a_volume_below_a_folder_that_may_not_be_written_to_becomes_the_results_folder() -> None:
    photographs = tiny_dataset.photographs()
    with volume() as root:
        RunFolder.ensure_free(root)
        left = root / f".demo.{temporary_files.unique_tag().replace(str(os.getpid()), str(dead_process()))}.new"
        left.mkdir()  # of a process that was killed while it began
        RunFolder.ensure_free(root)
        folder = environment.create_run_folder(root, photographs, YAML)
        assert folder.metadata()["data"]["fingerprint"] == photographs.fingerprint
        assert (root / "sweep.yaml").read_text() == YAML
        names = {file.name for file in root.iterdir()}
        assert {name for name in names if name.startswith(".")} <= {".lock", ".lock.soft"}
        assert "trials" in names
        with pytest.raises(ResultsError, match="already exists"):
            environment.create_run_folder(root, photographs, YAML)


def test_a_disk_that_fills_up_leaves_a_volume_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    photographs = tiny_dataset.photographs()
    monkeypatch.setattr(os, "fsync", full)
    with volume() as root:
        with pytest.raises(DiskError, match=f"^{root}: cannot be made"):
            environment.create_run_folder(root, photographs, YAML)
        assert list(root.iterdir()) == []


def test_a_volume_that_may_not_be_written_to_either_is_refused_at_once() -> None:
    with volume() as root:
        root.chmod(0o555)
        with pytest.raises(ResultsError, match=f"demo: cannot be made: {root.parent} may not be written to; choose"):
            RunFolder.ensure_free(root)
        assert list(root.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG])
def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="cannot be made") as caught:
        begin(tmp_path / "results" / "x")
    assert caught.value.exit_code == 1
    assert list((tmp_path / "results").iterdir()) == []


def test_who_only_looks_does_not_keep_a_sweep_from_starting(tmp_path: Path) -> None:
    folder = begin(tmp_path / "x")
    with folder.lock():
        pass  # the lock file is there now
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            RunFolder(folder.root).is_running  # noqa: B018

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(50):
            with folder.lock():
                pass
    finally:
        ended.set()
        looking.join()


def test_a_lock_goes_with_its_process_also_on_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    folder = begin(tmp_path / "x")
    monkeypatch.setattr(fcntl, "flock", none)
    result, ready = os.pipe()
    child = os.fork()
    if not child:
        with folder.lock():
            os.write(ready, b"x")
            signal.pause()
    os.read(result, 1)
    assert folder.is_running
    with pytest.raises(ResultsError, match="is being run by another process"), folder.lock():
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with folder.lock():
        assert folder.is_running
    assert not folder.is_running


def test_what_killed_processes_left_is_removed_and_nothing_of_a_live_one(tmp_path: Path) -> None:
    folder = ran(tmp_path / "x")
    gone = f"{dead_process()}"
    mine, dead = temporary_files.unique_tag(), temporary_files.unique_tag().replace(str(os.getpid()), gone)
    elsewhere = f"00000000-{gone}-00000000"
    left = [f".report.html.{dead}.partial", f"trials/t0000/.config.json.{gone}.partial", f"best/.a.{dead}.partial"]
    kept = [f"trials/t0001/.config.json.{mine}.partial", f".model.pt.{elsewhere}.partial"]
    for name in (*left, *kept):
        (folder.root / name).parent.mkdir(exist_ok=True)
        (folder.root / name).write_text("half")
    for name, into in ((dead, left), (mine, kept)):
        made = folder.trial("t0001") / f".checkpoint_partial_{name}"
        made.mkdir()
        (made / "model.pt").write_text("half")
        into.append(str(made.relative_to(folder.root)))
    before = contents(folder.root)
    ledger = go_on(folder.root, spec_of())
    assert [name for name in left if (folder.root / name).exists()] == []
    assert [name for name in kept if not (folder.root / name).exists()] == []
    os.utime(folder.root / kept[1], (0, 0))  # of another machine, and old
    ledger.close()
    assert not (folder.root / kept[1]).exists()
    assert before.keys() - contents(folder.root).keys() == {
        *left[:3], f"{left[3]}/model.pt", kept[1],
    }  # fmt: skip
    shutil.rmtree(folder.root)


def test_what_a_live_process_renames_while_it_is_looked_at_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, done = tmp_path / f".checkpoint_partial_{temporary_files.unique_tag()}", tmp_path / "checkpoint_00001"
    made.mkdir()
    (made / "model.pt").write_text("whole")
    is_dir = Path.is_dir

    def renamed(path: Path) -> bool:
        was = is_dir(path)
        if path == made and was:
            path.rename(done)
        return was

    monkeypatch.setattr(Path, "is_dir", renamed)
    assert temporary_files.remove_partials(tmp_path) == []
    assert (done / "model.pt").read_text() == "whole"
