"""Signals that ask this process to stop, its exit code, and output streams that nothing reads any more.

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
"""SIGTERM or SIGHUP within this time after the previous one is a repetition: `timeout` and a closing shell send it both
to the process and to its group."""
FORCE_SECONDS = 5.0
"""How long a process may take to end after the second request before it is killed."""
UNREADABLE = {errno.EPIPE, errno.EIO, errno.ESTALE, errno.EBADF}

START_SECONDS = 3.0
"""How long a process that is only starting a library may take to end after the first signal."""

_received: list[int] = []
_active = False
_starting = False
_raised = False


def stop_requested() -> bool:
    """Return whether a signal or Ctrl-C has asked this process to stop."""
    return bool(_received)


def exit_code() -> int:
    """Return the exit code of an interrupted process: 128 + the signal's number; 130 for Ctrl-C."""
    return 128 + (_received[0] if _received else signal.SIGINT)


def record_stop_signal(number: int) -> None:
    """Record a stop signal that another library's handler received; without effect outside `handle_stop_signals`."""
    if _active:
        _received.append(number)


def raise_if_stop_requested() -> None:
    """Raise KeyboardInterrupt if the process was asked to stop, also where a library has handled the signal.

    Raises:
        KeyboardInterrupt: the process was asked to stop.
    """
    if _received:
        raise KeyboardInterrupt


@contextmanager
def handle_stop_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on a stop signal, as on Ctrl-C; a second signal ends the process at once.

    Ray Tune and other libraries install their own SIGINT handler while they run; SIGTERM and SIGHUP are then passed to
    that handler.
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
        with _force_exit():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()
        _active = False


@contextmanager
def exit_on_first_signal() -> Iterator[None]:
    """End the process soon after the first signal, even if its main thread waits in a library: no work is lost yet."""
    global _starting  # noqa: PLW0603  # belongs to the process
    _starting = True
    try:
        yield
    finally:
        _starting = False


def exit_immediately(code: int, message: str = "") -> None:
    """End this process and its children without cleaning up; every file that this package writes is always complete."""
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
    if number != signal.SIGINT and _received and now - before < REPEAT_SECONDS:
        return
    _received.append(number)
    if _raised:
        exit_immediately(exit_code(), "stopped at once")
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler) and handler not in (_on_signal, signal.default_int_handler):
        handler(number, frame)
        return
    _raised = True
    raise KeyboardInterrupt


@contextmanager
def _force_exit() -> Iterator[None]:
    """End the process if it goes on after a second request: its main thread may wait in a library for minutes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_count_requests, args=(reader,), name="stop signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # ends the thread
        thread.join(1)


def _count_requests(reader: int) -> None:
    stop_signals, requests, last = set(_stop_signals()), 0, 0.0
    with os.fdopen(reader, "rb", buffering=0) as signals:
        while arrived := signals.read(1):
            if arrived[0] not in stop_signals:
                continue
            now = time.monotonic()
            requests += now - last >= REPEAT_SECONDS or arrived[0] == signal.SIGINT
            last = now
            if requests == 1 and _starting:
                _start_timer(START_SECONDS, _end_if_starting, arrived[0])
            if requests == 2:
                _start_timer(FORCE_SECONDS, _end_if_active, arrived[0])


def _start_timer(seconds: float, function: Callable[[int], None], number: int) -> None:
    timer = threading.Timer(seconds, function, (number,))
    timer.daemon = True
    timer.start()


def _end_if_starting(number: int) -> None:
    if _active and _starting:
        exit_immediately(128 + number, "interrupted")


def _end_if_active(number: int) -> None:
    if _active:
        exit_immediately(128 + (_received or [number])[0], "stopped at once")


class _TolerantStream:
    """A text stream that discards what is written once its reader is gone: a closed pipe, a closed terminal.

    The program continues: `retina list | head -1` ends quietly, and a sweep does not end because its output is unread.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._is_gone = stream, False

    def write(self, text: str) -> int:
        """Write the text, or discard it if the reader is gone."""
        if not self._is_gone:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write the lines, or discard them if the reader is gone."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream if it still has a reader."""
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
        with suppress(OSError, ValueError):  # otherwise Python writes its buffer again at exit, and reports the error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextmanager
def drop_unreadable_output() -> Iterator[None]:
    """Discard what is written to stdout and stderr once their reader is gone."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_TolerantStream(stream) if stream else stream for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                with suppress(ValueError):  # closed
                    stream.flush()
        sys.stdout, sys.stderr = before
