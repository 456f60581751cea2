"""The table of unused files in an audited folder, which is written beside the page."""

from __future__ import annotations

from pathlib import Path

from retina.audit.runner import Audit
from retina.data.manifest import UNUSED_COLUMNS
from retina.errors import ResultsError
from retina.results.files import write_csv
from retina.system import output_files


def ensure_replaceable(page: Path) -> None:
    """Raise if the table would overwrite another file, or cannot be written.

    Raises:
        ResultsError: if a file of its name exists and is no such table, or if it cannot be written; the exit code is 1
            if the disk is at fault.
    """
    file = _table_path(page)
    if problem := output_files.in_the_way(file, "--html", "table of unused files", _is_table):
        raise ResultsError(f"{file}: {problem}")


def write(audit: Audit, page: Path) -> Path | None:
    """Write the table to PAGE-unused.csv; if every file was used, delete an earlier table and return None.

    Raises:
        ResultsError: as `ensure_replaceable`.
    """
    ensure_replaceable(page)
    file = _table_path(page)
    try:
        if rows := audit.manifest.unused.rows():
            write_csv(file, rows, UNUSED_COLUMNS, is_private=True)  # names of photographs may name patients
            return file
        file.unlink(missing_ok=True)
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {error.strerror}") from None
    return None


def _table_path(page: Path) -> Path:
    return page.with_name(f"{page.stem}-unused.csv")


def _is_table(text: str) -> bool:
    return text.startswith(",".join(UNUSED_COLUMNS))
