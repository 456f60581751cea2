"""What is no probabilities becomes no grade and no number, wherever one could be read from it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prediction_tables import predictions
from tiny_dataset import CPU, config, part
from torch import nn

from retina.errors import ModelOutputError, TrainError
from retina.export.grader import Grader
from retina.metrics import calibration, grading, operating_point, summary
from retina.metrics.probabilities import NO_GRADE, find_problems, validate_probabilities
from retina.training.inference import decode_outputs, evaluate, evaluate_cross_fitted
from retina.training.losses import N_OUTPUTS, OutputDecoder, log_probabilities
from retina.training.trainer import start_training

BAD = [math.nan, math.inf, -math.inf]
FAIR = [0.1, 0.2, 0.4, 0.2, 0.1]
NO_PROBABILITIES = [
    [math.nan] * 5,
    [0.1, math.nan, 0.4, 0.2, 0.3],
    [math.inf, 0, 0, 0, 0],
    [0, 0, 0, 0, -math.inf],
    [0.0] * 5,
    [1.2, -0.2, 0, 0, 0],
    [0.5, 0.4, 0, 0, 0],
    [1.0, 1, 1, 1, 1],
    [1e308] * 5,
]


@pytest.mark.parametrize("row", NO_PROBABILITIES)
def test_each_row_is_named(row: list[float]) -> None:
    found = find_problems([FAIR, row, FAIR])
    assert [bool(one) for one in found] == [False, True, False]
    with pytest.raises(ValueError, match=r"scores: 1 of 3 rows cannot be used; row 1: the model"):
        validate_probabilities([FAIR, row, FAIR], "scores")


@pytest.mark.parametrize(("grade", "score"), [(5, 0.7), (-1, 0.7), (2, math.nan), (2, 1.5), (2, -0.1)])
def test_a_grade_or_score_out_of_range_is_named(grade: int, score: float) -> None:
    assert find_problems([FAIR], [2], [0.7]) == [""]
    assert find_problems([FAIR], [grade], [score]) != [""]


@given(logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=5, max_size=5))
def test_what_a_softmax_gives_is_taken(logits: list[float]) -> None:
    computed = torch.tensor([logits]).softmax(dim=1)
    assert find_problems(computed.numpy()) == [""]


# --- reading raw outputs ---


@pytest.mark.parametrize("loss", list(N_OUTPUTS))
@pytest.mark.parametrize("value", BAD)
def test_no_raw_output_that_is_not_finite_is_read_as_a_grade(loss: str, value: float) -> None:
    reading, width = OutputDecoder(loss), N_OUTPUTS[loss]
    for place in range(width):
        raw = torch.zeros(3, width)
        raw[1, place] = value
        probabilities, grades = reading(raw)
        logs, again = log_probabilities(reading, raw.double())
        assert grades.tolist() == again.tolist()
        assert [grade == NO_GRADE for grade in grades.tolist()] == [False, True, False]
        assert [bool(one) for one in find_problems(probabilities)] == [False, True, False]
        assert [bool(one) for one in find_problems(logs.exp())] == [False, True, False]


@pytest.mark.parametrize("loss", ["mse", "huber"])
@pytest.mark.parametrize(
    ("cuts", "spread"),
    [([0.5, 1.5, math.nan, 3.5], 0.25), ([3.5, 2.5, 1.5, 0.5], 0.25), ([0.5, 1.5, 2.5, 3.5], -1.0)]
    + [([0.5, 1.5, 2.5, 3.5], bad) for bad in (0.0, math.nan, math.inf)],
)
def test_damaged_cut_points_are_told(loss: str, cuts: list[float], spread: float) -> None:
    reading = OutputDecoder(loss)
    assert reading.problem == ""
    reading.cutpoints.copy_(torch.tensor(cuts))
    reading.spread.fill_(spread)
    assert reading.problem


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_no_cut_points_are_fitted_to_scores_that_are_not_finite(loss: str) -> None:
    reading = OutputDecoder(loss)
    before = reading.cutpoints.clone()
    with pytest.raises(ValueError, match="not finite"):
        reading.fit(torch.tensor([[0.0], [math.nan], [3.0]]), np.array([0, 2, 3]))
    assert torch.equal(reading.cutpoints, before)


@pytest.mark.parametrize("loss", list(N_OUTPUTS))
def test_a_temperature_that_leaves_nothing_leaves_no_grade(loss: str) -> None:
    class Net(nn.Module):
        reading = OutputDecoder(loss)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, 0, 0, : N_OUTPUTS[loss]]

    images = torch.randn(4, 3, 8, 8)
    with torch.inference_mode():
        fair = Grader(Net(), temperature=1.5)(images)
        cold = Grader(Net(), temperature=1e-300)(images)
    assert find_problems(*fair) == [""] * 4
    assert all(find_problems(*cold))
    assert cold[1].tolist() == [NO_GRADE] * 4


# --- evaluation and training ---


class Overflowing(nn.Module):
    """Grades by brightness; evaluated, what it gives for the brightest photographs, of grade 4, is multiplied."""

    def __init__(self, loss: str, scale: float = 1.0) -> None:
        super().__init__()
        self.last = nn.Linear(3, N_OUTPUTS[loss])
        self.scale = scale
        self.reading = OutputDecoder(loss)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.mean(dim=(2, 3))
        raw: torch.Tensor = self.last(bright)
        if self.training:
            return raw
        return torch.where(bright.mean(dim=1, keepdim=True) > 1.2, raw * self.scale, raw)


@pytest.mark.parametrize("loss", list(N_OUTPUTS))
@pytest.mark.parametrize("scale", BAD)
def test_an_evaluation_with_an_output_that_is_not_finite_is_refused(loss: str, scale: float) -> None:
    split, net = part([0, 1, 2, 3, 4, 4]), Overflowing(loss, scale)
    with pytest.raises(ModelOutputError, match="not finite on 2 of 6 photographs"):
        evaluate(net, split, device=CPU)
    raw = torch.zeros(6, N_OUTPUTS[loss])
    raw[3, 0] = scale
    with pytest.raises(ModelOutputError, match="not finite on 1 of 6 photographs"):
        evaluate_cross_fitted(raw, split, OutputDecoder(loss))
    seen = decode_outputs(raw, split, OutputDecoder(loss))
    assert seen.ungraded == 1
    with pytest.raises(ValueError, match="cannot be used"):
        _ = seen.metrics
    assert evaluate(Overflowing(loss), split, device=CPU).metrics.n == 6


@pytest.mark.parametrize("loss", list(N_OUTPUTS))
def test_a_trial_whose_validation_overflows_ends_with_a_reason(loss: str) -> None:
    run = start_training(
        config(loss=loss, epochs=1), part([0, 1, 2, 3]), part([0, 1, 4]), net=Overflowing(loss, math.inf)
    )
    with pytest.raises(TrainError, match=r"^epoch 1: the validation loss is nan: .* on 1 of 3 photographs$"):
        next(run)


@pytest.mark.parametrize("loss", list(N_OUTPUTS))
def test_float16_that_overflows_is_no_grade(loss: str) -> None:
    net = Overflowing(loss)
    net.last.weight.data.fill_(40_000.0)
    split = part([0, 1, 2, 3, 4])
    evaluate(net, split, device=CPU)  # float32 holds it
    with pytest.raises(ModelOutputError, match=r"not finite on [1-5] of 5"):
        evaluate(net, split, device=CPU, precision=torch.float16)


@pytest.mark.parametrize("loss", list(N_OUTPUTS))
def test_a_test_split_that_overflows_decides_nothing(loss: str) -> None:
    net = Overflowing(loss, math.inf)
    run = start_training(config(loss=loss, epochs=1), part([0, 1, 2, 3]), part([0, 1, 2]), test=part([0, 4]), net=net)
    result = next(run)
    assert math.isfinite(result.val_loss)
    assert (result.test_loss, result.test_accuracy, result.test_qwk) == (None, None, None)


# --- numbers ---


@pytest.mark.parametrize("row", NO_PROBABILITIES)
def test_no_number_is_made_of_what_is_no_probabilities(row: list[float]) -> None:
    grades, p = np.array([0, 2, 3]), np.array([FAIR, row, FAIR])
    point = operating_point.OperatingPoint(threshold=0.5, chosen_on="val", met=True)
    doors: list[Any] = [
        lambda: grading.compute_metrics(grades, p),
        lambda: grading.auc_by_grade(grades, p),
        lambda: grading.auc_one_vs_rest(grades, p),
        lambda: calibration.fit_temperature(grades, p),
        lambda: calibration.apply_temperature(p, 1.5),
        lambda: calibration.expected_calibration_error(grades, p),
        lambda: calibration.calibration_gaps(grades, p),
        lambda: operating_point.choose_operating_point(grades, p),
        lambda: point.refers(p),
    ]
    for door in doors:
        with pytest.raises(ValueError, match="1 of 3 rows cannot be used; row 1"):
            door()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, 1e-320])
def test_no_temperature_makes_probabilities_of_nothing(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        calibration.apply_temperature(np.array([FAIR]), temperature)


def test_scores_that_are_not_finite_reach_no_threshold() -> None:
    with pytest.raises(ValueError, match="not finite"):
        grading.sensitivity_at_specificity(np.array([True, False]), np.array([0.3, math.nan]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.5, 3.0])
def test_predictions_that_are_no_probabilities_prove_nothing(value: float) -> None:
    frame = predictions(10).reset_index(drop=True)
    frame.loc[3, "p2"] = value
    with pytest.raises(ValueError, match="predictions of val: 1 of 20 rows"):
        summary.summarize(frame)
