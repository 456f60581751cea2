"""The consoles of the command line. No control character of a printed text reaches the terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment

from retina.system.printable import EscapingFormatter, printable

if TYPE_CHECKING:
    from retina.results.status import SweepStatus


class PrintableConsole(Console):
    """A console of rich that escapes control characters in the text of tables, messages and views."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of `renderable`. Rich's own control codes are not text and stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, keep="\n"))


class Lines(logging.Handler):
    """Prints the log records of the package; while a live view is shown, not those that the view shows itself."""

    live = False

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.setFormatter(EscapingFormatter())
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if not (Lines.live and getattr(record, "passing", False)):
            self._console.print(self.format(record))


out = PrintableConsole(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = PrintableConsole(soft_wrap=True, highlight=False, stderr=True, markup=False, emoji=False)


def show(table: RenderableType) -> None:
    """Print a table in its full width: a line that a narrow terminal wraps is readable, a truncated word is not."""
    needed = Measurement.get(out, out.options.update(max_width=1000), table).maximum
    PrintableConsole(width=max(out.width, needed), highlight=False, markup=False, emoji=False).print(table)


@contextmanager
def live() -> Iterator[Callable[[SweepStatus], None] | None]:
    """Yield a function that shows the status of a running sweep in a terminal.

    None if the output is not a terminal: the log has the same information.
    """
    if not out.is_terminal:
        yield None
        return
    with ExitStack() as shown:
        opened: list[Live] = []

        def watch(status: SweepStatus) -> None:
            from retina.report.terminal.live_view import render  # noqa: PLC0415  # needed only while a view is shown

            if not opened:  # a progress bar may have been shown until now
                opened.append(shown.enter_context(Live(console=out, transient=True, auto_refresh=False)))
                Lines.live = True
            opened[0].update(render(status), refresh=True)

        try:
            yield watch
        finally:
            Lines.live = False


def log_to(console: Console, *, verbose: bool) -> None:
    """Print the log records of the package to `console`; with `verbose`, debug records too."""
    package = logging.getLogger("retina")
    package.setLevel(logging.DEBUG if verbose else logging.INFO)
    package.handlers = [Lines(console)]
    package.propagate = False
