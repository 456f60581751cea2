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
from retina.data.fundus import MAX_SIDE, Pixels
from retina.data.layouts import split_words
from retina.data.layouts.file_index import DataPath, FileIndex
from retina.data.layouts.validation import LabelList, LabelRow
from retina.errors import DataError

_MAX_DEFLATE_RATIO = 1032  # bytes that one deflated byte can expand to; https://zlib.net/zlib_tech.html


def is_medmnist(file_index: FileIndex, data_path: DataPath) -> bool:
    """Return whether the user gave an npz file, or a folder with exactly one."""
    return _npz_file(file_index, data_path) is not None


def read_medmnist(file_index: FileIndex, data_path: DataPath) -> list[LabelList]:
    """Return the rows of the npz file's splits. Of the arrays of photographs only the headers are read.

    Raises:
        DataError: if the file is damaged, lacks an array, or its arrays are not graded photographs.
    """
    file = _npz_file(file_index, data_path) or data_path.root
    try:
        with zipfile.ZipFile(file) as archive:
            names = {Path(name).stem for name in archive.namelist()}
            if not {"train_images", "train_labels"} <= names:
                raise DataError(
                    f"{file}: layout medmnist needs the arrays train_images and train_labels; "
                    f"there are: {', '.join(sorted(names)) or 'none'}"
                )
            return [_read_split(file, archive, word, split) for word, split in _split_by_word(file, names).items()]
    except DataError:
        raise
    except Exception as error:  # as in `load`
        raise DataError(f"{file}: cannot be read as an npz file: {error}") from None


def load(path: str, array: str) -> Pixels:
    """Return the photographs of one array of an npz file, uint8 (n, height, width, 3) RGB; grey ones are converted.

    Raises:
        DataError: if the array cannot be read, is no array of photographs, claims more bytes than the file holds, or
            does not fit into memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            photographs: Pixels = _read_array(archive, Path(path), array)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy each raise types of their own
        raise DataError(f"{path}: {array} cannot be read: {error}") from None
    if photographs.ndim == 3:
        photographs = np.repeat(photographs[..., None], 3, axis=-1)
    if photographs.dtype != np.uint8 or photographs.ndim != 4 or photographs.shape[-1] != 3:
        raise DataError(
            f"{path}: {array} is {photographs.dtype} {photographs.shape}; uint8 (n, height, width, 3) needed"
        )
    return photographs


def _npz_file(file_index: FileIndex, data_path: DataPath) -> Path | None:
    if data_path.file:
        return data_path.file if data_path.file.suffix.lower() == ".npz" else None
    npz_files = [file for file in file_index.files(data_path.root) if file.suffix.lower() == ".npz"]
    return npz_files[0] if len(npz_files) == 1 else None


def _split_by_word(file: Path, names: AbstractSet[str]) -> dict[str, str]:
    """Return the split of each pair of arrays, by the word before _images and _labels: "valid" for "valid_images".

    Raises:
        DataError: if an array has no companion, its word names no split, or two pairs are the same split.
    """
    splits: dict[str, str] = {}
    endings = ("_images", "_labels")
    words = {name.removesuffix(end): name for end in endings for name in sorted(names) if name.endswith(end)}
    for word, name in words.items():
        split = split_words.parse_split(word)
        if not split or split in splits.values():
            problem = f"is of the same split as {split}_images" if split else "is of no split"
            raise DataError(f"{file}: the array {name} {problem}; splits are {', '.join(SPLITS)}, each once")
        if missing := {f"{word}_images", f"{word}_labels"} - names:
            raise DataError(f"{file}: the array {name} is there without {missing.pop()}")
        splits[word] = split
    return dict(sorted(splits.items(), key=lambda item: SPLITS.index(item[1])))


def _read_split(file: Path, archive: zipfile.ZipFile, word: str, split: str) -> LabelList:
    shape, dtype = _read_header(archive, file, f"{word}_images")
    labels = _read_array(archive, file, f"{word}_labels")
    if len(shape) not in {3, 4} or shape[3:] not in {(), (3,)} or dtype != np.uint8:
        raise DataError(
            f"{file}: {word}_images has shape {shape} and type {dtype}; "
            "photographs are (n, height, width) or (n, height, width, 3) of type uint8"
        )
    if not all(0 < side <= MAX_SIDE for side in shape[1:3]):
        raise DataError(
            f"{file}: {word}_images has shape {shape}; height and width of photographs are 1 to {MAX_SIDE:,} pixels"
        )
    if labels.shape not in {(shape[0],), (shape[0], 1)}:
        raise DataError(
            f"{file}: {word}_images has {shape[0]:,} photographs and {word}_labels has shape {labels.shape}; "
            "there must be one grade for each photograph"
        )
    rows = [
        LabelRow(
            where=f"{file.name}:{word}_labels[{index}]",
            image=f"{word}/{index}",
            key=f"{word}/{index}",
            grade=str(grade),
            split=split,
            path=file,
            array=f"{word}_images",
            index=index,
        )
        for index, grade in enumerate(labels.reshape(-1).tolist())
    ]
    return LabelList(f"{file.name}:{word}_labels", rows)


def _read_header(archive: zipfile.ZipFile, file: Path, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Return the shape and dtype of an array without reading its data.

    Raises:
        DataError: if the header is invalid, or claims more bytes than the file can hold.
    """
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        shape, dtype = _parse_header(stream, file, name)
        claimed, available = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    max_ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _MAX_DEFLATE_RATIO}.get(member.compress_type)
    if max_ratio:
        available = min(available, max_ratio * min(member.compress_size, file.stat().st_size))
    if claimed > available:
        raise DataError(
            f"{file}: {name} claims to be {dtype} {shape}, which is {claimed:,} bytes; the file holds at most "
            f"{available:,} for it, so it is damaged"
        )
    return shape, dtype


def _parse_header(stream: IO[bytes], file: Path, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    try:
        is_version_1 = np.lib.format.read_magic(stream) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if is_version_1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except ValueError as error:
        raise DataError(f"{file}: the array {name} cannot be read: {error}") from None
    if any(length < 0 for length in shape):
        raise DataError(f"{file}: the array {name} cannot be read: its shape is {shape}")
    return shape, dtype


def _read_array(archive: zipfile.ZipFile, file: Path, name: str) -> np.ndarray:
    shape, dtype = _read_header(archive, file, name)
    needed, free = math.prod(shape) * dtype.itemsize, psutil.virtual_memory().available
    if needed > free:
        raise DataError(f"{file}: {name} is {dtype} {shape} and needs {needed:,} bytes of memory; {free:,} are free")
    with archive.open(f"{name}.npy") as stream:
        try:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
        except ValueError as error:
            raise DataError(f"{file}: the array {name} cannot be read: {error}") from None
