"""What a file of ours does not say, though what else it says cannot do without."""

from __future__ import annotations

from pydantic import BaseModel


def require_keys(values: BaseModel | None, *keys: str, under: str = "") -> None:
    """Say which of some keys `values` lacks, or holds nothing for.

    Args:
        values: of a file.
        keys: fields of it.
        under: the key that `values` stand under, for the message.

    Raises:
        ValueError: one is lacking.
    """
    lacking = [f"{under}.{key}" if under else key for key in keys if getattr(values, key, None) is None]
    if lacking:
        raise ValueError(f"should hold {', '.join(lacking)}")


def forbid_null(values: BaseModel, *keys: str) -> None:
    """Say which of some keys are there and null: only a number may be, one that is not defined.

    Raises:
        ValueError: one is.
    """
    null = [key for key in keys if key in values.model_fields_set and getattr(values, key) is None]
    if null:
        raise ValueError(f"should not hold null for {', '.join(null)}; what is not known is left out")
