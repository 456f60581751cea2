"""Pairs of processes that begin the same sweep at the same time: how many pairs end as they should.

    python -m benchmarks.started_twice --pairs 50

Each pair is two processes that wait for one signal and then make the results folder and take its lock, as a sweep and
`retina train` do before their first trial. Right: one of them has the folder, the other one says so, and the folder is
whole. Counts the pairs that ended otherwise, by what came instead.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import shutil
import tempfile
import time
from collections import Counter
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from retina.config import DataConfig, SyntheticConfig
from retina.config.sweep import SweepSpec
from retina.data.dataset import FundusDataset, prepare
from retina.errors import ResultsError
from retina.results import environment
from retina.results.run_folder import RunFolder

SECONDS_HELD = 0.3
DATA = DataConfig(image_size=16, synthetic=SyntheticConfig(photographs=40, size=64, proportions="balanced"))


def pair(root: Path, photographs: FundusDataset, *, begun: bool = False) -> list[str]:
    """What became of two processes that start the sweep `root` at the same time.

    Args:
        root: the results folder.
        photographs: of the sweep.
        begun: the folder is there already, and both go on with it.

    Returns:
        For each "won", "refused", or the error that it ended with.
    """
    context = multiprocessing.get_context("fork")
    barrier, told = context.Barrier(2), context.SimpleQueue()
    arguments = (root, photographs, begun, barrier, told)
    processes = [context.Process(target=_start, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sorted(told.get() for _ in processes)


def _start(root: Path, photographs: FundusDataset, begun: bool, barrier: Barrier, told: SimpleQueue[str]) -> None:
    spec = SweepSpec(name=root.name, trials=2, parameters={"learning_rate": {"values": [1e-3, 1e-2]}})
    barrier.wait()
    try:
        folder = RunFolder.open(root) if begun else environment.begin(root, photographs, spec.to_yaml())
        with folder.lock():
            time.sleep(SECONDS_HELD * 10 if begun else SECONDS_HELD)
        told.put("won")
    except ResultsError as error:
        told.put("refused" if len(str(error).splitlines()) <= 3 else "a long message")
    except Exception as error:  # what is counted
        told.put(type(error).__name__)


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=50)
    pairs = parser.parse_args().pairs
    logging.disable(logging.WARNING)
    photographs = prepare(DATA)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "results" / "demo"
        for _ in range(pairs):
            shutil.rmtree(root.parent, ignore_errors=True)
            ended = pair(root, photographs)
            is_whole = root.is_dir() and not RunFolder.open(root).trial_ids()
            left = [file.name for file in root.parent.iterdir() if file.name != root.name]
            found[
                ", ".join(ended) + ("" if is_whole else "; no folder") + (f"; left: {len(left)}" if left else "")
            ] += 1
    for kind, count in found.most_common():
        print(f"{count:4d} of {pairs}: {kind}")  # noqa: T201


if __name__ == "__main__":
    main()
