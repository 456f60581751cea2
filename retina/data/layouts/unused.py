"""The files in the data folder that nothing was read from."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath

from retina.data.layouts.file_index import DataPath, FileIndex, printable
from retina.data.manifest import Unused


def find_unused_files(
    file_index: FileIndex, data_path: DataPath, photographs: AbstractSet[str], label_files: AbstractSet[Path]
) -> Unused:
    """Return the files below the data folder that were not used.

    Args:
        file_index: the folders.
        data_path: the folder or file that the user gave; if it is an npz file, nothing beside it counts as unused.
        photographs: paths of the photographs that are used.
        label_files: the label files that were read.
    """
    if data_path.file and str(data_path.file) in photographs:
        return Unused()
    used = photographs | {str(file) for file in label_files}
    unused_by_folder: dict[PurePosixPath, list[str]] = {}
    other_files: list[str] = []
    used_folders: set[PurePosixPath] = set()
    for folder in file_index.walk(data_path.root):
        relative = PurePosixPath(folder.relative_to(data_path.root).as_posix())
        names = file_index.photographs(folder)
        unused_names = [name for name in names if f"{folder}/{name}" not in used]
        if len(unused_names) < len(names):
            used_folders |= {relative, *relative.parents}
        if unused_names:
            unused_by_folder[relative] = unused_names
        rest = [*file_index.others(folder), *file_index.broken(folder)]
        other_files += [(relative / name).as_posix() for name in rest if f"{folder}/{name}" not in used]
    counts: dict[str, int] = {}
    for relative, names in unused_by_folder.items():
        top = _uppermost_unused(relative, used_folders)
        counts[top] = counts.get(top, 0) + len(names)
    unused_photographs = [
        (relative / name).as_posix() for relative, names in unused_by_folder.items() for name in names
    ]
    return Unused(sorted(map(printable, unused_photographs)), sorted(map(printable, other_files)), counts)


def _uppermost_unused(folder: PurePosixPath, used_folders: set[PurePosixPath]) -> str:
    """Return the uppermost folder around `folder` none of whose photographs is used, else the folder itself."""
    if folder in used_folders:
        return "the data folder itself" if folder == PurePosixPath() else f"{printable(str(folder))}/"
    top = next(parent for parent in reversed((folder, *folder.parents)) if parent not in used_folders)
    return "the data folder itself" if top == PurePosixPath() else f"{printable(str(top))}/"
