"""Temporary names of files that are being written, and the removal of what killed processes left under such names.

A file or folder is written under a temporary name and then renamed. The name holds the machine and the process that
writes, so that the file of a live process can be distinguished from that of a killed one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil

CHECKPOINT_PREFIX = ".checkpoint_partial_"
OTHER_MACHINE_SECONDS = 600.0
"""Age from which another machine's temporary file counts as abandoned; no write takes so long."""
_TAG = re.compile(r"([0-9a-f]{8})-(\d+)-[0-9a-f]{8}")
_EARLIER = re.compile(r"\.(\d+)\.(?:partial|new)$")
"""Temporary names of version 0.1.0: they hold the process alone."""


def unique_tag() -> str:
    """Return text for a temporary name that no other process uses and that this process uses only once."""
    return f"{machine_id()}-{os.getpid()}-{secrets.token_hex(4)}"


def partial_name(name: str) -> str:
    """Return a temporary name for a file called `name`."""
    return f".{name[:40]}.{unique_tag()}.partial"


def is_partial(name: str) -> bool:
    """Return whether a file or folder of this name is being written or was left incomplete."""
    return name.startswith(CHECKPOINT_PREFIX) or (name.startswith(".") and name.endswith(".partial"))


def is_abandoned(path: Path) -> bool:
    """Return whether the process that wrote `path`, which has a temporary name, is gone.

    A name of version 0.1.0 without a process counts as abandoned: the caller holds the lock of its sweep.
    """
    tagged, earlier = _TAG.search(path.name), _EARLIER.search(path.name)
    written = _last_written(path)
    if tagged and tagged[1] != machine_id():
        return time.time() - written > OTHER_MACHINE_SECONDS
    pid = int(tagged[2]) if tagged else int(earlier[1]) if earlier else None
    return pid is None or not _is_alive(pid, written)


def remove_partials(root: Path, *skipped: str) -> list[Path]:
    """Remove what killed processes left incomplete anywhere below `root`, and return the removed paths.

    Args:
        root: a folder.
        skipped: names of folders directly in `root` that are not searched.
    """
    removed = []
    for path in _partials(root, set(skipped)):
        with contextlib.suppress(OSError):
            if is_abandoned(path) and os.path.lexists(path):  # otherwise a live process has just renamed it
                remove(path)
                removed.append(path)
    return removed


def remove_unfinished_folders(root: Path) -> None:
    """Remove the folders beside or in `root` that killed processes left while they created a folder of its name."""
    for folder in (root.parent, root):
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if is_unfinished_folder(path, root.name) and is_abandoned(path):
                    shutil.rmtree(path, ignore_errors=True)


def is_unfinished_folder(path: Path, name: str) -> bool:
    """Return whether `path` has the temporary name of a folder that is to become `name`."""
    return path.name.startswith(f".{name}.") and path.name.endswith(".new")


def is_empty(folder: Path) -> bool:
    """Return whether a folder is empty, apart from what killed processes left that created a folder of its name.

    Raises:
        OSError: the folder cannot be read.
    """
    return all(is_unfinished_folder(path, folder.name) and is_abandoned(path) for path in folder.iterdir())


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content.

    Raises:
        OSError: a file cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _partials(root: Path, skipped: set[str]) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in skipped]
        for name in [name for name in (*folders, *files) if is_partial(name)]:
            if name in folders:
                folders.remove(name)
            yield Path(folder, name)


def _last_written(path: Path) -> float:
    """Return when `path`, or a file in it, was last written, in seconds since the epoch; 0 where it does not exist."""
    times, children = [0.0], []
    with contextlib.suppress(OSError):  # a live process may rename it at any moment
        children = list(path.iterdir()) if path.is_dir() else []
    for file in (path, *children):
        with contextlib.suppress(OSError):
            times.append(file.lstat().st_mtime)
    return max(times)


def _is_alive(pid: int, written: float) -> bool:
    """Return whether the process that wrote at the time `written` is alive; its number may have been reused since."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # the process of another user
        return True


@cache
def machine_id() -> str:
    """Return eight hex digits of this boot of the machine and this container, within which pids are unique."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
