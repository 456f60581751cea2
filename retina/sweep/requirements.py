"""The requirements that a node of the cluster must meet before it runs trials.

A node must have the results folder of the sweep (not another folder of the same name), the photographs, decoded or to
be decoded, and the versions of this package, Python, torch, torchvision and numpy that the driver has. Clocks and time
zones may differ: only durations are compared. Pretrained weights are sent to the workers, so no node needs them.
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
from retina.errors import DISK_FULL_ERRNOS, DataError
from retina.results import environment

PREFIX = ".node-check-"
"""Beginning of the names of all files that a check writes."""
LIBRARIES = ("torch", "torchvision", "numpy")
SAME_USER = "mount it read-write on every node, and run Ray on every node as the same user"
_SAME_DATA = "every node needs the same photographs and labels at the same path"


def versions() -> dict[str, str]:
    """Return the versions that must be equal on all nodes. Builds of torch for CPU and GPU (2.11.0+cpu) are equal."""
    installed = {name: environment.package_version(name).partition("+")[0] for name in LIBRARIES}
    return {
        "package retina (hash of its source)": environment.source_hash(),
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **installed,
    }


@dataclass(frozen=True)
class NodeRequirements:
    """The requirements of every trial on a node.

    Attributes:
        marker: a file with a random name that the driver has written into the results folder.
        versions: versions on the driver, see `versions`.
    """

    marker: Path
    versions: dict[str, str]

    def problem(self) -> str:
        """Return the unmet requirement and its remedy in one or two lines; "" if all are met."""
        return self.folder_problem() or self._write_problem() or self._version_problem()

    def folder_problem(self) -> str:
        """Return like `problem`, but look for the marker only, which takes a fraction of a millisecond."""
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
            if error.errno in DISK_FULL_ERRNOS:  # the same for all nodes: reported where the driver writes
                return ""
            return f"{root} cannot be written by user {user()} there ({error.strerror});\n{SAME_USER}"
        return ""

    def _version_problem(self) -> str:
        here = versions()
        different = [
            f"{name} {here[name]}, not {driver}" for name, driver in self.versions.items() if here[name] != driver
        ]
        if not different:
            return ""
        remedy = "install the same versions on every node, and change none while a sweep runs"
        return f"it has {'; '.join(different)} as the driver;\n{remedy}"


@dataclass(frozen=True)
class DataRequirements:
    """The requirements of training on the photographs of the driver.

    Attributes:
        dataset: the photographs of the driver.
        files: a row a photograph with columns path, index, image, grade, and length of its file in bytes.
    """

    dataset: FundusDataset
    files: pd.DataFrame

    @classmethod
    def of(cls, dataset: FundusDataset) -> DataRequirements:
        """Return the requirements with the lengths of the photographs' files."""
        return cls(dataset, _files(dataset.frame))

    def problem(self) -> str:
        """Return what this node lacks in one or two lines; "" if it has the pixels or can decode them."""
        dataset = self.dataset
        if (pixels := map_array_file(dataset.pixels_file)) is not None:
            if pixels.ndim == 4 and len(pixels) == len(dataset.frame):
                return ""
            count = len(dataset.frame)
            return f"{dataset.pixels_file} holds pixels of shape {pixels.shape} there, not of {count} photographs"
        try:
            there = read_manifest(dataset.config)
        except DataError as error:
            return f"{str(error).splitlines()[0]};\n{_SAME_DATA}"
        if there is not None:  # else the node draws them
            difference = _differences(self.files, _files(there.frame))
            if difference:
                return f"{dataset.config.path}: {difference};\n{_SAME_DATA}"
        return self._room_problem()

    def _room_problem(self) -> str:
        """Return what is wrong with the folder into which the photographs are to be decoded; "" if nothing is."""
        folder, needed = cache_folder(), len(self.files) * 3 * self.dataset.config.image_size**2
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
    """Return name, grade and length of the file in bytes, -1 if it is absent, of each photograph."""
    lengths = {path: _length(Path(path)) for path in frame["path"].unique()}
    return frame[["path", "index", "image", "grade"]].assign(length=frame["path"].map(lengths))


def _length(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _differences(expected: pd.DataFrame, there: pd.DataFrame) -> str:
    """Return how many expected photographs are absent, differ in length or grade; "" if none does."""
    key = ["path", "index", "image"]
    both = expected.merge(there, on=key, how="left", suffixes=("", "_there"))
    absent = both["length_there"].isna() | (both["length_there"] < 0)
    kinds = {
        "absent there": absent,
        "of another file length there": ~absent & (both["length"] != both["length_there"]),
        "of another grade there": ~absent & (both["grade"] != both["grade_there"]),
    }
    counts = [f"{int(rows.sum())} {kind} ({both['image'][rows].iloc[0]})" for kind, rows in kinds.items() if rows.any()]
    return f"of {len(expected)} photographs, {', '.join(counts)}" if counts else ""


def user() -> str:
    """Return the user's name; containers have users without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
