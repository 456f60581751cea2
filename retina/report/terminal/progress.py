"""How far what takes long has come, how fast, and how long it will yet take: a bar in a terminal, else a few lines."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

SECONDS_A_LINE = 20.0
Clock = Callable[[], float]
ReportProgress = Callable[[str, int, int], None]
"""Called with what is being done, and how many of how many are; the first time with those that had been before."""


class Pace:
    """How many a second since the first was told of, and the time left at that."""

    def __init__(self, done: int, clock: Clock) -> None:
        self._before, self._clock, self._began = done, clock, clock()

    def __call__(self, done: int, total: int) -> str:
        """In words; empty as long as nothing can be said."""
        seconds = self._clock() - self._began
        if done <= self._before or seconds <= 0:
            return ""
        rate = (done - self._before) / seconds
        left = timedelta(seconds=math.ceil((total - done) / rate))
        return f"{rate:,.1f} a second" + (f", {left} left" if done < total else "")


@contextmanager
def show_progress(console: Console, clock: Clock = time.monotonic) -> Iterator[ReportProgress]:
    """Show what is said: a bar for each thing, one after another, gone when it is done; lines where no terminal is."""
    with (_bars if console.is_terminal else _lines)(console, clock) as say:
        yield say


@contextmanager
def _bars(console: Console, clock: Clock) -> Iterator[ReportProgress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    with ExitStack() as open_bars:
        tasks: dict[str, tuple[Progress, TaskID, Pace]] = {}

        def say(what: str, done: int, total: int) -> None:
            if what not in tasks:
                open_bars.close()  # the one before, if any
                bars = open_bars.enter_context(Progress(*columns, console=console, transient=True))
                tasks[what] = bars, bars.add_task(what, total=total, pace=""), Pace(done, clock)
            bars, task, pace = tasks[what]
            bars.update(task, completed=done, pace=pace(done, total))
            if done >= total:
                open_bars.close()

        yield say


@contextmanager
def _lines(console: Console, clock: Clock) -> Iterator[ReportProgress]:
    paces: dict[str, Pace] = {}
    last = 0.0

    def say(what: str, done: int, total: int) -> None:
        nonlocal last
        now = clock()
        if what not in paces:
            paces[what], last = Pace(done, clock), now
        if done >= total or now - last >= SECONDS_A_LINE:
            last = now
            told = paces[what](done, total)
            console.print(f"{what}: {done:,} of {total:,}" + (f", {told}" if told else ""))

    yield say
