"""The image formats that photographs are read in: one list for training, audit and prediction."""

from __future__ import annotations

from functools import cache

from PIL import Image

from retina.data import fundus


@cache
def image_suffixes() -> frozenset[str]:
    """Return the file name suffixes of `fundus.FORMATS` in lower case: ".jpg", ".jfif", ".webp", ".jp2" and so on."""
    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, name in formats.items() if name in fundus.FORMATS)


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, with its dot; "" for a name without suffix or ".hidden"."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and dot else ""


def is_image(name: str) -> bool:
    """Return whether a file name has the suffix of an image, in upper or lower case."""
    return suffix_of(name) in image_suffixes()


def strip_image_suffix(name: str) -> str:
    """Return `name` without the suffix of an image; other dots are part of the name."""
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix in image_suffixes() else name
