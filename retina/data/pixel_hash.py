"""What tells whether two photographs are the same: a hash over all their decoded pixels.

It is over the pixels as they were read, upright and before anything is cropped or resized. So another name, a format
without loss, or other metadata changes nothing, and neither does `data.image_size`, with one exception, mended here: a
large JPEG is decoded at 1/2 to 1/8 of its size, which is the same for all JPEGs of that size, but not for a PNG of it;
`retina.data.cache` hashes such JPEGs at their full size.

Photographs in which all pixels are nearly alike (a closed lens, a blank page) have no hash: they are the same picture,
and say nothing about whose eye it is. Joined, they would make one patient of hundreds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xxhash

from retina.data.fundus import Pixels, read

_BLANK = 3
"""Grey levels between the darkest and the brightest value of each channel, below which there is nothing to see."""


def pixel_hash(pixels: Pixels) -> str:
    """32 hex digits over the shape and all pixels of a photograph, XXH3; "" for one that shows nothing.

    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    flat = pixels.reshape(-1, pixels.shape[-1])
    if (np.ptp(flat[:: max(len(flat) // 4096, 1)], axis=0) < _BLANK).all() and (np.ptp(flat, axis=0) < _BLANK).all():
        return ""
    digest = xxhash.xxh3_128(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def full_hash(path: str) -> str:
    """`pixel_hash` of a file at its full size.

    Raises:
        DataError: as `retina.data.fundus.read`.
    """
    return pixel_hash(read(Path(path)))
