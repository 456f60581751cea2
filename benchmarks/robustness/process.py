"""One command in a forked child: limits, captured output, how it ended, which files it changed.

A child is forked from a process that has imported everything, so that it costs milliseconds instead of seconds. Ray is
never started: the child stops where `Tuner.fit` or `ray.init` would be called.
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

from benchmarks.robustness.case import Ran

Main = Callable[[Sequence[str]], int]
HASHED = 4 * 2**20
"""Files of more bytes are compared by size and time of change alone."""


class RayWouldStartError(BaseException):
    """The command came to where Ray runs trials. No `Exception`, so that nothing on the way takes it for a failure."""


@dataclass(frozen=True)
class Limits:
    """What a command may take: wall-clock seconds, bytes of memory beyond the parent's, bytes of one file."""

    seconds: float = 120.0
    memory: int = 4 * 2**30
    file: int = 2**30


def run(main: Main, argv: Sequence[str], folder: Path, limits: Limits, cwd: Path | None = None) -> Ran:
    """Run `main(argv)` in a forked child, in `cwd` (default: `folder`).

    Returns:
        What became of it; files are compared below `folder`, hidden results of the runner left out.
    """
    before = snapshot(folder)
    place = folder.with_name(f"{folder.name}.ran")
    place.mkdir(exist_ok=True)
    for left in place.iterdir():
        left.unlink()
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads; ours have none that hold locks
        pid = os.fork()
    if pid == 0:
        _child(main, argv, cwd or folder, place, limits)
    status, timed_out = _wait(pid, started + limits.seconds)
    seconds = time.monotonic() - started
    _kill_group(pid)
    told: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((place / "told.json").read_text(encoding="utf-8"))
    died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return Ran(
        code=told.get("code"),
        at_ray=bool(told.get("at_ray")),
        signal=0 if timed_out else died,
        timed_out=timed_out,
        out=_text(place / "out"),
        err=_text(place / "err"),
        uncaught=told.get("uncaught", "") or ("" if told or died or timed_out else "ended without a word"),
        detail=told.get("detail", ""),
        changed=tuple(sorted(_different(before, snapshot(folder)))),
        seconds=seconds,
    )


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Every file, link and folder below `folder`: its kind, size and content."""
    return {str(path.relative_to(folder)): _state(path) for path in _below(folder)}


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def _state(path: Path) -> tuple[Any, ...]:
    try:
        if path.is_symlink():
            return "link", os.readlink(path)  # noqa: PTH115  # as it is written
        if path.is_dir():
            return ("folder",)
        if not path.is_file():
            return ("other",)
        told = path.stat()
        if told.st_size > HASHED:
            return "file", told.st_size, told.st_mtime_ns
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


def _child(main: Main, argv: Sequence[str], cwd: Path, place: Path, limits: Limits) -> None:
    """Never returns."""
    told: dict[str, Any] = {}
    try:
        os.setsid()
        faulthandler.disable()
        _redirect(place)
        os.chdir(cwd)
        _limit(limits)
        _stop_before_ray()
        told = _told(main, argv)
    except BaseException as error:  # a child must not go on as its parent
        told = {"code": None, "uncaught": f"{type(error).__name__} in the runner", "detail": str(error)[:500]}
    finally:
        with contextlib.suppress(BaseException):
            (place / "told.json").write_text(json.dumps(told), encoding="utf-8")
        os._exit(0)


def _told(main: Main, argv: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.resetwarnings()  # as a user has them, whatever our caller made of them
            warnings.simplefilter("default", UserWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            warnings.showwarning = _show_warning
            told = {"code": int(main(argv))}
    except RayWouldStartError:
        told = {"code": None, "at_ray": True}
    except SystemExit as error:
        told = {"code": error.code if isinstance(error.code, int) else 0 if error.code is None else 1}
        if isinstance(error.code, str):
            sys.stderr.write(error.code + "\n")
    except BaseException as error:  # this is what we look for
        told = {"code": None, "uncaught": _cause(error), "detail": _last(error)}
        sys.stderr.write("".join(traceback.format_exception(error)))
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return told


def _show_warning(*told: Any, **_: Any) -> None:
    message, category, file, line = told[:4]
    sys.stderr.write(warnings.formatwarning(message, category, file, line))


def _cause(error: BaseException) -> str:
    """The exception's type and the innermost line of the package that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/retina/" in frame.filename] or frames
    if not ours:
        return type(error).__name__
    file = ours[-1].filename.rpartition("/retina/")[2]
    return f"{type(error).__name__} at retina/{file}:{ours[-1].lineno} {ours[-1].name}"


def _last(error: BaseException) -> str:
    return " ".join(str(error).encode(errors="backslashreplace").decode().split())[:300]


def _redirect(place: Path) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
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
    """Stands for the nodes of a cluster where there is no Ray."""

    def __init__(self, *_: Any) -> None:
        pass

    def check(self, *_: Any) -> None:
        """All are as they should be."""

    @contextlib.contextmanager
    def serving(self, *_: Any) -> Iterator[None]:
        """No worker asks for anything."""
        yield

    def slots(self) -> int:
        """One trial at a time."""
        return 1


def _stop_before_ray() -> None:
    """Let nothing start Ray; whoever wants to comes to `RayWouldStartError`."""
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
