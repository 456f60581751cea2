"""What tells whether two photographs are the same: a hash over all their decoded pixels.

It is over the pixels as they were read, upright and before anything is cropped or resized. So another name, a format
without loss, or other metadata changes nothing, and neither does `data.image_size`, with one exception, mended here: a
large JPEG is decoded at 1/2 to 1/8 of its size, which is the same for all JPEGs of that size, but not for a PNG of it;
`retina.data.cache.pixel_cache` hashes such JPEGs at their full size.

Photographs of one colour all over (a closed lens, a blank page) are not joined: they are the same picture, and say
nothing about whose eye it is. Joined, they would make one patient of hundreds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xxhash

from retina.data.fundus import Pixels, read

_EVEN = 3
"""Grey levels between the darkest and the brightest value of each channel, below which a picture is blank."""
_DARK = 16
"""The value below which all must lie in a picture that is black but for its noise."""


def hash_for_joining(pixels: Pixels) -> str:
    """`pixel_hash` of a photograph, or "" for one that is blank: of one colour all over, or black."""
    return "" if is_blank(pixels) else pixel_hash(pixels)


def is_blank(pixels: Pixels) -> bool:
    """Whether a photograph is of one colour all over, or black but for its noise."""
    flat = pixels.reshape(-1, pixels.shape[-1])
    return _is_even(flat[::97]) and _is_even(flat)  # most are told by a few pixels


def _is_even(values: Pixels) -> bool:
    return bool(values.max() < _DARK or (np.ptp(values, axis=0) < _EVEN).all())


def pixel_hash(pixels: Pixels) -> str:
    """32 hex digits over the shape and all pixels of a photograph, XXH3.

    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    digest = xxhash.xxh3_128(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def full_hash(path: str) -> str:
    """`hash_for_joining` of a file at its full size.

    Raises:
        DataError: as `retina.data.fundus.read`.
    """
    return hash_for_joining(read(Path(path)))
