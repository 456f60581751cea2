"""Which photographs are of the same eye at the same moment, or nearly: told by the pattern of vessels and lesions.

Photographs of different eyes are much alike: a bright disc, cut flat in the same places by the same camera, the optic
disc on one side. A perceptual hash of all that (64 bits, the way of pHash) leaves no bit between six pairs of IDRiD's
files that differ. So the light and the rim are taken out first; what is left are vessels and lesions.

All 132,870 pairs of IDRiD's photographs were compared, and each photograph with seven altered copies of itself (JPEG of
quality 60 and 30, half the size, 224 pixels, brighter, darker, other colours). The copies lie at Hamming distances of 0
to 33, with correlations of 0.91 and more. Of the pairs six are the same file; one, at 29 and 0.94, is the same eye in
the same pose at two exposures; all others lie at 45 and more, with 0.79 and less, and the nearest ones of these are
different eyes when one looks at them. Mirrored copies, and ones that are turned by more than a few degrees or cropped
into the disc, are not found.

A strong blur leaves too little to tell eyes apart, so it is known by how little of the details is fine, and what has it
is not compared. Sharpness would not do: a JPEG puts finer details over a blur. As they are all 516 are compared.
Blurred by a Gaussian whose sigma is 2% of their width 461 are, with the same seven pairs. Of those blurred by 3%, 97
are, and two eyes are taken for one (without this rule four times); by 4%, 4 are, and none is (43 times).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from retina.data.fundus import Disc, Pixels, Source, find_disc, read
from retina.data.quality import within
from retina.system.hardware import cores

SIDE = 32
AT_LEAST = 448
"""Pixels of a JPEG's shorter side that are decoded, whatever size the model sees: so the same ones are near in all."""
MOST_BITS = 40
"""The largest Hamming distance, of 255 bits, at which two photographs are compared more closely."""
LEAST_CORRELATION = 0.85
"""The least correlation of two photographs' details at which they are near duplicates."""

Details = NDArray[np.int8]
Prints = NDArray[np.uint64]
Pairs = NDArray[np.int64]

_MARGIN = 0.04  # of the square, inside the rim, which is alike in all photographs of a camera
_LIGHT = 2.0  # sigma, in pixels of 32, of what counts as light and not as detail
_LEAST_DETAIL = 0.5  # grey levels: below, it is the noise of an even patch
_LEAST_FINE = 0.36  # of the details' spread, see above
_FINE = 1.0  # sigma, in pixels of 32: what is finer counts as fine
_FULL = 3.0  # standard deviations that become an int8's 127
_FREQUENCIES = 16
_CELLS = 2**22  # of the table of distances that a thread makes at a time: 32 MB of differences


def details_of(source: Source) -> bytes:
    """`describe` a photograph whose disc is yet to be found: 1,024 bytes, or none where there is nothing to compare.

    Raises:
        DataError: as `retina.data.fundus.read`.
    """
    pixels = read(Path(source), at_least=AT_LEAST) if isinstance(source, str) else source
    disc = find_disc(pixels)
    details = describe(pixels, disc) if disc else None
    return b"" if details is None else details.tobytes()


def describe(pixels: Pixels, disc: Disc) -> Details | None:
    """The details of a photograph without its light: green minus its surroundings, in standard deviations.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        disc: where its disc stands.

    Returns:
        (32, 32) int8, 0 outside the disc; None where there is no detail, or too blurred a one to tell eyes apart.
    """
    square, inside = within(pixels, disc, SIDE, _MARGIN)
    weight = inside.astype(np.float32)
    around = ndimage.gaussian_filter(square[..., 1] * weight, _LIGHT)
    light = around / np.maximum(ndimage.gaussian_filter(weight, _LIGHT), 1e-3)
    detail = (square[..., 1] - light) * weight
    spread = float(detail[inside].std()) if inside.any() else 0.0
    if spread < _LEAST_DETAIL or _fine(detail, inside) < _LEAST_FINE:
        return None
    described: Details = np.rint(np.clip(detail / (spread * _FULL), -1, 1) * 127).astype(np.int8)
    return described


def _fine(detail: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """The share, 0 to 1, that is fine of the details' spread; away from the rim, which a blur smears into the disc."""
    middle = ndimage.binary_erosion(inside, iterations=3)
    if not middle.any():
        return 0.0
    fine = detail - ndimage.gaussian_filter(detail, _FINE)
    return float(fine[middle].std() / max(detail[middle].std(), 1e-3))


def prints(details: Details) -> Prints:
    """Perceptual hashes: the signs of the 16 x 16 lowest frequencies (DCT), all but the mean.

    Args:
        details: (n, 32, 32) int8.

    Returns:
        (n, 4) uint64. One bit is 0 in all of them, so that a distance fits into eight bits.
    """
    spectrum = fft.dctn(details.astype(np.float32), axes=(1, 2))[:, :_FREQUENCIES, :_FREQUENCIES]
    signs = spectrum.reshape(len(details), -1) > 0
    signs[:, 0] = False
    return np.packbits(signs, axis=1).view(np.uint64)


def near_pairs(details: Details) -> Pairs:
    """All pairs of near duplicates; every print is compared with every other.

    Args:
        details: (n, 32, 32) int8.

    Returns:
        (p, 2) int64, positions in `details`, the lower one first.
    """
    if len(details) < 2:
        return np.empty((0, 2), np.int64)
    words = np.ascontiguousarray(prints(details).T)
    with ThreadPoolExecutor(cores()) as pool:  # numpy lets go of the interpreter's lock
        found = pool.map(lambda block: _alike(details, _close(words, *block)), _blocks(len(details)))
        return np.concatenate(list(found))


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    step = max(_CELLS // n, 1)
    return ((first, min(first + step, n)) for first in range(0, n, step))


def _close(words: Prints, first: int, last: int) -> Pairs:
    """Pairs of a photograph from `first` on, before `last`, with one behind it, at `MOST_BITS` or fewer."""
    distance = np.zeros((last - first, words.shape[1] - first), np.uint8)
    for word in words:
        distance += np.bitwise_count(word[first:last, None] ^ word[None, first:])
    rows, columns = np.nonzero(distance <= MOST_BITS)
    behind = columns > rows
    return np.stack([rows[behind], columns[behind]], axis=1) + first


def _alike(details: Details, pairs: Pairs) -> Pairs:
    """Those of the pairs whose details correlate; some at a time, for there may be millions of pairs."""
    parts = [pairs[start : start + 4096] for start in range(0, len(pairs), 4096)]
    kept = [part[_correlation(details, part) >= LEAST_CORRELATION] for part in parts]
    return np.concatenate(kept) if kept else pairs


def _correlation(details: Details, pairs: Pairs) -> NDArray[np.float32]:
    """(p,) float32, -1 to 1."""
    one, other = (details[pairs[:, side]].reshape(len(pairs), -1).astype(np.float32) for side in (0, 1))
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    correlation: NDArray[np.float32] = (one * other).sum(axis=1) / np.maximum(norms, 1e-6)
    return correlation
