"""A hash over all decoded pixels of a photograph; two photographs are identical if their hashes are equal.

It covers the pixels as they were read, upright, before cropping and resizing. So it does not depend on the file's name,
its metadata, a lossless format or `data.image_size`, with one exception: a large JPEG is decoded at 1/2 to 1/8 of its
size, and so differs from a PNG with the same pixels. Therefore `retina.data.cache.pixel_cache` hashes a JPEG at its
full size if a file of another format has the same size.

Photographs of one colour (a closed lens, a blank page) get no hash: they have the same pixels but say nothing about the
patient. Joined as duplicates, they would make one patient of hundreds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xxhash

from retina.data.fundus import Pixels, read

_EVEN = 3
"""Grey levels: a picture is blank if the values of each channel differ by less."""
_DARK = 16
"""A picture is black, apart from noise, if all its values are below this."""


def hash_unless_blank(pixels: Pixels) -> str:
    """Return the `pixel_hash` of a photograph, or "" if it is blank: of one colour, or black."""
    return "" if is_blank(pixels) else pixel_hash(pixels)


def is_blank(pixels: Pixels) -> bool:
    """Return whether a photograph is of one colour, or black apart from noise."""
    flat = pixels.reshape(-1, pixels.shape[-1])
    return _is_even(flat[::97]) and _is_even(flat)  # a few pixels decide for most photographs


def _is_even(values: Pixels) -> bool:
    return bool(values.max() < _DARK or (np.ptp(values, axis=0) < _EVEN).all())


def pixel_hash(pixels: Pixels) -> str:
    """Return the XXH3 hash, 32 hex digits, of a photograph's shape and all its pixels.

    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    digest = xxhash.xxh3_128(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def hash_file(path: str) -> str:
    """Return `hash_unless_blank` of a file, decoded at its full size.

    Raises:
        DataError: as `retina.data.fundus.read`.
    """
    return hash_unless_blank(read(Path(path)))
