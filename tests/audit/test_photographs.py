"""An audit looks at every photograph: unfit ones are named, whatever they are, and it ends with 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import audit_dataset
import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import ExifTags, Image

from retina import cli
from retina.audit import findings, measures
from retina.audit.inspect_photograph import inspect_photograph
from retina.data import quality
from retina.data.photograph_pool import map_photographs
from retina.data.pixel_hash import pixel_hash

SOME = ["train_IDRiD_005", "train_IDRiD_150", "test_IDRiD_020"]


def spoilt(shared: Path, folder: Path) -> Path:
    """One fit photograph, and one for each thing that can be wrong with one."""
    with Image.open(audit_dataset.real(shared, SOME[0])) as photograph:
        photograph.save(folder / "fit.png")
        audit_dataset.darkened(photograph).save(folder / "dark.png")
        audit_dataset.blurred(photograph).save(folder / "blurred.png")
    Image.new("RGB", (300, 200), (128, 128, 128)).save(folder / "page.png")
    (folder / "torn.jpg").write_bytes(audit_dataset.real(shared, SOME[1]).read_bytes()[:5000])
    (folder / "text.jpg").write_text("not a photograph")
    names = ("fit.png", "dark.png", "blurred.png", "page.png", "torn.jpg", "text.jpg")
    return audit_dataset.list_of(folder, [(name, 0) for name in names])


def test_each_kind_of_unfit_photograph_is_named(shared: Path, tmp_path: Path) -> None:
    audit = audit_dataset.audited(spoilt(shared, tmp_path))
    assert {
        problem: audit_dataset.names(audit, audit.rows_with_problem(problem)) for problem in findings.QUALITY_PROBLEMS
    } == {
        quality.NO_DISC: {"page"},
        quality.VERY_DARK: {"dark"},
        quality.BLURRED: {"blurred"},
    }
    assert audit_dataset.names(audit, audit.unreadable_rows) == {"torn", "text"}


def test_problems_are_no_errors(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoilt(shared, tmp_path)
    assert cli.main(["data", "audit", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert "! 2 photographs cannot be read (data.on_bad=skip goes on without them)" in said
    assert "torn.jpg" in said
    for problem in ("show no fundus disc", "are very dark", "are blurred"):
        assert f"! 1 of 6 photographs (16.7%) {problem}" in said
    assert said.strip().splitlines()[-1] == f"written: {tmp_path / 'page.html'}"


def test_the_worst_come_first(shared: Path, tmp_path: Path) -> None:
    with Image.open(audit_dataset.real(shared, SOME[0])) as photograph:
        for percent in (12, 3, 8):
            photograph.point(lambda value, by=percent: value * by / 100).save(tmp_path / f"{percent}.png")  # type: ignore[misc]
    audit = audit_dataset.audited(audit_dataset.list_of(tmp_path, [(f"{percent}.png", 0) for percent in (12, 3, 8)]))
    assert [audit.manifest.frame["image"].iloc[row] for row in audit.rows_with_problem(quality.VERY_DARK)] == [
        "3.png",
        "8.png",
        "12.png",
    ]


@pytest.mark.parametrize(
    ("alter", "problems"),
    [
        (lambda one: one, []),
        (audit_dataset.darkened, [quality.VERY_DARK]),
        (audit_dataset.blurred, [quality.BLURRED]),
    ],
    ids=["as it is", "darkened", "blurred"],
)
@pytest.mark.parametrize("size", [512, 224])
def test_quality_is_seen_at_any_size(
    shared: Path, alter: Callable[[Image.Image], Image.Image], problems: list[str], size: int
) -> None:
    for name in SOME:
        with Image.open(audit_dataset.real(shared, name)) as photograph:
            pixels = np.asarray(alter(photograph).resize((size, size), Image.Resampling.LANCZOS))
        assert quality.measure(pixels).problems == problems, name


def test_a_photograph_of_a_camera_is_measured_as_it_is_stored(shared: Path) -> None:
    original = next(iter(sorted((shared / "data" / "idrid" / "originals").glob("*.jpg"))))
    seen = inspect_photograph(str(original))
    assert (seen.width, seen.height) == (4288, 2848)
    assert 3000 < seen.disc_side < 4288
    assert seen.problems == []


@pytest.mark.parametrize("size", [(1956, 1934), (4289, 2849), (3001, 2003)])
def test_sizes_are_those_of_the_file_though_less_is_decoded(
    shared: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    with Image.open(audit_dataset.real(shared, SOME[0])) as photograph:
        larger = photograph.resize(size)
    larger.save(tmp_path / "flat.jpg")
    larger.save(tmp_path / "turned.jpg", exif=turned)
    flat, upright = (inspect_photograph(str(tmp_path / name)) for name in ("flat.jpg", "turned.jpg"))
    assert (flat.width, flat.height) == (upright.height, upright.width) == size
    assert 0 < flat.disc_side <= max(size)


def test_deep_files_that_pillow_does_not_know_are_seen_as_a_sweep_reads_them(shared: Path, tmp_path: Path) -> None:
    with Image.open(audit_dataset.real(shared, SOME[0])) as photograph:
        eight = np.asarray(photograph.crop((0, 0, 500, 512)))
    tifffile.imwrite(tmp_path / "float.tif", (eight / 255).astype(np.float32), photometric="rgb")
    tifffile.imwrite(tmp_path / "whole.tif", eight.astype(np.uint32) * 257, photometric="rgb")
    twelve = imagecodecs.jpeg_encode(eight.astype(np.uint16) * 16, bitspersample=12, level=100, subsampling="444")
    (tmp_path / "twelve.jpg").write_bytes(twelve)
    files = ["float.tif", "whole.tif", "twelve.jpg"]
    audit = audit_dataset.audited(audit_dataset.list_of(tmp_path, [(name, 0) for name in files]))
    assert audit.unreadable_rows == []
    assert audit.photographs is not None
    assert [(one.width, one.height) for one in audit.photographs] == [(500, 512)] * 3
    assert audit.photographs[0].digest == audit.photographs[1].digest == pixel_hash(eight)
    assert [len(group.rows) for group in audit.duplicate_groups] == [3]


def test_small_discs_are_told_of(shared: Path, tmp_path: Path) -> None:
    folder = audit_dataset.some_of_idrid(shared, tmp_path / "set", SOME)
    for size, result in ((768, True), (224, False)):
        found = findings.find(audit_dataset.audited(folder, image_size=size))
        enlarged = [one for one in found if f"enlarged for an image size of {size}" in one.text]
        assert bool(enlarged) == result
        assert not any(one.is_serious for one in enlarged)


def test_measures_are_of_what_can_be_read(shared: Path, tmp_path: Path) -> None:
    audit = audit_dataset.audited(spoilt(shared, tmp_path))
    assert audit.photographs is not None
    found = {one.name: one for one in measures.summarize_measures(audit.photographs, 224)}
    longest = found["longer side, pixels"]
    assert (longest.least, longest.median, longest.most) == (300, 512, 512)
    assert found["brightness, 0 to 255"].least < quality.MIN_BRIGHTNESS < found["brightness, 0 to 255"].most
    assert dict(measures.count_sizes(audit.photographs)) == {"512 x 512": 3, "300 x 200": 1}


def test_processes_see_what_one_sees(shared: Path, tmp_path: Path) -> None:
    frame = audit_dataset.audited(audit_dataset.some_of_idrid(shared, tmp_path / "set", SOME)).manifest.frame
    many = pd.concat([frame] * 14)
    heard: list[tuple[int, int]] = []
    together = map_photographs(many, inspect_photograph, lambda *heard_of: heard.append(heard_of), workers=2)
    assert together == map_photographs(frame, inspect_photograph, workers=1) * 14
    assert heard[0] == (0, 42)
    assert len(heard) == 4, "three chunks, for two processes"
    assert heard[-1] == (42, 42)


def test_what_is_seen_late_stands_in_its_place(tmp_path: Path) -> None:
    frame = audit_dataset.frame([("", "", "", 0)] * 40).assign(path=[str(tmp_path / str(n)) for n in range(40)])
    assert map_photographs(frame, audit_dataset.after_the_last, workers=2) == [str(n) for n in range(40)]
