"""Comparison of the exported graphs with torch on real photographs, those of the run where they still exist."""

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
from retina.export.sessions import create_session
from retina.metrics.probabilities import PROBABILITY_COLUMNS, find_problems
from retina.results import checksums, schemas, table_reader
from retina.results.run_folder import METRICS_REMEDY, RunFolder

TOLERANCE = 1e-3
"""Of a probability: below the third digit, to which metrics are reported."""
RECORDED_TOLERANCE = 0.01
"""Of a probability, between the run's evaluation and the export. On photographs of IDRiD at 112 px the same machine
differed by 1e-7, bfloat16 by 0.001, a decoder that shifts every value by up to 1 by 0.003, by up to 3 by 0.007; weights
with 200,000 bytes overwritten by finite values by 0.035 to 0.14 (at 4 offsets), with 20,000 by 0.005 to 0.016."""
PHOTOGRAPHS_PER_GRADE = 4
BATCH_SIZE = 4
"""Photographs per batch; the first is graded alone, so that batches of different sizes are tested."""

Pixels = npt.NDArray[np.uint8]
Outputs = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Photographs as the model sees them.

    Attributes:
        pixels: uint8 (N, S, S, 3).
        origin: where they come from, as text.
        recorded: their probabilities in best/predictions.csv, float64 (N, 5), before calibration; NaN if missing there.
    """

    pixels: Pixels
    origin: str
    recorded: npt.NDArray[np.float64]


def load_sample(folder: RunFolder, size: int, *, is_fitted: bool = False) -> Sample:
    """Load a few photographs of each grade of the run, or synthetic ones, with a log line, if they cannot be read.

    Args:
        folder: the run's folder.
        size: side of the squares in pixels.
        is_fitted: whether the model has cut-points; its recorded predictions on validation are then those of other
            cut-points, and only those on test are used.

    Raises:
        ResultsError: best/predictions.csv is damaged.
    """
    sample = _run_sample(folder, size, _recorded(folder, ("test",) if is_fitted else EVALUATED_SPLITS))
    if isinstance(sample, Sample):
        return sample
    log.info("note: the photographs of %s cannot be read: %s", folder.name, sample)
    log.info("the graphs are compared on synthetic photographs instead")
    squares = _synthetic_squares(size)
    origin = "drawn for this check: the photographs of the run could not be read"
    return Sample(squares, origin, np.full((len(squares), GRADES), np.nan))


def compare_with_recorded(grader: Grader, sample: Sample, preprocess: Preprocess, file: Path) -> dict[str, Any]:
    """Compare the model's probabilities with those that best/predictions.csv recorded at its evaluation.

    Args:
        grader: the model with the weights of `file`.
        sample: photographs; of those that are not recorded only the output's finiteness is checked.
        preprocess: the preprocessing of the photographs.
        file: best/model.pt, for messages.

    Returns:
        "recorded" and "recorded_difference" of a `Check`.

    Raises:
        ResultsError: a probability differs by more than `RECORDED_TOLERANCE`, or an output is not finite.
    """
    plain = Grader(grader.net, flips=grader.flips).eval()  # predictions.csv is from before the temperature
    batches = [preprocess.normalize(pixels) for pixels in _batches(sample.pixels)]
    probabilities, grades, scores = _run(lambda images: plain(torch.from_numpy(images)), batches)
    bad = [problem for problem in find_problems(probabilities, grades, scores) if problem]
    if bad:
        raise ResultsError(f"{file}: on {len(bad)} of {len(probabilities)} photographs ({sample.origin}) {bad[0]}")
    is_recorded = np.isfinite(sample.recorded).all(axis=1)
    if not is_recorded.any():
        log.info("note: none of the photographs is in best/predictions.csv: the weights are not compared with it")
        return {"recorded": 0, "recorded_difference": None}
    differences = np.abs(probabilities - sample.recorded)[is_recorded].max(axis=1)
    if not differences.max() <= RECORDED_TOLERANCE:
        exceeding = int((differences > RECORDED_TOLERANCE).sum())
        raise ResultsError(
            f"{file}: its probabilities are not those in {file.with_name('predictions.csv')} for the same photographs: "
            f"on {exceeding} of {len(differences)} they differ by up to {differences.max():.2g}, "
            f"allowed: {RECORDED_TOLERANCE:g};\nthe weights are damaged, or the photographs were replaced; "
            f"{checksums.BEST_REMEDY}"
        )
    return {"recorded": int(is_recorded.sum()), "recorded_difference": float(differences.max())}


def compare_graphs(grader: Grader, onnx: bytes, pt2: bytes, sample: Sample, preprocess: Preprocess) -> Check:
    """Grade the photographs with torch and with both graphs, and compare the results.

    Raises:
        ResultsError: a probability differs by more than `TOLERANCE`.
    """
    batches = [preprocess.normalize(pixels) for pixels in _batches(sample.pixels)]
    by_torch = _run(lambda images: grader(torch.from_numpy(images)), batches)
    session = create_session(onnx, "model.onnx")
    by_onnx = _run(lambda images: session.run(None, {"images": images}), batches)
    module = load_pt2(pt2)
    by_pt2 = _run(lambda images: module(torch.from_numpy(images)), batches)
    check = Check(
        photographs=len(sample.pixels),
        origin=sample.origin,
        onnx_difference=_difference(by_torch, by_onnx),
        pt2_difference=_difference(by_torch, by_pt2),
        other_grades=int(((by_torch[1] != by_onnx[1]) | (by_torch[1] != by_pt2[1])).sum()),
        versions={"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
    )
    worst = max(check.onnx_difference, check.pt2_difference)
    if not worst <= TOLERANCE:  # also raises for NaN
        raise ResultsError(
            f"the exported graph differs from the model by {worst:.2g} in a probability, on {check.photographs} "
            f"photographs ({sample.origin});\nallowed: {TOLERANCE:g}. Nothing was written"
        )
    return check


def _recorded(folder: RunFolder, splits: tuple[str, ...]) -> pd.DataFrame:
    """Return the comparable rows of best/predictions.csv by image and grade; none if the file does not exist."""
    names = ["split", "image", "grade", *PROBABILITY_COLUMNS]
    file = folder.best / "predictions.csv"
    table = table_reader.read_table(file, schemas.PredictionRow, names, ["split", "image"], METRICS_REMEDY)
    rows = [row for row in (table[0] if table else []) if row["split"] in splits]
    dtypes = {"grade": np.int64, **dict.fromkeys(PROBABILITY_COLUMNS, np.float64)}
    frame = pd.DataFrame(rows, columns=names).astype(dtypes)
    return frame.drop_duplicates(["image", "grade"], keep=False)  # duplicates cannot be matched to photographs


def _run_sample(folder: RunFolder, size: int, recorded: pd.DataFrame) -> Sample | str:
    """Return some photographs of the run, or the reason why they cannot be read."""
    try:
        config = folder.data_config()
        is_synthetic = "synthetic" in {config.path, config.layout}
        manifest = layouts.read(dataset.resolve_synthetic(config).model_copy(update={"on_bad": "skip"}))
        recorded_columns = ["image", "grade", *PROBABILITY_COLUMNS]
        merged = manifest.frame.merge(recorded[recorded_columns], how="left", on=["image", "grade"])
        is_unique = ~merged.duplicated(["image", "grade"], keep=False)
        merged[PROBABILITY_COLUMNS] = merged[PROBABILITY_COLUMNS].where(is_unique, axis=0)
        frame = merged.sort_values("p0", key=lambda p0: p0.isna(), kind="stable")  # recorded ones first
        frame = frame.groupby("grade").head(PHOTOGRAPHS_PER_GRADE).reset_index(drop=True)
        with tempfile.TemporaryDirectory() as cache_folder:
            selected = replace(manifest, frame=frame[manifest.frame.columns])
            cache = open_cache(selected, size, on_bad="skip", workers=1, folder=Path(cache_folder))
            probabilities = frame.loc[cache.kept_rows, PROBABILITY_COLUMNS].to_numpy(dtype=np.float64)
            origin = "of the run (drawn)" if is_synthetic else "of the run"
            return Sample(np.array(cache.pixels), origin, probabilities)
    except (DataError, OSError) as error:  # a ResultsError is an OSError
        return first_line(error)


def _synthetic_squares(size: int) -> Pixels:
    rng = np.random.default_rng(0)
    height = min(max(2 * size, 64), 512)
    eyes = [
        synthetic.draw_photograph(grade, eye, height, rng) for grade in range(GRADES) for eye in ("left", "right") * 2
    ]
    return np.stack([fundus.to_square(eye, size)[0] for eye in eyes])


def _batches(pixels: Pixels) -> Iterator[Pixels]:
    yield pixels[:1]
    for start in range(1, len(pixels), BATCH_SIZE):
        yield pixels[start : start + BATCH_SIZE]


def _run(model: Callable[[npt.NDArray[np.float32]], Any], batches: list[npt.NDArray[np.float32]]) -> Outputs:
    with torch.inference_mode():
        parts = [[np.asarray(output) for output in model(images)] for images in batches]
    probabilities, grades, referable = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
    return probabilities.astype(np.float64), grades.astype(np.int64), referable.astype(np.float64)


def _difference(first: Outputs, second: Outputs) -> float:
    return float(max(np.abs(first[0] - second[0]).max(), np.abs(first[2] - second[2]).max()))
