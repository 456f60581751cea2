"""The origin of a result: the command, package versions, commit, hardware and photographs."""

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
from retina.errors import ResultsError, RetinaError, wrap_os_error
from retina.results.files import write_csv, write_text
from retina.results.run_folder import RunFolder
from retina.system import temporary_files
from retina.system.hardware import available_cores
from retina.system.locks import LOCK_FILE, SOFT_LOCK_FILE

PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "pandas", "pillow", "scikit-learn", "pydantic")


def create_run_folder(root: Path, photographs: FundusDataset, sweep_yaml: str) -> RunFolder:
    """Create a new results folder; if several processes create the same one at the same time, one succeeds.

    The folder is created under a temporary name beside `root` and renamed when it is complete: a rename onto a folder
    that is not empty fails, on network file systems too, so no other folder is replaced, and a process that is killed
    before leaves no results folder. Where `root` is a link to an empty folder, that folder becomes the results folder.
    Where `root` is an empty folder that cannot be replaced, for example a mounted volume, the files are moved into it.
    If its parent folder is not writable either, the temporary folder is created inside `root`.

    Raises:
        ResultsError: `root` is taken, for example since just now by another process, or cannot be created; a
            `DiskError` (exit code 1) where the disk is at fault.
    """
    RunFolder.ensure_free(root)
    path = root.resolve() if root.is_symlink() else root
    temporary_files.remove_unfinished_folders(path)
    inside = path.is_dir() and not os.access(path.parent, os.W_OK)
    new = (path if inside else path.parent) / f".{path.name}.{temporary_files.unique_tag()}.new"
    try:
        _write_first_files(RunFolder.create(new), photographs, sweep_yaml)
        try:
            if inside:
                _move_into(new, path)
            else:
                new.rename(path)
        except OSError as error:
            if error.errno not in _CANNOT_BE_REPLACED:
                raise
            _move_into(new, path)
    except RetinaError:
        raise
    except OSError as error:
        if error.errno in _IS_TAKEN:
            raise ResultsError(
                f"{root}: another process has just created it;\nwait for that process, or choose another --name"
            ) from None
        raise wrap_os_error(root, "cannot be made", error) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return RunFolder.open(root)


_IS_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
_CANNOT_BE_REPLACED = {errno.EBUSY, errno.EXDEV, errno.EPERM}


def _write_first_files(folder: RunFolder, photographs: FundusDataset, sweep_yaml: str) -> None:
    folder.update_metadata(**describe_environment(), data=photographs.summary())
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


def _move_into(new: Path, target: Path) -> None:
    """Move the files of a new folder into an empty one; sweep.yaml, which marks the folder as complete, last.

    Raises:
        ResultsError: another process does the same.
        OSError: the target is no longer empty, or cannot be written to.
    """
    with RunFolder(target).lock():
        existing = [file for file in target.iterdir() if not temporary_files.is_unfinished_folder(file, target.name)]
        if {file.name for file in existing} - {LOCK_FILE, SOFT_LOCK_FILE}:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        for file in sorted(new.iterdir(), key=lambda file: file.name == "sweep.yaml"):
            shutil.move(file, target / file.name)


def describe_environment() -> dict[str, Any]:
    """Return the content of environment.json before the data is known, as plain JSON values."""
    code = code_version()
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "retina": code["version"],
        "git": code["git"],
        "code": code,  # compared on a resume, and replaced by a forced one
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": available_cores(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def code_version() -> dict[str, str | None]:
    """Return the version, git commit, and `source_hash`, which needs no git, of the code that runs."""
    return {"version": retina.__version__, "git": _git(), "source": source_hash()}


def source_hash() -> str:
    """Return 12 hexadecimal digits of a hash of the package's Python files and their relative paths."""
    package = Path(retina.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def package_version(name: str) -> str:
    """Return the version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git() -> str | None:
    """Return the commit of the code that runs, marked if the code differs from it; None outside a checkout."""
    file = Path(retina.__file__)
    try:
        # fails where git does not track this file: the package is installed inside another project's repository
        _run_git("ls-files", "--error-unmatch", file.name, at=file.parent)
        return _run_git("describe", "--always", "--dirty", "--abbrev=12", at=file.parent) or None
    except (OSError, subprocess.SubprocessError):
        return None


def _run_git(*arguments: str, at: Path) -> str:
    command = ["git", *arguments]
    completed = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    return completed.stdout.strip()


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
