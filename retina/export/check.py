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
import torch

from retina import yaml_reader
from retina.config import GRADES, DataConfig, parse
from retina.data import fundus, photographs, sources, synthetic
from retina.data.cache import open_cache
from retina.errors import DataError, ResultsError, SpecError
from retina.export.folder import Check, Preprocess
from retina.export.grader import Grader
from retina.export.graphs import load_pt2
from retina.export.sessions import session
from retina.results import RunFolder

TOLERANCE = 1e-3
"""Of a probability: less than the third digit, in which metrics are told."""
A_GRADE = 4
AT_ONCE = 4
"""Photographs that are graded together; the first is graded alone, so that the batch is seen to vary."""

Pixels = npt.NDArray[np.uint8]
Outputs = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Photographs as the model sees them, uint8 (N, S, S, 3), and where they are from."""

    pixels: Pixels
    origin: str


def sample(folder: RunFolder, size: int) -> Sample:
    """Photographs of the run, a few of each grade; drawn ones where its own are not there any more."""
    found = _of_the_run(folder, size)
    if found is not None:
        return found
    log.info("the photographs of %s are not where they were; the graphs are checked on drawn ones", folder.name)
    return Sample(_drawn(size), "drawn for this check: the photographs of the run were not where they had been")


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


def _of_the_run(folder: RunFolder, size: int) -> Sample | None:
    try:
        config, is_drawn = _config(folder)
        manifest = sources.read(config)
        frame = manifest.frame.groupby("grade").head(A_GRADE).reset_index(drop=True)
        with tempfile.TemporaryDirectory() as place:
            some = replace(manifest, frame=frame)
            cache = open_cache(some, size, on_bad="skip", workers=1, folder=Path(place))
            return Sample(np.array(cache.pixels), "of the run (drawn)" if is_drawn else "of the run")
    except (DataError, SpecError, OSError):
        return None


def _config(folder: RunFolder) -> tuple[DataConfig, bool]:
    """Where the run's photographs are, and whether they are drawn ones; those are where they were drawn to."""
    file = folder.root / "sweep.yaml"
    try:
        values: Any = yaml_reader.read(file).content["data"]
        config = parse(DataConfig, {**values, "on_bad": "skip"}, str(file))
    except (KeyError, TypeError):
        raise SpecError(f"{file}: does not say where its photographs are") from None
    if config.path != "synthetic":
        return config, config.layout == "synthetic"
    drawn = photographs.drawn_folder(config.synthetic)
    return config.model_copy(update={"path": str(drawn), "layout": "eyepacs"}), True


def _drawn(size: int) -> Pixels:
    rng = np.random.default_rng(0)
    height = min(max(2 * size, 64), 512)
    eyes = [synthetic.photograph(grade, eye, height, rng) for grade in range(GRADES) for eye in ("left", "right") * 2]
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
