"""From a `DataConfig` to a dataset for training: split by patient, decoded once, identified by a fingerprint."""

import contextlib
import errno
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from tiny_dataset import DATA, counts, photographs

from retina import cli
from retina.config import DataConfig
from retina.config.splits import SPLITS
from retina.data import synthetic
from retina.data.cache import pixel_cache
from retina.data.dataset import FundusDataset, prepare, skipped_rows, synthetic_folder
from retina.errors import DataError
from retina.system import file_modes

LEVELS = {f"{patient}_{eye}": patient % 5 for patient in range(1, 11) for eye in ("left", "right")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten patients' photographs, two a grade, each of its own colour, in the layout of EyePACS."""
    (tmp_path / "train").mkdir()
    rows, columns = np.mgrid[:40, :48]
    disc = np.hypot(rows - 20, columns - 24) < 18
    for i, name in enumerate(LEVELS):
        colour = np.array([250 - 8 * i, 90 + i, 40], dtype=np.uint8)
        Image.fromarray(np.where(disc[..., None], colour, 0).astype(np.uint8)).save(tmp_path / "train" / f"{name}.jpeg")
    label(tmp_path, LEVELS)
    return tmp_path


def label(folder: Path, levels: dict[str, int]) -> None:
    lines = [f"{name},{level}" for name, level in levels.items()]
    (folder / "trainLabels.csv").write_text("\n".join(["image,level", *lines]) + "\n")


def label_with_splits(folder: Path, levels: dict[str, int]) -> None:
    """Every left eye is for testing."""
    lines = [f"{name},{level},{'test' if 'left' in name else 'train'}" for name, level in levels.items()]
    (folder / "trainLabels.csv").unlink(missing_ok=True)
    (folder / "labels.csv").write_text("\n".join(["image,level,split", *lines]) + "\n")


def load(folder: Path, **settings: Any) -> FundusDataset:
    return prepare(DataConfig.model_validate({"path": str(folder), "image_size": 16, "test": 0.2, **settings}))


def nothing_is_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(synthetic, "draw", fail)
    monkeypatch.setattr(pixel_cache, "decode", fail)
    monkeypatch.setattr(pixel_cache, "decode_in_processes", fail)


def red(pixels: np.ndarray) -> list[int]:
    """The colour in the middle of each photograph, by which `folder` tells them apart."""
    return pixels[:, 8, 8, 0].tolist()


def test_drawn_photographs_are_ready_to_be_trained_on() -> None:
    made = photographs()
    assert len(made.frame) == 24
    assert sum(len(made.split_view(name)) for name in SPLITS) == 24
    assert made.pixels.shape == (24, 16, 16, 3)
    assert made.pixels.dtype == np.uint8
    assert made.pixels.max() > 100
    assert made.manifest.layout == "synthetic"
    assert sum(count > 0 for count in counts(made.frame)) == 5


@pytest.mark.parametrize("settings", [{}, {"split": "by_patient"}, {"seed": 3}, {"validation": 0.4}])
def test_no_patient_is_in_two_splits(settings: dict[str, Any]) -> None:
    frame = photographs(**settings).frame
    assert frame.groupby("patient")["split"].nunique().max() == 1
    assert frame.groupby("patient").size().max() == 2
    assert set(frame["split"]) == set(SPLITS)


def test_a_part_holds_its_splits_pixels_and_grades(folder: Path) -> None:
    made = load(folder)
    assert made.decoded == len(LEVELS)
    for name in SPLITS:
        mine = made.split_view(name)
        rows = made.frame[made.frame["split"] == name]
        assert mine.grades.tolist() == rows["grade"].tolist()
        assert mine.grades.dtype == np.int64
        wanted = [250 - 8 * list(LEVELS).index(image) for image in rows["image"]]
        assert np.abs(np.array(red(mine.pixels[mine.rows])) - wanted).max() <= 3  # as JPEG keeps it
    assert len(made.split_view("none")) == 0


def test_medmnist_keeps_its_own_splits(shared: Path) -> None:
    made = prepare(DataConfig(path=str(shared / "data" / "retinamnist.npz"), image_size=28))
    assert {name: len(made.split_view(name)) for name in SPLITS} == {"train": 1080, "val": 120, "test": 400}
    with np.load(shared / "data" / "retinamnist.npz") as original:
        for name in SPLITS:
            mine = made.split_view(name)
            assert (mine.grades == original[f"{name}_labels"].ravel()).all()
            assert mine.pixels[mine.rows].shape == original[f"{name}_images"].shape


def test_all_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = photographs()
    nothing_is_done_twice(monkeypatch)
    second = photographs()
    assert second.decoded == 0
    assert second.fingerprint == first.fingerprint
    assert second.pixels_file == first.pixels_file
    pd.testing.assert_frame_equal(second.frame, first.frame)


def test_another_size_is_decoded_but_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    photographs()
    monkeypatch.delattr(synthetic, "draw")
    assert photographs(image_size=20).pixels.shape == (24, 20, 20, 3)


@pytest.mark.parametrize("below", ["", "deeper/still"])
@pytest.mark.parametrize("drawn", [True, False])
def test_a_cache_that_is_a_file_is_refused_by_name(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    below: str,
    *,
    drawn: bool,
) -> None:
    file = tmp_path_factory.mktemp("cache") / "file"
    file.write_text("")
    monkeypatch.setenv("RETINA_CACHE", str(file / below))
    assert cli.main(["data", "prepare", "synthetic" if drawn else str(folder), "--image-size", "16"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"{file / below}{'/drawn' if drawn else ''}: cannot keep photographs here (set RETINA_CACHE)"
    )
    assert len(said.splitlines()) == 1
    assert file.read_text() == ""


def test_drawn_photographs_are_taken_from_a_cache_that_can_only_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    first = photographs()

    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(file_modes, "make_private_folder", read_only)
    monkeypatch.setattr(filelock.FileLock, "acquire", read_only)
    assert prepare(DATA).fingerprint == first.fingerprint


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_photographs_look_like_need_not_be_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    wanted = load(folder, join_duplicates="near", seed=1).frame["split"].tolist()
    kept = next(load(folder).pixels_file.parent.glob("details.npy"))
    kept.write_bytes(b"PK\x03\x04")

    def full(file: Path, *_: Any) -> None:
        with contextlib.suppress(OSError):
            Path(file).write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    caplog.set_level("INFO", "retina")
    monkeypatch.setattr(logging.getLogger("retina"), "propagate", True)
    monkeypatch.setattr(np, "save", full)
    assert load(folder, join_duplicates="near", seed=1).frame["split"].tolist() == wanted
    assert sorted(file.name for file in kept.parent.iterdir()) == ["details.npy", "index.json", "pixels.npy"]
    said = f"{kept}: details of photographs cannot be cached and are computed each time: {os.strerror(number)}"
    assert f"note: {said}" in [record.getMessage() for record in caplog.records]


def test_drawn_photographs_are_kept_in_a_folder_that_names_them() -> None:
    photographs()
    assert synthetic_folder(DATA.synthetic).name.startswith("24-balanced-64px-")
    assert (synthetic_folder(DATA.synthetic) / "trainLabels.csv").is_file()


def test_pixels_are_not_pickled_and_are_mapped_again(folder: Path) -> None:
    made = load(folder, image_size=64)
    size = made.pixels.nbytes
    content = pickle.dumps(made)
    assert len(content) < size / 5
    again: FundusDataset = pickle.loads(content)  # noqa: S301
    assert isinstance(again.pixels, np.memmap)
    assert (again.pixels == made.pixels).all()
    assert again.config == made.config
    assert again.fingerprint == made.fingerprint


READS = """
import pickle, sys
from pathlib import Path
made = pickle.loads(Path(sys.argv[1]).read_bytes())
int(made.pixels.sum(dtype="int64"))
print("read", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PSS is Linux's")
def test_trials_on_one_machine_share_one_copy_of_the_pixels(folder: Path, tmp_path: Path) -> None:
    made = load(folder, image_size=256)
    file, content = str(made.pixels_file.resolve()), tmp_path / "pickled"
    content.write_bytes(pickle.dumps(made))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", READS, str(content)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        assert [worker.stdout.readline() for worker in workers if worker.stdout] == ["read\n"] * 3
        maps = [one for w in workers for one in psutil.Process(w.pid).memory_maps() if one.path == file]
    finally:
        for worker in workers:
            worker.communicate()
    assert [one.rss for one in maps] == [pytest.approx(made.pixels.nbytes, rel=0.1)] * 3  # each has read all of it
    assert sum(one.pss for one in maps) == pytest.approx(made.pixels.nbytes, rel=0.1)


def test_pixels_are_mapped_once_and_cannot_be_written(folder: Path) -> None:
    made = load(folder)
    assert made.split_view("train").pixels is made.split_view("val").pixels
    assert not made.pixels.flags.writeable


def test_a_worker_without_our_cache_decodes_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train" / "1_left.jpeg").write_bytes(b"no photograph")
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "ours"))
    made = load(folder, on_bad="skip")
    pixels, content = np.array(made.pixels), pickle.dumps(made)
    shutil.rmtree(tmp_path / "ours")
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "theirs"))
    again: FundusDataset = pickle.loads(content)  # noqa: S301
    assert (again.pixels == pixels).all()
    assert again.split_view("train").grades.tolist() == made.split_view("train").grades.tolist()


def test_the_fingerprint_follows_grades_splits_and_photographs(folder: Path) -> None:
    seen = [load(folder).fingerprint]
    seen.append(load(folder, seed=1).fingerprint)  # another split
    label(folder, {name: level for name, level in LEVELS.items() if name != "1_left"})
    seen.append(load(folder).fingerprint)
    label(folder, LEVELS)
    shutil.copy(folder / "train" / "2_left.jpeg", folder / "train" / "1_left.jpeg")
    seen.append(load(folder).fingerprint)
    assert len(set(seen)) == len(seen)


def test_the_fingerprint_follows_a_grade_that_moves_nobody(folder: Path) -> None:
    label_with_splits(folder, LEVELS)
    before = load(folder)
    label_with_splits(folder, {**LEVELS, "1_left": 4})
    after = load(folder)
    assert after.frame["split"].tolist() == before.frame["split"].tolist()
    assert after.fingerprint != before.fingerprint


def test_the_fingerprint_follows_nothing_else(folder: Path) -> None:
    before = load(folder).fingerprint
    (folder / "train" / "notes.txt").write_text("not a photograph")
    label(folder, LEVELS)  # written anew
    assert load(folder).fingerprint == before
    assert load(folder, layout="eyepacs", on_bad="skip").fingerprint == before


def test_the_fingerprint_stays_when_the_folder_moves(folder: Path) -> None:
    before = load(folder).fingerprint
    moved = folder.rename(folder.with_name(f"{folder.name}-moved"))
    assert load(moved).fingerprint == before


def test_a_bad_photograph_stops_by_default(folder: Path) -> None:
    (folder / "train" / "1_left.jpeg").write_bytes(b"no photograph")
    with pytest.raises(DataError, match="1_left") as caught:
        load(folder)
    assert "on_bad=skip" in str(caught.value)


def test_a_bad_photograph_is_skipped_where_that_is_asked_for(folder: Path) -> None:
    (folder / "train" / "1_left.jpeg").write_bytes(b"no photograph")
    (folder / "train" / "2_left.jpeg").unlink()
    made = load(folder, on_bad="skip")
    assert set(made.frame["image"]) == LEVELS.keys() - {"1_left", "2_left"}
    assert len(made.pixels) == len(made.frame) == 18
    rows = skipped_rows(made)
    assert sorted(row["image"] for row in rows) == ["1_left", "2_left"]
    assert all(row["where"].startswith("trainLabels.csv:") and row["problem"] for row in rows)
    assert made.summary()["skipped"] == 2
    assert load(folder, on_bad="skip").fingerprint == made.fingerprint


def test_the_summary_counts_what_there_is(folder: Path) -> None:
    made = load(folder)
    result = made.summary()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["fingerprint"] == made.fingerprint
    assert (result["layout"], result["image_size"], result["patients"]) == ("eyepacs", 16, 10)
    assert (result["without_a_disc"], result["skipped"], result["warnings"]) == (0, 0, [])
    by_grade = [result["photographs"][name]["by_grade"] for name in SPLITS]
    assert np.sum(by_grade, axis=0).tolist() == [4] * 5
    assert [result["photographs"][name]["n"] for name in SPLITS] == [sum(some) for some in by_grade]


def test_a_photograph_without_a_disc_is_warned_of(folder: Path) -> None:
    Image.new("RGB", (48, 40)).save(folder / "train" / "1_left.jpeg")
    made = load(folder)
    assert made.without_disc == 1
    assert made.warnings == ["no fundus disc was found on 1 photographs; they are used whole"]
    assert made.summary()["without_a_disc"] == 1


def test_a_split_that_leaks_is_warned_of(folder: Path) -> None:
    label_with_splits(folder, LEVELS)
    made = load(folder)
    assert len(made.split_view("test")) == 10
    leak = "10 of 10 test photographs (100.0%) are of patients who are in train or val too"
    assert any(leak in warning for warning in made.warnings)
    assert not any("are of patients" in warning for warning in load(folder, split="by_patient").warnings)


def test_progress_is_told_of_drawing_and_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path))
    seen: dict[str, list[tuple[int, int]]] = {}
    prepare(DATA, lambda what, done, total: seen.setdefault(what, []).append((done, total)))
    assert set(seen) == {"drawing photographs", "decoding photographs"}
    assert all(steps == sorted(steps) and steps[-1] == (24, 24) for steps in seen.values())
