"""Photographs unfit to be graded are known by darkness, blur, or the lack of a disc; fit ones are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from retina.data import quality
from retina.data.fundus import read

HOW_MANY = 12


@pytest.fixture(scope="module")
def real(shared: Path) -> list[Path]:
    """Some of IDRiD's photographs, all over the data set."""
    files = sorted((shared / "data" / "idrid" / "images").iterdir())
    return files[:: len(files) // HOW_MANY][:HOW_MANY]


def darkened(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 0.1).astype(np.uint8)


def blurred(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.015 * pixels.shape[0])))


def test_real_photographs_are_fit(real: list[Path]) -> None:
    found = {file.name: quality.measure(read(file)).problems for file in real}
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_darkened_ones_are_very_dark(real: list[Path]) -> None:
    assert [quality.measure(darkened(read(file))).problems for file in real] == [["very dark"]] * len(real)


def test_blurred_ones_are_blurred(real: list[Path]) -> None:
    assert [quality.measure(blurred(read(file))).problems for file in real] == [["blurred"]] * len(real)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_plain_page_has_no_disc(grey: int) -> None:
    assert "no disc" in quality.measure(np.full((300, 400, 3), grey, np.uint8)).problems
