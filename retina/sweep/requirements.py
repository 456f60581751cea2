"""What a node of the cluster must have before it runs trials.

A node must have the sweep's own results folder (not a folder of the same name), the photographs, decoded or to be
decoded, and the driver's versions of this package, Python, torch, torchvision and numpy. Clocks and time zones may
differ: only durations are compared. Pretrained weights are sent to the workers, so no node needs them.
"""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from retina.data.cache.pixel_cache import cache_folder, map_array_file
from retina.data.dataset import FundusDataset, read_manifest
from retina.errors import FULL_ERRNOS, DataError
from retina.results import environment

PREFIX = ".node-check-"
"""Of all files that a check writes."""
LIBRARIES = ("torch", "torchvision", "numpy")
SAME_USER = "mount it read-write on every node, and run Ray on every node as the same user"
_SAME_DATA = "every node needs the same photographs and labels at the same path"


def versions() -> dict[str, str]:
    """Return what must be equal on all nodes. Builds of torch for the CPU or a GPU (2.11.0+cpu) count as equal."""
    installed = {name: environment.version(name).partition("+")[0] for name in LIBRARIES}
    return {
        "package retina (hash of its source)": environment.source(),
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **installed,
    }


@dataclass(frozen=True)
class NodeRequirements:
    """What a worker must find on its node, whichever trial it gets.

    Attributes:
        marker: a file of a random name that the driver has written into the results folder.
        versions: the driver's, see `versions`.
    """

    marker: Path
    versions: dict[str, str]

    def problem(self) -> str:
        """Say in one or two lines what this node lacks and what helps; "" where it lacks nothing."""
        return self.folder_problem() or self._write_problem() or self._version_problem()

    def folder_problem(self) -> str:
        """Look for the marker only, which costs a fraction of a millisecond; otherwise like `problem`."""
        root = self.marker.parent
        try:
            self.marker.stat()
        except PermissionError as error:
            return f"{root} cannot be read by user {user()} there ({error.strerror});\n{SAME_USER}"
        except OSError:
            return (
                f"{root} is not the driver's results folder there, so weights written to it are lost;\n"
                "choose a results folder on a file system that all nodes mount at the same path (--results)"
            )
        return ""

    def _write_problem(self) -> str:
        root = self.marker.parent
        try:
            with tempfile.NamedTemporaryFile(prefix=PREFIX, dir=root):
                pass
        except OSError as error:
            if error.errno in FULL_ERRNOS:  # for all nodes: said where the driver writes
                return ""
            return f"{root} cannot be written by user {user()} there ({error.strerror});\n{SAME_USER}"
        return ""

    def _version_problem(self) -> str:
        here = versions()
        differ = [
            f"{name} {here[name]}, not {wanted}" for name, wanted in self.versions.items() if here[name] != wanted
        ]
        if not differ:
            return ""
        remedy = "install the same versions on every node, and change none while a sweep runs"
        return f"it has {'; '.join(differ)} as the driver;\n{remedy}"


@dataclass(frozen=True)
class DataRequirements:
    """What a node must have to train on the driver's photographs.

    Attributes:
        photographs: the driver's.
        files: a row a photograph with columns path, index, image, grade and length, in bytes, of its file.
    """

    photographs: FundusDataset
    files: pd.DataFrame

    @classmethod
    def of(cls, photographs: FundusDataset) -> DataRequirements:
        """Look up the lengths of the photographs' files."""
        return cls(photographs, _files(photographs.frame))

    def problem(self) -> str:
        """Say in one or two lines what this node lacks; "" where it has the pixels or can decode them."""
        found = self.photographs
        if (pixels := map_array_file(found.pixels_file)) is not None:
            if pixels.ndim == 4 and len(pixels) == len(found.frame):
                return ""
            return (
                f"{found.pixels_file} holds pixels of shape {pixels.shape} there, not of {len(found.frame)} photographs"
            )
        try:
            there = read_manifest(found.config)
        except DataError as error:
            return f"{str(error).splitlines()[0]};\n{_SAME_DATA}"
        if there is not None:  # else they are drawn there
            differ = _differences(self.files, _files(there.frame))
            if differ:
                return f"{found.config.path}: {differ};\n{_SAME_DATA}"
        return self._room_problem()

    def _room_problem(self) -> str:
        """Look at the folder into which the photographs are to be decoded."""
        folder, needed = cache_folder(), len(self.files) * 3 * self.photographs.config.image_size**2
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix=PREFIX, dir=folder):
                free = shutil.disk_usage(folder).free
        except OSError as error:
            return f"{folder}: cannot keep decoded photographs there ({error.strerror});\nset RETINA_CACHE on that node"
        if free < needed:
            sizes = f"{needed / 1e9:.1f} GB of decoded photographs, {free / 1e9:.1f} GB are free"
            return f"{folder}: no room there for {sizes};\nset RETINA_CACHE on that node"
        return ""


def _files(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the length of each photograph's file in bytes, -1 where it is absent, to its names and grade."""
    lengths = {path: _length(Path(path)) for path in frame["path"].unique()}
    return frame[["path", "index", "image", "grade"]].assign(length=frame["path"].map(lengths))


def _length(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _differences(wanted: pd.DataFrame, there: pd.DataFrame) -> str:
    """Say how many of the wanted photographs are absent, or other files, or graded otherwise; "" where none is."""
    key = ["path", "index", "image"]
    both = wanted.merge(there, on=key, how="left", suffixes=("", "_there"))
    absent = both["length_there"].isna() | (both["length_there"] < 0)
    kinds = {
        "absent there": absent,
        "of another file length there": ~absent & (both["length"] != both["length_there"]),
        "of another grade there": ~absent & (both["grade"] != both["grade_there"]),
    }
    told = [f"{int(rows.sum())} {kind} ({both['image'][rows].iloc[0]})" for kind, rows in kinds.items() if rows.any()]
    return f"of {len(wanted)} photographs, {', '.join(told)}" if told else ""


def user() -> str:
    """Return the user's name; containers have users without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
