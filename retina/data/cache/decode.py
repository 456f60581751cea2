"""Decode photographs into the rows of one open array file: here, or in processes that do nothing else.

These import numpy, Pillow and scipy, not the caller's script nor what that has imported (see
`retina.data.process_pool`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from retina.data import process_pool as processes
from retina.data.cache.array_file import ArrayFile
from retina.data.fundus import Pixels, read, to_square
from retina.data.pixel_hash import hash_for_joining
from retina.errors import DataError

Job = tuple[int, str]
"""Row of the array, path of the photograph."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one photograph.

    Attributes:
        row: of the array.
        disc: whether a disc was found.
        problem: what is wrong with it, if anything is.
        checksum: of its row, CRC-32.
        digest: `retina.data.pixel_hash.hash_for_joining` of the photograph as it was read.
    """

    row: int
    disc: bool = False
    problem: str = ""
    checksum: int = 0
    digest: str = ""


def decode(jobs: list[Job], target: ArrayFile) -> list[Outcome]:
    """Read photographs, crop them to their disc and write them into their rows."""
    with Path(target.path).open("r+b") as file:
        return [_decode_one(row, path, target, file) for row, path in jobs]


def _decode_one(row: int, path: str, target: ArrayFile, file: BinaryIO) -> Outcome:
    try:
        photograph = read(Path(path), at_least=2 * target.size)  # as `fundus.read_square`, which does not hand it out
    except DataError as error:
        return Outcome(row, problem=str(error))
    return put(photograph, row, target, file)


def put(photograph: Pixels, row: int, target: ArrayFile, file: BinaryIO) -> Outcome:
    """Crop a photograph to its disc and write it into its row."""
    square, disc = to_square(photograph, target.size)
    data = square.tobytes()
    target.write(file, row, data)
    return Outcome(row, disc, checksum=zlib.crc32(data), digest=hash_for_joining(photograph))


def decode_in_processes(
    chunks: Iterator[list[Job]], target: ArrayFile, workers: int, inherited: int
) -> Iterator[list[Outcome]]:
    """`decode` each chunk in one of so many processes; chunks are taken only when a process is free for them.

    Args:
        chunks: what is to be decoded.
        target: where to.
        workers: how many processes.
        inherited: an open file that each of them keeps open until it ends.

    Yields:
        The outcomes of a chunk as soon as it is done, in any order.

    Raises:
        WorkerError: a process died, which a full memory does; names the photographs that it was at.
    """
    return processes.call(
        partial(decode, target=target),
        chunks,
        workers,
        purpose="decodes photographs",
        place=lambda chunk: f"it was at {chunk[0][1]} or one of the {len(chunk) - 1} after it",
        keep_open=[inherited],
    )
