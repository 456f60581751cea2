"""Drawn copies of public data sets, as they are downloaded and unpacked, and what is read of them."""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from dataset_layouts import column, grades, load, photographs, places, refused, text

ODIR = "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,Right-Diagnostic Keywords,N,D"


def spreadsheet(file: Path, *tables: Iterable[Iterable[str | float]]) -> Path:
    """Write the least xlsx that a spreadsheet program opens: a sheet a table, text in the cells or numbers."""

    def cell(value: str | float) -> str:
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return f"<c><v>{value}</v></c>"

    sheets = ["".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows) for rows in tables]
    numbers = range(1, len(sheets) + 1)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" ContentType="application/vnd.'
            f'openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" ContentType="{kind}.'
            'sheet.main+xml"/>'
            + "".join(f'<Override PartName="/xl/s{n}.xml" ContentType="{kind}.worksheet+xml"/>' for n in numbers)
            + "</Types>",
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="a" Type="{office}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{package}/relationships">'
            + "".join(f'<Relationship Id="s{n}" Type="{office}/worksheet" Target="s{n}.xml"/>' for n in numbers)
            + "</Relationships>",
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
            + "".join(f'<sheet name="sheet {n}" sheetId="{n}" r:id="s{n}"/>' for n in numbers)
            + "</sheets></workbook>",
        )
        for n, sheet in zip(numbers, sheets, strict=True):
            archive.writestr(f"xl/s{n}.xml", f'<worksheet xmlns="{main}"><sheetData>{sheet}</sheetData></worksheet>')
    return file


class TestEyepacs:
    def test_unpacked_archive_by_archive(self, tmp_path: Path) -> None:
        text(tmp_path / "trainLabels.csv" / "trainLabels.csv", "image,level\n10_left,0\n10_right,1\n13_left,4\n")
        text(tmp_path / "sampleSubmission.csv", "image,level\n1_left,0\n1_right,0\n")
        for part, name in enumerate(("10_left", "10_right", "13_left"), start=1):
            photographs(tmp_path / f"train.zip.00{part}" / "train", f"{name}.jpeg")
        manifest = load(tmp_path)
        assert (manifest.layout, grades(manifest)) == ("eyepacs", {"10_left": 0, "10_right": 1, "13_left": 4})
        assert column(manifest, "patient") == ["10", "10", "13"]
        assert places(manifest)[1] == "train.zip.002/train/10_right.jpeg"

    @pytest.fixture
    def resized(self, tmp_path: Path) -> Path:
        """Two versions of each photograph, each with a list of its own."""
        text(tmp_path / "trainLabels.csv", "image,level\n10_left,0\n10_right,1\n13_left,4\n")
        text(tmp_path / "trainLabels_cropped.csv", ",Unnamed: 0,image,level\n0,0,10_left,0\n1,1,10_right,1\n")
        photographs(tmp_path / "resized_train" / "resized_train", "10_left.jpeg", "10_right.jpeg", "13_left.jpeg")
        photographs(tmp_path / "resized_train_cropped" / "resized_train_cropped", "10_left.jpeg", "10_right.jpeg")
        return tmp_path

    def test_two_lists_of_the_same_photographs_are_both_named(self, resized: Path) -> None:
        message = refused(resized)
        assert (
            "trainLabels.csv and trainLabels_cropped.csv both list 2 of the photographs (for example 10_left)"
            in message
        )
        assert message.endswith(f"{resized / 'trainLabels.csv'} or {resized / 'trainLabels_cropped.csv'}")

    def test_the_folder_that_alone_has_all_of_a_list_is_its_own(self, resized: Path) -> None:
        manifest = load(resized / "trainLabels.csv")
        assert {place.split("/")[0] for place in places(manifest)} == {"resized_train"}
        assert manifest.unused.in_words()[0] == "2 photographs in resized_train_cropped/ are not used"

    def test_where_two_folders_have_it_the_user_chooses(self, resized: Path) -> None:
        file = resized / "trainLabels_cropped.csv"
        names = ("resized_train/resized_train/10_left.jpeg", "resized_train_cropped/resized_train_cropped/10_left.jpeg")
        assert f"2 photographs have this name: {' and '.join(names)}; write its folder before" in refused(file)
        manifest = load(file, image_folder="resized_train_cropped")
        assert {place.split("/")[0] for place in places(manifest)} == {"resized_train_cropped"}
        assert "the folders in" in refused(file, image_folder="cropped")

    def test_resized_2015_and_2019_with_their_lists_in_one_folder(self, tmp_path: Path) -> None:
        for name, header, row in (
            ("trainLabels15", "image,level", "1_left,2"),
            ("testLabels15", "image,level,Usage", "2_left,1,Private"),
            ("trainLabels19", "id_code,diagnosis", "00cb,4"),
        ):
            text(tmp_path / "labels" / f"{name}.csv", f"{header}\n{row}\n")
            split, year = name[:-8].removesuffix("L"), name[-2:]
            photographs(tmp_path / f"resized {split} {year}", f"{row.split(',')[0]}.jpg")
        manifest = load(tmp_path)
        assert grades(manifest) == {"1_left": 2, "00cb": 4, "2_left": 1}
        assert column(manifest, "split") == ["train", "train", "test"]

    def test_augmented_beside_the_splits_is_counted(self, tmp_path: Path) -> None:
        for split in ("train", "val", "test", "train_augmented"):
            for grade in range(5):
                photographs(tmp_path / split / str(grade), *(f"{split}{grade}{i}.png" for i in range(3)))
        manifest = load(tmp_path)
        assert manifest.frame["split"].value_counts().to_dict() == {"train": 15, "val": 15, "test": 15}
        assert manifest.unused.in_words() == ["15 photographs in train_augmented/ are not used"]
        assert len(manifest.unused.photographs) == 15
        assert manifest.unused.photographs[0] == "train_augmented/0/train_augmented00.png"

    def test_two_versions_with_splits_are_two_readings(self, tmp_path: Path) -> None:
        for version in ("augmented", "unified/unified"):
            for split in ("train", "test"):
                photographs(tmp_path / version / split, "0/a.jpg", "1/b.jpg")
        message = refused(tmp_path)
        assert (
            "by the class folders augmented/train/0/ ... augmented/train/1/ and by unified/unified/train/0/" in message
        )
        assert len(load(tmp_path, image_folder="unified").frame) == 4


class TestAptos:
    @pytest.fixture
    def filtered(self, tmp_path: Path) -> Path:
        text(tmp_path / "train.csv", "id_code,diagnosis\n00a,0\n00b,2\n00c,4\n")
        base = tmp_path / "gaussian_filtered_images" / "gaussian_filtered_images"
        photographs(base, "No_DR/00a.png", "Moderate/00b.png", "Proliferate_DR/00c.png")
        text(base / "export.pkl", "x")
        return tmp_path

    def test_a_list_and_class_folders_that_agree(self, filtered: Path) -> None:
        manifest = load(filtered)
        assert (manifest.layout, grades(manifest)) == ("aptos", {"00a": 0, "00b": 2, "00c": 4})
        expected = "1 other file not used: gaussian_filtered_images/gaussian_filtered_images/export.pkl"
        assert manifest.unused.in_words() == [expected]

    def test_where_they_differ_one_has_to_be_chosen(self, filtered: Path) -> None:
        text(filtered / "train.csv", "id_code,diagnosis\n00a,0\n00b,1\n00c,4\n")
        message = refused(filtered)
        assert "differ about 1 of 3 photographs: train.csv:3 gives 00b the grade 1, and it lies in" in message
        assert "data.layout=aptos uses the label file, data.layout=folders the folders" in message
        assert column(load(filtered, layout="list"), "grade") == [0, 1, 4]
        assert column(load(filtered, layout="folders"), "grade") == [2, 0, 4]

    def test_kaggle_s_own_test_photographs_are_counted(self, tmp_path: Path) -> None:
        text(tmp_path / "train.csv", "id_code,diagnosis\n00a,0\n00b,2\n")
        text(tmp_path / "test.csv", "id_code\nff\n")
        text(tmp_path / "sample_submission.csv", "id_code,diagnosis\nff,0\n")
        photographs(tmp_path, "train_images/00a.png", "train_images/00b.png", "test_images/ff.png")
        manifest = load(tmp_path)
        assert grades(manifest) == {"00a": 0, "00b": 2}
        assert manifest.unused.in_words()[0] == "1 photograph in test_images/ is not used"


class TestMessidor:
    HEADER = ("Image name", "Ophthalmologic department", "Retinopathy grade", "Risk of macular edema ")

    def test_a_spreadsheet_for_each_base(self, tmp_path: Path) -> None:
        for base in ("11", "12"):
            rows = [self.HEADER, (f"{base}_a.tif", "Service", 3.0, 1.0), (f"{base}_b.tif", "Service", 0.0, 0.0)]
            spreadsheet(tmp_path / f"Base{base}" / f"Annotation_Base{base}.xlsx", rows)
            photographs(tmp_path / f"Base{base}", f"{base}_a.tif", f"{base}_b.tif")
        manifest = load(tmp_path)
        assert grades(manifest) == {"11_a.tif": 3, "11_b.tif": 0, "12_a.tif": 3, "12_b.tif": 0}
        assert "a scale of its own" in manifest.notes[0]
        assert manifest.layout == "list"

    def test_labels_in_two_sheets_are_refused_and_a_legend_is_not_read(self, tmp_path: Path) -> None:
        photographs(tmp_path, "a.tif", "b.tif")
        rows, more = [self.HEADER, ("a.tif", "S", 3.0, 1.0)], [self.HEADER, ("b.tif", "S", 0.0, 0.0)]
        file = spreadsheet(tmp_path / "labels.xlsx", rows, [("grade", "meaning"), (0.0, "none")])
        assert grades(load(tmp_path)) == {"a.tif": 3}
        spreadsheet(file, rows, [("grade", "meaning")], more)
        assert refused(tmp_path).startswith(f"{file}: only the first sheet of a spreadsheet is read, and 'sheet 3' has")

    def test_a_spreadsheet_that_is_none_is_refused_with_the_remedy(self, tmp_path: Path) -> None:
        file = text(tmp_path / "labels.xls", "no spreadsheet")
        assert refused(tmp_path).startswith(f"{file}: cannot be read as a spreadsheet")
        assert refused(tmp_path).endswith("save the table as CSV")

    def test_messidor_2_counts_the_ungradable(self, tmp_path: Path) -> None:
        lines = ["image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable", "a.png,0.0,0.0,1"]
        lines += ["b.JPG,4.0,1.0,1", "c.png,,,0"]
        text(tmp_path / "messidor_data.csv", "\n".join(lines))
        photographs(tmp_path / "IMAGES", "a.png", "b.JPG", "c.png")
        message = refused(tmp_path)
        assert "go on without them; 1 of them is ungradable)" in message
        assert "messidor_data.csv:4: c.png: its grade is empty: adjudicated_gradable is 0" in message
        manifest = load(tmp_path, on_bad="skip")
        assert grades(manifest) == {"a.png": 0, "b.JPG": 4}
        assert manifest.notes == ["1 ungradable photograph is left out"]
        assert not manifest.unused.photographs


class TestDdr:
    def test_text_lists_with_three_splits(self, tmp_path: Path) -> None:
        base = tmp_path / "DDR-dataset" / "DR_grading"
        for split in ("train", "valid", "test"):
            text(base / f"{split}.txt", f"{split}-1.jpg 0\n{split}-2.jpg 5\n{split}-3.jpg 4\n")
            photographs(base / split, *(f"{split}-{i}.jpg" for i in (1, 2, 3)))
        photographs(tmp_path / "DDR-dataset" / "lesion_segmentation" / "train" / "image", "train-1.jpg")
        assert "train.txt:2: train-2.jpg: its grade is '5'; grades are 0 to 4, and 5 is ungradable" in refused(tmp_path)
        manifest = load(tmp_path, on_bad="skip")
        assert column(manifest, "split") == ["train", "train", "val", "val", "test", "test"]
        assert column(manifest, "grade") == [0, 4] * 3
        assert "DR_grading/train/train-1.jpg" in places(manifest)[0]
        assert manifest.notes == ["3 ungradable photographs are left out"]
        mapped = load(tmp_path, on_bad="skip", grade_mapping={5: "ungradable"})
        assert "which data.grade_mapping maps to ungradable" in str(mapped.skipped[0])


class TestOdir:
    def test_a_row_of_two_eyes_is_two_photographs_of_one_patient(self, tmp_path: Path) -> None:
        rows = ["0,69,F,0_left.jpg,0_right.jpg,cataract,normal fundus,0,0"]
        rows += [
            "1,57,M,1_left.jpg,1_right.jpg,lens dust，normal fundus,drusen，moderate non proliferative retinopathy,0,1"
        ]
        text(tmp_path / "data.csv", "\n".join([ODIR, *rows]))
        photographs(tmp_path / "Training Images", *(f"{i}_{eye}.jpg" for i in "01" for eye in ("left", "right")))
        assert "data.csv:2: 0_left.jpg: its keywords name no grade of retinopathy: 'cataract'" in refused(tmp_path)
        manifest = load(tmp_path, on_bad="skip")
        assert grades(manifest) == {"0_right.jpg": 0, "1_left.jpg": 0, "1_right.jpg": 2}
        assert column(manifest, "patient") == ["0", "1", "1"]
        assert column(manifest, "eye") == ["right", "left", "right"]

    def test_a_row_for_each_eye_is_read_for_that_eye_alone(self, tmp_path: Path) -> None:
        eyes = "1,57,M,1_left.jpg,1_right.jpg,normal fundus,severe nonproliferative retinopathy,1,0"
        rows = [f"{eyes},../input/1_left.jpg,1_left.jpg", f"{eyes},../input/1_right.jpg,1_right.jpg"]
        text(tmp_path / "full_df.csv", "\n".join([f"{ODIR},filepath,filename", *rows]))
        photographs(tmp_path / "preprocessed_images", "1_left.jpg", "1_right.jpg")
        photographs(tmp_path / "ODIR-5K" / "Training Images", "1_left.jpg", "1_right.jpg")
        assert "2 photographs have this name" in refused(tmp_path)
        manifest = load(tmp_path, image_folder="preprocessed_images")
        assert grades(manifest) == {"1_left.jpg": 0, "1_right.jpg": 3}
        assert manifest.choices == ["full_df.csv: photographs from column filename, of filename, filepath"]


class TestDeepdrid:
    @pytest.fixture
    def deepdrid(self, tmp_path: Path) -> Path:
        for split, patient in (("training", 1), ("validation", 265)):
            folder = tmp_path / "regular_fundus_images" / f"regular-fundus-{split}"
            header = (
                "patient_id,image_id,image_path,Overall quality,left_eye_DR_Level,right_eye_DR_Level,patient_DR_Level"
            )
            front = f"\\regular-fundus-{split}\\{patient}\\"
            rows = [f"{patient},{patient}_l1,{front}{patient}_l1.jpg,1,0,,2"]
            rows += [f"{patient},{patient}_r1,{front}{patient}_r1.jpg,1,,2,2"]
            text(folder / f"regular-fundus-{split}.csv", "\n".join([header, *rows]))
            photographs(folder / "Images" / str(patient), f"{patient}_l1.jpg", f"{patient}_r1.jpg")
        evaluation = tmp_path / "regular_fundus_images" / "Online-Challenge1&2-Evaluation"
        text(evaluation / "Challenge1_upload.csv", "image_id,DR_Level\n347_l1,0\n")
        photographs(evaluation / "Images" / "347", "347_l1.jpg")
        return tmp_path

    def test_each_photograph_has_the_grade_of_its_own_eye(self, deepdrid: Path) -> None:
        manifest = load(deepdrid)
        assert grades(manifest) == {"1_l1": 0, "1_r1": 2, "265_l1": 0, "265_r1": 2}
        assert column(manifest, "eye") == ["left", "right"] * 2
        assert column(manifest, "patient") == ["1", "1", "265", "265"]
        assert column(manifest, "split") == ["train", "train", "val", "val"]

    def test_the_ultra_widefield_lists_beside_them_are_another_reading(self, deepdrid: Path) -> None:
        wide = deepdrid / "ultra-widefield_images" / "ultra-widefield-training"
        text(wide / "ultra-widefield-training.csv", "patient_id,image_id,DR_level\n1,1_l1,3\n")
        photographs(wide / "Images" / "1", "1_l1.jpg")
        message = refused(deepdrid)
        assert "regular-fundus-training.csv" in message
        assert "ultra-widefield-training.csv both list 1 of the photographs" in message
        assert grades(load(deepdrid / "ultra-widefield_images")) == {"1_l1": 3}


class TestOthers:
    def test_brset(self, tmp_path: Path) -> None:
        lines = ["image_id,camera,patient_id,patient_sex,exam_eye,DR_SDRG,DR_ICDR,quality"]
        lines += ["img00001,Canon CR,7,1,1,1,0,Adequate", "img00002,Canon CR,7,1,2,4,3,Adequate"]
        text(tmp_path / "labels_brset.csv", "\n".join(lines))
        text(tmp_path / "SHA256SUMS.txt", "0a1b fundus_photos/img00001.jpg\n2c3d fundus_photos/img00002.jpg\n")
        photographs(tmp_path / "fundus_photos", "img00001.jpg", "img00002.jpg")
        manifest = load(tmp_path)
        assert grades(manifest) == {"img00001": 0, "img00002": 3}
        assert (column(manifest, "patient"), column(manifest, "eye")) == (["7", "7"], ["right", "left"])

    def test_mbrset(self, tmp_path: Path) -> None:
        text(
            tmp_path / "labels.csv",
            "patient,age,file,laterality,final_quality,final_icdr\n1,62,1.1.jpg,right,yes,0.0\n",
        )
        photographs(tmp_path / "images", "1.1.jpg")
        manifest = load(tmp_path)
        assert (column(manifest, "patient"), column(manifest, "eye")) == (["1"], ["right"])

    def test_fgadr_has_no_header_and_masks_of_the_same_names(self, tmp_path: Path) -> None:
        text(tmp_path / "Seg-set" / "DR_Seg_Grading_Label.csv", "0000_1.png,2\n0001_1.png,0\n")
        for folder in ("IRMA_Masks", "HardExudate_Masks", "Original_Images"):
            photographs(tmp_path / "Seg-set" / folder, "0000_1.png", "0001_1.png")
        manifest = load(tmp_path)
        assert grades(manifest) == {"0000_1.png": 2, "0001_1.png": 0}
        assert places(manifest)[0] == "Seg-set/Original_Images/0000_1.png"
        assert manifest.unused.in_words()[0] == "2 photographs in Seg-set/HardExudate_Masks/ are not used"

    def test_idrid_s_testing_list_does_not_get_the_training_photographs(self, tmp_path: Path) -> None:
        for part, name in (("a", "Training"), ("b", "Testing")):
            file = f"{part}. IDRiD_Disease Grading_{name} Labels.csv"
            text(tmp_path / "2. Groundtruths" / file, "Image name,Retinopathy grade\nIDRiD_001,3\n")
        photographs(tmp_path / "1. Original Images" / "a. Training Set", "IDRiD_001.jpg")
        assert "IDRiD_001: the photograph is missing" in refused(tmp_path)
        assert grades(load(tmp_path, on_bad="skip")) == {"train_IDRiD_001": 3}
