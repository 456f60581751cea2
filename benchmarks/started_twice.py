"""Count how often two processes that start the same sweep at the same time end correctly.

    python -m benchmarks.started_twice --pairs 50

Each pair is two processes that wait for a barrier and then create the results folder and take its lock, as a sweep and
`retina train` do before their first trial. The correct outcome: one process gets the folder, the other one is refused
with a clear error, and the folder is complete. The command counts the pairs by their outcome.
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
    """Start the sweep `root` in two processes at the same time, and return their outcomes.

    Args:
        root: the results folder.
        photographs: the data set of the sweep.
        begun: whether the folder exists already and both processes continue the sweep.

    Returns:
        For each process "won", "refused", "a long message" or the name of the exception, sorted.
    """
    context = multiprocessing.get_context("fork")
    barrier, outcomes = context.Barrier(2), context.SimpleQueue()
    arguments = (root, photographs, begun, barrier, outcomes)
    processes = [context.Process(target=_start, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sorted(outcomes.get() for _ in processes)


def _start(root: Path, photographs: FundusDataset, begun: bool, barrier: Barrier, outcomes: SimpleQueue[str]) -> None:
    spec = SweepSpec(name=root.name, trials=2, parameters={"learning_rate": {"values": [1e-3, 1e-2]}})
    barrier.wait()
    try:
        folder = RunFolder.open(root) if begun else environment.create_run_folder(root, photographs, spec.to_yaml())
        with folder.lock():
            time.sleep(SECONDS_HELD * 10 if begun else SECONDS_HELD)
        outcomes.put("won")
    except ResultsError as error:
        outcomes.put("refused" if len(str(error).splitlines()) <= 3 else "a long message")
    except Exception as error:  # the outcome that is counted
        outcomes.put(type(error).__name__)


def main() -> None:
    """Run the pairs and print how many had each outcome."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=50)
    pairs = parser.parse_args().pairs
    logging.disable(logging.WARNING)
    photographs = prepare(DATA)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "results" / "demo"
        for _ in range(pairs):
            shutil.rmtree(root.parent, ignore_errors=True)
            ended = pair(root, photographs)
            is_complete = root.is_dir() and not RunFolder.open(root).trial_ids()
            left = [file.name for file in root.parent.iterdir() if file.name != root.name]
            problems = ("" if is_complete else "; no folder") + (f"; left: {len(left)}" if left else "")
            outcomes[", ".join(ended) + problems] += 1
    for outcome, count in outcomes.most_common():
        print(f"{count:4d} of {pairs}: {outcome}")  # noqa: T201


if __name__ == "__main__":
    main()
