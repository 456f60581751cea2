"""Which columns of a label file count, and what their cells say."""

from pathlib import Path

import pytest
from dataset_layouts import column, grades, listed, load, photographs, refused, text


class TestColumns:
    @pytest.fixture
    def odd(self, tmp_path: Path) -> Path:
        """A list whose columns have names that nobody knows."""
        rows = [f"{n},p{n}.png,{n % 5},{n % 2},who{n // 2},{'OD' if n % 2 else 'OS'}" for n in range(10, 20)]
        listed(tmp_path, *rows, header="nr,picture,reading,sex,person,which", name="mine.csv")
        photographs(tmp_path / "pictures", *(f"p{n}.png" for n in range(10, 20)))
        return tmp_path

    def test_the_only_ones_that_fit_are_taken_and_named(self, odd: Path) -> None:
        manifest = load(odd)
        assert column(manifest, "grade") == [n % 5 for n in range(10, 20)]
        assert manifest.choices == [
            "mine.csv: column picture, the only one that names photographs",
            "mine.csv: column reading, the only one that holds only grades",
        ]

    def test_the_user_s_choice_counts(self, odd: Path) -> None:
        chosen = {"image_column": "Picture", "grade_column": "sex", "patient_column": "person", "eye_column": "which"}
        manifest = load(odd, **chosen)
        assert column(manifest, "grade") == [n % 2 for n in range(10, 20)]
        assert column(manifest, "patient")[:3] == ["who5", "who5", "who6"]
        assert column(manifest, "eye")[:2] == ["left", "right"]

    @pytest.mark.parametrize("role", ["image", "grade", "patient", "eye"])
    def test_a_column_that_is_not_there_lists_those_that_are(self, odd: Path, role: str) -> None:
        expected = f"{odd / 'mine.csv'}: data.{role}_column is 'foo'; found the columns: nr, picture, reading, sex"
        assert expected in refused(odd, **{f"{role}_column": "foo"})

    def test_two_columns_of_grades_have_to_be_chosen_from(self, odd: Path) -> None:
        lines = (odd / "mine.csv").read_text().splitlines()
        text(odd / "mine.csv", "\n".join([f"{lines[0]},second", *(f"{line},{line[1]}" for line in lines[1:])]).replace(
            ",5", ",0").replace(",6", ",1").replace(",7", ",2").replace(",8", ",3").replace(",9", ",4"))  # fmt: skip
        assert "each of the columns reading, second holds only grades; choose one with data.grade_column" in refused(
            odd
        )

    def test_two_known_columns_that_differ_have_to_be_chosen_from(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,1,1", "b,2,3", header="image,level,diagnosis")
        photographs(tmp_path, "a.png", "b.png")
        assert "the columns level, diagnosis hold different grades; choose one with data.grade_column" in refused(
            tmp_path
        )
        assert column(load(tmp_path, grade_column="diagnosis"), "grade") == [1, 3]

    @pytest.mark.parametrize("title", ["label", "class", "diagnosis"])
    def test_a_yes_and_no_beside_grades_has_to_be_chosen_from(self, tmp_path: Path, title: str) -> None:
        rows = [f"{name},{int(at > 1)},{at}" for at, name in enumerate("abcde")]
        file = listed(tmp_path, *rows, header=f"image,{title},severity")
        photographs(tmp_path, *(f"{name}.png" for name in "abcde"))
        assert refused(tmp_path) == (
            f"{file}: the column {title} holds 0 and 1 alone, and severity holds only grades; choose one with "
            "data.grade_column"
        )
        assert column(load(tmp_path, grade_column="severity"), "grade") == [0, 1, 2, 3, 4]
        assert column(load(tmp_path, grade_column=title), "grade") == [0, 0, 1, 1, 1]

    @pytest.mark.parametrize(
        ("header", "rows"),
        [
            ("image,level,severity", ("a,0,0", "b,1,1", "c,1,2")),  # a name of grades alone
            ("image,label,severity", ("a,0,0", "b,2,1", "c,1,2")),
            ("image,label,severity", ("a,0,0", "b,0,1", "c,0,2")),
            ("image,label,sex", ("a,0,0", "b,1,1", "c,1,0")),
            ("image,label,id", ("a,0,0", "b,1,1", "c,1,2")),
            ("image,label,eye", ("a,0,0", "b,1,1", "c,1,2")),
            ("image,label,quality", ("a,0,2", "b,1,7", "c,1,3")),
        ],
    )
    def test_other_columns_do_not_matter(self, tmp_path: Path, header: str, rows: tuple[str, ...]) -> None:
        listed(tmp_path, *rows, header=header)
        photographs(tmp_path, "a.png", "b.png", "c.png")
        assert column(load(tmp_path), "grade") == [int(row.split(",")[1]) for row in rows]

    def test_of_two_known_columns_the_one_that_names_photographs_counts(self, tmp_path: Path) -> None:
        listed(tmp_path, "1,x.png,1", "2,y.png,2", header="image_id,filename,level")
        photographs(tmp_path, "x.png", "y.png")
        assert grades(load(tmp_path)) == {"x.png": 1, "y.png": 2}

    def test_two_columns_of_one_title_are_refused(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,1,2", header="image,level,Level")
        photographs(tmp_path, "a.png")
        assert "2 columns are called 'level'" in refused(tmp_path)

    def test_a_patient_column_that_repeats_the_names_is_none(self, tmp_path: Path) -> None:
        listed(tmp_path, "1_left,1,1_left.png", "1_right,2,1_right.png", header="image,level,patient_id")
        photographs(tmp_path, "1_left.png", "1_right.png")
        manifest = load(tmp_path)
        assert column(manifest, "patient") == ["1", "1"]
        assert manifest.choices == ["labels.csv: column patient_id repeats the photographs' names and names no patient"]

    def test_a_column_is_not_chosen_where_nothing_has_columns(self, tmp_path: Path) -> None:
        photographs(tmp_path, "0/a.png", "1/b.png")
        assert "data.grade_column is given, and there is no label file with columns" in refused(
            tmp_path, grade_column="level"
        )

    def test_empty_patients_are_nobody_however_programs_write_them(self, tmp_path: Path) -> None:
        patients = ["NaN", "nan", "", "<NA>", "None", "7.0", "7", "07", "7.5"]
        listed(tmp_path, *(f"p{n},1,{one}" for n, one in enumerate(patients)), header="image,level,patient_id")
        photographs(tmp_path, *(f"p{n}.png" for n in range(9)))
        assert column(load(tmp_path), "patient") == ["p0", "p1", "p2", "p3", "p4", "7", "7", "07", "7.5"]


class TestGradable:
    @pytest.mark.parametrize(
        ("title", "no", "yes"),
        [
            ("gradable", "0", "1"),
            ("Ungradable", "1", "0"),
            ("DR not gradeable", "Yes", "No"),
            ("is_gradeable", "0.0", "1"),
        ],
    )
    def test_a_grade_that_nobody_could_give_is_none(self, tmp_path: Path, title: str, no: str, yes: str) -> None:
        listed(tmp_path, f"a,1,{yes}", f"b,0,{no}", f"c,,{yes}", header=f"image,level,{title}")
        photographs(tmp_path, "a.png", "b.png", "c.png")
        assert f"labels.csv:3: b: its grade is '0': {title} is {no}" in refused(tmp_path)
        assert "labels.csv:4: c: its grade is empty; grades are 0 to 4" in refused(tmp_path)
        assert grades(load(tmp_path, on_bad="skip")) == {"a": 1}

    @pytest.mark.parametrize(
        ("title", "no", "yes"),
        [
            ("gradable", "n", "Y"),
            ("gradable", "F", "t"),
            ("gradable", "ungradable", "gradable"),
            ("ungradable", "Ungradable", "Gradeable"),
            ("ungradable", "y", "n"),
            ("not_gradable", "1,0", "0.00"),
            ("gradable", "not gradable", "nan"),
            ("gradable", "No", ""),
        ],
    )
    def test_however_it_is_written(self, tmp_path: Path, title: str, no: str, yes: str) -> None:
        listed(tmp_path, f"a;1;{yes}", f"b;0;{no}", header=f"image;level;{title}")
        photographs(tmp_path, "a.png", "b.png")
        assert f"labels.csv:3: b: its grade is '0': {title} is {no}" in refused(tmp_path)
        manifest = load(tmp_path, on_bad="skip")
        assert grades(manifest) == {"a": 1}
        assert manifest.skipped[0].ungradable

    @pytest.mark.parametrize("cell", ["2", "good", "maybe", "unknown"])
    def test_another_word_is_refused(self, tmp_path: Path, cell: str) -> None:
        listed(tmp_path, "a,1,1", f"b,0,{cell}", header="image,level,gradable")
        photographs(tmp_path, "a.png", "b.png")
        said = f"labels.csv:3: b: gradable is {cell!r}; allowed: yes, no, 1, 0, true, false"
        assert said in refused(tmp_path)
        manifest = load(tmp_path, on_bad="skip")
        assert grades(manifest) == {"a": 1}
        assert not manifest.skipped[0].ungradable

    @pytest.mark.parametrize(
        ("titles", "cells", "left"),
        [
            (("gradable",), ("no",), []),
            (("left_gradable", "right_gradable"), ("0", "1"), ["2.png"]),
            (("left_gradable", "right_ungradable"), ("1", "1"), ["1.png"]),
        ],
    )
    def test_of_both_eyes_in_a_row(
        self, tmp_path: Path, titles: tuple[str, ...], cells: tuple[str, ...], left: list[str]
    ) -> None:
        header = ",".join(["left_image", "right_image", "left_grade", "right_grade", *titles])
        listed(tmp_path, ",".join(["1.png", "2.png", "3", "4", *cells]), "3.png,4.png,0,1", header=header)
        photographs(tmp_path, "1.png", "2.png", "3.png", "4.png")
        assert f"{2 - len(left)} of them {'is' if left else 'are'} ungradable" in refused(tmp_path)
        assert column(load(tmp_path, on_bad="skip"), "image") == [*left, "3.png", "4.png"]


class TestTwins:
    """Two columns that could both be read as one thing."""

    @pytest.mark.parametrize(
        ("header", "settings", "title"),
        [
            ("image,reading,reading", {"grade_column": "reading"}, "reading"),
            ("image,level,split,split", {}, "split"),
            ("image,level,patient_id,Patient ID", {}, "patient_id"),
            ("image,level,eye,eye", {}, "eye"),
            ("image,level,gradable,Gradable", {}, "gradable"),
            ("image,level,who,who", {"patient_column": "who"}, "who"),
            ("left_image,right_image,left_grade,right_grade,left_grade", {}, "left_grade"),
            ("level,picture,level", {"image_column": "picture"}, "level"),
        ],
    )
    def test_of_one_title_are_refused(self, tmp_path: Path, header: str, settings: dict[str, str], title: str) -> None:
        cells = ["a.png", "1", "0", "1", "1"][: header.count(",") + 1]
        file = listed(tmp_path, ",".join(cells), header=header)
        photographs(tmp_path, "a.png")
        assert refused(tmp_path, **settings) == (
            f"{file}: 2 columns are called {title!r}; give one of them another title"
        )

    def test_of_one_title_that_are_not_read_do_not_matter(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,1,2,3,x,y", header="image,level,note,note,,")
        photographs(tmp_path, "a.png")
        assert grades(load(tmp_path)) == {"a": 1}

    @pytest.mark.parametrize(
        ("titles", "cells", "remedy"),
        [
            (("split", "set"), ("train,test", "test,test"), "give one of them another title"),
            (("split", "subset"), ("train,", "test,test"), "give one of them another title"),
            (("eye", "laterality"), ("left,right", "right,right"), "choose one with data.eye_column"),
            (("patient", "subject_id"), ("p1,p2", "p1,p1"), "choose one with data.patient_column"),
            (("patient", "patient_id"), ("p1,", "p1,p1"), "choose one with data.patient_column"),
            (("gradable", "is_gradable"), ("1,1", "0,1"), "give one of them another title"),
            (("gradable", "ungradable"), ("1,1", "1,0"), "give one of them another title"),
        ],
    )
    def test_of_two_known_titles_that_differ_are_refused(
        self, tmp_path: Path, titles: tuple[str, str], cells: tuple[str, str], remedy: str
    ) -> None:
        file = listed(tmp_path, f"a,1,{cells[0]}", f"b,2,{cells[1]}", header=f"image,level,{','.join(titles)}")
        photographs(tmp_path, "a.png", "b.png")
        assert refused(tmp_path) == f"{file}: the columns {', '.join(titles)} differ; {remedy}"

    def test_of_two_known_titles_the_one_that_says_something_counts(self, tmp_path: Path) -> None:
        header = "image,level,patient_id,subject,set,split,side,laterality,gradable,image_gradable"
        rows = ["a,1,a.png,7,eyepacs,train,,OD,1,yes", "b,2,b.png,7,eyepacs,test,,OS,1,y"]
        listed(tmp_path, *rows, header=header)
        photographs(tmp_path, "a.png", "b.png")
        manifest = load(tmp_path)
        assert column(manifest, "patient") == ["7", "7"]
        assert column(manifest, "split") == ["train", "test"]
        assert column(manifest, "eye") == ["right", "left"]
        assert manifest.choices == [
            "labels.csv: split from column split, of split, set",
            "labels.csv: patient from column subject, of patient_id, subject",
            "labels.csv: eye from column laterality, of laterality, side",
            "labels.csv: gradable from column gradable, of gradable, image_gradable",
        ]

    def test_two_names_of_the_same_patients_agree(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,1,Jo,1", "b,2,Jo,1.0", "c,0,Al,2", header="image,level,patient,patient_id")
        photographs(tmp_path, "a.png", "b.png", "c.png")
        assert column(load(tmp_path), "patient") == ["Jo", "Jo", "Al"]

    def test_two_grades_of_one_eye_are_refused_where_they_differ(self, tmp_path: Path) -> None:
        header = "left_image,right_image,left_grade,right_grade,left_level"
        file = listed(tmp_path, "1.png,2.png,3,4,2", header=header)
        photographs(tmp_path, "1.png", "2.png")
        assert refused(tmp_path) == f"{file}: the columns left_grade, left_level differ; give one of them another title"
        listed(tmp_path, "1.png,2.png,3,4,severe", header=header)
        assert column(load(tmp_path), "grade") == [3, 4]

    def test_a_chosen_column_settles_it(self, tmp_path: Path) -> None:
        header = "image,level,patient,subject,eye,side"
        listed(tmp_path, "a,1,p1,s1,left,right", "b,2,p2,s1,left,right", header=header)
        photographs(tmp_path, "a.png", "b.png")
        manifest = load(tmp_path, patient_column="subject", eye_column="side")
        assert (column(manifest, "patient"), column(manifest, "eye")) == (["s1", "s1"], ["right", "right"])
