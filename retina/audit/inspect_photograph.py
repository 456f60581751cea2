"""One photograph looked at: its size, whether it is fit to be graded, and what tells it from others."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from retina.data import fundus, perceptual_hash, quality
from retina.data.fundus import Pixels, Source
from retina.data.pixel_hash import is_blank, pixel_hash
from retina.data.quality import Quality
from retina.errors import DataError

_SIDEWAYS = {5, 6, 7, 8}  # EXIF orientations of which upright is a quarter turn away


@dataclass(frozen=True, slots=True)
class PhotographFindings:
    """What was seen on one photograph.

    Attributes:
        width: in pixels, as its file has them, upright.
        height: likewise.
        side: of the square around its disc, in those pixels; 0 where there is no disc.
        quality: see `retina.data.quality`; None where it cannot be read.
        digest: of its decoded pixels, see `retina.data.pixel_hash.pixel_hash`; "" where it cannot be read.
        details: 1,024 bytes, see `retina.data.perceptual_hash`; empty where there is nothing to compare.
        blank: whether it is of one colour all over, so that a sweep never joins it with its duplicates.
        unreadable: why it cannot be read, else "".
    """

    width: int = 0
    height: int = 0
    side: int = 0
    quality: Quality | None = None
    digest: str = ""
    details: bytes = b""
    blank: bool = False
    unreadable: str = ""

    @property
    def problems(self) -> list[str]:
        """What makes it unfit to be graded, as `Quality.problems`; empty also where it cannot be read."""
        return self.quality.problems if self.quality else []


def inspect_photograph(source: Source) -> PhotographFindings:
    """Look at a photograph. Of a large JPEG a smaller version is decoded: the fine print does not matter here."""
    try:
        if isinstance(source, str):
            path = Path(source)
            pixels = fundus.read(path, at_least=perceptual_hash.AT_LEAST)
            size = _size(path, pixels)
        else:
            pixels = source
            height, width = pixels.shape[:2]
            size = width, height
    except (DataError, OSError) as error:
        return PhotographFindings(unreadable=str(error))
    return _measured(pixels, size)


def _size(path: Path, pixels: Pixels) -> tuple[int, int]:
    """Width and height in the file, upright. Those of a reduced decode are rounded, so they do not tell."""
    height, width = pixels.shape[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken metadata, as when it was read
        try:
            image = Image.open(path, formats=fundus.FORMATS)
        except UnidentifiedImageError:  # a deep TIFF or JPEG, which is never reduced
            return width, height
        with image:
            if set(image.size) == {width, height}:
                return width, height
            orientation = None
            with contextlib.suppress(Exception):  # garbage in the EXIF block: it was read as it lies
                orientation = image.getexif().get(ExifTags.Base.Orientation)
            return image.size[::-1] if orientation in _SIDEWAYS else image.size


def _measured(pixels: Pixels, size: tuple[int, int]) -> PhotographFindings:
    scale = max(size) / max(pixels.shape[:2])
    measured = quality.measure(pixels)
    details = perceptual_hash.describe(pixels, measured.disc) if measured.disc else None
    return PhotographFindings(
        width=size[0],
        height=size[1],
        side=round(measured.disc.square()[2] * scale) if measured.disc else 0,
        quality=measured,
        digest=pixel_hash(pixels),
        blank=is_blank(pixels),
        details=b"" if details is None else details.tobytes(),
    )
