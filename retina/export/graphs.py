"""The grader as graphs that run without this package: `model.pt2` for torch, `model.onnx` for everything else."""

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
"""Of ONNX (2022): the oldest that torch's exporter writes, so that old runtimes can read it."""
OUTPUTS = (PROBABILITIES_OUTPUT, GRADE, REFERABLE_SCORE)


def trace(grader: Grader, image_size: int) -> torch.export.ExportedProgram:
    """The grader's graph, for any number of photographs of `image_size` pixels a side."""
    example = torch.zeros(2, 3, image_size, image_size)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(grader, (example,), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine
    return program


def pt2(program: torch.export.ExportedProgram) -> bytes:
    """The graph as torch.export.load reads it."""
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def load_pt2(content: bytes) -> torch.nn.Module:
    """What `pt2` wrote, ready to run."""
    with _without_their_warnings():
        return torch.export.load(io.BytesIO(content)).module()


def onnx(program: torch.export.ExportedProgram, told: Mapping[str, object]) -> bytes:
    """The graph as ONNX: `images` to `probabilities`, `grade` and `referable_score`.

    Args:
        program: of `trace`.
        told: what the file says of itself, as JSON under the key of its metadata.
    """
    with _without_their_warnings():
        written = torch.onnx.export(
            program,
            input_names=[IMAGES],
            output_names=OUTPUTS,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert written is not None  # noqa: S101  # it is None only where torch writes a file itself
    model = written.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's notes, with files of this machine
    varying = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == varying:  # torch's own name for it is another each time
                axis.dim_param = "batch"
    for key, value in told.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    content: bytes = model.SerializeToString()
    return content


@contextmanager
def _without_their_warnings() -> Iterator[None]:
    """What torch's exporter warns of its own code; who exports a grader can change none of it."""
    with warnings.catch_warnings():
        # of torch 2.11; later versions are silent
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        yield
