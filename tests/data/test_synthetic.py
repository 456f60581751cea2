"""Drawn photographs: the folder, its determinism, its grades, and what can be seen in the pixels."""

import csv
import hashlib
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina.config import SyntheticConfig
from retina.data.synthetic import assign_grades, draw, draw_photograph
from retina.data.synthetic.appearance import draw_appearance
from retina.errors import DataError

SMALL = SyntheticConfig(photographs=21, size=64, proportions="balanced", seed=3)


def drawn(grade: int, eye: str = "right", seed: int = 0, size: int = 96) -> np.ndarray:
    return draw_photograph(grade, eye, size, np.random.default_rng(seed))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("synthetic") / "eyes"
    draw(made, SMALL, workers=1)
    return made


def test_the_folder_has_the_layout_of_eyepacs(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["train", "trainLabels.csv"]
    with (folder / "trainLabels.csv").open(newline="") as labels:
        rows = list(csv.reader(labels))
    assert rows[0] == ["image", "level"]
    assert rows[1:] == [[f"{patient}_{eye}", str(grade)] for patient, eye, grade in assign_grades(SMALL)]
    assert {f"{name}.jpeg" for name, _ in rows[1:]} == {path.name for path in (folder / "train").iterdir()}


def test_two_eyes_a_patient_and_one_for_the_odd_last() -> None:
    eyes = [(patient, eye) for patient, eye, _ in assign_grades(SMALL)]
    assert eyes[:4] == [(1, "left"), (1, "right"), (2, "left"), (2, "right")]
    assert eyes[-1] == (11, "left")
    assert len(eyes) == 21


def test_photographs_are_colour_jpegs_of_the_asked_height(folder: Path) -> None:
    sizes = set()
    for path in (folder / "train").iterdir():
        with Image.open(path) as image:
            assert (image.format, image.mode, image.height) == ("JPEG", "RGB", 64)
            sizes.add(image.width)
    assert sizes <= {64, 85, 96}
    assert len(sizes) > 1


def test_the_fellow_eye_is_taken_with_the_same_camera(folder: Path) -> None:
    for patient in range(1, 11):
        left, right = (Image.open(folder / "train" / f"{patient}_{eye}.jpeg") for eye in ("left", "right"))
        with left, right:
            assert left.size == right.size


def test_pixels_and_labels_do_not_depend_on_the_workers(folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    draw(tmp_path / "two", SMALL, workers=2, progress=lambda done, total: steps.append((done, total)))
    assert digests(tmp_path / "two") == digests(folder)
    assert steps[-1] == (21, 21)
    assert all(before[0] < after[0] for before, after in pairwise(steps))


def test_another_seed_draws_other_photographs(folder: Path, tmp_path: Path) -> None:
    draw(tmp_path / "other", SMALL.model_copy(update={"seed": 4}), workers=1)
    ours, theirs = digests(folder), digests(tmp_path / "other")
    assert all(ours[name] != theirs[name] for name in ours)


def test_a_draw_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "eyes", SMALL, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_draw_that_is_killed_leaves_no_folder_and_can_be_repeated(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from retina.config import SyntheticConfig\n"
        "from retina.data.synthetic import draw\n"
        "config = SyntheticConfig(photographs=20, size=64)\n"
        "draw(pathlib.Path(sys.argv[1]), config, workers=1, progress=lambda done, total: os._exit(9))\n"
    )
    target = tmp_path / "eyes"
    killed = subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert killed.returncode == 9
    assert not target.exists()
    assert not list(tmp_path.glob("[!.]*"))
    draw(target, SyntheticConfig(photographs=20, size=64), workers=1)
    assert len(list((target / "train").iterdir())) == 20


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        draw(tmp_path, SMALL)
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "mine.txt"))):
        draw(tmp_path / "mine.txt", SMALL)
    with pytest.raises(DataError, match="cannot be written"):
        draw(tmp_path / "mine.txt" / "below", SMALL)
    with pytest.raises(DataError, match="cannot be written: File name too long"):
        draw(tmp_path / ("a" * 300), SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    config = SyntheticConfig(photographs=20, size=64)
    (tmp_path / "empty").mkdir()
    draw(tmp_path / "empty", config, workers=1)
    draw(tmp_path / "a" / "b", config, workers=1)
    assert digests(tmp_path / "empty") == digests(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("proportions", "expected"),
    [("balanced", [0.2, 0.2, 0.2, 0.2, 0.2]), ("eyepacs", [0.735, 0.070, 0.151, 0.025, 0.020])],
)
@pytest.mark.parametrize("photographs", [201, 4000])
def test_grades_have_the_asked_proportions(proportions: str, expected: list[float], photographs: int) -> None:
    config = SyntheticConfig.model_validate({"photographs": photographs, "proportions": proportions})
    share = np.bincount([grade for *_, grade in assign_grades(config)], minlength=5) / photographs
    assert np.abs(share - expected).max() < 0.006


@pytest.mark.parametrize(("proportions", "equal"), [("balanced", 0.55), ("eyepacs", 0.8)])
def test_fellow_eyes_have_like_grades(proportions: str, equal: float) -> None:
    config = SyntheticConfig.model_validate({"photographs": 2000, "proportions": proportions})
    left, right = np.array([grade for *_, grade in assign_grades(config)]).reshape(-1, 2).T
    assert equal < np.mean(left == right) < 0.95
    assert np.mean(np.abs(left - right) <= 1) > 0.8
    assert np.corrcoef(left, right)[0, 1] > 0.7


def test_one_stream_of_chances_gives_one_photograph() -> None:
    assert np.array_equal(drawn(4, seed=5), drawn(4, seed=5))
    assert not np.array_equal(drawn(0, seed=5), drawn(0, seed=6))


@pytest.mark.parametrize(("grade", "eye"), [(5, "left"), (-1, "left"), (0, "both")])
def test_a_grade_or_eye_that_does_not_exist_is_refused(grade: int, eye: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(grade if eye == "left" else eye))):
        drawn(grade, eye)


@pytest.mark.parametrize("seed", range(8))
def test_a_photograph_is_a_bright_disc_on_black(seed: int) -> None:
    pixels = drawn(seed % 5, seed=seed)
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] == 96
    assert pixels.shape[2] == 3
    assert pixels[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 8
    lit = pixels.max(axis=2) > 20
    height, width = lit.shape
    across = lit[height // 2].sum()
    assert 0.85 * height < across <= width
    assert lit[height // 4 : -height // 4, width // 2 - height // 4 : width // 2 + height // 4].mean() > 0.98
    red, green, blue = pixels[lit].mean(axis=0)
    assert red > green > blue


def _average(eye: str, row: slice) -> np.ndarray:
    """The green of many healthy eyes, each stretched to 96 x 96, averaged over eyes and some rows: (96,)."""
    greens = [Image.fromarray(drawn(0, eye, seed)[..., 1]).resize((96, 96)) for seed in range(24)]
    rows: np.ndarray = np.mean([np.asarray(green, dtype=float)[row].mean(axis=0) for green in greens], axis=0)
    return rows


def test_the_optic_disc_is_towards_the_nose() -> None:
    middle = slice(36, 56)
    left, right = _average("left", middle), _average("right", middle)
    assert 16 < left.argmax() < 40
    assert 56 < right.argmax() < 80


def test_the_macula_is_darker_than_the_retina_about_it() -> None:
    row = _average("right", slice(44, 56))
    assert row[30:46].min() < 0.96 * min(row[16:30].max(), row[46:60].max())


def test_lesions_grow_with_the_grade_and_nothing_else_changes() -> None:
    seeds = range(10)
    healthy = [drawn(0, seed=seed).astype(int) for seed in seeds]
    amounts = np.array(
        [
            [np.mean(np.abs(drawn(grade, seed=seed) - healthy[seed]).max(axis=2) > 12) for seed in seeds]
            for grade in range(5)
        ]
    )
    load = amounts.mean(axis=1)
    assert load[0] == 0
    assert 0 < load[1] < 0.02
    assert load[1] * 2.5 < load[2]
    assert load[2] * 1.5 < load[3]
    assert load[4] > load[2] * 1.5
    assert amounts.max() < 0.5


def test_lesions_stay_inside_the_field() -> None:
    for seed in range(6):
        healthy, ill = drawn(0, seed=seed).astype(int), drawn(4, seed=seed).astype(int)
        outside = healthy.max(axis=2) < 4
        assert np.abs(ill - healthy)[outside].max() <= 4


@pytest.mark.parametrize("size", [64, 700])
def test_an_eye_looks_the_same_at_every_size(size: int) -> None:
    here, there = (
        np.asarray(Image.fromarray(drawn(3, seed=2, size=side)).resize((48, 36), Image.Resampling.BOX), dtype=float)
        for side in (size, 256)
    )
    assert np.abs(here - there).mean() < 5
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.98


def test_an_exudate_cluster_that_falls_whole_on_the_optic_disc_is_left_out() -> None:
    rng = np.random.default_rng(np.random.SeedSequence((0, 331)))  # the one of 1,500 eyes that has such a cluster
    look = draw_appearance(rng)
    assert draw_photograph(2, "left", 64, rng.spawn(2)[0], appearance=look).shape[0] == 64
