"""The grader as graphs that run without this package: `model.pt2` for torch, `model.onnx` for other programs."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from retina.export.folder import GRADE, IMAGES, PROBABILITIES_OUTPUT, REFERABLE_SCORE
from retina.export.grader import Grader

OPSET = 18
"""ONNX opset (2022): the oldest that torch's exporter writes, so that old runtimes can read it."""
OUTPUTS = (PROBABILITIES_OUTPUT, GRADE, REFERABLE_SCORE)


def export_program(grader: Grader, image_size: int) -> torch.export.ExportedProgram:
    """Trace the grader's graph, for any number of photographs of `image_size` pixels a side."""
    example = torch.zeros(2, 3, image_size, image_size)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(grader, (example,), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains file names of this machine
    return program


def serialize_pt2(program: torch.export.ExportedProgram) -> bytes:
    """Serialize the graph in the format of torch.export.load."""
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def load_pt2(content: bytes) -> torch.nn.Module:
    """Load what `serialize_pt2` wrote, ready to run."""
    with _exporter_warnings_ignored():
        return torch.export.load(io.BytesIO(content)).module()


def serialize_onnx(program: torch.export.ExportedProgram, metadata: Mapping[str, object]) -> bytes:
    """Serialize the graph as ONNX: `images` to `probabilities`, `grade` and `referable_score`.

    Args:
        program: the graph that `export_program` returns.
        metadata: the file's metadata; values that are not text are stored as JSON.
    """
    with _exporter_warnings_ignored():
        onnx_program = torch.onnx.export(
            program,
            input_names=[IMAGES],
            output_names=OUTPUTS,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert onnx_program is not None  # noqa: S101  # it is None only where torch writes a file itself
    model = onnx_program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's notes, which contain file names of this machine
    batch_name = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == batch_name:  # torch's name for it differs between exports
                axis.dim_param = "batch"
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    content: bytes = model.SerializeToString()
    return content


@contextmanager
def _exporter_warnings_ignored() -> Iterator[None]:
    """Ignore warnings of torch's exporter about its own code, about which the user can do nothing."""
    with warnings.catch_warnings():
        # of torch 2.11; later versions are silent
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        yield
