"""Which photographs a user names: files, folders and patterns."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from retina.data.formats import image_suffixes, is_image, suffix_of
from retina.data.layouts.file_index import FileIndex
from retina.errors import DataError

log = logging.getLogger(__name__)


def images(arguments: Sequence[str]) -> list[Path]:
    """The photographs that a user names: files, folders with all that lies below them, and patterns (`*`, `?`, `**`).

    A file that is named is taken whatever its ending; of folders and patterns, those with the ending of an image. What
    lies there beside them is said.

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
        found = _chosen(argument, _below(path))
        missing = (
            f"{argument}: there are no photographs in this folder; looked for {', '.join(sorted(image_suffixes()))}"
        )
    elif path.is_file() or path.is_fifo():
        found, missing = [path], ""
    else:
        found = _chosen(argument, _matched(argument))
        missing = f"{argument}: no such file or folder, and as a pattern it matches no photographs"
    if not found:
        raise DataError(missing)
    return found


def _matched(pattern: str) -> list[Path]:
    """The files that a pattern matches, and those below the folders that it matches."""
    matched = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  # takes absolute ones
    folders = {match for match in matched if match.is_dir()}
    walked = _shortest(folders)
    files = [file for match in matched if match not in folders or match in walked for file in _each(match, folders)]
    ways = _shortest({file.parent for file in files})
    return [file for file in dict.fromkeys(files) if file.parent in ways]


def _each(path: Path, folders: set[Path]) -> list[Path]:
    return _below(path) if path in folders else [path]


def _shortest(folders: set[Path]) -> set[Path]:
    """Of several ways to one folder, on which links lead, the shortest: links may lead in circles."""
    ways: dict[str, Path] = {}
    for folder in sorted(folders, key=lambda one: (len(one.parts), one)):
        ways.setdefault(os.path.realpath(folder), folder)
    return set(ways.values())


def _chosen(argument: str, files: list[Path]) -> list[Path]:
    """Those of the files that lie in a folder, or that a pattern matches, that are photographs; says what is not."""
    found = [file for file in files if is_image(file.name)]
    if pipes := [file for file in found if file.exists() and not file.is_file()]:
        raise DataError(f"{pipes[0]}: is a device, a pipe or a socket, not a photograph")
    if found and len(found) < len(files):
        endings = sorted({suffix_of(file.name) or "none" for file in files} - image_suffixes())
        left = f"{len(files) - len(found)} ({', '.join(endings[:8])})"
        log.info("note: %s: not graded, since their endings are no photograph's: %s", argument, left)
    return found


def _below(folder: Path) -> list[Path]:
    """Return the files in a folder and those in it, also where a link leads, sorted; as in data sets no hidden ones."""
    tree = FileIndex()
    return sorted(
        place / name
        for place in tree.walk(folder)
        for name in (*tree.photographs(place), *tree.others(place), *tree.broken(place))
    )
