"""Progress of a long step with its speed and the time left: a bar in a terminal, else a line now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from retina.system.progress import Progress as ProgressFunction

SECONDS_BETWEEN_LINES = 20.0
Clock = Callable[[], float]


class Pace:
    """The speed of a step since its first report, and the time left at that speed."""

    def __init__(self, done: int, clock: Clock) -> None:
        self._done_before, self._clock, self._started = done, clock, clock()

    def __call__(self, done: int, total: int) -> str:
        """Return speed and time left as text; empty until an item is done."""
        seconds = self._clock() - self._started
        if done <= self._done_before or seconds <= 0:
            return ""
        rate = (done - self._done_before) / seconds
        left = timedelta(seconds=math.ceil((total - done) / rate))
        return f"{rate:,.1f} a second" + (f", {left} left" if done < total else "")


@contextmanager
def show_progress(console: Console, clock: Clock = time.monotonic) -> Iterator[ProgressFunction]:
    """Show reported progress: a bar for each step, removed when the step is done; lines if there is no terminal."""
    with (_bars if console.is_terminal else _lines)(console, clock) as report_progress:
        yield report_progress


@contextmanager
def _bars(console: Console, clock: Clock) -> Iterator[ProgressFunction]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    with ExitStack() as open_bars:
        tasks: dict[str, tuple[Progress, TaskID, Pace]] = {}

        def report_progress(step: str, done: int, total: int) -> None:
            if step not in tasks:
                open_bars.close()  # the previous step's
                bars = open_bars.enter_context(Progress(*columns, console=console, transient=True))
                tasks[step] = bars, bars.add_task(step, total=total, pace=""), Pace(done, clock)
            bars, task, pace = tasks[step]
            bars.update(task, completed=done, pace=pace(done, total))
            if done >= total:
                open_bars.close()

        yield report_progress


@contextmanager
def _lines(console: Console, clock: Clock) -> Iterator[ProgressFunction]:
    paces: dict[str, Pace] = {}
    last = 0.0

    def report_progress(step: str, done: int, total: int) -> None:
        nonlocal last
        now = clock()
        if step not in paces:
            paces[step], last = Pace(done, clock), now
        if done >= total or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            pace = paces[step](done, total)
            console.print(f"{step}: {done:,} of {total:,}" + (f", {pace}" if pace else ""))

    yield report_progress
