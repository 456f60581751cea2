"""Columns that say whether anybody could grade a photograph, and what their cells say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from retina.data.layouts.grades import UNGRADABLE_WORDS

_ENDS = ("gradable", "gradeable")
_INVERTED = re.compile(r"(?:.*_)?(?:un|non_?|not_)grade?able")
_OF_AN_EYE = re.compile(r"(?:(left|right)_.*|.*_(left|right)(?:_eye)?)")
_NO = re.compile(r"0+(?:[.,]0*)?|no?|f(?:alse)?")
_YES = re.compile(r"0*1(?:[.,]0*)?|y(?:es)?|t(?:rue)?")
_EMPTY = {"", "nan", "na", "n/a", "<na>", "none", "null"}
ALLOWED = "yes, no, 1, 0, true, false"


@dataclass(frozen=True)
class GradableColumn:
    """One such column.

    Attributes:
        at: its position.
        title: as written.
        inverted: whether its "yes" means that the photograph is not gradable: "ungradable", "not gradable".
        eye: "left" or "right", where it is of this eye alone; else "".
    """

    at: int
    title: str
    inverted: bool
    eye: str = ""

    def says(self, cell: str) -> bool | None:
        """Whether the photograph is gradable, so also of an empty cell; None for a word of neither meaning.

        "ungradable" and "gradable" mean what they say, whatever the column is called.
        """
        word = cell.strip().lower()
        if word in _EMPTY:
            return True
        joined = re.sub(r"[\s_-]+", "", word)
        if joined in UNGRADABLE_WORDS or joined in _ENDS:
            return joined in _ENDS
        if _YES.fullmatch(word) or _NO.fullmatch(word):
            return bool(_YES.fullmatch(word)) != self.inverted
        return None


def parse_gradable_column(at: int, title: str, plain: str) -> GradableColumn | None:
    """The column at a position, if its title, and that as it is compared, says that it is one."""
    match = _OF_AN_EYE.fullmatch(plain)
    eye = (match[1] or match[2]) if match else ""
    base = re.sub(r"_(?:left|right)(?:_eye)?$", "", plain)
    return GradableColumn(at, title, bool(_INVERTED.fullmatch(base)), eye) if base.endswith(_ENDS) else None
