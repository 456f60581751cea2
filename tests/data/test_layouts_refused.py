"""What is said about folders, files and rows that cannot be used."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from dataset_layouts import eyepacs_folder, grades, listed, load, photograph, photographs, places, refused, text


@pytest.fixture
def eyepacs(tmp_path: Path) -> Path:
    return eyepacs_folder(tmp_path)


class TestWhatCannotBeFound:
    def test_missing_path_says_what_where_and_how_without(self) -> None:
        assert refused(Path("nowhere/at/all")) == (
            "nowhere/at/all: there is no such folder or file.\n"
            "It should hold photographs and their grades; EyePACS is the Kaggle competition "
            '"diabetic-retinopathy-detection": unpack it there, or give another path.\n'
            "To run sweep or train without photographs, use --data synthetic; retina data draw DIR draws some"
        )

    @pytest.mark.parametrize("path", ["x" * 5000, "~no_such_user_here/x"])
    def test_impossible_paths_are_a_user_s_mistake_too(self, path: str) -> None:
        assert refused(Path(path)).startswith(f"{path}: ")

    def test_unknown_layout_says_what_is_there_and_what_is_known(self, tmp_path: Path) -> None:
        text(tmp_path / "notes.txt", "")
        photographs(tmp_path / "pictures", "a.png")
        assert refused(tmp_path) == (
            f"{tmp_path}: no photographs with grades were recognised under layout auto.\n"
            "Found: pictures/, notes.txt.\n"
            "Expected course: train_img.csv and its three companions; list: a label file with a column for the "
            "photograph and one for its grade; folders: folders 0 to 4 or No_DR to Proliferate_DR; medmnist: one .npz "
            "file. A labels.csv with the columns image,level beside the photographs is enough."
        )

    def test_a_layout_that_was_asked_for_is_the_only_one_tried(self, eyepacs: Path) -> None:
        message = refused(eyepacs, layout="folders")
        assert "under layout folders" in message
        assert "Found: train/, trainLabels.csv." in message

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        file = text(tmp_path / "train.zip", "PK")
        assert refused(file).split("\n")[1] == "Found: the file train.zip."

    def test_missing_columns_name_the_file_and_both_sides(self, tmp_path: Path) -> None:
        file = text(tmp_path / "trainLabels.csv", "image;age\n1;2\n")
        message = refused(tmp_path)
        assert message.startswith(f"{file}: found the columns: image, age\nneeded: one for its grade (level, ")
        assert len(message.split("\n")) == 3

    def test_the_lists_of_rfmid_have_no_grades_and_are_named(self, tmp_path: Path) -> None:
        for split in ("Training", "Evaluation"):
            folder = tmp_path / f"{split}_Set"
            file = text(folder / f"RFMiD_{split}_Labels.csv", "ID,Disease_Risk,DR,ARMD\n1,1,1,0\n2,0,0,0\n")
            photographs(folder / split, "1.png", "2.png")
        message = refused(tmp_path)
        assert message.startswith(
            f"{file}: found the columns: ID, Disease_Risk, DR, ARMD\nneeded: one for the photogra"
        )
        assert len(message.split("\n")) == 3

    @pytest.mark.parametrize("rows", [("10,2", "11,0", "12,1", "13,3"), ("a.png,7,x", "10,0,y", "11,1,y", "12,2,x")])
    @pytest.mark.parametrize("settings", [{}, {"on_bad": "skip"}])
    def test_a_first_row_is_no_header(self, tmp_path: Path, rows: tuple[str, ...], settings: dict[str, Any]) -> None:
        file = text(tmp_path / "mine.csv", "\n".join(rows))
        photographs(tmp_path, "10.png", "11.png", "12.png", "13.png", "a.png")
        first = ", ".join(map(repr, rows[0].split(",")))
        assert refused(tmp_path, **settings) == (
            f"{file}: its first line is a row ({first}) and no header;\n"
            "write one above it, image,level for a name and a grade"
        )

    @pytest.mark.parametrize("header", ["name,healthy", "image,normal", "picture,ungradable", "file,No DR"])
    @pytest.mark.parametrize("rows", [("a,0", "b,1", "c,1"), ("a.png,0", "b.png,1.0", "c.png,1")])
    @pytest.mark.parametrize("settings", [{}, {"on_bad": "skip"}])
    def test_a_header_of_the_word_for_a_grade_is_no_row(
        self, tmp_path: Path, header: str, rows: tuple[str, ...], settings: dict[str, Any]
    ) -> None:
        file = text(tmp_path / "labels.csv", "\n".join([header, *rows]))
        photographs(tmp_path, "a.png", "b.png", "c.png")
        message = refused(tmp_path, **settings)
        assert message.startswith(f"{file}: found the columns: {header.replace(',', ', ')}\nneeded: one for its grade")
        first, second = header.split(",")
        said = f"{file}: the title {second!r} of its column of grades is itself a grade; give it another one"
        assert said in refused(tmp_path, grade_column=second, image_column=first)

    @pytest.mark.parametrize(
        "rows", [("a.png,normal", "b.png,1"), ("a,mild", "b,moderate"), ("a,mild", "b,2", "c,mild")]
    )
    def test_a_first_row_of_words_is_one(self, tmp_path: Path, rows: tuple[str, ...]) -> None:
        text(tmp_path / "labels.csv", "\n".join(rows))
        photographs(tmp_path, "a.png", "b.png", "c.png")
        assert len(load(tmp_path).frame) == len(rows)

    def test_rows_with_more_cells_than_the_header(self, tmp_path: Path) -> None:
        text(tmp_path / "labels.csv", "image,level\n1,1,4\n2,2,,\n3,3,0\n")  # as R writes the names of rows
        photographs(tmp_path, "1.png", "2.png", "3.png")
        message = refused(tmp_path)
        assert "labels.csv:2: 1: it has '4' beyond the last column of the header; every column needs a titl" in message
        assert grades(load(tmp_path, on_bad="skip")) == {"2": 2}

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        file = tmp_path / "trainLabels.csv"
        file.write_bytes(b"image,level\n\xff\xfe,1\n")
        assert refused(tmp_path).startswith(f"{file}: cannot be read as a label file")

    def test_a_quote_that_never_closes_swallows_no_rows(self, tmp_path: Path) -> None:
        text(tmp_path / "trainLabels.csv", 'image,level\n10_left,0\n"10_right,1\n13_left,4\n')
        assert "line 3: unexpected end of data" in refused(tmp_path)

    def test_nor_does_one_in_a_list_of_any_name(self, tmp_path: Path) -> None:
        file = text(tmp_path / "mine.csv", 'image,level\na,0\n"b,1\n')
        photographs(tmp_path, "a.png", "b.png")
        assert refused(tmp_path).startswith(f"{file}: cannot be read as a label file, line 3")

    def test_no_row_at_all(self, tmp_path: Path) -> None:
        text(tmp_path / "trainLabels.csv", "image,level\n")
        assert refused(tmp_path).endswith("no photograph can be used; the label files are empty")

    def test_nothing_left_after_skipping(self, tmp_path: Path) -> None:
        text(tmp_path / "trainLabels.csv", "image,level\n1_left,9\n")
        photographs(tmp_path, "1_left.png")
        assert "no photograph can be used; the first of 1 bad rows: trainLabels.csv:2" in refused(
            tmp_path, on_bad="skip"
        )

    def test_a_folder_that_may_not_be_read(self, eyepacs: Path, monkeypatch: Any) -> None:
        scandir = os.scandir

        def forbidding(folder: Path) -> Any:  # root may read everything, so the refusal is played
            if Path(folder).name == "train":
                raise PermissionError(13, "Permission denied")
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", forbidding)
        assert refused(eyepacs) == f"{eyepacs / 'train'}: this folder cannot be read: Permission denied"

    @pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
    def test_a_folder_whose_disk_fails_is_not_taken_for_an_empty_one(
        self, eyepacs: Path, monkeypatch: Any, number: int
    ) -> None:
        def failing(folder: Path) -> Any:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "scandir", failing)
        assert refused(eyepacs) == f"{eyepacs}: this folder cannot be read: {os.strerror(number)}"

    def test_a_link_to_itself_hides_nothing_else(self, eyepacs: Path) -> None:
        for folder in (eyepacs, eyepacs / "train"):
            (folder / "loop").symlink_to("loop")
        assert grades(load(eyepacs)) == {"10_left": 0, "10_right": 1, "13_left": 4}


class TestLinksToNothing:
    def test_a_photograph_in_a_class_folder(self, tmp_path: Path) -> None:
        photographs(tmp_path, "0/a.png", "1/b.png")
        (tmp_path / "1" / "c.png").symlink_to("/nowhere/c.png")
        (tmp_path / "2").mkdir()
        (tmp_path / "2" / "d.png").symlink_to("d.png")
        message = refused(tmp_path)
        assert "2 of the photographs or labels cannot be used" in message
        assert "1/: 1/c.png: this is no file, for example a broken link" in message
        assert "2/: 2/d.png: this is no file" in message
        assert grades(load(tmp_path, on_bad="skip")) == {"0/a.png": 0, "1/b.png": 1}

    def test_a_class_folder(self, tmp_path: Path) -> None:
        photographs(tmp_path, "train/0/a.png", "train/1/b.png")
        (tmp_path / "train" / "4").symlink_to("/nowhere/4")
        assert "train/4/: train/4: this is no folder: a broken link" in refused(tmp_path)

    def test_others_are_told(self, tmp_path: Path) -> None:
        text(tmp_path / "labels.csv", "image,level\na,1\n")
        photographs(tmp_path, "a.png")
        (tmp_path / "test").symlink_to("/nowhere/test")
        assert load(tmp_path).remarks == ["1 other file not used: test"]


class TestNamesThatAreNotUtf8:
    def test_a_photograph_s_is_a_bad_row(self, tmp_path: Path) -> None:
        photographs(tmp_path, "0/good.png", "1/good.png", "1/\udce9il.png", "1 - mild\udce9/x.png")
        problem = "1/: 1/\\udce9il.png: its name is not UTF-8"
        assert problem in refused(tmp_path)
        manifest = load(tmp_path, on_bad="skip")
        assert grades(manifest) == {"0/good.png": 0, "1/good.png": 1}
        assert problem in [str(bad) for bad in manifest.skipped]
        assert len(manifest.skipped) == 2
        assert all(str(bad).isascii() for bad in manifest.skipped)

    @pytest.mark.parametrize("file", ["", "labels.csv"])
    def test_that_of_the_folder_is_said(self, tmp_path: Path, file: str) -> None:
        folder = tmp_path / "r\udce9t"
        text(folder / "labels.csv", "image,level\na,1\n")
        photographs(folder, "a.png")
        assert refused(folder / file).startswith(f"{tmp_path}/r\\udce9t")

    def test_those_of_a_folder_of_something_else_can_be_printed(self, tmp_path: Path) -> None:
        text(tmp_path / "not\udce9", "")
        assert "Found: not\\udce9." in refused(tmp_path)


class TestBadRows:
    @pytest.mark.parametrize("grade", ["5", "-1", "2.5", "x", "1e0", "٣", "9" * 5000, "nan"])
    def test_grades_that_are_none(self, eyepacs: Path, grade: str) -> None:
        text(eyepacs / "trainLabels.csv", f"image,level\n10_left,{grade}\n10_right,1\n")
        message = refused(eyepacs)
        assert f"trainLabels.csv:2: 10_left: its grade is {grade[:40]!r}; grades are 0 to 4" in message
        assert message.startswith(f"{eyepacs}: 1 of the photographs or labels cannot be used (set data.on_bad=skip")

    @pytest.mark.parametrize("line", ["10_left,", "10_left", "10_left,  "])
    def test_empty_grade(self, eyepacs: Path, line: str) -> None:
        text(eyepacs / "trainLabels.csv", f"image,level\n10_right,1\n{line}\n")
        assert "trainLabels.csv:3: 10_left: its grade is empty; grades are 0 to 4" in refused(eyepacs)

    def test_an_empty_grade_is_ungradable_where_the_user_says_so(self, eyepacs: Path) -> None:
        text(eyepacs / "trainLabels.csv", "image,level\n10_right,1\n10_left,\n")
        assert "ungradable" not in refused(eyepacs)
        assert "1 of them is ungradable" in refused(eyepacs, grade_mapping={"": "ungradable"})

    def test_empty_name(self, eyepacs: Path) -> None:
        text(eyepacs / "trainLabels.csv", "image,level\n10_right,1\n,2\n")
        assert "trainLabels.csv:3: (no name): the name of the photograph is empty" in refused(eyepacs)

    def test_two_grades_for_one_photograph_drop_both(self, eyepacs: Path) -> None:
        text(eyepacs / "trainLabels.csv", "image,level\n10_left,0\n10_right,1\n10_left.jpeg,3\n")
        manifest = load(eyepacs, on_bad="skip")
        assert grades(manifest) == {"10_right": 1}
        assert [str(bad) for bad in manifest.skipped] == [
            "trainLabels.csv:2: 10_left: two grades for one photograph: 0 here, 3 at trainLabels.csv:4",
            "trainLabels.csv:4: 10_left.jpeg: two grades for one photograph: 3 here, 0 at trainLabels.csv:2",
        ]

    def test_a_repeated_row_keeps_the_first(self, eyepacs: Path) -> None:
        text(eyepacs / "trainLabels.csv", "image,level\n10_left,0\n10_right,1\n10_left,0\n")
        manifest = load(eyepacs, on_bad="skip")
        assert grades(manifest) == {"10_left": 0, "10_right": 1}
        assert [str(bad) for bad in manifest.skipped] == [
            "trainLabels.csv:4: 10_left: listed twice; the first time at trainLabels.csv:2"
        ]

    def test_missing_photograph(self, eyepacs: Path) -> None:
        (eyepacs / "train" / "10_right.jpg").unlink()
        photograph(eyepacs / "images" / "unrelated.png")
        assert (
            "trainLabels.csv:3: 10_right: the photograph is missing; photographs are in train/ (2), images/ (1)"
            in refused(eyepacs)
        )
        assert grades(load(eyepacs, on_bad="skip")) == {"10_left": 0, "13_left": 4}

    @pytest.mark.parametrize(
        "name",
        [
            *("../secret", "../../secret.png", "a/../../secret", "..\\secret", "/etc/secret", "C:\\secret", ".."),
            *("file:///secret", "https://example.org/good.png"),
        ],
    )
    @pytest.mark.parametrize("alone", [False, True])
    def test_names_that_leave_the_folder_are_never_opened(self, tmp_path: Path, name: str, alone: bool) -> None:
        photographs(tmp_path, "secret.png", "inner/good.png")
        text(tmp_path / "inner" / "labels.csv", f"image,level\ngood,1\n{name},2\n")
        problem = f"labels.csv:3: {name}: this name leads out of the data folder; it was not opened"
        assert problem in refused(tmp_path / "inner", alone=alone)
        manifest = load(tmp_path / "inner", alone=alone, on_bad="skip")
        assert grades(manifest) == {"good": 1}
        assert [str(bad) for bad in manifest.skipped] == [problem]

    def test_an_absolute_path_of_a_photograph_that_exists_is_refused(self, tmp_path: Path) -> None:
        photograph(tmp_path / "secret.png")
        text(tmp_path / "inner" / "labels.csv", f"image,level\n{tmp_path / 'secret.png'},2\n")
        assert "leads out of the data folder" in refused(tmp_path / "inner")

    def test_many_are_counted_and_ten_are_listed(self, eyepacs: Path) -> None:
        text(eyepacs / "trainLabels.csv", "image,level\n10_left,0\n" + "".join(f"{i}_left,1\n" for i in range(50, 75)))
        message = refused(eyepacs)
        assert "25 of the photographs or labels cannot be used" in message
        assert message.endswith("  ... and 15 more")

    def test_one_listing_a_folder_however_many_photographs(self, tmp_path: Path, monkeypatch: Any) -> None:
        names = [f"{i}_left" for i in range(300)]
        text(tmp_path / "trainLabels.csv", "image,level\n" + "".join(f"{name},1\n" for name in names))
        (tmp_path / "train").mkdir()
        for name in names:
            (tmp_path / "train" / f"{name}.jpeg").touch()
        asked: list[str] = []
        for call in ("scandir", "stat"):
            original = getattr(os, call)
            monkeypatch.setattr(os, call, lambda *a, _f=original, **k: (asked.append(str(a[0])), _f(*a, **k))[1])
        assert len(load(tmp_path).frame) == 300
        assert asked
        assert len(asked) < 20

    def test_a_hidden_twin_and_a_dead_link_are_no_photographs(self, eyepacs: Path) -> None:
        (eyepacs / "train" / "10_left.jpeg").unlink()
        (eyepacs / "train" / "10_left.jpeg").symlink_to(eyepacs / "gone.jpeg")
        (eyepacs / "train" / "._10_left.jpeg").touch()
        assert "10_left: the photograph is missing" in refused(eyepacs)


class TestMasks:
    """Pictures of the photographs' names that are no photographs."""

    @pytest.mark.parametrize("folder", ["Masks", "IRMA_Masks", "2. Groundtruths", "lesion_segmentation/train/label/EX"])
    def test_do_not_take_the_place_of_photographs_that_are_missing(self, tmp_path: Path, folder: str) -> None:
        listed(tmp_path, *(f"{name},1" for name in "abcde"))
        photographs(tmp_path / "images", "a.png", "b.png", "c.png")
        photographs(tmp_path / folder, *(f"{name}.png" for name in "abcde"))
        message = refused(tmp_path)
        assert "2 of the photographs or labels cannot be used" in message
        said = f"{folder}/d.png has its name and lies in a folder of masks; data.image_folder chooses a folder"
        assert f"labels.csv:5: d: the photograph is missing; {said}" in message
        manifest = load(tmp_path, on_bad="skip")
        assert places(manifest) == ["images/a.png", "images/b.png", "images/c.png"]
        assert len(manifest.unused.photographs) == 5

    def test_alone_are_no_photographs(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,1", "b,2")
        photographs(tmp_path / "IRMA_Masks", "a.png", "b.png")
        message = refused(tmp_path)
        assert "labels.csv list 2 photographs, and none of them is there" in message
        assert "labels.csv:2: a: IRMA_Masks/a.png has its name and lies in a folder of masks" in message

    @pytest.mark.parametrize(
        ("name", "folder", "labels", "chosen"),
        [
            ("Masks/a.png", "Masks", "", None),
            ("a", "Masks", "", "masks"),
            ("a", "masks/left", "", "masks"),
            ("a", "A. Segmentation/1. Original Images/a. Training Set", "", None),
            ("a", "lesion_segmentation/train/image", "", None),
            ("a", "Segmentation/left", "Segmentation", None),
        ],
    )
    def test_a_folder_that_is_named_or_has_the_list_or_the_originals_counts(
        self, tmp_path: Path, name: str, folder: str, labels: str, chosen: str | None
    ) -> None:
        listed(tmp_path / labels, f"{name},1")
        photographs(tmp_path / folder, "a.png")
        assert places(load(tmp_path, image_folder=chosen)) == [f"{folder}/a.png"]
