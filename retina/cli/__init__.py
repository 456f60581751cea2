"""The command line. Exit codes: 0 done, 1 the work failed, 2 a mistake of the user."""

from __future__ import annotations

from collections.abc import Sequence

from retina.cli import commands, console, parser
from retina.errors import RetinaError, exit_code_of
from retina.system import process
from retina.system.printable import truncate_lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    with process.drop_unreadable_output(), process.handle_stop_signals():
        try:
            parser.refuse_lost_folder()
            options = parser.create(commands.COMMANDS).parse_args(arguments)
            console.log_to(console.out, verbose=getattr(options, "verbose", False))
            return int(options.command(options))
        except RetinaError as error:
            console.err.print(truncate_lines(str(error)))
            return error.exit_code
        except OSError as error:
            code = exit_code_of(error)
            if code is None:
                raise
            console.err.print(truncate_lines(f"{error.filename or 'a file of this package'}: {error.strerror}"))
            return code
        except KeyboardInterrupt:
            console.err.print("interrupted")
            return process.exit_code()
