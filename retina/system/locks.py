"""The lock of a results folder: one process runs a sweep at a time, and the lock goes with the process."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

import filelock

from retina.errors import wrap_os_error

LOCK_FILE = ".lock"
SOFT_LOCK_FILE = ".lock.soft"
"""Instead, on a file system without locks: the lock is that the file is there. After `kill -9` the next process on the
same machine takes it over; from another machine it is to be removed by hand."""
TIMEOUT_SECONDS = 2.0
"""How long a lock is tried for: somebody who only looks whether the sweep runs has it for a moment."""
_NO_LOCKS = {getattr(errno, name) for name in ("ENOSYS", "ENOLCK", "EOPNOTSUPP", "ENOTSUP") if hasattr(errno, name)}


def acquire(root: Path, seconds: float) -> filelock.BaseFileLock | None:
    """Return the lock of a results folder, acquired; None where another process has it for longer than `seconds`.

    Raises:
        ResultsError: the lock file cannot be written; exit code 1 where the disk is at fault.
    """
    kinds: tuple[tuple[type[filelock.BaseFileLock], str], ...] = (
        (filelock.FileLock, LOCK_FILE),
        (filelock.SoftFileLock, SOFT_LOCK_FILE),
    )
    for kind, name in kinds:
        lock = kind(root / name)
        try:
            with warnings.catch_warnings(action="ignore"):  # that it cannot do better here
                lock.acquire(timeout=seconds, poll_interval=0.05)
        except filelock.Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            told = error if isinstance(error, OSError) else OSError(errno.ENOTSUP, str(error))
            if name == SOFT_LOCK_FILE or told.errno not in _NO_LOCKS:
                raise wrap_os_error(root / name, "cannot be locked", told) from None
        else:
            return lock
    return None
