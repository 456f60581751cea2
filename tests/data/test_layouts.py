"""Every layout with its quirks, and the real label lists."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_layouts import column, eyepacs_folder, grades, load, photograph, photographs, places, refused, text

from retina.data.manifest import COLUMNS


@pytest.fixture
def course(tmp_path: Path) -> Path:
    text(tmp_path / "train_img.csv", "10_left\n10_right\n11_left\n")
    text(tmp_path / "train_label.csv", "0\n2\n4\n")
    text(tmp_path / "test_img.csv", "11_right\n")
    text(tmp_path / "test_label.csv", "3\n")
    photographs(tmp_path / "train", "10_left.jpeg", "10_right.jpeg")
    photographs(tmp_path, "11_left.jpeg")
    photographs(tmp_path / "images", "11_right.jpeg")
    return tmp_path


@pytest.fixture
def eyepacs(tmp_path: Path) -> Path:
    return eyepacs_folder(tmp_path)


class TestCourse:
    def test_first_rows_are_photographs_not_headers(self, course: Path) -> None:
        manifest = load(course)
        assert manifest.layout == "course"
        assert grades(manifest) == {"10_left": 0, "10_right": 2, "11_left": 4, "11_right": 3}
        assert column(manifest, "split") == ["train", "train", "train", "test"]
        assert column(manifest, "patient") == ["10", "10", "11", "11"]
        assert column(manifest, "eye") == ["left", "right", "left", "right"]
        assert places(manifest) == ["train/10_left.jpeg", "train/10_right.jpeg", "11_left.jpeg", "images/11_right.jpeg"]
        assert column(manifest, "where") == ["train_img.csv:1", "train_img.csv:2", "train_img.csv:3", "test_img.csv:1"]

    @pytest.mark.parametrize("name", ["train_img.csv", "test_label.csv"])
    def test_any_of_its_files_may_be_given(self, course: Path, name: str) -> None:
        assert grades(load(course / name)) == grades(load(course))

    def test_counts_that_differ_cannot_be_skipped(self, course: Path) -> None:
        text(course / "train_label.csv", "0\n2\n")
        assert refused(course, on_bad="skip") == (
            f"{course}: train_img.csv has 3 photographs and train_label.csv has 2 grades; "
            "they are read line by line and must be equally long"
        )

    def test_an_empty_grade_keeps_its_line(self, course: Path) -> None:
        text(course / "train_label.csv", "0\r\n\r\n4\r\n\r\n")
        manifest = load(course, on_bad="skip")
        assert grades(manifest) == {"10_left": 0, "11_left": 4, "11_right": 3}
        assert [str(bad) for bad in manifest.skipped] == [
            "train_label.csv:2: 10_right: its grade is empty; grades are 0 to 4"
        ]

    def test_a_missing_list_is_named(self, course: Path) -> None:
        (course / "test_label.csv").unlink()
        assert refused(course).endswith("missing: test_label.csv")

    def test_a_name_in_both_lists_is_one_photograph(self, course: Path) -> None:
        text(course / "test_img.csv", "10_left\n")
        assert "test_img.csv:1: 10_left: two grades for one photograph: 3 here, 0 at train_img.csv:1" in refused(course)

    def test_real_lists_lose_no_row_and_keep_their_order(self, shared: Path) -> None:
        manifest = load(shared / "data" / "course", alone=True)
        names = [
            line for half in ("train", "test") for line in (shared / f"data/course/{half}_img.csv").read_text().split()
        ]
        assert column(manifest, "image") == names
        assert manifest.frame["split"].value_counts().to_dict() == {"train": 28_097, "test": 7_026}
        assert manifest.frame["eye"].isin(["left", "right"]).all()
        assert manifest.frame["patient"].nunique() == 17_563

    def test_lists_without_photographs_say_where_these_belong(self, shared: Path) -> None:
        folder = shared / "data" / "course"
        assert refused(folder) == (
            f"{folder}: train_img.csv and test_img.csv list 35,123 photographs, and none of them is there.\n"
            f"They belong in {folder / 'train'} (2576_right.jpeg, .jpg or .png); "
            'EyePACS is the Kaggle competition "diabetic-retinopathy-detection".\n'
            "To run sweep or train without photographs, use --data synthetic; retina data draw DIR draws some"
        )


class TestEyepacs:
    def test_train_labels_alone_leave_the_split_open(self, eyepacs: Path) -> None:
        manifest = load(eyepacs)
        assert manifest.layout == "eyepacs"
        assert grades(manifest) == {"10_left": 0, "10_right": 1, "13_left": 4}
        assert column(manifest, "split") == ["", "", ""]
        assert column(manifest, "patient") == ["10", "10", "13"]
        assert places(manifest) == ["train/10_left.jpeg", "train/10_right.jpg", "train/13_left.png"]
        assert column(manifest, "where") == ["trainLabels.csv:2", "trainLabels.csv:3", "trainLabels.csv:4"]

    def test_table_has_the_contract_s_columns_and_absolute_paths(self, eyepacs: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(eyepacs.parent)
        frame = load(Path(eyepacs.name)).frame
        assert list(frame.columns) == list(COLUMNS)
        assert frame.dtypes.to_dict() == frame.astype(COLUMNS).dtypes.to_dict()
        assert all(Path(path).is_absolute() and Path(path).is_file() for path in frame["path"])

    @pytest.mark.parametrize("name", ["retinopathy_solution.csv", "testLabels.csv"])
    def test_solution_becomes_the_test_split(self, eyepacs: Path, name: str) -> None:
        text(eyepacs / name, "image,level,Usage\n1_left,2,Private\n1_right,0,Public\n")
        photographs(eyepacs / "test", "1_left.jpeg", "1_right.jpeg")
        manifest = load(eyepacs / "trainLabels.csv")
        assert column(manifest, "split") == ["train", "train", "train", "test", "test"]
        assert manifest.frame["path"].str.endswith("test/1_left.jpeg").sum() == 1

    def test_solution_without_its_photographs_is_left_out(self, eyepacs: Path) -> None:
        text(eyepacs / "retinopathy_solution.csv", "image,level,Usage\n1_left,2,Private\n")
        assert column(load(eyepacs), "split") == ["", "", ""]
        assert load(eyepacs).notes == ["retinopathy_solution.csv lists 1 photographs and none of them exists: left out"]
        assert column(load(eyepacs, alone=True), "split") == ["train", "train", "train", "test"]

    def test_some_of_the_solution_s_photographs_missing_is_bad(self, eyepacs: Path) -> None:
        text(eyepacs / "testLabels.csv", "image,level\n1_left,2\n1_right,0\n")
        photographs(eyepacs / "test", "1_left.jpeg")
        assert (
            "testLabels.csv:3: 1_right: the photograph is missing; photographs are in train/ (3), test/ (1)"
            in refused(eyepacs)
        )

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_byte_order_mark_carriage_returns_spaces_and_stray_columns(self, eyepacs: Path, encoding: str) -> None:
        content = "Unnamed: 0, Image ,\tLEVEL,,\r\n0, 10_left , 0 ,,\r\n1,10_right,1.0,,\r\n\r\n,,,,\r\n2,13_left,4\r\n"
        text(eyepacs / "trainLabels.csv", content, encoding)
        manifest = load(eyepacs)
        assert grades(manifest) == {"10_left": 0, "10_right": 1, "13_left": 4}
        assert column(manifest, "where")[-1] == "trainLabels.csv:6"

    def test_unpacked_into_a_folder_of_the_same_name(self, eyepacs: Path) -> None:
        shutil.move(eyepacs / "train", eyepacs / "inner")
        (eyepacs / "train").mkdir()
        shutil.move(eyepacs / "inner", eyepacs / "train" / "train")
        assert places(load(eyepacs))[0] == "train/train/10_left.jpeg"

    def test_drawn_photographs_are_read_like_eyepacs(self, eyepacs: Path) -> None:
        assert load(eyepacs, layout="synthetic").layout == "eyepacs"


class TestAptos:
    @pytest.fixture
    def aptos(self, tmp_path: Path) -> Path:
        text(tmp_path / "train.csv", "id_code,diagnosis\n000c14,2\n00a8_left,0\n")
        photographs(tmp_path / "train_images", "000c14.png", "00a8_left.png")
        return tmp_path

    def test_kaggle_s_test_list_without_grades_is_ignored(self, aptos: Path) -> None:
        text(aptos / "test.csv", "id_code\nffff\n")
        manifest = load(aptos)
        assert manifest.layout == "aptos"
        assert grades(manifest) == {"000c14": 2, "00a8_left": 0}
        assert column(manifest, "patient")[0] == "000c14"
        assert column(manifest, "split") == ["", ""]

    @pytest.mark.parametrize(("list_name", "folder"), [("valid.csv", "val_images/val_images"), ("val.csv", "valid")])
    def test_reuploads_have_three_lists(self, aptos: Path, list_name: str, folder: str) -> None:
        text(aptos / list_name, "id_code,diagnosis\naaaa,1\n")
        text(aptos / "test.csv", "id_code,diagnosis\nbbbb,4\n")
        photograph(aptos / folder / "aaaa.png")
        photograph(aptos / "test_images" / "bbbb.png")
        assert column(load(aptos), "split") == ["train", "train", "val", "test"]

    def test_a_train_csv_of_something_else_names_its_columns(self, tmp_path: Path) -> None:
        file = text(tmp_path / "train.csv", "age,weight\n1,2\n")
        assert refused(tmp_path) == (
            f"{file}: found the columns: age, weight\n"
            "needed: one for the photograph (image, id_code, image_name, image_id, filename, file_name or another "
            "known one) and one for its grade (level, diagnosis, grade, retinopathy_grade, dr_grade, label or another "
            "known one)\n"
            "name columns of other titles with data.image_column and data.grade_column"
        )


class TestIdrid:
    TRAIN = "a. IDRiD_Disease Grading_Training Labels.csv"
    TEST = "b. IDRiD_Disease Grading_Testing Labels.csv"

    @pytest.fixture(params=["", "B. Disease Grading"])
    def published(self, tmp_path: Path, request: Any) -> Path:
        base = tmp_path / request.param
        header = "Image name,Retinopathy grade,Risk of macular edema "
        text(base / "2. Groundtruths" / self.TRAIN, f"{header},,,\r\nIDRiD_001,3,2,,,\r\nIDRiD_002,0,0,,,\r\n")
        text(base / "2. Groundtruths" / self.TEST, f"{header}\r\nIDRiD_001,4,0\r\n")
        photographs(base / "1. Original Images" / "a. Training Set", "IDRiD_001.jpg", "IDRiD_002.jpg")
        photographs(base / "1. Original Images" / "b. Testing Set", "IDRiD_001.jpg")
        return tmp_path

    def test_both_sets_have_an_idrid_001_and_they_stay_apart(self, published: Path) -> None:
        manifest = load(published)
        assert manifest.layout == "idrid"
        assert grades(manifest) == {"train_IDRiD_001": 3, "train_IDRiD_002": 0, "test_IDRiD_001": 4}
        assert column(manifest, "patient") == column(manifest, "image")
        assert column(manifest, "split") == ["train", "train", "test"]
        folders = [Path(path).parent.name for path in manifest.frame["path"]]
        assert folders == ["a. Training Set", "a. Training Set", "b. Testing Set"]

    def test_a_label_file_may_be_given(self, published: Path) -> None:
        file = next(published.rglob(self.TRAIN))
        assert grades(load(file)) == grades(load(published))

    def test_the_training_list_does_not_grade_the_testing_set(self, published: Path) -> None:
        next(published.rglob(self.TEST)).unlink()
        shutil.rmtree(next(published.rglob("a. Training Set")))
        assert f"{self.TRAIN} list 2 photographs, and none of them is there" in refused(published)

    def test_official_lists_as_published(self, shared: Path) -> None:
        manifest = load(shared / "data" / "idrid" / "official", alone=True)
        assert manifest.frame["split"].value_counts().to_dict() == {"train": 413, "test": 103}
        assert manifest.frame["patient"].is_unique
        counts = manifest.frame.groupby("split")["grade"].value_counts().unstack()
        assert counts.loc["train"].tolist() == [134, 20, 136, 74, 49]
        assert counts.loc["test"].tolist() == [34, 5, 32, 19, 13]

    def test_shared_copy_agrees_with_the_official_lists(self, shared: Path) -> None:
        copy = load(shared / "data" / "idrid")
        official = load(shared / "data" / "idrid" / "official", alone=True)
        assert copy.layout == "idrid"
        assert {name.removesuffix(".jpg"): grade for name, grade in grades(copy).items()} == grades(official)
        assert copy.frame["split"].value_counts().to_dict() == {"train": 413, "test": 103}
        assert sorted(copy.frame["patient"]) == sorted(official.frame["patient"])
        assert grades(load(shared / "data" / "idrid" / "labels.csv")) == grades(copy)


class TestAnyList:
    def test_split_patient_and_eye_are_taken_from_the_file(self, tmp_path: Path) -> None:
        lines = ["filename,grade,split,patient_id,eye", '"a.jpg",0,Training,p1,OD', "b,1,valid,p1,L"]
        lines += ["sub/c.PNG,2,test,,", "d,3,,,"]
        file = text(tmp_path / "mine.csv", "\n".join(lines))
        photographs(tmp_path, "a.jpg", "images/b.png", "sub/c.PNG", "d.tif")
        manifest = load(file)
        assert manifest.root == file
        assert column(manifest, "split") == ["train", "val", "test", ""]
        assert column(manifest, "patient") == ["p1", "p1", "sub/c", "d"]
        assert column(manifest, "eye") == ["right", "left", "", ""]
        assert places(manifest) == ["a.jpg", "images/b.png", "sub/c.PNG", "d.tif"]

    @pytest.mark.parametrize("layout", ["eyepacs", "aptos", "idrid"])
    def test_is_read_under_the_name_that_was_asked_for(self, tmp_path: Path, layout: str) -> None:
        text(tmp_path / "labels.csv", "image,level\n7_right,3\n")
        photographs(tmp_path / "images", "7_right.jpeg")
        manifest = load(tmp_path, layout=layout)
        assert (manifest.layout, column(manifest, "patient")) == (layout, ["7"])

    def test_an_unknown_split_is_refused(self, tmp_path: Path) -> None:
        text(tmp_path / "labels.csv", "image,level,split\na,3,fold 2\n")
        photographs(tmp_path, "a.png")
        assert "labels.csv:2: a: its split is 'fold 2'; splits are train, val and test" in refused(tmp_path)


class TestMedmnist:
    @staticmethod
    def npz(folder: Path, **changes: Any) -> Path:
        arrays = {}
        for split, n in (("train", 3), ("val", 1), ("test", 2)):
            arrays[f"{split}_images"] = np.zeros((n, 8, 8, 3), np.uint8)
            arrays[f"{split}_labels"] = np.arange(n, dtype=np.uint8)[:, None]
        arrays |= changes
        np.savez(folder / "some.npz", **{name: array for name, array in arrays.items() if array is not None})
        return folder / "some.npz"

    def test_real_file_has_its_official_splits(self, shared: Path) -> None:
        file = shared / "data" / "retinamnist.npz"
        manifest = load(file)
        assert manifest.layout == "medmnist"
        assert manifest.frame["split"].value_counts().to_dict() == {"train": 1080, "test": 400, "val": 120}
        first = manifest.frame.loc[manifest.frame["split"] == "val"].iloc[0]
        assert (first["image"], first["array"], first["index"]) == ("val/0", "val_images", 0)
        assert first["path"] == str(file)
        with np.load(file) as arrays:
            for split in ("train", "val", "test"):
                mine = manifest.frame.query("split == @split")["grade"]
                assert mine.tolist() == arrays[f"{split}_labels"].ravel().tolist()

    def test_a_folder_with_one_npz_will_do(self, tmp_path: Path) -> None:
        self.npz(tmp_path)
        assert len(load(tmp_path).frame) == 6

    def test_splits_of_other_names_are_read(self, tmp_path: Path) -> None:
        with np.load(self.npz(tmp_path)) as arrays:
            renamed = {name.replace("val", "valid"): array for name, array in arrays.items()}
        np.savez(tmp_path / "some.npz", **renamed)
        manifest = load(tmp_path)
        assert manifest.frame["split"].value_counts().to_dict() == {"train": 3, "test": 2, "val": 1}
        assert column(manifest, "image")[3] == "valid/0"

    def test_another_medmnist_set_has_grades_that_are_none(self, tmp_path: Path) -> None:
        file = self.npz(tmp_path, train_labels=np.array([[0], [8], [1]]))
        assert "some.npz:train_labels[1]: train/1: its grade is '8'; grades are 0 to 4" in refused(file)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"train_labels": None}, "there are: test_images, test_labels, train_images, val_images, val_labels"),
            ({"val_labels": None}, "the array val_images is there without val_labels"),
            ({"val_images": None}, "the array val_labels is there without val_images"),
            ({"valid_images": np.zeros((1, 8, 8, 3), np.uint8)}, "the array valid_images is of the same split as val_"),
            (
                {"more_images": np.zeros((1, 8, 8, 3), np.uint8)},
                "the array more_images is of no split; splits are trai",
            ),
            (
                {"test_labels": np.zeros((5, 1), np.uint8)},
                "test_images has 2 photographs and test_labels has shape (5,",
            ),
            ({"train_labels": np.zeros((3, 14), np.uint8)}, "there must be one grade for each photograph"),
            ({"train_images": np.zeros((3, 8, 8, 8, 3), np.uint8)}, "train_images has shape (3, 8, 8, 8, 3)"),
            ({"train_images": np.zeros((3, 8, 8, 3), np.float32)}, "of type uint8"),
            ({"train_labels": np.array([[{}], [{}], [{}]])}, "the array train_labels cannot be read"),
            ({"train_images": np.zeros((3, 0, 0, 3), np.uint8)}, "photographs are 1 to 9,459 pixels"),
            ({"train_images": np.zeros((3, 1, 20_000), np.uint8)}, "photographs are 1 to 9,459 pixels"),
        ],
    )
    def test_arrays_that_do_not_fit_are_named(self, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
        file = self.npz(tmp_path, **changes)
        message = refused(file)
        assert message.startswith(f"{file}: ")
        assert said in message

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        file = text(tmp_path / "broken.npz", "PK nothing")
        assert refused(file).startswith(f"{file}: cannot be read as an npz file")

    def test_damage_inside_what_is_compressed_is_named_too(self, tmp_path: Path) -> None:
        file = tmp_path / "some.npz"
        labels = np.arange(2000, dtype=np.uint8)[:, None] % 5
        np.savez_compressed(file, train_images=np.zeros((2000, 2, 2), np.uint8), train_labels=labels)
        content = bytearray(file.read_bytes())
        start = content.index(b"train_labels.npy") + 40
        content[start : start + 20] = bytes(byte ^ 0xFF for byte in content[start : start + 20])
        file.write_bytes(content)
        assert refused(file).startswith(f"{file}: cannot be read as an npz file")

    @pytest.mark.parametrize(("at", "value"), [(8, 1), (10, 99)], ids=["encrypted", "compressed in a way of its own"])
    def test_an_archive_that_cannot_be_unpacked_is_named(self, tmp_path: Path, at: int, value: int) -> None:
        file = self.npz(tmp_path)
        content = bytearray(file.read_bytes())
        entry = -1
        while (entry := content.find(b"PK\x01\x02", entry + 1)) >= 0:  # of the archive's list of its files
            content[entry + at] = value
        file.write_bytes(content)
        assert refused(file).startswith(f"{file}: cannot be read as an npz file")


class TestFolders:
    def test_numbers(self, tmp_path: Path) -> None:
        for grade in range(5):
            photographs(tmp_path / str(grade), f"{grade}0_left.jpeg", "same.png")
        manifest = load(tmp_path)
        assert manifest.layout == "folders"
        assert column(manifest, "grade") == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert column(manifest, "split") == [""] * 10
        assert column(manifest, "patient")[:3] == ["00", "0/same", "10"]
        assert column(manifest, "eye")[:2] == ["left", ""]
        assert manifest.frame["image"].is_unique

    @pytest.mark.parametrize(
        "names",
        [
            ["No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"],
            ["none", "MILD", "moderate", "severe", "Proliferative"],
            ["0 - No DR", "1 - Mild", "2 - Moderate", "3 - Severe", "4 - Proliferative DR"],
            ["grade_0", "grade_1", "grade_2", "grade_3", "grade_4"],
            ["Normal", "Mild NPDR", "Moderate NPDR", "Severe NPDR", "PDR"],
        ],
    )
    def test_usual_spellings(self, tmp_path: Path, names: list[str]) -> None:
        for name in names:
            photographs(tmp_path / name, "x.png")
        assert grades(load(tmp_path)) == {f"{name}/x.png": grade for grade, name in enumerate(names)}

    @pytest.mark.parametrize("val", ["val", "valid", "Validation"])
    def test_with_splits_above(self, tmp_path: Path, val: str) -> None:
        for split in ("train", val, "test"):
            photographs(tmp_path / split / "No_DR", "5_left.png")
            photographs(tmp_path / split / "severe", "b.png")
        manifest = load(tmp_path)
        assert column(manifest, "split") == ["train", "train", "val", "val", "test", "test"]
        assert column(manifest, "grade") == [0, 3] * 3
        assert column(manifest, "patient")[:2] == ["5", "train/severe/b"]

    def test_folders_that_differ_in_capitals_alone_are_two(self, tmp_path: Path) -> None:
        for name in ("Mild", "mild", "severe"):
            photographs(tmp_path / name, "x.png")
        assert grades(load(tmp_path)) == {"Mild/x.png": 1, "mild/x.png": 1, "severe/x.png": 3}

    def test_photographs_below_a_grade_s_folder_count(self, tmp_path: Path) -> None:
        photographs(tmp_path / "0", "right/b.png", "left/deep/1_left.png", "a.png", ".thumbnails/a.png")
        photographs(tmp_path / "2", "left/2_left.png")
        manifest = load(tmp_path)
        assert grades(manifest) == {
            "0/a.png": 0,
            "0/left/deep/1_left.png": 0,
            "0/right/b.png": 0,
            "2/left/2_left.png": 2,
        }
        assert list(grades(manifest)) == column(manifest, "image")
        assert column(manifest, "where") == ["0/", "0/left/deep/", "0/right/", "2/left/"]
        assert column(manifest, "patient") == ["0/a", "1", "0/right/b", "2"]

    @pytest.mark.parametrize("target", [".", "..", "../1"])
    def test_links_in_circles_count_nothing_twice(self, tmp_path: Path, target: str) -> None:
        for grade in "01":
            photographs(tmp_path / grade, "x.png")
            (tmp_path / grade / "again").symlink_to(target, target_is_directory=True)
        expected = {"0/x.png": 0, "1/x.png": 1} | ({"0/again/x.png": 0} if target == "../1" else {})
        assert grades(load(tmp_path)) == expected

    def test_photographs_under_an_unknown_name_are_not_lost_in_silence(self, tmp_path: Path) -> None:
        for name in ("0", "1", "5", "Severre"):
            photographs(tmp_path / name, "x.png")
        (tmp_path / "notes").mkdir()
        message = refused(tmp_path)
        assert "5/: 5/x.png: its grade is '5'; grades are 0 to 4" in message
        assert "Severre/: Severre/x.png: its grade is 'Severre'; grades are 0 to 4" in message
        assert "notes" not in message
        assert len(load(tmp_path, on_bad="skip").frame) == 2


def test_a_running_number_behind_the_eye_is_the_patient_s_where_the_word_before_it_is_everybody_s(
    tmp_path: Path,
) -> None:
    names = [f"img_{eye}_{number:03d}.png" for number in range(1, 11) for eye in ("left", "right")]
    photographs(tmp_path / "2", *names)
    photographs(tmp_path / "0", "x.png")
    manifest = load(tmp_path)
    assert column(manifest, "patient") == ["0/x", *[f"img_{number:03d}" for eye in range(2) for number in range(1, 11)]]
    assert set(column(manifest, "eye")) == {"", "left", "right"}


def test_a_number_behind_the_eye_counts_a_patient_s_photographs(tmp_path: Path) -> None:
    photographs(tmp_path / "2", "17_left_1.png", "17_left_2.png", "smith_left_1.png", "smith_right_1.png")
    photographs(tmp_path / "0", "x.png")
    assert column(load(tmp_path), "patient") == ["0/x", "17", "17", "smith", "smith"]
