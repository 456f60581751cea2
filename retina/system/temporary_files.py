"""Temporary names: who writes under one, and what a killed process has left.

A file or folder is written under a temporary name and then renamed. The name holds the machine and the process that
writes, so that what a live process is writing is told from what a killed one has left.
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
"""Age from which on what another machine has written under a temporary name counts as left; no write takes so long."""
_TAG = re.compile(r"([0-9a-f]{8})-(\d+)-[0-9a-f]{8}")
_EARLIER = re.compile(r"\.(\d+)\.(?:partial|new)$")
"""How version 0.1.0 named them: the process alone."""


def unique_tag() -> str:
    """Return text for a temporary name that no other process uses, nor this one a second time."""
    return f"{machine_id()}-{os.getpid()}-{secrets.token_hex(4)}"


def partial_name(name: str) -> str:
    """Return a temporary name for a file called `name`."""
    return f".{name[:40]}.{unique_tag()}.partial"


def is_partial(name: str) -> bool:
    """Return whether a file or folder of this name is being written, or was left half-written."""
    return name.startswith(CHECKPOINT_PREFIX) or (name.startswith(".") and name.endswith(".partial"))


def is_abandoned(path: Path) -> bool:
    """Return whether the process that wrote `path`, which has a temporary name, is gone.

    A name without a process, of version 0.1.0, says nothing and counts as left: its sweep's lock is ours when we ask.
    """
    tagged, earlier = _TAG.search(path.name), _EARLIER.search(path.name)
    written = _last_written(path)
    if tagged and tagged[1] != machine_id():
        return time.time() - written > OTHER_MACHINE_SECONDS
    pid = int(tagged[2]) if tagged else int(earlier[1]) if earlier else None
    return pid is None or not _is_alive(pid, written)


def remove_partials(root: Path, *skipped: str) -> list[Path]:
    """Remove whatever killed processes have left half-written anywhere below `root`; returns what was removed.

    Args:
        root: a folder.
        skipped: names of folders directly in `root` that are not looked into.
    """
    removed = []
    for path in _partials(root, set(skipped)):
        with contextlib.suppress(OSError):
            if is_abandoned(path) and os.path.lexists(path):  # else a live process has just renamed it
                remove(path)
                removed.append(path)
    return removed


def remove_unfinished_folders(root: Path) -> None:
    """Remove the folders that killed processes have left beside or in `root` while they made a folder of that name."""
    for folder in (root.parent, root):
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if is_unfinished_folder(path, root.name) and is_abandoned(path):
                    shutil.rmtree(path, ignore_errors=True)


def is_unfinished_folder(path: Path, name: str) -> bool:
    """Return whether `path` is named as what becomes, or would have become, a folder called `name`."""
    return path.name.startswith(f".{name}.") and path.name.endswith(".new")


def is_empty(folder: Path) -> bool:
    """Return whether a folder holds nothing, but for what killed processes have left that made a folder of its name.

    Raises:
        OSError: it cannot be read.
    """
    return all(is_unfinished_folder(path, folder.name) and is_abandoned(path) for path in folder.iterdir())


def remove(path: Path) -> None:
    """Remove a file or a folder with all that it holds.

    Raises:
        OSError: a file cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _partials(root: Path, skipped: set[str]) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        if Path(place) == root:
            folders[:] = [name for name in folders if name not in skipped]
        for name in [name for name in (*folders, *files) if is_partial(name)]:
            if name in folders:
                folders.remove(name)
            yield Path(place, name)


def _last_written(path: Path) -> float:
    """When `path`, or a file in it, was last written to, in seconds since the epoch; 0 where it is gone."""
    times, inside = [0.0], []
    with contextlib.suppress(OSError):  # a live process may rename it at any moment
        inside = list(path.iterdir()) if path.is_dir() else []
    for one in (path, *inside):
        with contextlib.suppress(OSError):
            times.append(one.lstat().st_mtime)
    return max(times)


def _is_alive(pid: int, written: float) -> bool:
    """Return whether a process is the one that wrote at the time `written`: its number may have been given anew."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # somebody else's
        return True


@cache
def machine_id() -> str:
    """Eight hex digits of this machine since it was started, and of this container: within it process ids are told."""
    told = [socket.gethostname()]
    with contextlib.suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        told.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:8]
