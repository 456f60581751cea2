"""onnxruntime's sessions, as we want them. Knows no torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime

from retina.errors import ResultsError, first_line
from retina.system.hardware import available_cores

ERRORS_ONLY = 3


def create_session(model: bytes | Path, name: str) -> onnxruntime.InferenceSession:
    """A graph ready to run on this process's cores.

    Args:
        model: the ONNX file, or its content.
        name: of the file, for messages.

    Raises:
        ResultsError: it cannot be read as a graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()  # else it binds threads to cores that may not be ours, and says so
    options.log_severity_level = ERRORS_ONLY
    given = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common root but this
        raise ResultsError(f"{name}: cannot be read as an ONNX graph: {first_line(error)}") from None


def ensure_finite_weights(file: Path) -> None:
    """Stop at a graph with a weight that is not finite, which its output need not show: of NaN its ReLU makes 0.

    For graphs that no checksum vouches for. Nothing is looked at where the package onnx is not installed.

    Raises:
        ResultsError: a weight is not finite, or the file cannot be read.
    """
    if importlib.util.find_spec("onnx") is None:
        return
    import onnx  # noqa: PLC0415  # not everybody who predicts has it
    from onnx import numpy_helper  # noqa: PLC0415

    try:
        weights = onnx.load(str(file)).graph.initializer
        # a single number is no weight: the NaN that stands for "no grade" is one
        broken = [one.name for one in weights if one.dims and not np.isfinite(numpy_helper.to_array(one)).all()]
    except Exception as error:  # whatever its parser meets
        raise ResultsError(f"{file}: cannot be read as an ONNX graph: {first_line(error)}") from None
    if broken:
        raise ResultsError(f"{file}: {broken[0]} is not finite; this model grades nothing")
