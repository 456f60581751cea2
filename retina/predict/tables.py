"""Writers of what `predict` returns, as CSV or JSON."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from retina.errors import ResultsError, wrap_os_error
from retina.results import files
from retina.system import output_files


def ensure_writable(csv: Path | None, json: Path | None) -> None:
    """Raise if writing the grades would overwrite another file, for example a photograph or a list of labels.

    Raises:
        ResultsError: a file exists and holds no grades, cannot be written, or is named twice.
    """
    if csv and json and os.path.realpath(csv) == os.path.realpath(json):
        raise ResultsError(f"--csv {csv} and --json {json}: one file cannot hold both; name two files")
    for file, option, is_own_file in ((csv, "--csv", _is_csv), (json, "--json", _is_json)):
        if file and (problem := output_files.unwritable_reason(file, option, "table of grades", is_own_file)):
            raise ResultsError(f"{file}: {problem}")


def write_csv(frame: pd.DataFrame, file: Path) -> None:
    """Write what `predict` returned as CSV, probabilities to six digits; the file is written completely or not at all.

    Raises:
        ResultsError: the file cannot be written; a `DiskError` (exit code 1) where the disk is at fault.
    """
    try:
        files.write_frame(file, frame.round(6), is_private=True)
    except OSError as error:
        raise wrap_os_error(file, "cannot be written", error) from None


def write_json(frame: pd.DataFrame, file: Path) -> None:
    """Write what `predict` returned as a JSON list of one object per photograph; missing values are null.

    Raises:
        ResultsError: the file cannot be written; a `DiskError` (exit code 1) where the disk is at fault.
    """
    rounded = frame.round(6).astype(object)
    rows = rounded.where(rounded.notna(), None).to_dict(orient="records")
    try:
        files.write_json(file, rows, is_private=True)
    except OSError as error:
        raise wrap_os_error(file, "cannot be written", error) from None


def _is_csv(text: str) -> bool:
    return text.replace('"', "").startswith("image,grade,name,p0,")


def _is_json(text: str) -> bool:
    return text.startswith('[\n  {\n    "image": ') or text.strip() == "[]"
