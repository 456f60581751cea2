"""From a `DataConfig` to photographs that can be trained on: the door of this floor."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Callable
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
from retina.data import duplicates, layouts, perceptual_hash, split, synthetic
from retina.data.cache.pixel_cache import PixelCache, cache_folder, cannot_keep, mapped, open_cache
from retina.data.duplicates import Duplicates
from retina.data.loader import SplitView, resident
from retina.data.manifest import BadRow, Manifest, Unused
from retina.data.photograph_pool import visit
from retina.errors import DataError, RetinaError
from retina.system import file_modes

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many photographs of how many are."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class FundusDataset:
    """A data set, split and decoded. Pickles without its pixels: who unpickles it maps them anew.

    Attributes:
        config: what it was made from.
        manifest: the photographs that can be used, `split` filled in.
        pixels_file: the cache that holds them, in the order of the manifest.
        fingerprint: follows names, file lengths, grades, patients and splits; not where the files lie, nor how they are
            decoded. A photograph replaced by one of the very same length goes unnoticed.
        warnings: what a person should know before trusting a score.
        discless: photographs on which no fundus disc was found; they are used whole.
        duplicates: photographs that are there more than once, whether they were joined for the split or not.
        decoded: how many photographs were decoded for it; the others had been before.
        seconds: how long that took.
    """

    config: DataConfig
    manifest: Manifest
    pixels_file: Path
    fingerprint: str
    warnings: list[str] = field(default_factory=list)
    discless: int = 0
    duplicates: Duplicates = field(default_factory=Duplicates)
    decoded: int = 0
    seconds: float = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in {"pixels", "_resident"}}

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """uint8 (N, S, S, 3), memory-mapped; built once more on a machine that does not share our cache folder.

        Raises:
            DataError: the photographs there are not the same.
        """
        if (there := mapped(self.pixels_file)) is not None:
            return there
        here = prepare(self.config)
        if here.fingerprint != self.fingerprint:
            raise DataError(
                f"{socket.gethostname()}: {self.config.path} holds other photographs, grades or splits than where the\n"
                f"sweep was started (fingerprint {here.fingerprint}, there {self.fingerprint})"
            )
        return here.pixels

    @property
    def frame(self) -> pd.DataFrame:
        """The manifest's table."""
        return self.manifest.frame

    @cached_property
    def _resident(self) -> dict[torch.device, npt.NDArray[np.uint8] | torch.Tensor]:
        return {}

    def part(self, name: str, device: torch.device | None = None, most_bytes: int = 0) -> SplitView:
        """The photographs of the split `name`: "train", "val" or "test".

        Args:
            name: the split.
            device: where they are to be used. A GPU gets all photographs of all splits, once in this process, if they
                take `most_bytes` of its memory or fewer; else they stay memory-mapped.
            most_bytes: see `device`.
        """
        pixels: npt.NDArray[np.uint8] | torch.Tensor = self.pixels
        if device is not None:
            if device not in self._resident:
                self._resident[device] = resident(self.pixels, device, most_bytes)
            pixels = self._resident[device]
        mine = (self.frame["split"] == name).to_numpy()
        frame = self.frame[mine]
        patients = pd.factorize(frame["patient"])[0].astype(np.int64)
        return SplitView(pixels, np.flatnonzero(mine), frame["grade"].to_numpy(dtype=np.int64), patients)

    def summary(self) -> dict[str, Any]:
        """What a results folder says of its data: fingerprint, layout, photographs a split and grade, warnings."""
        return {
            "path": self.config.path,
            "layout": self.manifest.layout,
            "fingerprint": self.fingerprint,
            "image_size": self.config.image_size,
            "photographs": {name: self._counts(name) for name in SPLITS},
            "patients": int(self.frame["patient"].nunique()),
            "without_a_disc": self.discless,
            "skipped": len(self.manifest.skipped),
            "ungradable": sum(bad.ungradable for bad in self.manifest.skipped),
            "unused": len(self.manifest.unused.photographs),
            "columns": self.manifest.choices,
            "duplicates": self.duplicates.summary(self.frame),
            "warnings": self.warnings,
        }

    def _counts(self, name: str) -> dict[str, Any]:
        grades = Counter(int(grade) for grade in self.frame.loc[self.frame["split"] == name, "grade"])
        return {"n": sum(grades.values()), "by_grade": [grades[grade] for grade in range(GRADES)]}


def find(config: DataConfig) -> Manifest | None:
    """Read and check the labels at `config.path`, which takes seconds; None for "synthetic", which is yet to be drawn.

    Raises:
        DataError: as `retina.data.layouts.read`.
    """
    if config.path == "synthetic":
        return None
    manifest = layouts.read(config)
    for choice in manifest.choices:
        log.info("%s", choice)
    return manifest


def prepare(config: DataConfig, progress: Progress | None = None, found: Manifest | None = None) -> FundusDataset:
    """Decode and split the photographs at `config.path`; "synthetic" draws them first.

    Everything that takes long is done once: drawn photographs and decoded pixels stay in the cache folder.

    Args:
        config: which photographs, and how they are wanted.
        progress: told of what takes long.
        found: what `find` gave, if it was asked before.

    Raises:
        DataError: as `retina.data.layouts.read`, `retina.data.cache.pixel_cache.open_cache` and
            `retina.data.split.assign`.
        DiskError: as `retina.data.cache.pixel_cache.open_cache`.
    """
    say = progress or (lambda *_: None)
    manifest = found or find(config) or _drawn(config, say)
    cache = open_cache(
        manifest,
        config.image_size,
        on_bad=config.on_bad,
        progress=lambda done, total: say("decoding photographs", done, total),
    )
    usable = replace(
        manifest,
        frame=manifest.frame.iloc[cache.kept].reset_index(drop=True),
        skipped=[*manifest.skipped, *cache.bad],
    )
    found_twice = _duplicates(usable, config, cache, say)
    assigned = split.assign(usable, config, found_twice)
    warnings = [*manifest.remarks, *assigned.warnings]
    if cache.discless:
        warnings.append(f"no fundus disc was found on {cache.discless} photographs; they are used whole")
    return FundusDataset(
        config=config,
        manifest=replace(usable, frame=assigned.frame),
        pixels_file=cache.path / "pixels.npy",
        fingerprint=_fingerprint(assigned.frame),
        warnings=warnings,
        discless=cache.discless,
        duplicates=found_twice,
        decoded=cache.decoded,
        seconds=cache.seconds,
    )


def _duplicates(manifest: Manifest, config: DataConfig, cache: PixelCache, say: Progress) -> Duplicates:
    """Those with the same pixels, and with `join_duplicates` "near" those that look alike."""
    details = _details(manifest, cache, say) if config.join_duplicates == "near" else None
    return Duplicates(config.join_duplicates, duplicates.find(cache.digests, details))


def _details(manifest: Manifest, cache: PixelCache, say: Progress) -> list[bytes]:
    """What tells photographs from others that look alike; kept beside the decoded ones, of which nothing is used."""
    file, length = cache.path / "details.npy", perceptual_hash.SIDE**2
    kept = mapped(file)
    if kept is not None and kept.shape == (len(manifest.frame), length) and kept.dtype == np.int8:
        return [row.tobytes() if row.any() else b"" for row in kept]
    found = visit(
        manifest.frame, perceptual_hash.details_of, lambda done, total: say("comparing photographs", done, total)
    )
    table = np.frombuffer(b"".join(one or bytes(length) for one in found), np.int8).reshape(-1, length)
    part = file.with_name(f"details.{os.getpid()}.part.npy")
    try:
        np.save(part, table)
        part.replace(file)
    except OSError as error:  # a full disk, or a cache that can only be read: they are as good without being kept
        problem = error.strerror or error
        log.info("note: %s: what photographs look like cannot be kept, and is found anew each time: %s", file, problem)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return found


def drawn_folder(config: SyntheticConfig) -> Path:
    """Where the photographs that `config` asks for are kept."""
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
    folder = drawn_folder(config.synthetic)
    if not folder.is_dir():
        raise DataError(f"{folder}: the drawn photographs are no longer there")
    return config.model_copy(update={"path": str(folder), "layout": "eyepacs"})


def _drawn(config: DataConfig, say: Progress) -> Manifest:
    folder = drawn_folder(config.synthetic)
    try:
        if not folder.is_dir():  # it gets its name when it is whole, so one that is there needs no lock
            file_modes.make_folder(cache_folder(), exist_ok=True)
            file_modes.make_folder(folder.parent, exist_ok=True)
            with filelock.FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    progress = partial(say, "drawing photographs")
                    synthetic.draw(folder, config.synthetic, progress=progress)
    except RetinaError:  # a DiskError is an OSError, too
        raise
    except OSError as error:
        raise cannot_keep(folder.parent, error) from None
    read = layouts.read(resolve_synthetic(config))
    return replace(read, layout="synthetic", unused=Unused())


def _fingerprint(frame: pd.DataFrame) -> str:
    lengths = {path: Path(path).stat().st_size for path in frame["path"].unique()}
    told = frame[["image", "grade", "patient", "split"]].assign(length=frame["path"].map(lengths))
    return hashlib.sha256(told.to_csv(index=False).encode()).hexdigest()[:16]


def duplicate_rows(photographs: FundusDataset) -> list[dict[str, Any]]:
    """Photographs that are there more than once, as rows of a table with `retina.data.duplicates.COLUMNS`."""
    return photographs.duplicates.rows(photographs.frame)


def skipped_rows(photographs: FundusDataset) -> list[dict[str, str]]:
    """What `on_bad: skip` left out, as rows of a table: where, image, problem."""
    return [_row(bad) for bad in photographs.manifest.skipped]


def _row(bad: BadRow) -> dict[str, str]:
    return {"where": bad.where, "image": bad.image, "problem": bad.problem}


def unused_rows(photographs: FundusDataset) -> list[dict[str, str]]:
    """The files in the data folder that were not used, as rows of a table: file, kind."""
    return photographs.manifest.unused.rows()


def rows_by_kind(photographs: FundusDataset) -> dict[str, list[dict[str, str]]]:
    """Return what `retina data prepare` lists: photographs and labels "left-out", files "not-used"."""
    return {"left-out": skipped_rows(photographs), "not-used": unused_rows(photographs)}


def list_file(config: DataConfig, kind: str) -> Path:
    """Return where `retina data prepare` lists what is of a kind of `rows_by_kind`."""
    path = Path(config.path).expanduser().absolute()
    name = re.sub(r"[^\w.-]+", "-", path.name) or "data"
    return cache_folder() / kind / f"{name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.csv"
