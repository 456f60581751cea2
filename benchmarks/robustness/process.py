"""Run a command in a forked child, with limits; record its output, its end and the files that it changed.

The child is forked from a process that has imported everything, so that it starts in milliseconds instead of seconds.
Ray is never started: the child stops where `Tuner.fit` or `ray.init` would be called.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.robustness.case import CommandResult

Main = Callable[[Sequence[str]], int]
HASH_LIMIT = 4 * 2**20
"""Size in bytes above which files are compared by size and modification time only."""


class RayWouldStartError(BaseException):
    """The command reached the point where Ray runs trials. Not an `Exception`, so that no handler catches it."""


@dataclass(frozen=True)
class Limits:
    """Limits of a command: wall-clock seconds, bytes of memory beyond the parent's, bytes of a file."""

    seconds: float = 120.0
    memory: int = 4 * 2**30
    file: int = 2**30


def run(main: Main, argv: Sequence[str], folder: Path, limits: Limits, cwd: Path | None = None) -> CommandResult:
    """Run `main(argv)` in a forked child, in `cwd` (default: `folder`).

    Returns:
        The result of the command. Changed files are those below `folder`.
    """
    before = snapshot(folder)
    output = folder.with_name(f"{folder.name}.ran")
    output.mkdir(exist_ok=True)
    for old_file in output.iterdir():
        old_file.unlink()
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads; no thread of this process holds a lock
        pid = os.fork()
    if pid == 0:
        _child(main, argv, cwd or folder, output, limits)
    status, timed_out = _wait(pid, started + limits.seconds)
    seconds = time.monotonic() - started
    _kill_group(pid)
    answer: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        answer = json.loads((output / "answer.json").read_text(encoding="utf-8"))
    died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return CommandResult(
        code=answer.get("code"),
        at_ray=bool(answer.get("at_ray")),
        signal=0 if timed_out else died,
        timed_out=timed_out,
        out=_text(output / "out"),
        err=_text(output / "err"),
        uncaught=answer.get("uncaught", "") or ("" if answer or died or timed_out else "ended without a result"),
        detail=answer.get("detail", ""),
        changed=tuple(sorted(_different(before, snapshot(folder)))),
        seconds=seconds,
    )


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return the state of every file, link and folder below `folder`: its kind, size and content."""
    return {str(path.relative_to(folder)): _state(path) for path in _below(folder)}


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def _state(path: Path) -> tuple[Any, ...]:
    try:
        if path.is_symlink():
            return "link", os.readlink(path)  # noqa: PTH115  # the target as it is written
        if path.is_dir():
            return ("folder",)
        if not path.is_file():
            return ("other",)
        stat = path.stat()
        if stat.st_size > HASH_LIMIT:
            return "file", stat.st_size, stat.st_mtime_ns
        return "file", hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return "unreadable", error.errno


def _different(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _wait(pid: int, until: float) -> tuple[int, bool]:
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status, False
        if time.monotonic() > until:
            _kill_group(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1], True
        time.sleep(0.01)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _text(file: Path) -> str:
    return file.read_bytes().decode(errors="backslashreplace") if file.is_file() else ""


def _child(main: Main, argv: Sequence[str], cwd: Path, output: Path, limits: Limits) -> None:
    """Run the command in the child and end the process; this function does not return."""
    answer: dict[str, Any] = {}
    try:
        os.setsid()
        faulthandler.disable()
        _redirect(output)
        os.chdir(cwd)
        _limit(limits)
        _stop_before_ray()
        answer = _call(main, argv)
    except BaseException as error:  # the child must not continue as its parent
        answer = {"code": None, "uncaught": f"{type(error).__name__} in the runner", "detail": str(error)[:500]}
    finally:
        with contextlib.suppress(BaseException):
            (output / "answer.json").write_text(json.dumps(answer), encoding="utf-8")
        os._exit(0)


def _call(main: Main, argv: Sequence[str]) -> dict[str, Any]:
    """Call `main` and return its exit code or the exception that left it."""
    answer: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.resetwarnings()  # the filters of a user's process, not those of the caller
            warnings.simplefilter("default", UserWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            warnings.showwarning = _show_warning
            answer = {"code": int(main(argv))}
    except RayWouldStartError:
        answer = {"code": None, "at_ray": True}
    except SystemExit as error:
        answer = {"code": error.code if isinstance(error.code, int) else 0 if error.code is None else 1}
        if isinstance(error.code, str):
            sys.stderr.write(error.code + "\n")
    except BaseException as error:  # a failure that the benchmark reports
        answer = {"code": None, "uncaught": _cause(error), "detail": _last(error)}
        sys.stderr.write("".join(traceback.format_exception(error)))
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return answer


def _show_warning(*details: Any, **_: Any) -> None:
    message, category, file, line = details[:4]
    sys.stderr.write(warnings.formatwarning(message, category, file, line))


def _cause(error: BaseException) -> str:
    """Return the exception's type and the innermost line of the package in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own_frames = [frame for frame in frames if "/retina/" in frame.filename] or frames
    if not own_frames:
        return type(error).__name__
    frame = own_frames[-1]
    file = frame.filename.rpartition("/retina/")[2]
    return f"{type(error).__name__} at retina/{file}:{frame.lineno} {frame.name}"


def _last(error: BaseException) -> str:
    return " ".join(str(error).encode(errors="backslashreplace").decode().split())[:300]


def _redirect(output: Path) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)  # as in a UTF-8 locale
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _limit(limits: Limits) -> None:
    space = psutil.Process().memory_info().vms + limits.memory
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file, limits.file))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _NoNodes:
    """A replacement for the nodes of a cluster, which needs no Ray."""

    def __init__(self, *_: Any) -> None:
        pass

    def check(self, *_: Any) -> None:
        """Do nothing: there are no nodes to check."""

    @contextlib.contextmanager
    def serving(self, *_: Any) -> Iterator[None]:
        """Serve nothing: there are no workers."""
        yield

    def slots(self) -> int:
        """Return a single slot."""
        return 1


def _stop_before_ray() -> None:
    """Patch the package and Ray so that an attempt to start Ray raises `RayWouldStartError`."""
    if "ray.tune" not in sys.modules or "retina.sweep.ray_session" not in sys.modules:
        return
    ray, tune = sys.modules["ray"], sys.modules["ray.tune"]
    session, running = sys.modules["retina.sweep.ray_session"], sys.modules.get("retina.sweep.ray_backend")

    def stop(*_: Any, **__: Any) -> None:
        raise RayWouldStartError

    for module in (session, running):
        for name, fake in (
            ("connected", lambda *_, **__: contextlib.nullcontext()),
            ("share_of_a_trial", lambda *_, **__: sys.modules["retina.sweep.cluster"].TrialResources(1, 0.0)),
            ("slots", lambda *_, **__: 1),
            ("try_workers", lambda *_, **__: None),
            ("Nodes", _NoNodes),
        ):
            if hasattr(module, name):
                setattr(module, name, fake)
    ray.init = stop
    tune.Tuner.fit = stop
