"""Changed photographs among intact ones, for `predict` with both runtimes, `data prepare` and `data audit`."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.robustness import damage
from benchmarks.robustness.case import Command, CommandResult, Input, Rng, pick
from benchmarks.robustness.oracle import Prediction, counted, predicts
from benchmarks.robustness.pictures import CHANGES, Meaning, Picture
from benchmarks.robustness.world import World

NAMES = (
    "a b.png", "-x.png", "--csv.png", "a\nb.png", "a\x1b[31mb.png", "a\x07.png", "a\u202egnp.png", "\u00e9.png",
    "e\u0301.png", os.fsdecode(b"\xff\xfe.png"), "\U0001f441.png", "n" * 250 + ".png", "=1+1.png", "[red]x[:eye:].png",
    "%s%d.png", "'.png", '".png', "x.png.png", "x,y.png", "CON.png", "a\tb.png", "*.png", "[a].png", "~.png",
    "x;y.png", "\x7f.png", "\x85.png",
)  # fmt: skip
"""Unusual names that a file may have."""
WHOLE = 24
"""Number of intact photographs besides the changed one."""
BESIDE = 3
"""Number of these in the folder of the changed one, which `predict` reads."""


def make(whole: World, truth: Mapping[str, Mapping[str, Prediction]], folder: Path, rng: Rng, number: int) -> Input:
    """Create a photograph that is changed in its bytes, its name or its path."""
    files = whole.some(WHOLE + 1)
    grades = whole.grades()
    *others, chosen = files
    for file in others:
        grade_folder = folder / "eyes" / str(grades[file.stem])
        grade_folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, grade_folder / file.name)
    grade_folder = folder / "eyes" / str(grades[chosen.stem])
    name, meaning, what = _changed(chosen, grade_folder, rng, number)
    runtime = pick(rng, ("onnx", "torch"))
    skip = ("--on-bad", "skip") if rng.random() < 0.6 else ()
    beside = [file for file in others if grades[file.stem] == grades[chosen.stem]]
    right: dict[str, Prediction] = {file.name: truth[runtime][file.name] for file in beside}
    shown = name.encode("utf-8", "backslashreplace").decode()
    if (
        meaning == "same"
        and shown == name
        and not set(name) & set("\n\r\t\x1b\x07\x7f\x85\u202e")
        and name[0] not in "=-+@"
    ):
        right[name] = truth[runtime][chosen.name]
    check = predicts(
        folder / "out.csv", right, unknown=[name] if meaning == "odd" else [],
        never=[name] if meaning == "never" else [], suspicious=[name] if meaning == "suspicious" else [],
    )  # fmt: skip
    argv = ("predict", str(whole.export), f"eyes/{grade_folder.name}", "--runtime", runtime, "--csv", "out.csv", *skip)
    data = _data_command(meaning, skip, rng, is_file=(grade_folder / name).is_file())
    return Input(what, (Command(argv, ("out.csv",), check, names=("eyes",)), data))


def _data_command(meaning: Meaning, skip: tuple[str, ...], rng: Rng, *, is_file: bool) -> Command:
    if rng.random() < 0.35:
        return Command(
            ("data", "audit", "eyes", "--html", "page.html", "--image-size", "64"),
            ("page.html", "page-unused.csv"),
            names=("eyes",),
        )

    def check(result: CommandResult) -> str:
        counts = counted(result.out)
        if counts is None:
            return "no table of photographs"
        missing = WHOLE + 1 - sum(counts)
        if missing not in {0, 1}:
            return f"counts {sum(counts)} photographs, there are {WHOLE + 1}"
        if missing and is_file and "left out" not in result.out and "not used" not in result.out:
            return "does not report the photograph that it skips"
        if not missing and meaning == "never":
            return "counts a file that is not an intact photograph"
        return ""

    return Command(("data", "prepare", "eyes", "--image-size", "64", *skip), check=check, names=("eyes",))


def _changed(chosen: Path, grade_folder: Path, rng: Rng, number: int) -> tuple[str, Meaning, str]:
    """Write the changed photograph; return its name, its meaning, and the description of the change."""
    pixels = np.array(Image.open(chosen).convert("RGB"))
    kind = number % 24
    if kind < len(CHANGES):
        picture = CHANGES[kind](pixels, rng)
        (grade_folder / f"changed{picture.suffix}").write_bytes(picture.data)
        return f"changed{picture.suffix}", picture.meaning, picture.what
    if kind < 22:
        name = pick(rng, NAMES)
        if rng.random() < 0.5:
            name = unicodedata.normalize(pick(rng, ("NFC", "NFD")), name)
        picture = CHANGES[0](pixels, rng) if rng.random() < 0.7 else _cut_short(chosen)
        (grade_folder / name).write_bytes(picture.data)
        return name, picture.meaning, f"called {name.encode(errors='backslashreplace').decode()!r}: {picture.what}"
    file = grade_folder / chosen.name
    shutil.copyfile(chosen, file)
    if kind == 22:
        target = grade_folder.parents[1] / "elsewhere.jpeg"
        file.rename(target)
        file.symlink_to(os.path.relpath(target, grade_folder))
        return file.name, "same", "a link to a photograph"
    return file.name, "never", pick(rng, damage.REPLACED[1:5])(file, rng)


def _cut_short(chosen: Path) -> Picture:
    data = chosen.read_bytes()
    return Picture(data[: len(data) // 3], chosen.suffix, "never", "cut to a third")
