"""onnxruntime's sessions, as we want them. Knows no torch."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from retina.errors import ResultsError
from retina.export.folder import first_line
from retina.machine import cores

ERRORS_ONLY = 3


def session(model: bytes | Path, name: str) -> onnxruntime.InferenceSession:
    """A graph ready to run on this process's cores.

    Args:
        model: the ONNX file, or its content.
        name: of the file, for messages.

    Raises:
        ResultsError: it cannot be read as a graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()  # else it binds threads to cores that may not be ours, and says so
    options.log_severity_level = ERRORS_ONLY
    given = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common root but this
        raise ResultsError(f"{name}: cannot be read as an ONNX graph: {first_line(error)}") from None
