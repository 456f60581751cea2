"""A whole audit: read the labels, look at every photograph, compare them all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from retina.audit import duplicates, inspect_photograph, labels
from retina.audit.duplicates import DuplicateGroup
from retina.audit.inspect_photograph import PhotographFindings
from retina.audit.labels import LabelStatistics
from retina.config import DataConfig
from retina.data import layouts
from retina.data.manifest import Manifest
from retina.data.photograph_pool import visit
from retina.data.quality import BLURRED
from retina.errors import PhotographsAbsentError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many photographs of how many are."""


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        config: what was asked for.
        manifest: the labels that can be used; its `skipped` are the others, missing photographs among them.
        labels: what they tell.
        seen: what was seen on each photograph of the manifest; None where none of them is there.
        groups: of duplicates.
    """

    config: DataConfig
    manifest: Manifest
    labels: LabelStatistics
    seen: list[PhotographFindings] | None = None
    groups: list[DuplicateGroup] = field(default_factory=list)

    def unfit(self, problem: str) -> list[int]:
        """Positions of the photographs that have a problem, one of `retina.data.quality`'s; the worst first."""
        badness = {
            row: one.quality.sharpness if problem == BLURRED else one.quality.brightness
            for row, one in enumerate(self.seen or [])
            if one.quality and problem in one.problems
        }
        return sorted(badness, key=badness.__getitem__)

    @property
    def unjudged(self) -> int:
        """How many photographs have a disc that is too small to be judged for sharpness."""
        measured = [one.quality for one in self.seen or [] if one.quality and one.quality.disc]
        return sum(math.isnan(one.sharpness) for one in measured)

    @property
    def unreadable(self) -> list[int]:
        """Positions of the photographs that cannot be read."""
        return [row for row, one in enumerate(self.seen or []) if one.unreadable]


def audit(config: DataConfig, progress: Progress = lambda *_: None, workers: int | None = None) -> Audit:
    """Audit the photographs at `config.path`, or where none of them is there their labels alone.

    Args:
        config: `path`, `layout` and `image_size` count. What is bad is listed, whatever `on_bad` says.
        progress: told of what takes long.
        workers: processes that look at photographs; by default one for each core that this process may use.

    Raises:
        DataError: nothing there, no known layout, or no label that can be used.
    """
    config = config.model_copy(update={"on_bad": "skip"})
    try:
        manifest = layouts.read(config)
    except PhotographsAbsentError:
        manifest = layouts.read(config, photographs=False)
        return Audit(config, manifest, labels.summarize(manifest.frame))
    frame = manifest.frame
    seen = visit(
        frame,
        inspect_photograph.inspect_photograph,
        lambda done, total: progress("looking at photographs", done, total),
        workers,
    )
    return Audit(config, manifest, labels.summarize(frame), seen, duplicates.find_groups(frame, seen))
