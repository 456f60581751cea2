"""The file of a photograph read upright as 8-bit RGB, whatever way it stores colours."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from retina.data import deep_color
from retina.errors import DISK_ERRNOS, DataError, RetinaError, as_disk_error

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
"""What is tried when a file is opened; the others of PIL start programs (EPS) or hold no photographs."""

LONGEST = 9_459
"""Pixels of a photograph's longest side: the square around it keeps PIL's limit against decompression bombs too."""

MOST_PIPED = 2**30
"""Bytes of a photograph that comes through a pipe: twice what 89 million pixels of 16 bits take without compression."""

Pixels = NDArray[np.uint8]
Source = str | Pixels
"""The path of a photograph, or its pixels: (height, width, 3) uint8 RGB."""

_FILLED = 128
"""The grey, in each channel, that libjpeg puts in the place of what a file lacks."""
_JPEG_ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(path: Path, at_least: int | None = None) -> Pixels:
    """Read a photograph upright, whatever way its file stores colours.

    Transparency is laid over black. More than eight bits a channel are scaled by the depth that the values use, see
    `retina.data.deep_color`. Colour profiles (ICC) are not applied. More than 89 million pixels, PIL's limit against
    decompression bombs, are refused, and so is a side of more than `LONGEST`.

    Args:
        path: a file in one of `FORMATS`; of several frames the first is read. A pipe is waited for and read to its end.
        at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as its shorter side keeps this many
            pixels. With twice the final side, squares made from IDRiD's 4288 x 2848 originals are on average 45 dB
            (at 224 pixels) and 49 dB (at 512) of PSNR from those of a full decode, at worst 39 and 45 dB.

    Returns:
        (height, width, 3) uint8 RGB, 0 to 255.

    Raises:
        DataError: the file is missing, unreadable, cut short or too large, or its colours are of a kind that is not
            read; or more than `MOST_PIPED` bytes come through a pipe. Names the file and what is wrong.
        DiskError: what comes through a pipe cannot be kept in the folder for temporary files.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken metadata; what breaks the pixels is an exception
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _through_pipe(path, at_least) if path.is_fifo() else _read(path, at_least)
    except RetinaError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"{path}: has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: is not an image in one of the formats {', '.join(FORMATS)}") from None
    except MemoryError:
        raise
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(f"{path}: cannot be read: {error}") from None


def _through_pipe(pipe: Path, at_least: int | None) -> Pixels:
    """Read from a copy: a pipe gives its bytes once, and a deep photograph is opened more than once."""
    with contextlib.ExitStack() as until_read:
        try:
            copy = until_read.enter_context(tempfile.NamedTemporaryFile())
            with pipe.open("rb") as source:
                while block := source.read(2**20):
                    if copy.tell() + len(block) > MOST_PIPED:
                        raise DataError(f"{pipe}: has more than {MOST_PIPED:,} bytes, allowed of a pipe")
                    copy.write(block)
            copy.flush()
        except OSError as error:
            if error.errno in DISK_ERRNOS:
                raise as_disk_error(tempfile.gettempdir(), f"{pipe} cannot be copied to here", error) from None
            raise DataError(f"{pipe}: cannot be read: {error}") from None
        try:
            return _read(Path(copy.name), at_least)
        except DataError as error:  # which names the copy
            raise DataError(str(error).replace(copy.name, str(pipe))) from None


def _read(path: Path, at_least: int | None) -> Pixels:
    with _opened(path) as image:
        if image is None:
            if (deep := _deep(path, None)) is None:
                raise UnidentifiedImageError
            return deep
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        if max(image.size) > LONGEST:
            width, height = image.size
            raise DataError(f"{path}: is {width:,} x {height:,} pixels; no side may have more than {LONGEST:,}")
        if (deep := _deep(path, image)) is not None:
            return deep
        image.load()
        _refuse_incomplete(image, path)
        return _rgb(_upright(image), path)


def _refuse_incomplete(image: Image.Image, path: Path) -> None:
    """Stop where the last row is what a decoder puts in the place of rows that the file lacks.

    Pillow raises where a file ends early. Where its data have an end, but too early, it does not: a PNG whose
    compressed data hold fewer rows gets black ones, a JPEG with an end marker before its last row gets grey ones
    (libjpeg's 128). A black last row is usual for a fundus, so libpng counts the rows of such a PNG. Photographs
    whose background is that grey have it in their first row as well.
    """
    width, height = image.size
    last = np.asarray(image.crop((0, height - 1, width, height)))
    if image.format == "PNG" and not last.any():
        _refuse_png_of_fewer_rows(path)
    if image.format in {"JPEG", "MPO"} and image.mode in {"L", "RGB"} and (last == _FILLED).all():
        is_filled = (np.asarray(image) == _FILLED).reshape(height, -1).all(axis=1)
        if not is_filled[0]:
            first = height - int(np.argmin(is_filled[::-1]))
            raise DataError(f"{path}: cannot be read: its data end at row {first:,} of {height:,}")


def _refuse_png_of_fewer_rows(path: Path) -> None:
    try:
        import imagecodecs  # noqa: PLC0415 -- takes a while, and most photographs do not need it
    except ImportError:  # where a model runs, it may be absent
        return
    try:
        imagecodecs.png_decode(path.read_bytes())
    except imagecodecs.PngError as error:
        if "Not enough image data" in str(error):  # what else libpng does not like, Pillow has read
            raise DataError(f"{path}: cannot be read: it has fewer rows than its header says") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image | None]:
    """The file as Pillow opens it; None where it cannot, and it may be a TIFF or JPEG of more bits than it knows."""
    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        if not deep_color.is_candidate(path):
            raise
        yield None
        return
    with image:
        yield image


def _deep(path: Path, image: Image.Image | None) -> Pixels | None:
    """The pixels, upright, of a file with more than eight bits a channel; None for the others."""
    found = deep_color.samples(path, image, Image.MAX_IMAGE_PIXELS or 2**62, LONGEST)
    if found is None:
        return None
    pixels = deep_color.to_eight_bits(found, path)
    turn = _turn(image) if image is not None else _UPRIGHT.get(found.orientation)
    return pixels if turn is None else np.array(Image.fromarray(pixels).transpose(turn))


def same_size_as_another_format(files: dict[int, str]) -> list[int]:
    """Which of some files are JPEGs of the size of a file in another format; their pixels may be the same.

    Only then `read` with `at_least` does not give the same for the same pixels. Where all names have endings of one
    kind, no file is looked at.

    Args:
        files: paths by some number.

    Returns:
        Their numbers.
    """
    endings = {Path(path).suffix.lower() in _JPEG_ENDINGS for path in files.values()}
    if len(endings) < 2:
        return []
    sizes = {number: _format_and_size(path) for number, path in files.items()}
    others = {size for kind, size in sizes.values() if kind != "JPEG"}
    return [number for number, (kind, size) in sizes.items() if kind == "JPEG" and size in others]


def _format_and_size(path: str) -> tuple[str, tuple[int, ...]]:
    """Of a file that could be read; its sides ascending, whatever way up it is."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path, formats=FORMATS)
        except UnidentifiedImageError:  # a deep TIFF or JPEG
            return "other", tuple(sorted(read(Path(path)).shape[:2]))
        with image:
            return "JPEG" if image.format in {"JPEG", "MPO"} else "other", tuple(sorted(image.size))
    return "other", ()


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    with contextlib.suppress(Exception):  # garbage in the EXIF block says nothing about the pixels
        return _UPRIGHT.get(image.getexif().get(deep_color.ORIENTATION, 1))
    return None


def _rgb(image: Image.Image, path: Path) -> Pixels:
    if image.mode.startswith(("I", "F")):
        return deep_color.to_eight_bits(deep_color.Samples(np.asarray(image)[..., None]), path)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return np.array(image.convert("RGB"))
