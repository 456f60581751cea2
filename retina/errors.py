"""The package's exceptions.

Every error that a user can cause is a `RetinaError` with a message of one to three lines that names the file, the key
or row, the value, and what is allowed. The command line prints that message and exits with code 2 or, where the class
sets it, 1. Any other exception is a defect of this package and keeps its traceback. Each subclass also derives from the
matching builtin exception, so that library users may catch either.
"""

import errno
from pathlib import Path

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a disk that is full or over its quota: no path on it has room."""
_MACHINE = (
    *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO"),
    *("ENXIO", "ENODEV", "EREMOTEIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN"),  # a network disk, a loose cable
    *("EMFILE", "ENFILE"),
)
DISK_ERRNOS = frozenset(getattr(errno, name) for name in _MACHINE if hasattr(errno, name))
"""Errors that are not a mistake in the input: the disk is full, over its quota, read-only, broken or unavailable, the
file exceeds the maximum size, or the machine cannot open another file."""


class RetinaError(Exception):
    """Base class of the errors that this package raises on purpose."""

    exit_code = 2


class SpecError(RetinaError, ValueError):
    """A sweep file, a command-line value or a configuration that cannot be used."""


class DataError(RetinaError, ValueError):
    """Photographs or labels that are missing, unreadable or contradict each other."""


class PhotographsAbsentError(DataError):
    """Label files none of whose photographs exist."""


class WorkerError(DataError):
    """A process that worked on photographs died before it finished; the photographs may be fine."""

    exit_code = 1


class WeightsError(RetinaError, OSError):
    """Pretrained weights that are missing and cannot be fetched, or that do not fit the model."""


class ResultsError(RetinaError, OSError):
    """A results folder that is missing, already in use, or does not hold what was requested."""


class ModelOutputError(RetinaError, ValueError):
    """A model whose output is not finite or not a probability distribution: it is neither graded nor measured."""

    exit_code = 1


class DiskError(ResultsError):
    """A disk that cannot be read or written now: full, over its quota, read-only, broken or unavailable."""

    exit_code = 1


def wrap_os_error(
    path: Path | str, problem: str, error: OSError, remedy: str = "", *, fallback: type[RetinaError] = ResultsError
) -> RetinaError:
    """Return the error to raise for an `OSError` about a file.

    Args:
        path: the file or folder.
        problem: what cannot be done with it.
        error: the operating system's error.
        remedy: what the user can do; a line of its own in the message.
        fallback: the error's class where the disk is not at fault, for example because another kind of file is at the
            path or the user lacks the permission.

    Returns:
        A `DiskError` where the disk is at fault, otherwise a `fallback`.
    """
    error_class = DiskError if error.errno in DISK_ERRNOS else fallback
    return error_class(f"{path}: {problem}: {error.strerror or error}" + (f";\n{remedy}" if remedy else ""))


def exit_code_of(error: OSError) -> int | None:
    """Return the exit code for an `OSError` that no command has handled.

    Returns:
        1 where the disk is at fault or the permission is missing, 2 where no file can have this path, None for a defect
        of this package.
    """
    if error.errno in {*DISK_ERRNOS, errno.EACCES, errno.EPERM}:
        return 1
    return 2 if error.filename and error.errno in {errno.ENAMETOOLONG, errno.ELOOP} else None


def one_line(error: BaseException, max_length: int = 200) -> str:
    """Return an error's message as one line of at most `max_length` characters; its type where the message is empty."""
    return (" ".join(str(error).split()) or type(error).__name__)[:max_length]


def first_line(error: BaseException, max_length: int = 200) -> str:
    """Return the first line of an error's message, for libraries that append a trace or advice; see `one_line`."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:max_length]


class NodeError(RetinaError, RuntimeError):
    """A cluster node that lacks the results folder, the photographs or the package versions that trials need."""


class TrainError(RetinaError, RuntimeError):
    """A training run that cannot continue: a non-finite loss, or no memory for one batch."""

    exit_code = 1


class ClusterError(RetinaError, RuntimeError):
    """Ray cannot start, cannot start a worker, or has died."""

    exit_code = 1
