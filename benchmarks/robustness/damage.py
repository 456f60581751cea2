"""Random damage to any file: its bytes, JSON values, cells of a table, or something else at its path."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.robustness.case import Rng, pick

Bytes = Callable[[bytes, Rng], tuple[bytes, str]]

CELLS = (
    "x", "", "NaN", "inf", "-1", "1e400", "1e-300", "0", "99999999999999999999", "2.5", "None", "true", "[]",
    "../../../evil", "/etc/passwd", "..\\..\\evil", "=1+1", "@SUM(A1)", "\x1b[2Jx", "a\nb", "a,b", '"', "\x00", "é",
    "\u202egnp", " " * 50, "z" * 5000, "t0000", "COMPLETE", "RUNNING", "FAILED",
)  # fmt: skip
"""Replacements for a cell of a table."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 5, 1e-300, 1e-38, 1e300, -0.5, 1.5, 10**30, "", "x", "NaN", "1", [], {}, [1], {"a": 1},
    float("nan"), float("inf"), "../../../evil", "\x1b[2J", "z" * 5000, [[[[]]]],
)  # fmt: skip
"""Replacements for a value of a JSON file."""
TEXTS = (
    b"<!DOCTYPE html><html><body>404</body></html>\n", b"version https://git-lfs.github.com/spec/v1\n", bytes(1000),
    b"\xff\xfe\x00", b"{}", b"[]", b"null", b"\n",
)  # fmt: skip
"""Replacements for a whole file, for example the remains of a failed download."""


def flipped(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Change a few bytes at random positions."""
    changed = bytearray(data)
    positions = sorted({int(share * len(data)) for share in rng.random(int(rng.integers(1, 12)))}) if data else []
    for position in positions:
        changed[position] ^= int(rng.integers(1, 256))
    return bytes(changed), f"{len(positions)} bytes flipped, the first at {positions[0] if positions else 0:,}"


def overwritten(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Replace a range of bytes by random ones."""
    start, length = int(rng.random() * len(data)), max(1, int(len(data) * 0.05 * rng.random()))
    noise = rng.integers(0, 256, min(length, len(data) - start), dtype="uint8").tobytes()
    return data[:start] + noise + data[start + len(noise) :], f"{len(noise):,} bytes overwritten at {start:,}"


def zeroed(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Set a range of bytes to zero, like a lost disk page."""
    start, length = int(rng.random() * len(data)), max(1, int(len(data) * 0.3 * rng.random()))
    length = min(length, len(data) - start)
    return data[:start] + bytes(length) + data[start + length :], f"{length:,} zero bytes at {start:,}"


def truncated(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Cut off the end."""
    length = int(len(data) * rng.random() * 0.99)
    return data[:length], f"cut to {length:,} of {len(data):,} bytes"


def emptied(_: bytes, __: Rng) -> tuple[bytes, str]:
    """Remove all bytes."""
    return b"", "empty"


def appended(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Append random bytes."""
    extra = rng.integers(0, 256, int(rng.integers(1, 500)), dtype="uint8").tobytes()
    return data + extra, f"{len(extra)} bytes appended"


def replaced_by_text(_: bytes, rng: Rng) -> tuple[bytes, str]:
    """Replace the content by other content."""
    text = TEXTS[int(rng.integers(len(TEXTS)))]
    return text, f"replaced by {text[:20]!r}"


BYTES: tuple[Bytes, ...] = (flipped, overwritten, zeroed, truncated, emptied, appended, replaced_by_text)


def rewrite(file: Path, data: bytes) -> None:
    """Replace a file without writing into it, since it may be a hard link to a shared file."""
    file.unlink(missing_ok=True)
    file.write_bytes(data)


def damage_bytes(file: Path, rng: Rng, number: int) -> str:
    """Change the bytes of a file; `number` selects the kind of change."""
    change = BYTES[number % len(BYTES)]
    data, what = change(file.read_bytes(), rng)
    rewrite(file, data)
    return f"{file.name}: {what}"


def removed(file: Path, _: Rng) -> str:
    """Delete the file."""
    file.unlink()
    return f"{file.name}: removed"


def folder_instead(file: Path, _: Rng) -> str:
    """Replace the file by a folder."""
    file.unlink()
    file.mkdir()
    return f"{file.name}: is a folder"


def link_to_nothing(file: Path, _: Rng) -> str:
    """Replace the file by a link whose target is missing."""
    file.unlink()
    file.symlink_to("gone")
    return f"{file.name}: links to nothing"


def link_to_itself(file: Path, _: Rng) -> str:
    """Replace the file by a link to itself."""
    file.unlink()
    file.symlink_to(file.name)
    return f"{file.name}: links to itself"


def pipe_instead(file: Path, _: Rng) -> str:
    """Replace the file by a named pipe without a writer."""
    file.unlink()
    os.mkfifo(file)
    return f"{file.name}: is a named pipe"


def unreadable(file: Path, _: Rng) -> str:
    """Remove the read permission; root can still read the file."""
    data = file.read_bytes()
    rewrite(file, data)
    file.chmod(0)
    return f"{file.name}: may not be read"


REPLACED = (removed, folder_instead, link_to_nothing, link_to_itself, pipe_instead, unreadable)


def swapped(file: Path, other: Path) -> str:
    """Replace the file by the one of the same name in another folder."""
    file.unlink()
    shutil.copyfile(other, file)
    return f"{file.name}: from {other.parent.name}"


def change_json(file: Path, rng: Rng, number: int) -> str:
    """Change or remove one value of a JSON file, or damage its text; `number` selects the kind of change."""
    values = json.loads(file.read_text(encoding="utf-8"))
    kind = number % 6
    if kind == 5:
        return _json_text(file, rng)
    paths = list(leaves(values))
    path = paths[int(rng.integers(len(paths)))]
    holder = values
    for part in path[:-1]:
        holder = holder[part]
    was = holder[path[-1]]
    if kind == 0:
        del holder[path[-1]]
        what = "removed"
    else:
        holder[path[-1]] = _changed_value(was, kind, rng)
        what = f"{_short(was)} is now {_short(holder[path[-1]])}"
    rewrite(file, json.dumps(values, indent=2).encode())
    return f"{file.name}: {'.'.join(map(str, path))}: {what}"


def _changed_value(was: Any, kind: int, rng: Rng) -> Any:
    if kind == 1 and isinstance(was, int | float) and not isinstance(was, bool):
        return was * float(pick(rng, (-1, 0.5, 1.05, 1.5, 10, 1e6)))
    if kind == 2 and isinstance(was, list) and len(was) > 1:
        return list(reversed(was))
    return pick(rng, VALUES)


def _json_text(file: Path, rng: Rng) -> str:
    text = file.read_text(encoding="utf-8")
    variants = (
        (("\ufeff" + text).encode(), "with a byte order mark"),
        (text.encode("utf-16"), "UTF-16"),
        (b"[" * 100_000, "nested 100,000 deep"),
        (json.dumps([json.loads(text)]).encode(), "within a list"),
        (text.replace(": ", ": 1", 1).encode(), "no JSON any more"),
        (text.replace("{", '{"x": 1, "x": 2, ', 1).encode(), "with a key twice"),
        (text.encode()[: len(text) // 2], "half of it"),
        (json.dumps(text).encode(), "as a string"),
    )
    data, what = variants[int(rng.integers(len(variants)))]
    rewrite(file, data)
    return f"{file.name}: {what}"


def leaves(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in dictionaries and lists, including nested dictionaries and lists themselves."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from leaves(inner, (*path, key))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def change_table(file: Path, rng: Rng, number: int) -> str:
    """Change a cell, a row, a column or the text of a CSV file; `number` selects the kind of change."""
    text = file.read_text(encoding="utf-8")
    header, *rows = list(csv.reader(io.StringIO(text)))
    kind = number % 10
    row, column = int(rng.integers(max(1, len(rows)))), int(rng.integers(len(header)))
    if kind < 4 and rows:
        was, rows[row][column] = rows[row][column], pick(rng, CELLS)
        what = f"row {row + 1}, {header[column]}: {_short(was)} is now {_short(rows[row][column])}"
    elif kind == 4 and rows:
        what = f"row {row + 1} is gone"
        del rows[row]
    elif kind == 5 and rows:
        what = f"row {row + 1} twice"
        rows.insert(int(rng.integers(len(rows) + 1)), rows[row])
    elif kind == 6:
        what = f"without the column {header[column]}"
        header, rows = _without(header, column), [_without(cells, column) for cells in rows]
    elif kind == 7:
        what = f"the column {header[column]} has another name"
        header[column] = pick(rng, ("x", "", header[0], header[column].upper(), header[column] + " "))
    elif kind == 8:
        what = "without its header"
        header, rows = (rows[0], rows[1:]) if rows else ([], [])
    else:
        return _table_text(file, text, rng)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    rewrite(file, out.getvalue().encode())
    return f"{file.name}: {what}"


def _table_text(file: Path, text: str, rng: Rng) -> str:
    at = int(rng.integers(len(text)))
    variants = (
        (text.encode("utf-16"), "UTF-16"),
        (text.replace(",", ";").encode(), "semicolons"),
        ((text[:at] + '"' + text[at:]).encode(), f"a quote at {at}"),
        ((text[:at] + "\x00" + text[at:]).encode(), f"a NUL at {at}"),
        (text.encode()[:at], f"cut to {at} of {len(text)} bytes"),
        (text.replace("\n", "\r").encode(), "carriage returns"),
        (text.encode() + b"\xff\xfe\xfd\n", "bytes that are no text"),
        (text.encode() + b"x," * 1000 + b"\n", "a row of 1,000 cells"),
        (text.splitlines()[0].encode() + b"\n", "its header alone"),
    )
    data, what = variants[int(rng.integers(len(variants)))]
    rewrite(file, data)
    return f"{file.name}: {what}"


def _without(cells: list[str], column: int) -> list[str]:
    return cells[:column] + cells[column + 1 :]
