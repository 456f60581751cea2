"""Which split a photograph is of where lists, folders and running numbers could say different things."""

from pathlib import Path
from typing import Any

import pytest
from layouts import column, grades, listed, load, photographs, places, refused


def numbered(folder: Path, *numbers: int, front: str = "") -> None:
    photographs(folder, *(f"{front}{number}.png" for number in numbers))


class TestRunningNumbers:
    """A list of a split whose photographs have the names of another split's."""

    @pytest.mark.parametrize("front", ["", "img_", "IDRiD_00"])
    @pytest.mark.parametrize("list_name", ["train.csv", "trainLabels.csv"])
    def test_a_train_list_does_not_grade_the_test_photographs(self, tmp_path: Path, front: str, list_name: str) -> None:
        listed(tmp_path, *(f"{front}{number},{number % 5}" for number in range(1, 7)), name=list_name)
        numbered(tmp_path / "test_images", *range(1, 7), front=front)
        assert refused(tmp_path).startswith(
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
        assert manifest.notes[0].startswith("2 photographs lie in the folder of another split than their row says")

    @pytest.mark.parametrize("name", ["10_left", "00cb6555d108", "20170413102628830", "007-0004-000"])
    def test_a_name_that_is_no_running_number_is_one_photograph_s(self, tmp_path: Path, name: str) -> None:
        listed(tmp_path, f"{name},1", name="train.csv")
        photographs(tmp_path / "test", f"{name}.png")
        manifest = load(tmp_path)
        assert places(manifest) == [f"test/{name}.png"]
        assert "train.csv:2 says train of" in manifest.notes[0]

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
