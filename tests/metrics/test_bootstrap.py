"""Intervals hold the truth as often as they say, and know that a patient's two eyes are not independent."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from prediction_tables import predictions
from scipy import stats

from retina.metrics import bootstrap
from retina.metrics.operating_point import OperatingPoint
from retina.metrics.predictions import SplitPredictions
from retina.metrics.summary import summarize_split

POINT = OperatingPoint(threshold=0.3, chosen_on="val", met=True)
NUMBERS = ["accuracy", "qwk", "referable_auc", "sensitivity_at_90_specificity", "nll", "operating_specificity"]


def measured(seen: SplitPredictions, resamples: int = 400) -> dict[str, Any]:
    return summarize_split(seen, 1.0, POINT, resamples=resamples)


def numbers(computed: dict[str, Any]) -> dict[str, float]:
    return {**computed, "operating_specificity": computed["operating"]["specificity"]}


def test_each_resample_draws_as_many_patients_as_there_are() -> None:
    (drawn,) = bootstrap.draw_patient_weights(30, 500, seed=0, at_once=500)
    assert drawn.shape == (30, 500)
    assert (drawn.sum(axis=0) == 30).all()
    # each is drawn 30 times out of 900 by chance of 1/30: binomial, here over all resamples
    assert stats.chisquare(drawn.sum(axis=1)).pvalue > 1e-4
    assert 0.32 < (drawn == 0).mean() < 0.41  # a patient is left out with (1 - 1/30) ** 30 = 0.36


def test_the_seed_alone_decides_over_the_resamples() -> None:
    def drawn(seed: int, at_once: int) -> npt.NDArray[np.float64]:
        return np.concatenate(list(bootstrap.draw_patient_weights(7, 50, seed, at_once)), axis=1)

    assert np.array_equal(drawn(3, 50), drawn(3, 8))
    assert not np.array_equal(drawn(3, 50), drawn(4, 50))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = numbers(measured(SplitPredictions.from_frame(predictions(60_000, seed=99), "test"), resamples=1))
    samples, held = 80, dict.fromkeys(NUMBERS, 0)
    for seed in range(samples):
        computed = measured(SplitPredictions.from_frame(predictions(100, seed=seed), "test"), 200)
        for name in NUMBERS:
            low, high = computed["intervals"][name]
            held[name] += low <= truth[name] <= high
    for name, times in held.items():
        # a true 95% gives 69 or fewer of 80 with a chance of 0.2%
        assert times >= 70, name


def test_by_patient_they_are_wider_where_two_eyes_agree() -> None:
    def ratio(alike: float) -> float:
        seen = SplitPredictions.from_frame(predictions(400, alike=alike), "test")
        width = {}
        for how, one in (("patient", seen), ("photograph", seen.with_ungrouped_photographs())):
            low, high = measured(one, 1_000)["intervals"]["nll"]
            width[how] = high - low
        return width["patient"] / width["photograph"]

    # were the eyes one and the same, every photograph would be there twice: wider by the root of two
    assert 1.30 < ratio(0.999) < 1.53
    assert 0.90 < ratio(0.0) < 1.10


def test_a_number_that_is_mostly_undefined_has_no_interval() -> None:
    assert bootstrap.percentile_interval(np.array([0.5] * 94 + [np.nan] * 6)) is None
    low, high = bootstrap.percentile_interval(np.array([*np.linspace(0, 1, 96), *[np.nan] * 4]))
    assert (low, high) == pytest.approx((0.025, 0.975))


def test_a_grade_that_one_patient_has_gets_no_interval_and_one_that_many_have_does() -> None:
    seen = SplitPredictions.from_frame(predictions(80), "test")
    grades = np.where(seen.grades == 4, 3, seen.grades)
    grades[np.flatnonzero(seen.patients == 5)] = 4
    computed = measured(SplitPredictions(grades, *(getattr(seen, name) for name in list(vars(seen))[1:])))
    assert computed["recall"][4] is not None
    assert computed["intervals"]["recall"][4] is None
    assert computed["intervals"]["recall"][0] is not None


def test_of_a_single_patient_nothing_can_be_said() -> None:
    computed = measured(SplitPredictions.from_frame(predictions(1), "test"))
    assert computed["patients"] == 1
    flat = [one for value in computed["intervals"].values() for one in (value if isinstance(value, list) else [value])]
    assert flat
    assert not any(flat)


def test_the_calibration_error_of_an_honest_model_is_compatible_with_none() -> None:
    """Chance alone gives it one, and its resamples more yet: all their percentiles lie above the truth, which is 0."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = rng.dirichlet(np.full(5, 0.5), 200)
        grades = (rng.random(200)[:, None] > p.cumsum(axis=1)[:, :4]).sum(axis=1)
        zeros = np.zeros(200, dtype=np.int64)
        seen = SplitPredictions(grades, p.argmax(axis=1), p, np.arange(200), zeros, None, 0)
        computed = measured(seen, 200)
        low, high = computed["intervals"]["ece"]
        assert 0 <= low < 0.01 < computed["ece"] <= high < 0.3


def test_the_calibration_error_of_a_dishonest_model_is_held_too() -> None:
    truth, held = (
        measured(SplitPredictions.from_frame(predictions(60_000, sharpness=20, seed=99), "test"), resamples=1)["ece"],
        0,
    )
    assert truth > 0.1
    for seed in range(25):
        low, high = measured(SplitPredictions.from_frame(predictions(100, sharpness=20, seed=seed), "test"), 200)[
            "intervals"
        ]["ece"]
        held += low <= truth <= high
    assert held >= 20  # a true 95% gives 19 or fewer of 25 with a chance of 0.1%
