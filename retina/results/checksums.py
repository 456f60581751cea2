"""SHA-256 checksums of a folder's files, stored in `SHA256SUMS` beside them, and verified before the files are used.

The file has the format of coreutils: `sha256sum --check SHA256SUMS` reads it, `sha256sum *.* > SHA256SUMS` writes it.
It is written atomically after the files that it lists: a process that is killed in between leaves files that do not
match it, which verification notices, and never a partial list. Folders of 0.1.0 have none. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from retina.errors import ResultsError, wrap_os_error
from retina.results.files import write_text

SUMS = "SHA256SUMS"
CONFIG_MARK = {"checksums": SUMS}
"""Entry of best/config.json that distinguishes a list that was lost from one that version 0.1.0 never wrote."""
BEST_REMEDY = "go on with --resume (retina train: --load 1), which evaluates the best trial again and writes best/ anew"
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?([^/\0]+)")
log = logging.getLogger(__name__)


def digest(file: Path) -> str:
    """Return a file's SHA-256 as 64 lower-case hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of these files of a folder, and of no others.

    Raises:
        OSError: a file cannot be read, or the checksums cannot be written.
    """
    write_sums(folder, {name: digest(folder / name) for name in names})


def update(folder: Path, names: Iterable[str]) -> None:
    """Update a folder's checksums: set those of files that were just written, remove those of files that are gone.

    The other entries stay. A folder without checksums gets none, because nothing is known about its earlier files.

    Raises:
        ResultsError: the list of checksums is damaged.
        OSError: a file cannot be read, or the checksums cannot be written.
    """
    sums = read_sums(folder)
    if sums is None:
        return
    for name in names:
        if (folder / name).is_file():
            sums[name] = digest(folder / name)
        else:
            sums.pop(name, None)
    write_sums(folder, sums)


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write checksums, by file name, as a folder's list.

    Raises:
        OSError: the list cannot be written.
    """
    write_text(folder / SUMS, "".join(f"{value}  {name}\n" for name, value in sorted(sums.items())))


def read_sums(folder: Path) -> dict[str, str] | None:
    """Read the checksums that a folder lists, by file name; None where it has no `SHA256SUMS`.

    Raises:
        ResultsError: the list cannot be read, or a line does not have sha256sum's format; names the line. A `DiskError`
            where the disk is at fault.
    """
    file = folder / SUMS
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ResultsError(f"{file}: is not a text file, so it is not what sha256sum writes") from None
    except OSError as error:
        raise wrap_os_error(file, "cannot be read", error) from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ResultsError(
                f"{file}: line {number}: {line[:80]!r} is not what sha256sum writes (64 digits, two spaces, a name)"
            )
        value, name = match[1].lower(), match[2]
        if sums.setdefault(name, value) != value:
            raise ResultsError(f"{file}: line {number}: a second, different checksum of {name}")
    sums.pop(SUMS, None)  # the shell creates the file before sha256sum reads it
    return sums


def file_problem(folder: Path, name: str, sums: dict[str, str]) -> str:
    """Return why a file is not the one that `sums` lists, starting with its path; empty where it is.

    Raises:
        ResultsError: the file cannot be read; a `DiskError` where the disk is at fault.
    """
    file = folder / name
    if name not in sums:
        return f"{file}: is not listed in {SUMS}: it was not written with the other files, or the list is truncated"
    try:
        actual = digest(file)
    except FileNotFoundError:
        return f"{file}: is missing; {SUMS} lists it"
    except OSError as error:
        raise wrap_os_error(file, "cannot be read", error) from None
    if actual != sums[name]:
        return f"{file}: was changed or damaged: its SHA-256 is {actual[:12]}..., {SUMS} has {sums[name][:12]}..."
    return ""


def verify(folder: Path, names: Iterable[str], remedy: str, *, needed: bool = False) -> bool:
    """Compare files with their checksums before they are used.

    Args:
        folder: the folder of the files and of `SHA256SUMS`.
        names: the files that are about to be read.
        remedy: what the user can do, for the message.
        needed: raise if the folder has no `SHA256SUMS`, because it is known to have been written with it.

    Returns:
        Whether the files were compared: False where the folder has no `SHA256SUMS` and none is needed.

    Raises:
        ResultsError: a file or the list is damaged, missing, or a file is not listed; names the file and the remedy. A
            `DiskError` where the disk is at fault.
    """
    error_class = ResultsError
    problem = ""
    try:
        sums = read_sums(folder)
        if sums is None and needed:
            raise ResultsError(f"{folder / SUMS}: is missing, so {folder} cannot be verified")
        if sums is not None:
            problem = next(filter(None, (file_problem(folder, name, sums) for name in names)), "")
    except ResultsError as error:
        problem, error_class = str(error), type(error)
    if problem:
        raise error_class(f"{problem};\n{remedy}")
    return sums is not None


def verify_best(best: Path, *names: str) -> bool:
    """Verify files of the best trial's folder, `best/`; raises as `verify` does."""
    try:
        config = json.loads((best / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # reported by the function that reads the file
        config = None
    needed = isinstance(config, dict) and "checksums" in config
    return verify(best, names, BEST_REMEDY, needed=needed)


@cache
def log_unverified(folder: Path) -> None:
    """Log, once per process, that a folder cannot be verified."""
    log.info("note: %s has no %s (retina 0.1.0 wrote none): its files cannot be verified", folder, SUMS)
