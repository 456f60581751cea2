"""The array file of a cache while it is built: its space is taken, rows are written and checked, gaps are closed.

A row is trusted by its checksum and nothing else, so a build that was stopped at any moment can be gone on with: rows
torn by `kill -9`, and rows that a power cut has lost, are told from whole ones.
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
        """Bytes of one photograph."""
        return self.size * self.size * 3

    def write(self, file: BinaryIO, row: int, data: bytes) -> None:
        """Hand a row to the system; written, not mapped, so that a full disk is an error and not a SIGBUS."""
        file.seek(self.offset + row * self.row_bytes)
        file.write(data)
        file.flush()

    def read(self, file: BinaryIO, row: int) -> bytes:
        """A row as it is in the file; too short where that ends."""
        return os.pread(file.fileno(), self.row_bytes, self.offset + row * self.row_bytes)

    def holds(self, file: BinaryIO, row: int, checksum: int) -> bool:
        """Whether a row is what was once written there."""
        return zlib.crc32(self.read(file, row)) == checksum


def reserve(path: Path, rows: int, size: int) -> ArrayFile:
    """Write the array's header and take its space on the disk; rows that are in the file stay there.

    Raises:
        DiskError: the disk has too little room for what is not yet taken.
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


def intact(target: ArrayFile, checksums: dict[int, int], threads: int) -> set[int]:
    """The rows that are what their checksums say; about as fast as the disk reads them."""
    with Path(target.path).open("rb") as file, ThreadPoolExecutor(threads) as pool:
        right = pool.map(lambda row: target.holds(file, row, checksums[row]), checksums)
        return {row for row, good in zip(checksums, right, strict=True) if good}


def close_up(target: ArrayFile, kept: list[int]) -> None:
    """Move the kept rows, ascending, up over the others and cut the file."""
    with Path(target.path).open("r+b") as file:
        for new, old in enumerate(kept):
            if new != old:
                target.write(file, new, target.read(file, old))
        _write_header(file, len(kept), target.size)
        file.truncate(target.offset + len(kept) * target.row_bytes)


def open_up(target: ArrayFile, checksums: dict[int, int]) -> None:
    """Move rows back to where they were before `close_up`, whether that was over or had only begun.

    Wherever it is stopped, each row is whole in its old place or in its new one: it is moved to a place that no row
    before it needs any more. Going back from the last row to the first, that is so again.
    """
    with Path(target.path).open("r+b") as file:
        for new, row in reversed(list(enumerate(sorted(checksums)))):
            if new != row and not target.holds(file, row, checksums[row]) and target.holds(file, new, checksums[row]):
                target.write(file, row, target.read(file, new))


def _write_header(file: BinaryIO, rows: int, size: int) -> int:
    """Write numpy's header, which has room for any number of rows; returns where the values start."""
    file.seek(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
