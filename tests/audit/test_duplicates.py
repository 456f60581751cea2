"""The same photograph twice is found, whatever was done to its file; two eyes are never taken for one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import audit_dataset
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter
from report_pages import read

from retina.audit import findings, page
from retina.config import SyntheticConfig
from retina.data import perceptual_hash, synthetic

SOME = ["train_IDRiD_005", "train_IDRiD_150", "test_IDRiD_020"]


def compressed(photograph: Image.Image, quality: int = 50) -> Image.Image:
    stream = io.BytesIO()
    photograph.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": compressed,
    "smaller": lambda one: one.resize((224, 224), Image.Resampling.LANCZOS),
    "darker": lambda one: ImageEnhance.Brightness(one).enhance(0.7),
    "brighter": lambda one: ImageEnhance.Brightness(one).enhance(1.15),
    "greyer": lambda one: ImageEnhance.Color(one).enhance(0.5),
    "with more black around": lambda one: _bordered(one, 40),
}


def _bordered(photograph: Image.Image, pixels: int) -> Image.Image:
    whole = Image.new("RGB", (photograph.width + 2 * pixels, photograph.height + pixels))
    whole.paste(photograph, (pixels, pixels // 2))
    return whole


def test_idrid_s_duplicates_are_found_and_no_others(shared: Path, tmp_path: Path) -> None:
    twins = [name for pair in audit_dataset.TWINS for name in pair]
    others = [f"train_IDRiD_{n:03}" for n in range(100, 117)]
    audit = audit_dataset.audited(
        audit_dataset.some_of_idrid(shared, tmp_path / "set", [*twins, *audit_dataset.LIKE, *others])
    )
    known = audit_dataset.labelled(shared)
    found = {frozenset(audit_dataset.names(audit, group.rows)): group for group in audit.duplicate_groups}
    assert set(found) == {frozenset(pair) for pair in (*audit_dataset.TWINS, audit_dataset.LIKE)}
    for pair, group in found.items():
        assert group.is_exact == (pair != frozenset(audit_dataset.LIKE))
        assert group.grades == tuple(sorted({known[name][0] for name in pair}))
        assert set(group.splits) == {known[name][1] for name in pair}
        assert group.has_conflicting_grades == (len({known[name][0] for name in pair}) == 2)
    assert audit.duplicate_groups[0].crosses_splits, "the one across train and test comes first"
    assert sum(group.crosses_splits for group in audit.duplicate_groups) == 1


@pytest.mark.parametrize("how", ALTERATIONS)
def test_an_altered_copy_is_found(shared: Path, tmp_path: Path, how: str) -> None:
    rows = []
    for name in SOME:
        with Image.open(audit_dataset.real(shared, name)) as photograph:
            photograph.save(tmp_path / f"{name}.png")
            ALTERATIONS[how](photograph.convert("RGB")).save(tmp_path / f"{name}-again.png")
        rows += [(f"{name}.png", 0), (f"{name}-again.png", 0)]
    audit = audit_dataset.audited(audit_dataset.list_of(tmp_path, rows))
    assert {frozenset(audit_dataset.names(audit, group.rows)) for group in audit.duplicate_groups} == {
        frozenset({name, f"{name}-again"}) for name in SOME
    }
    assert not any(group.is_exact for group in audit.duplicate_groups)


TWICE = [(f"{n}{copy}.png", n % 5) for n in range(15) for copy in ("a", "b")]


def _twins(folder: Path) -> None:
    for name, _ in TWICE:
        Image.new("RGB", (96, 64), (int(name[:-5]), 0, 0)).save(folder / name)


@pytest.mark.parametrize(
    ("header", "more", "cut"),
    [
        ("image,level", "", "test and val"),
        ("image,level,split", ",test", ""),
        ("image,level,split", ",{train}", "val"),
        ("image,level,split", ",{every}", ""),
        ("image,level,patient", ",{who}", ""),
    ],
    ids=["no split", "nothing to cut", "no validation", "all splits", "one patient"],
)
def test_duplicates_that_a_sweep_may_part_are_serious(tmp_path: Path, header: str, more: str, cut: str) -> None:
    _twins(tmp_path)
    splits = ["test", "test", "val", "val", *[""] * 26]
    rows = [
        (name, str(grade) + more.format(train=of.replace("val", ""), every=of or "train", who=name[:-5]))
        for (name, grade), of in zip(TWICE, splits, strict=True)
    ]
    found = findings.find(audit_dataset.audited(audit_dataset.list_of(tmp_path, rows, header)))
    parted = [one for one in found if "different patients" in one.text]
    assert all(one.is_serious and one.section == "duplicates" for one in parted)
    groups = 14 if cut == "val" else 15
    result = (
        f"{groups} groups of duplicates count as {2 * groups} different patients, "
        f"so that a sweep, which makes {cut} by patient, may put them on both sides"
    )
    assert [one.text for one in parted] == ([result] if cut else [])


def test_of_those_that_a_sweep_keeps_together_that_is_said(tmp_path: Path) -> None:
    for name, _ in TWICE:
        shade = np.random.default_rng(int(name[:-5])).integers(0, 255, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(shade).save(tmp_path / name)
    for join, serious in (("same", False), ("near", False), ("none", True)):
        found = findings.find(audit_dataset.audited(audit_dataset.list_of(tmp_path, TWICE), join_duplicates=join))
        (result,) = [one for one in found if "15 groups of duplicates count as 30 different patients" in one.text]
        assert result.is_serious == serious
        wanted = (
            "may put them on both sides; data.join_duplicates=same keeps"
            if serious
            else "a sweep treats each group as one patient"
        )
        assert wanted in result.text


def test_duplicates_of_what_has_no_split_and_test_are_in_train_and_test(tmp_path: Path) -> None:
    _twins(tmp_path)
    rows = [(name, f"{grade},{'test' if name[-5] == 'b' else ''}") for name, grade in TWICE]
    audit = audit_dataset.audited(audit_dataset.list_of(tmp_path, rows, "image,level,split"))
    assert "15 groups of duplicates are on both sides of a split (train with test)" in findings.find(audit)[0].text
    groups = read(page.render(audit)).section("duplicates").find("figure", **{"class": "group"})
    assert all("the same picture, in train and test" in one.words for one in groups)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_different_eyes_are_not_taken_for_one_because_they_are_blurred(
    shared: Path, tmp_path: Path, suffix: str
) -> None:
    rows = []
    for name in ("test_IDRiD_012", "test_IDRiD_086", "train_IDRiD_151", "train_IDRiD_343"):
        with Image.open(audit_dataset.real(shared, name)) as photograph:
            photograph.filter(ImageFilter.GaussianBlur(20)).save(tmp_path / f"{name}.{suffix}")
        rows.append((f"{name}.{suffix}", 0))
    (tmp_path / f"again.{suffix}").write_bytes((tmp_path / rows[0][0]).read_bytes())
    audit = audit_dataset.audited(audit_dataset.list_of(tmp_path, [*rows, (f"again.{suffix}", 0)]))
    assert [(group.rows, group.is_exact) for group in audit.duplicate_groups] == [((0, 4), True)]


def test_the_two_eyes_of_a_patient_are_no_duplicates(tmp_path: Path) -> None:
    synthetic.draw(tmp_path / "drawn", SyntheticConfig(photographs=24, size=128, proportions="balanced"))
    audit = audit_dataset.audited(tmp_path / "drawn")
    assert audit.label_statistics.both_eyes == 12
    assert audit.duplicate_groups == []


def test_what_shows_nothing_is_compared_by_its_file_alone(tmp_path: Path) -> None:
    for n in range(4):
        Image.new("RGB", (96, 64), (n // 2, 0, 0)).save(tmp_path / f"{n}.png")
    audit = audit_dataset.audited(audit_dataset.list_of(tmp_path, [(f"{n}.png", n) for n in range(4)]))
    assert [group.rows for group in audit.duplicate_groups] == [(0, 1), (2, 3)]
    assert all(group.is_exact and group.has_conflicting_grades for group in audit.duplicate_groups)


def test_rows_of_an_npz_are_compared_by_their_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 28, 28, 3)).astype(np.uint8)
    pixels[4] = pixels[1]
    labels = np.arange(6) % 5
    np.savez(tmp_path / "set.npz", train_images=pixels[:3], train_labels=labels[:3], test_images=pixels[3:],
             test_labels=labels[3:])  # fmt: skip
    audit = audit_dataset.audited(tmp_path / "set.npz")
    assert [(group.rows, group.is_exact, group.crosses_splits) for group in audit.duplicate_groups] == [
        ((1, 4), True, True)
    ]


def test_copies_are_found_wherever_they_stand_among_thousands() -> None:
    details = audit_dataset.noise(3000)
    planted = [(0, 1), (5, 2999), (1500, 1501), (2047, 2048)]
    for first, second in planted:
        details[second] = details[first] + np.random.default_rng(first).integers(-9, 9, (32, 32))
    assert sorted(map(tuple, perceptual_hash.find_near_pairs(details).tolist())) == planted


@settings(max_examples=40)
@given(st.integers(0, 12), st.integers(0, 2**32 - 1), st.data())
def test_pairs_are_the_ones_that_comparing_each_with_each_gives(n: int, seed: int, data: st.DataObject) -> None:
    details = audit_dataset.noise(n, seed)
    for row in range(1, n):
        copied = data.draw(st.integers(-1, row - 1), label=f"row {row} is a copy of")
        if copied >= 0:
            blend = data.draw(st.sampled_from([1.0, 0.8, 0.5]))
            details[row] = (blend * details[copied] + (1 - blend) * details[row]).astype(np.int8)
    bits = np.unpackbits(perceptual_hash.compute_hashes(details).view(np.uint8), axis=1) if n else np.empty((0, 256))
    flat = details.reshape(n, 32 * 32).astype(float)
    wanted = [
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if (bits[i] != bits[j]).sum() <= perceptual_hash.MAX_DISTANCE
        and np.corrcoef(flat[i], flat[j])[0, 1] >= perceptual_hash.MIN_CORRELATION
    ]
    assert sorted(map(tuple, perceptual_hash.find_near_pairs(details).tolist())) == wanted
