"""The inputs of the mutation test, the results of commands, and the verdicts on them."""

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
class CommandResult:
    """The result of a command.

    Attributes:
        code: exit code; None if it was killed, or stopped where Ray would have started.
        at_ray: whether it reached the point where Ray runs trials.
        signal: number of the signal that killed it, 0 if none.
        timed_out: whether it was killed after the wall-clock limit.
        out: standard output.
        err: standard error.
        uncaught: an exception that left `main`: "TypeError at retina/results.py:123".
        detail: the message of that exception.
        changed: files that were created, removed or changed, relative to the input's folder.
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
        """Whether the command accepted its input."""
        return self.code == 0 or self.at_ray


Check = Callable[[CommandResult], str]
"""Returns what is wrong with a command's output and files; empty if nothing is."""


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes:
        argv: arguments of `retina.cli.main`.
        writes: paths that it may create or change, relative to the input's folder, with everything below them.
        check: the oracle for a command that accepts its input.
        names: an error message must contain one of these, so that a user finds the cause.
        cwd: working directory, relative to the input's folder.
    """

    argv: tuple[str, ...]
    writes: tuple[str, ...] = ()
    check: Check = lambda _: ""
    names: tuple[str, ...] = ()
    cwd: str = "."


@dataclass(frozen=True)
class Input:
    """A changed input in a folder: the description of its change, and the commands that read it."""

    what: str
    commands: Sequence[Command] = field(default_factory=tuple)


@dataclass(frozen=True)
class Verdict:
    """The class of a command's result and the reason; equal failures have the same `cause`."""

    kind: str
    number: int
    what: str
    argv: tuple[str, ...]
    outcome: str
    cause: str = ""
    detail: str = ""
    seconds: float = 0.0


def rng_of(seed: int, kind: str, number: int) -> Rng:
    """Return the random generator of an input, which depends on nothing that runs before or in parallel."""
    return np.random.default_rng([seed, *kind.encode(), number])


def all_of(*checks: Check) -> Check:
    """Combine checks into one that returns the first complaint."""
    return lambda result: next(filter(None, (check(result) for check in checks)), "")


def must_be_refused(why: str) -> Check:
    """Return a check for an input that every command must refuse."""
    return lambda _: f"accepted: {why}"


def pick(rng: Rng, choices: Sequence[T]) -> T:
    """Draw one of `choices` with equal probability."""
    return choices[int(rng.integers(len(choices)))]
