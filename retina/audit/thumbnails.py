"""Thumbnails of photographs as data URIs, for the audit's page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from retina.data import fundus
from retina.data.fundus import Source
from retina.errors import DataError

SIDE = 176
"""Pixels of a thumbnail's side; shown at half of that, it is sharp on a phone."""


def thumbnail(source: Source) -> str:
    """Return a photograph cropped to its disc, as the model sees it, as the data URI of a JPEG; "" if unreadable."""
    try:
        pixels = fundus.read(Path(source), min_side=2 * SIDE) if isinstance(source, str) else source
    except DataError:
        return ""
    stream = io.BytesIO()
    Image.fromarray(fundus.to_square(pixels, SIDE)[0]).save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
