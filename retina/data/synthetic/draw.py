"""Draw a folder of synthetic photographs: choose the grades, use all cores, leave no incomplete folder."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from PIL import Image

from retina.config import SyntheticConfig
from retina.data import process_pool
from retina.data.synthetic.appearance import draw_appearance
from retina.data.synthetic.photograph import draw_photograph
from retina.errors import DataError, wrap_os_error
from retina.system.hardware import available_cores
from retina.system.progress import CountProgress

PROPORTIONS = {"eyepacs": (0.735, 0.070, 0.151, 0.025, 0.019), "balanced": (0.2, 0.2, 0.2, 0.2, 0.2)}
"""Shares of the grades 0 to 4. EyePACS: its 35,126 training photographs."""

FELLOW_CORRELATION = 0.93
"""Correlation of the severity of a patient's two eyes."""

MIN_PATIENTS_PER_PROCESS = 10
"""Fewer patients are drawn in less time than it takes to start another process."""

Eyes = list[tuple[int, str, int]]
Job = tuple[Path, int, int, Eyes]
"""Folder, height in pixels, seed, and the photographs of one patient."""


def assign_grades(config: SyntheticConfig) -> Eyes:
    """Choose the photographs that `draw` draws.

    The grades have the shares of `config.proportions` to the nearest photograph; fellow eyes are correlated.

    Returns:
        (patient from 1, "left" or "right", grade 0 to 4) of each photograph, in the order of the patients.
    """
    rng = np.random.default_rng(np.random.SeedSequence((config.seed, 0)))
    patients = (config.photographs + 1) // 2
    of_patient, of_eye = rng.standard_normal((patients, 1)), rng.standard_normal((patients, 2))
    severities = np.sqrt(FELLOW_CORRELATION) * of_patient + np.sqrt(1 - FELLOW_CORRELATION) * of_eye
    severity = severities.ravel()[: config.photographs]
    counts = _quotas(PROPORTIONS[config.proportions], config.photographs)
    levels = np.empty(config.photographs, dtype=np.int64)
    levels[np.argsort(severity, kind="stable")] = np.repeat(np.arange(len(counts)), counts)
    return [(i // 2 + 1, ("left", "right")[i % 2], int(level)) for i, level in enumerate(levels)]


def draw(
    folder: Path, config: SyntheticConfig, *, workers: int | None = None, progress: CountProgress | None = None
) -> None:
    """Draw `config.photographs` photographs into a new `folder` in the layout of EyePACS.

    `folder` gets `trainLabels.csv` (`image,level`) and `train/1_left.jpeg`, `train/1_right.jpeg`, and so on. It is
    created by one rename when everything is drawn. The pixels depend on `config` alone, not on `workers`.

    Args:
        folder: the new folder; must be absent or empty.
        config: number and size of the photographs, shares of the grades, seed.
        workers: number of processes; by default one for each core, fewer for a few photographs. 1 uses this process.
        progress: called in this process as `progress(done, total)`.

    Raises:
        DataError: `folder` is not empty or cannot be written.
        DiskError: the disk is at fault, for example full.
    """
    try:
        _ensure_free(folder)
        # hidden, so that the leftover of a killed process is never read as a complete folder
        unfinished = folder.resolve().with_name(f".{folder.resolve().name}.{os.getpid()}.part")
        (unfinished / "train").mkdir(parents=True)
    except OSError as error:
        raise wrap_os_error(folder, "cannot be written", error, fallback=DataError) from error
    plan = assign_grades(config)
    try:
        done = 0
        for count in _draw_patients(unfinished / "train", config, plan, workers):
            done += count
            if progress:
                progress(done, len(plan))
        _write_labels(unfinished / "trainLabels.csv", plan)
        _ensure_free(folder)
        unfinished.replace(folder.resolve())
    except OSError as error:
        raise wrap_os_error(folder, "photographs cannot be drawn into it", error, fallback=DataError) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _quotas(shares: tuple[float, ...], total: int) -> list[int]:
    """Distribute `total` by `shares`, rounding the largest remainders up."""
    exact = np.array(shares) * total
    counts = np.floor(exact + 1e-9).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def _ensure_free(folder: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        folder.stat()  # raises for a circular link, for which `exists` returns False
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder}: already there; photographs are drawn into a new or empty folder")


def _draw_patients(folder: Path, config: SyntheticConfig, plan: Eyes, workers: int | None) -> Iterator[int]:
    """Draw all patients, in this process or in several, and yield the number of photographs of each patient."""
    jobs: list[Job] = [(folder, config.size, config.seed, list(eyes)) for _, eyes in groupby(plan, key=itemgetter(0))]
    workers = workers or min(available_cores(), max(1, len(jobs) // MIN_PATIENTS_PER_PROCESS))
    yield from process_pool.map_unordered(
        _draw_patient,
        jobs,
        workers,
        purpose="draws photographs",
        describe=lambda job: f"it was at patient {job[3][0][0]}",
    )


def _draw_patient(job: Job) -> int:
    """Draw and save the photographs of one patient, with a random number generator for this patient."""
    folder, size, seed, eyes = job
    rng = np.random.default_rng(np.random.SeedSequence((seed, eyes[0][0])))
    appearance = draw_appearance(rng)
    for (patient, eye, grade), eye_rng in zip(eyes, rng.spawn(len(eyes)), strict=True):
        pixels = draw_photograph(grade, eye, size, eye_rng, appearance=appearance)
        Image.fromarray(pixels).save(folder / f"{patient}_{eye}.jpeg", quality=appearance.quality)
    return len(eyes)


def _write_labels(file: Path, plan: Eyes) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("image", "level"))
        rows.writerows((f"{patient}_{eye}", grade) for patient, eye, grade in plan)
