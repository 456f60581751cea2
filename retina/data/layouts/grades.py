"""The texts that are read as a grade, in label files and as names of folders.

The scale is the International Clinical Diabetic Retinopathy scale (Wilkinson et al. 2003): 0 no apparent retinopathy,
1 mild, 2 moderate, 3 severe nonproliferative retinopathy, 4 proliferative retinopathy. An ambiguous text is no grade:
"0-1", "12", "2.5", "NPDR" without a stage, "yes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from retina.config import GRADES, UNGRADABLE

_NUMBER = re.compile(rf"0*([0-{GRADES - 1}])(?:[.,]0*)?")  # pandas writes 3.0 where a neighbour is missing, Excel 3,0
_FIVE = re.compile(r"0*5(?:[.,]0*)?")
_DIGITS = re.compile(r"\d+")
_SEPARATORS = re.compile(r"[\s_\-.():/]+")
_PREFIXES = ("", "grade", "level", "class", "label", "dr", "icdr", "drgrade", "drlevel", "icdrgrade", "icdrlevel",
             "retinopathygrade", "drclass")  # fmt: skip
_RETINOPATHY = ("", "dr", "npdr", "retinopathy", "diabeticretinopathy", "nonproliferative", "nonproliferativedr",
                "nonproliferativeretinopathy", "nonproliferativediabeticretinopathy")  # fmt: skip
_NAMES = {
    **dict.fromkeys(
        ("nodr", "none", "normal", "healthy", "nodrsigns", "nosignsofdr", "noretinopathy", "nodiabeticretinopathy",
         "noapparentdr", "noapparentretinopathy", "noapparentdiabeticretinopathy", "normalfundus", "nondr"), 0
    ),
    **{stage + rest: grade for grade, stage in enumerate(("mild", "moderate", "severe"), 1) for rest in _RETINOPATHY},
    **dict.fromkeys(
        ("pdr", "proliferative", "proliferate", "proliferativedr", "proliferatedr", "proliferativeretinopathy",
         "proliferativediabeticretinopathy", "severeproliferativediabeticretinopathy"), 4
    ),
}  # fmt: skip
UNGRADABLE_WORDS = {"ungradable", "ungradeable", "notgradable", "notgradeable", "nongradable", "nongradeable"}
"""Without spaces, in lower case."""


@dataclass(frozen=True)
class GradeReader:
    """Parses grades; the user's mapping takes precedence over the known words.

    Attributes:
        mapping: from a text, as `mapping_key` returns it, to a grade 0 to 4 or `UNGRADABLE`; see
            `DataConfig.grade_mapping`.
    """

    mapping: Mapping[str, int | str]

    def __call__(self, text: str) -> int | None:
        """Return the grade 0 to 4; None if the text is not a grade."""
        mapped = self.mapping.get(mapping_key(text)) if self.mapping else None
        if mapped is not None:
            return mapped if isinstance(mapped, int) else None
        return parse_grade(text)

    def is_ungradable(self, text: str) -> bool:
        """Return whether the text marks a photograph that could not be graded. In DDR and DeepDRiD, 5 does."""
        mapped = self.mapping.get(mapping_key(text)) if self.mapping else None
        if mapped is not None:
            return mapped == UNGRADABLE
        return bool(_FIVE.fullmatch(text.strip())) or _letters(text.lower()) in UNGRADABLE_WORDS

    def describe_problem(self, text: str) -> str:
        """Return why a text is not a grade, for a message."""
        if self.mapping.get(mapping_key(text)) == UNGRADABLE:
            return f"its grade is {text[:40]!r}, which data.grade_mapping maps to {UNGRADABLE}"
        known = f"grades are 0 to {GRADES - 1}"
        if not text:
            return f"its grade is empty; {known}"
        if _FIVE.fullmatch(text.strip()):
            return f"its grade is {text[:40]!r}; {known}, and 5 is {UNGRADABLE} in DDR and DeepDRiD"
        return f"its grade is {text[:40]!r}; {known}"


def mapping_key(text: str) -> str:
    """Return a text as a grade mapping compares it: lower case, whole numbers without ".0" or leading zeros."""
    normalized = text.strip().casefold()
    number = re.fullmatch(r"(-?)0*(\d{1,9})(?:[.,]0*)?", normalized, re.ASCII)
    return number[1] + number[2] if number else normalized


@lru_cache(maxsize=4096)
def parse_grade(text: str) -> int | None:
    """Return the grade that a whole text means: "2", "02", "2.0", "Moderate NPDR", "grade_2", "2 - Moderate", "DR2".

    A number and a word must agree. None if the text is no grade or is ambiguous.
    """
    normalized = text.strip().lower()
    if number := _NUMBER.fullmatch(normalized):
        return int(number[1])
    digits = _DIGITS.findall(normalized)
    if not digits:
        return _grade_of_word(_letters(normalized))
    number = _NUMBER.fullmatch(digits[0])
    if len(digits) > 1 or number is None or not normalized.isascii() or not re.match(r"[\d(\[a-z]", normalized):
        return None
    letters = _letters(normalized.replace(digits[0], " ", 1))
    if re.search(r"[\s_:.(\[/-][-+]\d", normalized):  # "grade -1", "grade_-1", but not "grade-1"
        return None
    if letters in _PREFIXES[1:] or _grade_of_word(letters) == int(number[1]):
        return int(number[1])
    return None


def parse_grade_keywords(text: str) -> int | None:
    """Return the grade in an eye's diagnostic keywords in ODIR-5K: "drusen，moderate non proliferative retinopathy".

    0 only for "normal fundus" alone or with "lens dust"; None if the keywords name no stage, several stages, or only
    other findings: these eyes were not graded for retinopathy.
    """
    keywords = {keyword.strip().lower() for keyword in re.split(r"[,，;]", text)} - {"", "lens dust"}
    grades = {grade for keyword in keywords if (grade := parse_grade(keyword))}
    if len(grades) == 1:
        return grades.pop()
    return 0 if keywords == {"normal fundus"} else None


def _grade_of_word(letters: str) -> int | None:
    if letters in _NAMES:
        return _NAMES[letters]
    for label in ("grade", "level", "class", "label", "dr"):
        if letters.startswith(label) and letters.removeprefix(label) in _NAMES:
            return _NAMES[letters.removeprefix(label)]
    return None


def _letters(text: str) -> str:
    """Return the text without separators and spaces."""
    return _SEPARATORS.sub("", text)
