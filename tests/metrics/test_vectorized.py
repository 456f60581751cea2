"""The numbers under weights of the patients are those of their photographs, each taken as often as its weight says."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina.metrics.calibration import apply_temperature
from retina.metrics.operating_point import OperatingPoint
from retina.metrics.predictions import SplitPredictions
from retina.metrics.summary import summarize_split
from retina.metrics.vectorized import VectorizedMetrics

POINT, TEMPERATURE = OperatingPoint(threshold=0.45, chosen_on="val", met=True), 1.7
Drawn = tuple[SplitPredictions, npt.NDArray[np.int64]]


@st.composite
def splits(draw: st.DrawFn) -> Drawn:
    """A split with tied scores and grades missing, and a weighting of its patients that leaves some photograph."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, kinds, patients = draw(st.integers(1, 40)), draw(st.integers(1, 5)), draw(st.integers(1, 12))
    p = rng.integers(0, draw(st.sampled_from([2, 4, 50])), (n, 5)) + rng.integers(0, 5, n)[:, None] / 4 + 0.25
    of = np.unique(rng.integers(0, patients, n), return_inverse=True)[1].astype(np.int64)
    seen = SplitPredictions(
        grades=rng.integers(0, kinds, n),
        predicted=rng.integers(0, draw(st.integers(1, 5)), n),
        probabilities=p / p.sum(axis=1, keepdims=True),
        patients=of,
        majority=np.zeros(n, dtype=np.int64),
        fellow_eye=rng.integers(0, 5, n) if draw(st.booleans()) else None,
        with_fellow=n,
    )
    weights = rng.integers(0, 4, seen.n_patients)
    weights[rng.integers(seen.n_patients)] += 1
    return seen, weights


def repeated(seen: SplitPredictions, weights: npt.NDArray[np.int64]) -> SplitPredictions:
    at = np.repeat(np.arange(len(seen)), weights[seen.patients])
    return replace(
        seen,
        patients=np.unique(seen.patients[at], return_inverse=True)[1].astype(np.int64),
        fellow_eye=None if seen.fellow_eye is None else seen.fellow_eye[at],
        **{name: getattr(seen, name)[at] for name in ("grades", "predicted", "probabilities", "majority")},
    )


def plain(computed: dict[str, Any]) -> dict[str, Any]:
    """What scikit-learn and torchmetrics say, under the names that `VectorizedMetrics` has."""
    flat = {**computed, **{f"operating_{name}": value for name, value in computed["operating"].items()}}
    for name, other in computed["baselines"].items():
        flat |= {f"{number} over {name}": computed[number] - other[number] for number in ("accuracy", "qwk")}
    return flat


@settings(deadline=None, max_examples=40)
@given(splits())
def test_a_weight_is_so_many_photographs(drawn: Drawn) -> None:
    seen, weights = drawn
    columns = np.stack([np.ones(seen.n_patients), weights, np.ones(seen.n_patients)], axis=1)
    found = VectorizedMetrics(seen, apply_temperature(seen.probabilities, TEMPERATURE), POINT)(columns)
    for column, photographs in ((0, seen), (1, repeated(seen, weights)), (2, seen)):
        wanted = plain(summarize_split(photographs, TEMPERATURE, POINT, resamples=1))
        assert set(found) <= set(wanted)
        for name, values in found.items():
            mine = np.array(wanted[name], dtype=np.float64)  # None becomes NaN
            np.testing.assert_allclose(values[..., column], mine, rtol=1e-6, atol=2e-6, err_msg=name)


def test_every_number_has_its_weighted_twin() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), 50)
    zeros = np.zeros(50, dtype=np.int64)
    seen = SplitPredictions(np.arange(50) % 5, p.argmax(axis=1), p, np.arange(50) // 2, zeros, zeros, 50)
    computed = plain(summarize_split(seen, TEMPERATURE, POINT, resamples=1))
    others = {"n", "patients", "confusion_matrix", "operating", "intervals", "resamples", "baselines"}
    assert set(VectorizedMetrics(seen, p, POINT)(np.ones((25, 1)))) == set(computed) - others


def test_without_an_operating_point_nobody_knows_who_is_referred() -> None:
    seen = SplitPredictions(*[np.array([0, 3])] * 2, np.eye(5)[[0, 3]], np.arange(2), np.zeros(2, np.int64), None, 0)
    point = OperatingPoint(threshold=None, chosen_on="val", met=False)
    found = VectorizedMetrics(seen, seen.probabilities, point)(np.ones((2, 1)))
    assert np.isnan(found["operating_sensitivity"]).all()
    assert np.isnan(found["operating_specificity"]).all()
    assert found["referable_auc"] == pytest.approx(1)
