"""How large, bright and sharp the photographs are, in a few numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retina.audit.inspect_photograph import PhotographFindings
from retina.data.quality import LEAST_BRIGHTNESS, LEAST_SHARPNESS


@dataclass(frozen=True)
class Measure:
    """The spread of one number over all photographs.

    Attributes:
        name: what is measured, and in which unit.
        least: its smallest value.
        median: its median.
        most: its largest.
        limit: below which a photograph is named; None where there is no limit.
        digits: worth showing.
    """

    name: str
    least: float
    median: float
    most: float
    limit: float | None = None
    digits: int = 0

    def told(self, value: float | None) -> str:
        """One of the values as text; empty for None."""
        return "" if value is None else f"{value:,.{self.digits}f}"


def summarize_measures(seen: Sequence[PhotographFindings], image_size: int) -> list[Measure]:
    """What was measured of all photographs that can be read, each where it has a value for any of them."""
    read = [(one, one.quality) for one in seen if one.quality]
    rows: list[tuple[str, list[float], float | None, int]] = [
        ("longer side, pixels", [max(one.width, one.height) for one, _ in read], None, 0),
        ("disc, pixels", [one.side for one, _ in read if one.side], image_size, 0),
        ("brightness, 0 to 255", [quality.brightness for _, quality in read], LEAST_BRIGHTNESS, 0),
        ("contrast, grey levels", [quality.contrast for _, quality in read], None, 1),
        ("sharpness", [quality.sharpness for _, quality in read], LEAST_SHARPNESS, 2),
    ]
    found = []
    for name, values, limit, digits in rows:
        known = np.array([value for value in values if not np.isnan(value)])
        if len(known):
            found.append(Measure(name, known.min(), float(np.median(known)), known.max(), limit, digits))
    return found


def count_sizes(seen: Sequence[PhotographFindings]) -> list[tuple[str, int]]:
    """Sizes as "4,288 x 2,848", with how many photographs have each, the commonest first."""
    counts = Counter((one.width, one.height) for one in seen if one.quality)
    return [(f"{width:,} x {height:,}", n) for (width, height), n in counts.most_common()]
