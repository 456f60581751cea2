"""The runtime of an exported model: onnxruntime or torch. Only the one that is used is imported."""

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
    ExportFolder,
    Preprocess,
)
from retina.system import hardware

if TYPE_CHECKING:
    import onnxruntime
    import torch

Images = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
ModelOutputs = tuple[Floats, npt.NDArray[np.int64], Floats]
Runtime = Callable[[Images], ModelOutputs]
"""A function from images float32 (B, 3, S, S), normalized, to probabilities (B, 5), grades (B,) and the P(grade >= 2)
(B,) to which the operating point applies; see `retina.export.grader.Grader`."""
RuntimeName = Literal["auto", "torch", "onnx"]
log = logging.getLogger(__name__)


def open_runtime(folder: ExportFolder, name: RuntimeName = "auto", device: str | None = None) -> Runtime:
    """Open the model of an exported folder.

    Args:
        folder: as `retina.export.folder.read_export` returns it.
        name: "auto" is torch if there is a GPU for it, otherwise onnxruntime if it is installed and the folder has a
            graph.
        device: the device for torch, for example "cpu" or "cuda:1"; if None, a GPU if there is one, else the CPU.

    Raises:
        ResultsError: the runtime is not installed, or the folder has no file for it, or that file is damaged or does
            not match config.json and preprocess.json.
    """
    chosen = _choose_runtime(folder) if name == "auto" else name
    log.debug("%s runs in %s", folder.path, chosen)
    return _open_onnxruntime(folder) if chosen == "onnx" else _open_torch(folder, device)


def _choose_runtime(folder: ExportFolder) -> Literal["torch", "onnx"]:
    has_torch = _is_installed("torch") and (folder.path / WEIGHTS).is_file()
    has_onnx = _is_installed("onnxruntime") and (folder.path / ONNX).is_file()
    if has_torch and has_onnx:
        return "torch" if hardware.current_load().gpus else "onnx"
    return "onnx" if has_onnx else "torch"


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # sys.modules[package] is None, or the module has no __spec__
        return False


def _open_onnxruntime(folder: ExportFolder) -> Runtime:
    file = folder.path / ONNX
    if not file.is_file():
        raise ResultsError(
            f"{folder.path}: has no {ONNX} (written by retina {folder.description.retina}); "
            "export the run again, or predict with --runtime torch"
        )
    if not _is_installed("onnxruntime"):
        raise ResultsError("--runtime onnx: onnxruntime is not installed; pip install onnxruntime, or --runtime torch")
    from retina.export.sessions import create_session, ensure_finite_weights  # noqa: PLC0415  # only who uses it needs to have it

    if not folder.verify(ONNX):
        ensure_finite_weights(file)
    graph = create_session(file, str(file))
    _check_graph(graph, folder)

    def run(images: Images) -> ModelOutputs:
        try:
            probabilities, grades, referable = graph.run(
                [PROBABILITIES_OUTPUT, GRADE, REFERABLE_SCORE], {IMAGES: images}
            )
        except Exception as error:  # onnxruntime's exceptions have no other common base class
            raise ModelOutputError(f"{file}: onnxruntime cannot run it: {first_line(error)}") from None
        return probabilities.astype(np.float64), grades.astype(np.int64), referable.astype(np.float64)

    return run


def _check_graph(graph: onnxruntime.InferenceSession, folder: ExportFolder) -> None:
    """Raise if a graph is not the one that config.json and preprocess.json describe."""
    file, size = folder.path / ONNX, folder.preprocess.image_size
    inputs = {value.name: value.shape for value in graph.get_inputs()}
    if list(inputs) != [IMAGES] or inputs[IMAGES][1:] != [3, size, size]:
        shown = ", ".join(f"{name} {shape}" for name, shape in inputs.items())
        raise ResultsError(f"{file}: takes {shown}, {PREPROCESS} has {IMAGES} {['batch', 3, size, size]}")
    outputs = {value.name: value.shape[1:] for value in graph.get_outputs()}
    if outputs != {PROBABILITIES_OUTPUT: [5], GRADE: [], REFERABLE_SCORE: []}:
        raise ResultsError(
            f"{file}: returns {outputs}, not {PROBABILITIES_OUTPUT} (batch, 5), {GRADE} and {REFERABLE_SCORE}"
        )
    metadata = _read_metadata(graph, file)
    description = folder.description
    expected: dict[str, tuple[str, Any]] = {
        "preprocess": (PREPROCESS, folder.preprocess),
        "grades": (CONFIG, list(description.grades)),
        "temperature": (CONFIG, description.temperature),
        "flips": (CONFIG, description.trial.flips),
    }
    for key, (name, value) in expected.items():
        if key in metadata and metadata[key] != value:  # a graph of an earlier layout lacks some keys
            raise ResultsError(f"{file}: was written for another {key} than {name} has now;\n{REMEDY}")


def _read_metadata(graph: onnxruntime.InferenceSession, file: Path) -> dict[str, Any]:
    """Return a graph's metadata, with the preprocessing as `Preprocess`."""
    try:
        metadata = {key: json.loads(text) for key, text in graph.get_modelmeta().custom_metadata_map.items()}
        if "preprocess" in metadata:
            metadata["preprocess"] = parse(Preprocess, metadata["preprocess"], "")
    except (ValueError, SpecError, RecursionError) as error:
        raise ResultsError(f"{file}: its metadata is not what an export writes: {first_line(error)}") from None
    return metadata


def _open_torch(folder: ExportFolder, device: str | None) -> Runtime:
    if not _is_installed("torch"):
        raise ResultsError("--runtime torch: torch is not installed; pip install torch torchvision, or --runtime onnx")
    import torch  # noqa: PLC0415  # takes seconds, and onnxruntime does not need it

    from retina.export import grader  # noqa: PLC0415
    from retina.training.inference import disable_tf32  # noqa: PLC0415

    model = grader.load_from_folder(folder).grader
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(device=target, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(images: Images) -> ModelOutputs:
        with torch.inference_mode(), disable_tf32():
            batch = torch.from_numpy(images).to(target, memory_format=torch.channels_last)
            probabilities, grades, referable = model(batch)
        return _floats(probabilities), grades.cpu().numpy(), _floats(referable)

    return run


def _floats(values: torch.Tensor) -> Floats:
    return values.double().cpu().numpy()
