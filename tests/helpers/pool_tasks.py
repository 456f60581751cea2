"""What processes are given to do in `test_workers`; imports little, since each of them imports it."""

from __future__ import annotations

import os
import signal

from retina.data import process_pool
from retina.errors import DataError


def process_of(task: int) -> tuple[int, int]:
    return task, os.getpid()


def square(task: int, but: int = -1, how: str = "") -> int:
    """Of one task something else becomes than of the others."""
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
