"""Photographs decoded, cropped and resized once, and mapped into memory by every trial.

On disk: `<folder>/<key>/pixels.npy`, a plain (n, size, size, 3) uint8 array, and `index.json` beside it. The folder
gets its name when it is whole, by one rename; until then it is `<key>.building`, with a journal of what is decoded.
Whatever stops a build leaves that behind, and the next one decodes the rest. The key is over the photographs (name,
size and time of each file), the image size and the version of the preprocessing; grades and splits are not in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from retina.data import process_pool as processes
from retina.data.cache.array_file import ArrayFile, close_up, intact, open_up, reserve
from retina.data.cache.decode import Job, Outcome, decode, decode_in_processes, put
from retina.data.cache.journal import Journal, source_of
from retina.data.fundus import PREPROCESSING, Pixels
from retina.data.image_file import same_size_as_another_format
from retina.data.layouts import npz
from retina.data.manifest import BadRow, Manifest, refuse
from retina.data.pixel_hash import full_hash
from retina.errors import DataError, DiskError, RetinaError, as_disk_error
from retina.system import file_modes
from retina.system.hardware import cores

CHUNK = 16  # photographs that a process is given at a time
FEW = 64  # photographs, and
LITTLE = 16 * 2**20  # bytes of files, for which it does not pay to start processes
JOURNAL = "done.jsonl"

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PixelCache:
    """The photographs of a manifest as the model sees them.

    Attributes:
        pixels: (n, size, size, 3) uint8 RGB, mapped read-only; row i is the photograph `kept[i]`.
        kept: (n,) int64, positions in `manifest.frame` of the photographs that could be read, ascending.
        bad: those that could not; always empty under `on_bad: stop`.
        digests: (n,) `retina.data.pixel_hash.hash_for_joining` of each photograph of `kept`.
        discless: how many of `kept` show no disc, and are there as the whole photograph.
        path: the folder of this cache.
        built: whether this call made the cache; else it had been there.
        decoded: how many photographs this call looked at: all, those that a stopped build had left, or none.
        seconds: what this call took.
    """

    pixels: NDArray[np.uint8]
    kept: NDArray[np.int64]
    bad: list[BadRow]
    digests: list[str]
    discless: int
    path: Path
    built: bool
    decoded: int
    seconds: float


def cache_folder() -> Path:
    """Where caches are kept: $RETINA_CACHE, else $XDG_CACHE_HOME/retina-sweeps, else ~/.cache/retina-sweeps."""
    if own := os.environ.get("RETINA_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "retina-sweeps"


def cannot_keep(folder: Path, error: OSError) -> RetinaError:
    """Return the error to raise where photographs cannot be kept below `cache_folder()`.

    Args:
        folder: where they were to be kept.
        error: the system's.

    Returns:
        A `DiskError` where the disk is at fault, else a `DataError`.
    """
    return as_disk_error(folder, "cannot keep photographs here (set RETINA_CACHE)", error, mistake=DataError)


def open_cache(
    manifest: Manifest,
    image_size: int,
    *,
    on_bad: str = "stop",
    workers: int | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> PixelCache:
    """Map the decoded photographs of a manifest; decode first what was not decoded before.

    Of several processes that ask at once, one decodes and the others wait for it. What a build has decoded when it is
    stopped, by Ctrl-C, `kill -9`, a power cut or an error, is kept for the next one; photographs with problems
    are looked at again.

    Args:
        manifest: the photographs, files or rows of npz arrays.
        image_size: side of the square in pixels.
        on_bad: "stop" or "skip" photographs that cannot be read.
        workers: processes to decode in; by default one for each core that this process may use.
        progress: is called with how many are done and how many there are, the first time before any is decoded.
        folder: instead of `cache_folder()`.

    Raises:
        DataError: no photographs; some cannot be read and `on_bad` is "stop" (all are looked at before); none can be
            read; the folder cannot be written; a process that decodes died.
        DiskError: the disk of the folder is at fault: it has too little room, say.
    """
    start = time.perf_counter()
    if manifest.frame.empty:
        raise DataError(f"{manifest.root}: there are no photographs to decode")
    folder = (folder or cache_folder()).absolute()
    key, total_bytes = _key(manifest, image_size)
    builder = _Builder(manifest, image_size, folder / key, total_bytes)
    built, decoded = False, 0
    if (loaded := builder.load()) is None:
        with _locked(folder, key):
            if (loaded := builder.load()) is None:
                built = True
                decoded, loaded = builder.build(on_bad, workers or cores(), progress or (lambda *_: None))
    pixels, index = loaded
    bad = builder.name_bad(index["bad"])
    refuse(bad, manifest.root, on_bad)
    kept = _all_but(index["bad"], len(manifest.frame))
    seconds = time.perf_counter() - start
    discless = len(index["discless"])
    return PixelCache(pixels, kept, bad, index["digests"], discless, folder / key, built, decoded, seconds)


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


def mapped(file: Path) -> NDArray[Any] | None:
    """Map a file of one array; None where it is absent, cut short or holds no such array."""
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except Exception:  # of a damaged header numpy raises SyntaxError, TypeError and more
        return None


def _is_index(index: Any, n: int) -> bool:
    """Whether a file index.json of a cache of `n` photographs holds what `_Builder._finish` writes."""
    match index:
        case {"bad": [*bad], "digests": [*digests], "discless": [*discless]}:
            rows = [one[0] for one in bad if isinstance(one, list) and len(one) == 2 and isinstance(one[1], str)]
            is_whole = len(rows) == len(bad) and len(digests) == n - len(bad)
            is_whole &= all(isinstance(one, str) for one in digests)
            return is_whole and _are_rows(rows, n) and _are_rows(discless, n) and not {*rows} & {*discless}
    return False


def _are_rows(rows: list[Any], n: int) -> bool:
    """Whether these are positions of photographs, ascending, each once."""
    return all(type(row) is int and 0 <= row < n for row in rows) and rows == sorted(set(rows))


@contextmanager
def _locked(folder: Path, key: str) -> Iterator[None]:
    lock = FileLock(folder / f"{key}.lock")
    try:
        file_modes.make_folder(folder, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process decodes these photographs; waiting for it")
            lock.acquire()
    except OSError as error:
        raise cannot_keep(folder, error) from None
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
        n, pixels = len(self.manifest.frame), mapped(self.path / "pixels.npy")
        try:
            index = json.loads((self.path / "index.json").read_text())
        except (OSError, ValueError, RecursionError):
            return None
        if pixels is None or not _is_index(index, n):
            return None
        shape = (n - len(index["bad"]), self.size, self.size, 3)
        return (pixels, index) if pixels.shape == shape and pixels.dtype == np.uint8 else None

    def build(self, on_bad: str, workers: int, progress: Progress) -> tuple[int, tuple[Pixels, dict[str, Any]]]:
        """Decode what no build before has, and give the folder its name when it is whole; the lock must be held.

        Returns:
            How many photographs were decoded, and what `load` gives.
        """
        start = time.perf_counter()
        shutil.rmtree(self.path, ignore_errors=True)  # it was damaged, or there is nothing
        for left in self.path.parent.glob(f"{self.path.name}.building-*"):  # so called when each build began anew
            shutil.rmtree(left, ignore_errors=True)
        building = self.path.with_name(f"{self.path.name}.building")
        try:
            file_modes.make_folder(building, exist_ok=True)
            with self._journal(building) as journal:
                try:
                    target = self._reserve(building / "pixels.npy")
                    outcomes, decoded = self._fill(target, journal, workers, progress)
                    self._finish(target, self._hashed(outcomes, workers), on_bad, start)
                except BaseException:
                    self._stopped(building, journal.noted)
                    raise
            building.rename(self.path)
            (self.path / JOURNAL).unlink()
            _to_disk(self.path.parent)
        except RetinaError:  # a DiskError is an OSError, too
            raise
        except OSError as error:
            problem = "photographs cannot be decoded into it"
            raise as_disk_error(building, problem, error, mistake=DataError) from None
        self._clear()
        loaded = self.load()
        if loaded is None:
            raise DiskError(f"{self.path}: was written, but cannot be read back")
        return decoded, loaded

    def _journal(self, building: Path) -> Journal:
        about = {"preprocessing": PREPROCESSING, "image_size": self.size, "photographs": len(self.manifest.frame)}
        return Journal(building / JOURNAL, about, len(self.manifest.frame), str(self.manifest.root))

    def _stopped(self, building: Path, noted: dict[int, Outcome]) -> None:
        """Keep what was decoded; nothing where nothing was."""
        good = sum(not outcome.problem for outcome in noted.values())
        if good:
            log.info("stopped; the %d of %d photographs that are decoded are kept", good, len(self.manifest.frame))
        else:
            shutil.rmtree(building, ignore_errors=True)

    def _clear(self) -> None:
        """Remove what was left of the same photographs at the same size before some of them changed, and so the key."""
        for other in self.path.parent.glob("*.building"):
            mine = other.stem == self.path.name
            if not mine and source_of(other / JOURNAL) == (str(self.manifest.root), self.size):
                with suppress(Timeout, OSError), FileLock(other.with_suffix(".lock"), timeout=0):
                    shutil.rmtree(other, ignore_errors=True)

    def name_bad(self, bad: list[tuple[int, str]]) -> list[BadRow]:
        """Positions and problems with the label file's line and the name of the photograph."""
        rows = self.manifest.frame.iloc[[position for position, _ in bad]]
        named = zip(rows["where"], rows["image"], bad, strict=True)
        return [BadRow(where, image, problem) for where, image, (_, problem) in named]

    def _reserve(self, path: Path) -> ArrayFile:
        try:
            return reserve(path, len(self.manifest.frame), self.size)
        except DiskError:
            self._clear()  # it may be this that takes the room
            return reserve(path, len(self.manifest.frame), self.size)

    def _fill(self, target: ArrayFile, journal: Journal, workers: int, progress: Progress) -> tuple[list[Outcome], int]:
        """Decode what is not yet in the array; the outcomes of all photographs, and how many are of this call."""
        n = len(self.manifest.frame)
        done = _intact(journal.noted, target, n, workers)
        before = len(done)
        going_on = f"; {before} of them are there, from a build that was stopped" if before else ""
        log.info("decoding %d photographs of %s to %d pixels%s", n, self.manifest.root, self.size, going_on)
        progress(before, n)
        for some in self._decode(target, done, workers, journal.descriptor):
            journal.add(some)
            done.update((outcome.row, outcome) for outcome in some)
            progress(len(done), n)
        return [done[row] for row in range(n)], n - before

    def _hashed(self, outcomes: list[Outcome], workers: int) -> list[Outcome]:
        """The same, with those JPEGs hashed at their full size that may be the same as a file of another format."""
        paths = self.manifest.frame["path"].to_numpy()
        good = {outcome.row: str(paths[outcome.row]) for outcome in outcomes if not outcome.problem}
        again = [(row, good[row]) for row in same_size_as_another_format(good)]
        chunks = [again[first : first + CHUNK] for first in range(0, len(again), CHUNK)]
        hashes = processes.call(
            partial(processes.each, function=full_hash),
            chunks,
            workers if len(again) >= FEW else 1,
            purpose="decodes photographs",
            place=lambda chunk: f"it was at {chunk[0][1]} or one of the {len(chunk) - 1} after it",
        )
        full = {row: digest for chunk in hashes for row, digest in chunk}
        return [replace(outcome, digest=full.get(outcome.row, outcome.digest)) for outcome in outcomes]

    def _finish(self, target: ArrayFile, outcomes: list[Outcome], on_bad: str, start: float) -> None:
        """Close it up and write the index; both are on the disk when this is over."""
        n = len(outcomes)
        bad = [(outcome.row, outcome.problem) for outcome in outcomes if outcome.problem]
        refuse(self.name_bad(bad), self.manifest.root, on_bad)
        if len(bad) == n:
            raise DataError(f"{self.manifest.root}: none of its {n} photographs can be read; {bad[0][1]}")
        if bad:
            close_up(target, _all_but(bad, n).tolist())
        index = {
            "source": str(self.manifest.root),
            "preprocessing": PREPROCESSING,
            "photographs": n - len(bad),
            "image_size": self.size,
            "bad": bad,
            "digests": [outcome.digest for outcome in outcomes if not outcome.problem],
            "discless": [outcome.row for outcome in outcomes if not (outcome.disc or outcome.problem)],
            "seconds": round(time.perf_counter() - start, 3),
        }
        pixels = Path(target.path)
        (pixels.parent / "index.json").write_text(json.dumps(index, indent=1))
        for written in (pixels, pixels.parent / "index.json", pixels.parent):
            _to_disk(written)

    def _decode(
        self, target: ArrayFile, done: dict[int, Outcome], workers: int, inherited: int
    ) -> Iterator[list[Outcome]]:
        """Those that are not done; as files first, then as arrays."""
        frame = self.manifest.frame[["path", "array", "index"]].assign(row=np.arange(len(self.manifest.frame)))
        frame = frame[~frame["row"].isin(list(done))]
        files, inside = frame[frame["array"] == ""], frame[frame["array"] != ""]
        jobs: list[Job] = list(zip(files["row"].tolist(), files["path"], strict=True))
        length = max(min(CHUNK, len(jobs) // (4 * workers)), 1)
        chunks = (jobs[first : first + length] for first in range(0, len(jobs), length))
        total_bytes = self.total_bytes * len(jobs) / len(self.manifest.frame)
        if workers > 1 and (len(jobs) >= FEW or (len(jobs) > 1 and total_bytes > LITTLE)):
            yield from decode_in_processes(chunks, target, workers, inherited)
        else:
            yield from (decode(chunk, target) for chunk in chunks)
        for (path, array), some in inside.groupby(["path", "array"], sort=False):
            rows = list(zip(some["row"].tolist(), some["index"].tolist(), strict=True))
            yield from _from_array(str(path), str(array), rows, target)


def _intact(noted: dict[int, Outcome], target: ArrayFile, n: int, threads: int) -> dict[int, Outcome]:
    """Of the rows that were decoded before, those that are in the file as they were written."""
    checksums = {row: outcome.checksum for row, outcome in noted.items() if not outcome.problem}
    if len(checksums) < len(noted) == n:  # all was decoded, so it may have been stopped while it was closed up
        open_up(target, checksums)
    return {row: noted[row] for row in intact(target, checksums, threads)}


def _from_array(path: str, array: str, rows: list[tuple[int, int]], target: ArrayFile) -> Iterator[list[Outcome]]:
    """The photographs of one array of an npz file, in this process: they need no decoding."""
    try:
        photographs = npz.load(path, array)
    except DataError as error:
        yield [Outcome(row, problem=str(error)) for row, _ in rows]
        return
    with Path(target.path).open("r+b") as file:
        for row, index in rows:
            if not 0 <= index < len(photographs):
                yield [Outcome(row, problem=f"{path}: {array} has {len(photographs)} rows, no row {index}")]
                continue
            yield [put(photographs[index], row, target, file)]


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
