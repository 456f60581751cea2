"""Checks for keys that a file must have because of other keys that it has."""

from __future__ import annotations

from pydantic import BaseModel


def require_keys(values: BaseModel | None, *keys: str, under: str = "") -> None:
    """Raise if `values` lacks some keys or they are None.

    Args:
        values: the values of a file.
        keys: required fields.
        under: the key of `values` in the file, for the message.

    Raises:
        ValueError: a key is missing or None.
    """
    missing = [f"{under}.{key}" if under else key for key in keys if getattr(values, key, None) is None]
    if missing:
        raise ValueError(f"should hold {', '.join(missing)}")


def forbid_null(values: BaseModel, *keys: str) -> None:
    """Raise if some keys are present with the value None, which only undefined numbers may have.

    Raises:
        ValueError: a key is None.
    """
    null = [key for key in keys if key in values.model_fields_set and getattr(values, key) is None]
    if null:
        raise ValueError(f"should not hold null for {', '.join(null)}; leave out what is not known")
