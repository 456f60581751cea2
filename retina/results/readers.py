"""Readers of text, JSON and YAML files that this package wrote."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel

from retina.config import parse, yaml_reader
from retina.config.yaml_reader import Document
from retina.errors import ResultsError, SpecError, one_line, wrap_os_error
from retina.system.printable import truncate

MAX_BYTES = 1 << 30
"""Maximum size of a file that is read as text; this package's files are a thousand times smaller."""


def raise_results_error(location: Path | str, problem: str, remedy: str) -> NoReturn:
    """Raise an error about a file, with a remedy.

    Raises:
        ResultsError: always.
    """
    raise ResultsError(f"{location}: {problem};\n{remedy}")


def read_text(file: Path, remedy: str) -> str | None:
    """Read a text file that this package wrote; None where it does not exist (a broken link is an error).

    Raises:
        ResultsError: the file cannot be read, or is not text in UTF-8; a `DiskError` (exit code 1) where the disk is at
            fault.
    """
    if not os.path.lexists(file):
        return None
    try:
        if file.is_file() and file.stat().st_size > MAX_BYTES:
            raise_results_error(file, f"has {file.stat().st_size:,} bytes, allowed: {MAX_BYTES:,}", remedy)
        content = file.read_bytes()
    except ResultsError:
        raise
    except FileNotFoundError:
        if file.is_symlink():
            raise_results_error(file, "is a link to a file that does not exist", remedy)
        return None  # removed just now
    except OSError as error:
        raise wrap_os_error(file, "cannot be read", error, remedy) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise_results_error(
            file, f"is not a text file in UTF-8 (byte {error.start} is {content[error.start]:#04x})", remedy
        )
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise_results_error(file, f"is damaged: line {line} holds NUL bytes", remedy)
    return text


def read_json(file: Path, remedy: str = "correct it, or restore a copy of it") -> Any:
    """Read a JSON file; None where it does not exist.

    Raises:
        ResultsError: as `read_text`; or the file is not JSON.
    """
    text = read_text(file, remedy)
    return None if text is None else _parse_json(file, text, remedy)


def read_object(file: Path, model: type[BaseModel], remedy: str) -> dict[str, Any] | None:
    """Read a JSON file and validate it against `model`; None where it does not exist.

    Returns:
        Its values, unchanged.

    Raises:
        ResultsError: as `read_json`; or the values do not match `model`.
    """
    text = read_text(file, remedy)
    return None if text is None else check_values(_parse_json(file, text, remedy), model, file, remedy)


def read_yaml(file: Path, remedy: str) -> Document:
    """Read a YAML file whose content is a mapping of keys.

    Raises:
        ResultsError: as `read_text`; or the file does not exist, is not YAML, or has other content.
    """
    text = read_text(file, remedy)
    if text is None:
        raise_results_error(file, "is missing", remedy)
    try:
        document = yaml_reader.parse(text, lambda line: f"{file}: line {line}")
    except SpecError as error:
        raise ResultsError(f"{str(error)[:400]};\n{remedy}") from None
    if not isinstance(document.content, dict):
        raise_results_error(file, f"holds {_shown(document.content)}, not a mapping of keys", remedy)
    return document


def check_values(values: Any, model: type[BaseModel], location: Path | str, remedy: str) -> dict[str, Any]:
    """Validate values of JSON or YAML against `model`, and return them unchanged.

    Raises:
        ResultsError: the values do not match; names the first key that does not, its value and what is allowed.
    """
    try:
        parse(model, values, str(location))
    except SpecError as error:
        raise refusal(error, remedy) from None
    return dict(values)


def refusal(error: SpecError, remedy: str) -> ResultsError:
    """Return the error for a file whose values do not match: the first problem, the number of others, the remedy."""
    first, *more = str(error).splitlines()
    others = f" (and {len(more)} more)" if more else ""
    return ResultsError(f"{first[:400]}{others};\n{remedy}")


def _parse_json(file: Path, text: str, remedy: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        problem = "it is empty" if not text.strip() else one_line(error)
        raise ResultsError(f"{file}: is not JSON: {problem};\n{remedy}") from None


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_constant(text)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key[:60]!r} is given twice")
        values[key] = value
    return values


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _shown(value: Any) -> str:
    return truncate("nothing" if value is None else repr(value), 60)
