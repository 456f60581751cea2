"""Which split a photograph is of where lists, folders and running numbers could say different things."""

from pathlib import Path
from typing import Any

import pytest
from dataset_layouts import column, grades, listed, load, photographs, places, refused, text


def numbered(folder: Path, *numbers: int, front: str = "") -> None:
    photographs(folder, *(f"{front}{number}.png" for number in numbers))


class TestRunningNumbers:
    """A list of a split whose photographs have the names of another split's."""

    @pytest.mark.parametrize("front", ["", "img_", "IDRiD_00"])
    @pytest.mark.parametrize("list_name", ["train.csv", "trainLabels.csv"])
    def test_a_train_list_does_not_grade_the_test_photographs(self, tmp_path: Path, front: str, list_name: str) -> None:
        listed(tmp_path, *(f"{front}{number},{number % 5}" for number in range(1, 7)), name=list_name)
        numbered(tmp_path / "test_images", *range(1, 7), front=front)
        assert refused(tmp_path) == (
            f"{tmp_path}: {list_name} list 6 photographs, and none of them is there.\n"
            f"{list_name}:2: {front}1: test_images/{front}1.png has its name and lies in the folder of another split"
        )

    def test_nor_where_half_of_its_own_are_there(self, tmp_path: Path) -> None:
        listed(tmp_path, *(f"{number},{number % 5}" for number in range(1, 7)), name="train.csv")
        numbered(tmp_path / "train_images", 1, 2, 3)
        numbered(tmp_path / "test_images", *range(1, 7))
        assert (
            "train.csv:5: 4: the photograph is missing; test_images/4.png has its name and lies in the folder of "
            "another split"
        ) in refused(tmp_path)
        manifest = load(tmp_path, on_bad="skip")
        assert places(manifest) == ["train_images/1.png", "train_images/2.png", "train_images/3.png"]
        assert manifest.unused.in_words()[0] == "6 photographs in test_images/ are not used"

    def test_photographs_in_one_folder_are_of_the_splits_of_their_lists(self, tmp_path: Path) -> None:
        listed(tmp_path, "1,0", "2,1", "3,2", name="train.csv")
        listed(tmp_path, "4,3", "5,4", name="val.csv")
        numbered(tmp_path / "train", 1, 2, 3, 4, 5)
        manifest = load(tmp_path)
        assert grades(manifest) == {"1": 0, "2": 1, "3": 2, "4": 3, "5": 4}
        assert column(manifest, "split") == ["train"] * 3 + ["val"] * 2
        assert manifest.notes[0].startswith("2 photographs lie in the folder of another split than their row gives")

    @pytest.mark.parametrize("name", ["10_left", "00cb6555d108", "20170413102628830", "007-0004-000"])
    def test_a_name_that_is_no_running_number_is_one_photograph_s(self, tmp_path: Path, name: str) -> None:
        listed(tmp_path, f"{name},1", name="train.csv")
        photographs(tmp_path / "test", f"{name}.png")
        manifest = load(tmp_path)
        assert places(manifest) == [f"test/{name}.png"]
        assert "train.csv:2 gives train for" in manifest.notes[0]

    @pytest.mark.parametrize("row", ["test_images/1,2", "test_images/1.png,2"])
    def test_a_folder_in_the_name_counts(self, tmp_path: Path, row: str) -> None:
        listed(tmp_path, row, name="train.csv")
        numbered(tmp_path / "test_images", 1)
        assert places(load(tmp_path)) == ["test_images/1.png"]

    @pytest.mark.parametrize(
        ("settings", "header", "row"),
        [({"image_folder": "test_images"}, "image,level", "1,2"), ({}, "image,level,split", "1,2,train")],
    )
    def test_what_the_user_or_the_row_says_counts(
        self, tmp_path: Path, settings: dict[str, Any], header: str, row: str
    ) -> None:
        listed(tmp_path, row, header=header, name="train.csv")
        numbered(tmp_path / "test_images", 1)
        assert places(load(tmp_path, **settings)) == ["test_images/1.png"]


class TestByFolders:
    """Splits that the folders say, of label files or of photographs, where lists say nothing of them."""

    NOTE = "the splits are those of folders: train 3, test 2 photographs; data.split=by_patient makes new ones"

    @pytest.mark.parametrize("folders", [("train", "test"), ("Training Set", "Testing Set"), ("set/train", "set/test")])
    @pytest.mark.parametrize("numbers", [(1, 2, 3, 4, 5), (1, 2, 3, 1, 2)])
    def test_a_list_in_the_folder_of_each_split(
        self, tmp_path: Path, folders: tuple[str, str], numbers: tuple[int, ...]
    ) -> None:
        for folder, mine in zip(folders, (numbers[:3], numbers[3:]), strict=True):
            listed(tmp_path / folder, *(f"{number},{number % 5}" for number in mine))
            numbered(tmp_path / folder, *mine)
        manifest = load(tmp_path)
        assert places(manifest) == [f"{folders[at > 2]}/{number}.png" for at, number in enumerate(numbers)]
        assert column(manifest, "split") == ["train"] * 3 + ["test"] * 2
        assert manifest.notes == [self.NOTE]

    def test_a_list_in_the_folder_of_each_split_and_the_photographs_in_one(self, tmp_path: Path) -> None:
        listed(tmp_path / "train", "a,0", "b,1", "c,2")
        listed(tmp_path / "test", "x,0", "y,1")
        photographs(tmp_path / "images", "a.png", "b.png", "c.png", "x.png", "y.png")
        manifest = load(tmp_path)
        assert column(manifest, "split") == ["train"] * 3 + ["test"] * 2
        assert manifest.notes == [self.NOTE]

    def test_the_same_photographs_in_the_lists_of_two_splits_are_refused(self, tmp_path: Path) -> None:
        listed(tmp_path / "train", "a,0", "b,1")
        listed(tmp_path / "test", "b,1")
        photographs(tmp_path / "images", "a.png", "b.png")
        assert "b: listed twice; the first time at" in refused(tmp_path)

    @pytest.mark.parametrize(
        ("names", "folders"),
        [
            ("abcxy", ("train", "test")),
            ("abcxy", ("resized train 15", "resized test 15")),
            (("train/a", "train/b.png", "train/c", "test/x.png", "test/y"), ("train", "test")),
        ],
    )
    def test_one_list_of_the_photographs_of_all_splits(
        self, tmp_path: Path, names: tuple[str, ...], folders: tuple[str, str]
    ) -> None:
        listed(tmp_path, *(f"{name},{at % 5}" for at, name in enumerate(names)))
        photographs(tmp_path / folders[0], "a.png", "b.png", "c.png")
        photographs(tmp_path / folders[1], "x.png", "y.png")
        manifest = load(tmp_path)
        assert column(manifest, "split") == ["train"] * 3 + ["test"] * 2
        assert manifest.notes == [self.NOTE]

    def test_what_a_row_says_counts_more_and_what_it_leaves_open_is_its_folder_s(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,0,train", "b,1,", "x,2,", "y,3,val", "z,4,", header="image,level,split")
        photographs(tmp_path, "train/a.png", "train/b.png", "test/x.png", "test/y.png", "more/z.png")
        manifest = load(tmp_path)
        assert column(manifest, "split") == ["train", "train", "test", "val", ""]
        assert manifest.notes[-1].startswith("the splits are those of folders: train 1, test 1 photographs;")

    @pytest.mark.parametrize(
        "files",
        [
            ("train/a.png", "train/b.png"),
            ("test/a.png", "test/b.png"),
            ("train/a.png", "images/b.png"),
            ("train/a.png", "b.png"),
        ],
    )
    def test_folders_that_part_nothing_leave_the_split_open(self, tmp_path: Path, files: tuple[str, ...]) -> None:
        listed(tmp_path, "a,0", "b,1")
        photographs(tmp_path, *files)
        manifest = load(tmp_path)
        assert column(manifest, "split") == ["", ""]
        assert manifest.notes == []

    @pytest.mark.parametrize("folder", ["train", "test"])
    def test_the_folder_of_the_only_list_leaves_it_open_too(self, tmp_path: Path, folder: str) -> None:
        listed(tmp_path / folder, "a,0", "b,1")
        photographs(tmp_path / folder, "a.png", "b.png")
        for path in (tmp_path, tmp_path / folder, tmp_path / folder / "labels.csv"):
            assert column(load(path), "split") == ["", ""]
            assert load(path).notes == []

    def test_label_lists_alone(self, tmp_path: Path) -> None:
        listed(tmp_path / "train", "1,0", "2,1", "3,2")
        listed(tmp_path / "test", "1,0", "2,1")
        manifest = load(tmp_path, alone=True)
        assert column(manifest, "split") == ["train"] * 3 + ["test"] * 2
        assert manifest.notes == [self.NOTE]


class TestListsOfOneSplit:
    """Lists in several folders that name their photographs alike: of two places, or two versions of one."""

    @pytest.mark.parametrize("second", [("1,0", "2,1"), ("1,3", "2,4")])
    def test_with_photographs_of_their_own_are_refused_whatever_the_grades(
        self, tmp_path: Path, second: tuple[str, ...]
    ) -> None:
        for site, rows in (("lyon", ("1,0", "2,1")), ("oslo", second)):
            listed(tmp_path / site, *rows)
            numbered(tmp_path / site, 1, 2)
        assert refused(tmp_path) == (
            f"{tmp_path}: lyon/labels.csv and oslo/labels.csv both list 2 of the photographs (for example 1), but mean "
            "different files of these names.\n"
            f"Give the one that is meant instead of the folder: {tmp_path}/lyon/labels.csv or "
            f"{tmp_path}/oslo/labels.csv; or write one list with the folder before each name"
        )
        listed(tmp_path, "lyon/1,0", "lyon/2,1", *(f"oslo/{row}" for row in second), name="all.csv")
        assert places(load(tmp_path)) == ["lyon/1.png", "lyon/2.png", "oslo/1.png", "oslo/2.png"]

    def test_of_the_same_photographs_are_refused_where_they_differ_and_else_one(self, tmp_path: Path) -> None:
        listed(tmp_path / "first", "1,0", "2,1")
        listed(tmp_path / "second", "1,0", "2,2")
        numbered(tmp_path / "images", 1, 2)
        assert "both list 2 of the photographs (for example 1), and do not agree." in refused(tmp_path)
        listed(tmp_path / "second", "1,0", "2,1")
        assert grades(load(tmp_path)) == {"1": 0, "2": 1}


class TestListsOfOneName:
    """Label files in several folders that are called alike are named with their folders."""

    def test_in_what_is_said_of_their_rows(self, tmp_path: Path) -> None:
        for folder in ("train", "test"):
            listed(tmp_path / folder, f"{folder}1,9", f"{folder}2,1")
            photographs(tmp_path / folder, f"{folder}1.png", f"{folder}2.png")
        assert "train/labels.csv:2: train1: its grade is '9'" in refused(tmp_path)
        manifest = load(tmp_path, on_bad="skip")
        assert [bad.where for bad in manifest.skipped] == ["train/labels.csv:2", "test/labels.csv:2"]
        assert column(manifest, "where") == ["train/labels.csv:3", "test/labels.csv:3"]

    def test_in_what_is_said_of_them(self, tmp_path: Path) -> None:
        listed(tmp_path / "train", "a,0")
        listed(tmp_path / "test", "b,1")
        photographs(tmp_path / "train", "a.png")
        assert load(tmp_path).notes == ["test/labels.csv lists 1 photographs and none of them exists: left out"]

    def test_their_rows_of_both_eyes_are_of_other_patients(self, tmp_path: Path) -> None:
        for folder in ("lyon", "oslo"):
            header = "left_image,right_image,left_grade,right_grade"
            listed(tmp_path / folder, f"{folder}1.png,{folder}2.png,0,1", header=header)
            photographs(tmp_path / folder, f"{folder}1.png", f"{folder}2.png")
        assert load(tmp_path).frame["patient"].nunique() == 2

    def test_one_of_its_name_is_named_without(self, tmp_path: Path) -> None:
        listed(tmp_path / "lists", "a,9", "b,0")
        photographs(tmp_path, "a.png", "b.png")
        assert "  labels.csv:2: a: its grade is '9'" in refused(tmp_path)


class TestListsThatAreCalledAsTheCourseS:
    @pytest.mark.parametrize("names", [("train_label.csv",), ("train_label.csv", "test_label.csv"), ("train_img.csv",)])
    def test_with_a_header_are_label_files(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for name in names:
            stem = name[:2]
            listed(tmp_path, f"{stem}1,0", f"{stem}2,1", name=name)
            photographs(tmp_path / "images", f"{stem}1.png", f"{stem}2.png")
        for path in (tmp_path, tmp_path / names[0]):
            manifest = load(path)
            assert column(manifest, "grade") == [0, 1] * len(names)
            assert column(manifest, "split") == ([""] * 2 if len(names) == 1 else ["train"] * 2 + ["test"] * 2)

    def test_without_one_need_their_companions(self, tmp_path: Path) -> None:
        text(tmp_path / "test_img.csv", "a\nb\n")
        text(tmp_path / "train_label.csv", "0\n1\n")
        assert refused(tmp_path).endswith("missing: train_img.csv, test_label.csv")
        assert refused(tmp_path / "test_img.csv").endswith("missing: train_img.csv, test_label.csv")
        (tmp_path / "test_img.csv").unlink()
        for layout in ("auto", "course"):
            assert refused(tmp_path, layout=layout).endswith("missing: train_img.csv, test_img.csv, test_label.csv")


class TestSeveralFilesOfOneName:
    """The remedy fits where they lie."""

    def test_in_one_folder(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,0", "b,1")
        photographs(tmp_path / "images", "a.jpg", "a.png", "b.png")
        for settings in ({}, {"image_folder": "images"}):
            assert (
                "labels.csv:2: a: 2 photographs have this name: images/a.jpg and images/a.png; write its suffix in the "
                "list, or move one of them away"
            ) in refused(tmp_path, **settings)
        listed(tmp_path, "a.png,0", "b,1")
        assert places(load(tmp_path)) == ["images/a.png", "images/b.png"]

    def test_in_several(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,0", "b,1")
        photographs(tmp_path, "train/a.png", "test/a.png", "train/b.png")
        assert (
            "2 photographs have this name: test/a.png and train/a.png; write its folder before its name in the list, "
            "or choose one folder with data.image_folder"
        ) in refused(tmp_path)
        listed(tmp_path, "test/a,0", "b,1")
        assert places(load(tmp_path)) == ["test/a.png", "train/b.png"]
