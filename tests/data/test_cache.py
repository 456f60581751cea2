"""The cache of decoded photographs: right pixels, never half a cache, one build for many askers."""

import json
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_builder import draw, expected_pixels, manifest_of, names
from PIL import Image
from repository import HELPERS, ROOT

from retina.data.cache import decode, pixel_cache
from retina.data.cache.pixel_cache import PixelCache, cache_folder, open_cache
from retina.data.manifest import Manifest
from retina.errors import DataError, DiskError

MANY = 70  # enough for processes of their own


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("photographs"), MANY)


@pytest.fixture
def few(tmp_path: Path) -> list[Path]:
    return draw(tmp_path / "photographs", 6)


def nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pixel_cache, "write_photograph", fail)
    monkeypatch.setattr(decode, "read", fail)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_photograph_is_in_its_row(many: list[Path], tmp_path: Path, workers: int) -> None:
    result: list[tuple[int, int]] = []
    got = open_cache(
        manifest_of(many), 32, workers=workers, folder=tmp_path / "c", progress=lambda *two: result.append(two)
    )
    assert isinstance(got.pixels, np.memmap)
    assert got.pixels.dtype == np.uint8
    assert not got.pixels.flags.writeable
    assert np.array_equal(got.pixels, expected_pixels(many, 32))
    assert np.array_equal(got.kept_rows, np.arange(MANY))
    assert (got.built, got.decoded, got.bad_rows, got.without_disc) == (True, MANY, [], 0)
    assert result[0] == (0, MANY)
    assert result[-1] == (MANY, MANY)
    assert result == sorted(result)
    assert names(tmp_path / "c") == [got.path.name]
    assert np.array_equal(np.load(got.path / "pixels.npy"), got.pixels)


def test_the_second_time_it_is_only_mapped(few: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = manifest_of(few)
    first = open_cache(manifest, 32)
    assert first.path.parent == cache_folder()
    nothing_is_decoded(monkeypatch)
    manifest.frame["grade"], manifest.frame["split"] = 3, "test"  # neither changes a pixel
    again = open_cache(manifest, 32)
    assert (again.built, again.decoded) == (False, 0)
    assert again.path == first.path
    assert np.array_equal(again.pixels, first.pixels)


def test_other_pixels_have_another_key(few: list[Path], tmp_path: Path) -> None:
    def key(paths: list[Path], size: int = 32) -> str:
        return open_cache(manifest_of(paths), size, folder=tmp_path / "c").path.name

    keys = [key(few), key(few, 33), key(few[::-1]), key(few[1:])]
    status = few[2].stat()
    Image.new("RGB", (50, 50), (200, 100, 0)).save(few[2])
    os.utime(few[2], ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    keys.append(key(few))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_photographs_stop_or_are_left_out(tmp_path: Path, workers: int) -> None:
    paths = draw(tmp_path / "p", MANY)
    paths[3].write_bytes(paths[3].read_bytes()[:900])
    paths[40].unlink()
    paths[69].write_text("no picture")
    Image.new("RGB", (80, 60)).save(paths[5])  # black: no disc, but not bad
    manifest, folder = manifest_of(paths), tmp_path / "c"
    with pytest.raises(DataError, match=r"3 of the photographs[^|]*labels.csv:5: 003: [^|]*:42: 040: [^|]*:71: 069: "):
        open_cache(manifest, 24, workers=workers, folder=folder)
    good = [i for i in range(MANY) if i not in {3, 40, 69}]
    for built in (True, False):
        got = open_cache(manifest, 24, on_bad="skip", workers=workers, folder=folder)
        assert got.built == built
        assert got.kept_rows.tolist() == good
        assert [bad.image for bad in got.bad_rows] == ["003", "040", "069"]
        assert got.without_disc == 1
        assert np.array_equal(got.pixels, expected_pixels([paths[i] for i in good], 24))
        assert names(folder) == [got.path.name]
    with pytest.raises(DataError, match="3 of the photographs"):
        open_cache(manifest, 24, folder=folder)


def test_many_bad_ones_are_ten_and_a_total_and_none_good_is_an_error(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.jpg" for i in range(12)]
    with pytest.raises(DataError, match="and 2 more"):
        open_cache(manifest_of(paths), 24)
    with pytest.raises(DataError, match="none of its 12 photographs can be read"):
        open_cache(manifest_of(paths), 24, on_bad="skip")
    manifest = manifest_of(paths)
    with pytest.raises(DataError, match="no photographs"):
        open_cache(Manifest(manifest.frame.iloc[:0], "folders", tmp_path), 24)


def _shorten(folder: Path) -> None:
    os.truncate(folder / "pixels.npy", 4000)


def _empty(folder: Path) -> None:
    (folder / "pixels.npy").write_bytes(b"")


def _garble(folder: Path) -> None:
    (folder / "index.json").write_text('{"photographs": 6, "bad"')


def _forget(folder: Path) -> None:
    (folder / "index.json").unlink()


def _other_shape(folder: Path) -> None:
    np.save(folder / "pixels.npy", np.zeros((6, 8, 8, 3), np.uint8))


def _other_json(folder: Path) -> None:
    (folder / "index.json").write_text(json.dumps(["bad"]))


def _of_a_zip(folder: Path) -> None:
    (folder / "pixels.npy").write_bytes(b"PK\x03\x04" + bytes(100))


def _with(key: str, value: Any) -> Callable[[Path], None]:
    """Another value of a key of index.json."""

    def damage(folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        if key == "bad":  # all else fits it
            index["digests"] = index["digests"][len(value) :]
            np.save(folder / "pixels.npy", np.zeros((6 - len(value), 32, 32, 3), np.uint8))
        (folder / "index.json").write_text(json.dumps({**index, key: value}))

    damage.__name__ = f"{key} {str(value)[:30]}"
    return damage


DAMAGES = [
    *(_shorten, _empty, _garble, _forget, _other_shape, _other_json, _of_a_zip),
    *(_with("bad", bad) for bad in ([3], [[99, "x"]], [[-1, "x"]], [["3", "x"]], [[3, 7]], [[3, "x"], [3, "x"]], {})),
    *(_with("digests", digests) for digests in ("abcdef", [1] * 6, None)),
    *(_with("discless", without_disc) for without_disc in ([6], ["a"], [1, 1], 3)),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_cache_is_built_again(few: list[Path], tmp_path: Path, damage: object) -> None:
    folder = tmp_path / "c"
    assert callable(damage)
    damage(open_cache(manifest_of(few), 32, folder=folder).path)
    got = open_cache(manifest_of(few), 32, on_bad="skip", folder=folder)
    assert got.built
    assert got.bad_rows == []
    assert np.array_equal(got.pixels, expected_pixels(few, 32))
    assert names(folder) == [got.path.name]


# Run with the folders of the photographs, of the cache and of the tests. It has no __main__ guard, and is a main script
# that must not be imported again.
SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from cache_builder import manifest_of
from retina.data.cache.pixel_cache import open_cache

def at_progress(done, total):
    print("started", flush=True)
    time.sleep(0.1)

got = open_cache(
    manifest_of(sorted(Path(sys.argv[1]).iterdir())), 32, workers=2, folder=Path(sys.argv[2]), progress=at_progress
)
print("built" if got.built else "mapped", int(got.pixels.sum(dtype="int64")), flush=True)
"""


def run_script(photographs: Path, folder: Path) -> subprocess.Popen[str]:
    script = folder.parent / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(photographs), str(folder), str(HELPERS)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_of_two_that_ask_at_once_one_builds(many: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "c"
    both = [run_script(many[0].parent, folder) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(words[-2] for words in said) == ["built", "mapped"]
    assert {int(words[-1]) for words in said} == {int(expected_pixels(many, 32).sum(dtype="int64"))}
    assert ["started" in words for words in said].count(True) == 1


def test_a_build_that_is_interrupted_before_anything_was_decoded_leaves_nothing(
    many: list[Path], tmp_path: Path
) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache(manifest_of(many), 32, workers=2, folder=tmp_path / "c", progress=interrupt)
    assert names(tmp_path / "c") == []


def test_a_process_that_dies_is_told_of(many: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DataError, match=r"process that decodes photographs died.*it was at .*\d{3}\.jpg"):
        open_cache(manifest_of(many), 32, workers=2, folder=tmp_path / "c")
    assert names(tmp_path / "c") == []


def test_the_processes_import_little() -> None:
    code = "import sys, retina.data.cache.decode; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = run.stdout.split()
    assert not {"torch", "pandas", "ray", "optuna", "pydantic", "matplotlib"} & set(modules)


def test_a_full_disk_is_told_with_both_numbers(
    few: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10, 0, 10)  # noqa: PYI024
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskError, match="need 18,432 bytes, 10 are free"):
        open_cache(manifest_of(few), 32, folder=tmp_path / "c")
    assert names(tmp_path / "c") == []


def test_a_folder_that_cannot_be_written_is_named(few: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="set RETINA_CACHE"):
        open_cache(manifest_of(few), 32, folder=tmp_path / "file" / "c")


def test_where_caches_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("RETINA_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "retina-sweeps"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "retina-sweeps"


def test_arrays_of_an_npz_are_cached_too(tmp_path: Path) -> None:
    photographs = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    path = tmp_path / "a.npz"
    np.savez(path, train=photographs, grey=photographs[..., 0], wide=photographs.astype(np.int64))

    def opened(array: str, rows: list[int], on_bad: str = "stop") -> PixelCache:
        return open_cache(manifest_of([path] * len(rows), array, rows), 16, folder=tmp_path / "c", on_bad=on_bad)

    assert np.array_equal(opened("train", [4, 0, 2]).pixels, photographs[[4, 0, 2]])
    assert opened("train", [0]).without_disc == 1
    assert np.array_equal(opened("grey", [1]).pixels[0], np.stack([photographs[1, ..., 0]] * 3, axis=-1))
    skipping = opened("train", [1, 5, 3], on_bad="skip")
    assert np.array_equal(skipping.pixels, photographs[[1, 3]])
    assert "no row 5" in skipping.bad_rows[0].problem
    with pytest.raises(DataError, match="uint8"):
        opened("wide", [0])
    with pytest.raises(DataError, match="cannot be read"):
        opened("absent", [0])


def test_retinamnist_at_its_own_size(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/retinamnist.npz"
    got = open_cache(manifest_of([path] * 120, "val_images", list(range(120))), 28, folder=tmp_path)
    same = (got.pixels == np.load(path)["val_images"]).all(axis=(1, 2, 3))
    assert same.mean() > 0.95


def test_real_photographs(shared: Path, tmp_path: Path) -> None:
    paths = sorted((shared / "data/idrid/originals").glob("*.jpg"))[:4]
    got = open_cache(manifest_of(paths), 128, folder=tmp_path)
    assert got.without_disc == 0
    assert (got.pixels[:, 64, 2:-2, 0] > 25).mean() > 0.95  # the disc reaches from side to side
    assert (got.pixels[:, :3] < 25).all()  # black above it
