"""SHA-256 of a folder's files, in `SHA256SUMS` beside them, and their verification before they are used.

The file is that of coreutils: `sha256sum --check SHA256SUMS` reads it, `sha256sum *.* > SHA256SUMS` writes it. It is
written after the files that it lists, whole or not at all, so that whoever is killed in between leaves files that do
not fit, which is noticed, and never a list that fits by half. Folders of 0.1.0 have none. Knows no torch.
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
"""Stands in best/config.json, so that a list that was lost is told from one that 0.1.0 never wrote."""
BEST_REMEDY = "go on with --resume (retina train: --load 1), which evaluates the best trial again and writes best/ anew"
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?([^/\0]+)")
log = logging.getLogger(__name__)


def digest(file: Path) -> str:
    """A file's SHA-256, 64 lower-case hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write(folder: Path, names: Iterable[str]) -> None:
    """Write the sums of these files of a folder, and of no others.

    Raises:
        OSError: one of them cannot be read, or the sums cannot be written.
    """
    write_sums(folder, {name: digest(folder / name) for name in names})


def update(folder: Path, names: Iterable[str]) -> None:
    """Enter files that were just written into a folder's sums, and take out those that are gone; other lines stay.

    A folder without sums gets none: the files that it held before could not be vouched for.

    Raises:
        ResultsError: the sums are damaged.
        OSError: a file cannot be read, or the sums cannot be written.
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
    """Write these sums, by file name, as a folder's list.

    Raises:
        OSError: it cannot be written.
    """
    write_text(folder / SUMS, "".join(f"{value}  {name}\n" for name, value in sorted(sums.items())))


def read_sums(folder: Path) -> dict[str, str] | None:
    """The sums that a folder lists, by file name; None where it has no `SHA256SUMS`.

    Raises:
        ResultsError: the list cannot be read, or a line is none of sha256sum's; names it. A `DiskError` where the disk
            is at fault.
    """
    file = folder / SUMS
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ResultsError(f"{file}: is no text, so it is not what sha256sum writes") from None
    except OSError as error:
        raise wrap_os_error(file, "cannot be read", error) from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ResultsError(
                f"{file}: line {number}: {line[:80]!r} is not what sha256sum writes (64 digits, two spaces, a name)"
            )
        value, name = found[1].lower(), found[2]
        if sums.setdefault(name, value) != value:
            raise ResultsError(f"{file}: line {number}: a second, different sum of {name}")
    sums.pop(SUMS, None)  # the shell has made the file before sha256sum reads it
    return sums


def file_problem(folder: Path, name: str, sums: dict[str, str]) -> str:
    """Why a file is not the one that `sums` lists, beginning with its path; empty where it is.

    Raises:
        ResultsError: it cannot be read; a `DiskError` where the disk is at fault.
    """
    file = folder / name
    if name not in sums:
        return f"{file}: is not listed in {SUMS}, so it was not written with the others or the list is cut short"
    try:
        found = digest(file)
    except FileNotFoundError:
        return f"{file}: is missing; {SUMS} lists it"
    except OSError as error:
        raise wrap_os_error(file, "cannot be read", error) from None
    if found != sums[name]:
        return f"{file}: was changed or damaged: its SHA-256 is {found[:12]}..., {SUMS} has {sums[name][:12]}..."
    return ""


def verify(folder: Path, names: Iterable[str], remedy: str, *, needed: bool = False) -> bool:
    """Compare files with their sums before they are used.

    Args:
        folder: that holds them and `SHA256SUMS`.
        names: of the files that are about to be read.
        remedy: what a person can do, for the message.
        needed: refuse a folder that has no `SHA256SUMS`, as one that is known to have been written with it.

    Returns:
        Whether they were compared: False where the folder has no `SHA256SUMS` and none is needed.

    Raises:
        ResultsError: a file is damaged, missing or not listed, or the list is; names the file and the remedy. A
            `DiskError` where the disk is at fault.
    """
    kind = ResultsError
    try:
        sums = read_sums(folder)
        if sums is None and needed:
            raise ResultsError(f"{folder / SUMS}: is missing, so {folder} cannot be verified")
        found = next(filter(None, (file_problem(folder, name, sums) for name in names)), "") if sums is not None else ""
    except ResultsError as error:
        found, kind = str(error), type(error)
    if found:
        raise kind(f"{found};\n{remedy}")
    return sums is not None


def verify_best(best: Path, *names: str) -> bool:
    """`verify` of files of the winner's folder, `best/`; raises as it does."""
    try:
        config = json.loads((best / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # whoever reads it says so
        config = None
    needed = isinstance(config, dict) and "checksums" in config
    return verify(best, names, BEST_REMEDY, needed=needed)


@cache
def log_unverified(folder: Path) -> None:
    """Say, once in a process, that a folder cannot be verified."""
    log.info("note: %s has no %s (retina 0.1.0 wrote none): its files cannot be verified", folder, SUMS)
