"""Inspects one photograph: its size, its quality, and hashes that identify duplicates."""

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

_SIDEWAYS = {5, 6, 7, 8}  # EXIF orientations that are a quarter turn away from upright


@dataclass(frozen=True, slots=True)
class PhotographFindings:
    """The findings on one photograph.

    Attributes:
        width: pixels in the file, upright.
        height: pixels in the file, upright.
        disc_side: side of the square around the fundus disc in those pixels; 0 if there is no disc.
        quality: see `retina.data.quality`; None if the photograph cannot be read.
        digest: hash of the decoded pixels, see `retina.data.pixel_hash.pixel_hash`; "" if it cannot be read.
        details: 1,024 bytes, see `retina.data.perceptual_hash`; empty if there is nothing to compare.
        is_blank: whether it is all of one colour; a sweep never joins such a photograph with its duplicates.
        read_error: why it cannot be read, else "".
    """

    width: int = 0
    height: int = 0
    disc_side: int = 0
    quality: Quality | None = None
    digest: str = ""
    details: bytes = b""
    is_blank: bool = False
    read_error: str = ""

    @property
    def problems(self) -> list[str]:
        """What makes it unfit to be graded, as `Quality.problems`; also empty if it cannot be read."""
        return self.quality.problems if self.quality else []


def inspect_photograph(source: Source) -> PhotographFindings:
    """Return the findings on a photograph. A large JPEG is decoded at reduced size, which suffices here.

    Args:
        source: the path of a file, or pixels, uint8 (height, width, 3) RGB.
    """
    try:
        if isinstance(source, str):
            path = Path(source)
            pixels = fundus.read(path, min_side=perceptual_hash.MIN_DECODED_SIDE)
            size = _file_size(path, pixels)
        else:
            pixels = source
            height, width = pixels.shape[:2]
            size = width, height
    except (DataError, OSError) as error:
        return PhotographFindings(read_error=str(error))
    return _measure(pixels, size)


def _file_size(path: Path, pixels: Pixels) -> tuple[int, int]:
    """Return width and height in the file, upright, which the rounded size of a reduced decode does not determine."""
    height, width = pixels.shape[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on broken metadata, as when the file was decoded
        try:
            image = Image.open(path, formats=fundus.FORMATS)
        except UnidentifiedImageError:  # a deep TIFF or JPEG, which is never decoded at reduced size
            return width, height
        with image:
            if set(image.size) == {width, height}:
                return width, height
            orientation = None
            with contextlib.suppress(Exception):  # an invalid EXIF block: the image was decoded without rotation
                orientation = image.getexif().get(ExifTags.Base.Orientation)
            return image.size[::-1] if orientation in _SIDEWAYS else image.size


def _measure(pixels: Pixels, file_size: tuple[int, int]) -> PhotographFindings:
    scale = max(file_size) / max(pixels.shape[:2])
    measured_quality = quality.measure(pixels)
    disc = measured_quality.disc
    details = perceptual_hash.extract_details(pixels, disc) if disc else None
    return PhotographFindings(
        width=file_size[0],
        height=file_size[1],
        disc_side=round(disc.square()[2] * scale) if disc else 0,
        quality=measured_quality,
        digest=pixel_hash(pixels),
        is_blank=is_blank(pixels),
        details=b"" if details is None else details.tobytes(),
    )
