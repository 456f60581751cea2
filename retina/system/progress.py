"""The functions that long work calls to report its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(activity, done, total)`, for example with "decoding photographs", 3, 120."""
CountProgress = Callable[[int, int], None]
"""Called as `progress(done, total)`."""
