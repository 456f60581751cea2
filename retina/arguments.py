"""What an argument of the command line may be, and how a wrong one is answered: in two lines, exit code 2."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path
from typing import Any, NoReturn

from retina.errors import SpecError
from retina.printable import printable, shortened


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in two lines."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", Path, path)

    def error(self, message: str) -> NoReturn:
        """Say it, and how to get help; exit code 2."""
        self.exit(2, f"{self.prog}: {shortened(printable(message))}\nsee {self.prog} --help\n")


def path(text: str) -> Path:
    """Return a path that may be there or not.

    Raises:
        argparse.ArgumentTypeError: it is empty, an unset variable of the shell say, which would be the current folder;
            or nothing can ever be there: a name is too long, holds NUL, or is a link that leads in circles.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a path; . is the current folder")
    try:
        Path(text).stat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a path without NUL") from None
    except OSError as error:
        if error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:  # what else is wrong says the command, which knows more
            raise argparse.ArgumentTypeError(f"{text!r}: {error.strerror}") from None
    return Path(text)


def count(text: str) -> int:
    """Return a number of things.

    Raises:
        argparse.ArgumentTypeError: it is not 1 or more.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: 1 and more")
    return int(text)


def refuse_lost_folder() -> None:
    """Stop where the current folder is none any more: every path that is not absolute starts from it.

    Raises:
        SpecError: it was removed, or cannot be reached.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise SpecError(
            f"the current folder was removed or cannot be reached ({error.strerror}); cd to one that is there"
        ) from None
