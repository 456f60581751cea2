"""An index of the files in the data folder: each folder is listed once, and no file is looked up by itself."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from retina.data.formats import is_image
from retina.errors import DataError

_PATH_CHARACTERS = re.compile(r"[/\\:\0]")
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_SYSTEM_FOLDERS = {"lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "__pycache__"}
_HIDDEN_PREFIXES = (".", "~$")  # Office writes a "~$" file beside an open spreadsheet
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class DataPath:
    """The path that the user gave.

    Attributes:
        root: the data folder.
        file: the file in it that was given; None if the folder was given.
    """

    root: Path
    file: Path | None = None

    def matches_any(self, names: Iterable[str]) -> bool:
        """Return whether the user gave the folder or one of these files, in any capitals."""
        return self.file is None or self.file.name.lower() in {name.lower() for name in names}


@dataclass
class _Listing:
    """The entries of one folder.

    Attributes:
        files: names of all files, by lower-case name.
        folders: names of the folders, sorted, without hidden ones.
        photographs: names of the files with an image's suffix, sorted.
        others: names of the other files, sorted.
        links: those of `folders` that are symbolic links.
        broken: names of what is neither file nor folder: broken links, pipes.
    """

    files: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    photographs: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    links: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)


class FileIndex:
    """Lists each folder of the file system at most once; 35,000 photographs in a folder cost one listing.

    Hidden files and folders (".x") and those of the operating system ("__MACOSX") are left out.
    """

    def __init__(self) -> None:
        self._listings: dict[Path, _Listing] = {}

    def file(self, folder: Path, *names: str) -> Path | None:
        """Return the first of `names` that is a file in `folder`, in any capitals; None if there is none."""
        files = self._listing(folder).files
        return next((folder / files[name.lower()] for name in names if name.lower() in files), None)

    def files(self, folder: Path) -> list[Path]:
        """Return the files directly in `folder`, hidden ones included, sorted by name."""
        return [folder / name for name in sorted(self._listing(folder).files.values())]

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders directly in `folder`, sorted by name."""
        return [folder / name for name in self._listing(folder).folders]

    def walk(self, folder: Path) -> Iterator[Path]:
        """Yield `folder` and all folders below it, sorted by name; folders that only links lead to come last."""
        pending, visited = [folder], set(folder.resolve().parents)
        pending_links: list[Path] = []
        while pending or pending_links:
            current = pending.pop() if pending else pending_links.pop(0)
            resolved = current.resolve()
            if resolved not in visited:  # links may form a cycle
                visited.add(resolved)
                yield current
                inner = self.folders(current)
                links = self._listing(current).links
                pending += [subfolder for subfolder in reversed(inner) if subfolder.name not in links]
                pending_links += [subfolder for subfolder in inner if subfolder.name in links]

    def photographs(self, folder: Path) -> list[str]:
        """Return the names of the photographs directly in `folder`, sorted."""
        return self._listing(folder).photographs

    def broken(self, folder: Path) -> list[str]:
        """Return the names in `folder` of what is neither file nor folder, for example broken links; sorted."""
        return self._listing(folder).broken

    def others(self, folder: Path) -> list[str]:
        """Return the names of the files directly in `folder` that are no photographs, sorted."""
        return self._listing(folder).others

    def _listing(self, folder: Path) -> _Listing:
        if folder not in self._listings:
            self._listings[folder] = _list_folder(folder)
        return self._listings[folder]


def is_plain_name(name: str) -> bool:
    """Return whether a name has no folder in front, on any system; fast enough to be called 100,000 times."""
    return not _PATH_CHARACTERS.search(name)


def leaves_folder(name: str) -> bool:
    """Return whether a photograph's name in a label file leads out of the data folder, on any system; a URL does."""
    if is_plain_name(name):
        return not name.strip(".")
    path = PureWindowsPath(name)
    return bool(path.anchor) or not path.parts or ".." in path.parts or "\0" in name or "://" in name


def is_utf8(name: str) -> bool:
    """Return whether a name is valid UTF-8. Python keeps other bytes as lone surrogates, which no table can hold."""
    return name.isascii() or name == printable(name)


def printable(name: str) -> str:
    """Return `name` with what is not UTF-8 escaped."""
    return name.encode(errors="backslashreplace").decode()


def _list_folder(folder: Path) -> _Listing:
    listing = _Listing()
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = _entry_kind(entry)
                if kind == "file":
                    names.append(entry.name)
                elif kind == "folder":
                    listing.folders.append(entry.name)
                    listing.links |= {entry.name} if entry.is_symlink() else set()
                elif not entry.name.startswith("."):
                    listing.broken.append(entry.name)
    except OSError as error:
        if error.errno in _MISSING:  # a missing folder, or a file, has no entries
            return listing
        raise DataError(f"{printable(str(folder))}: this folder cannot be read: {error.strerror}") from None
    names.sort()
    listing.broken.sort()
    listing.files = {name.lower(): name for name in names}
    listing.folders = sorted(
        name for name in listing.folders if not name.startswith(".") and name not in _SYSTEM_FOLDERS
    )
    visible = [name for name in names if not name.startswith(_HIDDEN_PREFIXES) and name.lower() not in _SYSTEM_FILES]
    listing.photographs = [name for name in visible if is_image(name)]
    listing.others = [name for name in visible if not is_image(name)]
    return listing


def _entry_kind(entry: os.DirEntry[str]) -> str:
    """Return "file" or "folder"; "" for neither: a link that is broken or may not be followed, a pipe."""
    with suppress(OSError):
        return "file" if entry.is_file() else "folder" if entry.is_dir() else ""
    return ""
