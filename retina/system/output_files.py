"""Checks of the output files that a user names: a file that the command did not write is never overwritten."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from retina.errors import DISK_ERRNOS, wrap_os_error

NOT_A_REGULAR_FILE = "is a device, a pipe or a socket, not a file"
_HEADER_CHARACTERS = 8000
"""Characters at the start of an existing file that show which program wrote it."""


def is_special_file(file: Path) -> bool:
    """Return whether `file` is something that a rename must not replace: a device, a pipe, /dev/stdout.

    False for a folder, which the operating system refuses to replace.

    Raises:
        OSError: the path cannot be examined.
    """
    try:
        mode = file.stat().st_mode
        is_descriptor = file.is_symlink() and str(file.readlink()).startswith("/proc/")
    except (FileNotFoundError, NotADirectoryError):
        return False
    return is_descriptor or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def unwritable_reason(file: Path, option: str, content: str, is_own_file: Callable[[str], bool]) -> str:
    """Return why `file` cannot be written or must not be overwritten; empty where it can be written.

    Args:
        file: the path that the user named.
        option: the command-line option that named it, for the message.
        content: what the command writes, for the message.
        is_own_file: whether a file that starts with this text was written by this command; an empty file may always be
            replaced.

    Raises:
        DiskError: the disk is full, over its quota or broken.
    """
    try:
        if file.is_dir():
            return f"is a folder; {option} takes a file"
        if is_special_file(file):
            return f"{NOT_A_REGULAR_FILE}; {option} takes a file"
        if file.exists() and (header := _read_header(file)) and not is_own_file(header):
            return f"exists and is not an earlier {content}, so it is not overwritten; choose another {option} FILE"
        parent = next(folder for folder in file.absolute().parents if folder.exists())
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    return _unwritable_folder_reason(parent, file)


def _unwritable_folder_reason(folder: Path, file: Path) -> str:
    """Return why no file can be created in a folder; empty where one can.

    Creates one, because `os.access` is not reliable for root or on a network disk.
    """
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return f"cannot be written: {folder} is not a folder or is not writable"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        if error.errno in DISK_ERRNOS:
            raise wrap_os_error(file, "cannot be written", error) from None
        return f"cannot be written: no file can be created in {folder}: {error.strerror}"


def _read_header(file: Path) -> str:
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        return opened.read(_HEADER_CHARACTERS)
