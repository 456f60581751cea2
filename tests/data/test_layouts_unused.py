"""Files of a data folder that are not used, and the shared cases."""

from pathlib import Path

import pytest
from dataset_layouts import column, listed, load, photographs, refused, text

from retina import cli


class TestUnused:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A data set with photographs that no list names, for the commands."""
        rows = [f"{n}_left,{n % 5}" for n in range(10)]
        listed(tmp_path / "set", *rows, name="trainLabels.csv")
        photographs(tmp_path / "set" / "train", *(f"{n}_left.png" for n in range(12)))
        photographs(tmp_path / "set" / "train_augmented", *(f"{n}_left_a.png" for n in range(15)))
        text(tmp_path / "set" / "notes.md", "x")
        return tmp_path / "set"

    LINES = ("15 photographs in train_augmented/ are not used", "2 photographs in train/ are not used",
             "1 other file not used: notes.md")  # fmt: skip

    def test_each_folder_has_a_line_and_each_file_a_row(self, folder: Path) -> None:
        unused = load(folder).unused
        assert sorted(unused.in_words()) == sorted(self.LINES)
        files = [row["file"] for row in unused.rows()]
        assert len(files) == 18
        assert {"train/10_left.png", "train_augmented/0_left_a.png", "notes.md"} <= set(files)

    def test_only_hidden_folders_and_those_of_programs_do_not_count(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,0", "b,1")
        photographs(tmp_path, "a.png", "b.png", "__old/c.png", "__MACOSX/d.png", ".trash/e.png")
        assert load(tmp_path).unused.photographs == ["__old/c.png"]

    def test_a_spreadsheet_that_somebody_has_open(self, tmp_path: Path) -> None:
        listed(tmp_path, "a,0", "b,1")
        text(tmp_path / "~$labels.xlsx", "\x05Jane Doe")
        photographs(tmp_path, "a.png", "b.png")
        assert load(tmp_path).remarks == []

    def test_many_folders_are_summed_up(self, tmp_path: Path) -> None:
        photographs(tmp_path, "0/a.png", "1/b.png", *(f"odd/{n}/deep/c.png" for n in range(14)))
        photographs(tmp_path / "odd", "used.png")
        listed(tmp_path, "a,0", "b,1", "used,2")
        lines = load(tmp_path, layout="list").unused.in_words()
        assert len(lines) == 11
        assert lines[-1] == "4 photographs in 4 other folders are not used"

    def test_prepare_says_so_and_lists_them(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["data", "prepare", str(folder), "--image-size", "16"]) == 0
        said = capsys.readouterr().out
        assert all(line in said for line in self.LINES)
        file = Path(said.split("not used: ")[-1].strip())
        assert file.read_text().splitlines()[0] == "file,kind"
        assert len(file.read_text().splitlines()) == 19

    def test_audit_says_so_and_lists_them(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(folder.parent)
        assert cli.main(["data", "audit", str(folder), "--html", "page.html"]) == 0
        said = capsys.readouterr().out
        assert all(line in said for line in self.LINES)
        assert len(Path("page-unused.csv").read_text().splitlines()) == 19
        assert Path("page-unused.csv").stat().st_mode & 0o777 == 0o600

    def test_prepare_lists_what_it_leaves_out(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with (folder / "trainLabels.csv").open("a") as labels:
            labels.write("10_left,9\n")
        (folder / "train" / "3_left.png").write_bytes(b"")
        command = ["data", "prepare", str(folder), "--image-size", "16", "--on-bad", "skip"]
        assert cli.main(command) == 0
        said = capsys.readouterr().out
        assert "2 photographs or labels were left out" in said
        rows = Path(said.split("left out: ")[-1].split("\n")[0]).read_text().splitlines()
        assert rows[1] == "trainLabels.csv:12,10_left,its grade is '9'; grades are 0 to 4"
        assert rows[2].startswith("trainLabels.csv:5,3_left,")

    def test_a_dry_run_says_so(self, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        space = text(tmp_path / "x.yaml", "parameters: {pretrained: {value: false}}\ntrials: 1\n")
        assert cli.main(["sweep", "--space", str(space), "--data", str(folder), "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert all(f"note: {line}" in said for line in self.LINES)
        assert "left out" not in said

    def test_a_dry_run_says_what_is_left_out(
        self, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        with (folder / "trainLabels.csv").open("a") as labels:
            labels.write("10_left,9\n")
        space = text(tmp_path / "x.yaml", "parameters: {pretrained: {value: false}}\ntrials: 1\ndata: {on_bad: skip}\n")
        assert cli.main(["sweep", "--space", str(space), "--data", str(folder), "--dry-run"]) == 0
        wanted = "note: 1 photographs or labels were left out, the first: trainLabels.csv:12: 10_left: its grade is '9'"
        assert wanted in capsys.readouterr().out

    def test_columns_can_be_chosen_for_prepare(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command = ["data", "prepare", str(folder), "--image-size", "16", "--set"]
        assert cli.main([*command, "data.grade_column=foo"]) == 2
        assert "data.grade_column is 'foo'; found the columns: image, level" in capsys.readouterr().err
        assert cli.main([*command, "grade_column=level", "grade_mapping={4: 3}"]) == 0
        assert cli.main([*command, "level"]) == 2
        assert "allowed: KEY=VALUE" in capsys.readouterr().err
        assert cli.main([*command, "grade_mapping={a: 0, a: 4}"]) == 2  # as in a sweep file
        assert "--set grade_mapping={a: 0, a: 4}: the key 'a' is given twice" in capsys.readouterr().err


LEGENDS = {
    "classes.txt": "No_DR 0\nMild 1\nModerate 2\nSevere 3\nProliferate_DR 4\n",
    "class_map.csv": "name,class\nNo_DR,0\nMild,1\nModerate,2\nSevere,3\nProliferate_DR,4\n",
    "labels_map.csv": "label,name\n0,No DR\n1,Mild\n2,Moderate\n3,Severe\n4,PDR\n",
    "README.txt": "version 2\nrelease 3\n",
}


@pytest.mark.parametrize("legend", LEGENDS)
class TestLegends:
    """Tables that name the grades and no photographs."""

    def said(self, name: str) -> list[str]:
        return [f"1 other file not used: {name}"]

    def test_beside_a_list(self, tmp_path: Path, legend: str) -> None:
        text(tmp_path / legend, LEGENDS[legend])
        listed(tmp_path, "a,0", "b,1")
        photographs(tmp_path, "a.png", "b.png")
        manifest = load(tmp_path)
        assert column(manifest, "grade") == [0, 1]
        assert manifest.remarks == self.said(legend)

    def test_above_the_folder_of_the_set(self, tmp_path: Path, legend: str) -> None:
        text(tmp_path / legend, LEGENDS[legend])
        listed(tmp_path / "set", "a,0", "b,1")
        photographs(tmp_path / "set", "a.png", "b.png")
        manifest = load(tmp_path)
        assert column(manifest, "grade") == [0, 1]
        assert manifest.remarks == self.said(legend)

    def test_beside_class_folders(self, tmp_path: Path, legend: str) -> None:
        text(tmp_path / legend, LEGENDS[legend])
        photographs(tmp_path, "0/a.png", "1/b.png")
        manifest = load(tmp_path)
        assert (manifest.layout, column(manifest, "grade")) == ("folders", [0, 1])
        assert manifest.remarks == self.said(legend)


class TestListsThatLookLikeLegends:
    def test_photographs_that_are_called_as_grades_are(self, tmp_path: Path) -> None:
        for header, rows in (("image,level", ["1,1", "2,2"]), ("image,level", ["mild,1", "severe,3"])):
            listed(tmp_path, *rows, header=header)
            photographs(tmp_path, *(f"{row.split(',')[0]}.png" for row in rows))
            assert len(load(tmp_path).frame) == 2

    def test_a_list_without_a_header_alone_says_that_its_photographs_are_absent(self, tmp_path: Path) -> None:
        text(tmp_path / "mine.txt", "a 0\nb 1\n")
        assert "mine.txt list 2 photographs, and none of them is there" in refused(tmp_path)
        photographs(tmp_path, "c.png")
        assert "mine.txt list 2 photographs, and none of them is there" in refused(tmp_path)

    def test_of_two_lists_without_a_header_the_absent_test_list_is_still_named(self, tmp_path: Path) -> None:
        text(tmp_path / "train.txt", "a 0\nb 1\n")
        text(tmp_path / "test.txt", "x 0\ny 1\n")
        photographs(tmp_path, "a.png", "b.png")
        manifest = load(tmp_path)
        assert column(manifest, "split") == ["", ""]
        assert manifest.notes == ["test.txt lists 2 photographs and none of them exists: left out"]


RIGHT = {
    "a10_sovitrath": (12, [3, 2, 3, 2, 2]),
    "a19_words": (12, [3, 2, 3, 2, 2]),
    "a2_cropped_only": (11, [3, 2, 3, 1, 2]),
    "b2_utf16": (12, [3, 2, 3, 2, 2]),
    "b3_semicolon": (12, [3, 2, 3, 2, 2]),
    "c12_train_one_grade": (18, [6, 3, 3, 3, 3]),
    "c4_webp_jfif_folders": (35, [7] * 5),
    "c7_webp_list": (12, [3, 2, 3, 2, 2]),
    "c8_split_names": (45, [9] * 5),
    "c9_zero_padded": (15, [3] * 5),
}
SKIPPED = {"a6_messidor2_google": (11, 1), "a9_ddr_official": (21, 3)}
REFUSED = {
    "d1_root_and_train": "by the class folders 0/ ... 4/ and by train/0/ ... train/4/",
    "d6_same_name_two_folders": "im0.png: 2 photographs have this name: test/im0.png and train/im0.png",
    "e2_folder_0-1": "its grade is '0-1'; grades are 0 to 4",
    "a6_messidor2_google": "1 of them is ungradable",
    "a9_ddr_official": "3 of them are ungradable",
}


class TestSharedCases:
    @pytest.mark.parametrize("case", RIGHT)
    def test_read(self, shared: Path, case: str) -> None:
        manifest = load(shared / "cases" / case)
        counts = manifest.frame["grade"].value_counts().sort_index().tolist()
        assert (len(manifest.frame), counts, manifest.unused.photographs) == (*RIGHT[case], [])

    @pytest.mark.parametrize("case", SKIPPED)
    def test_read_without_the_ungradable(self, shared: Path, case: str) -> None:
        manifest = load(shared / "cases" / case, on_bad="skip")
        assert (len(manifest.frame), len(manifest.skipped)) == SKIPPED[case]
        assert all(bad.ungradable for bad in manifest.skipped)

    @pytest.mark.parametrize("case", REFUSED)
    def test_refused(self, shared: Path, case: str) -> None:
        assert REFUSED[case] in refused(shared / "cases" / case)

    def test_splits(self, shared: Path) -> None:
        for case, splits in (("c8_split_names", [15, 15, 15]), ("c12_train_one_grade", [15, 3])):
            counts = load(shared / "cases" / case).frame["split"].value_counts(sort=False).tolist()
            assert counts == splits
