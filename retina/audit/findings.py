"""What an audit found, in sentences, what matters most first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from retina.audit.duplicates import DuplicateGroup
from retina.audit.runner import Audit
from retina.config import GRADE_NAMES
from retina.data.quality import BLURRED, LEAST_SIDE, NO_DISC, VERY_DARK

QUALITY_PROBLEMS = {
    NO_DISC: "show no fundus disc; they are used whole",
    VERY_DARK: "are very dark",
    BLURRED: "are blurred",
}
MIN_PER_GRADE = 10
"""Photographs of a grade in a split, below which what is measured of that grade there is luck."""


@dataclass(frozen=True)
class Finding:
    """One sentence.

    Attributes:
        text: without a full stop.
        section: where the page has more of it.
        serious: whether it makes scores wrong, or photographs useless; else it is good to know.
    """

    text: str
    section: str
    serious: bool = True


def find(audit: Audit) -> list[Finding]:
    """All of an audit's findings; empty where nothing is wrong."""
    found = [finding for way in _WAYS for finding in way(audit)]
    return sorted(found, key=lambda finding: not finding.serious)


def pluralize(n: int, one: str, many: str = "") -> str:
    """1 photograph, 2 photographs, 1,000 photographs."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def percentage(part: int, whole: int) -> str:
    """12.5%."""
    return f"{part / whole:.1%}" if whole else "0.0%"


def _unusable(audit: Audit) -> Iterator[Finding]:
    bad = audit.manifest.skipped
    if bad:
        what = pluralize(len(bad), "label or photograph cannot be used", "labels or photographs cannot be used")
        yield Finding(f"{what}; the first: {bad[0]}", "labels")


def _unused(audit: Audit) -> Iterator[Finding]:
    for told in audit.manifest.unused.in_words():
        yield Finding(told, "labels", " photograph" in told)
    for told in (*audit.manifest.notes, *audit.manifest.choices):
        yield Finding(told, "labels", serious=False)


def _overlaps(audit: Audit) -> Iterator[Finding]:
    for overlap in audit.labels.overlaps:
        yield Finding(
            f"{overlap.photographs:,} of {overlap.of:,} {overlap.split} photographs "
            f"({percentage(overlap.photographs, overlap.of)}) are of patients who are in {overlap.others} too "
            f"({pluralize(overlap.patients, 'patient')}), so that {overlap.split} scores flatter; "
            "data.split=by_patient makes a split without them",
            "patients",
        )


def _duplicates(audit: Audit) -> Iterator[Finding]:
    groups = audit.groups
    crossing, conflicting = [g for g in groups if g.crosses], [g for g in groups if g.conflict]
    if crossing:
        which = " and ".join(sorted({" with ".join(group.splits) for group in crossing}))
        yield Finding(
            f"{pluralize(len(crossing), 'group')} of duplicates {'is' if len(crossing) == 1 else 'are'} on both sides "
            f"of a split ({which}): what was learnt by heart counts as known",
            "duplicates",
        )
    to_cut = [split for split in ("test", "val") if split not in audit.labels.counts.index]
    loose = [g for g in groups if g.loose] if to_cut else []
    join = audit.config.join_duplicates
    kept = [g for g in loose if not g.blank and (join == "near" or (join == "same" and g.exact))]
    if kept:
        yield Finding(
            f"{_as_patients(kept)}; a sweep takes each for one when it cuts {' and '.join(to_cut)} "
            f"(data.join_duplicates={join})",
            "duplicates",
            serious=False,
        )
    parted = [g for g in loose if g not in kept]
    for some, remedy in (
        ([g for g in parted if g.blank], ""),  # of one colour all over, which nothing joins
        ([g for g in parted if not g.blank and g.exact], "; data.join_duplicates=same keeps them together"),
        ([g for g in parted if not g.blank and not g.exact], "; data.join_duplicates=near keeps them together"),
    ):
        if some:
            yield Finding(
                f"{_as_patients(some)}, so that a sweep, which cuts {' and '.join(to_cut)} by patient, may put them on "
                f"both sides{remedy}",
                "duplicates",
            )
    if conflicting:
        yield Finding(
            f"{pluralize(len(conflicting), 'group')} of duplicates {'has' if len(conflicting) == 1 else 'have'} "
            "conflicting grades: one photograph, two answers",
            "duplicates",
        )
    if groups:
        yield Finding(
            f"{_kinds(groups)}; {pluralize(_superfluous(groups), 'photograph')} could go", "duplicates", False
        )


def _as_patients(groups: list[DuplicateGroup]) -> str:
    patients = sum(group.patients for group in groups)
    return (
        f"{pluralize(len(groups), 'group')} of duplicates {'counts' if len(groups) == 1 else 'count'} as "
        f"{patients:,} different patients"
    )


def _kinds(groups: list[DuplicateGroup]) -> str:
    exact = sum(group.exact for group in groups)
    kinds = [(exact, "of the same pixels"), (len(groups) - exact, "of nearly the same picture")]
    told = " and ".join(f"{n:,} {kind}" for n, kind in kinds if n)
    return f"{pluralize(len(groups), 'group')} of duplicates, {told}"


def _superfluous(groups: list[DuplicateGroup]) -> int:
    return sum(len(group.rows) - 1 for group in groups)


def _photographs(audit: Audit) -> Iterator[Finding]:
    if audit.seen is None:
        return
    n = len(audit.seen)
    if unreadable := audit.unreadable:
        told = pluralize(len(unreadable), "photograph") + " cannot be read (data.on_bad=skip goes on without)"
        yield Finding(f"{told}; the first: {audit.seen[unreadable[0]].unreadable}", "unfit")
    for problem, told in QUALITY_PROBLEMS.items():
        if unfit := audit.unfit(problem):
            yield Finding(f"{len(unfit):,} of {n:,} photographs ({percentage(len(unfit), n)}) {told}", "unfit")
    if unjudged := audit.unjudged:
        discs = sum(one.side > 0 for one in audit.seen)
        are, were = ("is", "was") if unjudged == 1 else ("are", "were")
        told = f"{are} under {LEAST_SIDE} pixels and {were} not judged for sharpness"
        yield Finding(f"{unjudged:,} of {pluralize(discs, 'disc')} {told}", "unfit", False)
    size = audit.config.image_size
    if small := sum(0 < one.side < size for one in audit.seen):
        told = f"have a disc of fewer than {size} pixels and are enlarged for an image size of {size}"
        yield Finding(f"{small:,} of {n:,} photographs ({percentage(small, n)}) {told}", "sizes", False)


def _grades(audit: Audit) -> Iterator[Finding]:
    for split, counts in audit.labels.settled.iterrows():
        where = f"in {split}" if split else "in all"
        few = {f"{grade} {GRADE_NAMES[grade]}": int(n) for grade, n in enumerate(counts) if n < MIN_PER_GRADE}
        if few:
            told = ", ".join(f"{n or 'none'} of {name}" for name, n in few.items())
            yield Finding(
                f"fewer than {MIN_PER_GRADE} photographs of a grade {where}: {told}", "labels", not all(few.values())
            )


def _notes(audit: Audit) -> Iterator[Finding]:
    if audit.seen is None:
        what = f"not one of the {len(audit.manifest.frame):,} photographs is there: only their labels were looked at"
        yield Finding(what, "labels", False)
    if not audit.labels.named:
        told = "the labels do not say which photographs are of one patient; both sides of a split may have some"
        yield Finding(told, "patients", False)
    if "test" not in audit.labels.counts.index:
        yield Finding("no test split is given; a sweep cuts one, by patient (data.test)", "labels", False)


_WAYS: tuple[Callable[[Audit], Iterator[Finding]], ...] = (
    _unusable,
    _unused,
    _overlaps,
    _duplicates,
    _photographs,
    _grades,
    _notes,
)
