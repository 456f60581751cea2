"""The class of a command: right, clear error, unclear error, wrong result, traceback, hang or crash."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

from benchmarks.robustness.case import CLEAR, CRASH, HANG, RIGHT, TRACEBACK, UNCLEAR, WRONG, Command, CommandResult

LINES = 3
"""Maximum number of lines of an error, not counting a list of items, which are indented by two spaces."""
ITEMS = 12
"""Maximum number of lines of such a list: the first ten, the number of the rest, and a spare one."""
LINE_LENGTH = 2000
"""Maximum number of characters of a line of an error."""
INCOMPLETE = re.compile(
    r"(\.partial|\.part|\.tmp|\.new|\.earlier)(/|$)|(^|/)\.checkpoint_partial_|(^|/)tmp[a-z0-9_]{8}$"
)
"""Names of incomplete files. `*.building` in the cache is not one: the next build continues from it."""
ALWAYS_ALLOWED = re.compile(r"(^|/)(\.lock|[^/]*\.lock|study\.db-(journal|wal|shm))$")
"""Files that a command that only reads may leave."""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that can move a terminal's cursor, clear it, or reverse the order of its text."""
RAW = re.compile(
    r"\b(\w*Error|\w*Exception|\w+Warning)\b:|object at 0x|<class '|NoneType|dtype\('|Error:? \(|unhashable"
    r"|not subscriptable|has no attribute|positional argument|codec can't decode|invalid literal for"
    r"|could not convert string|cannot convert float|Expecting (value|property)"
)
"""Messages of Python or a library that address programmers."""
NOISE = re.compile(
    r"\w+Warning: |warnings\.warn|\[[WEF]:onnxruntime|TIFF[A-Z]\w+: |libpng (warning|error)|Corrupt JPEG|\[[WI] \d{4}-|"
    r"(?m:^WARNING[: ])|UserWarning|Logging error|(?m:^\[\d{4}-\d\d-\d\d .*\] )"
)
"""Messages that libraries write to a terminal by themselves."""
MEMORY = re.compile(r"Unable to allocate|MemoryError|bad_alloc|can't allocate|File too large|Cannot allocate")
"""Messages of a command that exhausted memory or disk because it did not check its input."""
NOT_A_NUMBER = re.compile(r"(?<![\w./'\"-])(?<!loss is )-?(nan|inf)(?! is no number)(?![\w/.'\"-])", re.IGNORECASE)
"""NaN or infinity as a value, but not where a message quotes the input."""


def classify(command: Command, result: CommandResult, names: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """Classify the result of a command; return the class, the cause (the same for equal failures) and details.

    Args:
        command: the command.
        result: its result.
        names: more names; an error message must contain one of these or of the command's names.
    """
    if failure := _failure(result):
        return failure
    if result.done:
        complaint = _unexpected_change(command, result) or command.check(result) or _not_a_number(result)
    else:
        complaint = _change_after_error(command, result)
    if complaint:
        return WRONG, _cause_of(complaint), complaint
    unclear = "" if result.done else next(_unclear(result, (*command.names, *names)), "")
    if unclear := unclear or _noise(result):
        return UNCLEAR, _cause_of(unclear), unclear if result.done else f"{unclear} | {_shortened(result.err)}"
    return (RIGHT, "", "") if result.done else (CLEAR, "", _shortened(result.err))


def _failure(result: CommandResult) -> tuple[str, str, str] | None:
    if result.timed_out:
        return HANG, "no end", f"killed after {result.seconds:.0f} s"
    if result.signal:
        name = signal.Signals(result.signal).name
        return CRASH, name, f"killed by {name}"
    if result.uncaught:
        return TRACEBACK, result.uncaught, result.detail
    for text in (result.err, result.out):
        if (at := text.find("Traceback (most recent call last)")) >= 0:
            lines = text[at:].strip().splitlines()
            return TRACEBACK, f"printed: {lines[-1][:80]}", lines[-1][:300]
    if not result.done and result.code not in {1, 2}:
        return CRASH, f"exit code {result.code}", _shortened(result.err)
    return None


def _unexpected_change(command: Command, result: CommandResult) -> str:
    for name in result.changed:
        if INCOMPLETE.search(name):
            return f"left over: {name}"
        if not ALWAYS_ALLOWED.search(name) and not _may_change(command, name):
            return f"changed a file that is not its own: {name}"
    return ""


def _change_after_error(command: Command, result: CommandResult) -> str:
    """Return which file a command that refused its input changed, other than the cache of decoded photographs."""
    for name in result.changed:
        if INCOMPLETE.search(name):
            return f"left over after an error: {name}"
        if (
            not ALWAYS_ALLOWED.search(name)
            and not name.startswith("cache")
            and not (result.code == 1 and _may_change(command, name))
        ):
            return f"changed after an error: {name}"
    return ""


def _may_change(command: Command, name: str) -> bool:
    return any(name == path or name.startswith(f"{path}/") for path in ("cache", *command.writes))


def _not_a_number(result: CommandResult) -> str:
    match = NOT_A_NUMBER.search(result.out)
    return f"NaN or infinity in the output: {_around(result.out, match.start())}" if match else ""


def _unclear(result: CommandResult, names: tuple[str, ...]) -> Iterator[str]:
    lines = [line for line in result.err.splitlines() if line.strip()]
    if not lines:
        yield "an error without a message"
    message = [line for line in lines if not line.startswith("  ")]
    if len(message) > LINES or len(lines) - len(message) > ITEMS:
        yield f"too long: {len(lines)} lines"
    if match := MEMORY.search(result.err):
        yield f"not checked before memory or disk is used: {match[0]}"
    if match := RAW.search(result.err):
        yield f"an internal message: {match[0]}"
    if any(len(line) > LINE_LENGTH for line in lines):
        yield f"a line of more than {LINE_LENGTH} characters"
    if names and not any(name in result.err for name in names):
        yield "names neither file nor argument"


def _noise(result: CommandResult) -> str:
    for text, name in ((result.err, "standard error"), (result.out, "standard output")):
        if match := CONTROL.search(text):
            return f"control character U+{ord(match[0]):04X} on {name}"
        if match := NOISE.search(text):
            return f"a library's message: {_around(text, match.start())}"
    return ""


def _around(text: str, at: int) -> str:
    return " ".join(text[max(0, at - 60) : at + 100].split())


def _shortened(text: str) -> str:
    lines = text.strip()
    return lines if len(lines) <= 600 else f"{lines[:600]}..."


def _cause_of(complaint: str) -> str:
    """Remove the parts of a complaint that differ between inputs: paths and numbers."""
    head = complaint.partition(": ")
    return head[0] if head[0].startswith(("left over", "NaN", "names", "a library")) else _blanked(complaint)


def _blanked(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", text))[:120]
