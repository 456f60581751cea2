"""Where a result came from: the command, the versions, the commit, the hardware and the photographs."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import retina
from retina.data import duplicates
from retina.data.dataset import FundusDataset, duplicate_rows, skipped_rows, unused_file_rows
from retina.errors import ResultsError, RetinaError, as_disk_error
from retina.results.files import write_csv, write_text
from retina.results.run_folder import RunFolder
from retina.system import temporary_files
from retina.system.hardware import cores
from retina.system.locks import LOCK_FILE, SOFT_LOCK_FILE

PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "pandas", "pillow", "scikit-learn", "pydantic")


def begin(root: Path, photographs: FundusDataset, sweep_yaml: str) -> RunFolder:
    """Make a new results folder; of processes that begin one of the same name at the same time, one makes it.

    It is made under a temporary name beside its own and renamed when it is whole: a rename onto a folder that holds
    something fails, on network file systems too, so nobody's folder is replaced, and whoever is killed before has
    begun nothing. Where `root` is a link to an empty folder, that folder becomes the results folder; where it is an
    empty one that cannot be replaced, a mounted volume say, the files are moved into it. Where such a one lies below a
    folder that may not be written to, the temporary one is made inside it.

    Raises:
        ResultsError: `root` is taken, by another process since just now say, or cannot be made; exit code 1 where the
            disk is full.
    """
    RunFolder.ensure_free(root)
    place = root.resolve() if root.is_symlink() else root
    temporary_files.remove_siblings(place)
    inside = place.is_dir() and not os.access(place.parent, os.W_OK)
    new = (place if inside else place.parent) / f".{place.name}.{temporary_files.tag()}.new"
    try:
        _write_first_files(RunFolder.create(new), photographs, sweep_yaml)
        try:
            if inside:
                _move_into(new, place)
            else:
                new.rename(place)
        except OSError as error:
            if error.errno not in _CANNOT_BE_REPLACED:
                raise
            _move_into(new, place)
    except RetinaError:
        raise
    except OSError as error:
        if error.errno in _IS_TAKEN:
            raise ResultsError(
                f"{root}: another process has begun it just now;\nwait for that one, or choose another --name"
            ) from None
        raise as_disk_error(root, "cannot be made", error) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return RunFolder.open(root)


_IS_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
_CANNOT_BE_REPLACED = {errno.EBUSY, errno.EXDEV, errno.EPERM}


def _write_first_files(folder: RunFolder, photographs: FundusDataset, sweep_yaml: str) -> None:
    folder.update_metadata(**environment(), data=photographs.summary())
    skipped = skipped_rows(photographs)
    if skipped:
        write_csv(folder.root / "skipped.csv", skipped, ["where", "image", "problem"])
    if unused := unused_file_rows(photographs):
        write_csv(folder.root / "unused.csv", unused, list(unused[0]))
    if photographs.duplicates.groups:
        write_csv(folder.root / "duplicates.csv", duplicate_rows(photographs), duplicates.COLUMNS)
    write_text(folder.root / "sweep.yaml", sweep_yaml)
    if not folder.flush():
        raise OSError(errno.EIO, "the tables cannot be written")


def _move_into(new: Path, place: Path) -> None:
    """Move the files of a new folder into one that is there and empty; sweep.yaml, which says that it is whole, last.

    Raises:
        ResultsError: another process does the same.
        OSError: it is not empty any more, or cannot be written to.
    """
    with RunFolder(place).lock():
        there = [file for file in place.iterdir() if not temporary_files.is_begun(file, place.name)]
        if {file.name for file in there} - {LOCK_FILE, SOFT_LOCK_FILE}:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        for file in sorted(new.iterdir(), key=lambda file: file.name == "sweep.yaml"):
            shutil.move(file, place / file.name)


def environment() -> dict[str, Any]:
    """What environment.json says before the data is known; plain JSON values."""
    ours = code()
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "retina": ours["version"],
        "git": ours["git"],
        "code": ours,  # what a resume compares, and what a forced one replaces
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def code() -> dict[str, str | None]:
    """Which code runs: `version`, git commit, and a hash of the package's `source` that needs no git."""
    return {"version": retina.__version__, "git": _git(), "source": source()}


def source() -> str:
    """Return 12 hexadecimal digits of a hash of the package's Python files and their relative paths."""
    here = Path(retina.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(here.rglob("*.py")):
        digest.update(file.relative_to(here).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def version(name: str) -> str:
    """Return the version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git() -> str | None:
    """Commit of the code that runs, marked where it differs from it; None outside a checkout."""
    here = Path(retina.__file__)
    try:
        # fails where git does not know this file: installed into a folder of somebody else's repository
        _run_git("ls-files", "--error-unmatch", here.name, at=here.parent)
        return _run_git("describe", "--always", "--dirty", "--abbrev=12", at=here.parent) or None
    except (OSError, subprocess.SubprocessError):
        return None


def _run_git(*arguments: str, at: Path) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    return done.stdout.strip()


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
