"""This process as seen from outside: signals that ask it to stop, its exit code, output streams without a reader.

SIGTERM (Slurm, Kubernetes, `docker stop`, `ray job stop`) and SIGHUP (a closed terminal) act like Ctrl-C. A signal that
was ignored when the process started (`nohup`) stays ignored.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

import psutil

REPEAT_SECONDS = 0.5
"""The same SIGTERM or SIGHUP may arrive twice: `timeout` and a closing shell send it to process and group."""
FORCE_SECONDS = 5.0
"""How long a process that was asked twice may take to end before it is ended."""
UNREADABLE = {errno.EPIPE, errno.EIO, errno.ESTALE, errno.EBADF}

START_SECONDS = 3.0
"""How long a process that only starts a library may take to end after a first signal."""

_heard: list[int] = []
_active = False
_starting = False
_raised = False


def stop_requested() -> bool:
    """Whether a signal has asked this process to stop, or Ctrl-C was pressed."""
    return bool(_heard)


def exit_code() -> int:
    """What an interrupted process exits with: 128 + the signal's number; 130 for Ctrl-C."""
    return 128 + (_heard[0] if _heard else signal.SIGINT)


def record_stop_signal(number: int) -> None:
    """Remember, within `handle_stop_signals`, that a stop signal arrived which another library's handler has taken."""
    if _active:
        _heard.append(number)


def raise_if_stop_requested() -> None:
    """Raise what Ctrl-C raises if the process was asked to stop, also where a library has answered the signal.

    Raises:
        KeyboardInterrupt: it was.
    """
    if _heard:
        raise KeyboardInterrupt


@contextmanager
def handle_stop_signals() -> Iterator[None]:
    """Answer stop signals as Ctrl-C is answered, by KeyboardInterrupt; a second one ends the process at once.

    Ray Tune and others take Ctrl-C for themselves while they run; SIGTERM and SIGHUP are then handed to their handler.
    """
    global _active, _raised  # noqa: PLW0603  # signals belong to the process
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _active, _raised = True, False
    before = {number: signal.getsignal(number) for number in _stop_signals()}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, _on_signal)
    try:
        with _force_watched():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _heard.clear()
        _active = False


@contextmanager
def exit_on_first_signal() -> Iterator[None]:
    """End the process soon after a first signal, also where its main thread waits in a library: no work is lost yet."""
    global _starting  # noqa: PLW0603  # belongs to the process
    _starting = True
    try:
        yield
    finally:
        _starting = False


def exit_immediately(code: int, message: str = "") -> None:
    """End this process and its children without any clean-up; every file of ours is whole at any moment."""
    with suppress(OSError):
        os.write(2, f"{message}\n".encode(errors="backslashreplace") if message else b"")
    for child in _children():
        with suppress(psutil.Error):
            child.kill()
    os._exit(code)


def _children() -> list[psutil.Process]:
    try:
        return list(psutil.Process().children(recursive=True))
    except psutil.Error:
        return []


def _stop_signals() -> list[int]:
    return [int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


_last = 0.0


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _raised, _last  # noqa: PLW0603  # signals belong to the process
    now, before = time.monotonic(), _last
    _last = now
    if number != signal.SIGINT and _heard and now - before < REPEAT_SECONDS:
        return
    _heard.append(number)
    if _raised:
        exit_immediately(exit_code(), "stopped at once")
    theirs = signal.getsignal(signal.SIGINT)
    if callable(theirs) and theirs not in (_on_signal, signal.default_int_handler):
        theirs(number, frame)
        return
    _raised = True
    raise KeyboardInterrupt


@contextmanager
def _force_watched() -> Iterator[None]:
    """End the process when it was asked twice and goes on: its main thread may wait in a library for minutes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_force, args=(reader,), name="stop signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # ends the thread
        thread.join(1)


def _force(reader: int) -> None:
    stops, requests, last = set(_stop_signals()), 0, 0.0
    with os.fdopen(reader, "rb", buffering=0) as signals:
        while arrived := signals.read(1):
            if arrived[0] not in stops:
                continue
            now = time.monotonic()
            requests += now - last >= REPEAT_SECONDS or arrived[0] == signal.SIGINT
            last = now
            if requests == 1 and _starting:
                _later(START_SECONDS, _end_if_starting, arrived[0])
            if requests == 2:
                _later(FORCE_SECONDS, _end_if_active, arrived[0])


def _later(seconds: float, function: Callable[[int], None], number: int) -> None:
    timer = threading.Timer(seconds, function, (number,))
    timer.daemon = True
    timer.start()


def _end_if_starting(number: int) -> None:
    if _active and _starting:
        exit_immediately(128 + number, "interrupted")


def _end_if_active(number: int) -> None:
    if _active:
        exit_immediately(128 + (_heard or [number])[0], "stopped at once")


class _ReadableStream:
    """A text stream that drops what is written once nobody can read it: a closed pipe, a terminal that is gone.

    The work goes on: `retina list | head -1` ends quietly, and a sweep does not end for want of a reader.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._is_gone = stream, False

    def write(self, text: str) -> int:
        """Write, or drop."""
        if not self._is_gone:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write, or drop."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush what can still be read."""
        if not self._is_gone:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        if error.errno not in UNREADABLE:
            raise error
        self._is_gone = True
        with suppress(OSError, ValueError):  # else Python tries again to write its buffer at exit, and complains
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def drop_unreadable_output() -> Iterator[None]:
    """Write to stdout and stderr as long as somebody can read them."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_ReadableStream(stream) if stream else stream for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                with suppress(ValueError):  # closed
                    stream.flush()
        sys.stdout, sys.stderr = before
