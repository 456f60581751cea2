"""Writes an audit as one HTML page that needs no network and no other file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

import retina
from retina.audit import findings, measures, terminal, unused
from retina.audit.duplicates import DuplicateGroup
from retina.audit.labels import effective_splits
from retina.audit.runner import Audit
from retina.audit.thumbnails import thumbnail
from retina.config import GRADE_NAMES, GRADES
from retina.data import perceptual_hash, quality
from retina.data.photograph_pool import map_photographs
from retina.errors import ResultsError
from retina.results.files import write_text
from retina.system import output_files
from retina.system.progress import Progress

GENERATOR = "retina data audit"
"""The generator that a page names in its head, by which an older page is recognised."""
SHOWN_PER_GRADE = 16
"""Photographs in each grade's contact sheet."""
SHOWN_PER_PROBLEM = 24
"""Photographs shown for each quality problem, the worst first."""
MAX_PICTURED_GROUPS = 40
"""Groups of duplicates that are shown with their photographs."""
SHOWN_PER_GROUP = 6
"""Photographs shown for each of these groups."""
MAX_LISTED = 1000
"""Lines of a list."""


@dataclass(frozen=True)
class PagePhotograph:
    """One photograph on the page.

    Attributes:
        row: position in the manifest.
        name: the photograph's name.
        caption: text below the name; may be "".
        uri: data URI of the thumbnail; "" if the photograph cannot be read.
    """

    row: int
    name: str
    caption: str
    uri: str = ""


@dataclass(frozen=True)
class PicturedGroup:
    """A group of duplicates with the first of its photographs."""

    group: DuplicateGroup
    pictures: list[PagePhotograph]

    @property
    def caption(self) -> str:
        """The group's kind, conflicts and splits as text."""
        text = "the same picture" if self.group.is_exact else "nearly the same picture"
        text += ", conflicting grades" if self.group.has_conflicting_grades else ""
        text += f", in {' and '.join(self.group.splits)}" if self.group.crosses_splits else ""
        more = len(self.group.rows) - len(self.pictures)
        return text + (f", and {more:,} more of it" if more else "")


def default_file(audited: Path) -> Path:
    """Return the default file for the page of the data at a path: audit-NAME.html in the current folder."""
    name = re.sub(r"[^\w.-]+", "-", audited.stem if audited.is_file() else audited.absolute().name).strip("-.")
    return Path(f"audit-{name}.html" if name else "audit.html")


def ensure_replaceable(file: Path) -> None:
    """Raise if a page, or the table beside it, would overwrite another file.

    Raises:
        ResultsError: if `file` exists and is no audit's page, or if no file can be written there; also as
            `retina.audit.unused.ensure_replaceable`. The exit code is 1 if the disk is at fault.
    """
    if problem := output_files.unwritable_reason(
        file, "--html", "audit's page", lambda text: f'content="{GENERATOR}"' in text
    ):
        raise ResultsError(f"{file}: {problem}")
    unused.ensure_replaceable(file)


def write(audit: Audit, file: Path, *, seed: int = 0, progress: Progress = lambda *_: None) -> Path:
    """Write an audit's page, completely or not at all.

    Args:
        audit: the audit's results.
        file: the page; an older page of an audit is overwritten.
        seed: seed of the random photographs in the contact sheets.
        progress: called while thumbnails are made.

    Raises:
        ResultsError: as `ensure_replaceable`, or if the page cannot be written.
    """
    ensure_replaceable(file)
    text = render(audit, seed=seed, progress=progress)
    try:
        write_text(file, text, is_private=True)
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {error.strerror}") from None
    return file


def render(audit: Audit, *, seed: int = 0, progress: Progress = lambda *_: None) -> str:
    """Return the page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retina.audit"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    photographs = audit.photographs or []
    sheets = {grade: _random_pictures(audit, grade, seed) for grade in range(GRADES)} if photographs else {}
    unfit = {problem: _worst_pictures(audit, problem) for problem in findings.QUALITY_PROBLEMS}
    groups = [_to_pictured_group(audit, group) for group in audit.duplicate_groups[:MAX_PICTURED_GROUPS]]
    uris = _thumbnail_uris(audit, [*sheets.values(), *unfit.values(), *(group.pictures for group in groups)], progress)
    style = resources.files("retina.audit").joinpath("templates", "audit.css").read_text(encoding="utf-8")
    template = environment.get_template("audit.html")
    return template.render(
        audit=audit,
        labels=audit.label_statistics,
        name=audit.manifest.root.name or str(audit.manifest.root),
        generator=GENERATOR,
        style=Markup(style),  # noqa: S704 -- a file of this package
        written_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=retina.__version__,
        findings=findings.find(audit),
        label_summary=terminal.describe_labels(audit.label_statistics),
        counts=_grade_counts(audit),
        grades=list(enumerate(GRADE_NAMES)),
        baselines=terminal.baseline_rows(audit.label_statistics),
        sizes=[
            f"{size} pixels: {findings.pluralize(n, 'photograph')}" for size, n in measures.count_sizes(photographs)
        ],
        measures=measures.summarize_measures(photographs, audit.config.image_size),
        groups=[replace(group, pictures=_with_uris(group.pictures, uris)) for group in groups],
        all_groups=[(group, _names(audit, list(group.rows))) for group in audit.duplicate_groups[:MAX_LISTED]],
        unfit={problem: _with_uris(pictures, uris) for problem, pictures in unfit.items() if pictures},
        unfit_names={problem: _names(audit, audit.rows_with_problem(problem)) for problem in unfit},
        read_errors=[photographs[row].read_error for row in audit.unreadable_rows[:MAX_LISTED]],
        sheets={grade: _with_uris(pictures, uris) for grade, pictures in sheets.items()},
        max_listed=MAX_LISTED,
        quality=quality,
        perceptual_hash=perceptual_hash,
        pluralize=findings.pluralize,
        seed=seed,
    )


def _grade_counts(audit: Audit) -> list[tuple[str, int, list[tuple[int, float]]]]:
    """Return for each split its name, its number of photographs, and each grade's number and share, 0 to 1."""
    rows = []
    for split, row in audit.label_statistics.counts.iterrows():
        counts = [int(n) for n in row]
        total = sum(counts)
        rows.append((str(split) or "no split", total, [(n, n / total) for n in counts]))
    return rows


def _random_pictures(audit: Audit, grade: int, seed: int) -> list[PagePhotograph]:
    """Return random readable photographs of a grade, in the order of the labels."""
    photographs = audit.photographs or []
    of_grade = np.flatnonzero(audit.manifest.frame["grade"] == grade).tolist()
    rows = [row for row in of_grade if not photographs[row].read_error]
    rng = np.random.default_rng([seed, grade])
    chosen = rng.permutation(len(rows))[:SHOWN_PER_GRADE]
    return [_picture(audit, rows[i], "; ".join(photographs[rows[i]].problems)) for i in sorted(chosen.tolist())]


def _worst_pictures(audit: Audit, problem: str) -> list[PagePhotograph]:
    pictures = []
    for row in audit.rows_with_problem(problem)[:SHOWN_PER_PROBLEM]:
        measured = (audit.photographs or [])[row].quality
        caption = f"grade {audit.manifest.frame['grade'].iloc[row]}"
        if measured:
            sharpness = "" if np.isnan(measured.sharpness) else f", sharpness {measured.sharpness:.2f}"
            caption += f", brightness {measured.brightness:.0f}{sharpness}"
        pictures.append(_picture(audit, row, caption))
    return pictures


def _to_pictured_group(audit: Audit, group: DuplicateGroup) -> PicturedGroup:
    frame = audit.manifest.frame
    splits = effective_splits(frame["split"])
    pictures = [
        _picture(audit, row, f"grade {frame['grade'].iloc[row]}, {splits.iloc[row] or 'no split'}")
        for row in group.rows[:SHOWN_PER_GROUP]
    ]
    return PicturedGroup(group, pictures)


def _picture(audit: Audit, row: int, caption: str) -> PagePhotograph:
    return PagePhotograph(row, str(audit.manifest.frame["image"].iloc[row]), caption)


def _names(audit: Audit, rows: list[int]) -> list[str]:
    return [str(name) for name in audit.manifest.frame["image"].iloc[rows[:MAX_LISTED]]]


def _thumbnail_uris(audit: Audit, pictures: list[list[PagePhotograph]], progress: Progress) -> dict[int, str]:
    """Return the data URI of every photograph on the page by its row; each thumbnail is made once."""
    rows = sorted({picture.row for sheet in pictures for picture in sheet})
    if not rows:
        return {}
    uris = map_photographs(
        audit.manifest.frame.iloc[rows], thumbnail, lambda done, total: progress("making the page", done, total)
    )
    return dict(zip(rows, uris, strict=True))


def _with_uris(pictures: list[PagePhotograph], uris: dict[int, str]) -> list[PagePhotograph]:
    return [replace(picture, uri=uris[picture.row]) for picture in pictures]
