"""Reads the log files of a Ray session for the cause of a failure."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from retina.system.printable import cut

TAIL_BYTES = 50_000
STARTED = re.compile(r"Started worker process with pid (\d+)")
MARKERS = (":job_id:", ":actor_name:", ":task_name:")
"""What Ray's workers write to their own log files for its log monitor."""
EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning)|Fatal Python error)\b")
FRAME = re.compile(r"\(\+0x[0-9a-f]+\)|^@|^\*\*\*")
"""A line of a C++ stack trace."""
RAYLET_LINE = re.compile(r"^\[[\d\-: ,.]+ ([CEFW]) \d+ \d+\] (?:\(\w+\) )?\S+: (.*)")
"""A line of Ray's C++ logs: time, level, process, thread, source file, message."""
PYTHON_ERROR = re.compile(r"\b(?:ERROR|CRITICAL)\b[^:]*:\d+ -- (?!Raylet is terminated)(.*)")
"""A line of Ray's Python logs: time, level, file:line -- message; not the one that says no more than that the raylet
has ended."""


def started_workers(logs: Path) -> list[int]:
    """List the process ids of the workers that the raylet has started, in their order."""
    return [int(found) for found in STARTED.findall(_text(logs / "raylet.out", whole=True))]


def worker_failure(logs: Path, pids: Collection[int] = ()) -> str:
    """Find why workers do not start, in one line: by the log files of the processes `pids`, else by the raylet's.

    Empty where the logs say nothing.
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
    """Find why Ray's own processes do not start, in one line; empty where the logs say nothing."""
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
    """Return the line of an error output that says most: the last exception's, else the last one with letters in it."""
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith(MARKERS)]
    fatal = [found.group(2) for found in map(RAYLET_LINE.match, lines) if found and found.group(1) in "CF"]
    exceptions = [line for line in lines if EXCEPTION.match(line)]
    spoken = [line for line in lines if any(letter.isalpha() for letter in line) and not FRAME.search(line)]
    found = fatal or exceptions or spoken
    return _short(found[-1].rpartition("Check failed: ")[2]) if found else ""


def _last_match(file: Path, pattern: re.Pattern[str], levels: str = "") -> str:
    """Return the message, which is the pattern's last group, of the last line that matches."""
    found = [match for match in map(pattern.search, _text(file).splitlines()) if match]
    found = [match for match in found if not levels or match.group(1) in levels]
    return _short(found[-1].group(pattern.groups).rpartition("Check failed: ")[2]) if found else ""


def _short(line: str, most: int = 300) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in line)
    return cut(plain, most)


def _text(file: Path, *, whole: bool = False) -> str:
    """Return the end of a text file; empty where it is absent or cannot be read."""
    try:
        with file.open("rb") as opened:
            if not whole:
                opened.seek(max(0, file.stat().st_size - TAIL_BYTES))
            return opened.read().decode(errors="replace")
    except OSError:
        return ""
