"""Files with other than eight bits a channel: all that people have is read as bright as it is, or refused by name."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, UnidentifiedImageError

from retina.data import fundus, image_file
from retina.data.fundus import read
from retina.errors import DataError, DiskError

ROWS, COLUMNS = np.mgrid[:24, :32]
COLOUR = np.stack([ROWS * 8 + 10, COLUMNS * 4 + 5, 200 - ROWS * 5], axis=-1).astype(np.uint8)  # 5 to 200
GREY = COLOUR[..., 1]


def deep(values: np.ndarray, bits: int, kind: str = "u2") -> np.ndarray:
    """The same brightness with so many bits."""
    return np.rint(values.astype(np.float64) * ((2**bits - 1) / 255)).astype(kind)


def near(got: np.ndarray, wanted: np.ndarray, slack: int = 1) -> None:
    wanted = np.stack([wanted] * 3, axis=-1) if wanted.ndim == 2 else wanted
    assert got.dtype == np.uint8
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).max() <= slack


@contextlib.contextmanager
def into(pipe: Path, content: bytes) -> Iterator[None]:
    """Write into a pipe, once, from a process of its own: whoever opens it again waits for ever."""
    code = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    with subprocess.Popen([sys.executable, "-c", code, str(pipe)], stdin=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        writer.stdin.write(content)
        writer.stdin.close()
        yield


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("values", [COLOUR, GREY], ids=["rgb", "grey"])
def test_the_depth_in_use_is_found_in_every_format(tmp_path: Path, bits: int, values: np.ndarray) -> None:
    stored = deep(values, bits)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(stored))
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(stored, level=0, reversible=True))
    tifffile.imwrite(tmp_path / "a.tif", stored)
    magic, in_words = (b"P6", b"P3") if values.ndim == 3 else (b"P5", b"P2")
    (tmp_path / "a.ppm").write_bytes(magic + b"\n# a camera\n32 24\n65535\n" + stored.astype(">u2").tobytes())
    plain = in_words + b" 32 24 65535\n" + b" ".join(b"%d" % value for value in stored.flat)
    (tmp_path / "plain.ppm").write_bytes(plain)
    for name in ("a.png", "a.jp2", "a.tif", "a.ppm", "plain.ppm"):
        near(read(tmp_path / name), values)


TIFFS: dict[str, dict[str, Any]] = {
    "big-endian": {"byteorder": ">"},
    "lzw": {"compression": "lzw"},
    "deflate": {"compression": "deflate", "predictor": True},
    "packbits": {"compression": "packbits"},
    "tiled": {"tile": (16, 16)},
    "strips": {"rowsperstrip": 5},
    "bigtiff": {"bigtiff": True},
}


@pytest.mark.parametrize("how", TIFFS.values(), ids=TIFFS)
def test_tiffs_however_they_are_packed(tmp_path: Path, how: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", deep(COLOUR, 12), photometric="rgb", **how)
    near(read(tmp_path / "a.tif"), COLOUR)
    planar = np.moveaxis(deep(COLOUR, 16), -1, 0)
    tifffile.imwrite(tmp_path / "b.tif", planar, photometric="rgb", planarconfig="separate", **how)
    near(read(tmp_path / "b.tif"), COLOUR)


@pytest.mark.parametrize("bits", [10, 12])
def test_a_declared_depth_is_believed_however_dark_the_photograph(tmp_path: Path, bits: int) -> None:
    dark = GREY // 8
    (tmp_path / "a.pgm").write_bytes(b"P5 32 24 %d\n" % (2**bits - 1) + deep(dark, bits).astype(">u2").tobytes())
    near(read(tmp_path / "a.pgm"), dark)
    (tmp_path / "a.j2k").write_bytes(
        imagecodecs.jpeg2k_encode(deep(dark, bits), level=0, reversible=True, bitspersample=bits, codecformat="j2k")
    )
    near(read(tmp_path / "a.j2k"), dark)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_floats_are_0_to_1_or_as_whole_numbers(tmp_path: Path, kind: str) -> None:
    for full in (1, 255, 4095):
        values = (COLOUR / 255 * full).astype(kind)
        values[0, 0] = np.nan
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
        wanted = COLOUR.copy()
        wanted[0, 0] = 0
        near(read(tmp_path / "a.tif"), wanted, slack=1)
    values = COLOUR / np.float64(200)
    values[1, 1] = (1.04, -0.004, 1)  # as resampling leaves it
    tifffile.imwrite(tmp_path / "a.tif", values.astype(kind), photometric="rgb")
    assert read(tmp_path / "a.tif").max() == 255


@pytest.mark.parametrize(
    ("values", "result"),
    [
        (COLOUR.astype(np.int16) - 20, "its values are -15 to 180; brightness is finite and not below 0"),
        (COLOUR.astype(np.int8), "not below 0"),
        (np.where(COLOUR > 100, np.inf, 0.5).astype(np.float32), "its values are 0.5 to inf"),
        ((COLOUR / 100).astype(np.float32), "its values are 0.05 to 2; floats should be 0 to 1, or 0 to 255"),
    ],
)
def test_values_without_a_meaning_are_refused(tmp_path: Path, values: np.ndarray, result: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    with pytest.raises(DataError, match=rf"a\.tif: cannot be read as a photograph: .*{result}"):
        read(tmp_path / "a.tif")


def test_signed_and_wide_numbers_and_white_as_zero(tmp_path: Path) -> None:
    for kind in ("i2", "i4", "u4"):
        tifffile.imwrite(tmp_path / "a.tif", deep(COLOUR, 12, kind), photometric="rgb")
        near(read(tmp_path / "a.tif"), COLOUR)
    tifffile.imwrite(tmp_path / "a.tif", 65535 - deep(GREY, 16), photometric="miniswhite")
    near(read(tmp_path / "a.tif"), GREY)


def test_transparency_of_sixteen_bits_is_laid_over_black(tmp_path: Path) -> None:
    alpha = np.where(COLUMNS < 16, 65535, 0).astype(np.uint16)
    shown = np.where((alpha > 0)[..., None], COLOUR, 0)
    stored = deep(COLOUR, 12)
    stored[0, -1] = 65535  # under transparency there is anything
    rgba = np.dstack([stored, alpha])
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(rgba))
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "b.tif", rgba * (alpha > 0)[..., None], photometric="rgb", extrasamples=["assocalpha"])
    for name in ("a.png", "a.tif", "b.tif"):
        near(read(tmp_path / name), shown)
    tifffile.imwrite(tmp_path / "c.tif", rgba, photometric="rgb", extrasamples=["unspecified"])
    stored[0, -1] = 0
    tifffile.imwrite(tmp_path / "c.tif", np.dstack([stored, alpha]), photometric="rgb", extrasamples=["unspecified"])
    wanted = COLOUR.copy()
    wanted[0, -1] = 0
    near(read(tmp_path / "c.tif"), wanted)


def test_of_several_pages_and_frames_the_first_is_read(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(deep(COLOUR, 16), photometric="rgb")
        file.write(deep(255 - COLOUR, 16), photometric="rgb")
    near(read(tmp_path / "a.tif"), COLOUR)
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    for name, options in (("a.gif", {}), ("a.webp", {"lossless": True}), ("b.tif", {}), ("a.png", {})):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        near(read(tmp_path / name), COLOUR, slack=40 if name == "a.gif" else 0)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_orientation_counts_in_every_format(tmp_path: Path, name: str) -> None:
    laid = Image.fromarray(COLOUR).transpose(Image.Transpose.ROTATE_90)  # what 6 turns back
    laid.save(tmp_path / name, exif=exif(6), **({"lossless": True} if name == "a.webp" else {}))
    near(read(tmp_path / name), COLOUR, slack=0)


def test_orientation_counts_in_deep_files_too(tmp_path: Path) -> None:
    laid = np.ascontiguousarray(np.rot90(deep(COLOUR, 16)))
    tifffile.imwrite(tmp_path / "a.tif", laid, photometric="rgb", extratags=[(274, 3, 1, 6, False)])
    near(read(tmp_path / "a.tif"), COLOUR)
    content = imagecodecs.png_encode(laid)
    chunk = b"eXIf" + exif(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    near(read(tmp_path / "a.png"), COLOUR)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_and_in_those_that_pillow_does_not_open(tmp_path: Path, orientation: int) -> None:
    turned = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: np.rot90,
        7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    laid = np.ascontiguousarray(turned(COLOUR))
    for name, values in (("float.tif", (laid / 255).astype("f4")), ("wide.tif", deep(laid, 12, "u4"))):
        tifffile.imwrite(tmp_path / name, values, photometric="rgb", extratags=[(274, 3, 1, orientation, False)])
        with pytest.raises(UnidentifiedImageError):
            Image.open(tmp_path / name)
        near(read(tmp_path / name), COLOUR)
    content = imagecodecs.jpeg_encode(np.ascontiguousarray(deep(turned(GREY), 12)), level=98, bitspersample=12)
    block = b"Exif\0\0" + exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    (tmp_path / "a.jpg").write_bytes(
        content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]
    )
    near(read(tmp_path / "a.jpg"), GREY, slack=3)


@pytest.mark.parametrize("tag", [(274, 2, 3, "no", False), (274, 3, 1, 77, False), (274, 3, 2, (6, 6), False)])
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, tag: tuple[Any, ...]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", (COLOUR / 255).astype("f4"), photometric="rgb", extratags=[tag])
    near(read(tmp_path / "a.tif"), COLOUR)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_deep_files_that_are_cut_short_are_refused(tmp_path: Path, share: float) -> None:
    noisy = np.random.default_rng(0).integers(0, 4096, (60, 80, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", noisy, photometric="rgb", rowsperstrip=7)
    tifffile.imwrite(tmp_path / "b.tif", noisy, photometric="rgb", compression="lzw", rowsperstrip=7)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(noisy))
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(noisy, level=0, reversible=True))
    (tmp_path / "a.ppm").write_bytes(b"P6 80 60 65535\n" + noisy.astype(">u2").tobytes())
    for path in list(tmp_path.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=path.name):
            read(path)


@pytest.mark.parametrize("zeros", [4, 2_000])
def test_a_jpeg_2000_whose_end_was_overwritten_is_refused(tmp_path: Path, zeros: int) -> None:
    noisy = np.random.default_rng(0).integers(0, 4096, (60, 80, 3), dtype=np.uint16)
    content = imagecodecs.jpeg2k_encode(noisy, level=0, reversible=True)
    (tmp_path / "a.jp2").write_bytes(content[:-zeros] + bytes(zeros))
    with pytest.raises(DataError, match=r"a\.jp2: cannot be read: its end is missing or overwritten"):
        read(tmp_path / "a.jp2")


def test_what_is_not_read_is_refused_by_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([deep(COLOUR, 16), deep(GREY, 16)]), photometric="separated")
    with pytest.raises(DataError, match=r"a\.tif: has 16 bits a channel and colours SEPARATED"):
        read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((9_500, 2, 3), np.uint16), photometric="rgb")
    with pytest.raises(DataError, match=r"b\.tif: is 2 x 9,500 pixels"):
        read(tmp_path / "b.tif")


def test_a_jpeg_of_twelve_bits(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg_encode(deep(GREY, 12), level=98, bitspersample=12))
    near(read(tmp_path / "a.jpg"), GREY, slack=3)


def test_the_cases_that_were_read_as_black(shared: Path) -> None:
    folder = shared / "cases" / "photos"
    wanted = read(folder / "rgb8in16.png")
    assert wanted.max() > 150
    near(read(folder / "rgb12in16.png"), wanted, slack=2)
    assert read(folder / "grey12in16.png").max() > 150
    for name in ("rgb8in16", "rgb12in16", "grey12in16"):
        _, found = fundus.read_square(folder / f"{name}.png", 64)
        assert found


@pytest.mark.parametrize("name", ["deep.png", "eight.png", "deep.tif", "float.tif", "deep.jp2", "deep.ppm", "deep.jpg"])
def test_a_pipe_gives_what_its_file_gives(tmp_path: Path, name: str) -> None:
    stored = deep(COLOUR, 12)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(stored))
    Image.fromarray(COLOUR).save(tmp_path / "eight.png")
    tifffile.imwrite(tmp_path / "deep.tif", stored, photometric="rgb")
    tifffile.imwrite(tmp_path / "float.tif", (COLOUR / 255).astype(np.float32), photometric="rgb")
    (tmp_path / "deep.jp2").write_bytes(imagecodecs.jpeg2k_encode(stored, level=0, reversible=True))
    (tmp_path / "deep.ppm").write_bytes(b"P6 32 24 65535\n" + stored.astype(">u2").tobytes())
    (tmp_path / "deep.jpg").write_bytes(imagecodecs.jpeg_encode(stored, level=98, bitspersample=12))
    file, pipe = tmp_path / name, tmp_path / "pipe"
    os.mkfifo(pipe)
    with into(pipe, file.read_bytes()):
        through = read(pipe)
    assert np.array_equal(through, read(file))
    near(through, COLOUR, slack=12 if name.endswith("jpg") else 2)


def test_a_pipe_is_named_as_it_is_called_and_is_not_read_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with into(pipe, imagecodecs.png_encode(deep(COLOUR, 16))[:100]), pytest.raises(DataError) as cut:
        read(pipe)
    assert str(cut.value).startswith(f"{pipe}: cannot be read: ")
    assert tempfile.gettempdir() not in str(cut.value).replace(str(pipe), "")
    monkeypatch.setattr(image_file, "MAX_PIPE_BYTES", 1000)
    with into(pipe, bytes(1001)), pytest.raises(DataError, match="pipe: has more than 1,000 bytes, allowed of a pipe"):
        read(pipe)


def test_a_full_disk_is_no_fault_of_what_comes_through_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    with pytest.raises(DiskError, match=f"^{tempfile.gettempdir()}: .*pipe cannot be copied to here: No space left"):
        read(tmp_path / "pipe")
