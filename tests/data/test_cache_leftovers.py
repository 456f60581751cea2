"""What builds of the cache that were refused, stopped or left behind mean for those after them, and for a full disk."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from cache_builder import (
    SIZE,
    Decoded,
    contents,
    draw,
    expected_pixels,
    fresh,
    manifest_of,
    names,
    noted,
    stop_at,
    stopped,
)
from filelock import FileLock

from retina.data.cache import decode
from retina.data.cache.array_file import ArrayFile
from retina.data.cache.pixel_cache import PixelCache, open_cache
from retina.data.fundus import Pixels, to_square
from retina.errors import DataError, DiskError


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    return draw(tmp_path / "photographs", 24)


def test_after_a_refusal_only_photographs_with_problems_are_looked_at_again(
    good: list[Path], tmp_path: Path, decoded: Decoded
) -> None:
    folder = tmp_path / "c"
    decoded.broken = {good[4], good[11]}
    for again in (False, True):
        with pytest.raises(DataError, match=r"2 of the photographs[^|]*labels.csv:6: 004: [^|]*labels.csv:13: 011: "):
            open_cache(manifest_of(good), SIZE, folder=folder)
        assert decoded.now() == ([good[4], good[11]] if again else good)
        assert [name.endswith(".building") for name in names(folder)] == [True]
    decoded.broken = {good[11]}
    got = open_cache(manifest_of(good), SIZE, folder=folder, on_bad="skip")
    assert decoded.now() == [good[4], good[11]]
    assert [bad.image for bad in got.bad_rows] == ["011"]
    assert np.array_equal(got.pixels, expected_pixels(good[:11] + good[12:], SIZE))
    assert names(folder) == [got.path.name]


def test_a_network_that_is_back_heals_a_refused_build(good: list[Path], tmp_path: Path, decoded: Decoded) -> None:
    decoded.broken = {good[0], good[-1]}
    with pytest.raises(DataError, match="2 of the photographs"):
        open_cache(manifest_of(good), SIZE, folder=tmp_path / "c")
    decoded.broken = set()
    got = open_cache(manifest_of(good), SIZE, folder=tmp_path / "c")
    assert (got.decoded, got.bad_rows) == (2, [])
    assert contents(got.path) == fresh(good, tmp_path / "fresh")


def test_what_other_versions_and_changed_photographs_have_left_is_removed(good: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "c"
    key = stopped(good, folder, 9, workers=1).stem
    os.utime(good[0], ns=(1, 1))  # a file was repaired: nobody takes up what was begun
    other = draw(tmp_path / "others", 24)
    elsewhere = stopped(other[:20], folder / "x", 9, workers=1)
    elsewhere.rename(folder / elsewhere.name)  # of other photographs
    held = stopped(good[:20], folder / "y", 9, workers=1)
    held.rename(folder / held.name)  # of a build that runs
    with FileLock(folder / f"{held.stem}.lock"):
        got = open_cache(manifest_of(good), SIZE, folder=folder)
    assert got.path.name != key
    assert names(folder) == sorted(["x", "y", got.path.name, elsewhere.name, held.name])
    old = folder / f"{got.path.name}.building-123-abc"
    old.mkdir()
    (old / "pixels.npy").write_bytes(b"begun")
    (got.path / "index.json").unlink()
    open_cache(manifest_of(good), SIZE, folder=folder)
    assert not old.exists()


def free(monkeypatch: pytest.MonkeyPatch, of: Callable[[Path], int]) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr("retina.data.cache.array_file.shutil.disk_usage", lambda path: usage(10**9, 0, of(path)))


def test_a_build_that_is_gone_on_with_has_its_space(
    good: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(good, tmp_path / "c", 9, workers=1)
    free(monkeypatch, lambda _: 0)
    assert open_cache(manifest_of(good), SIZE, folder=tmp_path / "c").decoded < len(good)


def test_a_full_disk_takes_nothing_from_a_build_that_was_stopped(
    good: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: Decoded
) -> None:
    building = stopped(good, tmp_path / "c", 9, workers=1)
    os.truncate(building / "pixels.npy", 128 + 16 * SIZE**2 * 3)  # a system that cannot take space ahead
    done = len(noted(building))
    with monkeypatch.context() as full:
        free(full, lambda _: 10)
        with pytest.raises(DiskError, match=r"24 photographs .* 10 are free"):
            open_cache(manifest_of(good), SIZE, folder=tmp_path / "c")
    assert open_cache(manifest_of(good), SIZE, folder=tmp_path / "c").decoded == len(good) - done


def test_where_space_is_short_what_was_begun_of_changed_photographs_goes_first(
    good: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = stopped(good, tmp_path / "c", 9, workers=1)
    os.utime(good[0], ns=(1, 1))
    free(monkeypatch, lambda _: 0 if left.exists() else 10**6)
    assert open_cache(manifest_of(good), SIZE, folder=tmp_path / "c").decoded == len(good)


def test_a_disk_that_fills_up_is_told_and_what_was_decoded_is_kept(good: list[Path], tmp_path: Path) -> None:
    def full(target: ArrayFile, file: BinaryIO, row: int, data: bytes) -> None:
        if row == 15:
            raise OSError(28, "No space left on device")
        write(target, file, row, data)

    write = ArrayFile.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArrayFile, "write", full)
        with pytest.raises(DiskError, match=r"building: photographs cannot be decoded into it: No space left"):
            open_cache(manifest_of(good), SIZE, workers=1, folder=tmp_path / "c")
    got = open_cache(manifest_of(good), SIZE, folder=tmp_path / "c")
    assert got.decoded < len(good)
    assert contents(got.path) == fresh(good, tmp_path / "fresh")


@pytest.mark.parametrize("full", ["mkdir", "open"])
def test_a_disk_without_room_for_a_folder_is_told(
    good: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    begun = getattr(Path, full)

    def refuse(path: Path, *given: Any, **more: Any) -> Any:
        if ".building" in str(path):
            raise OSError(28, "No space left on device")
        return begun(path, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, full, refuse)
        with pytest.raises(DiskError, match=r"building: photographs cannot be decoded into it: No space left"):
            open_cache(manifest_of(good), SIZE, workers=1, folder=tmp_path / "c")
    assert open_cache(manifest_of(good), SIZE, folder=tmp_path / "c").decoded == len(good)


def test_arrays_of_an_npz_are_gone_on_with_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "a.npz", []
    np.savez(path, train=np.random.default_rng(0).integers(0, 256, (9, 40, 40, 3), dtype=np.uint8))

    def counted(photograph: Pixels, size: int) -> tuple[Pixels, bool]:
        seen.append(photograph)
        return to_square(photograph, size)

    monkeypatch.setattr(decode, "to_square", counted)
    manifest = manifest_of([path] * 9, "train", list(range(9)))
    with pytest.raises(KeyboardInterrupt):
        open_cache(manifest, SIZE, folder=tmp_path / "c", progress=stop_at(4))
    got: PixelCache = open_cache(manifest, SIZE, folder=tmp_path / "c")
    assert (len(seen), got.decoded, got.without_disc) == (9, 5, 9)
    assert contents(got.path) == contents(open_cache(manifest, SIZE, folder=tmp_path / "fresh").path)
