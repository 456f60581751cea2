"""From photographs and an exported folder to a table of grades."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from retina.data import fundus, quality
from retina.errors import DataError
from retina.export.folder import Folder, read
from retina.metrics.operating_point import OperatingPoint
from retina.metrics.probabilities import PROBABILITY_COLUMNS, find_problems
from retina.predict.runtime import Runtime, Wish, open_runtime
from retina.system.printable import printable

DTYPES = {
    "image": "str",
    "grade": "Int64",
    "name": "str",
    **dict.fromkeys(PROBABILITY_COLUMNS, "float64"),
    "referable_score": "float64",
    "referable": "boolean",
    "problem": "str",
}
COLUMNS = list(DTYPES)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Square:
    """A photograph as the model sees it, uint8 (S, S, 3); None where it cannot be read, and `problem` says why."""

    path: Path
    pixels: npt.NDArray[np.uint8] | None
    problem: str


def predict(
    folder: Path,
    images: Sequence[Path],
    *,
    batch_size: int = 32,
    runtime: Wish = "auto",
    device: str | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
) -> pd.DataFrame:
    """Grade photographs with the model of an exported folder. Of the photographs, a batch at a time is in memory.

    Args:
        folder: as `retina.export.write.export` writes it.
        images: files of photographs.
        batch_size: photographs that the model sees at once, 1 or more; changes nothing but speed.
        runtime: what the model runs in, see `retina.predict.runtime.open_runtime`.
        device: where torch runs it, if it does.
        on_bad: "skip" gives photographs that cannot be read a row without grade and probabilities.

    Returns:
        One row an image, in their order. `image` str, the path as given; `grade` Int64 0 to 4, the model's; `name` str,
        of that grade; `p0` to `p4` float64, probabilities of the grades, calibrated, sum 1; `referable_score` float64,
        P(grade >= 2) before calibration, which the operating point looks at; `referable` boolean, whether it reaches
        the operating point's threshold, NA where the folder has none; `problem` str, empty, or what makes the
        photograph look unfit (see `retina.data.quality`: no grade of it should be trusted), or why it could not be
        read, or that the model's output for it is not finite: then `grade` and `referable` are NA, `name` is empty and
        the numbers are NaN.

    Raises:
        ResultsError: as `retina.export.folder.read` and `retina.predict.runtime.open_runtime`.
        ModelOutputError: onnxruntime cannot run the model.
        DataError: photographs that cannot be read, under `on_bad` "stop"; the first ten and how many there are.
    """
    exported = read(folder)
    model = open_runtime(exported, runtime, device)
    if _threshold(exported.description.operating_point) is None:
        log.info("note: %s has no operating point, so nobody is called referable", folder)
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    for start in range(0, len(images), batch_size):
        squares = [_read(path, exported.preprocess.image_size) for path in images[start : start + batch_size]]
        bad += [one.problem for one in squares if one.pixels is None]
        if not bad or on_bad == "skip":  # else go on only to name all that cannot be read
            rows += _grade(exported, model, squares)
    if bad and on_bad == "stop":
        raise DataError(_refusal(bad, len(images)))
    frame = pd.DataFrame(rows, columns=COLUMNS).astype(DTYPES)
    if ungraded := int(frame["grade"].isna().sum()):
        log.warning("note: %d of %d photographs got no grade; the column problem says why", ungraded, len(frame))
    return frame


def _read(path: Path, size: int) -> _Square:
    try:
        photograph = fundus.read(path, min_side=2 * size)  # as `fundus.read_square`, which does not hand it out
    except DataError as error:
        return _Square(path, None, str(error))
    return _Square(path, fundus.to_square(photograph, size)[0], "; ".join(quality.measure(photograph).problems))


def _grade(exported: Folder, model: Runtime, squares: list[_Square]) -> list[dict[str, Any]]:
    """A row for each, with grade and probabilities for those that could be read."""
    rows: list[dict[str, Any]] = [{"image": str(one.path), "name": "", "problem": one.problem} for one in squares]
    readable = [(row, one.pixels) for row, one in zip(rows, squares, strict=True) if one.pixels is not None]
    if not readable:
        return rows
    names, threshold = exported.description.grades, _threshold(exported.description.operating_point)
    found = model(exported.preprocess.normalised(np.stack([pixels for _, pixels in readable])))
    for (row, _), problem, probabilities, grade, score in zip(readable, find_problems(*found), *found, strict=True):
        if problem:
            row["problem"] = "; ".join(filter(None, [row["problem"], f"no grade: {problem}"]))
            continue
        row |= {"grade": int(grade), "name": names[int(grade)], "referable_score": float(score)}
        row |= dict(zip(PROBABILITY_COLUMNS, probabilities.tolist(), strict=True))
        row["referable"] = None if threshold is None else bool(score >= threshold)
    return rows


def _threshold(point: OperatingPoint | None) -> float | None:
    return point.threshold if point else None


def _refusal(bad: list[str], total: int) -> str:
    listed = "\n".join(f"  {printable(problem)}" for problem in bad[:10])
    more = f"\n  ... and {len(bad) - 10} more" if len(bad) > 10 else ""
    return f"{len(bad)} of {total} photographs cannot be read (--on-bad skip goes on without them):\n{listed}{more}"
