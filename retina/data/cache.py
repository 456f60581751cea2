"""Photographs decoded, cropped and resized once, and mapped into memory by every trial.

On disk: `<folder>/<key>/pixels.npy`, a plain (n, size, size, 3) uint8 array, and `index.json` beside it. The folder
gets its name when it is whole, by one rename; until then it is `<key>.building-<pid>-...`, which a killed build leaves
behind and the next one removes. The key is over the photographs (name, size and time of each file), the image size and
the version of the preprocessing; grades and splits are not in it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from retina.data.decode import Job, Outcome, Target, decode, decode_in_processes
from retina.data.fundus import PREPROCESSING, Pixels, to_square
from retina.data.manifest import Bad, Manifest, refuse
from retina.errors import DataError
from retina.machine import cores

CHUNK = 16  # photographs that a process is given at a time
FEW = 64  # photographs, and
LITTLE = 16 * 2**20  # bytes of files, for which it does not pay to start processes

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PixelCache:
    """The photographs of a manifest as the model sees them.

    Attributes:
        pixels: (n, size, size, 3) uint8 RGB, mapped read-only; row i is the photograph `kept[i]`.
        kept: (n,) int64, positions in `manifest.frame` of the photographs that could be read, ascending.
        bad: those that could not; always empty under `on_bad: stop`.
        discless: how many of `kept` show no disc, and are there as the whole photograph.
        path: the folder of this cache.
        built: whether this call decoded them; else they had been there.
        seconds: what this call took.
    """

    pixels: NDArray[np.uint8]
    kept: NDArray[np.int64]
    bad: list[Bad]
    discless: int
    path: Path
    built: bool
    seconds: float


def cache_folder() -> Path:
    """Where caches are kept: $RETINA_CACHE, else $XDG_CACHE_HOME/retina-sweeps, else ~/.cache/retina-sweeps."""
    if own := os.environ.get("RETINA_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "retina-sweeps"


def open_cache(
    manifest: Manifest,
    image_size: int,
    *,
    on_bad: str = "stop",
    workers: int | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> PixelCache:
    """Map the decoded photographs of a manifest; decode them first if that was not done before.

    Of several processes that ask at once, one decodes and the others wait for it.

    Args:
        manifest: the photographs, files or rows of npz arrays.
        image_size: side of the square in pixels.
        on_bad: "stop" or "skip" photographs that cannot be read.
        workers: processes to decode in; by default one for each core that this process may use.
        progress: is called with how many are done and how many there are.
        folder: instead of `cache_folder()`.

    Raises:
        DataError: no photographs; some cannot be read and `on_bad` is "stop" (all are looked at before, and nothing is
            kept); none can be read; not enough free disk; the folder cannot be written.
    """
    start = time.perf_counter()
    if manifest.frame.empty:
        raise DataError(f"{manifest.root}: there are no photographs to decode")
    folder = (folder or cache_folder()).absolute()
    key, total_bytes = _key(manifest, image_size)
    builder = _Builder(manifest, image_size, folder / key, total_bytes)
    built = False
    if (loaded := builder.load()) is None:
        with _locked(folder, key):
            if (loaded := builder.load()) is None:
                built, loaded = True, builder.build(on_bad, workers or cores(), progress or (lambda *_: None))
    pixels, index = loaded
    bad = builder.name_bad(index["bad"])
    refuse(bad, manifest.root, on_bad)
    kept = _all_but(index["bad"], len(manifest.frame))
    seconds = time.perf_counter() - start
    return PixelCache(pixels, kept, bad, len(index["discless"]), folder / key, built, seconds)


def _key(manifest: Manifest, image_size: int) -> tuple[str, int]:
    """The cache's name, and how many bytes the files have; a file that is missing counts as such."""
    files: dict[str, tuple[int, int]] = {}
    digest = hashlib.sha256(f"{PREPROCESSING}\n{image_size}\n".encode())
    frame = manifest.frame
    for path, array, index in zip(frame["path"], frame["array"], frame["index"], strict=True):
        if path not in files:
            files[path] = _size_and_time(path)
        digest.update(json.dumps([path, *files[path], array, int(index)]).encode())
    return digest.hexdigest()[:20], sum(max(size, 0) for size, _ in files.values())


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 -- once for each of 100,000 files
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


@contextmanager
def _locked(folder: Path, key: str) -> Iterator[None]:
    lock = FileLock(folder / f"{key}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process decodes these photographs; waiting for it")
            lock.acquire()
    except OSError as error:
        raise DataError(f"{folder}: cannot keep decoded photographs here (set RETINA_CACHE): {error}") from None
    try:
        yield
    finally:
        lock.release()


def _all_but(bad: list[tuple[int, str]], n: int) -> NDArray[np.int64]:
    return np.delete(np.arange(n, dtype=np.int64), [position for position, _ in bad])


@dataclass(frozen=True)
class _Builder:
    """One cache: the photographs, where it belongs, and how to fill and check it."""

    manifest: Manifest
    size: int
    path: Path
    total_bytes: int

    def load(self) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """Map it; None where it is absent, cut short or not what it should be."""
        try:
            index = json.loads((self.path / "index.json").read_text())
            pixels: NDArray[np.uint8] = np.load(self.path / "pixels.npy", mmap_mode="r")
            shape = (len(self.manifest.frame) - len(index["bad"]), self.size, self.size, 3)
            whole = pixels.shape == shape and pixels.dtype == np.uint8 and isinstance(index["discless"], list)
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None
        return (pixels, index) if whole else None

    def build(self, on_bad: str, workers: int, progress: Progress) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Decode everything into a temporary folder and give it its name when it is whole; the lock must be held."""
        shutil.rmtree(self.path, ignore_errors=True)  # it was damaged, or there is nothing
        for left in self.path.parent.glob(f"{self.path.name}.building-*"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = self.path.with_name(f"{self.path.name}.building-{os.getpid()}-{time.time_ns():x}")
        temporary.mkdir()
        try:
            self._fill(temporary, on_bad, workers, progress)
            temporary.rename(self.path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _to_disk(self.path.parent)
        loaded = self.load()
        if loaded is None:
            raise DataError(f"{self.path}: was written, but cannot be read back")
        return loaded

    def name_bad(self, bad: list[tuple[int, str]]) -> list[Bad]:
        """Positions and problems with the label file's line and the name of the photograph."""
        rows = self.manifest.frame.iloc[[position for position, _ in bad]]
        named = zip(rows["where"], rows["image"], bad, strict=True)
        return [Bad(where, image, problem) for where, image, (_, problem) in named]

    def _fill(self, temporary: Path, on_bad: str, workers: int, progress: Progress) -> None:
        start, n = time.perf_counter(), len(self.manifest.frame)
        log.info("decoding %d photographs of %s to %d pixels", n, self.manifest.root, self.size)
        target = self._reserve(temporary / "pixels.npy", n)
        outcomes = self._decode_all(target, workers, progress)
        bad = [(outcome.row, outcome.problem) for outcome in outcomes if outcome.problem]
        refuse(self.name_bad(bad), self.manifest.root, on_bad)
        if len(bad) == n:
            raise DataError(f"{self.manifest.root}: none of its {n} photographs can be read; {bad[0][1]}")
        if bad:
            _close_up(target, _all_but(bad, n))
        index = {
            "source": str(self.manifest.root),
            "preprocessing": PREPROCESSING,
            "photographs": n - len(bad),
            "image_size": self.size,
            "bad": bad,
            "discless": [outcome.row for outcome in outcomes if not (outcome.disc or outcome.problem)],
            "seconds": round(time.perf_counter() - start, 3),
        }
        (temporary / "index.json").write_text(json.dumps(index, indent=1))
        for written in (temporary / "pixels.npy", temporary / "index.json", temporary):
            _to_disk(written)

    def _reserve(self, path: Path, n: int) -> Target:
        """Write the array's header and take its space on the disk."""
        needed, free = n * self.size**2 * 3, shutil.disk_usage(path.parent).free
        too_little = DataError(
            f"{path.parent.parent}: {n} photographs of {self.size} pixels need {needed:,} bytes, {free:,} are free "
            "(set RETINA_CACHE to another disk, or data.image_size to less)"
        )
        if needed > free:
            raise too_little
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, _header((n, self.size, self.size, 3)))
            offset = file.tell()
            file.truncate(offset + needed)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, offset + needed)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise too_little from None
        return Target(str(path), offset, self.size)

    def _decode_all(self, target: Target, workers: int, progress: Progress) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for some in self._decode(target, workers):
            outcomes += some
            progress(len(outcomes), len(self.manifest.frame))
        return sorted(outcomes, key=lambda outcome: outcome.row)

    def _decode(self, target: Target, workers: int) -> Iterator[list[Outcome]]:
        frame = self.manifest.frame
        in_array = (frame["array"] != "").to_numpy()
        jobs: list[Job] = [(row, path) for row, path in enumerate(frame["path"]) if not in_array[row]]
        length = max(min(CHUNK, len(jobs) // (4 * workers)), 1)
        chunks = (jobs[first : first + length] for first in range(0, len(jobs), length))
        if workers > 1 and (len(jobs) >= FEW or (len(jobs) > 1 and self.total_bytes > LITTLE)):
            yield from decode_in_processes(chunks, target, workers)
        else:
            yield from (decode(chunk, target) for chunk in chunks)
        inside = frame[["path", "array", "index"]].assign(row=np.arange(len(frame)))[in_array]
        for (path, array), rows in inside.groupby(["path", "array"], sort=False):
            yield from _from_array(str(path), str(array), list(zip(rows["row"], rows["index"], strict=True)), target)


def _from_array(path: str, array: str, rows: list[tuple[int, int]], target: Target) -> Iterator[list[Outcome]]:
    """The photographs of one array of an npz file, in this process: they need no decoding."""
    try:
        photographs = _load_array(path, array)
    except DataError as error:
        yield [Outcome(row, problem=str(error)) for row, _ in rows]
        return
    with Path(target.path).open("r+b") as file:
        for row, index in rows:
            if not 0 <= index < len(photographs):
                yield [Outcome(row, problem=f"{path}: {array} has {len(photographs)} rows, no row {index}")]
                continue
            square, found = to_square(photographs[index], target.size)
            target.write(file, row, square)
            yield [Outcome(row, found)]


def _load_array(path: str, array: str) -> Pixels:
    try:
        with np.load(path) as arrays:
            photographs: Pixels = arrays[array]
    except Exception as error:  # zipfile, zlib and numpy have each their own
        raise DataError(f"{path}: {array} cannot be read: {error}") from None
    if photographs.ndim == 3:
        photographs = np.repeat(photographs[..., None], 3, axis=-1)
    if photographs.dtype != np.uint8 or photographs.ndim != 4 or photographs.shape[-1] != 3:
        raise DataError(
            f"{path}: {array} is {photographs.dtype} {photographs.shape}; uint8 (n, height, width, 3) needed"
        )
    return photographs


def _header(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"descr": "|u1", "fortran_order": False, "shape": shape}


def _close_up(target: Target, kept: NDArray[np.int64]) -> None:
    """Move the kept rows up over the others and cut the file; numpy's header has room for any number of rows."""
    with Path(target.path).open("r+b") as file:
        for new, old in enumerate(kept.tolist()):
            if new != old:
                file.seek(target.offset + old * target.row_bytes)
                row = file.read(target.row_bytes)
                file.seek(target.offset + new * target.row_bytes)
                file.write(row)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, _header((len(kept), target.size, target.size, 3)))
        file.truncate(target.offset + len(kept) * target.row_bytes)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
