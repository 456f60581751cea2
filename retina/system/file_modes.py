"""Modes of the files and folders that hold patients' photographs and grades: only their owner can read them.

A results folder, the cache and an audit's page hold photographs. They are created with mode 0700 or 0600, whatever the
umask; existing files and folders keep their mode. If the owner opens a results folder to a group (`chmod g+rx`), files
that are written into it later are readable by that group too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

_READ_WRITE = 0o666


def make_private_folder(folder: Path, *, exist_ok: bool = False) -> None:
    """Create a folder that only its owner may enter; missing parents are created as the umask says.

    Raises:
        OSError: the folder cannot be created, or exists and `exist_ok` is False.
    """
    if folder.parent.exists() and not folder.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder.parent))
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=exist_ok)


def make_folder_with_inherited_mode(folder: Path) -> None:
    """Create a folder and its missing parents with the access rights of the nearest parent that exists.

    Raises:
        OSError: the folder cannot be created.
    """
    if folder.is_dir():
        return
    make_folder_with_inherited_mode(folder.parent)
    folder.mkdir(mode=folder.parent.stat().st_mode & 0o777 | 0o700, exist_ok=True)


def new_file_mode(folder: Path) -> int:
    """Return the mode for a new file in `folder`: users who may read or write the folder may do so with the file."""
    return folder.stat().st_mode & _READ_WRITE | 0o600


def replacement_mode(file: Path, *, is_private: bool) -> int:
    """Return the mode for a file that replaces `file`: that of `file` if it exists, otherwise that of a new file.

    Args:
        file: the file.
        is_private: make a new file accessible to its owner alone, whatever its folder allows.
    """
    try:
        return file.stat().st_mode & _READ_WRITE
    except FileNotFoundError:
        return new_file_mode(file.parent) & (0o600 if is_private else _READ_WRITE)


def opener(mode: int) -> Callable[[str, int], int]:
    """Return an opener for `open` that creates a new file with `mode`, less the bits that the umask removes."""
    return lambda path, flags: os.open(path, flags, mode)
