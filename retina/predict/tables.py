"""What `predict` returned, as CSV or JSON."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from retina import results
from retina.errors import ResultsError


def write_csv(frame: pd.DataFrame, file: Path) -> None:
    """Write what `predict` returned as CSV, probabilities to six digits; whole or not at all.

    Raises:
        ResultsError: the file cannot be written.
    """
    try:
        results.write_frame(file, frame.round(6), is_private=True)
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {error.strerror}") from None


def write_json(frame: pd.DataFrame, file: Path) -> None:
    """Write what `predict` returned as a JSON list of one object a photograph; what is unknown is null.

    Raises:
        ResultsError: the file cannot be written.
    """
    rounded = frame.round(6).astype(object)
    rows = rounded.where(rounded.notna(), None).to_dict(orient="records")
    try:
        results.write_json(file, rows, is_private=True)
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {error.strerror}") from None
