"""What needs no photograph: the commonest grade, and the grade of the patient's other photographs."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina.config import DataConfig
from retina.data.layouts import read
from retina.data.split import assign_splits
from retina.metrics.baselines import Baseline, fellow_eye_baseline, fellow_grades, majority_baseline, majority_grade

Row = tuple[str, str, int]


def table(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["split", "patient", "grade"])


rows = st.lists(
    st.tuples(st.sampled_from(["train", "val", "test"]), st.sampled_from("abcdefg"), st.integers(0, 4)), min_size=1
)


@pytest.mark.parametrize("split", ["val", "test"])
@settings(deadline=None)
@given(rows=rows)
def test_the_fellow_s_grade_is_the_worst_of_those_on_the_other_side_of_the_same_patient(
    split: str, rows: list[Row]
) -> None:
    others = {"val": {"train"}, "test": {"train", "val"}}[split]
    wanted = []
    for where, patient, _ in rows:
        if where == split:
            known = [grade for other, same, grade in rows if other in others and same == patient]
            wanted.append(max(known) if known else None)
    found = fellow_grades(table(rows), split)
    assert [None if pd.isna(grade) else grade for grade in found] == wanted
    if wanted:
        true = [grade for where, _, grade in rows if where == split]
        computed = fellow_eye_baseline(table(rows), split)
        assert computed.n == len(wanted)
        assert computed.with_fellow == sum(grade is not None for grade in wanted)
        assert computed.accuracy == pytest.approx(
            sum((guess or 0) == grade for guess, grade in zip(wanted, true, strict=True)) / len(true)
        )


def test_majority_says_the_commonest_grade_of_train() -> None:
    frame = table([("train", "a", 2), ("train", "b", 2), ("train", "c", 0), *[("test", "d", 0)] * 3, ("test", "e", 2)])
    assert majority_baseline(frame, "test") == Baseline(accuracy=0.25, qwk=0.0, n=4)


def test_of_equally_common_grades_majority_says_the_lowest() -> None:
    assert majority_grade(table([("train", "a", 3), ("train", "b", 1), ("test", "c", 4)])) == 1


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="no photograph is in the split 'test'"):
        fellow_eye_baseline(table([("train", "a", 0)]), "test")
    with pytest.raises(ValueError, match="no photograph is in the split 'train'"):
        majority_baseline(table([("test", "a", 0)]), "test")


def test_the_course_s_lists_are_graded_without_a_photograph(shared: Path) -> None:
    manifest = read(DataConfig(path=str(shared / "data" / "course")), photographs=False)
    found = fellow_eye_baseline(manifest.frame, "test")
    assert (found.n, found.with_fellow) == (7_026, 5_618)
    assert round(found.accuracy, 4) == 0.8473
    assert round(found.qwk, 3) == 0.723
    # whatever is cut out of train for validation, whose grades are known before test is looked at
    assert fellow_eye_baseline(assign_splits(manifest, DataConfig()).frame, "test") == found
    always = majority_baseline(manifest.frame, "test")
    assert always.qwk == 0
    assert always.accuracy == pytest.approx((manifest.frame.query("split == 'test'")["grade"] == 0).mean())
