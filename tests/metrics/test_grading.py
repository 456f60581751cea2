"""The numbers are scikit-learn's; where one is not defined, it means what is documented."""

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from retina.metrics.grading import (
    accuracy,
    auc_one_vs_rest,
    compute_metrics,
    confusion_matrix,
    quadratic_weighted_kappa,
    sensitivity_at_specificity,
)

Drawn = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
GRADES = list(range(5))


@st.composite
def predictions(draw: st.DrawFn, kinds: int = 5) -> Drawn:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 60))
    return rng.integers(0, draw(st.integers(1, kinds)), n), rng.dirichlet(np.ones(5), n)


def one_hot(grades: list[int]) -> npt.NDArray[np.float64]:
    return np.eye(5)[grades]


def naive_kappa(true: npt.NDArray[np.int64], guess: npt.NDArray[np.int64]) -> float:
    """By Cohen's definition: one less the ratio of the mean squared errors, as seen and of any truth with any guess."""
    seen = float(((true - guess) ** 2).mean())
    by_chance = float(((true[:, None] - guess[None, :]) ** 2).mean())
    return 1 - seen / by_chance if by_chance else 0.0


@settings(deadline=None, max_examples=50)
@given(predictions())
def test_all_numbers_are_scikit_learns(drawn: Drawn) -> None:
    true, p = drawn
    guess = p.argmax(axis=1)
    found = compute_metrics(true, p)
    assert found.n == len(true)
    assert found.accuracy == pytest.approx(sk.accuracy_score(true, guess))
    assert found.confusion_matrix.tolist() == sk.confusion_matrix(true, guess, labels=GRADES).tolist()
    assert found.qwk == pytest.approx(naive_kappa(true, guess), abs=1e-12)
    recall = sk.recall_score(true, guess, labels=GRADES, average=None, zero_division=np.nan)
    np.testing.assert_allclose(found.recall, recall)
    precision = sk.precision_score(true, guess, labels=GRADES, average=None, zero_division=np.nan)
    np.testing.assert_allclose(found.precision, precision)
    present = sorted(set(true.tolist()))
    assert found.balanced_accuracy == pytest.approx(sk.recall_score(true, guess, labels=present, average="macro"))
    either = sorted({*true.tolist(), *guess.tolist()})
    assert found.macro_f1 == pytest.approx(sk.f1_score(true, guess, labels=either, average="macro"))


@settings(deadline=None, max_examples=50)
@given(predictions())
def test_auc_is_the_mean_over_the_grades_that_have_one(drawn: Drawn) -> None:
    true, p = drawn
    if len(set(true.tolist())) == 1:
        assert math.isnan(compute_metrics(true, p).auc)
        return
    areas = [sk.roc_auc_score(true == grade, p[:, grade]) for grade in sorted(set(true.tolist()))]
    assert compute_metrics(true, p).auc == pytest.approx(np.mean(areas))
    by_grade = [area for area in compute_metrics(true, p).auc_by_grade if not math.isnan(area)]
    assert by_grade == pytest.approx(areas)


def test_auc_of_all_grades_is_scikit_learns_one_vs_rest() -> None:
    rng = np.random.default_rng(0)
    true, p = np.arange(100) % 5, rng.dirichlet(np.ones(5), 100)
    assert auc_one_vs_rest(true, p) == pytest.approx(sk.roc_auc_score(true, p, multi_class="ovr"))


@settings(deadline=None, max_examples=50)
@given(predictions())
def test_referable_is_grade_two_or_worse(drawn: Drawn) -> None:
    true, p = drawn
    found, referable = compute_metrics(true, p).referable_auc, true >= 2
    if referable.all() or not referable.any():
        assert math.isnan(found)
    else:
        assert found == pytest.approx(sk.roc_auc_score(referable, p[:, 2] + p[:, 3] + p[:, 4]))


@settings(deadline=None, max_examples=50)
@given(predictions(), st.sampled_from([0.5, 0.9, 1.0]))
def test_sensitivity_is_the_best_of_all_thresholds_that_are_specific_enough(drawn: Drawn, specificity: float) -> None:
    true, p = drawn
    positive, score = true >= 2, np.round(p[:, 2:].sum(axis=1), 1)
    found = sensitivity_at_specificity(positive, score, specificity)
    if positive.all() or not positive.any():
        assert math.isnan(found)
        return
    cuts = [cut for cut in [*np.unique(score), 2.0] if (score[~positive] < cut).mean() >= specificity - 1e-12]
    assert found == pytest.approx(max((score[positive] >= cut).mean() for cut in cuts))


def test_each_threshold_counts_also_on_a_straight_part_of_the_curve_and_at_the_very_specificity() -> None:
    score = np.arange(10).repeat(2) / 10  # one positive and one negative at each of ten scores
    positive = np.arange(20) % 2 == 0
    assert sensitivity_at_specificity(positive, score, 0.9) == pytest.approx(0.1)
    assert sensitivity_at_specificity(positive, score, 0.1) == pytest.approx(0.9)


def test_grades_that_are_not_the_most_probable_ones_are_taken_as_the_model_s() -> None:
    true, p = [0, 1, 2, 3, 4], one_hot([0, 0, 0, 0, 0])
    found = compute_metrics(true, p, predicted=[0, 1, 2, 3, 3])
    assert found.accuracy == 0.8
    assert found.recall == (1, 1, 1, 1, 0)
    assert found.precision[:4] == (1, 1, 1, 0.5)
    assert math.isnan(found.precision[4])
    assert found.referable_auc == compute_metrics(true, p).referable_auc == 0.5
    with pytest.raises(ValueError, match=r"predicted has the shape \(4,\), allowed: \(5,\)"):
        compute_metrics(true, p, predicted=[0, 1, 2, 3])
    with pytest.raises(ValueError, match="integers 0 to 4"):
        compute_metrics(true, p, predicted=[0, 1, 2, 3, 5])


def test_a_perfect_grader_has_ones_everywhere() -> None:
    found = compute_metrics([0, 1, 2, 3, 4], one_hot([0, 1, 2, 3, 4]))
    assert (found.balanced_accuracy, found.macro_f1, found.sensitivity_at_90_specificity) == (1, 1, 1)
    assert found.precision == found.auc_by_grade == (1, 1, 1, 1, 1)
    assert (found.accuracy, found.qwk, found.auc, found.referable_auc) == (1, 1, 1, 1)
    assert found.recall == (1, 1, 1, 1, 1)


def test_an_error_by_three_grades_costs_nine_times_one_by_one_grade() -> None:
    # chance's mean squared error is the same in both: truth and guesses have the same grades
    true = [0, 3, 1, 2]
    near, far = [0, 3, 2, 1], [3, 0, 1, 2]
    lost = [1 - quadratic_weighted_kappa(true, guess) for guess in (near, far)]
    assert lost[1] == pytest.approx(9 * lost[0])


@pytest.mark.parametrize("grade", GRADES)
def test_one_grade_throughout_is_worth_nothing(grade: int) -> None:
    found = compute_metrics([grade] * 4, one_hot([grade] * 4))
    assert found.qwk == 0.0
    assert found.accuracy == 1.0
    assert math.isnan(found.auc)
    assert math.isnan(found.referable_auc)


@pytest.mark.parametrize(("true", "guess"), [([0, 1, 4], [0, 0, 0]), ([2, 2, 2], [0, 1, 4])])
def test_a_constant_side_agrees_by_chance_alone(true: list[int], guess: list[int]) -> None:
    assert quadratic_weighted_kappa(true, guess) == pytest.approx(0.0)


def test_the_recall_of_an_absent_grade_is_unknown_and_not_zero() -> None:
    recall = compute_metrics([0, 0, 3], one_hot([0, 1, 0])).recall
    assert recall[0] == 0.5
    assert recall[3] == 0.0
    assert all(math.isnan(recall[grade]) for grade in (1, 2, 4))


def test_the_confusion_matrix_has_true_grades_in_rows() -> None:
    matrix = confusion_matrix([0, 0, 4], [1, 1, 3])
    assert (matrix[0, 1], matrix[4, 3], matrix.sum()) == (2, 1, 3)
    assert matrix.shape == (5, 5)


def test_json_says_null_for_what_is_unknown() -> None:
    computed = json.loads(json.dumps(compute_metrics([1, 1], one_hot([1, 0])).as_json(), allow_nan=False))
    assert computed["auc"] is None
    assert computed["referable_auc"] is None
    assert computed["recall"] == [None, 0.5, None, None, None]
    assert computed["n"] == 2
    assert computed["confusion_matrix"][1] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_probability_that_is_no_number_is_no_prediction(bad: float) -> None:
    p = one_hot([0, 1])
    p[1, 3] = bad
    with pytest.raises(ValueError, match="not finite"):
        compute_metrics([0, 1], p)


@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (2,), (2, 5, 1)])
def test_probabilities_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape .*allowed: \(2, 5\)"):
        compute_metrics([0, 1], np.zeros(shape))


@pytest.mark.parametrize("grades", [[-1, 0], [0, 5], [0.0, 1.0], ["0", "1"], [True, False]])
def test_only_whole_numbers_from_0_to_4_are_grades(grades: list[object]) -> None:
    with pytest.raises(ValueError, match="integers 0 to 4"):
        accuracy(grades, [0, 1])
    with pytest.raises(ValueError, match="integers 0 to 4"):
        confusion_matrix([0, 1], grades)


@pytest.mark.parametrize("grades", [[], [[0, 1]], 3])
def test_grades_stand_in_one_row_with_something_in_it(grades: object) -> None:
    with pytest.raises(ValueError, match="allowed: "):
        compute_metrics(grades, np.zeros((1, 5)))


def test_numbers_of_any_whole_type_are_grades() -> None:
    assert accuracy(np.array([0, 4], dtype=np.uint8), np.array([0, 4], dtype=np.int32)) == 1.0
