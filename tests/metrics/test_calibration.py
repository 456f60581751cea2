"""Temperature scaling finds the temperature that was put in, and the calibration error is torchmetrics'."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.metrics import log_loss

from retina.metrics.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    apply_temperature,
    calibration_gaps,
    expected_calibration_error,
    fit_temperature,
)

Drawn = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


@st.composite
def predictions(draw: st.DrawFn) -> Drawn:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 60))
    return rng.integers(0, 5, n), rng.dirichlet(np.full(5, draw(st.sampled_from([0.1, 1.0]))), n)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_it_finds_the_temperature_that_was_put_in(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 5))
    honest = special.softmax(logits / true, axis=1)
    grades = (rng.random(len(logits))[:, None] > honest.cumsum(axis=1)[:, :4]).sum(axis=1)
    computed = special.softmax(logits, axis=1)
    found = fit_temperature(grades, computed)
    assert found == pytest.approx(true, rel=0.05)
    np.testing.assert_allclose(apply_temperature(computed, true), honest)
    assert expected_calibration_error(grades, apply_temperature(computed, found)) < 0.015


@settings(deadline=None, max_examples=30)
@given(predictions())
def test_no_other_temperature_is_likelier(drawn: Drawn) -> None:
    grades, p = drawn
    found = fit_temperature(grades, p)
    assert MIN_TEMPERATURE <= found <= MAX_TEMPERATURE

    def loss(t: float) -> float:
        return float(log_loss(grades, apply_temperature(p, t), labels=range(5)))

    others = [
        MIN_TEMPERATURE,
        *np.geomspace(0.06, 18, 9),
        MAX_TEMPERATURE,
        1.0,
        found * 0.97,
        min(found * 1.03, MAX_TEMPERATURE),
    ]
    assert loss(found) <= min(loss(t) for t in others if t >= MIN_TEMPERATURE) + 1e-3


@settings(deadline=None)
@given(predictions(), st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE))
def test_a_temperature_changes_no_order(drawn: Drawn, t: float) -> None:
    p = np.round(drawn[1], 2) + 0.01  # apart by more than rounding
    p /= p.sum(axis=1, keepdims=True)
    found = apply_temperature(p, t)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    for before, after in zip(p, found, strict=True):
        assert (np.diff(after[before.argsort(kind="stable")]) >= -1e-12).all()


def test_certainty_that_is_always_right_or_once_wrong() -> None:
    p = np.eye(5)[[0, 1, 2, 3]]
    right, wrong = np.array([0, 1, 2, 3]), np.array([0, 1, 2, 4])
    assert np.isfinite(apply_temperature(p, 20.0)).all()
    assert fit_temperature(wrong, p) > 10
    assert MIN_TEMPERATURE <= fit_temperature(right, p) <= MAX_TEMPERATURE
    assert expected_calibration_error(right, p) == 0
    assert expected_calibration_error(wrong, p) == pytest.approx(0.25)


@settings(deadline=None)
@given(predictions())
def test_the_bins_are_torchmetrics_s(drawn: Drawn) -> None:
    grades, p = drawn
    gaps = calibration_gaps(grades, p)
    assert np.abs(gaps.sum(axis=0)).sum() / len(grades) == pytest.approx(
        expected_calibration_error(grades, p), abs=1e-6
    )


def test_certainty_has_a_bin_of_its_own() -> None:
    p = np.array([[0.97, 0.03, 0, 0, 0], [1, 0, 0, 0, 0]])
    grades = np.array([0, 1])
    assert calibration_gaps(grades, p).nonzero()[1].tolist() == [14, 15]
    assert expected_calibration_error(grades, p) == pytest.approx((0.03 + 1) / 2)
