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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from cache_builder import SIZE, Decoded, contents, draw, expected_pixels, fresh, manifest_of, names, noted, stopped
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from repository import HELPERS, ROOT

from retina.data.cache import decode, pixel_cache
from retina.data.cache.array_file import ArrayFile
from retina.data.cache.pixel_cache import open_cache

MANY = 70  # enough for processes of their own
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


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_build_is_gone_on_with(
    good: list[Path], tmp_path: Path, decoded: Decoded, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pixel_cache, "MIN_PARALLEL_PHOTOGRAPHS", 20
    )  # of 24: processes for the first build, not for what is left
    building = stopped(good, tmp_path / "c", 9, workers=workers)
    done = noted(building)
    assert 9 <= len(done) < len(good)
    decoded.now()
    result: list[tuple[int, int]] = []
    got = open_cache(manifest_of(good), SIZE, folder=tmp_path / "c", progress=lambda *two: result.append(two))
    assert decoded.now() == [path for row, path in enumerate(good) if row not in done]
    assert (got.built, got.decoded) == (True, len(good) - len(done))
    assert (result[0], result[-1]) == ((len(done), len(good)), (len(good), len(good)))
    assert names(tmp_path / "c") == [got.path.name]
    assert names(got.path) == ["index.json", "pixels.npy"]
    assert contents(got.path) == fresh(good, tmp_path / "fresh")
    assert np.array_equal(got.pixels, expected_pixels(good, SIZE))


# Run with the folders of the photographs, the cache and the tests, and how many it decodes before it kills itself.
SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from cache_builder import manifest_of
from retina.data.cache.pixel_cache import open_cache

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
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(photographs), str(folder), str(HELPERS), str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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


def breaking(writes: int) -> Callable[[ArrayFile, BinaryIO, int, bytes], None]:
    """A `ArrayFile.write` of which so many succeed, the last one by half; the system lives, the process does not."""
    left = writes

    def write(target: ArrayFile, file: BinaryIO, row: int, data: bytes) -> None:
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
        patch.setattr(decode, "read", seen.read)
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
        patch.setattr(ArrayFile, "write", breaking(stop.writes))
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
    journal.write_text("\n".join([json.dumps(json.loads(header) | {"journal": 1}), *lines]))


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


LINES = [b"", b"[]", b"7", b"{}", b"[[1,true]]", b"[[99,true,\"\",7,\"\"]]",
         b"[[\"1\",true,\"\",7,\"\"]]", b"[[0,true,\"\",1]]", b"[[0,true,\"\",1,\"ab\"]]",
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
    return len(rows) - (line == b'[[0,true,"",1,"ab"]]')
