"""What the command line prints through: whatever it is given, no control character of it reaches the terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment

from retina.system.printable import PrintableFormatter, printable

if TYPE_CHECKING:
    from retina.results.status import SweepStatus


class PrintableConsole(Console):
    """A console of rich whose text, of whatever table, message or view, is printable."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of `renderable`; rich's own control codes, which move the cursor, are no text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, keep="\n"))


class Lines(logging.Handler):
    """Prints what the package logs; while a live view is shown, not what that shows by itself."""

    live = False

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.setFormatter(PrintableFormatter())
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if not (Lines.live and getattr(record, "passing", False)):
            self._console.print(self.format(record))


out = PrintableConsole(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = PrintableConsole(soft_wrap=True, highlight=False, stderr=True, markup=False, emoji=False)


def show(table: RenderableType) -> None:
    """Print a table as wide as it is: a line that a narrow terminal breaks can still be read, a cut word cannot."""
    wanted = Measurement.get(out, out.options.update(max_width=1000), table).maximum
    PrintableConsole(width=max(out.width, wanted), highlight=False, markup=False, emoji=False).print(table)


@contextmanager
def live() -> Iterator[Callable[[SweepStatus], None] | None]:
    """The view of a running sweep, in a terminal; elsewhere None, and the lines of the log say the same."""
    if not out.is_terminal:
        yield None
        return
    with ExitStack() as shown:
        opened: list[Live] = []

        def watch(status: SweepStatus) -> None:
            from retina.report.terminal.live_view import render  # noqa: PLC0415  # only where a view is shown

            if not opened:  # only now: a bar may have been here before
                opened.append(shown.enter_context(Live(console=out, transient=True, auto_refresh=False)))
                Lines.live = True
            opened[0].update(render(status), refresh=True)

        try:
            yield watch
        finally:
            Lines.live = False


def log_to(console: Console, *, verbose: bool) -> None:
    """What the package logs goes to `console`, plain; with `verbose` also what it has to say of details."""
    ours = logging.getLogger("retina")
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    ours.handlers = [Lines(console)]
    ours.propagate = False
