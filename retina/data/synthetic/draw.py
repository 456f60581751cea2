"""A whole folder of drawn photographs: who has which grade, all cores at work, nothing left behind half done."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from PIL import Image

from retina.config import SyntheticConfig
from retina.data import process_pool as processes
from retina.data.synthetic.appearance import patient_look
from retina.data.synthetic.photograph import photograph
from retina.errors import DataError, as_disk_error
from retina.system.hardware import cores

PROPORTIONS = {"eyepacs": (0.735, 0.070, 0.151, 0.025, 0.019), "balanced": (0.2, 0.2, 0.2, 0.2, 0.2)}
"""Share of the grades 0 to 4. EyePACS: its 35,126 training photographs."""

FELLOW = 0.93
"""Correlation of the severity of a patient's two eyes."""

WORTH_A_PROCESS = 10
"""Fewer patients than this are drawn sooner than another process has started."""

Eyes = list[tuple[int, str, int]]
Job = tuple[Path, int, int, Eyes]
"""Folder, height in pixels, seed, and the photographs of one patient."""
Progress = Callable[[int, int], None]


def grades(config: SyntheticConfig) -> Eyes:
    """Say which photographs `draw` draws: (patient from 1, "left" or "right", grade 0 to 4), patient by patient.

    The grades' shares are those of `config.proportions` to the nearest photograph; fellow eyes are correlated.
    """
    rng = np.random.default_rng(np.random.SeedSequence((config.seed, 0)))
    patients = (config.photographs + 1) // 2
    shared, own = rng.standard_normal((patients, 1)), rng.standard_normal((patients, 2))
    severity = (np.sqrt(FELLOW) * shared + np.sqrt(1 - FELLOW) * own).ravel()[: config.photographs]
    counts = _quotas(PROPORTIONS[config.proportions], config.photographs)
    levels = np.empty(config.photographs, dtype=np.int64)
    levels[np.argsort(severity, kind="stable")] = np.repeat(np.arange(len(counts)), counts)
    return [(i // 2 + 1, ("left", "right")[i % 2], int(level)) for i, level in enumerate(levels)]


def draw(
    folder: Path, config: SyntheticConfig, *, workers: int | None = None, progress: Progress | None = None
) -> None:
    """Draw `config.photographs` photographs into a new `folder` in the layout of EyePACS.

    `folder` gets `trainLabels.csv` (`image,level`) and `train/1_left.jpeg`, `train/1_right.jpeg`, and so on. It appears
    all at once when everything is drawn. The pixels depend on `config` alone, not on `workers`.

    Args:
        folder: where to; must be absent or empty.
        config: how many, how large, which grades, which seed.
        workers: processes; by default one a core, fewer for a handful of photographs. 1 stays in this process.
        progress: called with (photographs done, photographs in all) as they are finished, in this process.

    Raises:
        DataError: when `folder` already holds something, or cannot be written.
        DiskError: when the disk is at fault: it is full, say.
    """
    try:
        _refuse_taken(folder)
        # A hidden name of its own: what a killed process leaves is never read as a whole folder.
        part = folder.resolve().with_name(f".{folder.resolve().name}.{os.getpid()}.part")
        (part / "train").mkdir(parents=True)
    except OSError as error:
        raise as_disk_error(folder, "cannot be written", error, mistake=DataError) from error
    plan = grades(config)
    try:
        done = 0
        for count in _drawn(part / "train", config, plan, workers):
            done += count
            if progress:
                progress(done, len(plan))
        _write_labels(part / "trainLabels.csv", plan)
        _refuse_taken(folder)
        part.replace(folder.resolve())
    except OSError as error:
        raise as_disk_error(folder, "photographs cannot be drawn into it", error, mistake=DataError) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _quotas(shares: tuple[float, ...], total: int) -> list[int]:
    """`total` shared out by `shares`, the largest remainders rounded up."""
    exact = np.array(shares) * total
    counts = np.floor(exact + 1e-9).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def _refuse_taken(folder: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        folder.stat()  # of a link that leads in circles the system says so; `exists` is False
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder}: already there; photographs are drawn into a new or empty folder")


def _drawn(folder: Path, config: SyntheticConfig, plan: Eyes, workers: int | None) -> Iterator[int]:
    """Draw all patients, in this process or in several; yields how many photographs each finished patient has."""
    jobs: list[Job] = [(folder, config.size, config.seed, list(eyes)) for _, eyes in groupby(plan, key=itemgetter(0))]
    workers = workers or min(cores(), max(1, len(jobs) // WORTH_A_PROCESS))
    yield from processes.call(
        _draw_patient, jobs, workers, purpose="draws photographs", place=lambda job: f"it was at patient {job[3][0][0]}"
    )


def _draw_patient(job: Job) -> int:
    """Draw and save the photographs of one patient from that patient's own stream of chances."""
    folder, size, seed, eyes = job
    rng = np.random.default_rng(np.random.SeedSequence((seed, eyes[0][0])))
    look = patient_look(rng)
    for (patient, eye, grade), own in zip(eyes, rng.spawn(len(eyes)), strict=True):
        pixels = photograph(grade, eye, size, own, look=look)
        Image.fromarray(pixels).save(folder / f"{patient}_{eye}.jpeg", quality=look.quality)
    return len(eyes)


def _write_labels(file: Path, plan: Eyes) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("image", "level"))
        rows.writerows((f"{patient}_{eye}", grade) for patient, eye, grade in plan)
