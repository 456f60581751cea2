"""The words for the splits: in a column, as a folder, in the name of a label file."""

from __future__ import annotations

import re
from functools import lru_cache

_SYNONYMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval", "dev"),
    "test": ("test", "testing", "holdout"),
}
SPLITS = {"": "", **{word: split for split, words_in in _SYNONYMS.items() for word in words_in}}
"""The split that a word stands for, in small letters; "" leaves it open."""
ORDER = ("train", "val", "test")

_FILLERS = {"set", "images", "image", "imgs", "data", "dataset", "photos", "photographs", "folder", "split", "fundus"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@lru_cache(maxsize=1024)
def parse_split(text: str) -> str | None:
    """The split that a cell of a split column names, "" for an empty one; None where it names none."""
    return SPLITS.get(re.sub(r"[\s_-]+", "", text.lower()))


def split_of_folder(name: str) -> str:
    """The split that a folder of class folders holds: "train", "Training Set", "val_images"; "" for any other name.

    A name with further words ("train_augmented") is another thing than the split.
    """
    found = parse_split(name)
    if found:
        return found
    left = [word for word in words_in(name) if word not in _FILLERS and len(word) > 1]
    return SPLITS.get(left[0], "") if len(left) == 1 else ""


def split_in_name(name: str) -> str:
    """The one split whose word is part of a name: "trainLabels_cropped", "a. Training Set"; "" for none or several."""
    found = {SPLITS[word] for word in words_in(name) if SPLITS.get(word)}
    return found.pop() if len(found) == 1 else ""


def words_in(name: str) -> list[str]:
    """The words of a name in small letters, cut at other characters, at digits and at capitals: "trainLabels15"."""
    return [word.lower() for word in _WORD.findall(name)]
