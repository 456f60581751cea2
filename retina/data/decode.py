"""Decode photographs into the rows of one open array file: here, or in processes that do nothing else.

The processes are not started by multiprocessing's pools, whose spawned children import the caller's main script again
(and with it torch or Ray: seconds, gigabytes), fail in scripts without a `__main__` guard, and outlive a killed parent.
These import numpy, Pillow and scipy, and end when their parent does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import BinaryIO

from retina.data.fundus import Pixels, read_square
from retina.data.rows import Target
from retina.errors import DataError

Job = tuple[int, str]
"""Row of the array, path of the photograph."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one photograph: whether a disc was found, what is wrong with it if anything is, its checksum."""

    row: int
    disc: bool = False
    problem: str = ""
    checksum: int = 0


def decode(jobs: list[Job], target: Target) -> list[Outcome]:
    """Read photographs, crop them to their disc and write them into their rows."""
    with Path(target.path).open("r+b") as file:
        return [_decode_one(row, path, target, file) for row, path in jobs]


def _decode_one(row: int, path: str, target: Target, file: BinaryIO) -> Outcome:
    try:
        square, found = read_square(Path(path), target.size)
    except DataError as error:
        return Outcome(row, problem=str(error))
    return put(square, found, row, target, file)


def put(square: Pixels, disc: bool, row: int, target: Target, file: BinaryIO) -> Outcome:
    """Write a photograph into its row."""
    data = square.tobytes()
    target.write(file, row, data)
    return Outcome(row, disc, checksum=zlib.crc32(data))


def decode_in_processes(
    chunks: Iterator[list[Job]], target: Target, workers: int, inherited: int
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
        DataError: a process died, which a full memory does; names the photographs that it was at.
    """
    with ExitStack() as stack:
        busy: dict[Connection, list[Job]] = {}
        for chunk in (chunk for _, chunk in zip(range(workers), chunks, strict=False)):
            worker = _start(stack, inherited)
            _send(worker, (target, chunk))
            busy[worker] = chunk
        while busy:
            ready = wait(list(busy))
            for worker in [worker for worker in busy if worker in ready]:
                outcomes = _receive(worker, busy.pop(worker))
                following = next(chunks, None)
                if following is not None:  # first: it decodes while our caller looks at the outcomes
                    _send(worker, (target, following))
                    busy[worker] = following
                yield outcomes


def _start(stack: ExitStack, inherited: int) -> Connection:
    ours, theirs = Pipe()
    stack.enter_context(ours)
    with theirs:
        code = f"from {__name__} import serve; serve({theirs.fileno()})"
        process = subprocess.Popen(  # noqa: S603 -- our own code, no shell
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno(), inherited],
            stdin=subprocess.DEVNULL,
            env=_environment(),
            process_group=0,  # Ctrl-C is for us to answer: while they start, it would meet their imports
        )
    stack.enter_context(process)
    stack.callback(process.kill)
    return ours


def _environment() -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[2])  # the package may be importable by the caller's script only
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(paths)}


def _send(worker: Connection, message: tuple[Target, list[Job]]) -> None:
    try:
        worker.send(message)
    except OSError:
        raise _died(message[1]) from None


def _receive(worker: Connection, chunk: list[Job]) -> list[Outcome]:
    try:
        outcomes: list[Outcome] = worker.recv()
    except (EOFError, OSError):
        raise _died(chunk) from None
    return outcomes


def _died(chunk: list[Job]) -> DataError:
    return DataError(
        f"a process that decodes photographs died (short of memory or disk?); "
        f"it was at {chunk[0][1]} or one of the {len(chunk) - 1} after it"
    )


def serve(descriptor: int) -> None:
    """What each process does: decode the chunks that come through a connection until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the parent is told as well, and ends us
    parent: Connection = Connection(descriptor)
    while True:
        try:
            target, chunk = parent.recv()
            parent.send(decode(chunk, target))
        except (EOFError, ConnectionError):
            return
