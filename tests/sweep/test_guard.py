"""Who watches Ray says what has died and what does not start; nothing is said of what is merely slow. No Ray here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from dataset_layouts import text

from retina.errors import ClusterError
from retina.sweep import guard as guarding
from retina.sweep import ray_start
from retina.sweep.cluster import TrialResources
from retina.sweep.guard import Guard, RayGoneError
from retina.sweep.nodes import Nodes
from retina.system import process

STARTED = "(raylet) worker_pool.cc:564: Started worker process with pid {} worker_id=c0\n"
NOBODY = 2**22 + 1
"""No process has this number."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(guarding, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(guarding, "DEAD_SECONDS", 0.0)
    monkeypatch.setattr(ray_start, "logs_folder", lambda: tmp_path)


def context(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=address))


@pytest.fixture
def raylet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A child of that name."""
    context(monkeypatch, "127.0.0.1:1")
    shutil.copy(shutil.which("sleep") or "", tmp_path / "raylet")
    with subprocess.Popen([str(tmp_path / "raylet"), "60"]) as one:
        yield one
        one.kill()


@contextlib.contextmanager
def sleeping() -> Iterator[int]:
    """The number of a process that does nothing."""
    with subprocess.Popen([sys.executable, "-Sc", "print(1, flush=True); input()"], stdin=-1, stdout=-1) as one:
        assert one.stdout is not None
        one.stdout.readline()
        yield one.pid
        one.kill()


def until(check: Callable[[], None]) -> None:
    for _ in range(3000):
        check()
        time.sleep(0.01)


def test_a_raylet_that_dies_is_found(raylet: subprocess.Popen[bytes], tmp_path: Path) -> None:
    text(tmp_path / "raylet.err", "")
    guard = Guard(local=True)
    with guard.watching():
        guard.check()
        raylet.kill()
        with pytest.raises(ClusterError, match="Ray has died: its process raylet has ended") as caught:
            until(guard.check)
        assert "--resume" in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 3
        with pytest.raises(RayGoneError):
            guard.check_trials(waiting=False)
        guard.dismiss()


def test_a_stop_signal_explains_why_ray_has_died(raylet: subprocess.Popen[bytes]) -> None:
    """Slurm sends SIGTERM to all processes of a job, Ray's too."""
    guard = Guard(local=True)
    with process.handle_stop_signals(), guard.watching():
        process.record_stop_signal(signal.SIGTERM)
        raylet.kill()
        with pytest.raises(KeyboardInterrupt):
            until(guard.check)
        guard.dismiss()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_main_thread_that_waits_inside_of_ray_is_ended(
    stopped: bool, raylet: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[tuple[int, str]] = []
    monkeypatch.setattr(guarding, "REACTION_SECONDS", 0.0)
    monkeypatch.setattr(guarding, "UNWIND_SECONDS", 60.0)
    monkeypatch.setattr(process, "exit_immediately", lambda code, message: ended.append((code, message)))
    guard = Guard(local=True)
    with process.handle_stop_signals(), guard.watching():
        if stopped:
            process.record_stop_signal(signal.SIGHUP)
        raylet.kill()
        for _ in range(3000):
            if ended:
                break
            time.sleep(0.01)
    guard.dismiss()
    ((code, message),) = ended
    assert code == (129 if stopped else 1)
    assert "--resume" in message


def test_a_cluster_that_is_gone_is_found_after_several_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        context(monkeypatch, f"127.0.0.1:{listening.getsockname()[1]}")
        guard = Guard(local=False)
        with guard.watching():
            time.sleep(0.1)
            guard.check()
            listening.close()
            with pytest.raises(ClusterError, match="does not answer any more"):
                until(guard.check)
            guard.dismiss()


def test_workers_that_are_all_dead_are_told_by_their_words(tmp_path: Path) -> None:
    text(tmp_path / "raylet.out", STARTED.format(NOBODY - 1) + STARTED.format(NOBODY))
    text(tmp_path / f"worker-c0-ffffffff-{NOBODY}.err", "OSError: libcuda.so.1: cannot open shared object file\n")
    with pytest.raises(
        ClusterError, match=r"Ray cannot start a worker: OSError: libcuda\.so\.1: cannot open"
    ) as caught:
        guarding._refuse_dead(tmp_path)
    assert str(tmp_path) in str(caught.value)
    text(tmp_path / "raylet.out", STARTED.format(NOBODY) + STARTED.format(os.getpid()))
    guarding._refuse_dead(tmp_path)  # one lives, and may be slow


def test_a_sweep_whose_workers_die_later_ends_too(
    raylet: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "WAITING_TRIALS_SECONDS", 0.03)
    text(tmp_path / "raylet.out", STARTED.format(NOBODY))
    guard = Guard(local=True)
    for waiting in (False, True, True, False) * 2:
        time.sleep(0.02)
        guard.check_trials(waiting=waiting)
    time.sleep(0.1)
    guard.check_trials(waiting=True)  # the sweep was busy elsewhere: that does not count
    with pytest.raises(RayGoneError, match="it has ended and logged nothing"):
        until(lambda: guard.check_trials(waiting=True))


def test_a_worker_that_does_nothing_for_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sleeping() as pid:
        text(tmp_path / "raylet.out", STARTED.format(pid))
        progress = guarding._Progress()
        progress.refuse_still(tmp_path)
        progress.refuse_still(tmp_path)
        monkeypatch.setattr(guarding, "STILL_SECONDS", 0.0)
        with pytest.raises(ClusterError, match=f"process {pid} has done nothing"):
            progress.refuse_still(tmp_path)


def test_a_worker_that_is_slow_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "STILL_SECONDS", 0.0)
    readings = iter([(0.1, 5.0), (0.1, 6.0), (0.2, 6.0)])  # it reads, then it computes
    monkeypatch.setattr(guarding, "_used", lambda _: next(readings))
    text(tmp_path / "raylet.out", STARTED.format(os.getpid()))
    progress = guarding._Progress()
    for _ in range(3):
        progress.refuse_still(tmp_path)


def test_an_error_of_a_worker_names_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(_: Any) -> None:
        raise ray.exceptions.RuntimeEnvSetupError("Failed to set up runtime environment.\nNo such file: uv")

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(ClusterError, match="a worker cannot start on node node7: No such file: uv"):
        guarding._refuse_error("a reference", "node7", None)


def test_a_child_that_ends_while_ray_starts_ends_nothing_else(
    raylet: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    children = psutil.Process.children

    class Ended:
        def name(self) -> str:
            raise psutil.NoSuchProcess(NOBODY)

    monkeypatch.setattr(psutil.Process, "children", lambda one, **how: [Ended(), *children(one, **how)])
    guard = Guard(local=True)
    with guard.watching():
        raylet.kill()
        with pytest.raises(ClusterError, match="its process raylet has ended"):
            until(guard.check)
        guard.dismiss()


def test_a_cluster_that_has_died_is_named_and_not_what_cannot_be_cleared_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: Any, **__: Any) -> None:
        raise ConnectionError("Ray has been shut down")

    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(ray, "cancel", dead)
    monkeypatch.setattr("retina.sweep.nodes.remove_placement_group", dead)
    nodes: Any = Nodes(TrialResources(1, 0))
    nodes._asked, nodes._refused = {"check": ("id", "node b")}, {"other": "group"}
    with pytest.raises(RayGoneError, match="has died"), nodes.serving(tmp_path):
        raise RayGoneError(ClusterError("Ray has died"))
    assert list(tmp_path.iterdir()) == []
