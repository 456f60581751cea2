"""Files that a user names for what a command writes: what is there and was not written by it stays as it is."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from retina.errors import DISK_ERRNOS, wrap_os_error

NOT_A_REGULAR_FILE = "is a device, a pipe or a socket, not a file"
_BEGINNING = 8000
"""Characters at the start of an existing file that show which program wrote it."""


def is_special_file(file: Path) -> bool:
    """Return whether `file` is something that a rename must not take the place of: a device, a pipe, /dev/stdout.

    A folder is none of these: the system refuses to replace it.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        mode = file.stat().st_mode
        of_a_process = file.is_symlink() and str(file.readlink()).startswith("/proc/")
    except (FileNotFoundError, NotADirectoryError):
        return False
    return of_a_process or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def unwritable_reason(file: Path, option: str, what: str, is_ours: Callable[[str], bool]) -> str:
    """Return why `file` cannot be written, or must stay; empty where it can be written.

    Args:
        file: as the user names it.
        option: by which it is named, for a message.
        what: a file of ours is, for a message.
        is_ours: whether a file that begins so is such a one; an empty one may always be replaced.

    Raises:
        DiskError: the disk is full, over its quota or broken.
    """
    try:
        if file.is_dir():
            return f"is a folder; {option} takes a file"
        if is_special_file(file):
            return f"{NOT_A_REGULAR_FILE}; {option} takes a file"
        if file.exists() and (begins := _beginning(file)) and not is_ours(begins):
            return f"is there and no {what}, so it stays; take another {option} FILE"
        above = next(folder for folder in file.absolute().parents if folder.exists())
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    return _unwritable(above, file)


def _unwritable(folder: Path, file: Path) -> str:
    """Why no file can be made in a folder; tried out, since of root and of another machine's disk access says more."""
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return f"cannot be written: {folder} is no folder, or may not be written to"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        if error.errno in DISK_ERRNOS:
            raise wrap_os_error(file, "cannot be written", error) from None
        return f"cannot be written: no file can be made in {folder}: {error.strerror}"


def _beginning(file: Path) -> str:
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        return opened.read(_BEGINNING)
