"""Whether the graphs give what torch gives, on real photographs: of the run where they are still there."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pandas as pd
import torch

from retina.config import GRADES
from retina.config.splits import EVALUATED_SPLITS
from retina.data import dataset, fundus, layouts, synthetic
from retina.data.cache.pixel_cache import open_cache
from retina.errors import DataError, ResultsError, first_line
from retina.export.folder import Check, Preprocess
from retina.export.grader import Grader
from retina.export.graphs import load_pt2
from retina.export.sessions import session
from retina.metrics.probabilities import PROBABILITY_COLUMNS, find_problems
from retina.results import checksums, schemas, table_reader
from retina.results.run_folder import METRICS_REMEDY, RunFolder

TOLERANCE = 1e-3
"""Of a probability: less than the third digit, in which metrics are told."""
RECORDED_TOLERANCE = 0.01
"""Of a probability, between a run's evaluation and now. On photographs of IDRiD at 112 px the same machine differed by
1e-7, bfloat16 by 0.001, a decoder that moves every value by up to 1 by 0.003, by up to 3 by 0.007; 200,000 bytes of the
weights overwritten with finite values by 0.035 to 0.14 (4 places), 20,000 by 0.005 to 0.016."""
A_GRADE = 4
AT_ONCE = 4
"""Photographs that are graded together; the first is graded alone, so that the batch is seen to vary."""

Pixels = npt.NDArray[np.uint8]
Outputs = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Photographs as the model sees them.

    Attributes:
        pixels: uint8 (N, S, S, 3).
        origin: where they are from, in words.
        recorded: what best/predictions.csv says of them, float64 (N, 5), before calibration; NaN of those not in it.
    """

    pixels: Pixels
    origin: str
    recorded: npt.NDArray[np.float64]


def sample(folder: RunFolder, size: int, *, is_fitted: bool = False) -> Sample:
    """Photographs of the run, a few of each grade; drawn ones where its own cannot be read, which is said with why.

    Args:
        folder: the run's.
        size: of the squares.
        is_fitted: whether the model has cut-points; its predictions on validation are then of other ones.

    Raises:
        ResultsError: best/predictions.csv is damaged.
    """
    found = _of_the_run(folder, size, _recorded(folder, ("test",) if is_fitted else EVALUATED_SPLITS))
    if isinstance(found, Sample):
        return found
    log.info("note: the photographs of %s cannot be read: %s", folder.name, found)
    log.info("the graphs are checked on drawn ones")
    drawn = _drawn(size)
    origin = "drawn for this check: the photographs of the run could not be read"
    return Sample(drawn, origin, np.full((len(drawn), GRADES), np.nan))


def compare_recorded(grader: Grader, seen: Sample, preprocess: Preprocess, file: Path) -> dict[str, Any]:
    """Compare the model's probabilities with those that best/predictions.csv recorded when it was evaluated.

    Args:
        grader: with the weights of `file`.
        seen: photographs; those that are not recorded are only asked to have a finite output.
        preprocess: of the photographs.
        file: best/model.pt, for messages.

    Returns:
        "recorded" and "recorded_difference" of a `Check`.

    Raises:
        ResultsError: a probability differs by more than `RECORDED_TOLERANCE`, or an output is not finite.
    """
    plain = Grader(grader.net, flips=grader.flips).eval()  # predictions.csv is of before the temperature
    batches = [preprocess.normalised(pixels) for pixels in _batches(seen.pixels)]
    found, grades, scores = _graded(lambda images: plain(torch.from_numpy(images)), batches)
    bad = [problem for problem in find_problems(found, grades, scores) if problem]
    if bad:
        raise ResultsError(f"{file}: on {len(bad)} of {len(found)} photographs ({seen.origin}) {bad[0]}")
    is_recorded = np.isfinite(seen.recorded).all(axis=1)
    if not is_recorded.any():
        log.info("note: no photograph at hand is in best/predictions.csv: the weights are not compared with it")
        return {"recorded": 0, "recorded_difference": None}
    apart = np.abs(found - seen.recorded)[is_recorded].max(axis=1)
    if not apart.max() <= RECORDED_TOLERANCE:
        raise ResultsError(
            f"{file}: gives other probabilities than {file.with_name('predictions.csv')} has of the same photographs: "
            f"on {int((apart > RECORDED_TOLERANCE).sum())} of {len(apart)} they differ by up to {apart.max():.2g}, "
            f"allowed: {RECORDED_TOLERANCE:g};\nthe weights are damaged, or the photographs were replaced; "
            f"{checksums.BEST_REMEDY}"
        )
    return {"recorded": int(is_recorded.sum()), "recorded_difference": float(apart.max())}


def compare(grader: Grader, onnx: bytes, pt2: bytes, seen: Sample, preprocess: Preprocess) -> Check:
    """Grade the photographs by torch and by both graphs.

    Raises:
        ResultsError: a probability differs by more than `TOLERANCE`.
    """
    batches = [preprocess.normalised(pixels) for pixels in _batches(seen.pixels)]
    true = _graded(lambda images: grader(torch.from_numpy(images)), batches)
    ort = session(onnx, "model.onnx")
    by_onnx = _graded(lambda images: ort.run(None, {"images": images}), batches)
    module = load_pt2(pt2)
    by_pt2 = _graded(lambda images: module(torch.from_numpy(images)), batches)
    check = Check(
        photographs=len(seen.pixels),
        origin=seen.origin,
        onnx_difference=_difference(true, by_onnx),
        pt2_difference=_difference(true, by_pt2),
        other_grades=int(((true[1] != by_onnx[1]) | (true[1] != by_pt2[1])).sum()),
        versions={"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    )
    worst = max(check.onnx_difference, check.pt2_difference)
    if not worst <= TOLERANCE:  # NaN is no agreement either
        raise ResultsError(
            f"the exported graph differs from the model by {worst:.2g} in a probability, on {check.photographs} "
            f"photographs ({seen.origin});\nallowed: {TOLERANCE:g}. Nothing was written"
        )
    return check


def _recorded(folder: RunFolder, splits: tuple[str, ...]) -> pd.DataFrame:
    """The rows of best/predictions.csv that can be compared, by image and grade; none where the file is not there."""
    names = ["split", "image", "grade", *PROBABILITY_COLUMNS]
    file = folder.best / "predictions.csv"
    found = table_reader.read_table(file, schemas.PredictionRow, names, ["split", "image"], METRICS_REMEDY)
    rows = [row for row in (found[0] if found else []) if row["split"] in splits]
    frame = pd.DataFrame(rows, columns=names).astype(
        {"grade": np.int64, **dict.fromkeys(PROBABILITY_COLUMNS, np.float64)}
    )
    return frame.drop_duplicates(["image", "grade"], keep=False)  # of two alike it is not clear which is which


def _of_the_run(folder: RunFolder, size: int, recorded: pd.DataFrame) -> Sample | str:
    """Some photographs of the run; why there are none where they cannot be read."""
    try:
        config = folder.data_config()
        is_drawn = "synthetic" in {config.path, config.layout}
        manifest = layouts.read(dataset.resolve_synthetic(config).model_copy(update={"on_bad": "skip"}))
        told = manifest.frame.merge(
            recorded[["image", "grade", *PROBABILITY_COLUMNS]], how="left", on=["image", "grade"]
        )
        told[PROBABILITY_COLUMNS] = told[PROBABILITY_COLUMNS].where(
            ~told.duplicated(["image", "grade"], keep=False), axis=0
        )
        frame = told.sort_values("p0", key=lambda p0: p0.isna(), kind="stable")  # recorded ones first
        frame = frame.groupby("grade").head(A_GRADE).reset_index(drop=True)
        with tempfile.TemporaryDirectory() as place:
            some = replace(manifest, frame=frame[manifest.frame.columns])
            cache = open_cache(some, size, on_bad="skip", workers=1, folder=Path(place))
            probabilities = frame.loc[cache.kept_rows, PROBABILITY_COLUMNS].to_numpy(dtype=np.float64)
            origin = "of the run (drawn)" if is_drawn else "of the run"
            return Sample(np.array(cache.pixels), origin, probabilities)
    except (DataError, OSError) as error:  # a ResultsError is an OSError
        return first_line(error)


def _drawn(size: int) -> Pixels:
    rng = np.random.default_rng(0)
    height = min(max(2 * size, 64), 512)
    eyes = [
        synthetic.draw_photograph(grade, eye, height, rng) for grade in range(GRADES) for eye in ("left", "right") * 2
    ]
    return np.stack([fundus.to_square(eye, size)[0] for eye in eyes])


def _batches(pixels: Pixels) -> Iterator[Pixels]:
    yield pixels[:1]
    for start in range(1, len(pixels), AT_ONCE):
        yield pixels[start : start + AT_ONCE]


def _graded(run: Callable[[npt.NDArray[np.float32]], Any], batches: list[npt.NDArray[np.float32]]) -> Outputs:
    with torch.inference_mode():
        parts = [[np.asarray(output) for output in run(images)] for images in batches]
    probabilities, grades, referable = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
    return probabilities.astype(np.float64), grades.astype(np.int64), referable.astype(np.float64)


def _difference(one: Outputs, other: Outputs) -> float:
    return float(max(np.abs(one[0] - other[0]).max(), np.abs(one[2] - other[2]).max()))
