"""What lies in which folder: every folder is listed once, and no photograph is asked for one by one."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from retina.data.formats import is_image, own_name
from retina.errors import DataError

__all__ = ["DataPath", "FileIndex", "is_text", "leaves_folder", "own_name", "printable"]

_OF_PATHS = re.compile(r"[/\\:\0]")
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_OF_THE_SYSTEM = {"lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "__pycache__"}
_HIDDEN = (".", "~$")  # the second is of Office, beside a spreadsheet that somebody has open
_FILES_OF_THE_SYSTEM = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class DataPath:
    """What the user pointed at: a folder, or a file in it."""

    root: Path
    file: Path | None = None

    def may_be(self, names: Iterable[str]) -> bool:
        """Whether a layout of these label files could be meant: the folder was given, or one of them was."""
        return self.file is None or self.file.name.lower() in {name.lower() for name in names}


@dataclass
class _Listing:
    """One folder: all its files by lower-case name, its folders and which are links, its photographs and what else.

    `broken` is what is neither file nor folder: links to nothing, pipes.
    """

    files: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    photographs: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    links: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)


class FileIndex:
    """A view of the file system that lists each folder at most once; 35,000 photographs cost one listing.

    Hidden files and folders (".x") and those of the operating system ("__MACOSX") are left out.
    """

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
        """The folders in `folder`, sorted by name."""
        return [folder / name for name in self._listing(folder).folders]

    def walk(self, folder: Path) -> Iterator[Path]:
        """`folder` and all folders below it, sorted by name; those that only links lead to come last."""
        waiting, seen = [folder], set(folder.resolve().parents)
        linked: list[Path] = []
        while waiting or linked:
            one = waiting.pop() if waiting else linked.pop(0)
            real = one.resolve()
            if real not in seen:  # a link may lead in circles
                seen.add(real)
                yield one
                inner = self.folders(one)
                links = self._listing(one).links
                waiting += [each for each in reversed(inner) if each.name not in links]
                linked += [each for each in inner if each.name in links]

    def photographs(self, folder: Path) -> list[str]:
        """The names of the photographs that lie directly in `folder`, sorted."""
        return self._listing(folder).photographs

    def broken(self, folder: Path) -> list[str]:
        """The names in `folder` of what is neither file nor folder, a link to nothing, say; sorted."""
        return self._listing(folder).broken

    def others(self, folder: Path) -> list[str]:
        """The names of the files directly in `folder` that are no photographs, sorted."""
        return self._listing(folder).others

    def _listing(self, folder: Path) -> _Listing:
        if folder not in self._listings:
            self._listings[folder] = _list(folder)
        return self._listings[folder]


def is_plain(name: str) -> bool:
    """Whether a name has no folder in front, on any system; so quick that it may be asked 100,000 times."""
    return not _OF_PATHS.search(name)


def leaves_folder(name: str) -> bool:
    """Whether a photograph's name in a label file would lead out of the data folder, on any system; a URL does."""
    if is_plain(name):
        return not name.strip(".")
    path = PureWindowsPath(name)
    return bool(path.anchor) or not path.parts or ".." in path.parts or "\0" in name or "://" in name


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
                kind = _kind(entry)
                if kind == "file":
                    names.append(entry.name)
                elif kind == "folder":
                    listing.folders.append(entry.name)
                    listing.links |= {entry.name} if entry.is_symlink() else set()
                elif not entry.name.startswith("."):
                    listing.broken.append(entry.name)
    except OSError as error:
        if error.errno in _NOT_THERE:  # or no folder: nothing lies in it
            return listing
        raise DataError(f"{printable(str(folder))}: this folder cannot be read: {error.strerror}") from None
    names.sort()
    listing.broken.sort()
    listing.files = {name.lower(): name for name in names}
    listing.folders = sorted(
        name for name in listing.folders if not name.startswith(".") and name not in _OF_THE_SYSTEM
    )
    shown = [name for name in names if not name.startswith(_HIDDEN) and name.lower() not in _FILES_OF_THE_SYSTEM]
    listing.photographs = [name for name in shown if is_image(name)]
    listing.others = [name for name in shown if not is_image(name)]
    return listing


def _kind(entry: os.DirEntry[str]) -> str:
    """Either "file" or "folder"; "" for neither: a link that leads nowhere or may not be followed, a pipe."""
    with suppress(OSError):
        return "file" if entry.is_file() else "folder" if entry.is_dir() else ""
    return ""
