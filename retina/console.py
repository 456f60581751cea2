"""What the command line prints through: whatever it is given, no control character of it reaches the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from retina.printable import PrintableFormatter, printable


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
