"""Decode photographs into the rows of an array file, in this process or in worker processes.

The workers import numpy, Pillow and scipy, but neither the caller's script nor its imports (see
`retina.data.process_pool`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from retina.data import process_pool
from retina.data.cache.array_file import ArrayFile
from retina.data.fundus import Pixels, read, to_square
from retina.data.pixel_hash import hash_unless_blank
from retina.errors import DataError

Job = tuple[int, str]
"""Row of the array, path of the photograph."""


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """The result of decoding one photograph.

    Attributes:
        row: row of the array.
        disc: whether a disc was found.
        problem: why the photograph cannot be used; "" for a good one.
        checksum: CRC-32 of its row.
        digest: `retina.data.pixel_hash.hash_unless_blank` of the photograph as it was read.
    """

    row: int
    disc: bool = False
    problem: str = ""
    checksum: int = 0
    digest: str = ""


def decode(jobs: list[Job], array_file: ArrayFile) -> list[DecodeResult]:
    """Read photographs, crop them to their disc and write them into their rows."""
    with Path(array_file.path).open("r+b") as file:
        return [_decode_one(row, path, array_file, file) for row, path in jobs]


def _decode_one(row: int, path: str, array_file: ArrayFile, file: BinaryIO) -> DecodeResult:
    try:
        # as `fundus.read_square`, which does not return the whole photograph
        photograph = read(Path(path), min_side=2 * array_file.size)
    except DataError as error:
        return DecodeResult(row, problem=str(error))
    return write_photograph(photograph, row, array_file, file)


def write_photograph(photograph: Pixels, row: int, array_file: ArrayFile, file: BinaryIO) -> DecodeResult:
    """Crop a photograph to its disc and write it into its row."""
    square, disc = to_square(photograph, array_file.size)
    data = square.tobytes()
    array_file.write(file, row, data)
    return DecodeResult(row, disc, checksum=zlib.crc32(data), digest=hash_unless_blank(photograph))


def decode_in_processes(
    chunks: Iterator[list[Job]], array_file: ArrayFile, workers: int, inherited: int
) -> Iterator[list[DecodeResult]]:
    """Run `decode` on chunks in several processes; a chunk is taken only when a process is free.

    Args:
        chunks: the photographs to decode.
        array_file: the file to write into.
        workers: number of processes.
        inherited: file descriptor that each process keeps open until it ends.

    Yields:
        The results of a chunk as soon as it is done, in any order.

    Raises:
        WorkerError: a process died, for example for lack of memory; names the photographs that it was decoding.
    """
    return process_pool.map_unordered(
        partial(decode, array_file=array_file),
        chunks,
        workers,
        purpose="decodes photographs",
        describe=lambda chunk: f"it was at {chunk[0][1]} or one of the {len(chunk) - 1} after it",
        keep_open=[inherited],
    )
