"""Checks of results that are known: counts of photographs and predictions."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.robustness.case import Check, CommandResult

TOLERANCE = 2e-3
"""Tolerance of a probability: twice the export's own tolerance."""
P = [f"p{grade}" for grade in range(5)]
REPORTED = re.compile(
    r"left out|not used|skipped|ignored|missing|cannot be (read|used)|unused|not listed|no grade|without a grade"
    r"|is listed|not opened|belongs? to no"
)
"""Words that report photographs or rows that are not used."""

_ROW = re.compile(r"^\s*(train|val|test)\s+([\d,]+)((?:\s+[\d,]+){5})\s*$", re.MULTILINE)
_FOUND = re.compile(r"photographs: ([\d,]+) photographs? ")


Prediction = Mapping[str, str]


def counted(out: str) -> list[int] | None:
    """Return the photographs per grade in the table that `retina data prepare` prints; None if it prints no table."""
    rows = _ROW.findall(out)
    if not rows:
        return None
    by_grade = [[int(cell.replace(",", "")) for cell in cells.split()] for _, _, cells in rows]
    return [sum(column) for column in zip(*by_grade, strict=True)]


def prepares(by_grade: Sequence[int] | None, unused: int = 0) -> Check:
    """Return a check of `data prepare`: the photographs per grade, and whether it reports those that are not used.

    Args:
        by_grade: expected number per grade; None if unknown.
        unused: number of photographs or rows that must be reported as unused.
    """

    def check(result: CommandResult) -> str:
        counts = counted(result.out)
        if counts is None:
            return "no table of photographs"
        if by_grade is not None and counts != list(by_grade):
            return f"counts {counts} photographs a grade, right is {list(by_grade)}"
        if unused and not REPORTED.search(result.out + result.err):
            return f"says nothing of {unused} photographs or rows that are not used"
        return ""

    return check


def finds(total: int | None, unused: int = 0) -> Check:
    """Return a check of `--dry-run`: the number of photographs, and whether it reports those that are not used."""

    def check(result: CommandResult) -> str:
        match = _FOUND.search(result.out)
        if not match:
            return "does not say how many photographs there are"
        if total is not None and int(match[1].replace(",", "")) != total:
            return f"finds {match[1]} photographs, right is {total}"
        if unused and not REPORTED.search(result.out + result.err):
            return f"says nothing of {unused} photographs or rows that are not used"
        return ""

    return check


def read_predictions(file: Path) -> dict[str, Prediction]:
    """Read the rows of a CSV file of `retina predict`, by the photograph's file name."""
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        return {row["image"].rpartition("/")[2].lstrip("'"): row for row in csv.DictReader(opened)}


def predicts(
    file: Path, truth: Mapping[str, Prediction], *, unknown: Sequence[str] = (), never: Sequence[str] = (),
    suspicious: Sequence[str] = (),
) -> Check:  # fmt: skip
    """Return a check of `predict --csv`.

    Args:
        file: the CSV file.
        truth: expected rows, by file name.
        unknown: names of photographs whose right grade is unknown; their rows must be well-formed.
        never: names of files that must not get a grade.
        suspicious: names of photographs that may get a grade only together with a problem.
    """

    def complaints(rows: Mapping[str, Prediction]) -> Iterator[str]:
        yield from (f"no row for {name!r}" for name in truth if name not in rows)
        for name, row in rows.items():
            complaint = differs(row, truth[name]) if name in truth else malformed(row) if name in unknown else ""
            if complaint:
                yield f"{complaint} ({name!r})"
            if row["grade"] != "" and name in never:
                yield f"a grade for a file that is not an intact photograph ({name!r})"
            if row["grade"] != "" and name in suspicious and not row["problem"]:
                yield f"a grade without its problem ({name!r})"

    def check(_: CommandResult) -> str:
        try:
            return next(complaints(read_predictions(file)), "")
        except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
            return f"the CSV file cannot be read: {error!r}"

    return check


def malformed(row: Prediction) -> str:
    """Return why a row of predictions is malformed; empty if it is not."""
    if row["grade"] == "":
        return "" if row["problem"] else "neither grade nor problem"
    if row["grade"] not in set("01234"):
        return f"grade {row['grade']!r}"
    values = [_number(row[name]) for name in P]
    if not all(0 <= value <= 1 for value in values) or abs(sum(values) - 1) > 1e-3:
        return f"probabilities {[row[name] for name in P]}"
    return ""


def differs(row: Prediction, right: Prediction) -> str:
    """Return how a row of predictions differs from the expected one; empty if it does not."""
    if complaint := malformed(row):
        return complaint
    for name in ("grade", "name", "referable"):
        if row[name] != right[name]:
            return f"{name} {row[name] or 'none'}, right is {right[name] or 'none'}"
    worst = max((abs(_number(row[name]) - _number(right[name])) for name in (*P, "referable_score")), default=0.0)
    return "" if right["grade"] == "" or worst <= TOLERANCE else f"a probability is off by {worst:.2g}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
