"""Starts Ray on this machine: its temporary folder, its settings, and why it does not start."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray

from retina.errors import ClusterError
from retina.sweep import private_api, ray_logs
from retina.system import process, temporary_files

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 1_000_000_000
"""Ours holds the label table and the pretrained weights; photographs are mapped from the cache on disk."""
OBJECT_STORE_SHARE = 0.3
"""Of the machine's memory, at most; Ray's own default."""
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""The longest path of a Unix socket."""
LONGEST_SOCKET = "/sockets/dash_ReporterHead"
LEAST_BYTES = 100_000_000
"""Ray writes tens of megabytes of logs, and less than this leaves no room for them."""
SHORT_FOLDERS = ("/tmp", "/dev/shm", "/var/tmp")  # noqa: S108  # a private folder is made in one of them
MOST_FOLDERS = 100
"""Private folders that one process makes at most; each but the last was kept for its logs."""
ATTEMPTS = 4
"""Ray gives its processes 15 s (the node's agent) and 30 s to start, which an overloaded machine may exceed."""
REMEDIES = {
    "too many open files": "raise the limit (ulimit -n 65536) and start again",
    "no space left": "make room there, or name another folder: export RAY_TMPDIR=/short/path",
    "permission denied": "name a folder of your own: export RAY_TMPDIR=/short/path",
    "cannot allocate memory": "free memory and start again",
    "resource temporarily unavailable": "raise the limit of processes (ulimit -u) and start again",
    "address already in use": "another program has the port; start again",
}
SYSTEM_CONFIG = {"prestart_worker_first_driver": False}
"""Else `ray.init` starts a worker for each core, and waits for them without end where they crash: Ray issue 40131."""
OVERLOADED = "if the machine is overloaded, start again when it is less busy"


@contextmanager
def temporary_folder() -> Iterator[Path | None]:
    """Choose where Ray keeps sockets and logs: None for Ray's own choice, else a short private folder.

    The private folder is removed at the end, unless an error ends the block: its logs may be needed then.

    Raises:
        ClusterError: no folder of this machine will do.
    """
    wanted = _wanted()
    obstacle = _obstacle(wanted / "ray")
    if not obstacle:
        yield None
        return
    for folder in map(Path, SHORT_FOLDERS):
        private = _private_folder(folder)
        if private is None:
            continue
        log.info("Ray's files go to %s: %s %s", private, wanted, obstacle)
        try:
            yield private
        except ClusterError:
            raise
        except BaseException:
            shutil.rmtree(private, ignore_errors=True)
            raise
        shutil.rmtree(private, ignore_errors=True)
        return
    raise ClusterError(
        f"Ray cannot start: {wanted} {obstacle}, and none of {', '.join(SHORT_FOLDERS)} will do;\n"
        "name a folder with a short path and room: export RAY_TMPDIR=/short/path"
    )


def _wanted() -> Path:
    """Return the folder in which Ray makes its own by default."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or SHORT_FOLDERS[0])


def _private_folder(parent: Path) -> Path | None:
    """Make a folder that only this user can read; None where `parent` does not allow it."""
    prefix = (
        f"retina-ray-{temporary_files.machine()}-"  # of this container: others that share `parent` number theirs anew
    )
    for left in parent.glob(f"{prefix}*"):
        pid = left.name.removeprefix(prefix).partition("-")[0]
        with suppress(OSError):  # another process removes it too
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and left.lstat().st_uid == os.getuid():
                shutil.rmtree(left, ignore_errors=True)
    made = _made(parent / f"{prefix}{os.getpid()}")
    if made is None:
        return None
    if _obstacle(made):
        shutil.rmtree(made, ignore_errors=True)
        return None
    return made


def _made(place: Path) -> Path | None:
    """Make a folder of that name and a number, as short as can be: Ray's sockets have little room for a path."""
    for number in range(MOST_FOLDERS):
        made = place.with_name(f"{place.name}-{number}")
        try:
            made.mkdir(mode=0o700)
        except FileExistsError:  # of a start that failed, whose logs were kept
            continue
        except OSError:
            return None
        return made
    return None


def _obstacle(folder: Path) -> str:
    """Say what keeps Ray from using `folder`, as the end of a sentence; empty where nothing does."""
    session = f"/session_2026-01-01_00-00-00_000000_{os.getpid()}{LONGEST_SOCKET}"
    most = SOCKET_PATH_BYTES - len(session)
    if len(os.fsencode(folder)) > most:
        return f"is too long (Ray's sockets allow {most - len('/ray')} characters)"
    if not folder.is_absolute():
        return "is not an absolute path"
    existing = folder if folder.is_dir() else folder.parent
    if not existing.is_dir():
        return "is not there"
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(4096))
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return f"cannot be written to ({error.strerror})"
    return f"is full ({free / 1e6:.0f} MB free)" if free < LEAST_BYTES else ""


@contextmanager
def driver_settings(*, local: bool) -> Iterator[None]:
    """Set what Ray reads from its constants while a driver starts or joins it.

    - Ray's handler of fatal signals prints a C++ stack trace at SIGTERM and aborts 3 s later.
    - Its hook for `uv run` packs the working folder and starts workers in an environment without this package; the
      workers use the driver's Python instead. RAY_ENABLE_UV_RUN_RUNTIME_ENV=1 in the environment keeps the hook.
    - A Ray for this process alone listens on the loopback address.
    - Ray's processes do not hear of a closed terminal: they end with the driver, which needs them to stop in order.
    """
    changes: dict[str, Any] = {"RAY_DISABLE_FAILURE_SIGNAL_HANDLER": True}
    if "RAY_ENABLE_UV_RUN_RUNTIME_ENV" not in os.environ:
        changes["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = False
    if local:
        changes["ENABLE_RAY_CLUSTER"] = False
    handler = signal.getsignal(signal.SIGTERM)
    main_thread = threading.current_thread() is threading.main_thread()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with private_api.ray_constants_set(changes):
            yield
    except SystemExit as exited:  # Ray's handler of SIGTERM, which it has installed by now
        if exited.code != signal.SIGTERM:
            raise
        process.note(signal.SIGTERM)
        raise KeyboardInterrupt from None
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def quiet_messages(*, verbose: bool) -> AbstractContextManager[None]:
    """Keep what Ray's processes publish, state dumps of hundreds of lines among it, from the terminal."""
    return private_api.ray_messages(enabled=verbose)


def start(folder: Path | None, **how: Any) -> Any:
    """Start Ray on this machine; returns what ray.init returns.

    An attempt that fails is repeated without the dashboard, which leaves a busy machine less to do.

    Args:
        folder: where Ray keeps sockets and logs; None for its own choice.
        **how: further arguments of ray.init.

    Raises:
        ClusterError: it does not start; gives the cause, the remedy and the folder of the logs.
    """
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "60")
    store = int(min(OBJECT_STORE_BYTES, psutil.virtual_memory().total * OBJECT_STORE_SHARE))
    for attempt in range(1, ATTEMPTS + 1):
        before = set(psutil.Process().children())
        try:
            return ray.init(
                address="local",
                include_dashboard=attempt == 1,  # it starts a dozen processes of its own
                object_store_memory=store,
                _temp_dir=str(folder) if folder else None,
                _system_config=SYSTEM_CONFIG,
                **how,
            )
        except Exception as error:  # Ray raises plain Exceptions too
            failure = _explained(error, folder)
            log.debug("Ray has not started", exc_info=True)
            _clean_up(before)
            if attempt == ATTEMPTS or not _may_pass(failure):
                raise failure from None
            log.info("Ray has not started (attempt %d of %d): %s", attempt, ATTEMPTS, str(failure).splitlines()[0])
        except BaseException:
            _clean_up(before)
            raise
        finally:
            _close_token()
    raise AssertionError  # not reached


def _close_token() -> None:
    """Make the token that Ray asks for readable by this user alone; Ray writes it readable by all."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    with suppress(OSError, RuntimeError):
        token.chmod(0o600)


def _clean_up(before: set[psutil.Process]) -> None:
    """End what a start that failed has left behind."""
    with suppress(Exception):
        ray.shutdown()
    for child in set(psutil.Process().children()) - before:
        with suppress(psutil.Error):
            child.kill()
            child.wait(5)


def logs_folder() -> Path | None:
    """Return the folder of the log files of the Ray that this process has started or joined; None if it has none."""
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return Path(str(context.get_temp_dir()), str(context.get_session_name()), "logs")


def _explained(error: Exception, folder: Path | None) -> ClusterError:
    logs = logs_folder() or _newest_logs(folder)
    said = ray_logs.last_error_line(str(error)) or type(error).__name__
    cause = ray_logs.start_failure(logs) if logs else ""
    said = said.partition(" This could happen")[0]  # Ray's guesses
    told = f"{said.rstrip('.')} ({cause})" if cause and cause not in said else said
    everything = f"{error} {cause}".lower()
    remedy = next((remedy for symptom, remedy in REMEDIES.items() if symptom in everything), OVERLOADED)
    where = f"\nRay's logs: {logs}" if logs else ""
    return ClusterError(f"Ray cannot start on this machine: {told};\n{remedy}{where}")


def _newest_logs(folder: Path | None) -> Path | None:
    """Return the logs of the session that this process has begun last: a start that fails early leaves no node."""
    parent = folder or _wanted() / "ray"
    found = sorted(parent.glob(f"session_*_{os.getpid()}/logs"))
    return found[-1] if found else None


def _may_pass(failure: ClusterError) -> bool:
    """Whether another attempt can succeed."""
    told = str(failure).lower()
    return not any(symptom in told for symptom in ("too many open files", "no space left", "permission denied"))
