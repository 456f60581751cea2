"""Displays an audit in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from retina.audit import findings
from retina.audit.findings import pluralize
from retina.audit.labels import LabelStatistics
from retina.audit.measures import count_sizes, summarize_measures
from retina.audit.runner import Audit
from retina.config import GRADE_NAMES

_MAX_SIZES = 4


def render(audit: Audit) -> RenderableType:
    """Return the whole audit: label counts, sizes, measures, baselines without photographs, and findings."""
    tables = (_measures_table(audit), _baselines_table(audit.label_statistics))
    title = f"{audit.manifest.root} ({audit.manifest.layout}): {describe_labels(audit.label_statistics)}"
    shown_tables = (table for table in tables if table)
    return Group(title, _grades_table(audit), *_size_lines(audit), *shown_tables, "", *_finding_lines(audit))


def describe_labels(labels: LabelStatistics) -> str:
    """Return the numbers of photographs, patients and eyes as text."""
    text = pluralize(labels.photographs, "photograph")
    if labels.has_patients:
        text += f" of {pluralize(labels.patients, 'patient')}"
    eyes = [f"{labels.eyes[eye]:,} {eye or 'of an unknown eye'}" for eye in labels.eyes if labels.eyes[eye]]
    if len(eyes) > 1:
        text += f": {', '.join(eyes)}"
        text += f"; {labels.both_eyes:,} with both eyes" if labels.has_patients else ""
    return text


def baseline_rows(labels: LabelStatistics) -> list[tuple[str, str, str, str]]:
    """Return the baselines that need no photograph: name, split, accuracy and QWK as text."""
    baselines = [
        ("always train's commonest grade", labels.majority),
        ("the fellow eye's grade, else 0", labels.fellow_eye),
    ]
    return [
        (name, split, f"{baseline.accuracy:.2%}", f"{baseline.qwk:.3f}")
        for name, by_split in baselines
        for split, baseline in by_split.items()
    ]


def _grades_table(audit: Audit) -> Table:
    counts = audit.label_statistics.counts
    table = Table(box=SIMPLE_HEAD)
    for column in ["", "photographs", *(f"{grade} {name}" for grade, name in enumerate(GRADE_NAMES))]:
        table.add_column(column, justify="right")
    rows = [(str(split) or "no split", row.tolist()) for split, row in counts.iterrows()]
    if len(rows) > 1:
        rows.append(("all", counts.sum().tolist()))
    for split, grade_counts in rows:
        total = sum(grade_counts)
        cells = (f"{n:,} ({findings.percentage(n, total)})" for n in grade_counts)
        table.add_row(split, f"{total:,}", *cells)
    return table


def _size_lines(audit: Audit) -> Iterator[str]:
    sizes = count_sizes(audit.photographs or [])
    if sizes:
        listed = ", ".join(f"{size} ({n:,})" for size, n in sizes[:_MAX_SIZES])
        more = f" and {pluralize(len(sizes) - _MAX_SIZES, 'other')}" if len(sizes) > _MAX_SIZES else ""
        yield f"  sizes: {listed}{more}"


def _measures_table(audit: Audit) -> Table | None:
    measures = summarize_measures(audit.photographs or [], audit.config.image_size)
    if not measures:
        return None
    table = Table("", box=SIMPLE_HEAD)
    for column in ("least", "median", "most", "reported below"):
        table.add_column(column, justify="right")
    for measure in measures:
        values = (measure.least, measure.median, measure.most, measure.limit)
        table.add_row(measure.name, *(measure.format(value) for value in values))
    return table


def _baselines_table(labels: LabelStatistics) -> Table | None:
    rows = baseline_rows(labels)
    if not rows:
        return None
    table = Table("baseline without photographs", "split", box=SIMPLE_HEAD)
    for column in ("accuracy", "QWK"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _finding_lines(audit: Audit) -> Iterator[str]:
    audit_findings = findings.find(audit)
    yield "findings:" if audit_findings else "findings: none"
    for finding in audit_findings:
        yield f"  {'!' if finding.is_serious else '-'} {finding.text}"
