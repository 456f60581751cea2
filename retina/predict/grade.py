"""Grading of photographs with the model of an exported folder."""

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
from retina.export.folder import ExportFolder, read_export
from retina.metrics.operating_point import OperatingPoint
from retina.metrics.probabilities import PROBABILITY_COLUMNS, find_problems
from retina.predict.runtime import Runtime, RuntimeName, open_runtime
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
    """A photograph as the model sees it, uint8 (S, S, 3); None where it cannot be read, see `problem`."""

    path: Path
    pixels: npt.NDArray[np.uint8] | None
    problem: str


def predict(
    folder: Path,
    images: Sequence[Path],
    *,
    batch_size: int = 32,
    runtime: RuntimeName = "auto",
    device: str | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
) -> pd.DataFrame:
    """Grade photographs with the model of an exported folder, one batch at a time in memory.

    Args:
        folder: a folder that `retina.export.write.export` wrote.
        images: files of photographs.
        batch_size: photographs per batch, 1 or more; affects only the speed.
        runtime: the runtime of the model, see `retina.predict.runtime.open_runtime`.
        device: the device for torch.
        on_bad: "skip" gives photographs that cannot be read a row without grade and probabilities.

    Returns:
        One row per image, in their order. `image` str, the given path; `grade` Int64 0 to 4, the model's; `name` str,
        that grade's name; `p0` to `p4` float64, calibrated probabilities of the grades, sum 1; `referable_score`
        float64, P(grade >= 2) before calibration, to which the operating point applies; `referable` boolean, whether it
        reaches the operating point's threshold, NA where the folder has none; `problem` str: empty, or why the
        photograph is probably unfit (see `retina.data.quality`: no grade of it should be trusted), why it could not be
        read, or that the model's output for it is not finite. Where there is no grade, `grade` and `referable` are NA,
        `name` is empty and the numbers are NaN.

    Raises:
        ResultsError: as `retina.export.folder.read_export` and `retina.predict.runtime.open_runtime`.
        ModelOutputError: onnxruntime cannot run the model.
        DataError: photographs cannot be read and `on_bad` is "stop"; lists the first ten and their number.
    """
    exported = read_export(folder)
    model = open_runtime(exported, runtime, device)
    if _threshold(exported.description.operating_point) is None:
        log.info("note: %s has no operating point, so no photograph is called referable", folder)
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    for start in range(0, len(images), batch_size):
        squares = [_read(path, exported.preprocess.image_size) for path in images[start : start + batch_size]]
        bad += [square.problem for square in squares if square.pixels is None]
        if not bad or on_bad == "skip":  # otherwise continue only to list all photographs that cannot be read
            rows += _grade(exported, model, squares)
    if bad and on_bad == "stop":
        raise DataError(_bad_images_message(bad, len(images)))
    frame = pd.DataFrame(rows, columns=COLUMNS).astype(DTYPES)
    if ungraded := int(frame["grade"].isna().sum()):
        log.warning("note: %d of %d photographs got no grade; see the column problem", ungraded, len(frame))
    return frame


def _read(path: Path, size: int) -> _Square:
    try:
        photograph = fundus.read(path, min_side=2 * size)  # as `fundus.read_square`, which does not return it
    except DataError as error:
        return _Square(path, None, str(error))
    return _Square(path, fundus.to_square(photograph, size)[0], "; ".join(quality.measure(photograph).problems))


def _grade(exported: ExportFolder, model: Runtime, squares: list[_Square]) -> list[dict[str, Any]]:
    """Return a row for each square, with grade and probabilities for those that could be read."""
    rows: list[dict[str, Any]] = [
        {"image": str(square.path), "name": "", "problem": square.problem} for square in squares
    ]
    readable = [(row, square.pixels) for row, square in zip(rows, squares, strict=True) if square.pixels is not None]
    if not readable:
        return rows
    names, threshold = exported.description.grades, _threshold(exported.description.operating_point)
    outputs = model(exported.preprocess.normalize(np.stack([pixels for _, pixels in readable])))
    for (row, _), problem, probabilities, grade, score in zip(readable, find_problems(*outputs), *outputs, strict=True):
        if problem:
            row["problem"] = "; ".join(filter(None, [row["problem"], f"no grade: {problem}"]))
            continue
        row |= {"grade": int(grade), "name": names[int(grade)], "referable_score": float(score)}
        row |= dict(zip(PROBABILITY_COLUMNS, probabilities.tolist(), strict=True))
        row["referable"] = None if threshold is None else bool(score >= threshold)
    return rows


def _threshold(point: OperatingPoint | None) -> float | None:
    return point.threshold if point else None


def _bad_images_message(bad: list[str], total: int) -> str:
    listed = "\n".join(f"  {printable(problem)}" for problem in bad[:10])
    more = f"\n  ... and {len(bad) - 10} more" if len(bad) > 10 else ""
    return f"{len(bad)} of {total} photographs cannot be read (--on-bad skip leaves them out):\n{listed}{more}"
