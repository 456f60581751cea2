"""Which photographs a user names: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from retina.data.formats import is_image, suffixes
from retina.errors import DataError


def images(arguments: Sequence[str]) -> list[Path]:
    """The photographs that a user names: files, folders with all that lies below them, and patterns (`*`, `?`, `**`).

    A file that is named is taken whatever its ending; of folders and patterns, those with the ending of an image.

    Returns:
        Each photograph once, in the order of the arguments, sorted within each.

    Raises:
        DataError: an argument is nothing of these, or matches no photograph.
    """
    return list(dict.fromkeys(path for argument in arguments for path in _expand(argument)))


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    try:
        return _named(argument, path)
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise DataError(f"{argument[:200]}: {error.strerror}") from None


def _named(argument: str, path: Path) -> list[Path]:
    if not argument:  # an unset variable of the shell, which Path takes for the folder one is in
        found, missing = [], "'': an empty name is no photograph"
    elif path.is_dir():
        found = _below(path)
        missing = f"{argument}: there are no photographs in this folder; looked for {', '.join(sorted(suffixes()))}"
    elif path.is_file():
        found, missing = [path], ""
    else:
        matched = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute patterns
        found = [file for match in matched for file in _photographs(Path(match))]
        missing = f"{argument}: no such file or folder, and as a pattern it matches no photographs"
    if not found:
        raise DataError(missing)
    return found


def _photographs(path: Path) -> list[Path]:
    return _below(path) if path.is_dir() else [path] if is_image(path.name) else []


def _below(folder: Path) -> list[Path]:
    """The photographs in a folder and those in it, sorted; hidden ones are left out, as a shell's patterns do."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: this folder cannot be read: {error.strerror}") from None

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(file for file in found if is_image(file.name))
