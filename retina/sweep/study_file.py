"""The file study.db: checked before Optuna opens it, moved aside where it is damaged, its errors with its path."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import optuna
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from retina.errors import DiskError, ResultsError, as_disk_error, first_line, one_line

STUDY_FILE = "study.db"
BUSY_SECONDS = 5.0
"""How long to wait for another process that locks the file before it is reported as locked."""
_TABLES = {"studies", "trials", "trial_params", "trial_values", "version_info", "alembic_version"}
_DISK_CODES = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
"""SQLite's errors where the disk is full or read-only: it cannot open its journal then either."""
_NO_ROOM = "make room, then go on with --resume"
_FORBIDDEN = (
    "its disk is full or read-only, or you may not write to it or its folder; correct that, then go on with --resume"
)
_BUSY_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def open_storage(database: Path) -> optuna.storages.RDBStorage:
    """Open a database of studies, and create it where it does not exist.

    Raises:
        ResultsError: it is locked, of another version of Optuna, or cannot be written; exit code 1 where the disk is
            full or read-only.
    """
    with storage_errors(database):
        try:
            return optuna.storages.RDBStorage(url(database), engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}})
        except RuntimeError as error:  # Optuna's error for a schema of another version
            raise ResultsError(
                f"{database}: was written by another version of Optuna than this one, {optuna.__version__}: "
                f"{one_line(error)};\n"
                "install the version in environment.json, or move the file away: it is then made anew from the tables"
            ) from None


def url(database: Path, *, read_only: bool = False) -> str:
    """Return the URL of a database for SQLAlchemy, for any path: `?`, `#`, `%` and `{` have a meaning in a URL."""
    path = quote(quote(str(database.absolute())))  # SQLAlchemy undoes one of the two, SQLite the other
    return f"sqlite:///file:{path}?{'mode=ro&' if read_only else ''}uri=true"


def find_damage(database: Path) -> str:
    """Return in a few words what is wrong with a database of studies; empty where nothing is, or it does not exist.

    Raises:
        ResultsError: it cannot be read, or another process has locked it.
    """
    if not os.path.lexists(database):
        return ""
    try:
        with database.open("rb") as opened:
            if not opened.read(1):
                return "is empty"
        with contextlib.closing(sqlite3.connect(_uri(database), uri=True, timeout=BUSY_SECONDS)) as connection:
            problem = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            if problem != "ok":
                return f"is damaged: {' '.join(problem.split())[:120]}"
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        if _code(error) in {*_DISK_CODES, *_BUSY_CODES}:
            raise _as_results_error(database, error) from None
        return f"is damaged: {error}"
    except OSError as error:
        raise as_disk_error(
            database, "cannot be read", error, "move it away: it is then made anew from the tables"
        ) from None
    return "" if tables >= _TABLES else "is a database of something else"


def set_aside(database: Path) -> Path:
    """Rename a damaged database within its folder and return its new path."""
    number = 1
    while os.path.lexists(aside := database.with_name(f"{database.name}.damaged-{number}")):
        number += 1
    for suffix in ("-journal", "-wal", "-shm"):  # of the damaged file: SQLite would apply them to the next one
        companion = database.with_name(database.name + suffix)
        if os.path.lexists(companion):
            companion.rename(aside.with_name(aside.name + suffix))
    database.rename(aside)
    return aside


@contextmanager
def storage_errors(database: Path) -> Iterator[None]:
    """Raise errors of Optuna's storage and of SQLAlchemy inside the block as errors with the file's path.

    Raises:
        ResultsError: for example, the file is locked; exit code 1 where the disk is full or read-only.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise as_results_error(database, error) from None


def as_results_error(database: Path, error: BaseException) -> ResultsError:
    """Return the error to raise for one of Optuna's storage, whose cause is SQLAlchemy's, whose cause is SQLite's."""
    inner: BaseException | None = error
    while inner is not None:
        original = inner.orig if isinstance(inner, DBAPIError) else inner
        if isinstance(original, sqlite3.Error):
            return _as_results_error(database, original)
        inner = inner.__cause__
    return DiskError(f"{database}: cannot be written to: {first_line(error)};\n{_NO_ROOM}")


def _as_results_error(database: Path, error: sqlite3.Error) -> ResultsError:
    code = _code(error)
    if code in _BUSY_CODES:
        return ResultsError(f"{database}: is locked by another process; end that process, then go on with --resume")
    if code in _DISK_CODES or code is None:
        remedy = _FORBIDDEN if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN} else _NO_ROOM
        return DiskError(f"{database}: cannot be written to: {error};\n{remedy}")
    return ResultsError(f"{database}: is damaged: {error};\nmove it away: --resume then makes it anew from the tables")


def _code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary error code."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _uri(database: Path) -> str:
    if database.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return f"file:{quote(str(database.absolute()))}?mode=rw"
