"""An index of all photographs below a folder by name, which finds those that a name in a label file means."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from retina.data.formats import is_image, strip_image_suffix
from retina.data.layouts import split_words
from retina.data.layouts.file_index import FileIndex, is_plain_name
from retina.errors import DataError

_MASKS = {"mask", "masks", "heatmap", "heatmaps"}
_DERIVED = {*_MASKS, "segmentation", "segmentations", "groundtruth", "groundtruths"}
"""Words in names of folders with images made from the photographs, of the same names: FGADR's "IRMA_Masks"."""
_ORIGINALS = {"image", "images", "original", "originals", "photo", "photos", "photographs"}
"""Words in names of folders with photographs inside a segmentation's: "A. Segmentation/1. Original Images" (IDRiD)."""


@dataclass(frozen=True, slots=True)
class IndexedPhotograph:
    """A photograph below the root.

    Attributes:
        folder: the folder that it lies in.
        name: its file name.
        parts: the names of the folders between the root and the photograph, each as `_normalize` returns it.
    """

    folder: Path
    name: str
    parts: tuple[str, ...]

    @property
    def path(self) -> str:
        """The path of its file."""
        return f"{self.folder}/{self.name}"

    @property
    def split(self) -> str:
        """The split that its folder names, or the nearest folder above that names one; "" if none does."""
        return _innermost_split(self.folder.parts[len(self.folder.parts) - len(self.parts) :])


class PhotographIndex:
    """The photographs below a folder, by name.

    Args:
        file_index: lists the folders.
        root: the data folder.
        image_folder: a folder below `root`; if given, only the photographs in it count (`data.image_folder`).

    Raises:
        DataError: if there is no such `image_folder`.
    """

    def __init__(self, file_index: FileIndex, root: Path, image_folder: str | None = None) -> None:
        self.root = root
        self._file_index = file_index
        self._top = find_subfolder(file_index, root, image_folder) if image_folder else root
        self._split_by_folder: dict[str, str] = {}

    @cached_property
    def _by_name(self) -> dict[str, list[IndexedPhotograph]]:
        by_name: dict[str, list[IndexedPhotograph]] = defaultdict(list)
        for folder in self._file_index.walk(self._top):
            parts = tuple(_normalize(part) for part in folder.relative_to(self.root).parts)
            for name in self._file_index.photographs(folder):
                by_name[_normalize(strip_image_suffix(name))].append(IndexedPhotograph(folder, name, parts))
        return by_name

    @cached_property
    def _folder_names(self) -> set[str]:
        return {
            part for photographs in self._by_name.values() for photograph in photographs for part in photograph.parts
        }

    @cached_property
    def folder_counts(self) -> dict[str, int]:
        """The number of photographs directly in each folder that has any, by its path from the root; most first."""
        counts: dict[str, int] = defaultdict(int)
        for photographs in self._by_name.values():
            for photograph in photographs:
                counts[photograph.folder.relative_to(self.root).as_posix()] += 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def split_of(self, photograph: str | Path) -> str:
        """Return the split that a photograph's folder names, or the nearest folder above that names one; else ""."""
        folder = os.path.dirname(photograph)  # noqa: PTH120  # called 100,000 times
        if folder not in self._split_by_folder:
            path = Path(folder)
            parts = path.relative_to(self.root).parts if path.is_relative_to(self.root) else ()
            self._split_by_folder[folder] = _innermost_split(parts)
        return self._split_by_folder[folder]

    @cached_property
    def folder_splits(self) -> set[str]:
        """The splits of the folders with photographs; with "" if some folders are of no split."""
        return {_innermost_split(Path(folder).parts) for folder in self.folder_counts}

    @property
    def chosen_split(self) -> str:
        """The split that the user's `image_folder`, or a folder above it, names; else ""."""
        return _innermost_split(self._top.relative_to(self.root).parts)

    def example(self, folder: str) -> str:
        """Return the name of a photograph in one of the folders of `folder_counts`."""
        return self._file_index.photographs(self.root / folder)[0]

    def contains(self, name: str) -> bool:
        """Return whether a photograph of this file name exists in any folder, except in folders of masks."""
        photographs, listed_folders = self._lookup(name)
        return any(not self._is_mask(photograph, listed_folders, self.root) for photograph in photographs)

    def find(self, name: str, label_folder: Path, split: str = "") -> list[IndexedPhotograph]:
        r"""Return the photographs that a name in a label file may mean: none, one, or several indistinguishable ones.

        A photograph matches by its path, from the label file's folder or the root; else by its file name. Differences
        in capitals, in the suffix and in leading folders that do not exist are ignored unless they select one of
        several photographs. Images in a folder of masks are no photographs, unless the name or the user names this
        folder or the label file lies in it.

        Args:
            name: as written, with / or \\ between folders; it must not lead out of the root.
            label_folder: the label file's folder; photographs that are nearer to it are preferred.
            split: the row's split; photographs in a folder of this split are preferred.
        """
        *above, last = _path_parts(name)
        matches, listed_folders = self._lookup(name)
        if listed_folders:
            matches = self._filter_by_folders(matches, listed_folders)
        matches = [photograph for photograph in matches if not self._is_mask(photograph, listed_folders, label_folder)]
        if len(matches) < 2:
            return matches
        bases = [
            tuple(_normalize(part) for part in base.relative_to(self.root).parts)
            for base in _folders_up_to_root(label_folder, self.root)
        ]
        exact_parts = {base + listed_folders for base in (bases[0], ())}
        preferences: list[Callable[[IndexedPhotograph], bool]] = [
            lambda photograph: photograph.parts in exact_parts and _has_suffix_of(photograph.name, last),
            *(_is_below(base) for base in bases[:-1]),
            lambda photograph: _has_suffix_of(photograph.name, last),
            lambda photograph: photograph.parts[len(photograph.parts) - len(listed_folders) :] == listed_folders,
            lambda photograph: bool(split) and photograph.split == split,
            lambda photograph: not _is_derived(photograph),
            lambda photograph: photograph.folder.parts[-len(above) :] == tuple(above) if above else True,
            lambda photograph: (
                photograph.name == last if is_image(last) else strip_image_suffix(photograph.name) == last
            ),
        ]
        for is_preferred in preferences:
            matches = [photograph for photograph in matches if is_preferred(photograph)] or matches
        return matches

    def find_mask(self, name: str, label_folder: Path) -> IndexedPhotograph | None:
        """Return an image of this name in a folder of masks, which `find` leaves out; None if there is none."""
        images, listed_folders = self._lookup(name)
        return next((image for image in images if self._is_mask(image, listed_folders, label_folder)), None)

    def _lookup(self, name: str) -> tuple[list[IndexedPhotograph], tuple[str, ...]]:
        """Return the images of this file name in any folder, and the normalized names of the folders in front of it."""
        *above, last = _path_parts(name) or ("",)
        return self._by_name.get(_normalize(strip_image_suffix(last)), []), tuple(_normalize(part) for part in above)

    def _is_mask(self, image: IndexedPhotograph, listed_folders: tuple[str, ...], label_folder: Path) -> bool:
        """Return whether an image lies in a folder of masks that was not chosen.

        The folder is chosen if the listed name has it, or if the user's `image_folder` or the label file is in it.
        """
        position = _mask_position(image.parts)
        if position < 0 or image.parts[position] in listed_folders:
            return False
        is_inner = position < len(image.parts) - 1
        folder = image.folder.parents[len(image.parts) - position - 2] if is_inner else image.folder
        return not (self._top.is_relative_to(folder) or label_folder.is_relative_to(folder))

    def _filter_by_folders(
        self, photographs: list[IndexedPhotograph], listed_folders: tuple[str, ...]
    ) -> list[IndexedPhotograph]:
        """Return the photographs below all listed folders that exist, in this order, and not in another split's."""
        existing = [part for part in listed_folders if part in self._folder_names]
        matches = [photograph for photograph in photographs if _is_subsequence(existing, photograph.parts)]
        if not matches and existing and existing[0] == _normalize(self.root.name):  # the root's own name in front
            matches = [photograph for photograph in photographs if _is_subsequence(existing[1:], photograph.parts)]
        split = next((split for part in reversed(listed_folders) if (split := split_words.split_of_folder(part))), "")
        return [photograph for photograph in matches if not split or photograph.split in {"", split}]


def _normalize(name: str) -> str:
    """Return a name as names are compared: case-folded, with letters and their accents composed (NFC)."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def find_subfolder(file_index: FileIndex, root: Path, name: str) -> Path:
    """Return the folder at the relative path `name`, in any capitals, below `root`.

    Raises:
        DataError: if there is none; lists the folders that exist.
    """
    path = root
    for part in PureWindowsPath(name).parts:
        folders = file_index.folders(path)
        matches = [folder for folder in folders if folder.name == part] or [
            folder for folder in folders if _normalize(folder.name) == _normalize(part)
        ]
        if not matches:
            names = ", ".join(f"{folder.name}/" for folder in folders[:8]) or "none"
            raise DataError(f"{root}: data.image_folder is {name!r}; the folders in {path} are: {names}")
        path = matches[0]
    return path


def _innermost_split(parts: tuple[str, ...]) -> str:
    return next((split for part in reversed(parts) if (split := split_words.split_in_name(part))), "")


def _folders_up_to_root(folder: Path, root: Path) -> Iterator[Path]:
    yield from (parent for parent in (folder, *folder.parents) if parent.is_relative_to(root))


def _is_below(base: tuple[str, ...]) -> Callable[[IndexedPhotograph], bool]:
    return lambda photograph: photograph.parts[: len(base)] == base


def _is_subsequence(names: list[str], parts: tuple[str, ...]) -> bool:
    remaining = iter(parts)
    return all(name in remaining for name in names)


def _has_suffix_of(name: str, listed: str) -> bool:
    """Return whether a file has the suffix of the listed name; True if that has no image's suffix."""
    return not is_image(listed) or PurePosixPath(name).suffix.casefold() == PurePosixPath(listed).suffix.casefold()


def _path_parts(name: str) -> tuple[str, ...]:
    return (name,) if is_plain_name(name) else PureWindowsPath(name).parts


@lru_cache(maxsize=4096)
def _mask_position(parts: tuple[str, ...]) -> int:
    """Return the position of the innermost folder whose name says that all images in it are masks; -1 for none."""
    has_originals = False
    for position in range(len(parts) - 1, -1, -1):
        words = set(split_words.words_in(parts[position]))
        if words & (_MASKS if has_originals else _DERIVED):
            return position
        has_originals = has_originals or bool(words & _ORIGINALS)
    return -1


def _is_derived(image: IndexedPhotograph) -> bool:
    return any(word in _DERIVED for part in image.parts for word in split_words.words_in(part))
