"""The cause of a failure is found in the log files that Ray leaves."""

from pathlib import Path

import pytest
from dataset_layouts import text

from retina.sweep import ray_logs

CRASH = """[2026-11-25 19:25:50,432 C 156 156] (raylet) node_manager.cc:3576:  An unexpected system state. \
You have likely discovered a bug in Ray. Check failed: status.has_value() Timed out waiting for file metrics_agent_port
*** StackTrace Information ***
/lib/ray/raylet(+0xff770a) [0x55ff82abb70a] ray::operator<<()
/lib/x86_64-linux-gnu/libc.so.6(__libc_start_main+0x85) [0x7ff1ba445305] __libc_start_main
/lib/ray/raylet(+0x263cb7) [0x55ff81d27cb7]
"""
RAYLET = (
    "[2026-11-25 18:38:44,226 I 1 1] (raylet) worker_pool.cc:564: Started worker process with pid {} worker_id=c0\n"
)
TRACEBACK = """:job_id:01000000
Traceback (most recent call last):
  File "default_worker.py", line 3, in <module>
    import torch
ImportError: libcudart.so.12: cannot open shared object file: No such file or directory
"""


def test_started_workers_are_listed_in_their_order(tmp_path: Path) -> None:
    assert ray_logs.started_workers(tmp_path) == []
    text(tmp_path / "raylet.out", "".join(map(RAYLET.format, (12, 7, 30))) + "[state-dump] pid 99\n")
    assert ray_logs.started_workers(tmp_path) == [12, 7, 30]


def test_a_worker_s_own_words_come_first(tmp_path: Path) -> None:
    text(tmp_path / "worker-c0-ffffffff-12.err", TRACEBACK)
    text(tmp_path / "worker-c1-ffffffff-7.err", "another worker\n")
    text(tmp_path / "raylet.err", "the raylet's words\n")
    cause = "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory"
    assert ray_logs.worker_failure(tmp_path, [12, 7]) == cause
    assert ray_logs.worker_failure(tmp_path, [5]) == "the raylet's words"


def test_a_runtime_environment_that_fails_is_found(tmp_path: Path) -> None:
    line = "2026-11-25 18:00:00,000\tERROR runtime_env_agent.py:402 -- Failed to create runtime env: no space left\n"
    text(tmp_path / "runtime_env_agent.log", "2026-11-25 18:00:00,000\tINFO main.py:1 -- hello\n" + line)
    assert ray_logs.worker_failure(tmp_path, [12]) == "Failed to create runtime env: no space left"


def test_silent_logs_give_no_cause(tmp_path: Path) -> None:
    text(tmp_path / "worker-c0-ffffffff-12.err", ":job_id:01000000\n:actor_name:GraderTrial\n\n")
    assert ray_logs.worker_failure(tmp_path, [12]) == ""
    assert ray_logs.start_failure(tmp_path / "nowhere") == ""


def test_the_process_that_does_not_start_is_named(tmp_path: Path) -> None:
    text(tmp_path / "raylet.out", "[2026-11-25 18:38:44,226 I 1 1] (raylet) main.cc:1: fine\n")
    text(tmp_path / "gcs_server.out", "[2026-11-25 18:38:44,226 E 1 2] (gcs_server) server.cc:5: Failed to bind port\n")
    assert ray_logs.start_failure(tmp_path) == "gcs_server: Failed to bind port"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (TRACEBACK + "*** SIGSEGV ***\n@ 0x00 (unknown)\n", TRACEBACK.strip().splitlines()[-1]),
        (
            "Fatal Python error: Segmentation fault\n\nThread 0x7f:\n  File x\n",
            "Fatal Python error: Segmentation fault",
        ),
        ("error: Failed to spawn: `python`\n", "error: Failed to spawn: `python`"),
        ("\x1b[31mbad\x1b[0m\n", " [31mbad [0m"),
        (CRASH, "status.has_value() Timed out waiting for file metrics_agent_port"),
        ("ValueError: " + "x" * 1000, "ValueError: " + "x" * 285 + "..."),
        ("", ""),
    ],
)
def test_the_line_that_says_most(output: str, words: str) -> None:
    assert ray_logs.last_error_line(output) == words
