"""An npz file whose header claims more than it holds is refused before anything is allocated."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from retina.config import DataConfig
from retina.data import layouts
from retina.data.layouts import npz as arrays
from retina.errors import DataError


def npy(shape: tuple[int, ...], content: bytes, kind: str = "|u1") -> bytes:
    """An npy file that says `shape` and holds `content`."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def npz(path: Path, images: bytes, labels: bytes, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("train_images.npy", images)
        archive.writestr("train_labels.npy", labels)
    return path


IMAGES = npy((4, 28, 28, 3), bytes(range(256)) * 36 + bytes(192))
LABELS = npy((4, 1), bytes([0, 1, 2, 3]))
HUGE = (4_000_000, 28, 28, 3)  # 9.4 GB


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
@pytest.mark.parametrize(
    ("images", "labels", "which"),
    [(npy(HUGE, bytes(78_000)), LABELS, "train_images"), (IMAGES, npy((9_408_000_000,), bytes(4)), "train_labels")],
)
def test_more_than_the_file_holds_is_refused(
    tmp_path: Path, images: bytes, labels: bytes, which: str, how: int
) -> None:
    path = npz(tmp_path / "a.npz", images, labels, how)
    with pytest.raises(DataError, match=rf"a\.npz: {which} claims to be uint8 .*, which is 9,408,000,000 by.*dam"):
        layouts.read(DataConfig(path=str(path)))
    with pytest.raises(DataError, match="9,408,000,000"):
        arrays.load(str(path), which)


def _directory_that_lies(path: Path) -> None:
    """The zip directory says of the photographs that they become 9.4 GB."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")  # of the first array
    content[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(bytes(content))


def test_a_directory_that_lies_is_not_believed(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", npy((1_800_000, 28, 28, 3), bytes(78_000)), LABELS)
    _directory_that_lies(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("train_images.npy").file_size == 2**32 - 2
    with pytest.raises(DataError, match="so it is damaged"):
        layouts.read(DataConfig(path=str(path)))


def test_what_does_not_fit_into_memory_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = npz(tmp_path / "a.npz", IMAGES, LABELS)
    assert arrays.load(str(path), "train_images").shape == (4, 28, 28, 3)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    with pytest.raises(DataError, match=r"needs 9,408 bytes of memory; 1,000 are free"):
        arrays.load(str(path), "train_images")


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _no_numbers(content: bytes) -> bytes:
    return content.replace(b"(4, 28, 28, 3)", b"(-4, 28, 28,3)")


def _objects(content: bytes) -> bytes:
    return content.replace(b"'|u1'", b"'|O' ")


@pytest.mark.parametrize("damage", [_cut, _no_numbers, _objects])
def test_other_damage_is_refused_by_name(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = npz(tmp_path / "a.npz", damage(IMAGES), LABELS)
    with pytest.raises(DataError, match=r"a\.npz: .*train_images"):
        arrays.load(str(path), "train_images")
    with pytest.raises(DataError, match=r"a\.npz: .*train_images"):
        layouts.read(DataConfig(path=str(path)))
