"""Reading, finding the disc, cropping: on drawn discs whose place is known, and on real photographs."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from retina.data.fundus import Pixels, find_disc, read, to_square
from retina.errors import DataError

NOISE = np.random.default_rng(0).integers(1, 255, (64, 64, 3), dtype=np.uint8)

GREY = np.add.outer(np.arange(0, 240, 20), np.arange(16)).astype(np.uint8)  # (12, 16), 0 to 235
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def drawn(
    height: int,
    width: int,
    x: float,
    y: float,
    radius: float,
    *,
    level: float = 150,
    black: float = 3,
    noise: float = 1,
    text: bool = False,
) -> Pixels:
    """A reddish disc, darker towards its rim, on noisy black."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(columns - x, rows - y)
    inside = np.clip(radius - distance + 0.5, 0, 1)[..., None]
    shade = (1 - 0.3 * (distance / radius) ** 2)[..., None] * np.array([1.0, 0.6, 0.3]) * level
    photograph = black + inside * (shade - black) + rng.uniform(-noise, noise, (height, width, 3))
    image = Image.fromarray(np.clip(photograph, 0, 255).astype(np.uint8))
    if text:
        ImageDraw.Draw(image).text((4, 4), "2015-03-02 OD", fill=(255, 255, 255))
    return np.array(image)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def over_black(colour: Pixels, alpha: Pixels) -> Pixels:
    return np.rint(colour * (alpha[..., None] / 255)).astype(np.uint8)


def test_colours_of_every_mode_are_read_right(tmp_path: Path) -> None:
    alpha = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (12, 1))
    grey3 = np.stack([GREY] * 3, axis=-1)
    palette = Image.fromarray(COLOUR).quantize(256)
    cases = {
        "rgb.png": (Image.fromarray(COLOUR), COLOUR),
        "l.png": (Image.fromarray(GREY), grey3),
        "one.png": (Image.fromarray(GREY > 100), np.where(grey3 > 100, 255, 0)),
        "la.png": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)]), over_black(grey3, alpha)),
        "p.png": (palette, np.asarray(palette.convert("RGB"))),
        "rgba.png": (Image.fromarray(np.dstack([COLOUR, alpha])), over_black(COLOUR, alpha)),
        "cmyk.tif": (Image.fromarray(COLOUR).convert("CMYK"), COLOUR),
        "rgb.webp": (Image.fromarray(COLOUR), COLOUR),
    }
    for name, (image, expected) in cases.items():
        path = save(tmp_path / name, image, **({"lossless": True} if name.endswith("webp") else {}))
        got = read(path)
        assert got.shape == (12, 16, 3), name
        assert got.dtype == np.uint8
        assert got.flags.writeable
        assert np.abs(got.astype(int) - expected).max() <= 1, name


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_is_read_right_in_full_and_reduced(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (640, 400), (180, 90, 30)).convert(mode)
    path = save(tmp_path / "a.jpg", image, quality=95)
    colour = np.array(image.convert("RGB"))[0, 0].astype(int)
    assert np.abs(read(path) - colour).max() <= 3
    small = read(path, min_side=100)
    assert small.shape == (100, 160, 3)
    assert np.abs(small - colour).max() <= 3
    assert read(path, min_side=101).shape == (200, 320, 3)
    assert read(path, min_side=500).shape == (400, 640, 3)


@pytest.mark.parametrize("top", [200, 4000, 65535])
def test_sixteen_bits_are_scaled_by_the_depth_in_use_and_not_clipped(tmp_path: Path, top: int) -> None:
    values = np.linspace(0, top, 12 * 16).reshape(12, 16).astype(np.uint16)
    full = {200: 255, 4000: 4095, 65535: 65535}[top]
    for name in ("a.png", "a.tif"):
        got = read(save(tmp_path / name, Image.fromarray(values)))
        assert np.abs(got[..., 0] - values * (255 / full)).max() <= 0.51


def test_wider_integers_and_floats_are_scaled(tmp_path: Path) -> None:
    whole = np.linspace(0, 1_000_000, 192).reshape(12, 16)
    for values in (whole.astype(np.int32), (whole / 1e6).astype(np.float32)):
        got = read(save(tmp_path / "a.tif", Image.fromarray(values)))
        assert np.abs(got[..., 1] - whole * 255 / 1e6).max() <= 0.51


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48], upright[:32, 48:], upright[32:, :48] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    stored = {  # how a camera lays the upright picture down for each value
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = save(tmp_path / "a.jpg", image, exif=exif, quality=95, subsampling=0)
    got = read(path).astype(int)
    assert got.shape == upright.shape
    assert np.abs(got - upright).mean() < 3


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("options", [{"format": "JPEG"}, {"format": "JPEG", "progressive": True}, {"format": "PNG"}])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float, options: dict[str, object]) -> None:
    stream = io.BytesIO()
    Image.fromarray(drawn(200, 300, 150, 100, 120)).save(stream, **options)
    path = tmp_path / "cut.img"
    path.write_bytes(stream.getvalue()[: int(share * len(stream.getvalue()))])
    for min_side in (None, 50):
        with pytest.raises(DataError, match=r"cut\.img"):
            read(path, min_side)


@pytest.mark.parametrize(("mode", "options"), [("RGB", {}), ("L", {}), ("P", {}), ("RGB", {"interlace": 1})])
def test_a_png_of_fewer_rows_than_its_header_says_is_refused(
    tmp_path: Path, mode: str, options: dict[str, Any]
) -> None:
    """Its compressed data have an end, and Pillow fills the rest with black."""
    file = tmp_path / "a.png"
    Image.fromarray(NOISE).convert(mode).save(file, **options)
    content = bytearray(file.read_bytes())
    content[20:24] = struct.pack(">I", 2 * len(NOISE))
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: cannot be read: it has fewer rows than its header says"):
        read(file)


def test_a_png_that_ends_in_black_rows_is_read(tmp_path: Path) -> None:
    black_below = np.vstack([NOISE, np.zeros_like(NOISE)])
    Image.fromarray(black_below).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), black_below)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_whose_data_end_before_its_last_row_is_refused(tmp_path: Path, mode: str) -> None:
    """It has an end marker, and libjpeg fills the rest with grey."""
    file = tmp_path / "a.jpg"
    Image.fromarray(NOISE).convert(mode).save(file, quality=90)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read: its data end at row \d+ of 64"):
        read(file)


def test_a_jpeg_on_that_grey_is_read(tmp_path: Path) -> None:
    """Ben Graham's preparation of Kaggle's photographs lays the eye on a grey of 128."""
    grey = np.full((96, 96, 3), 128, np.uint8)
    grey[16:80, 16:80] = NOISE
    Image.fromarray(grey).save(tmp_path / "a.jpg", quality=95)
    assert read(tmp_path / "a.jpg").shape == (96, 96, 3)


def test_a_missing_a_foreign_and_a_huge_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"none\.jpg: there is no such file"):
        read(tmp_path / "none.jpg")
    (tmp_path / "a.jpg").write_text("<html>not found</html>")
    with pytest.raises(DataError, match=r"a\.jpg: is not an image"):
        read(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)
    path = save(tmp_path / "big.png", Image.fromarray(COLOUR))
    for limit in (150, 50):  # PIL warns above its limit and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=f"more than {limit} pixels"):
            read(path)


def test_one_so_long_that_its_square_would_be_huge_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "long.png", Image.new("L", (20_000, 100), 90))
    with pytest.raises(DataError, match=r"long\.png: is 20,000 x 100 pixels; no side may have more than 9,459"):
        read(path, min_side=50)
    path = save(tmp_path / "long.jpg", Image.new("L", (20_000, 800), 90))
    assert read(path, min_side=100).shape == (100, 2500, 3)


def test_a_photograph_of_80_million_pixels_is_no_bomb(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("L", (10_000, 8_000), 90))
    assert read(path, min_side=1000).shape == (1000, 1250, 3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    height=st.integers(150, 700),
    aspect=st.floats(0.7, 1.6),
    share=st.floats(0.55, 1.15),
    shift=st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
    level=st.sampled_from([22.0, 60.0, 150.0, 320.0]),
    text=st.booleans(),
)
def test_a_disc_is_found_and_stays_round(
    *, height: int, aspect: float, share: float, shift: tuple[float, float], level: float, text: bool
) -> None:
    width = round(height * aspect)
    shorter = min(height, width)
    radius = share * shorter / 2
    x, y = width / 2 + shift[0] * shorter, height / 2 + shift[1] * shorter
    photograph = drawn(height, width, x, y, radius, level=level, text=text)
    disc = find_disc(photograph)
    assert disc is not None
    slack = 0.015 * max(height, width) + 2
    box = (max(x - radius, 0), max(y - radius, 0), min(x + radius, width), min(y + radius, height))
    assert (disc.left, disc.top, disc.right, disc.bottom) == pytest.approx(box, abs=slack)
    square, found = to_square(photograph, 128)
    assert found
    assert square.shape == (128, 128, 3)
    assert square.dtype == np.uint8
    # what the square shows must be a disc of one radius, cut or not: compare it with one painted by the same shift
    left, top, side = disc.square()
    ideal = drawn(128, 128, (x - left) * 128 / side, (y - top) * 128 / side, radius * 128 / side, level=level, noise=0)
    seen = np.zeros((128, 128), bool)
    (x0, y0), (x1, y1) = np.ceil(np.array([[-left, -top], [width - left, height - top]]) * 128 / side).astype(int)
    seen[max(y0, 0) + 1 : y1 - 1, max(x0, 0) + 1 : x1 - 1] = True
    seen[:24, :100] &= not text
    threshold = (3 + min(level, 255) * 0.7) / 2
    wrong = ((square[..., 0] > threshold) != (ideal[..., 0] > threshold)) & seen
    assert wrong.sum() <= 0.01 * seen.size  # a rim of a third of a pixel


def test_a_disc_cut_at_both_ends_is_padded_alike_and_one_cut_at_the_top_hangs_low() -> None:
    def rows_lit(top: float) -> np.ndarray:
        square, _ = to_square(drawn(400, 700, 350, top, 280, noise=0, black=0), 200)
        return np.flatnonzero(square[:, 100, 0] > 20)

    both = rows_lit(200)
    assert both[0] == pytest.approx(199 - both[-1], abs=1)
    assert both[0] == pytest.approx(200 * 80 / 560, abs=2)
    only_top = rows_lit(100)  # seen from -100 - 80 to 380: the margin belongs to the top
    assert only_top[-1] >= 197
    assert only_top[0] == pytest.approx(200 * 180 / 560, abs=2)


def test_a_retina_that_fills_the_photograph_is_taken_whole() -> None:
    photograph = drawn(300, 420, 210, 150, 400)
    disc = find_disc(photograph)
    assert disc is not None
    assert (disc.left, disc.top, disc.right, disc.bottom) == (0, 0, 420, 300)
    square, _ = to_square(photograph, 140)
    assert (square[:16] == 0).all()
    assert (square[22:118, :, 0] > 50).all()


def _page() -> Pixels:
    image = Image.new("RGB", (500, 600), (250, 248, 245))
    for y in range(20, 580, 14):
        ImageDraw.Draw(image).text((20, y), "The quick brown fox jumps over the lazy dog " * 2, fill=(10, 10, 10))
    return np.array(image)


def _noise(low: int, high: int, *shape: int) -> Pixels:
    return np.random.default_rng(0).integers(low, high, shape, dtype=np.uint8, endpoint=True)


NOTHING = {
    "black": np.zeros((300, 400, 3), np.uint8),
    "white": np.full((300, 400, 3), 255, np.uint8),
    "red": np.full((300, 400, 3), (200, 50, 10), np.uint8),
    "noisy black": _noise(0, 5, 700, 900, 3),
    "noise": _noise(0, 255, 500, 500, 3),
    "small noise": _noise(0, 255, 28, 28, 3),
    "page": _page(),
    "text on black": drawn(400, 500, 0, 0, 1e-3, text=True),
    "one pixel": np.full((1, 1, 3), 90, np.uint8),
    "line": np.full((1, 50, 3), 90, np.uint8),
}


@pytest.mark.parametrize("name", NOTHING)
def test_where_there_is_no_disc_the_whole_photograph_is_kept(name: str) -> None:
    photograph = NOTHING[name]
    assert find_disc(photograph) is None
    square, found = to_square(photograph, 64)
    assert not found
    assert square.shape == (64, 64, 3)
    height, width = photograph.shape[:2]
    margin = 32 * (1 - height / max(height, width))
    assert (square[: max(int(margin) - 3, 0)] == 0).all()
    assert square.mean() == pytest.approx(photograph.mean() * min(height, width) / max(height, width), abs=3)


def test_the_originals_are_cropped_to_their_disc(shared: Path) -> None:
    paths = sorted((shared / "data/idrid/originals").glob("*.jpg"))
    assert len(paths) == 20
    for path in paths:
        photograph = read(path, min_side=448)
        height, width = photograph.shape[:2]
        assert (height, width) == (712, 1072)
        for variant in (photograph, photograph * 0.08 + _noise(0, 3, height, width, 3), photograph * 3.0 + 20):
            disc = find_disc(np.clip(variant, 0, 255).astype(np.uint8))
            assert disc is not None, path
            assert (disc.top, disc.bottom) == (0, 712), path  # cut flat
            assert disc.radius == pytest.approx(430, abs=10), path
            assert (disc.left, disc.right) == pytest.approx((66, 927), abs=12), path


def test_reduced_decoding_hardly_changes_the_square(shared: Path) -> None:
    path = min((shared / "data/idrid/originals").glob("*.jpg"))
    full, reduced = (to_square(read(path, min_side), 224)[0].astype(float) for min_side in (None, 448))
    assert 10 * np.log10(255**2 / np.mean((full - reduced) ** 2)) > 36


def test_small_squares_that_the_disc_fills_stay_as_they_are(shared: Path) -> None:
    photographs = np.load(shared / "data/retinamnist.npz")["val_images"]
    same = [np.array_equal(to_square(photograph, 28)[0], photograph) for photograph in photographs]
    assert np.mean(same) > 0.95
    assert all(find_disc(photograph) for photograph in photographs)
