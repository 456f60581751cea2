"""Grades of photographs by an exported model, on the same path from file to probability as in training."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image

from retina import results
from retina.config import GRADES
from retina.data import fundus
from retina.data.batches import to_float
from retina.errors import DataError, ResultsError
from retina.export import Exported, load
from retina.train import default_device

PROBABILITIES = [f"p{grade}" for grade in range(GRADES)]
DTYPES = {"image": "str", "grade": "Int64", "name": "str", **dict.fromkeys(PROBABILITIES, "float64"), "problem": "str"}
COLUMNS = list(DTYPES)
NO_DISC = "no fundus disc found"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Square:
    """A photograph as the model sees it, uint8 (S, S, 3); None where it cannot be read, and `problem` says why."""

    path: Path
    pixels: npt.NDArray[np.uint8] | None
    problem: str


def images(arguments: Sequence[str]) -> list[Path]:
    """The photographs that a user names: files, folders with all that lies below them, and patterns (`*`, `?`, `**`).

    A file that is named is taken whatever its ending; of folders and patterns, those with the ending of an image.

    Returns:
        Each photograph once, in the order of the arguments, sorted within each.

    Raises:
        DataError: an argument is nothing of these, or matches no photograph.
    """
    return list(dict.fromkeys(path for argument in arguments for path in _expand(argument)))


def predict(
    folder: Path,
    images: Sequence[Path],
    *,
    batch_size: int = 32,
    device: torch.device | None = None,
    on_bad: Literal["stop", "skip"] = "stop",
) -> pd.DataFrame:
    """Grade photographs with the model of an exported folder. Of the photographs, a batch at a time is in memory.

    Args:
        folder: as `retina.export.export` writes it.
        images: files of photographs.
        batch_size: photographs that the model sees at once, 1 or more; changes nothing but speed.
        device: where the model runs; CUDA if there is any, else the CPU, if None.
        on_bad: "skip" gives photographs that cannot be read a row without grade and probabilities.

    Returns:
        One row an image, in their order. `image` str, the path as given; `grade` Int64 0 to 4, the most probable one;
        `name` str, of that grade; `p0` to `p4` float64, probabilities of the grades, sum 1; `problem` str, empty,
        "no fundus disc found" (the photograph was used whole), or why it could not be read: then `grade` is NA, `name`
        empty and the probabilities NaN.

    Raises:
        ResultsError: as `retina.export.load`.
        DataError: photographs that cannot be read, under `on_bad` "stop"; the first ten and how many there are.
    """
    exported = load(folder)
    device = device or default_device()
    exported.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    for start in range(0, len(images), batch_size):
        squares = [_read(path, exported.preprocess.image_size) for path in images[start : start + batch_size]]
        bad += [one.problem for one in squares if one.pixels is None]
        if not bad or on_bad == "skip":  # else go on only to name all that cannot be read
            rows += _grade(exported, squares, device)
    if bad and on_bad == "stop":
        raise DataError(_refusal(bad, len(images)))
    return pd.DataFrame(rows, columns=COLUMNS).astype(DTYPES)


def write_csv(frame: pd.DataFrame, file: Path) -> None:
    """Write what `predict` returned as CSV, probabilities to six digits; whole or not at all.

    Raises:
        ResultsError: the file cannot be written.
    """
    try:
        results.write_frame(file, frame.round(6))
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {error.strerror}") from None


def write_json(frame: pd.DataFrame, file: Path) -> None:
    """Write what `predict` returned as a JSON list of one object a photograph; what is unknown is null.

    Raises:
        ResultsError: the file cannot be written.
    """
    rounded = frame.round(6).astype(object)
    rows = rounded.where(rounded.notna(), None).to_dict(orient="records")
    try:
        results.write_json(file, rows)
    except OSError as error:
        raise ResultsError(f"{file}: cannot be written: {error.strerror}") from None


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if not argument:  # an unset variable of the shell, which Path takes for the folder one is in
        found, missing = [], "'': an empty name is no photograph"
    elif path.is_dir():
        found = _below(path)
        missing = f"{argument}: there are no photographs in this folder; looked for {', '.join(sorted(_endings()))}"
    elif path.is_file():
        found, missing = [path], ""
    else:
        matched = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute patterns
        found = [file for match in matched for file in _photographs(Path(match))]
        missing = f"{argument}: no such file or folder, and as a pattern it matches no photographs"
    if not found:
        raise DataError(missing)
    return found


def _photographs(path: Path) -> list[Path]:
    return _below(path) if path.is_dir() else [path] if path.suffix.lower() in _endings() else []


def _below(folder: Path) -> list[Path]:
    """The photographs in a folder and those in it, sorted; hidden ones are left out, as a shell's patterns do."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: this folder cannot be read: {error.strerror}") from None

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(file for file in found if file.suffix.lower() in _endings())


@cache
def _endings() -> frozenset[str]:
    """Of the formats that photographs are read in: ".jpg", ".jpeg", ".png" and so on."""
    known = Image.registered_extensions()
    return frozenset(ending for ending, kind in known.items() if kind in fundus.FORMATS)


def _read(path: Path, size: int) -> _Square:
    try:
        # at_least as in retina.data.decode: a JPEG decoded at another size gives other pixels
        pixels, found = fundus.read_square(path, size)
    except DataError as error:
        return _Square(path, None, str(error))
    return _Square(path, pixels, "" if found else NO_DISC)


def _grade(exported: Exported, squares: list[_Square], device: torch.device) -> list[dict[str, Any]]:
    """A row for each, with grade and probabilities for those that could be read."""
    rows: list[dict[str, Any]] = [{"image": str(one.path), "name": "", "problem": one.problem} for one in squares]
    readable = [(row, one.pixels) for row, one in zip(rows, squares, strict=True) if one.pixels is not None]
    if not readable:
        return rows
    found = _probabilities(exported, np.stack([pixels for _, pixels in readable]), device)
    for (row, _), probabilities in zip(readable, found, strict=True):
        grade = int(probabilities.argmax())
        row |= {"grade": grade, "name": exported.grades[grade]}
        row |= dict(zip(PROBABILITIES, probabilities.tolist(), strict=True))
    return rows


def _probabilities(exported: Exported, pixels: npt.NDArray[np.uint8], device: torch.device) -> Floats:
    """Pixels uint8 (B, S, S, 3) to probabilities float64 (B, 5)."""
    mean, std = (
        torch.tensor(three, device=device).view(1, 3, 1, 1)
        for three in (exported.preprocess.mean, exported.preprocess.std)
    )
    with torch.inference_mode():
        images = (to_float(torch.from_numpy(pixels).to(device)) - mean) / std
        logits = exported.model(images).double()
    probabilities: Floats = logits.softmax(dim=1).cpu().numpy()
    return probabilities


def _refusal(bad: list[str], total: int) -> str:
    listed = "\n".join(f"  {problem}" for problem in bad[:10])
    more = f"\n  ... and {len(bad) - 10} more" if len(bad) > 10 else ""
    return f"{len(bad)} of {total} photographs cannot be read (--on-bad skip goes on without them):\n{listed}{more}"
