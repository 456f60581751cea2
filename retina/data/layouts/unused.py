"""The files in the data folder that nothing was read from."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath

from retina.data.layouts.file_index import DataPath, FileIndex, printable
from retina.data.manifest import Unused


def find_unused_files(
    tree: FileIndex, here: DataPath, photographs: AbstractSet[str], files: AbstractSet[Path]
) -> Unused:
    """What lies below the data folder and was not used.

    Args:
        tree: the folders.
        here: what the user pointed at; beside an npz file that was given itself, nothing counts.
        photographs: that are used.
        files: label files that were read.
    """
    if here.file and str(here.file) in photographs:
        return Unused()
    used = photographs | {str(file) for file in files}
    idle: dict[PurePosixPath, list[str]] = {}
    others: list[str] = []
    busy: set[PurePosixPath] = set()
    for folder in tree.walk(here.root):
        inside = PurePosixPath(folder.relative_to(here.root).as_posix())
        names = tree.photographs(folder)
        left = [name for name in names if f"{folder}/{name}" not in used]
        if len(left) < len(names):
            busy |= {inside, *inside.parents}
        if left:
            idle[inside] = left
        rest = [*tree.others(folder), *tree.broken(folder)]
        others += [(inside / name).as_posix() for name in rest if f"{folder}/{name}" not in used]
    counts: dict[str, int] = {}
    for inside, names in idle.items():
        top = _uppermost(inside, busy)
        counts[top] = counts.get(top, 0) + len(names)
    listed = [(inside / name).as_posix() for inside, names in idle.items() for name in names]
    return Unused(sorted(map(printable, listed)), sorted(map(printable, others)), counts)


def _uppermost(folder: PurePosixPath, busy: set[PurePosixPath]) -> str:
    """The uppermost folder around `folder` of which no photograph is used; else the folder itself."""
    if folder in busy:
        return "the data folder itself" if folder == PurePosixPath() else f"{printable(str(folder))}/"
    top = next(one for one in reversed((folder, *folder.parents)) if one not in busy)
    return "the data folder itself" if top == PurePosixPath() else f"{printable(str(top))}/"
