"""An audit as one HTML page that needs no network and no other file."""

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
from retina.audit.runner import Audit, Progress
from retina.audit.thumbnails import thumbnail
from retina.config import GRADE_NAMES, GRADES
from retina.data import perceptual_hash, quality
from retina.data.photograph_pool import visit
from retina.errors import ResultsError
from retina.results.files import write_text
from retina.system import output_files

GENERATOR = "retina data audit"
"""What a page says that it was written by, near its beginning."""
SHOWN_PER_GRADE = 16
"""Photographs of each grade's contact sheet."""
SHOWN_PER_PROBLEM = 24
"""Photographs shown of each problem, the worst first."""
MAX_PICTURED_GROUPS = 40
"""Groups of duplicates that are shown with their photographs."""
SHOWN_PER_GROUP = 6
"""Photographs shown of each of these."""
MAX_LISTED = 1000
"""Lines of a list."""


@dataclass(frozen=True)
class Picture:
    """One photograph on the page: its position in the manifest, its name, what is said below, and its data URI."""

    row: int
    name: str
    told: str
    uri: str = ""


@dataclass(frozen=True)
class DisplayedGroup:
    """A group of duplicates, with the first of its photographs."""

    group: DuplicateGroup
    pictures: list[Picture]

    @property
    def told(self) -> str:
        """What it is, in words."""
        words = "the same picture" if self.group.exact else "nearly the same picture"
        words += ", conflicting grades" if self.group.conflict else ""
        words += f", in {' and '.join(self.group.splits)}" if self.group.crosses else ""
        more = len(self.group.rows) - len(self.pictures)
        return words + (f", and {more:,} more of it" if more else "")


def default_file(audited: Path) -> Path:
    """Where the page of the data at a path goes if nobody says: audit-NAME.html in the current folder."""
    name = re.sub(r"[^\w.-]+", "-", audited.stem if audited.is_file() else audited.absolute().name).strip("-.")
    return Path(f"audit-{name}.html" if name else "audit.html")


def ensure_replaceable(file: Path) -> None:
    """Stop where a page, or the table beside it, would take the place of something else.

    Raises:
        ResultsError: `file` is there and no audit's page, or no file can be written there; as
            `retina.audit.unused.ensure_replaceable`. Exit code 1 where the disk is at fault.
    """
    if problem := output_files.in_the_way(
        file, "--html", "audit's page", lambda text: f'content="{GENERATOR}"' in text
    ):
        raise ResultsError(f"{file}: {problem}")
    unused.ensure_replaceable(file)


def write(audit: Audit, file: Path, *, seed: int = 0, progress: Progress = lambda *_: None) -> Path:
    """Write an audit's page, whole or not at all.

    Args:
        audit: what was found.
        file: where to; an older page of an audit is overwritten.
        seed: of the photographs that are drawn for the contact sheets.
        progress: told of the photographs that are made small for it.

    Raises:
        ResultsError: as `ensure_replaceable`, or the page cannot be written.
    """
    ensure_replaceable(file)
    text = render(audit, seed=seed, progress=progress)
    try:
        write_text(file, text, is_private=True)
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {error.strerror}") from None
    return file


def render(audit: Audit, *, seed: int = 0, progress: Progress = lambda *_: None) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retina.audit"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sheets = {grade: _drawn(audit, grade, seed) for grade in range(GRADES)} if audit.seen else {}
    unfit = {problem: _worst(audit, problem) for problem in findings.QUALITY_PROBLEMS}
    groups = [_shown(audit, group) for group in audit.groups[:MAX_PICTURED_GROUPS]]
    uris = _uris(audit, [*sheets.values(), *unfit.values(), *(one.pictures for one in groups)], progress)
    style = resources.files("retina.audit").joinpath("templates", "audit.css").read_text(encoding="utf-8")
    template = environment.get_template("audit.html")
    return template.render(
        audit=audit,
        labels=audit.labels,
        name=audit.manifest.root.name or str(audit.manifest.root),
        generator=GENERATOR,
        style=Markup(style),  # noqa: S704 -- a file of ours
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=retina.__version__,
        findings=findings.find(audit),
        in_words=terminal.describe_labels(audit.labels),
        counts=_counts(audit),
        grades=list(enumerate(GRADE_NAMES)),
        baselines=terminal.baseline_rows(audit.labels),
        sizes=[
            f"{size} pixels: {findings.pluralize(n, 'photograph')}"
            for size, n in measures.count_sizes(audit.seen or [])
        ],
        measures=measures.summarize_measures(audit.seen or [], audit.config.image_size),
        groups=[replace(one, pictures=_filled(one.pictures, uris)) for one in groups],
        all_groups=[_line(audit, group) for group in audit.groups[:MAX_LISTED]],
        unfit={problem: _filled(pictures, uris) for problem, pictures in unfit.items() if pictures},
        unfit_names={problem: _names(audit, audit.unfit(problem)) for problem in unfit},
        unreadable=[(audit.seen or [])[row].unreadable for row in audit.unreadable[:MAX_LISTED]],
        sheets={grade: _filled(pictures, uris) for grade, pictures in sheets.items()},
        listed=MAX_LISTED,
        limits=quality,
        likeness=perceptual_hash,
        counted=findings.pluralize,
        seed=seed,
    )


def _counts(audit: Audit) -> list[tuple[str, int, list[tuple[int, float]]]]:
    """A split's name, its photographs, and of each grade how many and their share, 0 to 1."""
    rows = []
    for split, row in audit.labels.counts.iterrows():
        numbers = [int(n) for n in row]
        total = sum(numbers)
        rows.append((str(split) or "no split", total, [(n, n / total) for n in numbers]))
    return rows


def _drawn(audit: Audit, grade: int, seed: int) -> list[Picture]:
    """Photographs of a grade that can be read, drawn at random, in the order of the labels."""
    seen = audit.seen or []
    rows = [row for row in np.flatnonzero(audit.manifest.frame["grade"] == grade).tolist() if not seen[row].unreadable]
    rng = np.random.default_rng([seed, grade])
    chosen = rng.permutation(len(rows))[:SHOWN_PER_GRADE]
    return [_picture(audit, rows[at], "; ".join(seen[rows[at]].problems)) for at in sorted(chosen.tolist())]


def _worst(audit: Audit, problem: str) -> list[Picture]:
    pictures = []
    for row in audit.unfit(problem)[:SHOWN_PER_PROBLEM]:
        measured = (audit.seen or [])[row].quality
        told = f"grade {audit.manifest.frame['grade'].iloc[row]}"
        if measured:
            sharp = "" if np.isnan(measured.sharpness) else f", sharpness {measured.sharpness:.2f}"
            told += f", brightness {measured.brightness:.0f}{sharp}"
        pictures.append(_picture(audit, row, told))
    return pictures


def _shown(audit: Audit, group: DuplicateGroup) -> DisplayedGroup:
    frame = audit.manifest.frame
    splits = effective_splits(frame["split"])
    told = [
        f"grade {frame['grade'].iloc[row]}, {splits.iloc[row] or 'no split'}" for row in group.rows[:SHOWN_PER_GROUP]
    ]
    return DisplayedGroup(group, [_picture(audit, row, text) for row, text in zip(group.rows, told, strict=False)])


def _picture(audit: Audit, row: int, told: str) -> Picture:
    return Picture(row, str(audit.manifest.frame["image"].iloc[row]), told)


def _line(audit: Audit, group: DuplicateGroup) -> tuple[DuplicateGroup, list[str]]:
    return group, _names(audit, list(group.rows))


def _names(audit: Audit, rows: list[int]) -> list[str]:
    return [str(name) for name in audit.manifest.frame["image"].iloc[rows[:MAX_LISTED]]]


def _uris(audit: Audit, pictures: list[list[Picture]], progress: Progress) -> dict[int, str]:
    """The data URI of every photograph on the page, by its row; each is made once."""
    rows = sorted({picture.row for some in pictures for picture in some})
    if not rows:
        return {}
    made = visit(
        audit.manifest.frame.iloc[rows], thumbnail, lambda done, total: progress("drawing the page", done, total)
    )
    return dict(zip(rows, made, strict=True))


def _filled(pictures: list[Picture], uris: dict[int, str]) -> list[Picture]:
    return [replace(picture, uri=uris[picture.row]) for picture in pictures]
