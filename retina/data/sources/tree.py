"""What lies in which folder: every folder is listed once, and no photograph is asked for one by one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from retina.errors import DataError

SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp")
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


@dataclass
class _Listing:
    """One folder: its files by lower-case name, its folders, its photographs by name with and without suffix."""

    files: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    photographs: dict[str, str] = field(default_factory=dict)


class Tree:
    """A view of the file system that lists each folder at most once; 35,000 photographs cost one listing."""

    def __init__(self) -> None:
        self._listings: dict[Path, _Listing] = {}

    def file(self, folder: Path, *names: str) -> Path | None:
        """The first of `names` that is a file in `folder`, whatever its capitals."""
        files = self._listing(folder).files
        return next((folder / files[name.lower()] for name in names if name.lower() in files), None)

    def files(self, folder: Path) -> list[Path]:
        """The files of `folder`, sorted by name."""
        return [folder / name for name in sorted(self._listing(folder).files.values())]

    def folders(self, folder: Path) -> list[Path]:
        """The folders in `folder`, sorted by name, without hidden ones."""
        return [folder / name for name in sorted(self._listing(folder).folders) if not name.startswith((".", "__"))]

    def walk(self, folder: Path) -> Iterator[Path]:
        """`folder` and all folders below it, sorted by name, without hidden ones."""
        waiting, seen = [folder], set(folder.resolve().parents)
        while waiting:
            one = waiting.pop()
            real = one.resolve()
            if real not in seen:  # a link may lead in circles
                seen.add(real)
                yield one
                waiting += reversed(self.folders(one))

    def photographs(self, folder: Path) -> list[Path]:
        """The photographs that lie directly in `folder`, sorted by name."""
        return [folder / name for name in sorted(set(self._listing(folder).photographs.values()))]

    def find(self, name: str, folders: Iterable[Path]) -> Path | None:
        """The photograph called `name`, with or without its suffix, in the first of `folders` that has it."""
        *above, last = PureWindowsPath(name).parts  # takes / and \ alike
        for folder in folders:
            place = folder.joinpath(*above) if above else folder
            known = self._listing(place).photographs
            if found := known.get(last) or known.get(own_name(last)):
                return place / found
        return None

    def _listing(self, folder: Path) -> _Listing:
        if folder not in self._listings:
            self._listings[folder] = _list(folder)
        return self._listings[folder]


def leaves_folder(name: str) -> bool:
    """Whether a photograph's name in a label file would lead out of the data folder, on any system."""
    path = PureWindowsPath(name)
    return bool(path.anchor) or not path.parts or ".." in path.parts or "\0" in name


def own_name(name: str) -> str:
    """`name` without the suffix of a photograph; other dots are part of the name."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in SUFFIXES else name


def is_text(name: str) -> bool:
    """Whether a name is UTF-8. Python keeps other bytes as lone surrogates, which no table takes."""
    return name.isascii() or name == printable(name)


def printable(name: str) -> str:
    """`name` as it can be printed: what is not UTF-8 is escaped."""
    return name.encode(errors="backslashreplace").decode()


def _list(folder: Path) -> _Listing:
    listing = _Listing()
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):  # a link that leads in circles, say, is neither; the others still count
                    if entry.is_file():
                        names.append(entry.name)
                    elif entry.is_dir():
                        listing.folders.append(entry.name)
    except OSError as error:
        if error.errno in _NOT_THERE:  # or no folder: nothing lies in it
            return listing
        raise DataError(f"{printable(str(folder))}: this folder cannot be read: {error.strerror}") from None
    listing.files = {name.lower(): name for name in sorted(names)}
    images = [name for name in names if own_name(name) != name and not name.startswith(".")]
    images.sort(key=lambda name: (SUFFIXES.index(Path(name).suffix.lower()), name))
    listing.photographs = {name: name for name in images}
    for name in images:  # where one photograph lies in two formats, the first of SUFFIXES is taken
        listing.photographs.setdefault(own_name(name), name)
    return listing
