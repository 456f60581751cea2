"""A disc on paper is cropped as one on black is, or the photograph is said to show none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from retina.data.fundus import Pixels, find_disc, read, read_square, to_square

HEIGHT, WIDTH = 240, 320
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH] + 0.5
GREY_TO_WHITE = np.broadcast_to(np.linspace(110, 230, WIDTH)[None, :, None], (HEIGHT, WIDTH, 3))
GROUNDS = {
    "white": 255,
    "paper": (240, 236, 225),
    "grey": 128,
    "dark grey": 60,
    "blue": (40, 80, 200),
    "noise": 128 + np.random.default_rng(0).normal(0, 12, (HEIGHT, WIDTH, 3)),
    "shaded": GREY_TO_WHITE,
}


def retina(x: float, y: float, radius: float) -> np.ndarray:
    """A retina, darker towards its rim, with an optic disc and some vessels; as large as the photograph."""
    distance = np.hypot(COLUMNS - x, ROWS - y) / radius
    shade = (1.05 - 0.4 * distance**2)[..., None] * np.array([190, 95, 45])
    shade[np.hypot(COLUMNS - x - 0.45 * radius, ROWS - y) < 0.13 * radius] = (235, 190, 110)
    wave = np.abs(ROWS - y - 0.3 * radius * np.sin((COLUMNS - x) / radius * 3)) < 2
    shade[wave] *= 0.6
    return shade + ndimage.gaussian_filter(np.random.default_rng(1).normal(0, 12, shade.shape), (1.5, 1.5, 0))


def photograph(ground: object, x: float = 160, y: float = 120, radius: float = 100) -> Pixels:
    inside = np.hypot(COLUMNS - x, ROWS - y) < radius
    mixed = np.where(inside[..., None], retina(x, y, radius), np.asarray(ground))
    return np.clip(mixed, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize(
    ("x", "y", "radius"), [(160, 120, 100), (150, 125, 80), (160, 120, 135)], ids=["whole", "aside", "cut"]
)
def test_a_disc_on_any_ground_is_cropped_as_on_black(ground: object, x: float, y: float, radius: float) -> None:
    given = photograph(ground, x, y, radius)
    disc, on_black = find_disc(given), find_disc(photograph(0, x, y, radius))
    assert disc is not None
    assert on_black is not None
    box = (disc.left, disc.top, disc.right, disc.bottom)
    assert box == pytest.approx((on_black.left, on_black.top, on_black.right, on_black.bottom), abs=4)
    assert not on_black.light
    square, found = to_square(given, 96)
    expected, _ = to_square(photograph(0, x, y, radius), 96)
    assert found
    assert (square[:4, :4] < 12).all(), "black around it"
    assert (square[-4:, -4:] < 12).all()
    assert np.abs(square.astype(int) - expected)[24:72, 24:72].mean() < 8


@pytest.mark.parametrize("name", sorted(set(GROUNDS) - {"shaded"}))  # grey and uneven: may be a grey retina
def test_without_a_disc_there_is_none(name: str) -> None:
    ground = GROUNDS[name]
    plain = np.clip(np.broadcast_to(np.asarray(ground, np.float64), (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    assert find_disc(plain) is None
    drawing = plain.copy()
    drawing[60:180, 40:280] = (90, 40, 160)  # a box is no disc
    assert find_disc(drawing) is None


def test_a_retina_that_fills_the_photograph_is_whole_and_its_optic_disc_is_none() -> None:
    filled = np.clip(retina(160, 120, 320), 0, 255).astype(np.uint8)
    disc = find_disc(filled)
    assert disc is not None
    assert (disc.left, disc.top, disc.right, disc.bottom, disc.light) == (0, 0, WIDTH, HEIGHT, False)


def test_the_cases_on_white_and_grey(shared: Path) -> None:
    for name in ("white_bg.png", "grey_bg.png"):
        path = shared / "cases" / "photos" / name
        disc = find_disc(read(path))
        assert disc is not None
        assert (disc.left, disc.top, disc.right, disc.bottom) == pytest.approx((100, 20, 540, 460), abs=3)
        square, found = read_square(path, 64)
        assert found
        assert (square[0, 0] == 0).all()


def test_real_photographs_on_paper(shared: Path) -> None:
    for path in sorted((shared / "data/idrid/images").glob("train_IDRiD_0[0-9]0.jpg"))[:6]:
        black = read(path)
        wanted = find_disc(black)
        assert wanted is not None
        rows, columns = np.mgrid[: black.shape[0], : black.shape[1]] + 0.5
        inside = np.hypot(columns - wanted.x, rows - wanted.y) < wanted.radius - 1
        inside &= (rows > wanted.top) & (rows < wanted.bottom) & (columns > wanted.left) & (columns < wanted.right)
        for ground in (255, 128, (40, 80, 200)):
            got = find_disc(np.where(inside[..., None], black, np.array(ground)).astype(np.uint8))
            assert got is not None
            assert got.light
            box = (wanted.left, wanted.top, wanted.right, wanted.bottom)
            assert (got.left, got.top, got.right, got.bottom) == pytest.approx(box, abs=8)


def test_usual_photographs_are_not_touched(shared: Path) -> None:
    for path in sorted((shared / "data/idrid/images").glob("train_IDRiD_1[0-9]0.jpg"))[:6]:
        disc = find_disc(np.array(Image.open(path)))
        assert disc is not None
        assert not disc.light
