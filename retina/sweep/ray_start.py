"""Starting Ray on this machine: its temporary folder, its settings, and the cause where it does not start."""

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
"""Largest size of Ray's object store. It holds the label table and pretrained weights; photographs are memory-mapped
from the cache on disk."""
OBJECT_STORE_SHARE = 0.3
"""Largest share of the machine's memory for the object store; Ray's own default."""
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""Longest path of a Unix socket."""
LONGEST_SOCKET = "/sockets/dash_ReporterHead"
"""Longest path of a socket in the folder of a Ray session."""
LEAST_BYTES = 100_000_000
"""Free space that Ray's temporary folder must have: Ray writes tens of megabytes of logs."""
SHORT_FOLDERS = ("/tmp", "/dev/shm", "/var/tmp")  # noqa: S108  # a private folder is made in one of them
MOST_FOLDERS = 100
"""Largest number of private folders of one process; each but the last was kept for its logs."""
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
"""Otherwise `ray.init` starts a worker per core, and waits forever for workers that crash: Ray issue 40131."""
OVERLOADED = "if the machine is overloaded, start again when it is less busy"


@contextmanager
def temporary_folder() -> Iterator[Path | None]:
    """Choose the folder of Ray's sockets and logs.

    A private folder is removed at the end, unless a `ClusterError` ends the block: its logs may be needed then.

    Yields:
        None where Ray's own choice is usable, else a new private folder with a short path.

    Raises:
        ClusterError: no folder of this machine is usable.
    """
    default = _default_folder()
    problem = _folder_problem(default / "ray")
    if not problem:
        yield None
        return
    for parent in map(Path, SHORT_FOLDERS):
        private = _private_folder(parent)
        if private is None:
            continue
        log.info("Ray's files go to %s: %s %s", private, default, problem)
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
        f"Ray cannot start: {default} {problem}, and none of {', '.join(SHORT_FOLDERS)} is usable;\n"
        "name a folder with a short path and room: export RAY_TMPDIR=/short/path"
    )


def _default_folder() -> Path:
    """Return the folder in which Ray creates its temporary folder by default."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or SHORT_FOLDERS[0])


def _private_folder(parent: Path) -> Path | None:
    """Create a folder in `parent` that only this user can read; None where that is not usable.

    Folders of this user's processes that have ended are removed.
    """
    # with an id of the machine: containers that share `parent` number their processes alike
    prefix = f"retina-ray-{temporary_files.machine()}-"
    for folder in parent.glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        with suppress(OSError):  # another process may remove it at the same time
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and folder.lstat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
    private = _numbered_folder(parent / f"{prefix}{os.getpid()}")
    if private is None:
        return None
    if _folder_problem(private):
        shutil.rmtree(private, ignore_errors=True)
        return None
    return private


def _numbered_folder(path: Path) -> Path | None:
    """Create the folder `path` with a number appended, which keeps it short: the paths of sockets are limited."""
    for number in range(MOST_FOLDERS):
        folder = path.with_name(f"{path.name}-{number}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:  # of a failed start, whose logs were kept
            continue
        except OSError:
            return None
        return folder
    return None


def _folder_problem(folder: Path) -> str:
    """Return why Ray cannot use `folder`, as the end of a sentence; empty where it can."""
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

    - Ray's handler of fatal signals is off: it prints a C++ stack trace at SIGTERM and aborts 3 s later.
    - Ray's hook for `uv run` is off, and workers use the driver's Python: the hook packs the working folder and starts
      workers in an environment without this package. RAY_ENABLE_UV_RUN_RUNTIME_ENV=1 in the environment keeps it on.
    - A local Ray listens on the loopback address.
    - Ray's processes inherit a blocked SIGHUP. They end with the driver, which needs them to stop in order when the
      terminal is closed.

    Args:
        local: whether Ray is started for this process alone, and no cluster is joined.

    Raises:
        KeyboardInterrupt: SIGTERM came meanwhile.
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
    except SystemExit as exited:  # raised by Ray's handler of SIGTERM, which it has installed by now
        if exited.code != signal.SIGTERM:
            raise
        process.note(signal.SIGTERM)
        raise KeyboardInterrupt from None
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def quiet_messages(*, verbose: bool) -> AbstractContextManager[None]:
    """Keep messages of Ray's processes, such as state dumps of hundreds of lines, off the terminal unless `verbose`."""
    return private_api.ray_messages(enabled=verbose)


def start(folder: Path | None, **options: Any) -> Any:
    """Start Ray on this machine.

    A failed attempt is repeated without the dashboard, so that a busy machine has less to start.

    Args:
        folder: folder for Ray's sockets and logs; None for Ray's own choice.
        **options: further arguments of `ray.init`.

    Returns:
        What `ray.init` returns.

    Raises:
        ClusterError: Ray does not start; gives the cause, the remedy and the folder of the logs.
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
                **options,
            )
        except Exception as error:  # Ray raises plain Exceptions too
            failure = _as_cluster_error(error, folder)
            log.debug("Ray has not started", exc_info=True)
            _clean_up(before)
            if attempt == ATTEMPTS or not _is_transient(failure):
                raise failure from None
            log.info("Ray has not started (attempt %d of %d): %s", attempt, ATTEMPTS, str(failure).splitlines()[0])
        except BaseException:
            _clean_up(before)
            raise
        finally:
            _protect_token()
    raise AssertionError  # not reached


def _protect_token() -> None:
    """Make Ray's authentication token readable by this user only; Ray writes its file readable by all."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    with suppress(OSError, RuntimeError):
        token.chmod(0o600)


def _clean_up(before: set[psutil.Process]) -> None:
    """End the processes of a failed start: the children of this process that are not in `before`."""
    with suppress(Exception):
        ray.shutdown()
    for child in set(psutil.Process().children()) - before:
        with suppress(psutil.Error):
            child.kill()
            child.wait(5)


def logs_folder() -> Path | None:
    """Return the folder of the log files of the Ray that this process is connected to; None where it is to none."""
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return Path(str(context.get_temp_dir()), str(context.get_session_name()), "logs")


def _as_cluster_error(error: Exception, folder: Path | None) -> ClusterError:
    logs = logs_folder() or _newest_logs(folder)
    message = ray_logs.last_error_line(str(error)) or type(error).__name__
    message = message.partition(" This could happen")[0]  # Ray's guesses follow
    cause = ray_logs.start_failure(logs) if logs else ""
    reason = f"{message.rstrip('.')} ({cause})" if cause and cause not in message else message
    everything = f"{error} {cause}".lower()
    remedy = next((remedy for symptom, remedy in REMEDIES.items() if symptom in everything), OVERLOADED)
    where = f"\nRay's logs: {logs}" if logs else ""
    return ClusterError(f"Ray cannot start on this machine: {reason};\n{remedy}{where}")


def _newest_logs(folder: Path | None) -> Path | None:
    """Return the folder of the logs of this process's latest session, which a failed start leaves; None without one."""
    parent = folder or _default_folder() / "ray"
    sessions = sorted(parent.glob(f"session_*_{os.getpid()}/logs"))
    return sessions[-1] if sessions else None


def _is_transient(failure: ClusterError) -> bool:
    """Return whether another attempt may succeed."""
    message = str(failure).lower()
    return not any(symptom in message for symptom in ("too many open files", "no space left", "permission denied"))
