"""The journal of a cache build: what is decoded so far, so that an interrupted build can be resumed.

It is a file of JSON lines: a header that describes the build, then a line for each chunk with row, disc, problem,
checksum and hash of each photograph. A line is written after its rows. Nothing is synced to the disk: data written
before a `kill -9` is still in the system's cache, and if a power cut keeps a line but loses its rows, their checksums
do not match.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retina.data.cache.decode import DecodeResult

FORMAT = 2
log = logging.getLogger(__name__)


class Journal:
    """An open journal and the results in it; a context manager.

    Its file stays locked until every process that has it open ends. The worker processes inherit it: after a `kill -9`
    of their parent they finish the current photograph, and may write into the array until then.

    Attributes:
        results: the last result of each row; initially empty if the file is of another build or format.
    """

    def __init__(self, path: Path, description: dict[str, Any], rows: int, source: str) -> None:
        """Open or create a journal; wait until no other process writes into its folder.

        Args:
            path: the file.
            description: describes the build; a journal with another description is cleared.
            rows: number of rows of the array; entries of other rows are ignored.
            source: path of the photographs, for `read_source`.
        """
        self._file = path.open("a+b")
        self._lock()
        self._file.seek(0)
        first, *lines = self._file.read().split(b"\n")
        description = {"journal": FORMAT, **description}
        header = _parse_json(first)
        if isinstance(header, dict) and description.items() <= header.items():
            self.results = {result.row: result for result in _parse_results(lines, rows)}
            if lines and lines[-1]:  # a torn line; the next entry gets a line of its own
                self._write(b"\n")
        else:
            self.results = {}
            self._file.truncate(0)
            self._write(json.dumps({**description, "source": source}).encode() + b"\n")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for worker processes of a killed build; they end after their current photographs")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    @property
    def descriptor(self) -> int:
        """The descriptor of the open file, for the worker processes to inherit."""
        return self._file.fileno()

    def add(self, results: list[DecodeResult]) -> None:
        """Record the results of photographs whose rows are in the array file."""
        entries = [[result.row, result.disc, result.problem, result.checksum, result.digest] for result in results]
        self._write(json.dumps(entries, separators=(",", ":")).encode() + b"\n")
        self.results.update((result.row, result) for result in results)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def read_source(path: Path) -> tuple[str, int] | None:
    """Read the path of a journal's photographs and their image size; None if the header lacks them."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
        return str(header["source"]), int(header["image_size"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _parse_results(lines: Iterable[bytes], rows: int) -> Iterator[DecodeResult]:
    for line in lines:
        entries = _parse_json(line)
        for entry in entries if isinstance(entries, list) else []:
            match entry:
                case [int(row), bool(disc), str(problem), int(checksum), str(digest)] if 0 <= row < rows:
                    yield DecodeResult(row, disc, problem, checksum, digest)


def _parse_json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # torn by a kill or damaged by a power cut
        return None
