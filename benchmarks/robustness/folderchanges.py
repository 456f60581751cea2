"""Changes to a data set of one folder per grade."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.robustness.case import Rng, pick
from benchmarks.robustness.datasets import DataSet

Change = Callable[[DataSet, Rng], str]


def _grade_folders(dataset: DataSet) -> list[Path]:
    return sorted(path for path in dataset.root.iterdir() if path.is_dir())


def _random_folder(dataset: DataSet, rng: Rng) -> Path:
    tops = _grade_folders(dataset)
    return tops[int(rng.integers(len(tops)))]


def _exclude_folder(dataset: DataSet, top: Path) -> None:
    """Remove the photographs of a folder from the expected counts."""
    names = {file.stem for file in top.glob("*.jpeg")}
    for index, (name, _) in enumerate(dataset.rows):
        if name in names:
            dataset.exclude(index)


def _not_a_grade(dataset: DataSet, rng: Rng) -> str:
    top = _random_folder(dataset, rng)
    name = str(
        pick(
            rng,
            (
                "0-1",
                "12",
                "34",
                "5",
                "unsure",
                "grade",
                "-1",
                "0_1",
                "2 or 3",
                "1.5",
                "mild to moderate",
                "\x1b[2J",
                "٢x",
            ),
        )
    )
    _exclude_folder(dataset, top)
    top.rename(top.with_name(name))
    dataset.bad = f"a folder {name!r}, which is no grade"
    return dataset.bad


def _padded(dataset: DataSet, rng: Rng) -> str:
    for top in _grade_folders(dataset):
        if top.name.isdigit():
            top.rename(top.with_name(f"0{top.name}"))
    return "folders 00 to 04"


def _other_words(dataset: DataSet, rng: Rng) -> str:
    form = pick(rng, ("grade_{}", "Grade {}", "{} ", "DR{}", "class-{}", "{}_x"))
    for top in _grade_folders(dataset):
        top.rename(top.with_name(form.format(top.name)))
    return f"folders called {form}"


def _deeper(dataset: DataSet, rng: Rng) -> str:
    """Move the whole set one or two folders down, as unpacking an archive often does."""
    names = pick(rng, (("set",), ("archive", "images"), ("data", "data")))
    aside = dataset.root.with_name("aside")
    dataset.root.rename(aside)
    target = dataset.root.joinpath(*names)
    target.parent.mkdir(parents=True)
    aside.rename(target)
    return f"below {'/'.join(names)}"


def _splits(dataset: DataSet, rng: Rng) -> str:
    """Divide each grade's folder into splits, named by synonyms or by unknown words."""
    words = pick(rng, (("train", "val", "test"), ("training", "validation", "testing"), ("train", "eval", "holdout"),
                       ("Train", "Dev", "Test"), ("part1", "part2", "part3")))  # fmt: skip
    for top in _grade_folders(dataset):
        for index, file in enumerate(sorted(top.glob("*.jpeg"))):
            folder = dataset.root / words[index % 3] / top.name
            folder.mkdir(parents=True, exist_ok=True)
            file.rename(folder / file.name)
        top.rmdir()
    return f"splits {', '.join(words)}"


def _added(dataset: DataSet, rng: Rng) -> str:
    name = pick(rng, ("train_augmented", "ungraded", "masks", "__MACOSX", ".thumbnails"))
    folder = dataset.root / name
    folder.mkdir()
    for file in sorted(_grade_folders(dataset)[0].glob("*.jpeg"))[:4]:
        shutil.copyfile(file, folder / f"x{file.name}")
    dataset.unused = 0 if name.startswith((".", "__")) else 4
    return f"a folder {name} of 4 photographs"


def _at_root(dataset: DataSet, rng: Rng) -> str:
    for file in sorted(_random_folder(dataset, rng).glob("*.jpeg"))[:3]:
        shutil.copyfile(file, dataset.root / f"x{file.name}")
    dataset.unused = 3
    return "3 photographs beside the folders"


def _both(dataset: DataSet, rng: Rng) -> str:
    """Copy the grades' folders at the root to train/ as well."""
    for top in _grade_folders(dataset):
        shutil.copytree(top, dataset.root / "train" / top.name)
    dataset.always_refused = "grades' folders at the root and in train/: two readings"
    return dataset.always_refused


def _circle(dataset: DataSet, rng: Rng) -> str:
    top = _random_folder(dataset, rng)
    (top / "loop").symlink_to(os.path.relpath(dataset.root, top))
    dataset.by_grade = None
    return f"{top.name}/loop leads back to the root"


def _linked(dataset: DataSet, rng: Rng) -> str:
    top = _random_folder(dataset, rng)
    real = dataset.root.with_name("real")
    top.rename(real)
    top.symlink_to(Path("..") / "real")
    return f"{top.name} is a link to a folder"


def _empty_grade(dataset: DataSet, rng: Rng) -> str:
    top = _random_folder(dataset, rng)
    names = {file.stem for file in top.glob("*.jpeg")}
    shutil.rmtree(top)
    top.mkdir()
    dataset.rows = [row for row in dataset.rows if row[0] not in names]
    dataset.count_rows()
    return f"{top.name} is empty"


def _one_grade(dataset: DataSet, rng: Rng) -> str:
    for top in _grade_folders(dataset)[1:]:
        shutil.rmtree(top)
    dataset.by_grade = None
    return "one grade alone"


def _formats(dataset: DataSet, rng: Rng) -> str:
    """Rename photographs to other suffixes that Pillow reads; it ignores the suffix."""
    suffix = pick(rng, (".webp", ".jfif", ".jp2", ".gif", ".ppm", ".JPG", ".tif", ".jpe", ".bmp", ".png"))
    for file in _random_folder(dataset, rng).glob("*.jpeg"):
        file.rename(file.with_suffix(suffix))
    return f"a folder of {suffix}"


def _unknown_formats(dataset: DataSet, rng: Rng) -> str:
    suffix = pick(rng, (".dcm", ".jpg.bak", ".heic", ""))
    for index, file in enumerate(sorted(_random_folder(dataset, rng).glob("*.jpeg"))):
        if index < 2:
            dataset.exclude([row[0] for row in dataset.rows].index(file.stem))
            file.rename(file.with_name(file.stem + suffix))
    dataset.unused = 0
    return f"two files with the ending {suffix!r}"


def _same_photograph_two_grades(dataset: DataSet, rng: Rng) -> str:
    first, second = _grade_folders(dataset)[:2]
    file = min(first.glob("*.jpeg"))
    shutil.copyfile(file, second / file.name)
    dataset.by_grade = None
    return f"{file.name} under {first.name} and {second.name}"


def _bad_name(dataset: DataSet, rng: Rng) -> str:
    file = min(_random_folder(dataset, rng).glob("*.jpeg"))
    names = (
        b"\xff\xfe.jpeg", b"a\nb.jpeg", b"a\x1b[2Jb.jpeg", b"a\x07.jpeg", ("n" * 250 + ".jpeg").encode(), b"=1+1.jpeg",
        "\u202egnp.jpeg".encode(), b"-x.jpeg", b"a,b.jpeg", b'".jpeg', b" .jpeg", b"..jpeg",
    )  # fmt: skip
    name = os.fsdecode(names[int(rng.integers(len(names)))])
    dataset.exclude([row[0] for row in dataset.rows].index(file.stem))
    dataset.by_grade, dataset.unused = None, 0
    file.rename(file.with_name(name))
    return f"a photograph called {name.encode(errors='backslashreplace').decode()[:60]!r}"


FOLDERS: tuple[Change, ...] = (
    _not_a_grade, _padded, _other_words, _deeper, _splits, _added, _at_root, _both, _circle, _linked, _empty_grade,
    _one_grade, _formats, _unknown_formats, _same_photograph_two_grades, _bad_name, _not_a_grade, _splits,
)  # fmt: skip
