"""Changed photographs as bytes: some must be graded as before, some must get no grade, some may get any grade."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from benchmarks.robustness import damage
from benchmarks.robustness.case import Rng, pick

Pixels = NDArray[np.uint8]
Meaning = Literal["same", "never", "odd", "suspicious"]
"""The expected result for a photograph.

same: the grade of the intact photograph; never: no grade; odd: any grade or none; suspicious: no grade, or a grade with
a problem.
"""


KINDS = (
    ("JPEG", ".jpg"), ("PNG", ".png"), ("TIFF", ".tif"), ("WEBP", ".webp"), ("BMP", ".bmp"), ("JPEG2000", ".jp2"),
    ("PPM", ".ppm"), ("GIF", ".gif"),
)  # fmt: skip
NO_PICTURES = (
    (b"", "empty"), (b"x" * 4000, "text"), (bytes(4000), "zeros"), (b"\xff\xd8\xff", "three bytes of a JPEG"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
    (b"GIF89a" + bytes(20), "a GIF of nothing"), (b"II*\0" + b"\xff" * 100, "a TIFF of nothing"),
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A changed photograph: its bytes, the suffix of its file, its meaning, and the description of the change."""

    data: bytes
    suffix: str
    meaning: Meaning
    what: str


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _lossless(pixels: Pixels, rng: Rng) -> Picture:
    variants: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("PNG", ".png", {}), ("TIFF", ".tif", {}), ("TIFF", ".tiff", {"compression": "tiff_lzw"}), ("BMP", ".bmp", {}),
        ("TIFF", ".TIF", {"compression": "tiff_adobe_deflate"}), ("WEBP", ".webp", {"lossless": True}),
        ("PPM", ".ppm", {}), ("JPEG2000", ".jp2", {}), ("PNG", ".PNG", {"compress_level": 0}),
    )  # fmt: skip
    kind, suffix, options = variants[int(rng.integers(len(variants)))]
    return Picture(_saved(Image.fromarray(pixels), kind, **options), suffix, "same", f"{kind} {options or ''}")


def _wrong_suffix(pixels: Pixels, rng: Rng) -> Picture:
    suffix = (".jpg", ".tif", ".bmp", ".jpeg")[int(rng.integers(4))]
    return Picture(_saved(Image.fromarray(pixels), "PNG"), suffix, "same", f"a PNG called {suffix}")


def _opaque(pixels: Pixels, _: Rng) -> Picture:
    image = Image.fromarray(pixels).convert("RGBA")
    return Picture(_saved(image, "PNG"), ".png", "same", "PNG with an opaque alpha channel")


def _turned(pixels: Pixels, rng: Rng) -> Picture:
    """Transpose the photograph and write the EXIF orientation that reverses it."""
    tag, back = (
        (2, Image.Transpose.FLIP_LEFT_RIGHT), (3, Image.Transpose.ROTATE_180), (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE), (6, Image.Transpose.ROTATE_90), (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    )[int(rng.integers(7))]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = tag
    return Picture(
        _saved(Image.fromarray(pixels).transpose(back), "PNG", exif=exif),
        ".png",
        "same",
        f"turned, EXIF orientation {tag}",
    )


def _with_garbage(pixels: Pixels, rng: Rng) -> Picture:
    """Add unreadable metadata, which must not affect the pixels."""
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "x" * 3000)
    noise = rng.integers(0, 256, 300, dtype="uint8").tobytes()
    variants = (
        (_saved(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0" + noise), ".png", "garbage for EXIF"),
        (_saved(Image.fromarray(pixels), "PNG", pnginfo=notes), ".png", "a long comment"),
        (_saved(Image.fromarray(pixels), "PNG") + noise, ".png", "bytes after the end"),
        (_saved(Image.fromarray(pixels), "PNG", icc_profile=noise), ".png", "garbage for a colour profile"),
    )
    data, suffix, what = variants[int(rng.integers(len(variants)))]
    return Picture(data, suffix, "same", what)


def _png16(pixels: NDArray[np.uint16]) -> bytes:
    """Encode a PNG of 16-bit RGB, which Pillow does not write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _tiff16(pixels: NDArray[np.uint16]) -> bytes:
    """Encode an uncompressed TIFF of 16-bit RGB, which Pillow does not write."""
    height, width = pixels.shape[:2]
    data = pixels.astype("<u2").tobytes()
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 0),
            (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1)]  # fmt: skip
    end = 8 + 2 + 12 * len(tags) + 4
    values = {258: end, 273: end + 6}
    entries = b"".join(
        struct.pack("<HHI", tag, kind, count) + struct.pack("<I", values.get(tag, value))
        for tag, kind, count, value in tags
    )
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(tags))
        + entries
        + struct.pack("<I", 0)
        + struct.pack("<3H", 16, 16, 16)
        + data
    )


def _sixteen_bits(pixels: Pixels, rng: Rng) -> Picture:
    bits = (8, 12, 16)[int(rng.integers(3))]
    maximum = 2**bits - 1
    values = np.rint(pixels.astype(np.float64) * maximum / 255).astype(np.uint16)
    if pixels.max() < 128:  # otherwise the bit depth in use cannot be determined
        values[0, 0] = maximum
    if rng.random() < 0.5:
        return Picture(_png16(values), ".png", "same", f"PNG of 16 bits that holds {bits}")
    return Picture(_tiff16(values), ".tif", "same", f"TIFF of 16 bits that holds {bits}")


def _grey(pixels: Pixels, rng: Rng) -> Picture:
    grey = Image.fromarray(pixels).convert("L")
    variants = (
        (_saved(grey, "PNG"), ".png", "grey"),
        (_saved(grey.convert("P"), "PNG"), ".png", "palette"),
        (_saved(grey.convert("1"), "PNG"), ".png", "one bit"),
        (_saved(grey.convert("LA"), "PNG"), ".png", "grey with alpha"),
        (_saved(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"), ".png", "grey of 16 bits"),
        (_saved(Image.fromarray(np.asarray(grey).astype(np.float32)), "TIFF"), ".tif", "floats"),
        (_saved(Image.fromarray(np.full(grey.size[::-1], np.nan, np.float32)), "TIFF"), ".tif", "NaN"),
        (_saved(Image.fromarray(np.asarray(grey).astype(np.int32) - 100), "TIFF"), ".tif", "signed"),
        (_saved(Image.fromarray(pixels).convert("CMYK"), "JPEG"), ".jpg", "CMYK"),
        (_saved(Image.fromarray(pixels).convert("LAB"), "TIFF"), ".tif", "LAB"),
        (_saved(Image.fromarray(pixels), "GIF"), ".gif", "GIF"),
        (_saved(Image.fromarray(pixels).convert("YCbCr"), "TIFF"), ".tif", "YCbCr"),
        (
            _saved(Image.fromarray(pixels), "PNG", save_all=True, append_images=[grey.convert("RGB")]),
            ".png",
            "moving PNG",
        ),
    )
    data, suffix, what = variants[int(rng.integers(len(variants)))]
    return Picture(data, suffix, "odd", what)


def _strange_size(_: Pixels, rng: Rng) -> Picture:
    width, height = ((1, 1), (2, 900), (900, 2), (3, 3), (9_460, 20), (20, 20_000), (12_000, 9_000))[
        int(rng.integers(7))
    ]
    data = _saved(Image.new("RGB", (width, height), (90, 40, 20)), "PNG")
    return Picture(data, ".png", "suspicious", f"{width} x {height}")


def _plain(pixels: Pixels, rng: Rng) -> Picture:
    level = (0, 255, 128)[int(rng.integers(3))]
    data = _saved(Image.fromarray(np.full_like(pixels, level)), "PNG")
    return Picture(data, ".png", "suspicious", f"every pixel {level}")


def _noise(pixels: Pixels, rng: Rng) -> Picture:
    data = _saved(Image.fromarray(rng.integers(0, 256, pixels.shape, dtype=np.uint8)), "PNG")
    return Picture(data, ".png", "odd", "noise")


def _header_lies(pixels: Pixels, rng: Rng) -> Picture:
    """Write a PNG whose header claims more pixels than the file holds."""
    data = bytearray(_saved(Image.fromarray(pixels), "PNG"))
    height, width = pixels.shape[:2]
    wide, high = (
        (width, 2 * height),
        (width, height + 40),
        (60_000, 60_000),
        (9_000, 9_000),
        (2**31 - 1, 2**31 - 1),
        (0, 0),
    )[int(rng.integers(6))]
    data[16:24] = struct.pack(">II", wide, high)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return Picture(bytes(data), ".png", "never", f"its header claims {wide} x {high}")


def _jpeg_lies(pixels: Pixels, rng: Rng) -> Picture:
    data = bytearray(_saved(Image.fromarray(pixels), "JPEG", quality=90))
    at = data.index(b"\xff\xc0") + 5
    height, width = ((65_000, 65_000), (9_000, 9_000), (4 * pixels.shape[0], pixels.shape[1]))[int(rng.integers(3))]
    data[at : at + 4] = struct.pack(">HH", height, width)
    return Picture(bytes(data), ".jpg", "never", f"its header claims {width} x {height}")


def _cut(pixels: Pixels, rng: Rng) -> Picture:
    kind, suffix = pick(rng, KINDS)
    data = _saved(Image.fromarray(pixels), kind)
    length = int(len(data) * rng.uniform(0.01, 0.9))
    meaning: Meaning = "odd" if kind == "GIF" else "never"  # Pillow and browsers fill the missing part of a GIF
    return Picture(data[:length], suffix, meaning, f"{kind} cut to {length:,} of {len(data):,} bytes")


def _no_picture(_: Pixels, rng: Rng) -> Picture:
    data, what = pick(rng, NO_PICTURES)
    return Picture(data, pick(rng, (".jpg", ".png", ".tif")), "never", what)


def _bytes_changed(pixels: Pixels, rng: Rng) -> Picture:
    kind, suffix = pick(rng, KINDS)
    options = {"compression": "tiff_lzw"} if kind == "TIFF" and rng.random() < 0.5 else {}
    data, what = damage.BYTES[int(rng.integers(3))](_saved(Image.fromarray(pixels), kind, **options), rng)
    return Picture(data, suffix, "odd", f"{kind}: {what}")


def _early_bytes_changed(pixels: Pixels, rng: Rng) -> Picture:
    """Change bytes in the first 200, where the headers are."""
    kind, suffix = pick(rng, KINDS)
    data = _saved(Image.fromarray(pixels), kind)
    start, what = damage.flipped(data[:200], rng)
    return Picture(start + data[200:], suffix, "odd", f"{kind}: {what}")


CHANGES: tuple[Callable[[Pixels, Rng], Picture], ...] = (
    _lossless, _cut, _bytes_changed, _sixteen_bits, _header_lies, _wrong_suffix, _no_picture, _grey, _opaque, _turned,
    _early_bytes_changed, _with_garbage, _strange_size, _plain, _noise, _jpeg_lies, _bytes_changed, _cut,
)  # fmt: skip
