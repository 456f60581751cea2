"""The lock of a results folder: one process at a time runs its sweep, and the lock ends with the process."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

import filelock

from retina.errors import wrap_os_error

LOCK_FILE = ".lock"
SOFT_LOCK_FILE = ".lock.soft"
"""Used instead on a file system without locks: the existence of the file is the lock. After `kill -9` the next process
on the same machine takes it over; a process on another machine cannot, and the file must be removed by hand."""
TIMEOUT_SECONDS = 2.0
"""How long to try for the lock: a process that only checks whether the sweep runs holds it for a moment."""
_NO_LOCKS = {getattr(errno, name) for name in ("ENOSYS", "ENOLCK", "EOPNOTSUPP", "ENOTSUP") if hasattr(errno, name)}


def acquire(root: Path, seconds: float) -> filelock.BaseFileLock | None:
    """Acquire the lock of a results folder; return None where another process holds it for longer than `seconds`.

    Raises:
        ResultsError: the lock file cannot be written; a `DiskError` (exit code 1) where the disk is at fault.
    """
    lock_classes: tuple[tuple[type[filelock.BaseFileLock], str], ...] = (
        (filelock.FileLock, LOCK_FILE),
        (filelock.SoftFileLock, SOFT_LOCK_FILE),
    )
    for lock_class, name in lock_classes:
        lock = lock_class(root / name)
        try:
            with warnings.catch_warnings(action="ignore"):  # filelock warns that the file system has no locks
                lock.acquire(timeout=seconds, poll_interval=0.05)
        except filelock.Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            os_error = error if isinstance(error, OSError) else OSError(errno.ENOTSUP, str(error))
            if name == SOFT_LOCK_FILE or os_error.errno not in _NO_LOCKS:
                raise wrap_os_error(root / name, "cannot be locked", os_error) from None
        else:
            return lock
    return None
