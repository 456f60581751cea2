"""What the model runs in: onnxruntime, or torch. Neither is imported unless it is the one."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from retina.config import parse
from retina.errors import ModelOutputError, ResultsError, SpecError, first_line
from retina.export.folder import (
    CONFIG,
    GRADE,
    IMAGES,
    ONNX,
    PREPROCESS,
    PROBABILITIES_OUTPUT,
    REFERABLE_SCORE,
    REMEDY,
    WEIGHTS,
    Folder,
    Preprocess,
)
from retina.system import hardware

if TYPE_CHECKING:
    import onnxruntime
    import torch

Images = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Graded = tuple[Floats, npt.NDArray[np.int64], Floats]
Runtime = Callable[[Images], Graded]
"""Images float32 (B, 3, S, S), normalised, to probabilities (B, 5), grades (B,) and P(grade >= 2) (B,) as the operating
point looks at it; see `retina.export.grader.Grader`."""
Wish = Literal["auto", "torch", "onnx"]
log = logging.getLogger(__name__)


def open_runtime(folder: Folder, wish: Wish = "auto", device: str | None = None) -> Runtime:
    """The model of an exported folder, ready to run.

    Args:
        folder: as `retina.export.folder.read` gives it.
        wish: "auto" is torch where there is a GPU for it, else onnxruntime where both it and a graph are there.
        device: where torch runs it, "cpu" or "cuda:1" say; a GPU if there is one, else the CPU, if None.

    Raises:
        ResultsError: the folder has nothing for the runtime, that is damaged or does not belong to config.json and
            preprocess.json, or the runtime is not installed.
    """
    chosen = _choice(folder) if wish == "auto" else wish
    log.debug("%s runs in %s", folder.path, chosen)
    return _in_onnxruntime(folder) if chosen == "onnx" else _in_torch(folder, device)


def _choice(folder: Folder) -> Literal["torch", "onnx"]:
    for_torch = _is_installed("torch") and (folder.path / WEIGHTS).is_file()
    for_onnx = _is_installed("onnxruntime") and (folder.path / ONNX).is_file()
    if for_torch and for_onnx:
        return "torch" if hardware.load().gpus else "onnx"
    return "onnx" if for_onnx else "torch"


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # somebody has put it out of reach
        return False


def _in_onnxruntime(folder: Folder) -> Runtime:
    file = folder.path / ONNX
    if not file.is_file():
        raise ResultsError(
            f"{folder.path}: has no {ONNX} (written by retina {folder.description.retina}); "
            "export the run again, or predict with --runtime torch"
        )
    if not _is_installed("onnxruntime"):
        raise ResultsError("--runtime onnx: onnxruntime is not installed; pip install onnxruntime, or --runtime torch")
    from retina.export.sessions import refuse_not_finite, session  # noqa: PLC0415  # only who uses it needs to have it

    if not folder.verify(ONNX):
        refuse_not_finite(file)
    graph = session(file, str(file))
    _refuse_other_graph(graph, folder)

    def run(images: Images) -> Graded:
        try:
            probabilities, grades, referable = graph.run(
                [PROBABILITIES_OUTPUT, GRADE, REFERABLE_SCORE], {IMAGES: images}
            )
        except Exception as error:  # onnxruntime's exceptions have no common root but this
            raise ModelOutputError(f"{file}: onnxruntime cannot run it: {first_line(error)}") from None
        return probabilities.astype(np.float64), grades.astype(np.int64), referable.astype(np.float64)

    return run


def _refuse_other_graph(graph: onnxruntime.InferenceSession, folder: Folder) -> None:
    """Stop at a graph that is not the one that config.json and preprocess.json describe."""
    file, size = folder.path / ONNX, folder.preprocess.image_size
    given = {one.name: one.shape for one in graph.get_inputs()}
    if list(given) != [IMAGES] or given[IMAGES][1:] != [3, size, size]:
        takes = ", ".join(f"{name} {shape}" for name, shape in given.items())
        raise ResultsError(f"{file}: takes {takes}, {PREPROCESS} says {IMAGES} {['batch', 3, size, size]}")
    gives = {one.name: one.shape[1:] for one in graph.get_outputs()}
    if gives != {PROBABILITIES_OUTPUT: [5], GRADE: [], REFERABLE_SCORE: []}:
        raise ResultsError(
            f"{file}: gives {gives}, not {PROBABILITIES_OUTPUT} (batch, 5), {GRADE} and {REFERABLE_SCORE}"
        )
    told = _told(graph, file)
    description = folder.description
    expected: dict[str, tuple[str, Any]] = {
        "preprocess": (PREPROCESS, folder.preprocess),
        "grades": (CONFIG, list(description.grades)),
        "temperature": (CONFIG, description.temperature),
        "flips": (CONFIG, description.trial.flips),
    }
    for key, (name, value) in expected.items():
        if key in told and told[key] != value:  # an earlier layout's graph does not tell all
            raise ResultsError(f"{file}: was written for another {key} than {name} has now;\n{REMEDY}")


def _told(graph: onnxruntime.InferenceSession, file: Path) -> dict[str, Any]:
    """What a graph says of itself in its metadata."""
    try:
        told = {key: json.loads(text) for key, text in graph.get_modelmeta().custom_metadata_map.items()}
        if "preprocess" in told:
            told["preprocess"] = parse(Preprocess, told["preprocess"], "")
    except (ValueError, SpecError, RecursionError) as error:
        raise ResultsError(f"{file}: its metadata is not what an export writes: {first_line(error)}") from None
    return told


def _in_torch(folder: Folder, device: str | None) -> Runtime:
    if not _is_installed("torch"):
        raise ResultsError("--runtime torch: torch is not installed; pip install torch torchvision, or --runtime onnx")
    import torch  # noqa: PLC0415  # takes seconds, and nobody who runs the other needs it

    from retina.export import grader  # noqa: PLC0415
    from retina.training.inference import disable_tf32  # noqa: PLC0415

    model = grader.of_folder(folder).grader
    there = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(device=there, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(images: Images) -> Graded:
        with torch.inference_mode(), disable_tf32():
            placed = torch.from_numpy(images).to(there, memory_format=torch.channels_last)
            probabilities, grades, referable = model(placed)
        return _floats(probabilities), grades.cpu().numpy(), _floats(referable)

    return run


def _floats(values: torch.Tensor) -> Floats:
    return values.double().cpu().numpy()
