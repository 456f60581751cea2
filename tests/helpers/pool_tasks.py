"""Tasks of the processes in `test_process_pool`; imports little, since each process imports this module."""

from __future__ import annotations

import os
import signal

from retina.data import process_pool
from retina.errors import DataError


def process_of(task: int) -> tuple[int, int]:
    return task, os.getpid()


def square(task: int, but: int = -1, how: str = "") -> int:
    """Return the square, except for the task `but`, which fails as `how` says."""
    if task == but:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "ended":
            os._exit(3)
        raise {"refused": DataError, "wrong": ZeroDivisionError, "full": MemoryError}[how](f"task {task}")
    return task * task


def local_error(task: int) -> int:
    class OwnError(Exception):
        pass

    raise OwnError(f"task {task}")


def nested(task: int) -> list[int]:
    return sorted(process_pool.map_unordered(square, range(2), 2))
