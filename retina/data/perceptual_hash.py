"""Near-duplicate photographs, found by a perceptual hash of vessels and lesions.

Near duplicates show the same eye at the same moment, or nearly.

Why not the imagehash library: photographs of different eyes are much alike, with a bright disc, cut flat at the same
positions by the same camera, and the optic disc on one side. A perceptual hash of the whole picture (pHash, 64 bits)
has the same bits for six pairs of different files of IDRiD. So the illumination and the rim are removed first; vessels
and lesions remain.

All 132,870 pairs of IDRiD's photographs were compared, and each photograph with seven altered copies of itself (JPEG of
quality 60 and 30, half the size, 224 pixels, brighter, darker, other colours). The copies have Hamming distances of 0
to 33 and correlations of at least 0.91. Of the pairs, six are the same file; one, at 29 and 0.94, is the same eye in
the same pose at two exposures; all others have distances of at least 45 and correlations of at most 0.79, and visual
inspection shows different eyes in the nearest of them. Copies that are mirrored, rotated by more than a few degrees or
cropped into the disc are not found.

A strong blur leaves too little detail to distinguish eyes. It is detected by the fraction of the details that is fine,
and such photographs are not compared. `quality.Quality.sharpness` cannot detect it, because JPEG adds finer details
over a blur. All 516 original photographs are compared. Blurred by a Gaussian whose sigma is 2% of the width, 461 are
compared, with the same seven pairs. At 3%, 97 are compared and two eyes are taken for one (four times without this
rule); at 4%, 4 are compared and none is (43 times without it).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from retina.data.fundus import Disc, Pixels, Source, find_disc, read
from retina.data.quality import crop_disc
from retina.system.hardware import cores

SIDE = 32
MIN_DECODED_SIDE = 448
"""Least pixels of a decoded JPEG's shorter side. The pairs found do not depend on the model's input size."""
MAX_DISTANCE = 40
"""The largest Hamming distance, of 255 bits, at which the details of two photographs are correlated."""
MIN_CORRELATION = 0.85
"""The least correlation of two photographs' details at which they are near duplicates."""

Details = NDArray[np.int8]
Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]

_MARGIN = 0.04  # fraction of the square left out inside the rim, which is alike in all photographs of a camera
_LIGHT_SIGMA = 2.0  # in pixels of 32; coarser structures count as illumination, not as detail
_MIN_DETAIL = 0.5  # grey levels; below is the noise of an even patch
_MIN_FINE = 0.36  # fraction of the details' spread, see above
_FINE_SIGMA = 1.0  # in pixels of 32; finer details count as fine
_FULL_SCALE = 3.0  # standard deviations that become an int8's 127
_FREQUENCIES = 16
_BLOCK_CELLS = 2**22  # cells of the distance table that a thread computes at a time: 32 MB of differences


def read_details(source: Source) -> bytes:
    """Read a photograph, find its disc and return `extract_details` as 1,024 bytes; empty if there are no details.

    Raises:
        DataError: as `retina.data.fundus.read`.
    """
    pixels = read(Path(source), min_side=MIN_DECODED_SIDE) if isinstance(source, str) else source
    disc = find_disc(pixels)
    details = extract_details(pixels, disc) if disc else None
    return b"" if details is None else details.tobytes()


def extract_details(pixels: Pixels, disc: Disc) -> Details | None:
    """Extract the details of a photograph: green minus its surroundings, in standard deviations.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        disc: its disc.

    Returns:
        (32, 32) int8, 0 outside the disc; None if there are no details or they are too blurred to distinguish eyes.
    """
    square, inside = crop_disc(pixels, disc, SIDE, _MARGIN)
    weight = inside.astype(np.float32)
    smoothed = ndimage.gaussian_filter(square[..., 1] * weight, _LIGHT_SIGMA)
    light = smoothed / np.maximum(ndimage.gaussian_filter(weight, _LIGHT_SIGMA), 1e-3)
    detail = (square[..., 1] - light) * weight
    spread = float(detail[inside].std()) if inside.any() else 0.0
    if spread < _MIN_DETAIL or _fine_fraction(detail, inside) < _MIN_FINE:
        return None
    details: Details = np.rint(np.clip(detail / (spread * _FULL_SCALE), -1, 1) * 127).astype(np.int8)
    return details


def _fine_fraction(detail: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Return the fine fraction, 0 to 1, of the details' spread, without the rim, which a blur smears into the disc."""
    middle = ndimage.binary_erosion(inside, iterations=3)
    if not middle.any():
        return 0.0
    fine = detail - ndimage.gaussian_filter(detail, _FINE_SIGMA)
    return float(fine[middle].std() / max(detail[middle].std(), 1e-3))


def compute_hashes(details: Details) -> Hashes:
    """Compute perceptual hashes: the signs of the 16 x 16 lowest frequencies (DCT) except for the mean.

    Args:
        details: (n, 32, 32) int8.

    Returns:
        (n, 4) uint64. One bit, of the mean, is 0 in all of them, so that a distance fits into eight bits.
    """
    spectrum = fft.dctn(details.astype(np.float32), axes=(1, 2))[:, :_FREQUENCIES, :_FREQUENCIES]
    signs = spectrum.reshape(len(details), -1) > 0
    signs[:, 0] = False
    return np.packbits(signs, axis=1).view(np.uint64)


def find_near_pairs(details: Details) -> Pairs:
    """Find all pairs of near duplicates by comparing every hash with every other.

    Args:
        details: (n, 32, 32) int8.

    Returns:
        (p, 2) int64, positions in `details`, the lower one first.
    """
    if len(details) < 2:
        return np.empty((0, 2), np.int64)
    words = np.ascontiguousarray(compute_hashes(details).T)
    with ThreadPoolExecutor(cores()) as pool:  # numpy releases the interpreter's lock
        pairs = pool.map(lambda block: _correlated_pairs(details, _close_pairs(words, *block)), _blocks(len(details)))
        return np.concatenate(list(pairs))


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    step = max(_BLOCK_CELLS // n, 1)
    return ((first, min(first + step, n)) for first in range(0, n, step))


def _close_pairs(words: Hashes, first: int, last: int) -> Pairs:
    """Pair the rows from `first` up to `last` (exclusive) with later rows at a distance of at most `MAX_DISTANCE`."""
    distance = np.zeros((last - first, words.shape[1] - first), np.uint8)
    for word in words:
        distance += np.bitwise_count(word[first:last, None] ^ word[None, first:])
    rows, columns = np.nonzero(distance <= MAX_DISTANCE)
    later = columns > rows
    return np.stack([rows[later], columns[later]], axis=1) + first


def _correlated_pairs(details: Details, pairs: Pairs) -> Pairs:
    """Return the pairs whose details correlate; in chunks, because there may be millions of pairs."""
    chunks = [pairs[start : start + 4096] for start in range(0, len(pairs), 4096)]
    correlated = [chunk[_correlation(details, chunk) >= MIN_CORRELATION] for chunk in chunks]
    return np.concatenate(correlated) if correlated else pairs


def _correlation(details: Details, pairs: Pairs) -> NDArray[np.float32]:
    """Return the correlation of the details of each pair, (p,) float32, -1 to 1."""
    first, second = (details[pairs[:, side]].reshape(len(pairs), -1).astype(np.float32) for side in (0, 1))
    first -= first.mean(axis=1, keepdims=True)
    second -= second.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    correlation: NDArray[np.float32] = (first * second).sum(axis=1) / np.maximum(norms, 1e-6)
    return correlation
