"""The threshold is the best that validation offers, and lies between two photographs."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina.metrics.operating_point import OperatingPoint, choose_operating_point
from retina.metrics.probabilities import referable_probability

Drawn = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def of_scores(scores: list[float]) -> npt.NDArray[np.float64]:
    """Probabilities whose part of grade 2 and worse is the score."""
    p = np.zeros((len(scores), 5))
    p[:, 0], p[:, 3] = 1 - np.array(scores), scores
    return p


def reached(grades: npt.NDArray[np.int64], refers: npt.NDArray[np.bool_]) -> tuple[float, float]:
    return float(refers[grades >= 2].mean()), float((~refers)[grades < 2].mean())


@st.composite
def validations(draw: st.DrawFn) -> Drawn:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, skill = draw(st.integers(2, 60)), draw(st.sampled_from([0.0, 0.3, 0.5]))
    grades = np.concatenate([[0, 4], rng.integers(0, 5, n - 2)])
    scores = np.clip(0.5 + skill * np.where(grades >= 2, 1, -1) + rng.normal(0, 0.3, n), 0, 1)
    return grades, of_scores(np.round(scores, draw(st.sampled_from([1, 9]))).tolist())


@settings(deadline=None, max_examples=200)
@given(validations())
def test_it_is_the_best_of_all_thresholds(drawn: Drawn) -> None:
    grades, p = drawn
    point = choose_operating_point(grades, p)
    score = referable_probability(p)
    all_of_them = [reached(grades, score >= cut) for cut in [*np.unique(score), 2.0]]
    met = [both for both in all_of_them if both[0] >= 0.87 - 1e-12 and both[1] >= 0.90 - 1e-12]
    assert point.met == bool(met)
    sensitivity, specificity = reached(grades, point.refers(p))
    assert specificity >= 0.90 - 1e-12
    if met:
        best = max(min(one - 0.87, other - 0.90) for one, other in met)
        assert min(sensitivity - 0.87, specificity - 0.90) == pytest.approx(best)
    else:
        best = max(one for one, other in all_of_them if other >= 0.90 - 1e-12)
        assert sensitivity == pytest.approx(best)
        assert specificity == max(other for one, other in all_of_them if one == sensitivity)


def test_it_lies_half_way_between_two_photographs() -> None:
    point = choose_operating_point(np.array([0, 1, 2, 4]), of_scores([0.1, 0.2, 0.6, 0.7]))
    target = {"sensitivity": 0.87, "specificity": 0.9}
    assert point == OperatingPoint(threshold=point.threshold, chosen_on="val", target=target, met=True)
    assert point.threshold == pytest.approx(0.4)
    computed = {"threshold": point.threshold, "chosen_on": "val", "met": True}
    assert point.as_json() == {**computed, "target": target}


def test_where_only_everybody_or_nobody_can_be_referred_nobody_is() -> None:
    point = choose_operating_point(np.array([0, 4]), of_scores([1.0, 1.0]))
    assert not point.met
    assert not point.refers(of_scores([1.0, 0.5])).any()


def test_one_in_ten_false_alarms_are_a_specificity_of_ninety_per_cent() -> None:
    grades = np.array([0] * 10 + [2] * 10)
    scores = [0.1] * 9 + [0.7] + [0.6] * 10
    assert choose_operating_point(grades, of_scores(scores)).met


@pytest.mark.parametrize("grades", [[0, 1, 0], [2, 3, 4]])
def test_without_both_kinds_of_eyes_there_is_nothing_to_choose(grades: list[int]) -> None:
    point = choose_operating_point(np.array(grades), of_scores([0.1, 0.5, 0.9]))
    assert (point.threshold, point.met) == (None, False)
    assert point.refers(of_scores([0.9])) is None
