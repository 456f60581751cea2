"""A process pool: call a function on many tasks in several processes.

Each worker process runs `python -P -c` with code of this module and gets its tasks through a pipe. So it

- does not import the caller's main script, which needs no `__main__` guard and may be a notebook or come from stdin;
- needs no semaphores, and so no /dev/shm, and may be started from a daemonic process;
- ends when its parent ends, also after `kill -9`, because its pipe is closed;
- can keep a file open until it ends, so that other processes can wait for it (see `retina.data.cache.journal`);
- is in a process group of its own, so that only the parent gets Ctrl-C, and kills its workers.

Why not a library: joblib's loky was tried first. Its processes do not import the main script either, but they outlive
a `kill -9` of their parent (measured with joblib 1.6: both were alive 39 s later; their idle time is 300 s), and they
cannot inherit a file. multiprocessing's pools import the main script again.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, TypeVar

from retina.errors import WorkerError

_IDLE_SECONDS = 5.0  # how often a worker that waits for a task checks that its parent is alive
_ERROR_BYTES = 4096  # how much of a dead worker's standard error is read

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Worker:
    """A worker process, the parent's end of its pipe, and the file of its standard error."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    errors: IO[bytes] | None


def map_unordered(
    function: Callable[[T], R],
    tasks: Iterable[T],
    workers: int,
    *,
    purpose: str = "works",
    describe: Callable[[T], str] = lambda _: "",
    keep_open: Sequence[int] = (),
) -> Iterator[R]:
    """Call `function` on each task in several processes and yield the results as they are completed.

    A task is taken from `tasks` only when a process is free. Everything is done in the calling process if `workers` is
    1, if the function is defined in `__main__`, which other processes cannot import, or if no process can be started
    (for example because of a limit on their number).

    Args:
        function: a function of an importable module, or a `functools.partial` of one.
        tasks: the tasks; they and the results must be picklable.
        workers: number of processes, 1 or more.
        purpose: what a process does, for messages: "decodes photographs".
        describe: describes a task for messages: "it was at a.jpg".
        keep_open: file descriptors that each process keeps open until it ends.

    Raises:
        WorkerError: a process died, for example for lack of memory; names the cause and the task.
        Exception: the exception that `function` raised in a process, with a note that holds its traceback.
    """
    remaining = iter(tasks)
    if workers == 1 or getattr(getattr(function, "func", function), "__module__", "") == "__main__":
        yield from map(function, remaining)
        return
    with ExitStack() as stack:
        busy: dict[Connection, tuple[_Worker, T]] = {}
        for task in islice(remaining, workers):
            try:
                worker = _start(stack, keep_open)
            except OSError as error:
                log.info("no more than %d processes can be started: %s", len(busy), error.strerror or error)
                remaining = chain([task], remaining)
                break
            _send(worker, (function, task), purpose, describe(task))
            busy[worker.pipe] = worker, task
        if not busy:
            yield from map(function, remaining)
        while busy:
            ready = wait(list(busy))
            for pipe in [pipe for pipe in busy if pipe in ready]:
                worker, task = busy.pop(pipe)
                result: R = _receive(worker, purpose, describe(task))
                for next_task in islice(remaining, 1):  # before the yield: it works while the caller uses the result
                    _send(worker, (function, next_task), purpose, describe(next_task))
                    busy[worker.pipe] = worker, next_task
                yield result


def _start(stack: ExitStack, keep_open: Sequence[int]) -> _Worker:
    parent_end, worker_end = Pipe()
    stack.enter_context(parent_end)
    errors = None
    with suppress(OSError):  # without a folder for temporary files, the worker's standard error is lost
        errors = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- the stack closes it
    with worker_end:
        # the caller's path comes last, so that a random.py beside its script does not replace Python's module
        code = f"import sys; sys.path += {sys.path!r}; from {__name__} import serve; serve({worker_end.fileno()})"
        process = subprocess.Popen(  # noqa: S603 -- code of this module, no shell
            [sys.executable, "-P", "-c", code],  # -P: the same for a random.py in the current folder
            pass_fds=[worker_end.fileno(), *keep_open],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if errors is None else errors,
            env=_environment(),
            process_group=0,
        )
    stack.enter_context(process)
    stack.callback(process.kill)
    return _Worker(process, parent_end, errors)


def _environment() -> dict[str, str]:
    package_root = str(Path(__file__).resolve().parents[2])  # only the caller's script may be able to import it
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(paths)}


def _send(worker: _Worker, message: tuple[Callable[[T], R], T], purpose: str, description: str) -> None:
    try:
        worker.pipe.send(message)
    except OSError:
        raise _death_error(worker, purpose, description) from None


def _receive(worker: _Worker, purpose: str, description: str) -> Any:
    try:
        result, error = worker.pipe.recv()
    except (EOFError, OSError):
        raise _death_error(worker, purpose, description) from None
    if error is not None:
        raise error
    return result


def _death_error(worker: _Worker, purpose: str, description: str) -> WorkerError:
    try:
        code = worker.process.wait(timeout=5)
    except subprocess.TimeoutExpired:  # it has closed its pipe but is alive
        code = 0
    if code < 0:
        cause = f"by {signal.Signals(-code).name}; short of memory or disk?"
    else:
        cause = _last_line(worker.errors) or "short of memory or disk?"
    return WorkerError("; ".join(filter(None, [f"a process that {purpose} died ({cause})", description])))


def _last_line(file: IO[bytes] | None) -> str:
    if file is None:
        return ""
    with suppress(OSError):
        file.seek(max(file.seek(0, os.SEEK_END) - _ERROR_BYTES, 0))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""
    return ""


def map_numbered(numbered: list[tuple[int, T]], function: Callable[[T], R]) -> list[tuple[int, R]]:
    """Call `function` on each of the numbered items; defined here so that worker processes import little."""
    return [(number, function(item)) for number, item in numbered]


def serve(descriptor: int) -> None:
    """Run the loop of a worker process: call functions on the tasks from a pipe until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C too, and kills this process
    parent_id, parent = os.getppid(), Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        while (
            parent.poll(_IDLE_SECONDS) or os.getppid() == parent_id
        ):  # a fork of the parent may hold its end of the pipe open
            if parent.poll():
                parent.send(_call(*parent.recv()))


def _call(function: Callable[[Any], Any], task: Any) -> tuple[Any, Exception | None]:
    """Call the function and return its result, or its exception in a form that can be pickled."""
    try:
        return function(task), None
    except Exception as error:
        error.add_note("".join(traceback.format_exc()).strip())
        with suppress(Exception):
            if type(pickle.loads(pickle.dumps(error))) is type(error):  # noqa: S301 -- pickled here
                return None, error
        return None, RuntimeError(f"{type(error).__name__}: {error}")
