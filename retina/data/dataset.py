"""The data set of a training run: `prepare` turns a `DataConfig` into a `FundusDataset`."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from retina.config import GRADES, DataConfig, SyntheticConfig
from retina.config.splits import SPLITS
from retina.data import layouts, perceptual_hash, split, synthetic
from retina.data.cache.pixel_cache import PixelCache, cache_folder, map_array_file, open_cache, storage_error
from retina.data.duplicates import Duplicates, find_groups
from retina.data.loader import SplitView, upload_if_fits
from retina.data.manifest import BadRow, Manifest, Unused
from retina.data.photograph_pool import map_photographs
from retina.errors import DataError, RetinaError
from retina.system import file_modes
from retina.system.progress import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FundusDataset:
    """A data set whose photographs are decoded and assigned to splits.

    It pickles without its pixels; they are mapped from the cache again after unpickling.

    Attributes:
        config: the configuration that it was made from.
        manifest: the usable photographs, with `split` filled in.
        pixels_file: the array file of the cache, in the order of the manifest.
        fingerprint: hash of names, file lengths, grades, patients and splits, independent of paths and decoding. It
            does not change when a photograph is replaced by one of the same length.
        warnings: problems of the data that can distort a score.
        without_disc: number of photographs on which no fundus disc was found; they are used whole.
        duplicates: photographs that occur more than once, whether or not the split keeps them together.
        decoded: number of photographs that were decoded for it; the others were in the cache.
        seconds: how long decoding took.
    """

    config: DataConfig
    manifest: Manifest
    pixels_file: Path
    fingerprint: str
    warnings: list[str] = field(default_factory=list)
    without_disc: int = 0
    duplicates: Duplicates = field(default_factory=Duplicates)
    decoded: int = 0
    seconds: float = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in {"pixels", "_pixels_by_device"}}

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """The pixels, uint8 (N, S, S, 3), memory-mapped; decoded again on a machine that does not share the cache.

        Raises:
            DataError: the photographs on this machine differ.
        """
        if (cached := map_array_file(self.pixels_file)) is not None:
            return cached
        local = prepare(self.config)
        if local.fingerprint != self.fingerprint:
            raise DataError(
                f"{socket.gethostname()}: {self.config.path} holds other photographs, grades or splits than the "
                f"machine\nthat started the sweep (fingerprint {local.fingerprint}, there {self.fingerprint})"
            )
        return local.pixels

    @property
    def frame(self) -> pd.DataFrame:
        """The manifest's table."""
        return self.manifest.frame

    @cached_property
    def _pixels_by_device(self) -> dict[torch.device, npt.NDArray[np.uint8] | torch.Tensor]:
        return {}

    def split_view(self, name: str, device: torch.device | None = None, most_bytes: int = 0) -> SplitView:
        """Return the photographs of one split.

        Args:
            name: "train", "val" or "test".
            device: where the photographs are used. All splits are copied to a GPU, once in this process, if they take
                `most_bytes` of its memory or fewer; otherwise they stay memory-mapped.
            most_bytes: see `device`.
        """
        pixels: npt.NDArray[np.uint8] | torch.Tensor = self.pixels
        if device is not None:
            if device not in self._pixels_by_device:
                self._pixels_by_device[device] = upload_if_fits(self.pixels, device, most_bytes)
            pixels = self._pixels_by_device[device]
        in_split = (self.frame["split"] == name).to_numpy()
        frame = self.frame[in_split]
        patients = pd.factorize(frame["patient"])[0].astype(np.int64)
        return SplitView(pixels, np.flatnonzero(in_split), frame["grade"].to_numpy(dtype=np.int64), patients)

    def summary(self) -> dict[str, Any]:
        """Return the description of the data in a results folder: fingerprint, layout, counts, warnings."""
        return {
            "path": self.config.path,
            "layout": self.manifest.layout,
            "fingerprint": self.fingerprint,
            "image_size": self.config.image_size,
            "photographs": {name: self._counts(name) for name in SPLITS},
            "patients": int(self.frame["patient"].nunique()),
            "without_a_disc": self.without_disc,
            "skipped": len(self.manifest.skipped),
            "ungradable": sum(bad_row.ungradable for bad_row in self.manifest.skipped),
            "unused": len(self.manifest.unused.photographs),
            "columns": self.manifest.choices,
            "duplicates": self.duplicates.summary(self.frame),
            "warnings": self.warnings,
        }

    def _counts(self, name: str) -> dict[str, Any]:
        grades = Counter(int(grade) for grade in self.frame.loc[self.frame["split"] == name, "grade"])
        return {"n": sum(grades.values()), "by_grade": [grades[grade] for grade in range(GRADES)]}


def read_manifest(config: DataConfig) -> Manifest | None:
    """Read and check the labels at `config.path`, which takes seconds.

    Returns:
        The manifest; None for the path "synthetic", whose photographs `prepare` draws.

    Raises:
        DataError: as `retina.data.layouts.read`.
    """
    if config.path == "synthetic":
        return None
    manifest = layouts.read(config)
    for choice in manifest.choices:
        log.info("%s", choice)
    return manifest


def prepare(config: DataConfig, progress: Progress | None = None, manifest: Manifest | None = None) -> FundusDataset:
    """Decode and split the photographs at `config.path`; draw them first for the path "synthetic".

    Drawn photographs and decoded pixels stay in the cache folder, so that a second call is fast.

    Args:
        config: which photographs to read, and how to decode and split them.
        progress: called during the steps that take long.
        manifest: the result of `read_manifest`, to avoid reading the labels again.

    Raises:
        DataError: as `retina.data.layouts.read`, `retina.data.cache.pixel_cache.open_cache` and
            `retina.data.split.assign_splits`.
        DiskError: as `retina.data.cache.pixel_cache.open_cache`.
    """
    report_progress = progress or (lambda *_: None)
    manifest = manifest or read_manifest(config) or _draw_manifest(config, report_progress)
    cache = open_cache(
        manifest,
        config.image_size,
        on_bad=config.on_bad,
        progress=lambda done, total: report_progress("decoding photographs", done, total),
    )
    usable = replace(
        manifest,
        frame=manifest.frame.iloc[cache.kept_rows].reset_index(drop=True),
        skipped=[*manifest.skipped, *cache.bad_rows],
    )
    duplicates = _find_duplicates(usable, config, cache, report_progress)
    assigned = split.assign_splits(usable, config, duplicates)
    warnings = [*manifest.remarks, *assigned.warnings]
    if cache.without_disc:
        warnings.append(f"no fundus disc was found on {cache.without_disc} photographs; they are used whole")
    return FundusDataset(
        config=config,
        manifest=replace(usable, frame=assigned.frame),
        pixels_file=cache.path / "pixels.npy",
        fingerprint=_fingerprint(assigned.frame),
        warnings=warnings,
        without_disc=cache.without_disc,
        duplicates=duplicates,
        decoded=cache.decoded,
        seconds=cache.seconds,
    )


def _find_duplicates(
    manifest: Manifest, config: DataConfig, cache: PixelCache, report_progress: Progress
) -> Duplicates:
    """Find photographs with the same pixels and, with `join_duplicates` "near", photographs that look alike."""
    details = _read_details(manifest, cache, report_progress) if config.join_duplicates == "near" else None
    return Duplicates(config.join_duplicates, find_groups(cache.digests, details))


def _read_details(manifest: Manifest, cache: PixelCache, report_progress: Progress) -> list[bytes]:
    """Return `perceptual_hash.read_details` of each photograph, from the original files or from the cache folder."""
    file, length = cache.path / "details.npy", perceptual_hash.SIDE**2
    cached = map_array_file(file)
    if cached is not None and cached.shape == (len(manifest.frame), length) and cached.dtype == np.int8:
        return [row.tobytes() if row.any() else b"" for row in cached]
    details = map_photographs(
        manifest.frame,
        perceptual_hash.read_details,
        lambda done, total: report_progress("comparing photographs", done, total),
    )
    table = np.frombuffer(b"".join(row or bytes(length) for row in details), np.int8).reshape(-1, length)
    temporary = file.with_name(f"details.{os.getpid()}.part.npy")
    try:
        np.save(temporary, table)
        temporary.replace(file)
    except OSError as error:  # a full disk or a read-only cache: the result is valid without being cached
        problem = error.strerror or error
        log.info("note: %s: details of photographs cannot be cached and are computed each time: %s", file, problem)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return details


def synthetic_folder(config: SyntheticConfig) -> Path:
    """Return the cache folder of the photographs that `config` describes."""
    return (
        cache_folder() / "drawn" / f"{config.photographs}-{config.proportions}-{config.size}px-{config.stable_hash()}"
    )


def resolve_synthetic(config: DataConfig) -> DataConfig:
    """Return `config` with the folder of the drawn photographs as its path if its path is "synthetic".

    Raises:
        DataError: the drawn photographs are no longer there.
    """
    if config.path != "synthetic":
        return config
    folder = synthetic_folder(config.synthetic)
    if not folder.is_dir():
        raise DataError(f"{folder}: the drawn photographs are no longer there")
    return config.model_copy(update={"path": str(folder), "layout": "eyepacs"})


def _draw_manifest(config: DataConfig, report_progress: Progress) -> Manifest:
    """Draw the synthetic photographs unless they are in the cache, and return their manifest."""
    folder = synthetic_folder(config.synthetic)
    try:
        if not folder.is_dir():  # the folder gets its name when it is complete, so an existing one needs no lock
            file_modes.make_private_folder(cache_folder(), exist_ok=True)
            file_modes.make_private_folder(folder.parent, exist_ok=True)
            with filelock.FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    progress = partial(report_progress, "drawing photographs")
                    synthetic.draw(folder, config.synthetic, progress=progress)
    except RetinaError:  # includes DiskError, which is an OSError too
        raise
    except OSError as error:
        raise storage_error(folder.parent, error) from None
    manifest = layouts.read(resolve_synthetic(config))
    return replace(manifest, layout="synthetic", unused=Unused())


def _fingerprint(frame: pd.DataFrame) -> str:
    lengths = {path: Path(path).stat().st_size for path in frame["path"].unique()}
    rows = frame[["image", "grade", "patient", "split"]].assign(length=frame["path"].map(lengths))
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:16]


def duplicate_rows(photographs: FundusDataset) -> list[dict[str, Any]]:
    """Return the photographs that occur more than once, as rows of `retina.data.duplicates.COLUMNS`."""
    return photographs.duplicates.rows(photographs.frame)


def skipped_rows(photographs: FundusDataset) -> list[dict[str, str]]:
    """Return the rows that `on_bad: skip` left out, with the columns where, image and problem."""
    return [_row_of(bad_row) for bad_row in photographs.manifest.skipped]


def _row_of(bad_row: BadRow) -> dict[str, str]:
    return {"where": bad_row.where, "image": bad_row.image, "problem": bad_row.problem}


def unused_file_rows(photographs: FundusDataset) -> list[dict[str, str]]:
    """Return the files in the data folder that were not used, as rows with the columns file and kind."""
    return photographs.manifest.unused.rows()


def excluded_rows(photographs: FundusDataset) -> dict[str, list[dict[str, str]]]:
    """Return the tables that `retina data prepare` writes: "left-out" photographs and labels, "not-used" files."""
    return {"left-out": skipped_rows(photographs), "not-used": unused_file_rows(photographs)}


def excluded_rows_path(config: DataConfig, kind: str) -> Path:
    """Return the path of the table that `retina data prepare` writes for one kind of `excluded_rows`."""
    path = Path(config.path).expanduser().absolute()
    name = re.sub(r"[^\w.-]+", "-", path.name) or "data"
    return cache_folder() / kind / f"{name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.csv"
