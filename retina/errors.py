"""What can go wrong, by name.

Every error that a user can cause is a `RetinaError` with a message of one to three lines that names the file, the key
or row, the value, and what is allowed. The command line prints that message and exits with 2; everything else is our
defect and keeps its traceback. Each child is also the fitting builtin, so that library users may catch either.
"""

import errno
from pathlib import Path

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Of a disk that is full, or over its quota: wherever it is mounted, there is no room on it."""
_MACHINE = (
    *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO"),
    *("ENXIO", "ENODEV", "EREMOTEIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN"),  # a network disk, a cable
    *("EMFILE", "ENFILE"),
)
DISK_ERRNOS = frozenset(getattr(errno, name) for name in _MACHINE if hasattr(errno, name))
"""Of a disk that is full, over its quota or the size of a file, read-only, broken or gone, and of a machine without
room for one more open file: not a mistake in the input."""


class RetinaError(Exception):
    """Root of all errors that this project raises on purpose."""

    exit_code = 2


class SpecError(RetinaError, ValueError):
    """A sweep file, a command-line value or a configuration that cannot be used."""


class DataError(RetinaError, ValueError):
    """Photographs or labels that are missing, unreadable or contradict each other."""


class PhotographsAbsentError(DataError):
    """Label files whose photographs are not there, not one of them."""


class WorkerError(DataError):
    """A process that worked on photographs died before it was done; the photographs may be fine."""

    exit_code = 1


class WeightsError(RetinaError, OSError):
    """Pretrained weights that are not there and cannot be fetched, or do not fit the model."""


class ResultsError(RetinaError, OSError):
    """A results folder that is missing, taken, or not what was asked for."""


class ModelOutputError(RetinaError, ValueError):
    """A model whose output is not finite, or no probabilities: of such nothing is graded or measured."""

    exit_code = 1


class DiskError(ResultsError):
    """A disk that cannot be written to, or read, now: full, over its quota, read-only, broken, gone."""

    exit_code = 1


def wrap_os_error(
    where: Path | str, what: str, error: OSError, remedy: str = "", *, fallback: type[RetinaError] = ResultsError
) -> RetinaError:
    """Return the error to raise for one of the operating system about a file.

    Args:
        where: the file or folder.
        what: what cannot be done with it.
        error: the system's.
        remedy: a line of its own, if there is one.
        mistake: what it is where a person has put something else there, or may not read it.

    Returns:
        A `DiskError` where the disk is at fault, else a `fallback`.
    """
    kind = DiskError if error.errno in DISK_ERRNOS else fallback
    return kind(f"{where}: {what}: {error.strerror or error}" + (f";\n{remedy}" if remedy else ""))


def exit_code_of(error: OSError) -> int | None:
    """Return the exit code for one of the operating system that no command has expected.

    Returns:
        1 where the disk is at fault or the system forbids it, 2 where a path is none that can exist, None for a defect.
    """
    if error.errno in {*DISK_ERRNOS, errno.EACCES, errno.EPERM}:
        return 1
    return 2 if error.filename and error.errno in {errno.ENAMETOOLONG, errno.ELOOP} else None


def one_line(error: BaseException, most: int = 200) -> str:
    """Return what a library's error says in one line of at most `most` characters; its type where it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of what an error says, as `one_line` does all: others may be a trace, or advice."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


class NodeError(RetinaError, RuntimeError):
    """A node of the cluster without the results folder, the photographs or the versions that trials need."""


class TrainError(RetinaError, RuntimeError):
    """A training run that cannot go on: a non-finite loss, or no memory for one batch."""

    exit_code = 1


class ClusterError(RetinaError, RuntimeError):
    """Ray cannot start, cannot start a worker, or has died."""

    exit_code = 1
