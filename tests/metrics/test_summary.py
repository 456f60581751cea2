"""Everything that is claimed of a model comes from its predictions; test is measured and chooses nothing."""

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prediction_tables import predictions
from sklearn import metrics as sk

from retina.metrics.predictions import PREDICTION_COLUMNS
from retina.metrics.probabilities import PROBABILITY_COLUMNS
from retina.metrics.summary import summarize

FEW = 200
SINGLE = [
    "accuracy",
    "balanced_accuracy",
    "qwk",
    "macro_f1",
    "auc",
    "referable_auc",
    "sensitivity_at_90_specificity",
    "ece",
    "ece_calibrated",
    "nll",
    "nll_calibrated",
]
BY_GRADE = ["recall", "precision", "auc_by_grade"]


def computed(frame: pd.DataFrame) -> dict[str, Any]:
    found = summarize(frame, resamples=FEW)
    json.dumps(found, allow_nan=False)  # NaN is not JSON
    return found


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return predictions()


def test_a_split_has_every_number_with_its_interval_and_baselines_beside(frame: pd.DataFrame) -> None:
    found = computed(frame)
    assert list(found) == ["verdict", "temperature", "operating_point", "val", "test"]
    for split in ("val", "test"):
        one = found[split]
        assert (one["n"], one["patients"], one["resamples"]) == (120, 60, FEW)
        assert set(one["intervals"]) == {*SINGLE, *BY_GRADE, "operating_sensitivity", "operating_specificity"}
        assert sum(map(sum, one["confusion_matrix"])) == 120
        for name in SINGLE:
            low, high = one["intervals"][name]
            assert low <= one[name] <= high
        for name in BY_GRADE:
            between = one["intervals"][name]
            assert len(between) == 5
            assert sum(pair is not None for pair in between) >= 4
            for value, pair in zip(one[name], between, strict=True):
                assert pair is None or pair[0] <= value <= pair[1]
        assert set(one["baselines"]) == {"majority"}
        assert one["baselines"]["majority"]["grade"] == 0


def test_the_numbers_are_those_of_the_rows(frame: pd.DataFrame) -> None:
    found, rows = computed(frame), frame[frame["split"] == "test"]
    test, refers = found["test"], rows[PROBABILITY_COLUMNS[2:]].sum(axis=1) >= found["operating_point"]["threshold"]
    assert test["accuracy"] == pytest.approx((rows["grade"] == rows["predicted"]).mean())
    assert test["nll"] == pytest.approx(sk.log_loss(rows["grade"], rows[PROBABILITY_COLUMNS]))
    sensitivity = sk.recall_score(rows["grade"] >= 2, refers)
    specificity = sk.recall_score(rows["grade"] >= 2, refers, pos_label=False)
    assert test["operating"] == pytest.approx({"sensitivity": sensitivity, "specificity": specificity})
    always = test["baselines"]["majority"]
    assert (always["accuracy"], always["qwk"]) == (pytest.approx((rows["grade"] == 0).mean()), 0)


def test_the_table_on_the_disk_gives_the_very_same(frame: pd.DataFrame) -> None:
    leaking = predictions(fellows=7)
    for one in (frame, leaking):
        # Python reads the very number that was written, older pandas its neighbour
        again = pd.read_csv(io.StringIO(one.to_csv(index=False)), converters=dict.fromkeys(PROBABILITY_COLUMNS, float))
        assert computed(again) == computed(one)


def test_a_grade_of_the_model_s_own_counts_and_not_the_most_probable_one(frame: pd.DataFrame) -> None:
    cautious = frame.assign(predicted=(frame["predicted"] + 1).clip(upper=4))
    before, after = computed(frame)["test"], computed(cautious)["test"]
    assert after["accuracy"] == pytest.approx((cautious.query("split == 'test'").eval("grade == predicted")).mean())
    assert after["accuracy"] != before["accuracy"]
    for name in ("auc", "nll", "ece", "operating"):
        assert after[name] == before[name]


def test_test_chooses_nothing(frame: pd.DataFrame) -> None:
    other = pd.concat([frame.query("split == 'val'"), predictions(seed=5, noise=3).query("split == 'test'")])
    before, after = computed(frame), computed(other)
    for name in ("temperature", "operating_point", "val"):
        assert after[name] == before[name]
    assert after["test"]["qwk"] != before["test"]["qwk"]


def test_a_model_that_is_too_sure_is_cooled_down_and_errs_less() -> None:
    found = computed(predictions(200, sharpness=30.0))
    assert found["temperature"] > 2
    for split in ("val", "test"):
        assert found[split]["ece_calibrated"] < found[split]["ece"] / 2
        assert found[split]["nll_calibrated"] < found[split]["nll"]


def test_the_operating_point_says_whether_it_meets_its_target() -> None:
    good, bad = computed(predictions(noise=0.05)), computed(predictions(noise=3.0))
    assert good["operating_point"]["met"]
    assert good["val"]["operating"]["sensitivity"] >= 0.87
    assert good["val"]["operating"]["specificity"] >= 0.90
    assert not bad["operating_point"]["met"]
    assert bad["val"]["operating"]["specificity"] >= 0.90
    assert bad["val"]["operating"]["sensitivity"] == pytest.approx(bad["val"]["sensitivity_at_90_specificity"])


def test_fellow_eyes_that_leak_are_a_baseline_and_others_are_none(frame: pd.DataFrame) -> None:
    found = computed(predictions(fellows=7))
    assert "fellow_eye" not in found["val"]["baselines"]
    leak = found["test"]["baselines"]["fellow_eye"]
    assert (leak["with_fellow"], leak["n"]) == (7, 120)
    assert leak["accuracy"] == found["test"]["baselines"]["majority"]["accuracy"]  # all of them say 0
    assert "fellow_eye" not in computed(frame)["test"]["baselines"]


class TestVerdict:
    def test_better_by_both(self) -> None:
        found = computed(predictions(noise=0.2))
        test = found["test"]
        low, high = test["intervals"]["qwk"]
        begin = f"Better than its baseline on test: QWK {test['qwk']:.3f} [{low:.3f}, {high:.3f}] against 0.000 (always"
        assert found["verdict"].startswith(begin)
        assert all(low > 0 for low, _ in test["baselines"]["majority"]["gain"].values())

    def test_not_better(self, frame: pd.DataFrame) -> None:
        guessing = frame.assign(predicted=np.random.default_rng(0).integers(0, 5, len(frame)))
        assert computed(guessing)["verdict"].startswith("Not better than its baseline on test: QWK ")

    def test_always_the_commonest_grade_is_not_better(self, frame: pd.DataFrame) -> None:
        assert computed(frame.assign(predicted=0))["verdict"].startswith(
            "Not better than its baseline on test: QWK 0.000 against 0.000 ("
        )

    def test_better_by_one_only(self, frame: pd.DataFrame) -> None:
        cautious = frame.assign(predicted=np.minimum(frame["grade"] + 1, 4))  # mostly wrong, and never by much
        assert computed(cautious)["verdict"].startswith(
            "Better than its baseline on test by QWK but not by accuracy: QWK "
        )

    def test_a_baseline_that_knows_the_fellow_eye_must_be_beaten_too(self, frame: pd.DataFrame) -> None:
        leaking = frame.assign(fellow_eye=frame["grade"].where(frame["split"] == "test"))
        verdict = computed(leaking)["verdict"]
        assert verdict.startswith("Not better than its baselines on test: QWK ")
        assert verdict.endswith("and 1.000 (fellow eye's grade).")

    @pytest.mark.parametrize(("patients", "is_enough"), [(5, False), (6, True)])
    def test_of_a_few_patients_nothing_is_claimed(self, frame: pd.DataFrame, patients: int, is_enough: bool) -> None:
        """All right, in every resample: of two patients a quarter of models worth their baseline would be."""
        test = frame[frame["split"] == "test"]
        few = test[test["patient"].isin(test["patient"].unique()[:patients])].assign(grade=[2, 1] * patients)
        found = computed(pd.concat([frame[frame["split"] == "val"], few.assign(predicted=few["grade"])]))
        assert found["test"]["baselines"]["majority"]["gain"]["qwk"][0] > 0
        little = ", where 5 patients are too few (at least 6 are required)"
        begin = "Better than its baseline on test" if is_enough else f"Not better than its baseline on test{little}"
        assert found["verdict"].startswith(f"{begin}: QWK 1.000")


class TestLittle:
    def test_a_test_split_of_healthy_eyes(self, frame: pd.DataFrame) -> None:
        healthy = frame.assign(grade=frame["grade"].where(frame["split"] == "val", 0))
        test = computed(healthy)["test"]
        for name in ("auc", "referable_auc", "sensitivity_at_90_specificity"):
            assert test[name] is test["intervals"][name] is None
        assert test["operating"]["sensitivity"] is None
        assert test["operating"]["specificity"] is not None
        assert test["recall"][1:] == test["intervals"]["recall"][1:] == [None] * 4

    def test_a_validation_split_of_healthy_eyes(self, frame: pd.DataFrame) -> None:
        found = computed(frame.assign(grade=frame["grade"].where(frame["split"] == "test", 0)))
        assert found["operating_point"]["threshold"] is None
        assert not found["operating_point"]["met"]
        assert found["test"]["operating"] == {"sensitivity": None, "specificity": None}
        assert found["test"]["intervals"]["operating_sensitivity"] is None

    def test_all_right_is_no_certainty(self, frame: pd.DataFrame) -> None:
        found = computed(frame.assign(predicted=frame["grade"]))
        assert found["test"]["qwk"] == 1
        assert found["test"]["intervals"]["qwk"] is None
        assert found["verdict"].startswith("Better than its baseline on test: QWK 1.000 against 0.000 (")

    @pytest.mark.parametrize("column", PREDICTION_COLUMNS)
    def test_a_missing_column_is_named(self, frame: pd.DataFrame, column: str) -> None:
        with pytest.raises(ValueError, match=f"lack the columns {column}$"):
            summarize(frame.drop(columns=column))

    def test_a_missing_split_or_patient_is_named(self, frame: pd.DataFrame) -> None:
        with pytest.raises(ValueError, match="no prediction is of the split 'test'"):
            summarize(frame[frame["split"] == "val"])
        with pytest.raises(ValueError, match="val: 60 predictions are of no patient"):
            summarize(frame.assign(patient=frame["patient"].where(frame["eye"] == "left")[:120]))
