"""What one input of the mutation test is, and what is known of a command that was given it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

Rng = np.random.Generator
T = TypeVar("T")

RIGHT, CLEAR, UNCLEAR, WRONG, TRACEBACK, HANG, CRASH = CLASSES = (
    "right result",
    "clear error",
    "unclear error",
    "wrong result",
    "traceback",
    "hang",
    "crash",
)
FAILURES = (WRONG, TRACEBACK, HANG, CRASH)
"""Classes that make the benchmark fail."""


@dataclass(frozen=True)
class Ran:
    """What a command did.

    Attributes:
        code: exit code; None where it was killed or stopped where Ray would have started.
        at_ray: whether it went on up to the point where Ray runs trials.
        signal: of its death, 0 if none.
        timed_out: whether it was killed after the wall-clock limit.
        out: standard output.
        err: standard error.
        uncaught: an exception that `main` let out: "TypeError at retina/results.py:123".
        detail: the message of that exception.
        changed: files that are new, gone or other than before, relative to the case's folder.
        seconds: wall-clock time.
    """

    code: int | None = None
    at_ray: bool = False
    signal: int = 0
    timed_out: bool = False
    out: str = ""
    err: str = ""
    uncaught: str = ""
    detail: str = ""
    changed: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        """Whether the command took its input for good."""
        return self.code == 0 or self.at_ray


Check = Callable[[Ran], str]
"""Says what is wrong with the result of a command, by the files and output that it left; empty if nothing is."""


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes:
        argv: as `retina.cli.main` takes them.
        writes: what it may create or change, as paths relative to the case's folder; what lies below counts too.
        check: the oracle for a command that took its input for good.
        names: one of these must stand in an error message, so that a user finds the cause.
        cwd: where it is run, relative to the case's folder.
    """

    argv: tuple[str, ...]
    writes: tuple[str, ...] = ()
    check: Check = lambda _: ""
    names: tuple[str, ...] = ()
    cwd: str = "."


@dataclass(frozen=True)
class Input:
    """A changed input, written to a folder, with the commands that read it."""

    what: str
    commands: Sequence[Command] = field(default_factory=tuple)


@dataclass(frozen=True)
class Verdict:
    """The class of one command's answer and the reason; `cause` is the same for all that fail alike."""

    kind: str
    number: int
    what: str
    argv: tuple[str, ...]
    outcome: str
    cause: str = ""
    detail: str = ""
    seconds: float = 0.0


def rng_of(seed: int, kind: str, number: int) -> Rng:
    """The random numbers of one input: the same whatever ran before it, or beside it."""
    return np.random.default_rng([seed, *kind.encode(), number])


def all_of(*checks: Check) -> Check:
    """The first complaint of several checks."""
    return lambda ran: next((complaint for check in checks if (complaint := check(ran))), "")


def must_be_refused(why: str) -> Check:
    """A check of an input that no command may take for good."""
    return lambda _: f"accepted: {why}"


def pick(rng: Rng, choices: Sequence[T]) -> T:
    """One of `choices`, each as likely."""
    return choices[int(rng.integers(len(choices)))]
