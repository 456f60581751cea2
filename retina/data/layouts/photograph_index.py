"""All photographs below a folder, by name: what a label file's name means among them."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from retina.data.formats import is_image, own_name
from retina.data.layouts import split_words
from retina.data.layouts.file_index import FileIndex, is_plain
from retina.errors import DataError

_MASKS = {"mask", "masks", "heatmap", "heatmaps"}
_NO_PHOTOGRAPHS = {*_MASKS, "segmentation", "segmentations", "groundtruth", "groundtruths"}
"""Words of folders that hold pictures of the same names made from the photographs, as FGADR's "IRMA_Masks"."""
_ORIGINALS = {"image", "images", "original", "originals", "photo", "photos", "photographs"}
"""Words of folders of photographs inside those of a segmentation: "A. Segmentation/1. Original Images" of IDRiD."""


@dataclass(frozen=True, slots=True)
class IndexedPhotograph:
    """One photograph below the root.

    Attributes:
        folder: the folder that it lies in.
        name: its file name.
        parts: the names of the folders from the root to it, `_folded`.
    """

    folder: Path
    name: str
    parts: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where it is."""
        return f"{self.folder}/{self.name}"

    @property
    def split(self) -> str:
        """The split that its folder, or the nearest above it that names one, stands for; "" where none does."""
        return _split_of(self.folder.parts[len(self.folder.parts) - len(self.parts) :])


class PhotographIndex:
    """The photographs below `root`; with `only`, those in this folder below it."""

    def __init__(self, tree: FileIndex, root: Path, only: str | None = None) -> None:
        self.root = root
        self._tree = tree
        self._top = find_subfolder(tree, root, only) if only else root
        self._splits: dict[str, str] = {}

    @cached_property
    def _by_name(self) -> dict[str, list[IndexedPhotograph]]:
        found: dict[str, list[IndexedPhotograph]] = defaultdict(list)
        for folder in self._tree.walk(self._top):
            parts = tuple(_folded(part) for part in folder.relative_to(self.root).parts)
            for name in self._tree.photographs(folder):
                found[_folded(own_name(name))].append(IndexedPhotograph(folder, name, parts))
        return found

    @cached_property
    def _folder_names(self) -> set[str]:
        return {part for found in self._by_name.values() for one in found for part in one.parts}

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many photographs lie directly in each folder that has any, by its path from the root; most first."""
        counts: dict[str, int] = defaultdict(int)
        for found in self._by_name.values():
            for one in found:
                counts[one.folder.relative_to(self.root).as_posix()] += 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def split_of(self, photograph: str | Path) -> str:
        """The split that a photograph's folder, or the nearest above it that names one, stands for; else ""."""
        folder = os.path.dirname(photograph)  # noqa: PTH120  # 100,000 times
        if folder not in self._splits:
            place = Path(folder)
            parts = place.relative_to(self.root).parts if place.is_relative_to(self.root) else ()
            self._splits[folder] = _split_of(parts)
        return self._splits[folder]

    @cached_property
    def splits(self) -> set[str]:
        """The splits that folders with photographs stand for; "" among them where some stand for none."""
        return {_split_of(Path(folder).parts) for folder in self.counts}

    @property
    def chosen_split(self) -> str:
        """The split that the folder which the user has chosen stands for, or one above it; else ""."""
        return _split_of(self._top.relative_to(self.root).parts)

    def example(self, folder: str) -> str:
        """The name of a photograph in one of the folders of `counts`."""
        return self._tree.photographs(self.root / folder)[0]

    def has(self, name: str) -> bool:
        """Whether a photograph of this file name, in any folder, is there. Folders of masks do not count."""
        found, listed = self._named(name)
        return any(not self._is_mask(one, listed, self.root) for one in found)

    def find(self, name: str, scope: Path, split: str = "") -> list[IndexedPhotograph]:
        r"""The photographs that a name in a label file may mean: none, one, or several that nothing tells apart.

        By the path that it gives, from the label file's folder or the root; else by its file name. Capitals, the
        suffix, and folders in front that are not there do not count where they decide nothing. Pictures in a folder
        of masks are no photographs, unless the name or the user says this folder, or the label file lies in it.

        Args:
            name: as written, with / or \\ between folders; it must not lead out of the root.
            scope: the label file's folder; of several photographs, those nearest to it are meant.
            split: of the row; of several photographs, those in a folder of this split are meant.
        """
        *above, last = _parts(name)
        found, listed = self._named(name)
        if listed:
            found = self._below(found, listed)
        found = [one for one in found if not self._is_mask(one, listed, scope)]
        if len(found) < 2:
            return found
        bases = [tuple(_folded(p) for p in base.relative_to(self.root).parts) for base in _up(scope, self.root)]
        exact = {base + listed for base in (bases[0], ())}
        kept = found
        tests: list[Callable[[IndexedPhotograph], bool]] = [
            lambda one: one.parts in exact and _same_suffix(one.name, last),
            *(_starting(base) for base in bases[:-1]),
            lambda one: _same_suffix(one.name, last),
            lambda one: one.parts[len(one.parts) - len(listed) :] == listed,
            lambda one: bool(split) and one.split == split,
            lambda one: not _is_derived(one),
            lambda one: one.folder.parts[-len(above) :] == tuple(above) if above else True,
            lambda one: one.name == last if is_image(last) else own_name(one.name) == last,
        ]
        for fits in tests:
            kept = [one for one in kept if fits(one)] or kept
        return kept

    def mask(self, name: str, scope: Path) -> IndexedPhotograph | None:
        """A picture of a name in a folder of masks, which `find` leaves out; None where there is none."""
        found, listed = self._named(name)
        return next((one for one in found if self._is_mask(one, listed, scope)), None)

    def _named(self, name: str) -> tuple[list[IndexedPhotograph], tuple[str, ...]]:
        """What has the file name, in any folder, and the folders in front of it, `_folded`."""
        *above, last = _parts(name) or ("",)
        return self._by_name.get(_folded(own_name(last)), []), tuple(_folded(part) for part in above)

    def _is_mask(self, one: IndexedPhotograph, listed: tuple[str, ...], scope: Path) -> bool:
        """Whether a picture lies in a folder of masks that neither its listed name, the user nor its list is in."""
        at = _mask_at(one.parts)
        if at < 0 or one.parts[at] in listed:
            return False
        folder = one.folder.parents[len(one.parts) - at - 2] if at < len(one.parts) - 1 else one.folder
        return not (self._top.is_relative_to(folder) or scope.is_relative_to(folder))

    def _below(self, found: list[IndexedPhotograph], listed: tuple[str, ...]) -> list[IndexedPhotograph]:
        """Those whose folders have all listed folders that are there at all, in this order, and not another split's."""
        there = [part for part in listed if part in self._folder_names]
        fitting = [one for one in found if _in_order(there, one.parts)]
        if not fitting and there and there[0] == _folded(self.root.name):  # the root's own name in front
            fitting = [one for one in found if _in_order(there[1:], one.parts)]
        split = next((split for part in reversed(listed) if (split := split_words.split_of_folder(part))), "")
        return [one for one in fitting if not split or one.split in {"", split}]


def _folded(name: str) -> str:
    """A name as names are compared: capitals do not matter, nor whether a letter and its accent are one (NFC)."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def find_subfolder(tree: FileIndex, root: Path, name: str) -> Path:
    """The folder called `name`, a path in any capitals, below `root`.

    Raises:
        DataError: there is none.
    """
    place = root
    for part in PureWindowsPath(name).parts:
        inner = tree.folders(place)
        same = [one for one in inner if one.name == part] or [
            one for one in inner if _folded(one.name) == _folded(part)
        ]
        if not same:
            names = ", ".join(f"{one.name}/" for one in inner[:8]) or "none"
            raise DataError(f"{root}: data.image_folder is {name!r}; the folders in {place} are: {names}")
        place = same[0]
    return place


def _split_of(parts: tuple[str, ...]) -> str:
    return next((split for part in reversed(parts) if (split := split_words.split_in_name(part))), "")


def _up(scope: Path, root: Path) -> Iterator[Path]:
    """The label file's folder and those above it, up to the root."""
    yield from (one for one in (scope, *scope.parents) if one.is_relative_to(root))


def _starting(base: tuple[str, ...]) -> Callable[[IndexedPhotograph], bool]:
    return lambda one: one.parts[: len(base)] == base


def _in_order(wanted: list[str], parts: tuple[str, ...]) -> bool:
    rest = iter(parts)
    return all(part in rest for part in wanted)


def _same_suffix(name: str, listed: str) -> bool:
    return not is_image(listed) or PurePosixPath(name).suffix.casefold() == PurePosixPath(listed).suffix.casefold()


def _parts(name: str) -> tuple[str, ...]:
    return (name,) if is_plain(name) else PureWindowsPath(name).parts


@lru_cache(maxsize=4096)
def _mask_at(parts: tuple[str, ...]) -> int:
    """The position of the innermost folder that says that all in it are masks; -1 where none does."""
    has_originals = False
    for at in range(len(parts) - 1, -1, -1):
        found = set(split_words.words_in(parts[at]))
        if found & (_MASKS if has_originals else _NO_PHOTOGRAPHS):
            return at
        has_originals = has_originals or bool(found & _ORIGINALS)
    return -1


def _is_derived(one: IndexedPhotograph) -> bool:
    return any(word in _NO_PHOTOGRAPHS for part in one.parts for word in split_words.words_in(part))
