"""What a build has decoded so far, so that one that was stopped is gone on with where it stopped.

A file of JSON lines: what is built, then a line a chunk with row, disc, problem, checksum and hash of each photograph.
A line is written when its rows are in the file. Nothing is forced to the disk: what was written before a `kill -9` the
system still has, and where a power cut keeps a line and loses its rows, their checksums tell.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retina.data.cache.decode import Outcome

FORMAT = 2
log = logging.getLogger(__name__)


class Journal:
    """A journal that is open, and what it had noted before; a context.

    Its file is locked until every process that has it open is gone. The processes that decode inherit it: after a
    `kill -9` of their parent they are still at a photograph, and may write into the array until they have done it.

    Attributes:
        noted: the last word on each row; empty at first where the file is of another build, or of another format.
    """

    def __init__(self, path: Path, about: dict[str, Any], rows: int, source: str) -> None:
        """Open or begin it, once nobody writes into its folder any more.

        Args:
            path: the file.
            about: what is built; a journal that says something else is begun anew.
            rows: of the array; entries of others are passed over.
            source: where the photographs come from; for `source_of`.
        """
        self._file = path.open("a+b")
        self._lock()
        self._file.seek(0)
        first, *lines = self._file.read().split(b"\n")
        about = {"journal": FORMAT, **about}
        header = _json(first)
        if isinstance(header, dict) and about.items() <= header.items():
            self.noted = {outcome.row: outcome for outcome in _outcomes(lines, rows)}
            if lines and lines[-1]:  # torn; what follows gets a line of its own
                self._write(b"\n")
        else:
            self.noted = {}
            self._file.truncate(0)
            self._write(json.dumps({**about, "source": source}).encode() + b"\n")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for the processes of a build that was killed; they end after their photographs")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    @property
    def descriptor(self) -> int:
        """The open file, for the processes that decode to inherit."""
        return self._file.fileno()

    def add(self, outcomes: list[Outcome]) -> None:
        """Note photographs whose rows are in the array file."""
        entries = [[one.row, one.disc, one.problem, one.checksum, one.digest] for one in outcomes]
        self._write(json.dumps(entries, separators=(",", ":")).encode() + b"\n")
        self.noted.update((one.row, one) for one in outcomes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def source_of(path: Path) -> tuple[str, int] | None:
    """Where the photographs of a journal come from, and at what size they are wanted; None where that is not told."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
        return str(header["source"]), int(header["image_size"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _outcomes(lines: Iterable[bytes], rows: int) -> Iterator[Outcome]:
    for line in lines:
        entries = _json(line)
        for entry in entries if isinstance(entries, list) else []:
            match entry:
                case [int(row), bool(disc), str(problem), int(checksum), str(digest)] if 0 <= row < rows:
                    yield Outcome(row, disc, problem, checksum, digest)


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # torn, or what a power cut left of it
        return None
