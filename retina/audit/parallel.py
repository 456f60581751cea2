"""One thing done to many photographs, in several processes.

joblib's processes import neither the caller's main script nor what that has imported (torch), and need no `__main__`
guard in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import joblib
import numpy as np
import pandas as pd
from joblib.externals.loky.process_executor import TerminatedWorkerError

from retina.data.fundus import Pixels
from retina.data.sources import arrays
from retina.errors import DataError
from retina.machine import cores

FEW = 64
"""Photographs for which it does not pay to start processes."""
_CHUNK = 16  # photographs that a process is given at a time

Source = str | Pixels
"""The path of a photograph, or its pixels: (height, width, 3) uint8 RGB."""
T = TypeVar("T")

_log = logging.getLogger(__name__)


def over(
    frame: pd.DataFrame,
    look: Callable[[Source], T],
    progress: Callable[[int, int], None] = lambda *_: None,
    workers: int | None = None,
) -> list[T]:
    """Call `look` on every photograph of a manifest's table.

    Args:
        frame: columns path, array and index, see `retina.data.manifest.COLUMNS`.
        look: a function of some module; told where the photograph is, or given its pixels if that is in an npz file.
        progress: is called with how many are done and how many there are, the first time before any is.
        workers: processes; by default one for each core that this process may use, and none for `FEW` or fewer.

    Returns:
        One a photograph, in the order of the table.

    Raises:
        DataError: an npz file cannot be read; a process died, which a full memory does.
    """
    workers = workers or (cores() if len(frame) > FEW else 1)
    found: dict[int, T] = {}
    progress(0, len(frame))
    for chunk in _in_processes(_chunks(frame), look, workers):
        found.update(chunk)
        progress(len(found), len(frame))
    return [found[row] for row in range(len(frame))]


def _in_processes(
    chunks: Iterator[list[tuple[int, Source]]], look: Callable[[Source], T], workers: int
) -> Iterator[list[tuple[int, T]]]:
    if workers == 1:
        yield from (_each(look, chunk) for chunk in chunks)
        return
    pool = joblib.Parallel(workers, return_as="generator_unordered", max_nbytes=None)
    try:
        yield from pool(joblib.delayed(_each)(look, chunk) for chunk in chunks)
    except TerminatedWorkerError:
        raise DataError("a process that looks at photographs died (short of memory?)") from None


def _each(look: Callable[[Source], T], chunk: list[tuple[int, Source]]) -> list[tuple[int, T]]:
    return [(row, look(source)) for row, source in chunk]


def _chunks(frame: pd.DataFrame) -> Iterator[list[tuple[int, Source]]]:
    jobs = _jobs(frame)
    while chunk := list(islice(jobs, _CHUNK)):
        yield chunk


def _jobs(frame: pd.DataFrame) -> Iterator[tuple[int, Source]]:
    rows = frame.assign(row=np.arange(len(frame)))
    for (path, array), some in rows.groupby(["path", "array"], sort=False):
        numbered: Iterable[tuple[int, int]] = zip(some["row"].tolist(), some["index"].tolist(), strict=True)
        if not array:
            yield from ((row, str(path)) for row, _ in numbered)
            continue
        photographs = arrays.load(str(path), str(array))
        yield from ((row, photographs[index]) for row, index in numbered)
