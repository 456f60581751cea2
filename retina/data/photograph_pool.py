"""Call a function on every photograph of a manifest, in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import pandas as pd

from retina.data import process_pool
from retina.data.fundus import Source
from retina.data.layouts import npz
from retina.system.hardware import cores

MAX_SERIAL_PHOTOGRAPHS = 64
"""Largest number of photographs for which no processes are started, because starting them would take longer."""
_CHUNK_SIZE = 16  # photographs that a process gets at a time

T = TypeVar("T")


def map_photographs(
    frame: pd.DataFrame,
    function: Callable[[Source], T],
    progress: Callable[[int, int], None] = lambda *_: None,
    workers: int | None = None,
) -> list[T]:
    """Call `function` on every photograph of a manifest's table.

    Args:
        frame: columns path, array and index, see `retina.data.manifest.COLUMNS`.
        function: an importable function. It gets the path of the photograph, or its pixels if it is in an npz file.
        progress: called as `progress(done, total)`, the first time before any photograph is done.
        workers: number of processes; by default one for each core that this process may use, and none for
            `MAX_SERIAL_PHOTOGRAPHS` or fewer.

    Returns:
        The results in the order of the table.

    Raises:
        DataError: an npz file cannot be read.
        WorkerError: a process died, which a full memory does.
    """
    workers = workers or (cores() if len(frame) > MAX_SERIAL_PHOTOGRAPHS else 1)
    results: dict[int, T] = {}
    progress(0, len(frame))
    for chunk in process_pool.map_unordered(
        partial(process_pool.map_numbered, function=function),
        _chunks(frame),
        workers,
        purpose="inspects photographs",
        describe=_describe,
    ):
        results.update(chunk)
        progress(len(results), len(frame))
    return [results[row] for row in range(len(frame))]


def _describe(chunk: list[tuple[int, Source]]) -> str:
    row, source = chunk[0]
    first = source if isinstance(source, str) else f"photograph {row}"
    return f"it was at {first} or one of the {len(chunk) - 1} after it"


def _chunks(frame: pd.DataFrame) -> Iterator[list[tuple[int, Source]]]:
    jobs = _jobs(frame)
    while chunk := list(islice(jobs, _CHUNK_SIZE)):
        yield chunk


def _jobs(frame: pd.DataFrame) -> Iterator[tuple[int, Source]]:
    rows = frame.assign(row=np.arange(len(frame)))
    for (path, array), group in rows.groupby(["path", "array"], sort=False):
        numbered: Iterable[tuple[int, int]] = zip(group["row"].tolist(), group["index"].tolist(), strict=True)
        if not array:
            yield from ((row, str(path)) for row, _ in numbered)
            continue
        photographs = npz.load(str(path), str(array))
        yield from ((row, photographs[index]) for row, index in numbered)
