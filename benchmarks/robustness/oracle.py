"""What is known to be right: counts of photographs, predictions, resolved sweep files."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.robustness.case import Check, Ran

TOLERANCE = 2e-3
"""Of a probability: the export's own tolerance, twice."""
P = [f"p{grade}" for grade in range(5)]
SAID = re.compile(
    r"left out|not used|skipped|ignored|missing|cannot be (read|used)|unused|not listed|no grade|without a grade"
    r"|is listed|not opened|belongs? to no"
)
"""Words that tell of photographs or rows that are not used."""

_ROW = re.compile(r"^\s*(train|val|test)\s+([\d,]+)((?:\s+[\d,]+){5})\s*$", re.MULTILINE)
_FOUND = re.compile(r"photographs: ([\d,]+) photographs? ")


Prediction = Mapping[str, str]


def counted(out: str) -> list[int] | None:
    """Photographs a grade in the table that `retina data prepare` prints; None where there is none."""
    rows = _ROW.findall(out)
    if not rows:
        return None
    by_grade = [[int(cell.replace(",", "")) for cell in cells.split()] for _, _, cells in rows]
    return [sum(column) for column in zip(*by_grade, strict=True)]


def prepares(by_grade: Sequence[int] | None, unused: int = 0) -> Check:
    """A check of `data prepare`: photographs a grade, and whether it tells of those that are not used.

    Args:
        by_grade: how many of each grade are right; None where nothing is known.
        unused: photographs or rows that must be told of.
    """

    def check(ran: Ran) -> str:
        found = counted(ran.out)
        if found is None:
            return "no table of photographs"
        if by_grade is not None and found != list(by_grade):
            return f"counts {found} photographs a grade, right is {list(by_grade)}"
        if unused and not SAID.search(ran.out + ran.err):
            return f"says nothing of {unused} photographs or rows that are not used"
        return ""

    return check


def finds(total: int | None, unused: int = 0) -> Check:
    """A check of `--dry-run`: how many photographs it finds."""

    def check(ran: Ran) -> str:
        found = _FOUND.search(ran.out)
        if not found:
            return "does not say how many photographs there are"
        if total is not None and int(found[1].replace(",", "")) != total:
            return f"finds {found[1]} photographs, right is {total}"
        if unused and not SAID.search(ran.out + ran.err):
            return f"says nothing of {unused} photographs or rows that are not used"
        return ""

    return check


def read_predictions(file: Path) -> dict[str, Prediction]:
    """The rows of a CSV file of `retina predict`, by the photograph's file name."""
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        return {row["image"].rpartition("/")[2].lstrip("'"): row for row in csv.DictReader(opened)}


def predicts(
    file: Path, truth: Mapping[str, Prediction], *, unknown: Sequence[str] = (), never: Sequence[str] = (),
    suspicious: Sequence[str] = (),
) -> Check:  # fmt: skip
    """A check of `predict --csv`.

    Args:
        file: the CSV file.
        truth: rows that must come out, by file name.
        unknown: names of photographs whose grade nobody knows; it must be one all the same.
        never: names of files that must not get a grade.
        suspicious: names of photographs that may get a grade only beside a problem.
    """

    def complaints(found: Mapping[str, Prediction]) -> Iterator[str]:
        yield from (f"no row for {name!r}" for name in truth if name not in found)
        for name, row in found.items():
            complaint = differs(row, truth[name]) if name in truth else malformed(row) if name in unknown else ""
            if complaint:
                yield f"{complaint} ({name!r})"
            if row["grade"] != "" and name in never:
                yield f"a grade for what is no whole photograph ({name!r})"
            if row["grade"] != "" and name in suspicious and not row["problem"]:
                yield f"a grade without a word of the problem ({name!r})"

    def check(_: Ran) -> str:
        try:
            return next(complaints(read_predictions(file)), "")
        except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
            return f"the CSV file cannot be read: {error!r}"

    return check


def malformed(row: Prediction) -> str:
    """What is wrong with a row of predictions in itself."""
    if row["grade"] == "":
        return "" if row["problem"] else "neither grade nor problem"
    if row["grade"] not in set("01234"):
        return f"grade {row['grade']!r}"
    values = [_number(row[name]) for name in P]
    if not all(0 <= value <= 1 for value in values) or abs(sum(values) - 1) > 1e-3:
        return f"probabilities {[row[name] for name in P]}"
    return ""


def differs(row: Prediction, right: Prediction) -> str:
    """How a row of predictions differs from the right one; empty where it does not."""
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
