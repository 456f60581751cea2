"""Where a result came from: the command, the versions, the commit, the hardware and the photographs."""

from __future__ import annotations

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
from retina.data.photographs import Photographs, skipped_rows
from retina.machine import cores
from retina.results import RunFolder, write_csv, write_text

PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "pandas", "pillow", "scikit-learn", "pydantic")


def begin(root: Path, photographs: Photographs, sweep_yaml: str) -> RunFolder:
    """A new results folder; it gets its name when it is whole, so that whoever is killed here has begun nothing."""
    for left in root.parent.glob(f".{root.name}.*.new"):
        shutil.rmtree(left, ignore_errors=True)
    folder = RunFolder.create(root.with_name(f".{root.name}.{os.getpid()}.new"))
    folder.note(**environment(), data=photographs.summary())
    skipped = skipped_rows(photographs)
    if skipped:
        write_csv(folder.root / "skipped.csv", skipped, ["where", "image", "problem"])
    write_text(folder.root / "sweep.yaml", sweep_yaml)
    folder.flush()
    folder.root.rename(root)
    return RunFolder.open(root)


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
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def code() -> dict[str, str | None]:
    """Which code runs: `version`, git commit, and a hash of the package's `source` that needs no git."""
    here = Path(retina.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(here.rglob("*.py")):
        digest.update(file.relative_to(here).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return {"version": retina.__version__, "git": _git(), "source": digest.hexdigest()[:12]}


def _version(name: str) -> str:
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
