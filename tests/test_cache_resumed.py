"""A build of the cache that was stopped, wherever and by whatever: the next one decodes the rest, to the same bytes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from decoding import contents, draw, manifest_of, names, wanted
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retina.data import cache, decode
from retina.data.cache import PixelCache, open_cache
from retina.data.fundus import Pixels, read_square, to_square
from retina.data.rows import Target
from retina.errors import DataError

MANY = 70  # enough for processes of their own
SIZE = 32
BAD = (3, 40, 69)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One shows no disc, three cannot be read."""
    paths = draw(tmp_path_factory.mktemp("photographs"), MANY)
    Image.new("RGB", (80, 60)).save(paths[5])
    for row in BAD:
        paths[row].write_bytes(paths[row].read_bytes()[:900])
    return paths


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    return draw(tmp_path / "photographs", 24)


@dataclass
class Decoded:
    """The photographs that were read in this process."""

    paths: list[Path] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)

    def read(self, path: Path, size: int) -> tuple[Pixels, bool]:
        self.paths.append(path)
        if path in self.broken:
            raise DataError(f"{path}: cannot be read: the network is down")
        return read_square(path, size)

    def now(self) -> list[Path]:
        """Those since this was last asked."""
        before, self.paths = self.paths, []
        return before


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    seen = Decoded()
    monkeypatch.setattr(decode, "read_square", seen.read)
    return seen


def stop_at(number: int) -> Callable[[int, int], None]:
    """What Ctrl-C does once so many photographs are decoded."""

    def progress(done: int, _: int) -> None:
        if done >= number:
            raise KeyboardInterrupt

    return progress


def stopped(paths: list[Path], folder: Path, number: int, **how: Any) -> Path:
    """The folder of a build that was interrupted after so many photographs or a few more."""
    with pytest.raises(KeyboardInterrupt):
        open_cache(manifest_of(paths), SIZE, folder=folder, progress=stop_at(number), **how)
    (left,) = folder.glob("*.building")
    return left


def noted(building: Path) -> set[int]:
    """Rows that a journal says are decoded: those without a problem in the last word on them."""
    last: dict[int, str] = {}
    for line in (building / "done.jsonl").read_text().split("\n")[1:]:
        try:
            last.update((row, problem) for row, _, problem, _ in json.loads(line))
        except ValueError:
            continue
    return {row for row, problem in last.items() if not problem}


def fresh(paths: list[Path], folder: Path, on_bad: str = "stop") -> dict[str, Any]:
    return contents(open_cache(manifest_of(paths), SIZE, folder=folder, on_bad=on_bad).path)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_build_is_gone_on_with(
    good: list[Path], tmp_path: Path, decoded: Decoded, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "FEW", 20)  # of 24: processes for the first build, not for what is left
    building = stopped(good, tmp_path / "c", 9, workers=workers)
    done = noted(building)
    assert 9 <= len(done) < len(good)
    decoded.now()
    told: list[tuple[int, int]] = []
    got = open_cache(manifest_of(good), SIZE, folder=tmp_path / "c", progress=lambda *two: told.append(two))
    assert decoded.now() == [path for row, path in enumerate(good) if row not in done]
    assert (got.built, got.decoded) == (True, len(good) - len(done))
    assert (told[0], told[-1]) == ((len(done), len(good)), (len(good), len(good)))
    assert names(tmp_path / "c") == [got.path.name]
    assert names(got.path) == ["index.json", "pixels.npy"]
    assert contents(got.path) == fresh(good, tmp_path / "fresh")
    assert np.array_equal(got.pixels, wanted(good, SIZE))


# Run with the folders of the photographs, the cache and the tests, and how many it decodes before it kills itself.
SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from decoding import manifest_of
from retina.data.cache import open_cache

before = None
def progress(done, total):
    global before
    before = done if before is None else before
    print(done, flush=True)
    if done - before >= int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

paths = sorted(Path(sys.argv[1]).iterdir())
open_cache(manifest_of(paths), 32, on_bad="skip", workers=2, folder=Path(sys.argv[2]), progress=progress)
"""


def script(photographs: Path, folder: Path, number: int) -> subprocess.Popen[str]:
    here = Path(__file__).resolve().parent
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(photographs), str(folder), str(here), str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(here.parent)},
    )


def test_a_build_that_is_killed_again_and_again_decodes_each_photograph_once(many: list[Path], tmp_path: Path) -> None:
    folder, chance = tmp_path / "c", random.Random(0)  # noqa: S311  # moments to kill at
    before: set[int] = set()
    for _ in range(4):
        with script(many[0].parent, folder, number=chance.randrange(4, 16)) as killed:
            said = killed.communicate(timeout=60)[0].split()
        assert killed.returncode == -signal.SIGKILL
        assert int(said[0]) == len(before)  # all that the journal says was taken up
        (left,) = folder.glob("*.building")
        after = noted(left)
        assert before < after
        assert len(after) < MANY - len(BAD)
        before = after
    got = open_cache(manifest_of(many), SIZE, on_bad="skip", workers=2, folder=folder)
    assert (got.built, got.decoded) == (True, MANY - len(before))
    assert names(folder) == [got.path.name]
    assert contents(got.path) == fresh(many, tmp_path / "fresh", "skip")


def test_a_build_that_is_killed_at_any_moment_ends_the_same(many: list[Path], tmp_path: Path) -> None:
    folder, chance = tmp_path / "c", random.Random(1)  # noqa: S311
    for _ in range(4):
        with script(many[0].parent, folder, number=MANY) as killed:
            assert killed.stdout is not None
            for _ in range(chance.randrange(1, 5)):
                killed.stdout.readline()
            time.sleep(chance.random() / 50)
            killed.kill()
    got = open_cache(manifest_of(many), SIZE, on_bad="skip", workers=2, folder=folder)
    assert names(folder) == [got.path.name]
    assert contents(got.path) == fresh(many, tmp_path / "fresh", "skip")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_who_takes_up_a_killed_build_waits_for_its_processes(tmp_path: Path) -> None:
    """One of them reads a photograph that does not come: its parent is killed, and it would yet write into a row."""
    paths = draw(tmp_path / "photographs", MANY)
    slow = tmp_path / "photographs" / "0.jpg"
    os.mkfifo(slow)
    with script(paths[0].parent, tmp_path / "c", number=1) as killed:
        assert killed.wait(timeout=60) == -signal.SIGKILL
    (left,) = (tmp_path / "c").glob("*.building")
    with (left / "done.jsonl").open("ab") as journal:
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            slow.open("wb").close()
        fcntl.flock(journal, fcntl.LOCK_EX)  # it has ended


def breaking(writes: int) -> Callable[[Target, BinaryIO, int, bytes], None]:
    """A `Target.write` of which so many succeed, the last one by half; the system lives, the process does not."""
    left = writes

    def write(target: Target, file: BinaryIO, row: int, data: bytes) -> None:
        nonlocal left
        left -= 1
        file.seek(target.offset + row * target.row_bytes)
        file.write(data if left else data[: len(data) // 2])
        file.flush()
        if not left:
            raise KeyboardInterrupt

    return write


@dataclass(frozen=True)
class Stop:
    """A build that is stopped at one of its writes.

    Attributes:
        writes: until then; decoding needs one a photograph, closing up one more for many of them.
        torn: bytes that the journal lacks afterwards.
        lost: rows that a power cut took from the disk.
    """

    writes: int
    torn: int = 0
    lost: frozenset[int] = frozenset()


stops = st.builds(
    Stop,
    writes=st.integers(1, 24),
    torn=st.just(0) | st.integers(0, 400),
    lost=st.just(frozenset()) | st.frozensets(st.integers(0, 11), max_size=6),
)


@pytest.fixture(scope="module")
def dozen(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, Any]]:
    """Twelve photographs, two of which cannot be read, and what a build of them comes to."""
    paths = draw(tmp_path_factory.mktemp("dozen"), 12)
    for row in (1, 6):
        paths[row].write_text("no photograph")
    return paths, fresh(paths, tmp_path_factory.mktemp("fresh"), "skip")


@settings(max_examples=40, deadline=None)
@given(several=st.lists(stops, min_size=1, max_size=4))
def test_wherever_a_build_stops_the_next_one_comes_to_the_same(
    dozen: tuple[list[Path], dict[str, Any]], several: list[Stop]
) -> None:
    paths, want = dozen
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder, seen, damaged = Path(name), Decoded(), False
        patch.setattr(decode, "read_square", seen.read)
        for stop in [*several, Stop(writes=10**6)]:
            done = {paths[row] for left in folder.glob("*.building") for row in noted(left)}
            build_until(stop, paths, folder)
            again = done & set(seen.now())
            assert damaged or not again
            damaged |= bool(stop.torn or stop.lost)
        got = open_cache(manifest_of(paths), SIZE, on_bad="skip", folder=folder)
        assert not got.built
        assert contents(got.path) == want
        assert names(folder) == [got.path.name]


def build_until(stop: Stop, paths: list[Path], folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Target, "write", breaking(stop.writes))
        open_cache(manifest_of(paths), SIZE, on_bad="skip", workers=1, folder=folder)
    for left in folder.glob("*.building"):
        journal = left / "done.jsonl"
        os.truncate(journal, max(journal.stat().st_size - stop.torn, 0))
        with (left / "pixels.npy").open("r+b") as pixels:
            for row in stop.lost:
                pixels.seek(128 + row * SIZE**2 * 3)
                pixels.write(bytes(SIZE**2 * 3))


def _other_size(journal: Path) -> None:
    header, *lines = journal.read_text().split("\n")
    journal.write_text("\n".join([json.dumps(json.loads(header) | {"image_size": 33}), *lines]))


def _other_format(journal: Path) -> None:
    header, *lines = journal.read_text().split("\n")
    journal.write_text("\n".join([json.dumps(json.loads(header) | {"journal": 2}), *lines]))


def _no_header(journal: Path) -> None:
    journal.write_text("\n".join(journal.read_text().split("\n")[1:]))


def _garbage(journal: Path) -> None:
    journal.write_bytes(bytes(500) + b"\n\xff\xfe{]\n")


def _gone(journal: Path) -> None:
    journal.unlink()


@pytest.mark.parametrize("change", [_other_size, _other_format, _no_header, _garbage, _gone])
def test_a_journal_of_something_else_is_not_believed(
    good: list[Path], tmp_path: Path, decoded: Decoded, change: Callable[[Path], None]
) -> None:
    building = stopped(good, tmp_path / "c", 9, workers=1)
    change(building / "done.jsonl")
    decoded.now()
    stopped(good, tmp_path / "c", 9, workers=1)
    assert decoded.now() == good[: len(noted(building))]  # from the first one on
    got = open_cache(manifest_of(good), SIZE, folder=tmp_path / "c")
    assert decoded.now() == good[-got.decoded :]  # and what was noted anew is believed
    assert contents(got.path) == fresh(good, tmp_path / "fresh")


LINES = [b"", b"[]", b"7", b"{}", b"[[1,true]]", b"[[99,true,\"\",7]]", b"[[\"1\",true,\"\",7]]", b"[[0,true,\"\",1]]",
         b"[[3,true,", b"\x00\x00\x00", b"\xff"]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_lines_of_a_journal_that_make_no_sense_are_passed_over(
    good: list[Path], tmp_path: Path, decoded: Decoded, line: bytes
) -> None:
    building = stopped(good, tmp_path / "c", 9, workers=1)
    with (building / "done.jsonl").open("ab") as journal:
        journal.write(line)  # and no end of line: torn
    before = noted_despite(building, line)
    decoded.now()
    stopped(good, tmp_path / "c", 15, workers=1)
    got = open_cache(manifest_of(good), SIZE, folder=tmp_path / "c")
    assert len(decoded.now()) == len(good) - before
    assert contents(got.path) == fresh(good, tmp_path / "fresh")


def noted_despite(building: Path, line: bytes) -> int:
    """Rows that are decoded: all that the lines before say, but the one of which the last tells another checksum."""
    content = (building / "done.jsonl").read_bytes().removesuffix(line).decode()
    rows = [entry[0] for text in content.split("\n")[1:-1] for entry in json.loads(text)]
    return len(rows) - (line == b'[[0,true,"",1]]')


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
    assert [bad.image for bad in got.bad] == ["011"]
    assert np.array_equal(got.pixels, wanted(good[:11] + good[12:], SIZE))
    assert names(folder) == [got.path.name]


def test_a_network_that_is_back_heals_a_refused_build(good: list[Path], tmp_path: Path, decoded: Decoded) -> None:
    decoded.broken = {good[0], good[-1]}
    with pytest.raises(DataError, match="2 of the photographs"):
        open_cache(manifest_of(good), SIZE, folder=tmp_path / "c")
    decoded.broken = set()
    got = open_cache(manifest_of(good), SIZE, folder=tmp_path / "c")
    assert (got.decoded, got.bad) == (2, [])
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
    monkeypatch.setattr("retina.data.rows.shutil.disk_usage", lambda path: usage(10**9, 0, of(path)))


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
        with pytest.raises(DataError, match=r"24 photographs .* 10 are free"):
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
    def full(target: Target, file: BinaryIO, row: int, data: bytes) -> None:
        if row == 15:
            raise OSError(28, "No space left on device")
        write(target, file, row, data)

    write = Target.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Target, "write", full)
        with pytest.raises(DataError, match=r"building: photographs cannot be decoded into it: .*No space left"):
            open_cache(manifest_of(good), SIZE, workers=1, folder=tmp_path / "c")
    got = open_cache(manifest_of(good), SIZE, folder=tmp_path / "c")
    assert got.decoded < len(good)
    assert contents(got.path) == fresh(good, tmp_path / "fresh")


def test_arrays_of_an_npz_are_gone_on_with_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "a.npz", []
    np.savez(path, train=np.random.default_rng(0).integers(0, 256, (9, 40, 40, 3), dtype=np.uint8))

    def counted(photograph: Pixels, size: int) -> tuple[Pixels, bool]:
        seen.append(photograph)
        return to_square(photograph, size)

    monkeypatch.setattr(cache, "to_square", counted)
    manifest = manifest_of([path] * 9, "train", list(range(9)))
    with pytest.raises(KeyboardInterrupt):
        open_cache(manifest, SIZE, folder=tmp_path / "c", progress=stop_at(4))
    got: PixelCache = open_cache(manifest, SIZE, folder=tmp_path / "c")
    assert (len(seen), got.decoded, got.discless) == (9, 5, 9)
    assert contents(got.path) == contents(open_cache(manifest, SIZE, folder=tmp_path / "fresh").path)
