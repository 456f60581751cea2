"""The layout of MedMNIST: one npz file with the arrays train_images, train_labels, and so on."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO

import numpy as np
import psutil

from retina.config.splits import SPLITS
from retina.data.fundus import LONGEST, Pixels
from retina.data.layouts import split_words
from retina.data.layouts.file_index import Tree
from retina.data.layouts.label_files import Place
from retina.data.layouts.validation import Labels, Row
from retina.errors import DataError

_DEFLATE = 1032  # bytes that one byte can become; https://zlib.net/zlib_tech.html


def is_medmnist(tree: Tree, place: Place) -> bool:
    """Whether the user pointed at an npz file, or at a folder with exactly one."""
    return _npz(tree, place) is not None


def medmnist(tree: Tree, place: Place) -> list[Labels]:
    """The rows of the npz file's splits. Of the photographs only the headers are read.

    Raises:
        DataError: the file is damaged, lacks an array, or its arrays are not graded photographs.
    """
    file = _npz(tree, place) or place.root
    try:
        with zipfile.ZipFile(file) as archive:
            names = {Path(name).stem for name in archive.namelist()}
            if not {"train_images", "train_labels"} <= names:
                raise DataError(
                    f"{file}: layout medmnist needs the arrays train_images and train_labels; "
                    f"there are: {', '.join(sorted(names)) or 'none'}"
                )
            return [_half(file, archive, word, split) for word, split in _parts(file, names).items()]
    except DataError:
        raise
    except Exception as error:  # as in `load`
        raise DataError(f"{file}: cannot be read as an npz file: {error}") from None


def load(path: str, array: str) -> Pixels:
    """The photographs of one array of an npz file, uint8 (n, height, width, 3) RGB; grey ones are made so.

    Raises:
        DataError: it cannot be read, holds something else, claims more than it holds, or does not fit into memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            photographs: Pixels = _array(archive, Path(path), array)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy have each their own
        raise DataError(f"{path}: {array} cannot be read: {error}") from None
    if photographs.ndim == 3:
        photographs = np.repeat(photographs[..., None], 3, axis=-1)
    if photographs.dtype != np.uint8 or photographs.ndim != 4 or photographs.shape[-1] != 3:
        raise DataError(
            f"{path}: {array} is {photographs.dtype} {photographs.shape}; uint8 (n, height, width, 3) needed"
        )
    return photographs


def _npz(tree: Tree, place: Place) -> Path | None:
    if place.file:
        return place.file if place.file.suffix.lower() == ".npz" else None
    found = [file for file in tree.files(place.root) if file.suffix.lower() == ".npz"]
    return found[0] if len(found) == 1 else None


def _parts(file: Path, names: AbstractSet[str]) -> dict[str, str]:
    """The split of each pair of arrays by the word before _images and _labels, "valid" for "valid_images".

    Raises:
        DataError: an array has no companion, its word is no split's, or a split is there twice.
    """
    parts: dict[str, str] = {}
    ends = ("_images", "_labels")
    words = {name.removesuffix(end): name for end in ends for name in sorted(names) if name.endswith(end)}
    for word, name in words.items():
        split = split_words.of_word(word)
        if not split or split in parts.values():
            problem = f"is of the same split as {split}_images" if split else "is of no split"
            raise DataError(f"{file}: the array {name} {problem}; splits are {', '.join(SPLITS)}, each once")
        if lacking := {f"{word}_images", f"{word}_labels"} - names:
            raise DataError(f"{file}: the array {name} is there without {lacking.pop()}")
        parts[word] = split
    return dict(sorted(parts.items(), key=lambda part: SPLITS.index(part[1])))


def _half(file: Path, archive: zipfile.ZipFile, word: str, split: str) -> Labels:
    shape, kind = _header(archive, file, f"{word}_images")
    labels = _array(archive, file, f"{word}_labels")
    if len(shape) not in {3, 4} or shape[3:] not in {(), (3,)} or kind != np.uint8:
        raise DataError(
            f"{file}: {word}_images has shape {shape} and type {kind}; "
            "photographs are (n, height, width) or (n, height, width, 3) of type uint8"
        )
    if not all(0 < side <= LONGEST for side in shape[1:3]):
        raise DataError(
            f"{file}: {word}_images has shape {shape}; height and width of photographs are 1 to {LONGEST:,} pixels"
        )
    if labels.shape not in {(shape[0],), (shape[0], 1)}:
        raise DataError(
            f"{file}: {word}_images has {shape[0]:,} photographs and {word}_labels has shape {labels.shape}; "
            "there must be one grade a photograph"
        )
    rows = [
        Row(
            where=f"{file.name}:{word}_labels[{index}]",
            image=f"{word}/{index}",
            own=f"{word}/{index}",
            grade=str(grade),
            split=split,
            path=file,
            array=f"{word}_images",
            index=index,
        )
        for index, grade in enumerate(labels.reshape(-1).tolist())
    ]
    return Labels(f"{file.name}:{word}_labels", rows)


def _header(archive: zipfile.ZipFile, file: Path, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type of an array, of which nothing else is read.

    Raises:
        DataError: the header is none, or claims more than the file can hold.
    """
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        shape, kind = _described(stream, file, name)
        claimed, held = math.prod(shape) * kind.itemsize, member.file_size - stream.tell()
    packed = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE}.get(member.compress_type)
    if packed:
        held = min(held, packed * min(member.compress_size, file.stat().st_size))
    if claimed > held:
        raise DataError(
            f"{file}: {name} claims to be {kind} {shape}, which is {claimed:,} bytes; the file holds at most {held:,} "
            "for it, so it is damaged"
        )
    return shape, kind


def _described(stream: IO[bytes], file: Path, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    try:
        version = np.lib.format.read_magic(stream)
        old = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, _, kind = read(stream)
    except ValueError as error:
        raise DataError(f"{file}: the array {name} cannot be read: {error}") from None
    if any(length < 0 for length in shape):
        raise DataError(f"{file}: the array {name} cannot be read: its shape is {shape}")
    return shape, kind


def _array(archive: zipfile.ZipFile, file: Path, name: str) -> np.ndarray:
    shape, kind = _header(archive, file, name)
    needed, free = math.prod(shape) * kind.itemsize, psutil.virtual_memory().available
    if needed > free:
        raise DataError(f"{file}: {name} is {kind} {shape} and needs {needed:,} bytes of memory; {free:,} are free")
    with archive.open(f"{name}.npy") as stream:
        try:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
        except ValueError as error:
            raise DataError(f"{file}: the array {name} cannot be read: {error}") from None
