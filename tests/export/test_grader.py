"""The exported model's reading is training's, for every loss; and ONNX has it too."""

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retina.export import graphs
from retina.export.folder import CutPoints
from retina.export.grader import Grader
from retina.metrics.calibration import apply_temperature
from retina.metrics.probabilities import referable_probability
from retina.training.losses import N_OUTPUTS, OutputDecoder, log_probabilities


class Tiny(nn.Module):
    """A network that sees the mean of each channel in the upper left quarter, read for a loss."""

    def __init__(self, loss: str) -> None:
        super().__init__()
        self.last = nn.Linear(3, N_OUTPUTS[loss])
        self.reading = OutputDecoder(loss)
        if self.reading.is_fitted:
            self.reading.cutpoints.copy_(torch.tensor([0.1, 0.9, 1.1, 2.5]))
            self.reading.spread.fill_(0.3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(images[:, :, :4, :4].mean(dim=(2, 3)) * 3)


@pytest.mark.parametrize("loss", list(N_OUTPUTS))
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_logarithms_are_those_of_the_reading(loss: str, data: st.DataObject) -> None:
    reading = Tiny(loss).reading
    values = st.lists(st.floats(-12, 12, width=32), min_size=N_OUTPUTS[loss], max_size=N_OUTPUTS[loss])
    raw = torch.tensor([data.draw(values)])
    probabilities, grades = reading(raw.double())
    logs, found = log_probabilities(reading, raw)
    np.testing.assert_allclose(logs.exp(), probabilities, atol=2e-6)
    worse = (1 - probabilities.cumsum(dim=1))[:, :-1]
    top = probabilities.topk(2).values[0]
    is_tie = (worse - 0.5).abs().min() < 1e-5 if N_OUTPUTS[loss] != 5 else top[0] - top[1] < 1e-5
    assert is_tie or found.tolist() == grades.tolist()
    for temperature in (0.3, 1.0, 4.0):
        hot = (logs / temperature).softmax(dim=1)
        np.testing.assert_allclose(hot, apply_temperature(probabilities.numpy(), temperature), atol=2e-4)


@pytest.mark.parametrize("loss", ["cross_entropy", "corn", "mse"])
def test_the_graphs_have_the_reading_of_every_loss(loss: str) -> None:
    torch.manual_seed(1)
    grader = Grader(Tiny(loss), temperature=1.7, flips=loss in {"corn", "mse"}).eval().requires_grad_(False)
    images = torch.randn(9, 3, 1, 1) * 3 + torch.randn(9, 3, 8, 8)
    with torch.inference_mode():
        raw = grader.net(images)
        if grader.flips:
            raw = sum(grader.net(images.flip(axes)) for axes in ((), (2,), (3,), (2, 3))) / 4
        probabilities, grades = grader.net.reading(raw.double())
    written = graphs.serialize_onnx(graphs.export_program(grader, 8), {})
    found = onnxruntime.InferenceSession(written).run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found[0], apply_temperature(probabilities.numpy(), 1.7), atol=1e-5)
    assert found[1].tolist() == grades.tolist()
    assert len(set(grades.tolist())) > 1
    np.testing.assert_allclose(found[2], referable_probability(probabilities.numpy()), atol=1e-5)


def test_cut_points_are_told() -> None:
    assert Grader(Tiny("emd")).cut_points is None
    result = Grader(Tiny("huber")).cut_points
    assert isinstance(result, CutPoints)
    assert result.cuts == pytest.approx((0.1, 0.9, 1.1, 2.5))
    assert result.spread == pytest.approx(0.3)
