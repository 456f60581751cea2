"""`kill -9` of the driver, again and again: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from repository import HELPERS

from retina.results import checkpoints
from retina.results.run_folder import FINISHED, RunFolder

TRIALS = 40
KILLS = 3
DRIVER = HELPERS / "sweep_process.py"


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(root), str(TRIALS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ran(root: Path) -> list[tuple[float, int]]:
    file = root.with_name("ran.txt")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [(float(rate), int(epoch)) for rate, epoch in (line.split() for line in lines)]


def kill_after(root: Path, epochs: int, delay: float) -> None:
    """Start the driver, wait until so many more epochs were trained and a moment longer, kill it with all its Ray."""
    before = len(ran(root))
    driver = start(root)
    while len(ran(root)) < before + epochs:
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    wait_for_workers(root)


def wait_for_workers(root: Path) -> None:
    """Ray's processes follow their driver; a worker that is at an epoch may still finish it."""
    quiet, seen = time.monotonic(), len(ran(root))
    while time.monotonic() - quiet < 1.5:
        time.sleep(0.05)
        if len(ran(root)) != seen:
            quiet, seen = time.monotonic(), len(ran(root))


@dataclass(frozen=True)
class Seen:
    """A results folder after a kill: ended trials with state and value, the learning rates of these, checkpoints."""

    ended: dict[str, tuple[str, float]]
    never_again: set[float]
    saved: dict[float, int]
    epochs_run: int


def look(root: Path) -> Seen:
    if not (root / "sweep.yaml").is_file():
        return Seen({}, set(), {}, 0)
    folder = RunFolder.open(root)
    table = folder.trials().set_index("trial_id")
    assert table.index.is_unique
    ended = table[table["state"].isin(FINISHED)]
    found = {row["learning_rate"]: checkpoints.newest(folder.trial(str(name))) for name, row in table.iterrows()}
    return Seen(
        ended={str(name): (row["state"], row["val_qwk"]) for name, row in ended.iterrows()},
        never_again=set(ended["learning_rate"]),
        saved={rate: checkpoint.epoch for rate, checkpoint in found.items() if checkpoint},
        epochs_run=len(ran(root)),
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_a_sweep_that_is_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    root, chance = tmp_path / "killed", random.Random(0)  # noqa: S311  # moments to kill at
    seen = look(root)
    for _ in range(KILLS):
        before = seen
        kill_after(root, epochs=chance.randrange(1, 25), delay=chance.random() / 10)
        seen = look(root)
        assert before.ended.items() <= seen.ended.items()  # what had ended is as it was
        for rate, epoch in ran(root)[before.epochs_run :]:
            assert rate not in before.never_again
            assert epoch > before.saved.get(rate, 0)  # unfinished ones went on behind their checkpoint
    assert 0 < len(seen.ended) < TRIALS  # the kills came in the midst of it
    last = start(root)
    printed = last.communicate(timeout=240)[0]
    assert last.returncode == 0, printed
    check_the_end(root, seen.ended)


def check_the_end(root: Path, finished: dict[str, tuple[str, float]]) -> None:
    folder = RunFolder.open(root)
    table, history = folder.trials().set_index("trial_id"), folder.history()
    assert table.index.tolist() == [f"t{number:04d}" for number in range(TRIALS)]
    assert set(table["state"]) <= {"COMPLETE", "PRUNED"}
    assert {name: (table.loc[name, "state"], table.loc[name, "val_qwk"]) for name in finished} == finished
    assert not history.duplicated(["trial_id", "epoch"]).any()
    for name, epochs in history.groupby("trial_id")["epoch"]:
        assert sorted(epochs) == list(range(1, int(table.loc[name, "epochs_run"]) + 1))
    storage = f"sqlite:///{root / 'study.db'}"
    (study,) = optuna.get_all_study_names(storage)
    result = optuna.load_study(study_name=study, storage=storage).trials
    assert [trial.user_attrs["trial_id"] for trial in result] == table.index.tolist()
    for trial, (_, row) in zip(result, table.iterrows(), strict=True):
        assert trial.state.name == row["state"]
        assert trial.value == pytest.approx(row["val_qwk"])
        assert trial.params["learning_rate"] == pytest.approx(row["learning_rate"])
        assert sorted(trial.intermediate_values) == list(range(1, int(row["epochs_run"]) + 1))
    assert table["learning_rate"].is_unique  # the search did not begin anew with the same random numbers
    kept = {path.parent.name: torch.load(path, weights_only=True) for path in root.glob("trials/*/model.pt")}
    assert set(kept) == set(table["val_qwk"].nlargest(2).index)
    assert {name: int(weights["epoch"]) for name, weights in kept.items()} == table["best_epoch"][list(kept)].to_dict()
    assert not list(root.glob("trials/*/checkpoint_*"))
    assert pd.Series(ran(root)).value_counts().max() <= KILLS + 1
