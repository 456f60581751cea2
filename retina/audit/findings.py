"""The findings of an audit as sentences, serious ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from retina.audit.duplicates import DuplicateGroup
from retina.audit.runner import Audit
from retina.config import GRADE_NAMES
from retina.data.quality import BLURRED, MIN_SIDE, NO_DISC, VERY_DARK

QUALITY_PROBLEMS = {
    NO_DISC: "show no fundus disc; they are used whole",
    VERY_DARK: "are very dark",
    BLURRED: "are blurred",
}
"""The problems of a photograph's quality, each as the predicate of a sentence."""
MIN_PER_GRADE = 10
"""Photographs of a grade in a split; with fewer, metrics of that grade depend on chance."""


@dataclass(frozen=True)
class Finding:
    """One finding of an audit.

    Attributes:
        text: a sentence without a full stop.
        section: the section of the page with details.
        is_serious: whether it makes metrics wrong or photographs useless; else it is for information.
    """

    text: str
    section: str
    is_serious: bool = True


def find(audit: Audit) -> list[Finding]:
    """Return all findings of an audit; empty if nothing is wrong."""
    findings = [finding for check in _CHECKS for finding in check(audit)]
    return sorted(findings, key=lambda finding: not finding.is_serious)


def pluralize(n: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: "1 photograph", "2 photographs", "1,000 photographs"."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def percentage(part: int, whole: int) -> str:
    """Return a share as text: "12.5%"; "0.0%" of nothing."""
    return f"{part / whole:.1%}" if whole else "0.0%"


def _unusable(audit: Audit) -> Iterator[Finding]:
    bad = audit.manifest.skipped
    if bad:
        subject = pluralize(len(bad), "label or photograph cannot be used", "labels or photographs cannot be used")
        yield Finding(f"{subject}; the first: {bad[0]}", "labels")


def _unused(audit: Audit) -> Iterator[Finding]:
    for line in audit.manifest.unused.in_words():
        yield Finding(line, "labels", " photograph" in line)
    for line in (*audit.manifest.notes, *audit.manifest.choices):
        yield Finding(line, "labels", is_serious=False)


def _overlaps(audit: Audit) -> Iterator[Finding]:
    for overlap in audit.label_statistics.overlaps:
        yield Finding(
            f"{overlap.photographs:,} of {overlap.split_size:,} {overlap.split} photographs "
            f"({percentage(overlap.photographs, overlap.split_size)}) are of patients who are in {overlap.others} too "
            f"({pluralize(overlap.patients, 'patient')}), so that {overlap.split} metrics are too high; "
            "data.split=by_patient makes a split without them",
            "patients",
        )


def _duplicates(audit: Audit) -> Iterator[Finding]:
    groups = audit.duplicate_groups
    crossing = [group for group in groups if group.crosses_splits]
    if crossing:
        splits = " and ".join(sorted({" with ".join(group.splits) for group in crossing}))
        yield Finding(
            f"{pluralize(len(crossing), 'group')} of duplicates {'is' if len(crossing) == 1 else 'are'} on both sides "
            f"of a split ({splits}): a model is evaluated on photographs that it was trained on",
            "duplicates",
        )
    yield from _separable_duplicates(audit)
    conflicting = [group for group in groups if group.has_conflicting_grades]
    if conflicting:
        yield Finding(
            f"{pluralize(len(conflicting), 'group')} of duplicates {'has' if len(conflicting) == 1 else 'have'} "
            "conflicting grades: one photograph, two answers",
            "duplicates",
        )
    if groups:
        superfluous = sum(len(group.rows) - 1 for group in groups)
        yield Finding(
            f"{_describe_kinds(groups)}; {pluralize(superfluous, 'photograph')} could be removed", "duplicates", False
        )


def _separable_duplicates(audit: Audit) -> Iterator[Finding]:
    """Yield the findings on duplicates that a split by patient may separate."""
    missing_splits = [split for split in ("test", "val") if split not in audit.label_statistics.counts.index]
    separable = [group for group in audit.duplicate_groups if group.can_be_separated] if missing_splits else []
    join = audit.config.join_duplicates
    joined = [
        group for group in separable if not group.is_blank and (join == "near" or (join == "same" and group.is_exact))
    ]
    if joined:
        yield Finding(
            f"{_describe_patients(joined)}; a sweep treats each group as one patient when it makes "
            f"{' and '.join(missing_splits)} (data.join_duplicates={join})",
            "duplicates",
            is_serious=False,
        )
    separated = [group for group in separable if group not in joined]
    for groups, remedy in (
        ([group for group in separated if group.is_blank], ""),  # of one colour all over: never joined
        (
            [group for group in separated if not group.is_blank and group.is_exact],
            "; data.join_duplicates=same keeps them together",
        ),
        (
            [group for group in separated if not group.is_blank and not group.is_exact],
            "; data.join_duplicates=near keeps them together",
        ),
    ):
        if groups:
            yield Finding(
                f"{_describe_patients(groups)}, so that a sweep, which makes {' and '.join(missing_splits)} by "
                f"patient, may put them on both sides{remedy}",
                "duplicates",
            )


def _describe_patients(groups: list[DuplicateGroup]) -> str:
    patients = sum(group.patients for group in groups)
    return (
        f"{pluralize(len(groups), 'group')} of duplicates {'counts' if len(groups) == 1 else 'count'} as "
        f"{patients:,} different patients"
    )


def _describe_kinds(groups: list[DuplicateGroup]) -> str:
    n_exact = sum(group.is_exact for group in groups)
    counts = [(n_exact, "of the same pixels"), (len(groups) - n_exact, "of nearly the same picture")]
    listed = " and ".join(f"{n:,} {kind}" for n, kind in counts if n)
    return f"{pluralize(len(groups), 'group')} of duplicates, {listed}"


def _photographs(audit: Audit) -> Iterator[Finding]:
    if audit.photographs is None:
        return
    n = len(audit.photographs)
    if unreadable := audit.unreadable_rows:
        subject = pluralize(len(unreadable), "photograph")
        first = audit.photographs[unreadable[0]].read_error
        yield Finding(f"{subject} cannot be read (data.on_bad=skip goes on without them); the first: {first}", "unfit")
    for problem, predicate in QUALITY_PROBLEMS.items():
        if rows := audit.rows_with_problem(problem):
            yield Finding(f"{len(rows):,} of {n:,} photographs ({percentage(len(rows), n)}) {predicate}", "unfit")
    if too_small := audit.discs_without_sharpness:
        discs = sum(photograph.disc_side > 0 for photograph in audit.photographs)
        is_text, has_text = ("is", "has") if too_small == 1 else ("are", "have")
        predicate = f"{is_text} under {MIN_SIDE} pixels and {has_text} no measured sharpness"
        yield Finding(f"{too_small:,} of {pluralize(discs, 'disc')} {predicate}", "unfit", False)
    size = audit.config.image_size
    if small := sum(0 < photograph.disc_side < size for photograph in audit.photographs):
        predicate = f"have a disc of fewer than {size} pixels and are enlarged for an image size of {size}"
        yield Finding(f"{small:,} of {n:,} photographs ({percentage(small, n)}) {predicate}", "sizes", False)


def _grades(audit: Audit) -> Iterator[Finding]:
    for split, counts in audit.label_statistics.effective_counts.iterrows():
        where = f"in {split}" if split else "in all"
        rare = {f"{grade} {GRADE_NAMES[grade]}": int(n) for grade, n in enumerate(counts) if n < MIN_PER_GRADE}
        if rare:
            listed = ", ".join(f"{n or 'none'} of {name}" for name, n in rare.items())
            text = f"fewer than {MIN_PER_GRADE} photographs of a grade {where}: {listed}"
            yield Finding(text, "labels", not all(rare.values()))


def _notes(audit: Audit) -> Iterator[Finding]:
    if audit.photographs is None:
        n = len(audit.manifest.frame)
        yield Finding(f"none of the {n:,} photographs is there: only their labels were checked", "labels", False)
    if not audit.label_statistics.has_patients:
        text = "the labels do not say which photographs are of one patient; both sides of a split may have some"
        yield Finding(text, "patients", False)
    if "test" not in audit.label_statistics.counts.index:
        yield Finding("no test split is given; a sweep makes one, by patient (data.test)", "labels", False)


_CHECKS: tuple[Callable[[Audit], Iterator[Finding]], ...] = (
    _unusable,
    _unused,
    _overlaps,
    _duplicates,
    _photographs,
    _grades,
    _notes,
)
