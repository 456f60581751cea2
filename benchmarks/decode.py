"""Photographs a second from a camera's JPEG to the square that the model sees, and of a whole cache on all cores.

    python -m benchmarks.decode --data ../shared/data/idrid/originals --sizes 224 512

full        PIL decodes all pixels; the project's `find_disc`, its crop, one LANCZOS resize: what `ours` is judged by
report      the course report's way: PIL decodes all pixels and resizes them to a square, disc or not
ours        `retina.data.fundus.read_square`: decoded at half size or less, cropped, averaged and resized
simplejpeg  `ours` with the same reduced decode by simplejpeg, for comparison; left out where it is not installed

First one process with one thread: the ways take turns photograph by photograph, after a turn that does not count and
gives the PSNR against `full`. Then `open_cache` builds a cache of many photographs with all cores (the given ones
again and again under other names), in turn with bare processes that only call `read_square`, one alone and one a core:
what the build lacks of these is its machinery's, what these lack of cores times the one is the machine's. The files are
in the page cache all the time, so no disk is measured but the writing of the cache. Upright JPEGs only. Prints tables,
writes JSON.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from PIL import Image
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from retina.data.cache.pixel_cache import open_cache
from retina.data.fundus import Pixels, find_disc, read_square, to_square
from retina.data.manifest import COLUMNS, Manifest
from retina.results.environment import describe_environment
from retina.system.hardware import available_cores

A_CORE = 500
"""Photographs of a build for each core: enough that the start of the processes weighs as little as in a real one."""


def full(path: Path, size: int) -> Pixels:
    """Every pixel decoded, cropped to the disc, resized once."""
    with Image.open(path) as image:
        photograph = image.convert("RGB")
    disc = find_disc(np.asarray(photograph))
    if disc is not None:
        left, top, side = disc.square()
        photograph = photograph.crop((left, top, left + side, top + side))
    return np.array(photograph.resize((size, size), Image.Resampling.LANCZOS))


def report(path: Path, size: int) -> Pixels:
    """Every pixel decoded, squeezed into the square."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((size, size)))


def ours(path: Path, size: int) -> Pixels:
    """As training and prediction read it."""
    return read_square(path, size)[0]


def with_simplejpeg(path: Path, size: int) -> Pixels:
    """The reduced decode straight into numpy's memory; PIL's goes through two copies more."""
    simplejpeg = importlib.import_module("simplejpeg")  # not one of our dependencies
    data = path.read_bytes()
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    by = next((by for by in (8, 4, 2) if min(height, width) // by >= 2 * size), 1)  # what PIL takes for `ours`
    pixels = simplejpeg.decode_jpeg(data, min_height=height // by, min_width=width // by)
    return to_square(pixels, size)[0]


WAYS: dict[str, Callable[[Path, int], Pixels]] = {
    "full": full,
    "report": report,
    "ours": ours,
    "simplejpeg": with_simplejpeg,
}


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal to noise ratio in dB; equal squares, and nearly equal ones, count as 100, which JSON can hold."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 255**2 / 1e10)))


def spread(values: ArrayLike) -> dict[str, float]:
    """Number, median, least and most."""
    array = np.asarray(values, np.float64)
    return {"n": array.size, "median": float(np.median(array)), "min": float(array.min()), "max": float(array.max())}


def squares(files: list[Path], size: int, ways: list[str], repeats: int) -> list[dict[str, Any]]:
    """Each way in one process: its rate, how much faster than `full` by photograph, and how near to it."""
    near: dict[str, list[float]] = {way: [] for way in ways}
    for file in files:
        truth = full(file, size)
        for way in ways:
            near[way].append(psnr(WAYS[way](file, size), truth))
    seconds = {way: np.zeros((repeats, len(files))) for way in ways}
    busy = -time.process_time()
    started = time.perf_counter()
    for turn in range(repeats):
        for at, file in enumerate(files):
            for way in ways:
                before = time.perf_counter()
                WAYS[way](file, size)
                seconds[way][turn, at] = time.perf_counter() - before
    share = (busy + time.process_time()) / (time.perf_counter() - started)
    medians = {way: np.median(taken, axis=0) for way, taken in seconds.items()}
    return [
        {
            "way": way,
            "size": size,
            "photographs": len(files),
            "a_second": {
                "n": repeats,
                "median": len(files) / float(medians[way].sum()),  # of the photographs' medians
                "min": len(files) / float(seconds[way].sum(axis=1).max()),
                "max": len(files) / float(seconds[way].sum(axis=1).min()),
            },
            "times_full": spread(medians["full"] / medians[way]),
            "psnr": {"mean": float(np.mean(near[way])), "worst": min(near[way]), "each": near[way]},
            "seconds_a_photograph": medians[way].tolist(),
            "cpu_share": share,  # of all ways; below 0.98 or so something else was running
        }
        for way in ways
    ]


def builds(files: list[Path], size: int, repeats: int, place: Path) -> dict[str, Any]:
    """Caches of `files` with all cores, against processes that only read, one alone and one a core."""
    paths = [str(file) for file in files]
    frame = pd.DataFrame({"image": paths, "path": paths, "array": "", "index": -1, "grade": 0, "patient": paths})
    frame = frame.reindex(columns=list(COLUMNS), fill_value="").astype(COLUMNS)
    manifest = Manifest(frame, "eyepacs", place)
    built, alone, bare = (np.zeros(repeats) for _ in range(3))
    for turn in range(repeats):
        alone[turn] = _side_by_side([files[:: available_cores()]], size)
        bare[turn] = _side_by_side([files[first :: available_cores()] for first in range(available_cores())], size)
        folder = place / f"cache-{turn}"
        started = time.perf_counter()
        open_cache(manifest, size, folder=folder)
        built[turn] = len(files) / (time.perf_counter() - started)
        shutil.rmtree(folder)
    return {
        "size": size,
        "photographs": len(files),
        "cores": available_cores(),
        "a_second": spread(built),
        "one_process_a_second": spread(alone),
        "bare_processes_a_second": spread(bare),
        "share_of_cores": spread(built / (available_cores() * alone)),
        "share_of_bare": spread(built / bare),
        "bare_share_of_cores": spread(bare / (available_cores() * alone)),
    }


def _side_by_side(shares: list[list[Path]], size: int) -> float:
    """Photographs a second of a process for each share, all at once, nothing written."""
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(len(shares)), context.SimpleQueue()
    processes = [context.Process(target=_read_all, args=(share, size, ready, rates)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a process that only reads ended with {process.exitcode}")
    return sum(float(rates.get()) for _ in processes)


def _read_all(files: list[Path], size: int, ready: Barrier, rates: SimpleQueue[float]) -> None:
    read_square(files[0], size)
    ready.wait(timeout=120)
    started = time.perf_counter()
    for file in files:
        read_square(file, size)
    rates.put(len(files) / (time.perf_counter() - started))


def many(originals: list[Path], count: int, folder: Path) -> list[Path]:
    """`count` photographs: the originals, copied once, under as many names as it takes."""
    folder.mkdir()
    copies = [Path(shutil.copyfile(file, folder / f"copy-of-{file.name}")) for file in originals]
    files = [folder / f"{number:06d}{copies[number % len(copies)].suffix}" for number in range(count)]
    for number, file in enumerate(files):
        os.link(copies[number % len(copies)], file)
    return files


def table_of_squares(rows: list[dict[str, Any]]) -> Table:
    """A line a size and way."""
    lines = Table(box=MARKDOWN)
    for column in ("size", "way", "photographs/s/core", "times full, by photograph", "PSNR to full: mean", "worst"):
        lines.add_column(column, justify="left" if column == "way" else "right")
    for row in rows:
        near = [f"{row['psnr'][which]:.1f} dB" if row["way"] != "full" else "" for which in ("mean", "worst")]
        lines.add_row(str(row["size"]), row["way"], _told(row["a_second"], 1), _told(row["times_full"], 2), *near)
    return lines


def table_of_builds(rows: list[dict[str, Any]]) -> Table:
    """A line a size."""
    lines = Table(box=MARKDOWN)
    columns = ("size", "photographs", "cores", "built/s", "of cores x one", "of bare processes", "bare of cores x one")
    for column in columns:
        lines.add_column(column, justify="right")
    shares = ("share_of_cores", "share_of_bare", "bare_share_of_cores")
    for row in rows:
        counts = [str(row[name]) for name in ("size", "photographs", "cores")]
        lines.add_row(*counts, _told(row["a_second"], 1), *(_told(row[name], 2) for name in shares))
    return lines


def _told(found: dict[str, float], digits: int) -> str:
    middle, low, high = (f"{found[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{middle} ({low} to {high})"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of JPEGs as the camera wrote them")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 512])
    parser.add_argument("--repeats", type=int, default=5, help="turns of each way, a photograph each")
    parser.add_argument("--builds", type=int, default=3, help="caches built a size; 0 for none")
    parser.add_argument("--photographs", type=int, default=A_CORE * available_cores(), help="of each build")
    parser.add_argument("--out", type=Path, default=Path("decode.json"))
    options = parser.parse_args()
    files = sorted(file for file in options.data.iterdir() if file.suffix.lower() in {".jpg", ".jpeg"})
    if not files:
        raise SystemExit(f"{options.data}: there are no JPEGs")
    ways = [way for way in WAYS if way != "simplejpeg" or importlib.util.find_spec(way)]
    told: dict[str, Any] = {"environment": describe_environment(), "squares": [], "builds": []}
    told["options"] = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    console = Console(width=170)
    with tempfile.TemporaryDirectory() as place:
        repeated = many(files, options.photographs, Path(place) / "photographs") if options.builds else []
        for size in options.sizes:
            told["squares"] += squares(files, size, ways, options.repeats)
            if options.builds:
                told["builds"].append(builds(repeated, size, options.builds, Path(place)))
            options.out.write_text(json.dumps(told, indent=1), encoding="utf-8")
    console.print(table_of_squares(told["squares"]))
    if told["builds"]:
        console.print(table_of_builds(told["builds"]))


if __name__ == "__main__":
    main()
