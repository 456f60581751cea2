"""What an audit tells of labels alone: counts, patients on both sides, baselines, what cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import audit_dataset
import pytest
from dataset_layouts import photograph, text
from hypothesis import given
from hypothesis import strategies as st
from report_pages import read

from retina import cli
from retina.audit import findings, labels, page, runner
from retina.audit.labels import SPLITS_AND_UNSET
from retina.config import GRADES, DataConfig
from retina.data import layouts
from retina.data.split import assign_splits

ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"),
        st.sampled_from(["left", "right", ""]),
        st.sampled_from(SPLITS_AND_UNSET),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=30,
)


def result(path: Path, capsys: pytest.CaptureFixture[str], html: Path) -> str:
    assert cli.main(["data", "audit", str(path), "--html", str(html)]) == 0
    return capsys.readouterr().out


def test_the_course_leaks_and_says_what_that_is_worth(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = result(shared / "data" / "course", capsys, tmp_path / "page.html")
    assert "5,618 of 7,026 test photographs (80.0%) are of patients who are in train too" in said
    fellow = next(line for line in said.splitlines() if "fellow eye" in line)
    assert fellow.split()[-3:] == ["test", "84.73%", "0.723"]
    assert "none of the 35,123 photographs is there" in said
    page = (tmp_path / "page.html").read_text()
    assert "5,618" in page
    assert "84.73%" in page


def test_folders_that_tell_equal_names_apart_name_no_patients(tmp_path: Path) -> None:
    for split in ("train", "test"):
        text(tmp_path / split / "labels.csv", "image,level\na,0\nb,1\n")
        for name in "ab":
            photograph(tmp_path / split / f"{name}.png")
    frame = layouts.read(DataConfig(path=str(tmp_path))).frame
    assert frame["patient"].tolist() == ["train/a", "train/b", "test/a", "test/b"]
    assert not labels.summarize(frame).has_patients
    (tmp_path / "train" / "a.png").rename(tmp_path / "train" / "7_left.png")
    text(tmp_path / "train" / "labels.csv", "image,level\n7_left,0\nb,1\n")
    assert labels.summarize(layouts.read(DataConfig(path=str(tmp_path))).frame).has_patients


def test_official_test_lists_without_photographs_are_audited_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text(tmp_path / "trainLabels.csv", "image,level\n10_left,0\n10_right,1\n13_left,4\n")
    text(tmp_path / "retinopathy_solution.csv", "image,level,Usage\n13_right,4,Private\n14_left,0,Public\n")
    said = result(tmp_path, capsys, tmp_path / "page.html")
    assert "5 photographs of 3 patients: 3 left, 2 right; 2 with both eyes" in said
    test = next(line for line in said.splitlines() if line.split()[:1] == ["test"])
    assert test.split()[1::2] == ["2", "(50.0%)", "(0.0%)", "(0.0%)", "(0.0%)", "(50.0%)"]
    assert "! 1 of 2 test photographs (50.0%) are of patients who are in train too" in said


@given(ROWS)
def test_counts_add_up(rows: list[tuple[str, str, str, int]]) -> None:
    found = labels.summarize(audit_dataset.frame(rows))
    assert found.photographs == len(rows) == sum(found.eyes.values())
    assert list(found.counts.columns) == list(range(GRADES))
    for split in SPLITS_AND_UNSET:
        mine = [grade for _, _, of, grade in rows if of == split]
        assert (split in found.counts.index) == bool(mine)
        if mine:
            assert found.counts.loc[split].tolist() == [mine.count(grade) for grade in range(GRADES)]
    assert found.patients == len({who for who, *_ in rows})
    both = {who for who, eye, *_ in rows if eye == "left"} & {who for who, eye, *_ in rows if eye == "right"}
    assert found.both_eyes == len(both)


@given(ROWS)
def test_overlaps_are_the_patients_on_both_sides(rows: list[tuple[str, str, str, int]]) -> None:
    found = {overlap.split: overlap for overlap in labels.summarize(audit_dataset.frame(rows)).overlaps}
    has_train = any(split in {"train", ""} for *_, split, _ in rows)  # what has no split trains
    for split, others in (("val", {"train", ""}), ("test", {"train", "", "val"})):
        known = {who for who, _, of, _ in rows if of in others}
        mine = [who for who, _, of, _ in rows if of == split and who in known]
        if not (mine and has_train):
            assert split not in found
            continue
        assert (found[split].patients, found[split].photographs) == (len(set(mine)), len(mine))
        assert found[split].split_size == sum(of == split for *_, of, _ in rows)


def test_what_has_no_split_counts_as_train_beside_a_test_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"{n}_{eye}", f"{n % 5},{of}") for n in range(100) for eye, of in (("left", ""), ("right", "test"))]
    path = audit_dataset.list_of(tmp_path, rows, "image,level,split")
    said = result(path, capsys, tmp_path / "page.html")
    warned = "100 of 100 test photographs (100.0%) are of patients who are in train too"
    assert warned in said
    assert warned in (tmp_path / "page.html").read_text()
    config = DataConfig(path=str(path))
    swept = assign_splits(layouts.read(config, photographs=False), config).warnings
    assert any("100 of 100 test photographs (100.0%) are of patients" in one for one in swept)
    assert next(line for line in said.splitlines() if "fellow eye" in line).split()[-3:] == ["test", "100.00%", "1.000"]


def test_few_of_a_grade_are_counted_with_what_has_no_split(tmp_path: Path) -> None:
    rows = [(f"p{n}", f"{n % 5},{('', 'train', 'test')[n % 3]}") for n in range(120)]
    found = runner.audit(DataConfig(path=str(audit_dataset.list_of(tmp_path, rows, "image,level,split"))))
    few = [one.text for one in findings.find(found) if "fewer" in one.text]
    result = "8 of 0 none, 8 of 1 mild, 8 of 2 moderate, 8 of 3 severe, 8 of 4 proliferative"
    assert few == [f"fewer than 10 photographs of a grade in test: {result}"]


@pytest.mark.parametrize(
    ("header", "rest", "words", "known"),
    [
        ("image,level,eye,split", "{grade},{eye},{split}", "100 photographs: 50 left, 50 right.", False),
        ("image,level,split", "{grade},{split}", "100 photographs.", False),
        ("image,level,patient,split", "{grade},who{n},{split}", "100 photographs of 100 patients.", True),
    ],
    ids=["eyes alone", "nothing", "a patient each"],
)
def test_patients_are_known_only_where_they_are_named(
    tmp_path: Path, header: str, rest: str, words: str, known: bool
) -> None:
    rows = [
        (f"p{n}", rest.format(n=n, grade=n % 5, eye=("left", "right")[n % 2], split=("train", "test")[n % 2]))
        for n in range(100)
    ]
    found = runner.audit(DataConfig(path=str(audit_dataset.list_of(tmp_path, rows, header))))
    told_so = "the labels do not say which photographs are of one patient"
    unknown = any(told_so in one.text for one in findings.find(found))
    assert unknown != known
    said = read(page.render(found)).section("patients").words
    assert words in said
    assert ("No patient is on both sides of a split." in said) == known


def test_a_clean_split_has_no_overlap_and_no_such_finding() -> None:
    rows = [(f"{split}{n}", "left", split, n % 5) for split in ("train", "val", "test") for n in range(60)]
    frame = audit_dataset.frame(rows)
    found = labels.summarize(frame)
    assert found.overlaps == []
    assert found.fellow_eye == {}
    assert set(found.majority) == {"val", "test"}


def test_bad_labels_are_findings_and_no_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text(tmp_path / "trainLabels.csv", "image,level\n10_left,0\n10_right,7\n13_left,4\n13_left,2\n14_left,1\n")
    said = result(tmp_path, capsys, tmp_path / "page.html")
    assert "! 3 labels or photographs cannot be used; the first: trainLabels.csv:3: 10_right: its grade is '7'" in said
    page = (tmp_path / "page.html").read_text()
    assert page.count("two grades for one photograph") == 2


def test_a_photograph_that_is_missing_among_others_is_named(shared: Path, tmp_path: Path) -> None:
    folder = audit_dataset.some_of_idrid(shared, tmp_path / "set", ["train_IDRiD_002", "test_IDRiD_003"])
    (folder / "train_IDRiD_002.jpg").unlink()
    found = audit_dataset.audited(folder)
    assert [bad.image for bad in found.manifest.skipped] == ["train_IDRiD_002.jpg"]
    assert found.photographs is not None
    assert len(found.photographs) == 1


def test_a_grade_without_photographs_is_serious_and_a_rare_one_a_note(tmp_path: Path) -> None:
    rows = [(f"p{n}", n % 3) for n in range(60)] + [("q", 3)]
    found = findings.find(runner.audit(DataConfig(path=str(audit_dataset.list_of(tmp_path, rows)))))
    few = next(one for one in found if "fewer than 10" in one.text)
    assert few.text.endswith("1 of 3 severe, none of 4 proliferative")
    assert few.is_serious
    audit_dataset.list_of(tmp_path, [*rows, ("r", 4)])
    found = findings.find(runner.audit(DataConfig(path=str(tmp_path))))
    assert not next(one for one in found if "fewer than 10" in one.text).is_serious


@pytest.mark.parametrize("named", ["nowhere", "empty"])
def test_what_is_no_data_set_is_refused(named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    html = tmp_path / "page.html"
    assert cli.main(["data", "audit", str(tmp_path / named), "--html", str(html)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / named) in error
    assert len(error.strip().splitlines()) <= 3
    assert not html.exists()


def test_a_layout_that_there_is_not_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "audit", str(tmp_path), "--layout", "kaggle"]) == 2
    assert "layout" in capsys.readouterr().err


def test_one_npz_serves_too(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(shared / "data" / "retinamnist.npz", tmp_path)
    said = result(tmp_path / "retinamnist.npz", capsys, tmp_path / "page.html")
    assert "28 x 28 (1,600)" in said
