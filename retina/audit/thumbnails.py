"""Photographs small enough for a page, inside its text."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from retina.data import fundus
from retina.data.fundus import Source
from retina.errors import DataError

SIDE = 176
"""Pixels: sharp on a phone at half of that."""


def thumbnail(source: Source) -> str:
    """A photograph as the model sees it, cropped to its disc, as the URI of a JPEG; "" where it cannot be read."""
    try:
        pixels = fundus.read(Path(source), at_least=2 * SIDE) if isinstance(source, str) else source
    except DataError:
        return ""
    stream = io.BytesIO()
    Image.fromarray(fundus.to_square(pixels, SIDE)[0]).save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
