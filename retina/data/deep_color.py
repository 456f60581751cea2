"""Read photographs with more than eight bits a channel, which Pillow reads as black or not at all.

Pillow has no mode for colours of more than eight bits, and drops the low bytes. Such files, 16-bit PNG, TIFF of 10,
12, 16 and 32 bits or floats, deep JPEG 2000 and PNM, are read by imagecodecs and tifffile with all their bits, and
scaled to eight bits by the depth that their values use.

The depth depends on one photograph alone, so it is the same in training and in prediction:

- If the file declares a depth other than 8, 16 or 32 (a TIFF of 12 bits, a PNM whose maximum is 1023), that is used.
- Integers: the least of 8, 10, 12, 14 and 16 bits that can hold the brightest value of all colours; above 16 bits, the
  brightest value itself. A camera with 12 bits writes 0 to 4095 into 16 bits, some programs 0 to 255. The drawback: a
  photograph whose brightest value is below a quarter of its range becomes up to four times as bright.
- Floats: 0 to 1 if the largest is at most 1.1 (resampling overshoots), otherwise as integers. NaN becomes black, as
  transparent pixels do.

Values that have no meaning in a photograph are an error: negative or infinite values, and floats whose largest value is
1.1 to 16.
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
"""The orientation tag of EXIF and TIFF."""
DEPTHS = (8, 10, 12, 14, 16)
"""Numbers of bits that the values of a deep file may use."""
_MAX_OVERSHOOT = 1.1  # largest value of floats with the range 0 to 1
_MIN_WIDE_RANGE = 16.0  # largest value from which floats may have the range 0 to 255
_MEMORY_BITS = {8, 16, 32, 64}  # sizes of numbers in memory, which do not declare the depth in use
_JPEG_2000_START = b"\xff\x4f\xff\x51"  # markers SOC and SIZ
_JPEG_2000_END = b"\xff\xd9"  # marker EOC; the coder puts no such bytes into its data
_GREY, _COLOUR = {0, 1}, {2}  # photometric interpretations of TIFF
_PREMULTIPLIED, _STRAIGHT = 1, 2  # values of TIFF's ExtraSamples


@dataclass(frozen=True)
class Samples:
    """The values of a file's channels, with all their bits.

    Attributes:
        values: (height, width, channels); 1 or 3 colours, then alpha if there is one.
        full_scale: the value of full brightness if the file declares it, otherwise None.
        alpha: whether the last channel is alpha.
        premultiplied: whether the colours are multiplied by alpha.
        inverted: whether 0 is white.
        orientation: EXIF orientation, 1 to 8, of a file that Pillow does not open; 1 if the file has none.
    """

    values: Values
    full_scale: float | None = None
    alpha: bool = False
    premultiplied: bool = False
    inverted: bool = False
    orientation: int = 1


def read_samples(path: Path, image: Image.Image | None, max_pixels: int, max_side: int) -> Samples | None:
    """Read a file with more than eight bits a channel with all its bits.

    Args:
        path: the file.
        image: the file opened by Pillow, not loaded; None if Pillow cannot open it.
        max_pixels: largest number of pixels.
        max_side: largest number of pixels of a side.

    Returns:
        The values; None for a file with eight bits a channel or fewer, which Pillow reads.

    Raises:
        DataError: its colour format is not supported, or it is too large.
        Exception: the errors of imagecodecs and tifffile for damaged files.
    """
    kind = image.format if image is not None else _detect_format(path)
    try:
        if kind == "PNG":
            return _read_png(path)
        if kind == "TIFF":
            deep = not isinstance(image, TiffImagePlugin.TiffImageFile) or _is_deep(image)
            return _read_tiff(path, max_pixels, max_side) if deep else None
        if kind == "JPEG2000":
            return _read_jpeg_2000(path)
        if kind == "PPM":
            return _read_pnm(path)
        return _read_jpeg(path, max_pixels) if kind == "JPEG" and image is None else None
    except ImportError as error:
        raise DataError(f"{path}: has more than 8 bits a channel; to read it, install {error.name}") from None


def to_eight_bits(samples: Samples, path: Path) -> Pixels:
    """Scale values to 0 to 255, and blend transparent pixels with black.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        DataError: the values have no meaning as a photograph; names the file and the values.
    """
    values = samples.values
    colours, alpha = (values[..., :-1], values[..., -1]) if samples.alpha else (values, None)
    visible = colours if alpha is None else colours[alpha > 0]
    pixels = _scale(colours, samples.full_scale or _full_scale(visible, path))
    if samples.inverted:
        pixels = 255 - pixels
    if alpha is not None and not samples.premultiplied:
        opacity = _scale(alpha, samples.full_scale or _full_scale(alpha, path))
        pixels = np.rint(pixels * (opacity.astype(np.float32) / 255)[..., None]).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _full_scale(values: Values, path: Path) -> float:
    """Return the value of full brightness, as described above."""
    is_float = values.dtype.kind == "f"
    finite = values[~np.isnan(values)] if is_float else values
    if not finite.size:
        return 1.0
    least, most = float(finite.min()), float(finite.max())
    problem = f"{path}: cannot be read as a photograph: its values are {least:g} to {most:g}"
    if not np.isfinite([least, most]).all() or least < (-0.01 * max(most, 1) if is_float else 0):
        raise DataError(f"{problem}; brightness is finite and not below 0")
    if is_float and most <= _MAX_OVERSHOOT:
        return 1.0
    if is_float and most < _MIN_WIDE_RANGE:
        raise DataError(f"{problem}; floats should be 0 to 1, or 0 to 255, 4095 or 65535")
    return next((2.0**bits - 1 for bits in DEPTHS if most <= 2**bits - 1), most)


def _scale(values: Values, full_scale: float) -> Pixels:
    if values.dtype.kind in "ub" and values.dtype.itemsize <= 2:  # a lookup table is much faster and takes less memory
        steps = np.arange(2 ** (8 * values.dtype.itemsize), dtype=np.float64)
        table = np.rint(np.minimum(steps / full_scale, 1) * 255).astype(np.uint8)
        pixels: Pixels = table[values]
        return pixels
    fraction = np.nan_to_num(values.astype(np.float64), nan=0.0) / full_scale
    return np.rint(np.clip(fraction, 0, 1) * 255).astype(np.uint8)


def is_candidate(path: Path) -> bool:
    """Return whether `read_samples` may be able to read a file that Pillow does not open."""
    return path.is_file() and bool(_detect_format(path))  # a pipe would have to be read twice


def _detect_format(path: Path) -> str:
    """Return "TIFF" or "JPEG" for a file that Pillow does not open; "" for other formats."""
    with path.open("rb") as file:
        start = file.read(4)
    if start in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return "TIFF"
    return "JPEG" if start.startswith(b"\xff\xd8\xff") else ""


def _to_samples(values: Values, **attributes: Any) -> Samples:
    values = values[..., None] if values.ndim == 2 else values
    return Samples(values, alpha=values.shape[-1] in {2, 4}, **attributes)


def _read_png(path: Path) -> Samples | None:
    with path.open("rb") as file:
        if file.read(25)[24:] != b"\x10":  # the depth in IHDR
            return None
    import imagecodecs  # noqa: PLC0415 -- slow to import, and most photographs do not need it

    return _to_samples(imagecodecs.png_decode(path.read_bytes()))


def _is_deep(image: TiffImagePlugin.TiffImageFile) -> bool:
    bits, formats = (image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.BITSPERSAMPLE, TiffImagePlugin.SAMPLEFORMAT))
    return max(np.atleast_1d(bits)) > 8 or set(np.atleast_1d(formats)) != {1}


def _read_tiff(path: Path, max_pixels: int, max_side: int) -> Samples:
    import tifffile  # noqa: PLC0415 -- as above

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # of broken metadata; broken pixels raise an exception
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages.first
        width, height = page.imagewidth, page.imagelength
        if width * height > max_pixels or max(width, height) > max_side:
            raise DataError(f"{path}: is {width:,} x {height:,} pixels, too many")
        length = path.stat().st_size
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not segments or any(not count or start + count > length for start, count in segments):
            raise DataError(f"{path}: cannot be read: it is cut short")
        if int(page.photometric) not in _GREY | _COLOUR or page.axes not in {"YX", "YXS", "SYX"}:
            colours = getattr(page.photometric, "name", page.photometric)
            raise DataError(
                f"{path}: has {page.bitspersample} bits a channel and colours {colours}, axes {page.axes}; "
                "of more than 8 bits, only grey and RGB are read"
            )
        values = page.asarray()
        tag = page.tags.get(ORIENTATION)
        orientation = tag.value if tag is not None and tag.value in range(1, 9) else 1
        extra = tuple(int(sample) for sample in page.extrasamples)
        bits = page.bitspersample
    values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
    values = values[..., None] if values.ndim == 2 else values
    colours = 3 if int(page.photometric) in _COLOUR else 1
    has_alpha = extra[:1] in {(_PREMULTIPLIED,), (_STRAIGHT,)}
    return Samples(
        values[..., : colours + has_alpha],
        full_scale=None if bits in _MEMORY_BITS or not isinstance(bits, int) else 2.0**bits - 1,
        alpha=has_alpha,
        premultiplied=extra[:1] == (_PREMULTIPLIED,),
        inverted=int(page.photometric) == 0,
        orientation=orientation,
    )


def _read_jpeg_2000(path: Path) -> Samples | None:
    data = path.read_bytes()
    start = data.find(_JPEG_2000_START)
    channels = int.from_bytes(data[start + 40 : start + 42], "big")
    depths = data[start + 42 : start + 42 + 3 * channels : 3]  # bits - 1, plus 128 for signed values
    if start < 0 or not depths or max(depths) < 8:
        return None
    box = data.find(b"colr", 0, start)
    space = int.from_bytes(data[box + 7 : box + 11], "big") if box >= 0 and data[box + 4] == 1 else 16
    if space not in {16, 17}:  # sRGB and grey
        raise DataError(f"{path}: has {max(depths) % 128 + 1} bits a channel in colour space {space}; only RGB is read")
    if data.find(_JPEG_2000_END, start) < 0:  # OpenJPEG would fill the missing pixels with grey
        raise DataError(f"{path}: cannot be read: its end is missing or overwritten")
    import imagecodecs  # noqa: PLC0415 -- as above

    bits = max(depths) % 128 + 1
    return _to_samples(imagecodecs.jpeg2k_decode(data), full_scale=None if bits in _MEMORY_BITS else 2.0**bits - 1)


def _read_pnm(path: Path) -> Samples | None:
    """Read PGM and PPM with more than eight bits a value, binary or plain text; see netpbm's `pgm(5)`."""
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
    return _to_samples(values.reshape(height, width, channels), full_scale=None if most == 65535 else float(most))


def _read_jpeg(path: Path, max_pixels: int) -> Samples | None:
    """Read a JPEG of 12 bits, which Pillow does not read; None for a damaged one."""
    data = path.read_bytes()
    frame = re.search(rb"\xff[\xc0-\xc3]..(.)(..)(..)(.)", data, re.DOTALL)
    if frame is None or frame[1][0] == 8:
        return None
    height, width = (int.from_bytes(frame[side], "big") for side in (2, 3))
    if width * height > max_pixels or frame[4][0] not in {1, 3}:
        raise DataError(f"{path}: is {width:,} x {height:,} pixels of {frame[4][0]} channels, too many")
    import imagecodecs  # noqa: PLC0415 -- as above

    orientation = _exif_orientation(data[: frame.start()])
    return _to_samples(imagecodecs.jpeg_decode(data), full_scale=2.0 ** frame[1][0] - 1, orientation=orientation)


def _exif_orientation(head: bytes) -> int:
    """Return the orientation, 1 to 8, from a JPEG's bytes before its frame; 1 if they have none."""
    exif, start = Image.Exif(), head.find(b"Exif\0\0")
    with contextlib.suppress(Exception):  # a damaged EXIF block does not concern the pixels
        exif.load(head[start:] if start >= 0 else b"")
    orientation: int = exif.get(ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1
