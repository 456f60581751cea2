"""The array file of a cache that is being built: reserve its space, write and check rows, close gaps.

A row is valid if its checksum matches, so a build that was stopped at any moment can be resumed: rows torn by `kill -9`
and rows lost in a power cut do not match.
"""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from retina.errors import DiskError


@dataclass(frozen=True)
class ArrayFile:
    """The file of a (rows, size, size, 3) uint8 array whose values start at byte `offset`."""

    path: str
    offset: int
    size: int

    @property
    def row_bytes(self) -> int:
        """Size of one row in bytes."""
        return self.size * self.size * 3

    def write(self, file: BinaryIO, row: int, data: bytes) -> None:
        """Write a row; not through a memory map, so that a full disk is an error and not a SIGBUS."""
        file.seek(self.offset + row * self.row_bytes)
        file.write(data)
        file.flush()

    def read(self, file: BinaryIO, row: int) -> bytes:
        """Read a row; the result is shorter than a row if the file ends in it."""
        return os.pread(file.fileno(), self.row_bytes, self.offset + row * self.row_bytes)

    def matches(self, file: BinaryIO, row: int, checksum: int) -> bool:
        """Return whether a row has the given CRC-32 checksum."""
        return zlib.crc32(self.read(file, row)) == checksum


def reserve(path: Path, rows: int, size: int) -> ArrayFile:
    """Write the array's header and reserve its space on the disk; rows that are already in the file stay.

    Raises:
        DiskError: the disk has too little room for the space that is not yet reserved.
    """
    path.touch()
    length = rows * size**2 * 3
    needed, free = max(length - path.stat().st_blocks * 512, 0), shutil.disk_usage(path.parent).free
    too_little = DiskError(
        f"{path.parent.parent}: {rows} photographs of {size} pixels need {needed:,} bytes, {free:,} are free "
        "(set RETINA_CACHE to another disk, or data.image_size to less)"
    )
    if needed > free:
        raise too_little
    with path.open("r+b") as file:
        offset = _write_header(file, rows, size)
        file.truncate(offset + length)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, offset + length)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise too_little from None
    return ArrayFile(str(path), offset, size)


def find_intact_rows(array_file: ArrayFile, checksums: dict[int, int], threads: int) -> set[int]:
    """Return the rows that match their checksums; takes about as long as reading them from the disk."""
    with Path(array_file.path).open("rb") as file, ThreadPoolExecutor(threads) as pool:
        matches = pool.map(lambda row: array_file.matches(file, row, checksums[row]), checksums)
        return {row for row, is_intact in zip(checksums, matches, strict=True) if is_intact}


def compact_rows(array_file: ArrayFile, kept_rows: list[int]) -> None:
    """Move the kept rows, ascending, to the front and truncate the file."""
    with Path(array_file.path).open("r+b") as file:
        for new, old in enumerate(kept_rows):
            if new != old:
                array_file.write(file, new, array_file.read(file, old))
        _write_header(file, len(kept_rows), array_file.size)
        file.truncate(array_file.offset + len(kept_rows) * array_file.row_bytes)


def restore_rows(array_file: ArrayFile, checksums: dict[int, int]) -> None:
    """Move rows back to their positions before `compact_rows`, whether that was completed or interrupted.

    At any moment, each row is complete at its old or its new position: `compact_rows` overwrites only positions whose
    rows were moved before. The same holds for moving back, from the last row to the first.
    """
    with Path(array_file.path).open("r+b") as file:
        for new, old in reversed(list(enumerate(sorted(checksums)))):
            checksum = checksums[old]
            if new == old or array_file.matches(file, old, checksum):
                continue
            if array_file.matches(file, new, checksum):
                array_file.write(file, old, array_file.read(file, new))


def _write_header(file: BinaryIO, rows: int, size: int) -> int:
    """Write numpy's header, padded for any number of rows, and return the offset of the values."""
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
