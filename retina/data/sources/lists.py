"""The layouts of label files beside folders of photographs: the course's lists, EyePACS, APTOS 2019, IDRiD, others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from retina.data.sources.rows import Labels, Row
from retina.data.sources.tables import has_labels, header, read_column, read_table
from retina.data.sources.tree import Tree, own_name
from retina.errors import DataError

COURSE = ("train_img.csv", "train_label.csv", "test_img.csv", "test_label.csv")
EYEPACS_TRAIN = ("trainLabels.csv",)
EYEPACS_TEST = ("retinopathy_solution.csv", "testLabels.csv")
APTOS = {"train": ("train.csv", "train_1.csv"), "val": ("valid.csv", "val.csv"), "test": ("test.csv",)}
IDRID = {
    "train": ("a. IDRiD_Disease Grading_Training Labels.csv", "a. Training Set"),
    "test": ("b. IDRiD_Disease Grading_Testing Labels.csv", "b. Testing Set"),
}
_GRADING = "B. Disease Grading"
_TRUTHS = "2. Groundtruths"
_ANY_FOLDER = (
    ".",
    "images",
    "photographs",
    "train",
    "val",
    "test",
    "train_images",
    "val_images",
    "test_images",
    "data",
)


@dataclass(frozen=True)
class Place:
    """What the user pointed at: a folder, or a file in it."""

    root: Path
    file: Path | None = None

    def may_be(self, names: Iterable[str]) -> bool:
        """Whether a layout of these label files could be meant: the folder was given, or one of them was."""
        return self.file is None or self.file.name.lower() in {name.lower() for name in names}


def is_course(tree: Tree, place: Place) -> bool:
    """Whether the course's headerless lists are here, or at least one of them."""
    return place.may_be(COURSE) and tree.file(place.root, *COURSE) is not None


def course(tree: Tree, place: Place) -> list[Labels]:
    """Names in one headerless file, grades in another, line by line.

    Raises:
        DataError: a list is missing, or names and grades differ in number, so that no row can be trusted.
    """
    missing = [name for name in COURSE if tree.file(place.root, name) is None]
    if missing:
        raise DataError(f"{place.root}: layout course needs {', '.join(COURSE)}; missing: {', '.join(missing)}")
    return [_course_half(tree, place.root, split) for split in ("train", "test")]


def _course_half(tree: Tree, root: Path, split: str) -> Labels:
    names_file, grades_file = (tree.file(root, f"{split}_{kind}.csv") or root for kind in ("img", "label"))
    names, grades = read_column(names_file), read_column(grades_file)
    if len(names) != len(grades):
        raise DataError(
            f"{root}: {names_file.name} has {len(names):,} photographs and {grades_file.name} has {len(grades):,} "
            "grades; they are read line by line and must be equally long"
        )
    folders = _under(root, split, ".", "images", "data", "train", "test")
    rows = [
        Row(
            where=f"{names_file.name}:{line}",
            grade_where=f"{grades_file.name}:{line}",
            image=name,
            own=own_name(name),
            grade=grade,
            split=split,
            name=name,
            folders=folders,
        )
        for line, (name, grade) in enumerate(zip(names, grades, strict=True), start=1)
    ]
    return Labels(names_file.name, rows)


def is_eyepacs(tree: Tree, place: Place) -> bool:
    """Whether trainLabels.csv of EyePACS (Kaggle 2015) is here."""
    return place.may_be(EYEPACS_TRAIN + EYEPACS_TEST) and tree.file(place.root, *EYEPACS_TRAIN) is not None


def eyepacs(tree: Tree, place: Place) -> list[Labels]:
    """`trainLabels.csv`, and the test set's grades where they and its photographs are there."""
    train = _needed(tree, place.root, EYEPACS_TRAIN)
    test = tree.file(place.root, *EYEPACS_TEST)
    folders = _under(place.root, "train", ".", "images", "train_images", "resized_train", "data")
    lists = [_list(train, "train", folders)]
    if test:
        folders = _under(place.root, "test", ".", "images", "test_images", "resized_test", "data")
        lists.append(_list(test, "test", folders, optional=True))
    return lists


def is_aptos(tree: Tree, place: Place) -> bool:
    """Whether a train.csv with names and grades is here: that name alone would fit many other things."""
    train = tree.file(place.root, *APTOS["train"])
    return place.may_be(sum(APTOS.values(), ())) and train is not None and has_labels(train)


def aptos(tree: Tree, place: Place) -> list[Labels]:
    """`train.csv`, and the other two lists as the re-uploads have them; Kaggle's own test.csv has no grades."""
    lists = []
    for split, names in APTOS.items():
        file = _needed(tree, place.root, names) if split == "train" else tree.file(place.root, *names)
        if file and (split == "train" or has_labels(file)):
            folders = _under(
                place.root, f"{split}_images", split, *(["valid"] if split == "val" else []), ".", "images"
            )
            lists.append(_list(file, split, folders, optional=split != "train"))
    return lists


def is_idrid(tree: Tree, place: Place) -> bool:
    """Whether the official label files of IDRiD's disease grading are here."""
    return place.may_be(file for file, _ in IDRID.values()) and _idrid_base(tree, place.root) is not None


def idrid(tree: Tree, place: Place) -> list[Labels]:
    """The official lists. Both sets count from IDRiD_001: their names get the set's name in front."""
    base, truths = _idrid_base(tree, place.root) or (place.root, place.root)
    lists = []
    for split, (name, folder) in IDRID.items():
        if file := tree.file(truths, name):
            folders = tuple(base / top / folder for top in ("1. Original Images", "."))
            lists.append(_list(file, split, folders, prefix=f"{split}_"))
    return lists


def _idrid_base(tree: Tree, root: Path) -> tuple[Path, Path] | None:
    """The folder that holds both photographs and labels, and the folder of the labels."""
    above = root.parent if root.name == _TRUTHS else root
    for base, truths in (
        (above, root),
        (root, root / _TRUTHS),
        (root / _GRADING, root / _GRADING),
        (root / _GRADING, root / _GRADING / _TRUTHS),
    ):
        if tree.file(truths, *(file for file, _ in IDRID.values())):
            return base, truths
    return None


def is_any_list(tree: Tree, place: Place) -> bool:
    """Whether the user pointed at a label file, or there is a labels.csv."""
    if place.file:
        return place.file.suffix.lower() == ".csv"
    return tree.file(place.root, "labels.csv") is not None


def any_list(tree: Tree, place: Place) -> list[Labels]:
    """One file with a header: image and grade, and where it has them split, patient and eye."""
    file = place.file or _needed(tree, place.root, ("labels.csv",))
    return [_list(file, "", _under(file.parent, *_ANY_FOLDER))]


def family(tree: Tree, place: Place) -> str:
    """The public set whose columns a list of unknown origin has; a name for the manifest, no more."""
    found = set(header(place.file or _needed(tree, place.root, ("labels.csv",))))
    if "id_code" in found:
        return "aptos"
    return "idrid" if found & {"dme_risk", "image_name", "risk_of_macular_edema"} else "eyepacs"


def _list(file: Path, split: str, folders: tuple[Path, ...], *, prefix: str = "", optional: bool = False) -> Labels:
    rows = []
    for line, cells in read_table(file):
        name = cells["image"]
        rows.append(
            Row(
                where=f"{file.name}:{line}",
                image=prefix + name,
                own=prefix + own_name(name),
                grade=cells["grade"],
                split=split or cells.get("split", ""),
                name=name,
                folders=folders,
                patient=cells.get("patient", ""),
                eye=cells.get("eye", ""),
            )
        )
    return Labels(file.name, rows, optional)


def _needed(tree: Tree, root: Path, names: tuple[str, ...]) -> Path:
    file = tree.file(root, *names)
    if file is None:
        raise DataError(f"{root}: there is no {names[0]}")
    return file


def _under(root: Path, *names: str) -> tuple[Path, ...]:
    """Each folder, and the folder of the same name inside it that unpacking often makes."""
    return tuple(path for name in names for path in ((root / name, root / name / name) if name != "." else (root,)))
