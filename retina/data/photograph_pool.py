"""Call a function on every photograph of a manifest, in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import pandas as pd

from retina.data import process_pool as processes
from retina.data.fundus import Source
from retina.data.layouts import npz
from retina.system.hardware import cores

FEW = 64
"""Photographs for which it does not pay to start processes."""
_CHUNK = 16  # photographs that a process is given at a time

T = TypeVar("T")


def visit(
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
        DataError: an npz file cannot be read.
        WorkerError: a process died, which a full memory does.
    """
    workers = workers or (cores() if len(frame) > FEW else 1)
    found: dict[int, T] = {}
    progress(0, len(frame))
    for chunk in processes.call(
        partial(processes.each, function=look), _chunks(frame), workers, purpose="looks at photographs", place=_place
    ):
        found.update(chunk)
        progress(len(found), len(frame))
    return [found[row] for row in range(len(frame))]


def _place(chunk: list[tuple[int, Source]]) -> str:
    row, source = chunk[0]
    first = source if isinstance(source, str) else f"photograph {row}"
    return f"it was at {first} or one of the {len(chunk) - 1} after it"


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
        photographs = npz.load(str(path), str(array))
        yield from ((row, photographs[index]) for row, index in numbered)
