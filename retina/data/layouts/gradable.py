"""Columns that say whether a photograph is gradable, and the meaning of their cells."""

from __future__ import annotations

import re
from dataclasses import dataclass

from retina.data.layouts.grades import UNGRADABLE_WORDS

_ENDINGS = ("gradable", "gradeable")
_INVERTED = re.compile(r"(?:.*_)?(?:un|non_?|not_)grade?able")
_EYE_IN_TITLE = re.compile(r"(?:(left|right)_.*|.*_(left|right)(?:_eye)?)")
_NO = re.compile(r"0+(?:[.,]0*)?|no?|f(?:alse)?")
_YES = re.compile(r"0*1(?:[.,]0*)?|y(?:es)?|t(?:rue)?")
_EMPTY = {"", "nan", "na", "n/a", "<na>", "none", "null"}
ALLOWED = "yes, no, 1, 0, true, false"
"""The values of such a column, for messages."""


@dataclass(frozen=True)
class GradableColumn:
    """A column that says whether photographs are gradable.

    Attributes:
        position: index of the column in the table.
        title: as written.
        is_inverted: whether "yes" means that the photograph is not gradable: "ungradable", "not gradable".
        eye: "left" or "right" if the column is about this eye alone; else "".
    """

    position: int
    title: str
    is_inverted: bool
    eye: str = ""

    def parse(self, cell: str) -> bool | None:
        """Return whether the photograph is gradable; True for an empty cell, None for a word that means neither.

        The words "ungradable" and "gradable" have their own meaning, whatever the column's title is.
        """
        word = cell.strip().lower()
        if word in _EMPTY:
            return True
        joined = re.sub(r"[\s_-]+", "", word)
        if joined in UNGRADABLE_WORDS or joined in _ENDINGS:
            return joined in _ENDINGS
        if _YES.fullmatch(word) or _NO.fullmatch(word):
            return bool(_YES.fullmatch(word)) != self.is_inverted
        return None


def parse_gradable_column(position: int, title: str, normalized: str) -> GradableColumn | None:
    """Return the column if its title says that it is about gradability, else None.

    Args:
        position: index of the column in the table.
        title: as written.
        normalized: the title as `csv_reader.normalize_title` returns it.
    """
    match = _EYE_IN_TITLE.fullmatch(normalized)
    eye = (match[1] or match[2]) if match else ""
    base = re.sub(r"_(?:left|right)(?:_eye)?$", "", normalized)
    if not base.endswith(_ENDINGS):
        return None
    return GradableColumn(position, title, bool(_INVERTED.fullmatch(base)), eye)
