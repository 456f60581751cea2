"""Read the file of a photograph upright as 8-bit RGB, for all colour formats that a file may have."""

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
"""The formats of PIL that files are opened with; the others start programs (EPS) or hold no photographs."""

MAX_SIDE = 9_459
"""Largest number of pixels of a side, so that the square around a photograph stays within PIL's limit against bombs."""

MAX_PIPE_BYTES = 2**30
"""Largest number of bytes read from a pipe: twice the size of 89 million uncompressed 16-bit pixels."""

Pixels = NDArray[np.uint8]
Source = str | Pixels
"""The path of a photograph, or its pixels: (height, width, 3) uint8 RGB."""

_FILL_GREY = 128
"""The value, in each channel, with which libjpeg fills rows that a file lacks."""
_JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}
_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(path: Path, min_side: int | None = None) -> Pixels:
    """Read a photograph upright, in any supported colour format.

    Transparent pixels are blended with black. More than eight bits a channel are scaled by the depth that the values
    use, see `retina.data.deep_color`. Colour profiles (ICC) are not applied. More than 89 million pixels, PIL's limit
    against decompression bombs, are an error, and so is a side of more than `MAX_SIDE`.

    Args:
        path: a file in one of `FORMATS`; of several frames the first is read. A pipe is read to its end.
        min_side: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size if its shorter side keeps this many pixels. With
            twice the final side, squares made from IDRiD's 4288 x 2848 originals have on average 45 dB (at 224 pixels)
            and 49 dB (at 512) of PSNR to those of a full decode, at worst 39 and 45 dB.

    Returns:
        (height, width, 3) uint8 RGB, 0 to 255.

    Raises:
        DataError: the file is missing, unreadable, cut short or too large, its colour format is not supported, or a
            pipe has more than `MAX_PIPE_BYTES` bytes. Names the file and the problem.
        DiskError: the bytes of a pipe cannot be stored in the folder for temporary files.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken metadata; broken pixels raise an exception
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _read_pipe(path, min_side) if path.is_fifo() else _read(path, min_side)
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


def _read_pipe(pipe: Path, min_side: int | None) -> Pixels:
    """Read a pipe through a temporary file: a pipe can be read once, a deep photograph is opened more than once."""
    with contextlib.ExitStack() as stack:
        try:
            copy = stack.enter_context(tempfile.NamedTemporaryFile())
            with pipe.open("rb") as source:
                while block := source.read(2**20):
                    if copy.tell() + len(block) > MAX_PIPE_BYTES:
                        raise DataError(f"{pipe}: has more than {MAX_PIPE_BYTES:,} bytes, allowed of a pipe")
                    copy.write(block)
            copy.flush()
        except OSError as error:
            if error.errno in DISK_ERRNOS:
                raise as_disk_error(tempfile.gettempdir(), f"{pipe} cannot be copied to here", error) from None
            raise DataError(f"{pipe}: cannot be read: {error}") from None
        try:
            return _read(Path(copy.name), min_side)
        except DataError as error:  # replace the name of the temporary file
            raise DataError(str(error).replace(copy.name, str(pipe))) from None


def _read(path: Path, min_side: int | None) -> Pixels:
    with _open(path) as image:
        if image is None:
            if (deep := _read_deep(path, None)) is None:
                raise UnidentifiedImageError
            return deep
        if min_side is not None:
            image.draft(None, (min_side, min_side))
        if max(image.size) > MAX_SIDE:
            width, height = image.size
            raise DataError(f"{path}: is {width:,} x {height:,} pixels; no side may have more than {MAX_SIDE:,}")
        if (deep := _read_deep(path, image)) is not None:
            return deep
        image.load()
        _raise_if_incomplete(image, path)
        return _to_rgb(_to_upright(image), path)


def _raise_if_incomplete(image: Image.Image, path: Path) -> None:
    """Raise if the last row is the filling of a decoder for rows that the file lacks.

    Pillow raises if a file ends early, but not if its data end early with a valid end: a PNG whose compressed data hold
    fewer rows gets black rows, a JPEG with an end marker before its last row gets grey rows (libjpeg's 128). A black
    last row is usual for a fundus, so libpng counts the rows of such a PNG. Photographs whose background is that grey
    have it in their first row as well.
    """
    width, height = image.size
    last = np.asarray(image.crop((0, height - 1, width, height)))
    if image.format == "PNG" and not last.any():
        _raise_if_png_lacks_rows(path)
    if image.format in {"JPEG", "MPO"} and image.mode in {"L", "RGB"} and (last == _FILL_GREY).all():
        is_filled = (np.asarray(image) == _FILL_GREY).reshape(height, -1).all(axis=1)
        if not is_filled[0]:
            first = height - int(np.argmin(is_filled[::-1]))
            raise DataError(f"{path}: cannot be read: its data end at row {first:,} of {height:,}")


def _raise_if_png_lacks_rows(path: Path) -> None:
    try:
        import imagecodecs  # noqa: PLC0415 -- slow to import, and most photographs do not need it
    except ImportError:  # it may be missing where only a model is used
        return
    try:
        imagecodecs.png_decode(path.read_bytes())
    except imagecodecs.PngError as error:
        if "Not enough image data" in str(error):  # Pillow has read the file in spite of any other error
            raise DataError(f"{path}: cannot be read: it has fewer rows than its header says") from None


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image.Image | None]:
    """Open a file with Pillow; yield None if Pillow cannot, but `deep_color` may be able to read it."""
    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        if not deep_color.is_candidate(path):
            raise
        yield None
        return
    with image:
        yield image


def _read_deep(path: Path, image: Image.Image | None) -> Pixels | None:
    """Read a file with more than eight bits a channel, upright; return None for other files."""
    samples = deep_color.read_samples(path, image, Image.MAX_IMAGE_PIXELS or 2**62, MAX_SIDE)
    if samples is None:
        return None
    pixels = deep_color.to_eight_bits(samples, path)
    transpose = _transpose_of(image) if image is not None else _TRANSPOSE_BY_ORIENTATION.get(samples.orientation)
    return pixels if transpose is None else np.array(Image.fromarray(pixels).transpose(transpose))


def jpegs_sized_like_other_formats(files: dict[int, str]) -> list[int]:
    """Find JPEGs that have the size of a file in another format, and so may have the same pixels.

    Only for these can `read` with `min_side` return different arrays for the same pixels. No file is opened if all
    names have suffixes of JPEG or none has.

    Args:
        files: paths by number.

    Returns:
        The numbers of those JPEGs.
    """
    has_jpeg_suffix = {Path(path).suffix.lower() in _JPEG_SUFFIXES for path in files.values()}
    if len(has_jpeg_suffix) < 2:
        return []
    sizes = {number: _format_and_size(path) for number, path in files.items()}
    others = {size for kind, size in sizes.values() if kind != "JPEG"}
    return [number for number, (kind, size) in sizes.items() if kind == "JPEG" and size in others]


def _format_and_size(path: str) -> tuple[str, tuple[int, ...]]:
    """Return "JPEG" or "other", and the sides in ascending order, so that the orientation does not matter."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path, formats=FORMATS)
        except UnidentifiedImageError:  # a deep TIFF or JPEG
            return "other", tuple(sorted(read(Path(path)).shape[:2]))
        with image:
            return "JPEG" if image.format in {"JPEG", "MPO"} else "other", tuple(sorted(image.size))
    return "other", ()


def _to_upright(image: Image.Image) -> Image.Image:
    transpose = _transpose_of(image)
    return image if transpose is None else image.transpose(transpose)


def _transpose_of(image: Image.Image) -> Image.Transpose | None:
    with contextlib.suppress(Exception):  # a damaged EXIF block does not concern the pixels
        return _TRANSPOSE_BY_ORIENTATION.get(image.getexif().get(deep_color.ORIENTATION, 1))
    return None


def _to_rgb(image: Image.Image, path: Path) -> Pixels:
    if image.mode.startswith(("I", "F")):
        return deep_color.to_eight_bits(deep_color.Samples(np.asarray(image)[..., None]), path)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return np.array(image.convert("RGB"))
