"""Call a function on many tasks in several processes: the one pool of this package.

Each process runs `python -P -c` with our own code and is given its tasks through a pipe. So it

- does not import the caller's main script, which needs no `__main__` guard and may be a notebook or come from stdin;
- needs no semaphores, and so no /dev/shm, and may be started from a daemonic process;
- ends when its parent does, also after `kill -9`, for then its pipe is closed;
- can keep a file open until it ends, by which somebody else can wait for it (see `retina.data.cache.journal`);
- is outside our process group, so that Ctrl-C is answered once, by the parent, which kills it.

joblib's loky was tried first: its processes import no main script either, but live on after a `kill -9` of their
parent (measured with joblib 1.6: both were there 39 s later; their idle time is 300 s), and cannot inherit a file.
multiprocessing's pools import the main script again.
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

_IDLE = 5.0  # seconds after which a process that waits for a task looks whether its parent is still there
_LAST_WORDS = 4096  # bytes of what a process that died wrote that are read

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Worker:
    """A process, our end of its pipe, and the file that its standard error goes to."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    errors: IO[bytes] | None


def call(
    function: Callable[[T], R],
    tasks: Iterable[T],
    workers: int,
    *,
    purpose: str = "works",
    place: Callable[[T], str] = lambda _: "",
    keep_open: Sequence[int] = (),
) -> Iterator[R]:
    """Call `function` on each task, in so many processes, and yield the results in the order in which they are done.

    A task is taken only when a process is free for it. With one worker, with a function of `__main__`, which no other
    process can import, and where no process can be started (a limit on their number, say), all is done in this one.

    Args:
        function: of a module that can be imported, or a `functools.partial` of one.
        tasks: can be pickled, as must be the results.
        workers: processes, 1 or more.
        purpose: what a process does, for messages: "decodes photographs".
        place: says of a task which it is, for messages: "it was at a.jpg".
        keep_open: file descriptors that each process keeps open until it ends.

    Raises:
        WorkerError: a process died, which a full memory does; says how, and at which task.
        Exception: what `function` raised in a process, with a note that has the traceback there.
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
            _send(worker, (function, task), purpose, place(task))
            busy[worker.pipe] = worker, task
        if not busy:
            yield from map(function, remaining)
        while busy:
            ready = wait(list(busy))
            for pipe in [pipe for pipe in busy if pipe in ready]:
                worker, task = busy.pop(pipe)
                result: R = _receive(worker, purpose, place(task))
                for following in islice(remaining, 1):  # first: it works while our caller looks at the result
                    _send(worker, (function, following), purpose, place(following))
                    busy[worker.pipe] = worker, following
                yield result


def _start(stack: ExitStack, keep_open: Sequence[int]) -> _Worker:
    ours, theirs = Pipe()
    stack.enter_context(ours)
    errors = None
    with suppress(OSError):  # no folder for temporary files: then we do not know what it said
        errors = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- the stack closes it
    with theirs:
        # what our caller has put on the path comes last, so that a random.py beside a script is not Python's own
        code = f"import sys; sys.path += {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()})"
        process = subprocess.Popen(  # noqa: S603 -- our own code, no shell
            [sys.executable, "-P", "-c", code],  # -P: nor is one in the current folder
            pass_fds=[theirs.fileno(), *keep_open],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if errors is None else errors,
            env=_environment(),
            process_group=0,
        )
    stack.enter_context(process)
    stack.callback(process.kill)
    return _Worker(process, ours, errors)


def _environment() -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[2])  # the package may be importable by the caller's script only
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(paths)}


def _send(worker: _Worker, message: tuple[Callable[[T], R], T], purpose: str, place: str) -> None:
    try:
        worker.pipe.send(message)
    except OSError:
        raise _died(worker, purpose, place) from None


def _receive(worker: _Worker, purpose: str, place: str) -> Any:
    try:
        result, error = worker.pipe.recv()
    except (EOFError, OSError):
        raise _died(worker, purpose, place) from None
    if error is not None:
        raise error
    return result


def _died(worker: _Worker, purpose: str, place: str) -> WorkerError:
    try:
        code = worker.process.wait(timeout=5)
    except subprocess.TimeoutExpired:  # it has closed its pipe and lives
        code = 0
    if code < 0:
        how = f"by {signal.Signals(-code).name}; short of memory or disk?"
    else:
        how = _last_line(worker.errors) or "short of memory or disk?"
    return WorkerError("; ".join(filter(None, [f"a process that {purpose} died ({how})", place])))


def _last_line(file: IO[bytes] | None) -> str:
    if file is None:
        return ""
    with suppress(OSError):
        file.seek(max(file.seek(0, os.SEEK_END) - _LAST_WORDS, 0))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""
    return ""


def each(numbered: list[tuple[int, T]], function: Callable[[T], R]) -> list[tuple[int, R]]:
    """Call `function` on each of some numbered items; here, so that processes import little."""
    return [(number, function(item)) for number, item in numbered]


def serve(descriptor: int) -> None:
    """What each process does: call functions on the tasks that come through a pipe, until that is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the parent is told as well, and ends us
    parent_id, parent = os.getppid(), Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        while parent.poll(_IDLE) or os.getppid() == parent_id:  # a fork of the parent may hold its end of the pipe open
            if parent.poll():
                parent.send(_outcome(*parent.recv()))


def _outcome(function: Callable[[Any], Any], task: Any) -> tuple[Any, Exception | None]:
    """What the function returned, or what it raised."""
    try:
        return function(task), None
    except Exception as error:
        error.add_note("".join(traceback.format_exc()).strip())
        with suppress(Exception):
            if type(pickle.loads(pickle.dumps(error))) is type(error):  # noqa: S301 -- our own
                return None, error
        return None, RuntimeError(f"{type(error).__name__}: {error}")
