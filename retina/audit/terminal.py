"""An audit as a terminal shows it."""

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

_COMMONEST = 4


def render(audit: Audit) -> RenderableType:
    """All of it: what is there, what it measures, what needs no photograph, what was found."""
    tables = (_measured(audit), _baselines(audit.labels))
    what = f"{audit.manifest.root} ({audit.manifest.layout}): {describe_labels(audit.labels)}"
    return Group(what, _grades(audit), *_lines(audit), *(one for one in tables if one), "", *_findings(audit))


def describe_labels(labels: LabelStatistics) -> str:
    """How many photographs of how many patients and eyes."""
    told = pluralize(labels.photographs, "photograph")
    if labels.named:
        told += f" of {pluralize(labels.patients, 'patient')}"
    eyes = [f"{labels.eyes[eye]:,} {eye or 'of an eye that is not told'}" for eye in labels.eyes if labels.eyes[eye]]
    if len(eyes) > 1:
        told += f": {', '.join(eyes)}"
        told += f"; {labels.both_eyes:,} with both eyes" if labels.named else ""
    return told


def baseline_rows(labels: LabelStatistics) -> list[tuple[str, str, str, str]]:
    """The rules that need no photograph: name, split, accuracy and QWK as text."""
    named = [("always train's commonest grade", labels.majority), ("the fellow eye's grade, else 0", labels.fellow_eye)]
    return [
        (name, split, f"{one.accuracy:.2%}", f"{one.qwk:.3f}")
        for name, by_split in named
        for split, one in by_split.items()
    ]


def _grades(audit: Audit) -> Table:
    counts = audit.labels.counts
    table = Table(box=SIMPLE_HEAD)
    for column in ["", "photographs", *(f"{grade} {name}" for grade, name in enumerate(GRADE_NAMES))]:
        table.add_column(column, justify="right")
    rows = [(str(split) or "no split", row.tolist()) for split, row in counts.iterrows()]
    if len(rows) > 1:
        rows.append(("all", counts.sum().tolist()))
    for split, numbers in rows:
        total = sum(numbers)
        shown = (f"{n:,} ({findings.percentage(n, total)})" for n in numbers)
        table.add_row(split, f"{total:,}", *shown)
    return table


def _lines(audit: Audit) -> Iterator[str]:
    found = count_sizes(audit.seen or [])
    if found:
        told = ", ".join(f"{size} ({n:,})" for size, n in found[:_COMMONEST])
        more = f" and {pluralize(len(found) - _COMMONEST, 'other')}" if len(found) > _COMMONEST else ""
        yield f"  sizes: {told}{more}"


def _measured(audit: Audit) -> Table | None:
    found = summarize_measures(audit.seen or [], audit.config.image_size)
    if not found:
        return None
    table = Table("", box=SIMPLE_HEAD)
    for column in ("least", "median", "most", "named below"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(one.name, *(one.told(value) for value in (one.least, one.median, one.most, one.limit)))
    return table


def _baselines(labels: LabelStatistics) -> Table | None:
    rows = baseline_rows(labels)
    if not rows:
        return None
    table = Table("what needs no photograph", "split", box=SIMPLE_HEAD)
    for column in ("accuracy", "QWK"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _findings(audit: Audit) -> Iterator[str]:
    found = findings.find(audit)
    yield "found:" if found else "found: nothing that is wrong"
    for one in found:
        yield f"  {'!' if one.serious else '-'} {one.text}"
