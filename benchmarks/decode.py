"""Measure photographs per second from a camera's JPEG to the model's input, and of a cache build on all cores.

    python -m benchmarks.decode --data ../shared/data/idrid/originals --sizes 224 512

full        PIL decodes all pixels; the project's `find_disc`, its crop, one LANCZOS resize: the reference for `ours`
report      the course report's method: PIL decodes all pixels and resizes them to a square without finding the disc
ours        `retina.data.fundus.read_square`: decoded at half size or less, cropped, averaged and resized
simplejpeg  `ours` with the same reduced decode by simplejpeg, for comparison; left out where it is not installed

The first part runs in one process with one thread. The methods alternate photograph by photograph, after a warm-up turn
that also gives the PSNR against `full`. In the second part `open_cache` builds a cache of many photographs on all cores
(the given ones, repeated under other names). The builds alternate with bare processes that only call `read_square`,
first a single process, then one per core. The gap between the build and the bare processes is the overhead of the
build; the gap between these and cores times the single process is the machine's. The files stay in the page cache, so
the only disk access measured is the writing of the cache. Upright JPEGs only. Prints tables and writes JSON.
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

PHOTOGRAPHS_PER_CORE = 500
"""Photographs per core in a build: enough that the start of the processes weighs as little as in a real build."""


def full(path: Path, size: int) -> Pixels:
    """Decode every pixel, crop to the disc and resize once."""
    with Image.open(path) as image:
        photograph = image.convert("RGB")
    disc = find_disc(np.asarray(photograph))
    if disc is not None:
        left, top, side = disc.square()
        photograph = photograph.crop((left, top, left + side, top + side))
    return np.array(photograph.resize((size, size), Image.Resampling.LANCZOS))


def report(path: Path, size: int) -> Pixels:
    """Decode every pixel and resize to the square, ignoring the aspect ratio."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((size, size)))


def with_retina(path: Path, size: int) -> Pixels:
    """Read the photograph as training and prediction do."""
    return read_square(path, size)[0]


def with_simplejpeg(path: Path, size: int) -> Pixels:
    """Decode at reduced size straight into numpy's memory; PIL needs two more copies."""
    simplejpeg = importlib.import_module("simplejpeg")  # not a dependency of this package
    data = path.read_bytes()
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    scale = next((scale for scale in (8, 4, 2) if min(height, width) // scale >= 2 * size), 1)  # PIL's scale for `ours`
    pixels = simplejpeg.decode_jpeg(data, min_height=height // scale, min_width=width // scale)
    return to_square(pixels, size)[0]


METHODS: dict[str, Callable[[Path, int], Pixels]] = {
    "full": full,
    "report": report,
    "ours": with_retina,
    "simplejpeg": with_simplejpeg,
}


def psnr(image: Pixels, reference: Pixels) -> float:
    """Return the peak signal-to-noise ratio in dB, at most 100: JSON has no infinity for equal images."""
    error = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 255**2 / 1e10)))


def spread(values: ArrayLike) -> dict[str, float]:
    """Return the number of values, their median, minimum and maximum."""
    array = np.asarray(values, np.float64)
    return {"n": array.size, "median": float(np.median(array)), "min": float(array.min()), "max": float(array.max())}


def squares(files: list[Path], size: int, methods: list[str], repeats: int) -> list[dict[str, Any]]:
    """Measure each method in one process: its rate, its speedup over `full` by photograph, and its PSNR to `full`."""
    psnr_by_method: dict[str, list[float]] = {method: [] for method in methods}
    for file in files:
        truth = full(file, size)
        for method in methods:
            psnr_by_method[method].append(psnr(METHODS[method](file, size), truth))
    seconds = {method: np.zeros((repeats, len(files))) for method in methods}
    busy = -time.process_time()
    started = time.perf_counter()
    for turn in range(repeats):
        for at, file in enumerate(files):
            for method in methods:
                before = time.perf_counter()
                METHODS[method](file, size)
                seconds[method][turn, at] = time.perf_counter() - before
    share = (busy + time.process_time()) / (time.perf_counter() - started)
    medians = {method: np.median(taken, axis=0) for method, taken in seconds.items()}
    return [
        {
            "way": method,
            "size": size,
            "photographs": len(files),
            "a_second": {
                "n": repeats,
                "median": len(files) / float(medians[method].sum()),  # from the photographs' medians
                "min": len(files) / float(seconds[method].sum(axis=1).max()),
                "max": len(files) / float(seconds[method].sum(axis=1).min()),
            },
            "times_full": spread(medians["full"] / medians[method]),
            "psnr": {
                "mean": float(np.mean(psnr_by_method[method])),
                "worst": min(psnr_by_method[method]),
                "each": psnr_by_method[method],
            },
            "seconds_a_photograph": medians[method].tolist(),
            "cpu_share": share,  # of all methods; below about 0.98 another process was running
        }
        for method in methods
    ]


def builds(files: list[Path], size: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Compare cache builds of `files` on all cores with processes that only read: a single one, and one per core."""
    paths = [str(file) for file in files]
    frame = pd.DataFrame({"image": paths, "path": paths, "array": "", "index": -1, "grade": 0, "patient": paths})
    frame = frame.reindex(columns=list(COLUMNS), fill_value="").astype(COLUMNS)
    manifest = Manifest(frame, "eyepacs", folder)
    built, alone, bare = (np.zeros(repeats) for _ in range(3))
    for turn in range(repeats):
        alone[turn] = _side_by_side([files[:: available_cores()]], size)
        bare[turn] = _side_by_side([files[first :: available_cores()] for first in range(available_cores())], size)
        cache = folder / f"cache-{turn}"
        started = time.perf_counter()
        open_cache(manifest, size, folder=cache)
        built[turn] = len(files) / (time.perf_counter() - started)
        shutil.rmtree(cache)
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
    """Return the photographs per second of one process per share, all at once; nothing is written."""
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(len(shares)), context.SimpleQueue()
    processes = [context.Process(target=_read_all, args=(share, size, ready, rates)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a reading process ended with exit code {process.exitcode}")
    return sum(float(rates.get()) for _ in processes)


def _read_all(files: list[Path], size: int, ready: Barrier, rates: SimpleQueue[float]) -> None:
    read_square(files[0], size)
    ready.wait(timeout=120)
    started = time.perf_counter()
    for file in files:
        read_square(file, size)
    rates.put(len(files) / (time.perf_counter() - started))


def many(originals: list[Path], count: int, folder: Path) -> list[Path]:
    """Copy the originals into `folder` once and hard-link them under `count` names."""
    folder.mkdir()
    copies = [Path(shutil.copyfile(file, folder / f"copy-of-{file.name}")) for file in originals]
    files = [folder / f"{number:06d}{copies[number % len(copies)].suffix}" for number in range(count)]
    for number, file in enumerate(files):
        os.link(copies[number % len(copies)], file)
    return files


def table_of_squares(rows: list[dict[str, Any]]) -> Table:
    """Return a table with a row per size and method."""
    lines = Table(box=MARKDOWN)
    for column in ("size", "method", "photographs/s/core", "times full, by photograph", "PSNR to full: mean", "worst"):
        lines.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        psnr_cells = [f"{row['psnr'][which]:.1f} dB" if row["way"] != "full" else "" for which in ("mean", "worst")]
        lines.add_row(
            str(row["size"]), row["way"], _format(row["a_second"], 1), _format(row["times_full"], 2), *psnr_cells
        )
    return lines


def table_of_builds(rows: list[dict[str, Any]]) -> Table:
    """Return a table with a row per size."""
    lines = Table(box=MARKDOWN)
    columns = ("size", "photographs", "cores", "built/s", "of cores x one", "of bare processes", "bare of cores x one")
    for column in columns:
        lines.add_column(column, justify="right")
    shares = ("share_of_cores", "share_of_bare", "bare_share_of_cores")
    for row in rows:
        counts = [str(row[name]) for name in ("size", "photographs", "cores")]
        lines.add_row(*counts, _format(row["a_second"], 1), *(_format(row[name], 2) for name in shares))
    return lines


def _format(stats: dict[str, float], digits: int) -> str:
    middle, low, high = (f"{stats[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{middle} ({low} to {high})"


def main() -> None:
    """Run the measurements, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of JPEGs as the camera wrote them")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 512])
    parser.add_argument("--repeats", type=int, default=5, help="turns per method over all photographs")
    parser.add_argument("--builds", type=int, default=3, help="cache builds per size; 0 for none")
    parser.add_argument(
        "--photographs", type=int, default=PHOTOGRAPHS_PER_CORE * available_cores(), help="number per build"
    )
    parser.add_argument("--out", type=Path, default=Path("decode.json"))
    options = parser.parse_args()
    files = sorted(file for file in options.data.iterdir() if file.suffix.lower() in {".jpg", ".jpeg"})
    if not files:
        raise SystemExit(f"{options.data}: contains no JPEG files")
    methods = [method for method in METHODS if method != "simplejpeg" or importlib.util.find_spec(method)]
    results: dict[str, Any] = {"environment": describe_environment(), "squares": [], "builds": []}
    results["options"] = {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()
    }
    console = Console(width=170)
    with tempfile.TemporaryDirectory() as folder:
        repeated = many(files, options.photographs, Path(folder) / "photographs") if options.builds else []
        for size in options.sizes:
            results["squares"] += squares(files, size, methods, options.repeats)
            if options.builds:
                results["builds"].append(builds(repeated, size, options.builds, Path(folder)))
            options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    console.print(table_of_squares(results["squares"]))
    if results["builds"]:
        console.print(table_of_builds(results["builds"]))


if __name__ == "__main__":
    main()
