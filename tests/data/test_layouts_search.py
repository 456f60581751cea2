"""How photographs, columns, grades and splits are found."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from dataset_layouts import column, eyepacs_folder, grades, listed, load, photographs, places, refused, text
from hypothesis import given
from hypothesis import strategies as st

from retina.config import DataConfig, parse
from retina.data import formats
from retina.data.layouts.grades import parse_grade
from retina.errors import SpecError
from retina.predict import find_images


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "a",
            "a.png",
            "A.PNG",
            "a.tif",
            "images/a.png",
            "images\\a",
            "IMAGES/A.jpeg",
            "input/images/a.png",
            "set/images/a",
        ],
    )
    def test_one_photograph_is_found_however_its_name_is_written(self, tmp_path: Path, name: str) -> None:
        root = tmp_path / "set"
        listed(root, f"{name},1")
        photographs(root / "images", "a.png", "b.png")
        assert places(load(root)) == ["images/a.png"]

    def test_an_absolute_name_inside_the_folder_is_one_of_its_photographs(self, tmp_path: Path) -> None:
        listed(tmp_path, f"{tmp_path}/images/a.png,1")
        photographs(tmp_path / "images", "a.png")
        assert places(load(tmp_path)) == ["images/a.png"]

    def test_a_folder_that_is_there_and_lacks_the_photograph_is_believed(self, tmp_path: Path) -> None:
        listed(tmp_path, "train/a.png,1", "train/b.png,2")
        photographs(tmp_path, "train/b.png", "test/a.png")
        assert "labels.csv:2: train/a.png: the photograph is missing; photographs are in" in refused(tmp_path)

    def test_a_folder_of_a_split_that_is_not_there_is_not_another_split(self, tmp_path: Path) -> None:
        listed(tmp_path, "train/1.png,1", "train/2.png,2", "test/1.png,3")
        photographs(tmp_path, "test/1.png", "test/2.png")
        assert "labels.csv:2: train/1.png: the photograph is missing" in refused(tmp_path)
        assert grades(load(tmp_path, on_bad="skip")) == {"test/1.png": 3}

    @pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
    def test_letters_of_one_or_two_characters_are_the_same(self, tmp_path: Path, forms: tuple[Any, Any]) -> None:
        written, stored = (unicodedata.normalize(form, "Müller/é.png") for form in forms)
        listed(tmp_path, f"{written},1", "b.png,2")
        photographs(tmp_path, stored, "b.png")
        assert places(load(tmp_path)) == [stored, "b.png"]

    def test_the_path_decides_before_the_name(self, tmp_path: Path) -> None:
        listed(tmp_path, "a.png,1", "x/b.png,2")
        photographs(tmp_path, "a.png", "x/a.png", "x/b.png", "y/x/b.png")
        assert places(load(tmp_path)) == ["a.png", "x/b.png"]

    @pytest.mark.parametrize("twin", ["test/a.png", "train/deep/a.png", "train/a.jpg"])
    def test_a_name_of_two_photographs_is_refused_with_both(self, tmp_path: Path, twin: str) -> None:
        listed(tmp_path, "a,1", "b,2")
        photographs(tmp_path, "train/a.png", "train/b.png", twin)
        if twin == "train/deep/a.png":  # train/ has all of the list and deep/ one of it: no doubt
            assert places(load(tmp_path)) == ["train/a.png", "train/b.png"]
            return
        message = refused(tmp_path)
        assert "labels.csv:2: a: 2 photographs have this name: " in message
        assert {"train/a.png", twin} <= set(message.replace(";", " ").split())

    def test_a_split_column_tells_them_apart(self, tmp_path: Path) -> None:
        listed(tmp_path, "a.png,1,train", "a.png,3,test", "b.png,2,train", header="image,level,split")
        photographs(tmp_path, "train/a.png", "test/a.png", "train/b.png")
        manifest = load(tmp_path)
        assert places(manifest) == ["train/a.png", "test/a.png", "train/b.png"]
        assert column(manifest, "image") == ["a.png", "a.png", "b.png"]
        assert manifest.frame["patient"].is_unique

    def test_lists_of_train_and_test_tell_them_apart(self, tmp_path: Path) -> None:
        for split, grade in (("train", 1), ("test", 4)):
            listed(tmp_path, f"1.png,{grade}", name=f"{split}.csv")
            photographs(tmp_path / f"{split}_images", "1.png")
        manifest = load(tmp_path)
        assert list(zip(places(manifest), column(manifest, "grade"), strict=True)) == [
            ("train_images/1.png", 1),
            ("test_images/1.png", 4),
        ]

    def test_absent_photographs_name_the_folder_that_has_some(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,1")
        photographs(tmp_path / "elsewhere", "x.png", "y.png")
        assert "Listed, for example: a; photographs are in elsewhere/ (2), for example x.png" in refused(tmp_path)

    def test_two_eyes_in_two_folders_are_one_patient_s(self, tmp_path: Path) -> None:
        photographs(tmp_path, "2/left/10.jpg", "3/right/10.jpg", "0/left/11.jpg", "1/OD/12.jpg")
        manifest = load(tmp_path)
        assert dict(zip(column(manifest, "image"), column(manifest, "patient"), strict=True)) == {
            "0/left/11.jpg": "0/left/11",
            "1/OD/12.jpg": "1/OD/12",
            "2/left/10.jpg": "10",
            "3/right/10.jpg": "10",
        }
        assert column(manifest, "eye") == ["left", "right", "left", "right"]

    def test_running_numbers_in_such_folders_tell_no_patient(self, tmp_path: Path) -> None:
        photographs(tmp_path, "2/left/1.jpg", "2/right/1.jpg", "3/left/1.jpg")
        assert load(tmp_path).frame["patient"].is_unique


class TestFormats:
    def test_training_and_prediction_take_the_same_suffixes(self, tmp_path: Path) -> None:
        assert {
            ".jpg",
            ".jpe",
            ".jfif",
            ".png",
            ".tif",
            ".webp",
            ".jp2",
            ".ppm",
            ".pgm",
            ".gif",
            ".bmp",
        } <= formats.image_suffixes()
        names = [
            f"x{n}{suffix.upper() if n % 2 else suffix}" for n, suffix in enumerate(sorted(formats.image_suffixes()))
        ]
        for grade in "01":
            for name in names:
                text(tmp_path / grade / name, "")
        text(tmp_path / "0" / "notes.dcm", "")
        manifest = load(tmp_path)
        assert sorted(manifest.frame["path"]) == sorted(map(str, find_images([str(tmp_path)])))
        assert manifest.unused.in_words() == ["1 other file not used: 0/notes.dcm"]


class TestGrades:
    @pytest.mark.parametrize(
        ("grade", "texts"),
        [
            (
                0,
                [
                    "0",
                    "00",
                    "0.0",
                    "0,0",
                    "No DR",
                    "no_dr",
                    "NoDR",
                    "normal",
                    "Healthy",
                    "no apparent retinopathy",
                    "DR0",
                ],
            ),
            (1, ["1.", "01", "mild", "Mild NPDR", "mild nonproliferative retinopathy", "1 - Mild", "grade 1"]),
            (2, ["2.00", "Moderate", "moderate DR", "moderate non proliferative diabetic retinopathy", "class_2"]),
            (3, ["3", "Severe", "severe_npdr", "Level 3", "DR grade 3", "3. Severe"]),
            (
                4,
                [
                    "4",
                    "PDR",
                    "Proliferate_DR",
                    "proliferative",
                    "Proliferative Diabetic Retinopathy",
                    "4 (PDR)",
                    "DR-4",
                    "grade-4",
                    "4 - PDR",
                ],
            ),
        ],
    )
    def test_words_and_numbers(self, grade: int, texts: list[str]) -> None:
        assert {one: parse_grade(one) for one in texts} == dict.fromkeys(texts, grade)

    @pytest.mark.parametrize(
        "text_",
        ["", "0-1", "12", "34", "2.5", "-1", "+1", "nan", "5", "1e0", "٣", "2?", ">=2", "0 1", "1 No DR", "Mild 2",
         "mild PDR", "NPDR", "DR", "no", "yes", "true", "R1", "stage 2", "very severe", "grade -1", "2 or worse", "I",
         "0x1", "grade:-1", "class_-1", "grade_-1", "dr(-1)", "level.-2", "dr/-2", "grade--1", "grade:+1"],
    )  # fmt: skip
    def test_what_is_none_or_could_be_another(self, text_: str) -> None:
        assert parse_grade(text_) is None

    @given(st.text(max_size=12))
    def test_a_text_with_two_numbers_or_a_number_above_4_is_never_a_grade(self, other: str) -> None:
        for written in (f"1 {other} 2", f"5{other}", f"{other}7"):
            assert parse_grade(written) is None

    @given(st.integers(0, 4), st.integers(0, 3), st.sampled_from(["", ".", ".0", ",0", ".00"]))
    def test_numbers_as_programs_write_them(self, grade: int, zeros: int, end: str) -> None:
        assert parse_grade("0" * zeros + str(grade) + end) == grade

    def test_a_mapping_comes_first(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,R0", "b,r2", "c,5.0", "d,1", "e,U")
        photographs(tmp_path, *(f"{name}.png" for name in "abcde"))
        mapping = {"R0": 0, "R2": 3, 5: 4, "1": 2, "u": "ungradable", "Z": 1}
        assert "its grade is 'U', which data.grade_mapping maps to ungradable" in refused(
            tmp_path, grade_mapping=mapping
        )
        manifest = load(tmp_path, grade_mapping=mapping, on_bad="skip")
        assert grades(manifest) == {"a": 0, "b": 3, "c": 4, "d": 2}
        assert manifest.notes[0] == "data.grade_mapping: no label is 'Z'"

    def test_a_mapping_of_folders(self, tmp_path: Path) -> None:
        photographs(tmp_path, "R0/a.png", "R1/b.png", "bad/c.png")
        mapping = {"R0": 0, "R1": 2, "bad": "ungradable"}
        assert "1 of them is ungradable" in refused(tmp_path, grade_mapping=mapping)
        assert column(load(tmp_path, grade_mapping=mapping, on_bad="skip"), "grade") == [0, 2]

    @pytest.mark.parametrize(
        ("mapping", "said"),
        [
            ({5: 5}, "5: 5 is not a grade; allowed: 0 to 4, ungradable"),
            ({"a": True}, "a: True is not a grade"),
            ({"a": 1.5}, "a: 1.5 is not a grade"),
            ({False: 0}, "write the label in quotes"),
            ([0, 1], "should map labels to grades"),
            ({5: "ungradable", "5": 4}, "5: this label is given twice"),
        ],
    )
    def test_a_mapping_to_something_else_is_refused(self, mapping: Any, said: str) -> None:
        with pytest.raises(SpecError, match="grade_mapping") as caught:
            parse(DataConfig, {"grade_mapping": mapping}, "mine.yaml")
        assert said in str(caught.value)

    def test_two_spellings_of_one_label_with_two_grades_are_refused(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,mild", "b,05")
        photographs(tmp_path, "a.png", "b.png")
        words, numbers = {"Mild": 1, "mild ": 2}, {5: 3, "05": 4}
        for mapping, said in ((words, "'Mild': 1 and 'mild ': 2"), (numbers, "'5': 3 and '05': 4")):
            assert f"data.grade_mapping: {said} are one label" in refused(tmp_path, grade_mapping=mapping)
        assert grades(load(tmp_path, grade_mapping={"Mild": 2, "mild": 2, 5: 3})) == {"a": 2, "b": 3}


class TestEncodings:
    @pytest.mark.parametrize(
        ("content", "encoding"),
        [
            ("image;level\n10_left;0\n10_right;1,0\n13_left;4\n", "utf-8"),
            ("image\tlevel\n10_left\t0\n10_right\t1\n13_left\t4\n", "utf-8"),
            ("image|level\n10_left|0\n10_right|1\n13_left|4\n", "utf-8"),
            ("image level\n10_left 0\n10_right 1\n13_left 4\n", "utf-8"),
            ("sep=;\r\nimage;level\r\n10_left;0\r\n10_right;1\r\n13_left;4\r\n", "utf-8-sig"),
            ("image\tlevel\n10_left\t0\n10_right\t1\n13_left\t4\n", "utf-16"),
            ("image,level\n10_left,0\n10_right,1\n13_left,4\n", "utf-16-le"),
            ("image,level\n10_left,0\n10_right,1\n13_left,4\n", "utf-16-be"),
            ("image,level\n10_left,0\n10_right,1\n13_left,4\n", "utf-32"),
            ("image,level,città\n10_left,0,é\n10_right,1,ü\n13_left,4,\n", "latin-1"),
            ('"image";"level"\r\n"10_left";"0"\r\n"10_right";"1"\r\n"13_left";"4"\r\n', "utf-8"),
        ],
    )
    def test_one_table_however_it_is_written(self, tmp_path: Path, content: str, encoding: str) -> None:
        eyepacs_folder(tmp_path)
        text(tmp_path / "trainLabels.csv", content, encoding)
        assert grades(load(tmp_path)) == {"10_left": 0, "10_right": 1, "13_left": 4}

    def test_a_name_that_could_be_read_in_two_ways_is_refused_with_the_remedy(self, tmp_path: Path) -> None:
        file = text(tmp_path / "labels.csv", "image,level\nœil,1\n", "cp1252")
        assert refused(tmp_path) == (
            f"{file}: cannot be read as a label file: labels.csv:2 is not UTF-8 ('œil' if it is Windows-1252); "
            "save the file as UTF-8"
        )

    def test_half_a_character_of_utf_16_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "labels.csv"
        file.write_bytes("image,level\na,1\n".encode("utf-16")[:-1])
        assert refused(tmp_path).startswith(f"{file}: cannot be read as a label file: its text is not valid UTF-16")


class TestClassFolders:
    def test_however_deep(self, tmp_path: Path) -> None:
        photographs(tmp_path / "set" / "set", "Training Set/0/a.png", "Training Set/1/b.png", "holdout/1/c.png")
        manifest = load(tmp_path)
        assert column(manifest, "split") == ["train", "train", "test"]

    @pytest.mark.parametrize(
        ("word", "split"), [("eval", "val"), ("dev", "val"), ("VALID", "val"), ("Testing", "test")]
    )
    def test_words_for_splits(self, tmp_path: Path, word: str, split: str) -> None:
        photographs(tmp_path, "train/0/a.png", "train/1/b.png", f"{word}/0/c.png")
        assert column(load(tmp_path), "split") == ["train", "train", split]
        listed(tmp_path, f"c.png,1,{word}", header="image,level,split")
        assert column(load(tmp_path, layout="list"), "split") == [split]

    def test_a_split_below_the_grade(self, tmp_path: Path) -> None:
        photographs(
            tmp_path, *(f"{grade}/{split}/x{grade}{split}.png" for grade in "01" for split in ("train", "test"))
        )
        assert column(load(tmp_path), "split") == ["test", "train"] * 2

    def test_one_split_under_two_names_is_refused(self, tmp_path: Path) -> None:
        photographs(tmp_path, "train/0/a.png", "train/1/b.png", "val/0/c.png", "valid/0/d.png")
        assert "val/ and valid/ are both the val split" in refused(tmp_path)

    @pytest.mark.parametrize("inner", ["train", "augmented", "test"])
    def test_grades_here_and_further_down_are_two_readings(self, tmp_path: Path, inner: str) -> None:
        photographs(tmp_path, "0/a.png", "1/b.png", f"{inner}/0/c.png", f"{inner}/1/d.png")
        message = refused(tmp_path)
        assert f"by the class folders 0/ ... 1/ and by {inner}/0/ ... {inner}/1/" in message
        assert f"Give the folder that is meant (for example {tmp_path / inner})" in message

    def test_a_table_of_something_else_beside_them_does_not_matter(self, tmp_path: Path) -> None:
        photographs(tmp_path, "0/a.png", "1/b.png")
        listed(tmp_path, "Canon,45", "Topcon,45", header="camera,field", name="cameras.csv")
        manifest = load(tmp_path)
        assert manifest.layout == "folders"
        assert manifest.unused.in_words() == ["1 other file not used: cameras.csv"]

    def test_a_list_of_other_photographs_beside_them_has_to_be_chosen_from(self, tmp_path: Path) -> None:
        photographs(tmp_path, "0/a.png", "1/b.png")
        listed(tmp_path, "x,0", "y,1")
        assert "labels.csv names none of the photographs in the class folders" in refused(tmp_path)
        assert len(load(tmp_path, layout="folders").frame) == 2

    def test_folders_of_patients_beside_a_list_are_no_class_folders(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,4", "b,0", "c,3")
        photographs(tmp_path, "1/a.png", "2/b.png", "17/c.png")
        assert column(load(tmp_path), "grade") == [4, 0, 3]
