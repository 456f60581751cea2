"""Splits by patient: what must always hold, and the numbers of the real lists."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from split_tables import disjoint, manifest, split, two_eyed

from retina.config import DataConfig
from retina.data.layouts import read
from retina.data.manifest import Manifest
from retina.data.split import Split, assign_splits
from retina.errors import DataError

patients = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=3, max_size=40).map(
    lambda grades: [(f"p{i}", grade, "") for i, own in enumerate(grades) for grade in own]
)
share = st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.25, 0.4, 0.45])


def far_off() -> list[tuple[str, int, str]]:
    """Patients of whom validation gets 10 photographs of the 7.75 asked for."""
    grades = [[4], [0, 0, 0, 1], *[[0, 1]] * 5, [0, 4], *[[0] * 3] * 2, *[[0, 0, 4]] * 3, *[[0, 0, 0, 1]] * 2]
    return [(f"p{i}", grade, "") for i, own in enumerate(grades) for grade in own]


class TestAlways:
    @given(rows=patients, validation=share, test=share, seed=st.integers(0, 5))
    @settings(max_examples=60, deadline=None)
    def test_parts_are_disjoint_by_patient_not_empty_and_cover_every_row(
        self, rows: list[tuple[str, int, str]], validation: float, test: float, seed: int
    ) -> None:
        made = split(rows, validation=validation, test=test, seed=seed)
        assert disjoint(made.frame)
        assert set(made.frame["split"]) == {"train", "val", "test"}
        given_rows = manifest(rows).frame
        pd.testing.assert_frame_equal(made.frame.drop(columns="split"), given_rows.drop(columns="split"))
        assert made.frame.dtypes.to_dict() == given_rows.dtypes.to_dict()
        assert (made.shared_patients, made.leaking_photographs, made.warnings) == (0, 0, [])

    @given(rows=patients, validation=share, test=share, seed=st.integers(0, 5))
    @example(rows=far_off(), validation=0.25, test=0.25, seed=0)
    @settings(max_examples=60, deadline=None)
    def test_shares_are_near_those_asked_for(
        self, rows: list[tuple[str, int, str]], validation: float, test: float, seed: int
    ) -> None:
        frame = split(rows, validation=validation, test=test, seed=seed).frame
        held = {part: (frame["split"] == part).sum() for part in ("train", "val", "test")}
        # The walk starts and ends up to half of a patient off, so that it misses by less than the largest patient.
        # For each grade that few patients have, one patient is given back.
        largest = frame["patient"].value_counts().max()
        few = (frame.groupby("grade")["patient"].nunique() <= 4).sum()
        wanted = {"test": test * len(frame), "val": validation * (len(frame) - held["test"])}
        for part, photographs in wanted.items():
            assert abs(held[part] - photographs) <= largest * (1 + few)

    @given(rows=patients, seed=st.integers(0, 5), shuffle=st.randoms(use_true_random=False))
    @settings(max_examples=40, deadline=None)
    def test_same_seed_same_split_whatever_the_order_of_the_rows(
        self, rows: list[tuple[str, int, str]], seed: int, shuffle: Any
    ) -> None:
        order = list(range(len(rows)))
        shuffle.shuffle(order)
        table = manifest(rows)
        one = assign_splits(table, DataConfig(seed=seed)).frame
        other = assign_splits(Manifest(table.frame.iloc[order], "eyepacs", Path("/x")), DataConfig(seed=seed)).frame
        assert dict(zip(one["image"], one["split"], strict=True)) == dict(
            zip(other["image"], other["split"], strict=True)
        )

    @given(rows=patients, seed=st.integers(0, 20))
    @settings(max_examples=60, deadline=None)
    def test_train_has_every_grade_that_three_patients_share(self, rows: list[tuple[str, int, str]], seed: int) -> None:
        frame = split(rows, validation=0.45, test=0.45, seed=seed).frame
        holders = frame.groupby("grade")["patient"].nunique()
        common = set(holders.index[holders >= 3])
        if frame["patient"].nunique() >= 12:  # so that non-empty parts never need the last holder of a grade
            assert common <= set(frame.loc[frame["split"] == "train", "grade"])

    @given(official=st.lists(st.sampled_from(["train", "val", "test", ""]), min_size=30, max_size=30))
    @settings(max_examples=40, deadline=None)
    def test_official_parts_are_kept_and_what_is_cut_comes_from_train(self, official: list[str]) -> None:
        rows = [(f"p{i}", i % 5, part) for i, part in enumerate(official)]
        if sum(part in {"train", ""} for part in official) < 3:
            return
        made = split(rows).frame["split"]
        for before, after in zip(official, made, strict=True):
            assert after == before if before in {"val", "test"} else after in {"train", "val", "test"}
        for part in ("val", "test"):
            if part in official:
                assert (made == part).sum() == official.count(part)


class TestLargeSets:
    @pytest.mark.parametrize(("validation", "test"), [(0.15, 0.15), (0.1, 0.2), (0.07, 0.33)])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_every_grade_gives_its_share(self, validation: float, test: float, seed: int) -> None:
        frame = split(two_eyed(2000, seed), validation=validation, test=test, seed=seed).frame
        counts = pd.crosstab(frame["grade"], frame["split"])
        total = counts.sum(axis=1)
        assert (counts["test"] - test * total).abs().max() <= 6
        assert (counts["val"] - validation * (total - counts["test"])).abs().max() <= 6
        assert abs(counts["test"].sum() - test * total.sum()) <= 1
        assert abs(counts["val"].sum() - validation * (total.sum() - counts["test"].sum())) <= 1

    def test_seeds_differ_and_choose_at_random(self) -> None:
        rows = two_eyed(300)
        chosen = [frozenset(_patients(split(rows, seed=seed), "test")) for seed in range(40)]
        assert len(set(chosen)) == 40
        often = pd.Series([one for part in chosen for one in part]).value_counts()
        assert often.max() <= 20  # a fair draw of 40 gives 6 a patient
        assert len(often) >= 280

    def test_the_rarest_grade_s_only_patient_is_kept_for_training(self) -> None:
        rows = [*((f"p{i}", 0, "") for i in range(30)), ("rare", 4, "")]
        assert all("rare" in _patients(split(rows, seed=seed), "train") for seed in range(30))

    def test_two_patients_of_a_rare_grade_come_into_test_as_often_as_others(self) -> None:
        rows = [*((f"p{i}", 0, "") for i in range(100)), ("rare1", 4, ""), ("rare2", 4, "")]
        tested = sum(len(_patients(split(rows, seed=seed), "test") & {"rare1", "rare2"}) for seed in range(60))
        assert 6 <= tested <= 30  # 18 on average

    def test_a_patient_with_half_of_the_photographs_stays_in_train(self) -> None:
        rows = [("big", 0, "")] * 50 + [(f"p{i}", 0, "") for i in range(50)]
        for seed in range(10):
            frame = split(rows, validation=0.2, test=0.2, seed=seed).frame
            assert disjoint(frame)
            assert frame["split"].value_counts().to_dict() == {"train": 64, "test": 20, "val": 16}


class TestSmallSets:
    @pytest.mark.parametrize("seed", range(5))
    def test_twenty_photographs_with_grades_of_one_and_two(self, seed: int) -> None:
        rows = [(f"p{i}", grade, "") for i, grade in enumerate([0] * 12 + [1] * 2 + [2] * 3 + [3] * 2 + [4])]
        frame = split(rows, seed=seed).frame
        assert set(frame.loc[frame["split"] == "train", "grade"]) == {0, 1, 2, 3, 4}
        assert (frame["split"] == "test").sum() in {2, 3, 4}
        assert (frame["split"] == "val").sum() in {1, 2, 3, 4}

    @pytest.mark.parametrize(("validation", "test"), [(0.01, 0.01), (0.01, 0.98), (0.98, 0.01), (0.49, 0.49)])
    def test_three_patients_are_enough(self, validation: float, test: float) -> None:
        frame = split([("a", 0, ""), ("b", 1, ""), ("c", 2, "")], validation=validation, test=test).frame
        assert sorted(frame["split"]) == ["test", "train", "val"]

    @pytest.mark.parametrize("seed", range(5))
    def test_a_share_below_one_patient_takes_one_whose_grade_remains(self, seed: int) -> None:
        rows = [("a", 0, ""), ("b", 0, ""), ("c", 0, ""), ("rare", 4, "")]
        frame = split(rows, validation=0.01, test=0.01, seed=seed).frame
        assert sorted(frame["split"]) == ["test", "train", "train", "val"]
        assert "rare" in _patients(frame, "train")

    def test_two_patients_are_too_few_for_three_parts(self) -> None:
        with pytest.raises(DataError) as caught:
            split([("a", 0, ""), ("a", 1, ""), ("b", 1, "")])
        assert str(caught.value) == (
            "/x: 2 patients are too few to cut test and val from train by patient; it takes at least 3"
        )

    def test_one_patient_is_too_few_for_two_parts(self) -> None:
        with pytest.raises(DataError, match=r"1 patient is too few to cut val from train by patient; .* at least 2"):
            split([("a", 0, "train"), ("a", 1, "train"), ("b", 1, "test")])

    def test_nothing_to_train_on(self) -> None:
        with pytest.raises(DataError, match=r"its own split leaves no photograph to train on; data.split=by_patient"):
            split([("a", 0, "test"), ("b", 1, "val")])


class TestOfficialSplits:
    ROWS = (
        [(f"p{i}", i % 5, "train") for i in range(20)]
        + [(f"p{i}", i % 5, "test") for i in range(4)]
        + [("alone", 0, "test")]
    )

    def test_shared_patients_are_counted_and_the_way_out_is_named(self) -> None:
        made = split(self.ROWS)
        assert (made.shared_patients, made.leaking_photographs) == (4, 4)
        assert made.warnings == [
            (
                "4 of 5 test photographs (80.0%) are of patients who are in train or val too "
                "(patients on both sides: 4), so that test scores are too optimistic; "
                "data.split=by_patient makes a split without them"
            )
        ]

    def test_validation_cut_from_an_official_train_split_is_disjoint_from_it(self) -> None:
        rows = [*((patient, grade, "train") for patient, grade, _ in two_eyed(60)), ("t", 0, "test")]
        frame = split(rows).frame
        assert not _patients(frame, "val") & _patients(frame, "train")
        assert _patients(frame, "test") == {"t"}

    def test_by_patient_makes_a_new_split_without_leaks(self) -> None:
        made = split(self.ROWS, split="by_patient", test=0.3)
        assert disjoint(made.frame)
        assert (made.shared_patients, made.leaking_photographs, made.warnings) == (0, 0, [])
        assert 6 <= (made.frame["split"] == "test").sum() <= 9

    def test_an_official_validation_split_that_leaks_is_said_too(self) -> None:
        made = split([("a", 0, "train"), ("b", 0, "train"), ("a", 1, "val"), ("c", 0, "test")])
        assert made.shared_patients == 0
        assert made.warnings == [
            (
                "1 of 1 val photographs (100.0%) are of patients who are in train too (patients on both sides: 1), "
                "so that val scores are too optimistic; data.split=by_patient makes a split without them"
            )
        ]

    @pytest.mark.parametrize("seed", range(5))
    def test_test_is_cut_from_patients_whom_validation_does_not_know(self, seed: int) -> None:
        rows = [(f"p{i}", i % 5, "train") for i in range(40)] + [(f"p{i}", i % 5, "val") for i in range(20)]
        frame = split(rows, test=0.3, seed=seed).frame
        assert (frame["split"] == "test").sum() == 12
        assert not _patients(frame, "test") & (_patients(frame, "val") | _patients(frame, "train"))

    def test_where_validation_knows_nearly_all_a_test_split_that_leaks_is_cut_and_said(self) -> None:
        rows = [(f"p{i}", 0, part) for i in range(20) for part in ("train", "val")] + [("q", 0, "train")]
        made = split(rows, test=0.3)
        assert (made.frame["split"] == "test").sum() in {6, 7}
        assert made.leaking_photographs >= 5
        assert "test photographs" in made.warnings[0]

    def test_the_manifest_is_left_as_it_was(self) -> None:
        table = manifest(self.ROWS)
        before = table.frame.copy()
        assign_splits(table, DataConfig(split="by_patient"))
        pd.testing.assert_frame_equal(table.frame, before)


class TestRealLists:
    def test_the_course_s_own_split_leaks_four_in_five(self, shared: Path) -> None:
        table = read(DataConfig(path=str(shared / "data" / "course")), photographs=False)
        made = assign_splits(table, DataConfig())
        assert made.leaking_photographs == 5_618
        assert made.warnings[0].startswith("5,618 of 7,026 test photographs (80.0%)")
        frame = made.frame
        assert (frame["split"] == "test").sum() == 7_026
        assert abs((frame["split"] == "val").sum() - 0.15 * 28_097) <= 1
        assert not _patients(frame, "val") & _patients(frame, "train")
        clean = assign_splits(table, DataConfig(split="by_patient"))
        assert disjoint(clean.frame)
        assert clean.leaking_photographs == 0
        assert abs((clean.frame["split"] == "test").mean() - 0.15) < 0.001

    def test_retinamnist_and_idrid_keep_theirs(self, shared: Path) -> None:
        table = read(DataConfig(path=str(shared / "data" / "retinamnist.npz")))
        assert assign_splits(table, DataConfig()).frame["split"].tolist() == table.frame["split"].tolist()
        table = read(DataConfig(path=str(shared / "data" / "idrid")))
        made = assign_splits(table, DataConfig()).frame["split"].value_counts().to_dict()
        assert made == {"train": 351, "val": 62, "test": 103}


def _patients(made: Split | pd.DataFrame, part: str) -> set[str]:
    frame = made.frame if isinstance(made, Split) else made
    return set(frame.loc[frame["split"] == part, "patient"])
