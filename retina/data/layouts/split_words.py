"""The words for the splits: in a column, as a folder, in the name of a label file."""

from __future__ import annotations

import re
from functools import lru_cache

_SYNONYMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval", "dev"),
    "test": ("test", "testing", "holdout"),
}
SPLIT_BY_WORD = {"": "", **{word: split for split, words in _SYNONYMS.items() for word in words}}
"""The split that a word stands for, in small letters; "" leaves it open."""

_FILLERS = {"set", "images", "image", "imgs", "data", "dataset", "photos", "photographs", "folder", "split", "fundus"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@lru_cache(maxsize=1024)
def of_word(text: str) -> str | None:
    """The split that a cell of a split column names, "" for an empty one; None where it names none."""
    return SPLIT_BY_WORD.get(re.sub(r"[\s_-]+", "", text.lower()))


def of_folder(name: str) -> str:
    """The split that a folder of class folders holds: "train", "Training Set", "val_images"; "" for any other name.

    A name with further words ("train_augmented") is another thing than the split.
    """
    found = of_word(name)
    if found:
        return found
    left = [word for word in words(name) if word not in _FILLERS and len(word) > 1]
    return SPLIT_BY_WORD.get(left[0], "") if len(left) == 1 else ""


def of_name(name: str) -> str:
    """The one split whose word is part of a name: "trainLabels_cropped", "a. Training Set"; "" for none or several."""
    found = {SPLIT_BY_WORD[word] for word in words(name) if SPLIT_BY_WORD.get(word)}
    return found.pop() if len(found) == 1 else ""


def words(name: str) -> list[str]:
    """The words of a name in small letters, cut at other characters, at digits and at capitals: "trainLabels15"."""
    return [word.lower() for word in _WORD.findall(name)]
