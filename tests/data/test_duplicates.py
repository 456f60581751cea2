"""Photographs that are there twice never end on both sides of a cut, and what they say against each other is listed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import audit_dataset
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from split_tables import disjoint, manifest, split, two_eyed

from retina.config import DataConfig
from retina.data import dataset, duplicates
from retina.data.cache.pixel_cache import open_cache
from retina.data.dataset import FundusDataset, prepare
from retina.data.duplicates import Duplicates, merge_patients
from retina.data.layouts import read
from retina.data.pixel_hash import hash_unless_blank, pixel_hash
from retina.data.split import assign_splits
from retina.errors import DataError
from retina.report.terminal import tables
from retina.results import environment

ROWS, COLUMNS = np.mgrid[:120, :160]


def picture(number: int) -> Image.Image:
    """A disc with a pattern of its own."""
    rng = np.random.default_rng(number)
    pattern = rng.integers(0, 90, (12, 16, 3)).repeat(10, axis=0).repeat(10, axis=1)
    disc = np.hypot(ROWS - 60, COLUMNS - 80) < 56
    return Image.fromarray(np.where(disc[..., None], pattern + np.array([120, 60, 30]), 0).astype(np.uint8))


def folder_of(path: Path, rows: list[tuple[str, int, int, str]]) -> Path:
    """A folder of photographs by name, number, grade and split."""
    path.mkdir()
    for name, number, _, _ in rows:
        picture(number).save(path / name, **({"quality": 95} if name.endswith("jpg") else {}))
    lines = [f"{name},{grade},{split}" for name, _, grade, split in rows]
    (path / "labels.csv").write_text("\n".join(["image,level,split", *lines]) + "\n")
    return path


def prepared(path: Path, **config: Any) -> FundusDataset:
    return prepare(DataConfig(path=str(path), image_size=32, **config))


group_of = st.sets(st.integers(0, 59), min_size=2, max_size=6).map(lambda rows: tuple(sorted(rows)))


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(group_of, max_size=8), seed=st.integers(0, 5), official=st.booleans())
def test_no_group_is_ever_on_both_sides_of_a_cut(groups: list[tuple[int, ...]], seed: int, *, official: bool) -> None:
    rows = [
        (patient, grade, "test" if official and i >= 50 else "") for i, (patient, grade, _) in enumerate(two_eyed(30))
    ]
    found = Duplicates(groups=duplicates.connected_groups(edges(groups), 60))
    try:
        made = assign_splits(manifest(rows), DataConfig(seed=seed), found)
    except DataError as error:
        assert "too few to cut" in str(error)  # noqa: PT017 -- nearly all may be of one group
        return
    frame = made.frame.assign(joined=merge_patients(made.frame["patient"], found.groups))
    cut = frame[frame["split"] != "test"] if official else frame
    assert disjoint(cut.assign(patient=cut["joined"]))
    assert (made.frame["patient"] == manifest(rows).frame["patient"]).all(), "names stay"


def edges(groups: list[tuple[int, ...]]) -> np.ndarray:
    return np.array([(group[0], row) for group in groups for row in group[1:]], np.int64).reshape(-1, 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 5), patients=st.integers(20, 60), pairs=st.integers(0, 8))
def test_shares_of_the_grades_stay(seed: int, patients: int, pairs: int) -> None:
    rows = [(f"p{i}", i % 5, "") for i in range(5 * patients)]
    twins = [(i, i + 5) for i in range(0, 10 * pairs, 10)]
    frame = assign_splits(manifest(rows), DataConfig(seed=seed), Duplicates(groups=twins)).frame
    for part, share in (("test", 0.15), ("val", 0.15 * 0.85)):
        for grade in range(5):
            n = ((frame["split"] == part) & (frame["grade"] == grade)).sum()
            assert abs(n - share * patients) <= 3


@pytest.mark.parametrize("join", ["same", "near", "none"])
def test_a_data_set_without_duplicates_is_split_as_before(join: str) -> None:
    rows = two_eyed(40)
    assert split(rows).frame.equals(
        assign_splits(manifest(rows), DataConfig(join_duplicates=join), Duplicates(join)).frame
    )


def test_with_none_a_group_may_be_parted_and_that_is_said() -> None:
    rows = [(f"p{i}", i % 5, "") for i in range(60)]
    twins = [(i, i + 5) for i in range(0, 50, 10)]
    parted = [
        made
        for seed in range(5)
        if (
            made := assign_splits(
                manifest(rows), DataConfig(join_duplicates="none", seed=seed), Duplicates("none", twins)
            )
        )
        and made.warnings
    ]
    assert parted
    assert "identical photographs" in parted[0].warnings[0]
    assert "data.join_duplicates=same keeps them together" in parted[0].warnings[0]


def test_patients_in_a_chain_are_one_and_a_flood_of_one_group_is_told() -> None:
    named = pd.Series(["d", "c", "b", "a", "e"], dtype="str")
    assert merge_patients(named, [(0, 1), (1, 2)]).tolist() == ["b", "b", "b", "a", "e"]
    assert merge_patients(named, []) is named
    rows = [(f"p{i}", i % 5, "") for i in range(6)]
    with pytest.raises(DataError, match=r"(?s)1 patient is too few .*data\.join_duplicates=none"):
        assign_splits(manifest(rows), DataConfig(), Duplicates(groups=[tuple(range(6))]))


def test_the_hash_is_over_pixels_and_blank_pictures_have_none() -> None:
    one, other = np.asarray(picture(1)), np.asarray(picture(2))
    assert pixel_hash(one) == pixel_hash(one.copy()) != pixel_hash(other)
    changed = one.copy()
    changed[60, 80, 0] ^= 1
    assert pixel_hash(changed) != pixel_hash(one)
    assert pixel_hash(one.reshape(160, 120, 3)) != pixel_hash(one)
    assert hash_unless_blank(one) == pixel_hash(one)
    noisy = np.random.default_rng(0).integers(0, 12, (50, 60, 3), dtype=np.uint8)
    for blank in (
        np.zeros((4, 3, 3), np.uint8),
        np.full((50, 60, 3), (120, 60, 20), np.uint8),
        noisy,
        255 - noisy // 6,
    ):
        assert hash_unless_blank(blank) == ""
    speck = np.zeros((500, 600, 3), np.uint8)
    speck[333, 1] = 90
    assert hash_unless_blank(speck) != ""


MANY = [(f"{i:02}.png", i, i % 5, "") for i in range(20)]


def test_copies_by_another_name_format_and_metadata_are_one_patients(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", MANY)
    (folder / "c1.png").write_bytes((folder / "03.png").read_bytes())
    picture(3).save(folder / "c2.bmp")
    picture(4).save(folder / "c3.tif", compression="tiff_lzw", description="another camera")
    for name, numbers in (("a.jpg", 50), ("b.jpg", 50)):
        picture(numbers).save(folder / name, comment=name.encode(), quality=95)
    for name in ("black1.png", "black2.png"):
        Image.new("RGB", (160, 120), (2, 2, 3)).save(folder / name)
    more = ["c1.png,3", "c2.bmp,4", "c3.tif,4", "a.jpg,1", "b.jpg,1", "black1.png,0", "black2.png,0"]
    listed = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(listed + "\n".join(f"{row}," for row in more) + "\n")
    made = prepared(folder, test=0.2)
    names = [tuple(made.frame["image"].iloc[row] for row in group) for group in made.duplicates.groups]
    assert sorted(map(len, names)) == [2, 2, 3]
    assert not any("black" in name for group in names for name in group)
    result = made.summary()["duplicates"]
    assert result == {"join": "same", "groups": 3, "photographs": 7, "across_splits": 0, "conflicting_grades": 1}
    assert sum("conflicting grades; duplicates.csv" in warning for warning in made.warnings) == 1
    shown = tables.duplicates(made.summary())
    assert "3 groups of duplicates, 7 photographs (each is one patient in a new split" in shown


@pytest.mark.parametrize("copy", ["b.png", "b.tif"])
def test_a_jpeg_and_a_lossless_copy_of_it_are_the_same_at_every_size(tmp_path: Path, copy: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    large = picture(1).resize((1280, 960), Image.Resampling.BICUBIC)
    large.save(folder / "a.jpg", quality=90)
    with Image.open(folder / "a.jpg") as decoded:
        if copy == "b.png":
            decoded.save(folder / copy)
        else:  # which Pillow does not open
            tifffile.imwrite(folder / copy, (np.asarray(decoded) / 255).astype(np.float32), photometric="rgb")
    for i in range(2, 12):
        picture(i).resize((1280, 960), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
    names = ["a.jpg", copy, *(f"{i}.jpg" for i in range(2, 12))]
    (folder / "labels.csv").write_text("\n".join(["image,level", *(f"{name},{i % 5}" for i, name in enumerate(names))]))
    splits = []
    for size in (16, 128, 512):
        made = prepare(DataConfig(path=str(folder), image_size=size))
        assert made.duplicates.groups == [(0, 1)]
        splits.append(made.frame["split"].tolist())
    assert splits[0] == splits[1] == splits[2]


def test_duplicates_across_given_splits_are_told_and_listed(tmp_path: Path) -> None:
    rows = [(f"{i:02}.png", i, i % 5, "train" if i < 14 else "test") for i in range(20)]
    rows += [("twin.png", 2, 4, "test"), ("same.png", 3, 3, "test")]
    made = prepared(folder_of(tmp_path / "set", rows))
    assert made.warnings[0] == (
        "2 groups of identical photographs (4 photographs) are on both sides of the split (test and train), so that "
        "scores are too optimistic; data.split=by_patient makes a split that keeps them together"
    )
    assert "1 group of identical photographs has conflicting grades" in made.warnings[1]
    results = environment.create_run_folder(tmp_path / "run", made, "name: run\n")
    assert results.metadata()["data"]["duplicates"]["across_splits"] == 2
    with (tmp_path / "run" / "duplicates.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    result = [(row["group"], row["image"], row["grade"], row["conflicting_grades"]) for row in listed]
    assert result[:2] == [("1", "02.png", "2", "yes"), ("1", "twin.png", "4", "yes")]
    assert result[2:] == [("2", "03.png", "3", ""), ("2", "same.png", "3", "")]
    again = prepared(tmp_path / "set", split="by_patient")
    assert again.summary()["duplicates"]["across_splits"] == 0


def test_arrays_are_compared_too(tmp_path: Path) -> None:
    images = np.stack([np.asarray(picture(i).resize((28, 28))) for i in range(30)])
    images[7] = images[20]
    path = tmp_path / "a.npz"
    np.savez(path, train_images=images, train_labels=np.arange(30)[:, None] % 5)
    assert prepared(path).duplicates.groups == [(7, 20)]


def test_a_cache_without_hashes_is_built_again(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", MANY)
    found = read(DataConfig(path=str(folder)))
    index = open_cache(found, 32).path / "index.json"
    index.write_text(index.read_text().replace('"digests"', '"formerly"'))
    again = open_cache(found, 32)
    assert again.built
    assert len(set(again.digests)) == 20


def test_near_joins_what_the_audit_finds_and_looks_once(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [*audit_dataset.LIKE, "train_IDRiD_005", "train_IDRiD_150", "train_IDRiD_020", "train_IDRiD_030"]
    folder = audit_dataset.some_of_idrid(shared, tmp_path / "set", names)
    assert prepared(folder, split="by_patient").duplicates.groups == []
    for config in ({}, {"seed": 3}):
        made = prepared(folder, split="by_patient", join_duplicates="near", **config)
        together = made.frame[made.frame["image"].str.contains("013|397")]
        assert len(together) == 2
        assert len(set(together["split"])) == 1
        monkeypatch.setattr(dataset, "map_photographs", None)  # the second time nothing is looked at


def test_the_real_ones(shared: Path) -> None:
    made = prepare(DataConfig(path=str(shared / "data" / "idrid"), image_size=16))
    names = made.frame["image"].str.removesuffix(".jpg")
    pairs = {tuple(sorted(names.iloc[list(group)])) for group in made.duplicates.groups}
    assert pairs == {tuple(sorted(pair)) for pair in audit_dataset.TWINS}
    result = made.summary()["duplicates"]
    assert (result["groups"], result["across_splits"]) == (6, 1)
    train = made.frame[made.frame["split"] != "test"]
    assert disjoint(train.assign(patient=merge_patients(made.frame["patient"], made.duplicates.groups)[train.index]))
