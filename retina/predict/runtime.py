"""What the model runs in: onnxruntime, or torch. Neither is imported unless it is the one."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from retina import machine
from retina.errors import ResultsError
from retina.export.folder import ONNX, WEIGHTS, Folder

if TYPE_CHECKING:
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
        ResultsError: the folder has nothing for the runtime, that is damaged, or the runtime is not installed.
    """
    chosen = _choice(folder) if wish == "auto" else wish
    log.debug("%s runs in %s", folder.path, chosen)
    return _in_onnxruntime(folder) if chosen == "onnx" else _in_torch(folder, device)


def _choice(folder: Folder) -> Literal["torch", "onnx"]:
    for_torch = _is_installed("torch") and (folder.path / WEIGHTS).is_file()
    for_onnx = _is_installed("onnxruntime") and (folder.path / ONNX).is_file()
    if for_torch and for_onnx:
        return "torch" if machine.load().gpus else "onnx"
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
    from retina.export.sessions import session  # noqa: PLC0415  # only who uses it needs to have it

    graph = session(file, str(file))
    size = folder.preprocess.image_size
    given = graph.get_inputs()[0]
    if given.shape[1:] != [3, size, size]:
        raise ResultsError(f"{file}: takes images {given.shape}, preprocess.json says {['batch', 3, size, size]}")

    def run(images: Images) -> Graded:
        probabilities, grades, referable = graph.run(None, {given.name: images})
        return probabilities.astype(np.float64), grades, referable.astype(np.float64)

    return run


def _in_torch(folder: Folder, device: str | None) -> Runtime:
    if not _is_installed("torch"):
        raise ResultsError("--runtime torch: torch is not installed; pip install torch torchvision, or --runtime onnx")
    import torch  # noqa: PLC0415  # takes seconds, and nobody who runs the other needs it

    from retina.evaluation import to_the_letter  # noqa: PLC0415
    from retina.export import grader  # noqa: PLC0415

    model = grader.of_folder(folder).grader
    there = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(device=there, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(images: Images) -> Graded:
        with torch.inference_mode(), to_the_letter():
            placed = torch.from_numpy(images).to(there, memory_format=torch.channels_last)
            probabilities, grades, referable = model(placed)
        return _floats(probabilities), grades.cpu().numpy(), _floats(referable)

    return run


def _floats(values: torch.Tensor) -> Floats:
    return values.double().cpu().numpy()
