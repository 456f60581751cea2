"""onnxruntime sessions with this package's settings. Imports no torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime

from retina.errors import ResultsError, first_line
from retina.system.hardware import available_cores

ERRORS_ONLY = 3


def create_session(model: bytes | Path, name: str) -> onnxruntime.InferenceSession:
    """Create a session that runs a graph on this process's cores.

    Args:
        model: the ONNX file, or its content.
        name: the file's name, for messages.

    Raises:
        ResultsError: the model cannot be read as a graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()  # else it binds threads to cores outside the affinity, and warns
    options.log_severity_level = ERRORS_ONLY
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no other common base class
        raise ResultsError(f"{name}: cannot be read as an ONNX graph: {first_line(error)}") from None


def ensure_finite_weights(file: Path) -> None:
    """Raise if a weight of a graph is not finite. The output need not show it: a ReLU turns NaN into 0.

    For graphs without a checksum. Does nothing where the package onnx is not installed.

    Raises:
        ResultsError: a weight is not finite, or the file cannot be read.
    """
    if importlib.util.find_spec("onnx") is None:
        return
    import onnx  # noqa: PLC0415  # an optional dependency of prediction
    from onnx import numpy_helper  # noqa: PLC0415

    try:
        weights = onnx.load(str(file)).graph.initializer
        # scalars are not weights: the NaN that stands for "no grade" is one
        broken = [
            weight.name for weight in weights if weight.dims and not np.isfinite(numpy_helper.to_array(weight)).all()
        ]
    except Exception as error:  # whatever onnx's parser raises
        raise ResultsError(f"{file}: cannot be read as an ONNX graph: {first_line(error)}") from None
    if broken:
        raise ResultsError(f"{file}: {broken[0]} is not finite; this model cannot grade")
