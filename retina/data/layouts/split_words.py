"""The words that name a split: in a column, as a folder's name, or in the name of a label file."""

from __future__ import annotations

import re
from functools import lru_cache

_SYNONYMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval", "dev"),
    "test": ("test", "testing", "holdout"),
}
SPLIT_BY_WORD = {"": "", **{word: split for split, words_in in _SYNONYMS.items() for word in words_in}}
"""Lower-case words and the split that each names; "" names none."""

_FILLERS = {"set", "images", "image", "imgs", "data", "dataset", "photos", "photographs", "folder", "split", "fundus"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@lru_cache(maxsize=1024)
def parse_split(text: str) -> str | None:
    """Return the split that a cell of a split column names; "" for an empty cell, None for any other word."""
    return SPLIT_BY_WORD.get(re.sub(r"[\s_-]+", "", text.lower()))


def split_of_folder(name: str) -> str:
    """Return the split that a whole folder name means: "train", "Training Set", "val_images"; "" for any other name.

    A name with further words ("train_augmented") is not that of a split.
    """
    split = parse_split(name)
    if split:
        return split
    remaining = [word for word in words_in(name) if word not in _FILLERS and len(word) > 1]
    return SPLIT_BY_WORD.get(remaining[0], "") if len(remaining) == 1 else ""


def split_in_name(name: str) -> str:
    """Return the only split named in "trainLabels_cropped" or "a. Training Set"; "" if a name has none or several."""
    splits = {SPLIT_BY_WORD[word] for word in words_in(name) if SPLIT_BY_WORD.get(word)}
    return splits.pop() if len(splits) == 1 else ""


def words_in(name: str) -> list[str]:
    """Return a name's words in lower case: "trainLabels15" has "train", "labels" and "15".

    Words end at capitals, at digits, and at characters that are neither letters nor digits.
    """
    return [word.lower() for word in _WORD.findall(name)]
