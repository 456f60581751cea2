"""Photographs with other than eight bits a channel, which Pillow reads as black or not at all.

Pillow has no mode for colours of more than eight bits, and cuts off the low bytes. Such files, 16-bit PNG, TIFF of 10,
12, 16 and 32 bits or floats, deep JPEG 2000 and PNM, are read by imagecodecs and tifffile with all their bits, and
scaled to eight by the depth that their values use.

How the depth is found, which is the same in training and in prediction, since it looks at one photograph alone:

- A file that declares another depth than 8, 16 or 32 (a TIFF of 12 bits, a PNM whose maximum is 1023) is believed.
- Whole numbers: the least of 8, 10, 12, 14 and 16 bits that holds the brightest value of all colours; above that, the
  brightest value itself. A camera with 12 bits writes 0 to 4095 into 16, some programs 0 to 255. The price: a
  photograph whose brightest value is below a quarter of its range comes out up to four times as bright.
- Floats: 0 to 1 where the largest is at most 1.1 (resampling overshoots), else as whole numbers. NaN is black, as what
  is transparent is.

What has no meaning as a photograph is refused: values below 0, infinite ones, floats whose largest is 1.1 to 16.
"""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from retina.errors import DataError

Values = NDArray[Any]
Pixels = NDArray[np.uint8]

ORIENTATION = 0x0112
"""The tag of EXIF and TIFF."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bits that the values of a deeper file may use."""
_OVERSHOOT = 1.1  # of floats from 0 to 1
_NO_DEPTH = 16.0  # largest value of floats from which they can be 0 to 255
_DECLARED = {8, 16, 32, 64}  # bits of numbers in memory, which say nothing of the depth in use
_JPEG_2000 = b"\xff\x4f\xff\x51"  # markers SOC and SIZ
_END_OF_JPEG_2000 = b"\xff\xd9"  # marker EOC; the coder puts no such bytes into its data
_GREY, _COLOUR = {0, 1}, {2}  # photometric interpretations of TIFF
_PREMULTIPLIED, _STRAIGHT = 1, 2  # its ExtraSamples


@dataclass(frozen=True)
class Samples:
    """What a file holds.

    Attributes:
        values: (height, width, channels); 1 or 3 colours, then alpha if there is one.
        full: the value of full brightness where the file declares it, else None.
        alpha: whether the last channel is.
        premultiplied: whether the colours are by alpha.
        inverted: whether 0 is white.
        orientation: as EXIF has it, 1 to 8, of a file that Pillow does not open; 1 where the file says none.
    """

    values: Values
    full: float | None = None
    alpha: bool = False
    premultiplied: bool = False
    inverted: bool = False
    orientation: int = 1


def samples(path: Path, image: Image.Image | None, most_pixels: int, longest: int) -> Samples | None:
    """Read a file with all its bits; None for one with eight a channel or fewer, which is Pillow's.

    Args:
        path: the file.
        image: as Pillow has opened it, not loaded; None where it cannot.
        most_pixels: more are refused.
        longest: pixels of the longest side; more are refused.

    Raises:
        DataError: its colours are of a kind that is not read.
        Exception: as imagecodecs and tifffile raise for damaged files.
    """
    kind = image.format if image is not None else _kind(path)
    try:
        if kind == "PNG":
            return _png(path)
        if kind == "TIFF":
            deep = not isinstance(image, TiffImagePlugin.TiffImageFile) or _is_deep(image)
            return _tiff(path, most_pixels, longest) if deep else None
        if kind == "JPEG2000":
            return _jpeg_2000(path)
        if kind == "PPM":
            return _pnm(path)
        return _jpeg(path, most_pixels) if kind == "JPEG" and image is None else None
    except ImportError as error:
        raise DataError(
            f"{path}: has more than 8 bits a channel, and for these {error.name} is not installed"
        ) from None


def to_eight_bits(read: Samples, path: Path) -> Pixels:
    """Scale to 0 to 255; what is transparent is laid over black.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        DataError: the values have no meaning as a photograph; names the file and the values.
    """
    colours, alpha = (read.values[..., :-1], read.values[..., -1]) if read.alpha else (read.values, None)
    shown = colours if alpha is None else colours[alpha > 0]
    full = read.full or _full(shown, path)
    eight = _scaled(colours, full)
    if read.inverted:
        eight = 255 - eight
    if alpha is not None and not read.premultiplied:
        share = _scaled(alpha, read.full or _full(alpha, path))
        eight = np.rint(eight * (share.astype(np.float32) / 255)[..., None]).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(eight, (*eight.shape[:2], 3)))


def _full(values: Values, path: Path) -> float:
    """The value that stands for full brightness, see above."""
    is_float = values.dtype.kind == "f"
    finite = values[~np.isnan(values)] if is_float else values
    if not finite.size:
        return 1.0
    least, most = float(finite.min()), float(finite.max())
    told = f"{path}: cannot be read as a photograph: its values are {least:g} to {most:g}"
    if not np.isfinite([least, most]).all() or least < (-0.01 * max(most, 1) if is_float else 0):
        raise DataError(f"{told}; brightness is finite and not below 0")
    if is_float and most <= _OVERSHOOT:
        return 1.0
    if is_float and most < _NO_DEPTH:
        raise DataError(f"{told}; floats should be 0 to 1, or 0 to 255, 4095 or 65535")
    return next((2.0**bits - 1 for bits in DEPTHS if most <= 2**bits - 1), most)


def _scaled(values: Values, full: float) -> Pixels:
    if values.dtype.kind in "ub" and values.dtype.itemsize <= 2:  # a table is much quicker, and takes less memory
        steps = np.arange(2 ** (8 * values.dtype.itemsize), dtype=np.float64)
        table = np.rint(np.minimum(steps / full, 1) * 255).astype(np.uint8)
        looked_up: Pixels = table[values]
        return looked_up
    share = np.nan_to_num(values.astype(np.float64), nan=0.0) / full
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def is_candidate(path: Path) -> bool:
    """Whether a file that Pillow does not open may be one that is read here."""
    return path.is_file() and bool(_kind(path))  # a pipe would have to be read twice


def _kind(path: Path) -> str:
    """The format of a file that Pillow does not know; "" for others than those that are read here."""
    with path.open("rb") as file:
        start = file.read(4)
    if start in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return "TIFF"
    return "JPEG" if start.startswith(b"\xff\xd8\xff") else ""


def _stacked(values: Values, **about: Any) -> Samples:
    values = values[..., None] if values.ndim == 2 else values
    return Samples(values, alpha=values.shape[-1] in {2, 4}, **about)


def _png(path: Path) -> Samples | None:
    with path.open("rb") as file:
        if file.read(25)[24:] != b"\x10":  # the depth in IHDR
            return None
    import imagecodecs  # noqa: PLC0415 -- takes a while, and most photographs do not need it

    return _stacked(imagecodecs.png_decode(path.read_bytes()))


def _is_deep(image: TiffImagePlugin.TiffImageFile) -> bool:
    bits, formats = (image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.BITSPERSAMPLE, TiffImagePlugin.SAMPLEFORMAT))
    return max(np.atleast_1d(bits)) > 8 or set(np.atleast_1d(formats)) != {1}


def _tiff(path: Path, most_pixels: int, longest: int) -> Samples:
    import tifffile  # noqa: PLC0415 -- as above

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # of broken metadata; what breaks the pixels is raised
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages.first
        width, height = page.imagewidth, page.imagelength
        if width * height > most_pixels or max(width, height) > longest:
            raise DataError(f"{path}: is {width:,} x {height:,} pixels, too many")
        length = path.stat().st_size
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not parts or any(not count or start + count > length for start, count in parts):
            raise DataError(f"{path}: cannot be read: it is cut short")
        if int(page.photometric) not in _GREY | _COLOUR or page.axes not in {"YX", "YXS", "SYX"}:
            colours = getattr(page.photometric, "name", page.photometric)
            raise DataError(
                f"{path}: has {page.bitspersample} bits a channel and colours {colours}, axes {page.axes}; "
                "so deep only grey and RGB are read"
            )
        values = page.asarray()
        tag = page.tags.get(ORIENTATION)
        orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
        extra = tuple(int(one) for one in page.extrasamples)
        bits = page.bitspersample
    values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
    values = values[..., None] if values.ndim == 2 else values
    colours = 3 if int(page.photometric) in _COLOUR else 1
    has_alpha = extra[:1] in {(_PREMULTIPLIED,), (_STRAIGHT,)}
    return Samples(
        values[..., : colours + has_alpha],
        full=None if bits in _DECLARED or not isinstance(bits, int) else 2.0**bits - 1,
        alpha=has_alpha,
        premultiplied=extra[:1] == (_PREMULTIPLIED,),
        inverted=int(page.photometric) == 0,
        orientation=orientation,
    )


def _jpeg_2000(path: Path) -> Samples | None:
    data = path.read_bytes()
    at = data.find(_JPEG_2000)
    channels = int.from_bytes(data[at + 40 : at + 42], "big")
    depths = data[at + 42 : at + 42 + 3 * channels : 3]  # 128 for signed, and bits - 1
    if at < 0 or not depths or max(depths) < 8:
        return None
    box = data.find(b"colr", 0, at)
    space = int.from_bytes(data[box + 7 : box + 11], "big") if box >= 0 and data[box + 4] == 1 else 16
    if space not in {16, 17}:  # sRGB and grey
        raise DataError(f"{path}: has {max(depths) % 128 + 1} bits a channel in colour space {space}; only RGB is read")
    if data.find(_END_OF_JPEG_2000, at) < 0:  # OpenJPEG reads what there is, and the rest is grey
        raise DataError(f"{path}: cannot be read: its end is missing or overwritten")
    import imagecodecs  # noqa: PLC0415 -- as above

    bits = max(depths) % 128 + 1
    return _stacked(imagecodecs.jpeg2k_decode(data), full=None if bits in _DECLARED else 2.0**bits - 1)


def _pnm(path: Path) -> Samples | None:
    """PGM and PPM with two bytes a value, or in words; see netpbm's `pgm(5)`."""
    data = path.read_bytes()
    header = re.match(rb"P([2356])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s", data)
    if header is None or int(header[4]) <= 255:
        return None
    kind, width, height, most = (int(number) for number in header.groups())
    channels = 3 if kind in {3, 6} else 1
    n = width * height * channels
    if kind in {2, 3}:
        values = np.array(re.sub(rb"#[^\n]*", b"", data[header.end() :]).split()[:n], np.int64)
    else:
        values = np.frombuffer(data[header.end() : header.end() + 2 * n], ">u2").astype(np.uint16)
    if len(values) < n:
        raise DataError(f"{path}: cannot be read: it is cut short")
    return _stacked(values.reshape(height, width, channels), full=None if most == 65535 else float(most))


def _jpeg(path: Path, most_pixels: int) -> Samples | None:
    """A JPEG of 12 bits, which Pillow refuses; None for one that is damaged."""
    data = path.read_bytes()
    frame = re.search(rb"\xff[\xc0-\xc3]..(.)(..)(..)(.)", data, re.DOTALL)
    if frame is None or frame[1][0] == 8:
        return None
    height, width = (int.from_bytes(frame[side], "big") for side in (2, 3))
    if width * height > most_pixels or frame[4][0] not in {1, 3}:
        raise DataError(f"{path}: is {width:,} x {height:,} pixels of {frame[4][0]} channels, too many")
    import imagecodecs  # noqa: PLC0415 -- as above

    turned = _orientation(data[: frame.start()])
    return _stacked(imagecodecs.jpeg_decode(data), full=2.0 ** frame[1][0] - 1, orientation=turned)


def _orientation(head: bytes) -> int:
    """The orientation in a JPEG's bytes before its frame, 1 to 8; 1 where they say none."""
    exif, at = Image.Exif(), head.find(b"Exif\0\0")
    with contextlib.suppress(Exception):  # garbage in the EXIF block says nothing about the pixels
        exif.load(head[at:] if at >= 0 else b"")
    turned: int = exif.get(ORIENTATION, 1)
    return turned if turned in range(1, 9) else 1
