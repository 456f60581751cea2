"""Ray gets a folder that it can use, and the reason why it does not start is given in a few lines."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants

from retina.errors import ClusterError, SpecError
from retina.sweep import cluster, ray_start
from retina.system import process, temporary_files


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder in which a private one may be made."""
    folder = Path(os.path.realpath("/tmp")) / f"r{os.getpid()}"  # noqa: S108, PTH  # tmp_path is too long for a socket
    folder.mkdir()
    monkeypatch.setattr(ray_start, "SHORT_FOLDERS", (str(folder),))
    yield folder
    shutil.rmtree(folder)


def too_long(folder: Path) -> Path:
    long = folder / ("x" * 60)
    long.mkdir()
    return long


def missing(folder: Path) -> Path:
    return Path("/tmp/nowhere")  # noqa: S108


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("unusable", [too_long, missing, a_file])
def test_a_folder_that_ray_cannot_use_is_replaced_by_a_private_one(
    unusable: Callable[[Path], Path], variable: str, short: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = unusable(tmp_path)
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("RAY_TMPDIR", raising=False)
        patched.setenv(variable, str(folder))
        with caplog.at_level(logging.INFO, "retina"), ray_start.temporary_folder() as private:
            assert private is not None
            assert private.parent == short
            assert private.stat().st_mode & 0o777 == 0o700
            (private / "session").mkdir()
    assert list(short.iterdir()) == []
    (said,) = caplog.messages
    assert str(folder) in said


def test_a_full_folder_is_replaced_too(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(short)
    full = usage._replace(free=1_000_000)
    monkeypatch.setenv("RAY_TMPDIR", str(short.parent))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage if str(path).startswith(str(short)) else full)
    with ray_start.temporary_folder() as folder:
        assert folder is not None
        assert folder.parent == short


def test_a_folder_that_ray_can_use_is_left_to_ray(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    with ray_start.temporary_folder() as folder:
        assert folder is None


def test_no_folder_at_all_is_told(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    monkeypatch.setattr(ray_start, "SHORT_FOLDERS", ("/nowhere",))
    with pytest.raises(ClusterError, match="/nowhere is not there") as caught, ray_start.temporary_folder():
        pass
    assert caught.value.exit_code == 1
    assert "export RAY_TMPDIR" in str(caught.value)


def test_the_logs_of_a_failure_stay_and_a_dead_process_s_folder_goes(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    left = short / f"retina-ray-{temporary_files.machine_id()}-{2**22 + 1}-0"  # no process has this number
    left.mkdir()
    other = short / f"retina-ray-00000000-{2**22 + 1}-0"  # of a container that shares the folder: it may live
    other.mkdir()
    with pytest.raises(ClusterError), ray_start.temporary_folder() as folder:
        raise ClusterError("dead")
    assert folder is not None
    assert set(short.iterdir()) == {folder, other}
    with ray_start.temporary_folder() as again:
        assert again not in {None, folder}
    assert set(short.iterdir()) == {folder, other}


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (OSError(24, "Too many open files"), "ulimit -n"),
        (OSError(28, "No space left on device"), "make room"),
        (PermissionError(13, "Permission denied", "/closed/ray"), "a folder of your own"),
        (Exception("The current node timed out during startup."), "overloaded"),
    ],
)
def test_why_ray_does_not_start_is_told_with_a_remedy(
    error: Exception, result: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dashboards = []

    def init(**how: Any) -> None:
        dashboards.append(how["include_dashboard"])
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_start, "logs_folder", lambda: None)
    with caplog.at_level(logging.INFO, "retina"), pytest.raises(ClusterError, match=result) as caught:
        ray_start.start(None)
    assert len(str(caught.value).splitlines()) <= 3
    assert dashboards == ([True, False, False, False] if result == "overloaded" else [True])
    assert len(caplog.messages) == len(dashboards) - 1


def test_a_second_attempt_may_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([Exception("timed out"), "a context"])

    def init(**_: Any) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    assert ray_start.start(None) == "a context"


def test_ray_s_settings_hold_while_it_starts_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "RAY_ENABLE_UV_RUN_RUNTIME_ENV", "ENABLE_RAY_CLUSTER")
    before = [getattr(ray_constants, name) for name in names]
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.delenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", raising=False)
    with ray_start.driver_settings(local=True):
        assert [getattr(ray_constants, name) for name in names] == [True, False, False]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as ray.init does
    assert [getattr(ray_constants, name) for name in names] == before
    assert signal.getsignal(signal.SIGTERM) == handler
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "1")
    with ray_start.driver_settings(local=False):
        assert [getattr(ray_constants, name) for name in names] == [True, True, before[2]]


def test_sigterm_while_ray_starts_acts_like_ctrl_c() -> None:
    with process.handle_stop_signals():
        with pytest.raises(KeyboardInterrupt), ray_start.driver_settings(local=True):
            raise SystemExit(signal.SIGTERM)  # what Ray's own handler does
        assert process.exit_code() == 143


def test_another_version_of_ray_on_the_cluster_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    result = r"another version of Ray or Python: .* Ray: 2\.9\.0"
    with pytest.raises(SpecError, match=result), cluster.connected("auto", "sweep"):
        pass


HUGE = f"localhost:{10**20}"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (HUGE, "no Ray cluster answers there (a port is a number from 1 to 65535)"),
        ("localhost:0", "no Ray cluster answers there (a port is a number from 1 to 65535)"),
        ("localhost:-1", "no Ray cluster answers there (a port is a number from 1 to 65535)"),
        ("localhost:", "no Ray cluster answers there (a port is a number from 1 to 65535)"),
        (
            "http://127.0.0.1:8265",
            "the protocol http (the dashboard's, for example) is not supported; allowed: auto, HOST:PORT",
        ),
        ("ray://127.0.0.1:10001", "Ray Client is not supported; allowed: auto, HOST:PORT (usually port 6379)"),
    ],
)
def test_an_address_where_no_cluster_can_be_is_named_with_where_it_is_from(
    address: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SpecError) as caught, cluster.connected(address, "sweep"):
        pass
    assert str(caught.value).startswith(f"--address {address}: {reason}")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SpecError) as caught, cluster.connected(None, "sweep"):
        pass
    assert str(caught.value).startswith(f"RAY_ADDRESS={address}: {reason}")


def test_an_address_of_ipv6_is_connected_to_without_its_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def init(address: str, **_: Any) -> None:
        asked.append(address)
        raise ConnectionError("no Ray")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket(socket.AF_INET6) as listening:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listening.listen()
        address = f"[::1]:{listening.getsockname()[1]}"
        with pytest.raises(SpecError, match="no Ray"), cluster.connected(address, "sweep"):
            pass
    assert asked == [address]
