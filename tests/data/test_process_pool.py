"""One function, many tasks, several processes: whatever dies, nothing hangs and nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from pool_tasks import local_error, nested, process_of, square
from repository import HELPERS, ROOT

from retina.config import SyntheticConfig
from retina.data import process_pool, synthetic
from retina.errors import DataError, DiskError, WorkerError


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


@pytest.mark.parametrize("tasks", [0, 1, 2, 30])
@pytest.mark.parametrize("many", [1, 3])
def test_every_task_is_done_once(tasks: int, many: int) -> None:
    assert sorted(process_pool.map_unordered(square, range(tasks), many)) == [task * task for task in range(tasks)]


def test_processes_do_it_and_not_more_than_there_are_tasks() -> None:
    done = list(process_pool.map_unordered(process_of, range(2), 8))
    assert len({process for _, process in done}) == 2
    assert os.getpid() not in {process for _, process in done}


def test_a_task_is_taken_when_a_process_is_free_for_it() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for task in range(100):
            taken.append(task)
            yield task

    results = process_pool.map_unordered(square, tasks(), 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 4


@pytest.mark.parametrize(("how", "result"), [("killed", "by SIGKILL; short of memory or disk"), ("ended", "short of")])
def test_a_process_that_dies_is_told_of_with_its_task(how: str, result: str) -> None:
    function = partial(square, but=5, how=how)
    with pytest.raises(WorkerError, match=rf"a process that squares died \({result}.*\); it was at task 5") as raised:
        list(
            process_pool.map_unordered(
                function, range(30), 2, purpose="squares", describe=lambda task: f"it was at task {task}"
            )
        )
    assert raised.value.exit_code == 1


def test_a_process_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tempfile.py").write_text("raise ImportError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkerError, match=r"a process that works died \(ImportError: broken\)"):
        list(process_pool.map_unordered(square, range(4), 2))


@pytest.mark.parametrize(("how", "kind"), [("refused", DataError), ("wrong", ZeroDivisionError), ("full", MemoryError)])
def test_what_is_raised_there_is_raised_here(how: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="task 5") as raised:
        list(process_pool.map_unordered(partial(square, but=5, how=how), range(30), 2))
    assert "in square" in raised.value.__notes__[0]


def test_an_error_that_cannot_be_sent_is_told_by_its_name() -> None:
    with pytest.raises(RuntimeError, match="OwnError: task"):
        list(process_pool.map_unordered(local_error, range(4), 2))


def test_a_random_py_in_the_current_folder_is_not_taken_for_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    assert sorted(process_pool.map_unordered(square, range(3), 2)) == [0, 1, 4]


def test_where_no_process_can_be_started_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process_pool.subprocess, "Popen", refuse)
    assert list(process_pool.map_unordered(process_of, range(3), 2)) == [(task, os.getpid()) for task in range(3)]


def test_where_only_some_can_be_started_these_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = process_pool._start, []

    def once(*arguments: object) -> object:
        if started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(1)
        return start(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(process_pool, "_start", once)
    done = list(process_pool.map_unordered(process_of, range(5), 3))
    assert [task for task, _ in done] == list(range(5))
    assert len({process for _, process in done} - {os.getpid()}) == 1


def in_a_daemon(pipe: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    os.write(pipe, str(sorted(process_pool.map_unordered(square, range(6), 2))).encode())


def test_a_daemonic_process_and_one_of_our_own_may_call_too(tmp_path: Path) -> None:
    assert sorted(process_pool.map_unordered(nested, range(3), 2)) == [[0, 1], [0, 1], [0, 1]]
    receive, send = os.pipe()
    # forked, as schedulers do it: such a child may not use multiprocessing
    process = multiprocessing.get_context("fork").Process(target=in_a_daemon, args=(send,), daemon=True)
    process.start()
    process.join(60)
    os.close(send)
    assert os.read(receive, 100) == b"[0, 1, 4, 9, 16, 25]"
    os.close(receive)


# They have no __main__ guard. The second one decodes and audits too, which takes longer.
DRAWS = """
import os
from pathlib import Path
from retina.config import DataConfig, SyntheticConfig
from retina.data import synthetic

print("once", flush=True)
folder = Path(os.environ["FOLDER"])
synthetic.draw(folder, SyntheticConfig(photographs=70, size=64), workers=2)
print(len(list(folder.glob("train/*"))))
"""
DOES_ALL = f"""{DRAWS}
from retina.audit.runner import audit
from retina.data import layouts
from retina.data.cache.pixel_cache import open_cache

config = DataConfig(path=str(folder))
print(len(open_cache(layouts.read(config), 16, workers=2).pixels))
print(len(audit(config, workers=2).photographs))
"""


@pytest.mark.parametrize("way", ["script", "stdin", "command"])
def test_a_script_without_a_guard_draws_decodes_and_audits(tmp_path: Path, way: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(DOES_ALL)
    run = subprocess.run(
        [sys.executable, *{"script": [str(script)], "stdin": ["-"], "command": ["-c", DRAWS]}[way]],
        input=DRAWS if way == "stdin" else "",
        env={**os.environ, "PYTHONPATH": str(ROOT), "FOLDER": str(tmp_path / "drawn")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = "once\n" + "70\n" * (3 if way == "script" else 1)
    assert (run.stdout, run.stderr, run.returncode) == (said, "", 0)


KILLED = """
import os, signal, time
from retina.data import process_pool
from pool_tasks import process_of
seen = set()
for task, process in process_pool.map_unordered(process_of, range(10**6), 2):
    seen.add(process)
    if len(seen) == 2:
        print(*seen, flush=True)
        os.kill(os.getpid(), signal.{signal})
        time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_nobody_outlives_a_parent_that_is_killed(name: str) -> None:
    path = os.pathsep.join([str(ROOT), str(HELPERS)])
    run = subprocess.run(
        [sys.executable, "-c", KILLED.replace("{signal}", name)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == -getattr(signal, name)
    started = {int(number) for number in run.stdout.split()}
    assert len(started) == 2
    until = time.monotonic() + 30
    while any(psutil.pid_exists(number) for number in started):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_drawing_whose_disk_is_full_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules[synthetic.draw.__module__], "_draw_patient", full)
    with pytest.raises(DiskError, match=r"drawn: photographs cannot be drawn into it: No space left on device"):
        synthetic.draw(tmp_path / "drawn", SyntheticConfig(photographs=20, size=64), workers=1)
    assert list(tmp_path.iterdir()) == []
