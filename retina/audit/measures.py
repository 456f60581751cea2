"""The sizes, brightness, contrast and sharpness of the photographs, summarized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retina.audit.inspect_photograph import PhotographFindings
from retina.data.quality import MIN_BRIGHTNESS, MIN_SHARPNESS


@dataclass(frozen=True)
class Measure:
    """The spread of one measure over all photographs.

    Attributes:
        name: the measure with its unit.
        least: the smallest value.
        median: the median.
        most: the largest value.
        limit: photographs with a smaller value are reported; None if there is no limit.
        digits: decimals to show.
    """

    name: str
    least: float
    median: float
    most: float
    limit: float | None = None
    digits: int = 0

    def format(self, value: float | None) -> str:
        """Return one of the values as text; "" for None."""
        return "" if value is None else f"{value:,.{self.digits}f}"


def summarize_measures(photographs: Sequence[PhotographFindings], image_size: int) -> list[Measure]:
    """Return the measures of all readable photographs, without those that have no value for any photograph."""
    readable = [(photograph, photograph.quality) for photograph in photographs if photograph.quality]
    rows: list[tuple[str, list[float], float | None, int]] = [
        ("longer side, pixels", [max(photograph.width, photograph.height) for photograph, _ in readable], None, 0),
        ("disc, pixels", [photograph.disc_side for photograph, _ in readable if photograph.disc_side], image_size, 0),
        ("brightness, 0 to 255", [quality.brightness for _, quality in readable], MIN_BRIGHTNESS, 0),
        ("contrast, grey levels", [quality.contrast for _, quality in readable], None, 1),
        ("sharpness", [quality.sharpness for _, quality in readable], MIN_SHARPNESS, 2),
    ]
    measures = []
    for name, values, limit, digits in rows:
        known = np.array([value for value in values if not np.isnan(value)])
        if len(known):
            measures.append(Measure(name, known.min(), float(np.median(known)), known.max(), limit, digits))
    return measures


def count_sizes(photographs: Sequence[PhotographFindings]) -> list[tuple[str, int]]:
    """Return sizes such as "4,288 x 2,848" with the number of photographs of each, the most common first."""
    counts = Counter((photograph.width, photograph.height) for photograph in photographs if photograph.quality)
    return [(f"{width:,} x {height:,}", n) for (width, height), n in counts.most_common()]
