"""The photographs that a user names: files, folders and patterns."""

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


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Find the photographs that a user names: files, folders with all below them, and patterns (`*`, `?`, `**`).

    A named file is taken whatever its ending; of folders and patterns, only files with the ending of an image are
    taken. The other files there are logged.

    Returns:
        Each photograph once, in the order of the arguments, sorted within each.

    Raises:
        DataError: an argument is no file, folder or pattern, or matches no photograph.
    """
    return list(dict.fromkeys(path for argument in arguments for path in _expand(argument)))


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    try:
        return _find(argument, path)
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise DataError(f"{argument[:200]}: {error.strerror}") from None


def _find(argument: str, path: Path) -> list[Path]:
    if not argument:  # an unset variable of the shell, which Path takes for the working directory
        images, problem = [], "'': an empty name is not a photograph"
    elif path.is_dir():
        images = _select_images(argument, _files_below(path))
        problem = (
            f"{argument}: there are no photographs in this folder; looked for {', '.join(sorted(image_suffixes()))}"
        )
    elif path.is_file() or path.is_fifo():
        images, problem = [path], ""
    else:
        images = _select_images(argument, _match(argument))
        problem = f"{argument}: no such file or folder, and as a pattern it matches no photographs"
    if not images:
        raise DataError(problem)
    return images


def _match(pattern: str) -> list[Path]:
    """Return the files that a pattern matches, and those below the folders that it matches."""
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  # takes absolute ones
    folders = {match for match in matches if match.is_dir()}
    searched = _shortest_paths(folders)
    files = [
        file
        for match in matches
        if match not in folders or match in searched
        for file in (_files_below(match) if match in folders else [match])
    ]
    parents = _shortest_paths({file.parent for file in files})
    return [file for file in dict.fromkeys(files) if file.parent in parents]


def _shortest_paths(folders: set[Path]) -> set[Path]:
    """Return the shortest of the paths that lead to the same folder through links, which may form cycles."""
    paths: dict[str, Path] = {}
    for folder in sorted(folders, key=lambda path: (len(path.parts), path)):
        paths.setdefault(os.path.realpath(folder), folder)
    return set(paths.values())


def _select_images(argument: str, files: list[Path]) -> list[Path]:
    """Return the photographs among the files of a folder or pattern; log the endings of the others."""
    images = [file for file in files if is_image(file.name)]
    if special := [file for file in images if file.exists() and not file.is_file()]:
        raise DataError(f"{special[0]}: is a device, a pipe or a socket, not a photograph")
    if images and len(images) < len(files):
        endings = sorted({suffix_of(file.name) or "none" for file in files} - image_suffixes())
        others = f"{len(files) - len(images)} ({', '.join(endings[:8])})"
        log.info(
            "note: %s: files that are not graded, because their endings are not those of images: %s", argument, others
        )
    return images


def _files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted; follows links and, as in data sets, skips hidden files."""
    tree = FileIndex()
    return sorted(
        parent / name
        for parent in tree.walk(folder)
        for name in (*tree.photographs(parent), *tree.others(parent), *tree.broken(parent))
    )
