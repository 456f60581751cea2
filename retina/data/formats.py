"""The image formats that photographs are read in: one list for training, audit and prediction."""

from __future__ import annotations

from functools import cache

from PIL import Image

from retina.data import fundus


@cache
def suffixes() -> frozenset[str]:
    """The file name suffixes of `fundus.FORMATS` in small letters: ".jpg", ".jfif", ".webp", ".jp2" and so on."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, name in known.items() if name in fundus.FORMATS)


def suffix_of(name: str) -> str:
    """The suffix of a file name in small letters, with its dot; "" for a name without one, and for ".hidden"."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and dot else ""


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image, in any capitals."""
    return suffix_of(name) in suffixes()


def own_name(name: str) -> str:
    """`name` without the suffix of an image; other dots are part of the name."""
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix in suffixes() else name
