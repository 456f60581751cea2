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
from retina.errors import ResultsError, SpecError, as_disk_error, one_line
from retina.system.printable import cut

MOST_BYTES = 1 << 30
"""Of a file that is read as text; ours have a thousandth of it."""


def refuse(where: Path | str, problem: str, remedy: str) -> NoReturn:
    """Say what is wrong with a file, and what helps.

    Raises:
        ResultsError: always.
    """
    raise ResultsError(f"{where}: {problem};\n{remedy}")


def read_text(file: Path, remedy: str) -> str | None:
    """Read a text file of ours; None where there is none, which a link to nothing is not.

    Raises:
        ResultsError: it cannot be read, or is not text in UTF-8; exit code 1 where the disk is at fault.
    """
    if not os.path.lexists(file):
        return None
    try:
        if file.is_file() and file.stat().st_size > MOST_BYTES:
            refuse(file, f"has {file.stat().st_size:,} bytes, allowed: {MOST_BYTES:,}", remedy)
        content = file.read_bytes()
    except ResultsError:
        raise
    except FileNotFoundError:
        if file.is_symlink():
            refuse(file, "is a link to what is not there", remedy)
        return None  # taken away just now
    except OSError as error:
        raise as_disk_error(file, "cannot be read", error, remedy) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(file, f"is not a text file in UTF-8 (byte {error.start} is {content[error.start]:#04x})", remedy)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        refuse(file, f"is damaged: line {line} holds NUL bytes", remedy)
    return text


def read_json(file: Path, remedy: str = "correct it, or put a copy of it back") -> Any:
    """Read a JSON file; None where there is none.

    Raises:
        ResultsError: as `read_text`; or it is not JSON.
    """
    text = read_text(file, remedy)
    return None if text is None else _json(file, text, remedy)


def read_object(file: Path, model: type[BaseModel], remedy: str) -> dict[str, Any] | None:
    """Read a JSON file that holds what `model` says; None where there is none.

    Returns:
        Its values as they are.

    Raises:
        ResultsError: as `read_json`; or it holds something else.
    """
    text = read_text(file, remedy)
    return None if text is None else check(_json(file, text, remedy), model, file, remedy)


def read_yaml(file: Path, remedy: str) -> Document:
    """Read a YAML file that holds keys and their values.

    Raises:
        ResultsError: the file is missing; as `read_text`; it is not YAML, or holds something else.
    """
    text = read_text(file, remedy)
    if text is None:
        refuse(file, "is not there", remedy)
    try:
        document = yaml_reader.parse(text, lambda line: f"{file}: line {line}")
    except SpecError as error:
        raise ResultsError(f"{str(error)[:400]};\n{remedy}") from None
    if not isinstance(document.content, dict):
        refuse(file, f"holds {_shown(document.content)}, not keys and their values", remedy)
    return document


def check(values: Any, model: type[BaseModel], where: Path | str, remedy: str) -> dict[str, Any]:
    """Check values of JSON or YAML against `model`; returns them as they are.

    Raises:
        ResultsError: they do not fit; names the first key that does not, its value and what is allowed.
    """
    try:
        parse(model, values, str(where))
    except SpecError as error:
        raise refusal(error, remedy) from None
    return dict(values)


def refusal(error: SpecError, remedy: str) -> ResultsError:
    """Return the error for a file whose values do not fit: the first problem, how many more there are, the remedy."""
    first, *more = str(error).splitlines()
    others = f" (and {len(more)} more)" if more else ""
    return ResultsError(f"{first[:400]}{others};\n{remedy}")


def _json(file: Path, text: str, remedy: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        problem = "it is empty" if not text.strip() else one_line(error)
        raise ResultsError(f"{file}: is not JSON: {problem};\n{remedy}") from None


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key[:60]!r} stands twice")
        values[key] = value
    return values


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _shown(value: Any) -> str:
    return cut("nothing" if value is None else repr(value), 60)
