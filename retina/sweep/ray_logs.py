"""The cause of a failure in the log files of a Ray session."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from retina.system.printable import cut

TAIL_BYTES = 50_000
"""How much of the end of a log file is read."""
STARTED = re.compile(r"Started worker process with pid (\d+)")
"""What the raylet logs when it starts a worker: the process id."""
MARKERS = (":job_id:", ":actor_name:", ":task_name:")
"""Beginnings of lines that Ray's workers write to their log files for the log monitor."""
EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning)|Fatal Python error)\b")
FRAME = re.compile(r"\(\+0x[0-9a-f]+\)|^@|^\*\*\*")
"""A line of a C++ stack trace."""
RAYLET_LINE = re.compile(r"^\[[\d\-: ,.]+ ([CEFW]) \d+ \d+\] (?:\(\w+\) )?\S+: (.*)")
"""A line of Ray's C++ logs: time, level, process, thread, source file, message."""
PYTHON_ERROR = re.compile(r"\b(?:ERROR|CRITICAL)\b[^:]*:\d+ -- (?!Raylet is terminated)(.*)")
"""A line of Ray's Python logs: time, level, file:line -- message. The message that the raylet has ended is left out: it
names no cause."""


def started_workers(logs: Path) -> list[int]:
    """Return the process ids of the workers that the raylet has started, in order."""
    return [int(pid) for pid in STARTED.findall(_text(logs / "raylet.out", whole=True))]


def worker_failure(logs: Path, pids: Collection[int] = ()) -> str:
    """Return why workers do not start, in one line; empty where the logs do not say.

    Args:
        logs: folder of the session's log files.
        pids: process ids of workers, whose log files are read first, in this order; those of the raylet and of the
            agents follow.
    """
    for pid in pids:
        for pattern in (f"worker-*-{pid}.err", f"worker-*-{pid}.out"):
            for file in sorted(logs.glob(pattern)):
                if reason := last_error_line(_text(file)):
                    return reason
    if reason := last_error_line(_text(logs / "raylet.err")):
        return reason
    return next(
        filter(
            None, (_last_match(logs / f"{name}.log", PYTHON_ERROR) for name in ("runtime_env_agent", "dashboard_agent"))
        ),
        "",
    )


def start_failure(logs: Path) -> str:
    """Return which of Ray's own processes does not start and why, in one line; empty where the logs do not say."""
    for name in ("gcs_server", "raylet"):
        reason = last_error_line(_text(logs / f"{name}.err")) or _last_match(logs / f"{name}.out", RAYLET_LINE, "CEF")
        if reason:
            return f"{name}: {reason}"
    for name in ("dashboard", "dashboard_agent", "runtime_env_agent", "monitor", "log_monitor"):
        reason = last_error_line(_text(logs / f"{name}.err")) or _last_match(logs / f"{name}.log", PYTHON_ERROR)
        if reason:
            return f"{name}: {reason}"
    return ""


def last_error_line(text: str) -> str:
    """Return the most informative line of an error output; empty where there is none.

    That is the last line of Ray's C++ logs with a fatal or critical level, else the last line that names a Python
    exception, else the last line with letters in it that is not part of a C++ stack trace.
    """
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith(MARKERS)]
    fatal = [match.group(2) for match in map(RAYLET_LINE.match, lines) if match and match.group(1) in "CF"]
    exceptions = [line for line in lines if EXCEPTION.match(line)]
    others = [line for line in lines if any(letter.isalpha() for letter in line) and not FRAME.search(line)]
    candidates = fatal or exceptions or others
    return _short(candidates[-1].rpartition("Check failed: ")[2]) if candidates else ""


def _last_match(file: Path, pattern: re.Pattern[str], levels: str = "") -> str:
    """Return the message of the last line that matches; empty where none does.

    Args:
        file: a log file.
        pattern: its last group is the message, its first the level if `levels` are given.
        levels: letters of the levels to search for; empty for all.
    """
    matches = [match for match in map(pattern.search, _text(file).splitlines()) if match]
    matches = [match for match in matches if not levels or match.group(1) in levels]
    return _short(matches[-1].group(pattern.groups).rpartition("Check failed: ")[2]) if matches else ""


def _short(line: str, most: int = 300) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in line)
    return cut(plain, most)


def _text(file: Path, *, whole: bool = False) -> str:
    """Return the last `TAIL_BYTES` of a text file, or all of it; empty where it does not exist or cannot be read."""
    try:
        with file.open("rb") as opened:
            if not whole:
                opened.seek(max(0, file.stat().st_size - TAIL_BYTES))
            return opened.read().decode(errors="replace")
    except OSError:
        return ""
