"""Files and folders of patients' photographs and grades: made readable by their owner alone.

A results folder, the cache and an audit's page hold photographs. What is made here is 0700 or 0600 whatever the umask;
what is there already keeps its mode. Who has opened a results folder to a group (`chmod g+rx`) has what is written into
it afterwards readable to that group too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

_READ_WRITE = 0o666


def make_private_folder(folder: Path, *, exist_ok: bool = False) -> None:
    """Make a folder that only its owner may enter; missing folders above it are made as the umask says.

    Raises:
        OSError: it cannot be made, or is there and `exist_ok` is not given.
    """
    if folder.parent.exists() and not folder.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder.parent))
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=exist_ok)


def make_folder_with_inherited_mode(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for those who may enter the first one that is there.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    make_folder_with_inherited_mode(folder.parent)
    folder.mkdir(mode=folder.parent.stat().st_mode & 0o777 | 0o700, exist_ok=True)


def new_file_mode(folder: Path) -> int:
    """Return the mode for a new file in `folder`: readable and writable to those to whom the folder is."""
    return folder.stat().st_mode & _READ_WRITE | 0o600


def replacement_mode(file: Path, *, is_private: bool) -> int:
    """Return the mode for what takes the place of `file`: its own where it is there, else as its folder's allows.

    Args:
        file: the file.
        is_private: a new one is its owner's alone, wherever it stands.
    """
    try:
        return file.stat().st_mode & _READ_WRITE
    except FileNotFoundError:
        return new_file_mode(file.parent) & (0o600 if is_private else _READ_WRITE)


def opener(mode: int) -> Callable[[str, int], int]:
    """Return an opener for `open` that makes a new file with `mode`, less what the umask takes away."""
    return lambda path, flags: os.open(path, flags, mode)
