"""Runs a whole audit: reads the labels, inspects every photograph and finds duplicates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from retina.audit import duplicates, labels
from retina.audit.duplicates import DuplicateGroup
from retina.audit.inspect_photograph import PhotographFindings, inspect_photograph
from retina.audit.labels import LabelStatistics
from retina.config import DataConfig
from retina.data import layouts
from retina.data.manifest import Manifest
from retina.data.photograph_pool import map_photographs
from retina.data.quality import BLURRED
from retina.errors import PhotographsAbsentError
from retina.system.progress import Progress


@dataclass(frozen=True)
class Audit:
    """The results of an audit.

    Attributes:
        config: the audited data set's configuration.
        manifest: the usable labels; its `skipped` are the unusable ones, those of missing photographs included.
        label_statistics: statistics of the usable labels.
        photographs: the findings on each photograph of the manifest; None if none of them exists.
        duplicate_groups: groups of duplicates.
    """

    config: DataConfig
    manifest: Manifest
    label_statistics: LabelStatistics
    photographs: list[PhotographFindings] | None = None
    duplicate_groups: list[DuplicateGroup] = field(default_factory=list)

    def rows_with_problem(self, problem: str) -> list[int]:
        """Return the positions of the photographs with one of `retina.data.quality`'s problems, the worst first."""
        values = {
            row: photograph.quality.sharpness if problem == BLURRED else photograph.quality.brightness
            for row, photograph in enumerate(self.photographs or [])
            if photograph.quality and problem in photograph.problems
        }
        return sorted(values, key=values.__getitem__)

    @property
    def discs_without_sharpness(self) -> int:
        """The number of photographs whose disc is too small for its sharpness to be measured."""
        qualities = [photograph.quality for photograph in self.photographs or [] if photograph.quality]
        return sum(bool(quality.disc) and math.isnan(quality.sharpness) for quality in qualities)

    @property
    def unreadable_rows(self) -> list[int]:
        """Positions of the photographs that cannot be read."""
        return [row for row, photograph in enumerate(self.photographs or []) if photograph.read_error]


def audit(config: DataConfig, progress: Progress = lambda *_: None, workers: int | None = None) -> Audit:
    """Audit the photographs at `config.path`, or only their labels if none of the photographs exists.

    Args:
        config: `path`, `layout` and `image_size` count. Bad rows are listed, whatever `on_bad` is.
        progress: called during the steps that take long.
        workers: processes that inspect photographs; by default one for each core that this process may use.

    Raises:
        DataError: if the path does not exist, has no known layout, or no label can be used.
    """
    config = config.model_copy(update={"on_bad": "skip"})
    try:
        manifest = layouts.read(config)
    except PhotographsAbsentError:
        manifest = layouts.read(config, photographs=False)
        return Audit(config, manifest, labels.summarize(manifest.frame))
    frame = manifest.frame
    photographs = map_photographs(
        frame, inspect_photograph, lambda done, total: progress("inspecting photographs", done, total), workers
    )
    return Audit(config, manifest, labels.summarize(frame), photographs, duplicates.find_groups(frame, photographs))
