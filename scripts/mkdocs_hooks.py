"""MkDocs hook that inserts the generated parts into a page.

A line `{{ NAME ARGUMENT ... }}` is replaced by the return value of the function `NAME` in `scripts.reference_tables`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # MkDocs loads this file by its path

from scripts import reference_tables

CALL = re.compile(r"^\{\{ (settings|command|modules)((?: \S+)*) \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page with its generated parts."""
    return CALL.sub(lambda call: getattr(reference_tables, call[1])(*call[2].split()), markdown)
