"""The cache of photographs that are decoded, cropped and resized once, and memory-mapped by every trial.

On disk: `<folder>/<key>/pixels.npy`, a plain (n, size, size, 3) uint8 array, and `index.json` beside it. The folder
gets its name by one rename when it is complete; until then it is `<key>.building` and has a journal of the decoded
photographs. An interrupted build leaves that folder behind, and the next build decodes the rest. The key is a hash of
the photographs (name, size and time of each file), the image size and the version of the preprocessing, not of grades
and splits.

Caches of libraries (joblib.Memory, diskcache) store one call's result each: they neither resume a build that was killed
nor keep all photographs in one array that every trial can map.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from retina.data import process_pool
from retina.data.cache.array_file import ArrayFile, compact_rows, find_intact_rows, reserve, restore_rows
from retina.data.cache.decode import DecodeResult, Job, decode, decode_in_processes, write_photograph
from retina.data.cache.journal import Journal, read_source
from retina.data.fundus import PREPROCESSING, Pixels
from retina.data.image_file import jpegs_sized_like_other_formats
from retina.data.layouts import npz
from retina.data.manifest import BadRow, Manifest, raise_if_bad
from retina.data.pixel_hash import hash_file
from retina.errors import DataError, DiskError, RetinaError, wrap_os_error
from retina.system import file_modes
from retina.system.hardware import available_cores
from retina.system.progress import CountProgress

CHUNK_SIZE = 16  # photographs that a process gets at a time
MIN_PARALLEL_PHOTOGRAPHS = 64  # processes are started for at least so many photographs,
MIN_PARALLEL_BYTES = 16 * 2**20  # or for more bytes of files than this
JOURNAL_NAME = "done.jsonl"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PixelCache:
    """The decoded photographs of a manifest, in the form of the model's input.

    Attributes:
        pixels: (n, size, size, 3) uint8 RGB, mapped read-only; row i is the photograph `kept_rows[i]`.
        kept_rows: (n,) int64, positions in `manifest.frame` of the photographs that could be read, ascending.
        bad_rows: the photographs that could not be read; always empty under `on_bad: stop`.
        digests: (n,) `retina.data.pixel_hash.hash_unless_blank` of each photograph of `kept_rows`.
        without_disc: number of photographs of `kept_rows` without a disc, which are stored whole.
        path: the folder of this cache.
        built: whether this call built the cache; otherwise it existed.
        decoded: number of photographs that this call decoded: all, those that an interrupted build left, or none.
        seconds: duration of this call.
    """

    pixels: NDArray[np.uint8]
    kept_rows: NDArray[np.int64]
    bad_rows: list[BadRow]
    digests: list[str]
    without_disc: int
    path: Path
    built: bool
    decoded: int
    seconds: float


def cache_folder() -> Path:
    """Return the folder of all caches: $RETINA_CACHE, $XDG_CACHE_HOME/retina-sweeps or ~/.cache/retina-sweeps."""
    if folder := os.environ.get("RETINA_CACHE"):
        return Path(folder).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "retina-sweeps"


def storage_error(folder: Path, error: OSError) -> RetinaError:
    """Return the error to raise if photographs cannot be stored below `cache_folder()`.

    Args:
        folder: the folder that cannot be written.
        error: the operating system's error.

    Returns:
        A `DiskError` if the disk is at fault, otherwise a `DataError`.
    """
    return wrap_os_error(folder, "cannot keep photographs here (set RETINA_CACHE)", error, fallback=DataError)


def open_cache(
    manifest: Manifest,
    image_size: int,
    *,
    on_bad: str = "stop",
    workers: int | None = None,
    progress: CountProgress | None = None,
    folder: Path | None = None,
) -> PixelCache:
    """Map the decoded photographs of a manifest, after decoding those that are not in the cache.

    If several processes call this at once, one decodes and the others wait for it. If a build is stopped, by Ctrl-C,
    `kill -9`, a power cut or an error, its decoded photographs are kept for the next build; photographs with problems
    are read again.

    Args:
        manifest: the photographs, files or rows of npz arrays.
        image_size: side of the square in pixels.
        on_bad: "stop" or "skip" for photographs that cannot be read.
        workers: number of decoding processes; by default one for each core that this process may use.
        progress: called as `progress(done, total)`, the first time before any photograph is decoded.
        folder: the cache folder, by default `cache_folder()`.

    Raises:
        DataError: no photographs; some cannot be read and `on_bad` is "stop" (all are tried before); none can be
            read; the folder cannot be written; a worker process died.
        DiskError: the disk of the folder is at fault, for example full.
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
                decoded, loaded = builder.build(on_bad, workers or available_cores(), progress or (lambda *_: None))
    pixels, index = loaded
    bad_rows = builder.to_bad_rows(index["bad"])
    raise_if_bad(bad_rows, manifest.root, on_bad)
    return PixelCache(
        pixels=pixels,
        kept_rows=_other_rows(index["bad"], len(manifest.frame)),
        bad_rows=bad_rows,
        digests=index["digests"],
        without_disc=len(index["discless"]),
        path=folder / key,
        built=built,
        decoded=decoded,
        seconds=time.perf_counter() - start,
    )


def _key(manifest: Manifest, image_size: int) -> tuple[str, int]:
    """Return the cache's key and the total size of the files in bytes; missing files count as such."""
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


def map_array_file(file: Path) -> NDArray[Any] | None:
    """Map the array of an npy file; None if the file is absent, cut short or damaged."""
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except Exception:  # for a damaged header numpy raises SyntaxError, TypeError and more
        return None


def _is_index(index: Any, n: int) -> bool:
    """Return whether an index.json of `n` photographs has the content that `_Builder._finish` writes."""
    match index:
        case {"bad": [*bad], "digests": [*digests], "discless": [*without_disc]}:
            rows = [item[0] for item in bad if isinstance(item, list) and len(item) == 2 and isinstance(item[1], str)]
            is_valid = len(rows) == len(bad) and len(digests) == n - len(bad)
            is_valid &= all(isinstance(digest, str) for digest in digests)
            return is_valid and _are_rows(rows, n) and _are_rows(without_disc, n) and not {*rows} & {*without_disc}
    return False


def _are_rows(rows: list[Any], n: int) -> bool:
    """Whether these are positions of photographs, ascending, each once."""
    return all(type(row) is int and 0 <= row < n for row in rows) and rows == sorted(set(rows))


@contextmanager
def _locked(folder: Path, key: str) -> Iterator[None]:
    lock = FileLock(folder / f"{key}.lock")
    try:
        file_modes.make_private_folder(folder, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process decodes these photographs; waiting for it")
            lock.acquire()
    except OSError as error:
        raise storage_error(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def _other_rows(bad: list[tuple[int, str]], n: int) -> NDArray[np.int64]:
    return np.delete(np.arange(n, dtype=np.int64), [position for position, _ in bad])


@dataclass(frozen=True)
class _Builder:
    """Builds, loads and checks one cache."""

    manifest: Manifest
    size: int
    path: Path
    total_bytes: int

    def load(self) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """Map the cache; None if it is absent, cut short or not valid."""
        n, pixels = len(self.manifest.frame), map_array_file(self.path / "pixels.npy")
        try:
            index = json.loads((self.path / "index.json").read_text())
        except (OSError, ValueError, RecursionError):
            return None
        if pixels is None or not _is_index(index, n):
            return None
        shape = (n - len(index["bad"]), self.size, self.size, 3)
        return (pixels, index) if pixels.shape == shape and pixels.dtype == np.uint8 else None

    def build(self, on_bad: str, workers: int, progress: CountProgress) -> tuple[int, tuple[Pixels, dict[str, Any]]]:
        """Decode the photographs that no earlier build decoded, and rename the folder when it is complete.

        The caller must hold the lock.

        Returns:
            The number of decoded photographs and the result of `load`.
        """
        start = time.perf_counter()
        shutil.rmtree(self.path, ignore_errors=True)  # it is damaged or absent
        for leftover in self.path.parent.glob(f"{self.path.name}.building-*"):  # name used before builds were resumed
            shutil.rmtree(leftover, ignore_errors=True)
        building = self.path.with_name(f"{self.path.name}.building")
        try:
            file_modes.make_private_folder(building, exist_ok=True)
            with self._open_journal(building) as journal:
                try:
                    array_file = self._reserve(building / "pixels.npy")
                    results, decoded = self._fill(array_file, journal, workers, progress)
                    self._finish(array_file, self._rehash_jpegs(results, workers), on_bad, start)
                except BaseException:
                    self._clean_up_stopped(building, journal.results)
                    raise
            building.rename(self.path)
            (self.path / JOURNAL_NAME).unlink()
            _sync(self.path.parent)
        except RetinaError:  # includes DiskError, which is an OSError too
            raise
        except OSError as error:
            problem = "photographs cannot be decoded into it"
            raise wrap_os_error(building, problem, error, fallback=DataError) from None
        self._remove_outdated()
        loaded = self.load()
        if loaded is None:
            raise DiskError(f"{self.path}: was written, but cannot be read back")
        return decoded, loaded

    def _open_journal(self, building: Path) -> Journal:
        description = {"preprocessing": PREPROCESSING, "image_size": self.size, "photographs": len(self.manifest.frame)}
        return Journal(building / JOURNAL_NAME, description, len(self.manifest.frame), str(self.manifest.root))

    def _clean_up_stopped(self, building: Path, results: dict[int, DecodeResult]) -> None:
        """Keep the folder of a stopped build if it has decoded photographs; otherwise remove it."""
        decoded = sum(not result.problem for result in results.values())
        if decoded:
            log.info("stopped; %d of %d photographs are decoded and kept", decoded, len(self.manifest.frame))
        else:
            shutil.rmtree(building, ignore_errors=True)

    def _remove_outdated(self) -> None:
        """Remove stopped builds of the same source and size with another key, because files have changed since."""
        for building in self.path.parent.glob("*.building"):
            is_own = building.stem == self.path.name
            if not is_own and read_source(building / JOURNAL_NAME) == (str(self.manifest.root), self.size):
                with suppress(Timeout, OSError), FileLock(building.with_suffix(".lock"), timeout=0):
                    shutil.rmtree(building, ignore_errors=True)

    def to_bad_rows(self, bad: list[tuple[int, str]]) -> list[BadRow]:
        """Convert positions and problems to `BadRow`, with the label file's line and the photograph's name."""
        rows = self.manifest.frame.iloc[[position for position, _ in bad]]
        labels = zip(rows["where"], rows["image"], bad, strict=True)
        return [BadRow(where, image, problem) for where, image, (_, problem) in labels]

    def _reserve(self, path: Path) -> ArrayFile:
        try:
            return reserve(path, len(self.manifest.frame), self.size)
        except DiskError:
            self._remove_outdated()  # outdated builds may take the room
            return reserve(path, len(self.manifest.frame), self.size)

    def _fill(
        self, array_file: ArrayFile, journal: Journal, workers: int, progress: CountProgress
    ) -> tuple[list[DecodeResult], int]:
        """Decode what is not yet in the array; return the results of all photographs and the number decoded now."""
        n = len(self.manifest.frame)
        done = _find_intact(journal.results, array_file, n, workers)
        before = len(done)
        resumed = f"; {before} of them are already decoded by a build that was stopped" if before else ""
        log.info("decoding %d photographs of %s to %d pixels%s", n, self.manifest.root, self.size, resumed)
        progress(before, n)
        for results in self._decode(array_file, done, workers, journal.descriptor):
            journal.add(results)
            done.update((result.row, result) for result in results)
            progress(len(done), n)
        return [done[row] for row in range(n)], n - before

    def _rehash_jpegs(self, results: list[DecodeResult], workers: int) -> list[DecodeResult]:
        """Hash JPEGs at their full size that may have the same pixels as a file of another format."""
        paths = self.manifest.frame["path"].to_numpy()
        good = {result.row: str(paths[result.row]) for result in results if not result.problem}
        jpegs = [(row, good[row]) for row in jpegs_sized_like_other_formats(good)]
        chunks = [jpegs[first : first + CHUNK_SIZE] for first in range(0, len(jpegs), CHUNK_SIZE)]
        hashes = process_pool.map_unordered(
            partial(process_pool.map_numbered, function=hash_file),
            chunks,
            workers if len(jpegs) >= MIN_PARALLEL_PHOTOGRAPHS else 1,
            purpose="decodes photographs",
            describe=lambda chunk: f"it was at {chunk[0][1]} or one of the {len(chunk) - 1} after it",
        )
        full_digests = {row: digest for chunk in hashes for row, digest in chunk}
        return [replace(result, digest=full_digests.get(result.row, result.digest)) for result in results]

    def _finish(self, array_file: ArrayFile, results: list[DecodeResult], on_bad: str, start: float) -> None:
        """Remove the gaps of bad photographs from the array, write the index and sync both to the disk."""
        n = len(results)
        bad = [(result.row, result.problem) for result in results if result.problem]
        raise_if_bad(self.to_bad_rows(bad), self.manifest.root, on_bad)
        if len(bad) == n:
            raise DataError(f"{self.manifest.root}: none of its {n} photographs can be read; {bad[0][1]}")
        if bad:
            compact_rows(array_file, _other_rows(bad, n).tolist())
        index = {
            "source": str(self.manifest.root),
            "preprocessing": PREPROCESSING,
            "photographs": n - len(bad),
            "image_size": self.size,
            "bad": bad,
            "digests": [result.digest for result in results if not result.problem],
            "discless": [result.row for result in results if not (result.disc or result.problem)],
            "seconds": round(time.perf_counter() - start, 3),
        }
        pixels = Path(array_file.path)
        (pixels.parent / "index.json").write_text(json.dumps(index, indent=1))
        for path in (pixels, pixels.parent / "index.json", pixels.parent):
            _sync(path)

    def _decode(
        self, array_file: ArrayFile, done: dict[int, DecodeResult], workers: int, inherited: int
    ) -> Iterator[list[DecodeResult]]:
        """Decode the photographs that are not done: first image files, then rows of npz arrays."""
        frame = self.manifest.frame[["path", "array", "index"]].assign(row=np.arange(len(self.manifest.frame)))
        frame = frame[~frame["row"].isin(list(done))]
        files, array_rows = frame[frame["array"] == ""], frame[frame["array"] != ""]
        jobs: list[Job] = list(zip(files["row"].tolist(), files["path"], strict=True))
        length = max(min(CHUNK_SIZE, len(jobs) // (4 * workers)), 1)
        chunks = (jobs[first : first + length] for first in range(0, len(jobs), length))
        total_bytes = self.total_bytes * len(jobs) / len(self.manifest.frame)
        if workers > 1 and (
            len(jobs) >= MIN_PARALLEL_PHOTOGRAPHS or (len(jobs) > 1 and total_bytes > MIN_PARALLEL_BYTES)
        ):
            yield from decode_in_processes(chunks, array_file, workers, inherited)
        else:
            yield from (decode(chunk, array_file) for chunk in chunks)
        for (path, array), group in array_rows.groupby(["path", "array"], sort=False):
            rows = list(zip(group["row"].tolist(), group["index"].tolist(), strict=True))
            yield from _write_npz_rows(str(path), str(array), rows, array_file)


def _find_intact(
    results: dict[int, DecodeResult], array_file: ArrayFile, n: int, threads: int
) -> dict[int, DecodeResult]:
    """Return the earlier results whose rows are still in the file as they were written."""
    checksums = {row: result.checksum for row, result in results.items() if not result.problem}
    if len(checksums) < len(results) == n:  # all was decoded, so the build may have been stopped in `compact_rows`
        restore_rows(array_file, checksums)
    return {row: results[row] for row in find_intact_rows(array_file, checksums, threads)}


def _write_npz_rows(
    path: str, array: str, rows: list[tuple[int, int]], array_file: ArrayFile
) -> Iterator[list[DecodeResult]]:
    """Write photographs of an array of an npz file, in this process because they need no decoding."""
    try:
        photographs = npz.load(path, array)
    except DataError as error:
        yield [DecodeResult(row, problem=str(error)) for row, _ in rows]
        return
    with Path(array_file.path).open("r+b") as file:
        for row, index in rows:
            if not 0 <= index < len(photographs):
                yield [DecodeResult(row, problem=f"{path}: {array} has {len(photographs)} rows, no row {index}")]
                continue
            yield [write_photograph(photographs[index], row, array_file, file)]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
