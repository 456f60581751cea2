"""From what a command did to its class: right, clear error, unclear error, wrong result, traceback, hang or crash."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

from benchmarks.robustness.case import CLEAR, CRASH, HANG, RIGHT, TRACEBACK, UNCLEAR, WRONG, Command, Ran

LINES = 3
"""Lines that an error may have, besides a list of items, which are indented by two spaces."""
ITEMS = 12
"""Lines of such a list: the first ten, how many more, and one to spare."""
LONG = 2000
"""Characters that a line of an error may have."""
LEFT_OVER = re.compile(
    r"(\.partial|\.part|\.tmp|\.new|\.earlier)(/|$)|(^|/)\.checkpoint_partial_|(^|/)tmp[a-z0-9_]{8}$"
)
"""Names of files that are not whole. `*.building` in the cache is none: the next build goes on from it."""
ALWAYS = re.compile(r"(^|/)(\.lock|[^/]*\.lock|study\.db-(journal|wal|shm))$")
"""What a command that only reads may leave."""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")
"""What can move a terminal's cursor, clear it, or turn the order of what it shows."""
RAW = re.compile(
    r"\b(\w*Error|\w*Exception|\w+Warning)\b:|object at 0x|<class '|NoneType|dtype\('|Error:? \(|unhashable"
    r"|not subscriptable|has no attribute|positional argument|codec can't decode|invalid literal for"
    r"|could not convert string|cannot convert float|Expecting (value|property)"
)
"""What Python or a library says to programmers."""
NOISE = re.compile(
    r"\w+Warning: |warnings\.warn|\[[WEF]:onnxruntime|TIFF[A-Z]\w+: |libpng (warning|error)|Corrupt JPEG|\[[WI] \d{4}-|"
    r"(?m:^WARNING[: ])|UserWarning|Logging error|(?m:^\[\d{4}-\d\d-\d\d .*\] )"
)
"""What libraries write to a terminal by themselves."""
MEMORY = re.compile(r"Unable to allocate|MemoryError|bad_alloc|can't allocate|File too large|Cannot allocate")
"""An input made the command ask for more than a machine has: it was not checked before."""
NOT_A_NUMBER = re.compile(r"(?<![\w./'\"-])(?<!loss is )-?(nan|inf)(?! is no number)(?![\w/.'\"-])", re.IGNORECASE)
"""As a value; what a message quotes from the input is none."""


def judge(command: Command, ran: Ran, names: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """The class of a command's answer, its cause (the same for all that fail alike), and details.

    Args:
        command: what was run.
        ran: what it did.
        names: further words one of which an error message must hold.
    """
    if died := _died(ran):
        return died
    wrong = _changes(command, ran) or command.check(ran) or _not_a_number(ran) if ran.done else _half_done(command, ran)
    if wrong:
        return WRONG, _cause(wrong), wrong
    unclear = "" if ran.done else next(_unclear(ran, (*command.names, *names)), "")
    if unclear := unclear or _noise(ran):
        return UNCLEAR, _cause(unclear), unclear if ran.done else f"{unclear} | {_shortened(ran.err)}"
    return (RIGHT, "", "") if ran.done else (CLEAR, "", _shortened(ran.err))


def _died(ran: Ran) -> tuple[str, str, str] | None:
    if ran.timed_out:
        return HANG, "no end", f"killed after {ran.seconds:.0f} s"
    if ran.signal:
        name = signal.Signals(ran.signal).name
        return CRASH, name, f"died of {name}"
    if ran.uncaught:
        return TRACEBACK, ran.uncaught, ran.detail
    for text in (ran.err, ran.out):
        if (at := text.find("Traceback (most recent call last)")) >= 0:
            lines = text[at:].strip().splitlines()
            return TRACEBACK, f"printed: {lines[-1][:80]}", lines[-1][:300]
    if not ran.done and ran.code not in {1, 2}:
        return CRASH, f"exit code {ran.code}", _shortened(ran.err)
    return None


def _changes(command: Command, ran: Ran) -> str:
    for name in ran.changed:
        if LEFT_OVER.search(name):
            return f"left over: {name}"
        if not ALWAYS.search(name) and not _may(command, name):
            return f"changed what is not its own: {name}"
    return ""


def _half_done(command: Command, ran: Ran) -> str:
    """A command that refuses its input may have filled the cache of decoded photographs, and that is all."""
    for name in ran.changed:
        if LEFT_OVER.search(name):
            return f"left over after an error: {name}"
        if not ALWAYS.search(name) and not name.startswith("cache") and not (ran.code == 1 and _may(command, name)):
            return f"changed after an error: {name}"
    return ""


def _may(command: Command, name: str) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in ("cache", *command.writes))


def _not_a_number(ran: Ran) -> str:
    found = NOT_A_NUMBER.search(ran.out)
    return f"NaN or infinity in the output: {_around(ran.out, found.start())}" if found else ""


def _unclear(ran: Ran, names: tuple[str, ...]) -> Iterator[str]:
    lines = [line for line in ran.err.splitlines() if line.strip()]
    if not lines:
        yield "an error without a word"
    said = [line for line in lines if not line.startswith("  ")]
    if len(said) > LINES or len(lines) - len(said) > ITEMS:
        yield f"too long: {len(lines)} lines"
    if found := MEMORY.search(ran.err):
        yield f"not checked before memory or disk is taken: {found[0]}"
    if found := RAW.search(ran.err):
        yield f"speaks to programmers: {found[0]}"
    if any(len(line) > LONG for line in lines):
        yield f"a line of more than {LONG} characters"
    if names and not any(name in ran.err for name in names):
        yield "names neither file nor argument"


def _noise(ran: Ran) -> str:
    for text, name in ((ran.err, "standard error"), (ran.out, "standard output")):
        if found := CONTROL.search(text):
            return f"control character U+{ord(found[0]):04X} on {name}"
        if found := NOISE.search(text):
            return f"a library's own words: {_around(text, found.start())}"
    return ""


def _around(text: str, at: int) -> str:
    return " ".join(text[max(0, at - 60) : at + 100].split())


def _shortened(text: str) -> str:
    lines = text.strip()
    return lines if len(lines) <= 600 else f"{lines[:600]}..."


def _cause(complaint: str) -> str:
    """Without what differs from input to input: a path, a number."""
    head = complaint.partition(": ")
    return head[0] if head[0].startswith(("left over", "NaN", "names", "a library")) else _blanked(complaint)


def _blanked(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", text))[:120]
