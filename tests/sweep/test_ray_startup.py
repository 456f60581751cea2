"""Ray itself, started as a sweep starts it: where it listens, how it ends, what is said where no worker starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from repository import HELPERS, ROOT

DRIVER = HELPERS / "startup_driver.py"
BROKEN = """
import os, sys
if any("default_worker" in argument for argument in sys.orig_argv):
    os.write(2, b"ImportError: libcuda.so.1: cannot open shared object file" + bytes([10]))
    os._exit(1)
"""
UNDER_UV = """
import subprocess, sys
sys.exit(subprocess.run([{python!r}, *sys.argv[1:]]).returncode)
"""


def start(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*environment.pop("path", "").split(), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, **environment}
    env.pop("RAY_ADDRESS", None)
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=400)
    if any(
        line.startswith("Ray cannot start on this machine: The current node timed out")
        for line in done.stdout.splitlines()
    ):
        pytest.skip("this machine is too busy for Ray, which gives its processes 15 s to start")
    return done


def test_ray_under_uv_run_in_a_long_folder_listens_on_loopback_and_ends_with_sigterm(tmp_path: Path) -> None:
    """What Ray's hook for uv sees is a parent process whose command line begins with `uv run`."""
    (tmp_path / "uv").symlink_to(sys.executable)
    (tmp_path / "run").write_text(UNDER_UV.format(python=sys.executable))
    long = tmp_path / ("x" * 60)
    long.mkdir()
    done = start(str(tmp_path / "uv"), "run", str(DRIVER), "stopped", cwd=tmp_path, RAY_TMPDIR=str(long))
    printed = done.stdout.splitlines()
    assert done.returncode == 143, done.stdout + done.stderr
    assert done.stderr == ""  # no stack trace
    assert f"{long} is too long" in printed[0]
    facts = json.loads(next(line for line in printed if line.startswith("{")))
    assert set(facts["listening"]) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert facts["python"] == [facts["own"], "retina.config.trial"]
    private = Path(printed[0].split()[4].rstrip(":"))
    assert private.name.startswith("retina-ray-")
    assert not private.exists()


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_ray_that_dies_is_told_without_its_state(tmp_path: Path, name: str) -> None:
    done = start(sys.executable, str(DRIVER), name, cwd=tmp_path, OF_THIS_TEST=str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout.partition("}\n")[2].strip().splitlines()
    assert said[0].startswith(f"Ray has died: its process {name} has ended (killed from outside")
    assert "--resume" in said[1]
    assert said[2].startswith("Ray's logs: ")
    assert len(said) == 3
    assert "Traceback" not in done.stderr
    assert "state-dump" not in done.stdout + done.stderr
    until = time.monotonic() + 20  # the dashboard's helpers see in seconds that it has gone; Ray's agents take a minute
    while (left := [one for one in psutil.process_iter() if is_of(one, tmp_path)]) and time.monotonic() < until:
        time.sleep(0.5)
    assert left == []


def is_of(process: psutil.Process, test: Path) -> bool:
    """Whether a process was begun by the driver of this test, or by one of its processes."""
    try:
        return process.environ().get("OF_THIS_TEST") == str(test) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def test_workers_that_cannot_start_are_told_with_their_own_words(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    done = start(sys.executable, str(DRIVER), "stopped", cwd=tmp_path, path=str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    passing = ("dashboard", "attempt", "waiting")
    said = [line for line in done.stdout.splitlines() if not any(word in line for word in passing)]
    assert said[0] == "Ray cannot start a worker: ImportError: libcuda.so.1: cannot open shared object file"
    assert said[1].startswith("Ray's logs: ")
    assert len(said) == 2
