"""What the ledger's search proposes, also when it is killed at each write. No Ray."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from ledger_runs import PARAMETERS, Killed, again, begun, result, run_one, spec_of, trials_of

from retina.results.run_folder import RunFolder
from retina.sweep.study import SweepStudy


def test_a_share_of_the_trials_is_drawn_at_random() -> None:
    def rates(share: float) -> list[float]:
        space = {"epochs": {"value": 4}, "learning_rate": {"distribution": "log_uniform", "min": 1e-5, "max": 1e-1}}
        study, found = SweepStudy.create(spec_of(parameters=space, random_share=share)), []
        for _ in range(60):
            name, config = study.ask()
            off = abs(math.log10(config.learning_rate) + 3)
            study.tell(name, "COMPLETE", {4: 1 - off}, "")
            found.append(off)
        return found[30:]

    learned, random = np.mean(rates(0.0)), np.mean(rates(1.0))
    assert learned < 0.5 < random  # orders of magnitude from the best; 1 for a uniform draw
    assert learned < np.mean(rates(0.5)) < random


@pytest.mark.parametrize("method", ["gp", "tpe", "random"])
def test_no_configuration_is_tried_twice_while_there_are_others(tmp_path: Path, method: Any) -> None:
    """Else the search proposes the end of a range, or the best choice of a small space, again and again."""
    parameters = {"batch_size": {"values": [4, 8, 16, 32, 64], "ordered": True}, "head_layers": {"values": [2, 3]}}
    spec = spec_of(parameters=parameters, method=method, trials=12)
    ledger = begun(tmp_path / "run", spec)
    asked = []
    for _ in range(10):
        name, config = ledger.ask()
        asked.append(config)
        ledger.started(name, config)
        ledger.epoch(name, 1, result(1, config.batch_size / 100 + config.head_layers / 10))
        ledger.end(name, "COMPLETE", "")
    assert len({config.stable_hash() for config in asked}) >= 9  # twenty draws may miss the last of ten
    ledger.ask()  # there is no other left, and the sweep goes on all the same
    assert [trial.user_attrs["trial_id"] for trial in trials_of(tmp_path / "run")] == [f"t{i:04d}" for i in range(11)]


WRITES: list[tuple[Any, str]] = [
    (optuna.Study, "ask"),
    (optuna.Study, "tell"),
    (optuna.Trial, "suggest_categorical"),
    (optuna.Trial, "set_user_attr"),
    (optuna.Trial, "report"),
    (RunFolder, "flush"),
    (RunFolder, "log"),
]


def _drawing_first(values: dict[str, Any], times: int) -> Callable[..., Any]:
    """What a random sampler draws, but that the first so many configurations are `values`."""
    original, left = optuna.samplers.RandomSampler.sample_independent, times * len(values)

    def sample(sampler: Any, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            return values[name]
        return original(sampler, study, trial, name, distribution)

    return sample


class Killer:
    """Kills the process after the write with the number `at`, and counts them."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int) -> None:
        self.at, self.count = at, 0
        for owner, method in WRITES:
            patch.setattr(owner, method, self._counted(getattr(owner, method)))

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **more: Any) -> Any:
            done = original(*arguments, **more)
            self.count += 1
            if self.count == self.at:
                raise Killed
            return done

        return write


def test_killed_at_each_write_no_configuration_is_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler draws a configuration twice that was tried before, and the process is killed among these draws."""
    small = {
        "epochs": {"value": 4},
        "pretrained": {"value": False},
        "batch_size": {"values": [4, 8, 16, 32]},
        "optimizer": {"values": ["sgd", "adamw"]},
    }
    spec = spec_of(parameters=small, method="random", trials=3, seed=2)
    ledger = begun(tmp_path / "begun", spec)
    for value in (0.1, 0.3):
        run_one(ledger, [value])
    ledger.close()
    ledger.folder.flush()
    at, was_killed = 0, True
    while was_killed:
        at += 1
        root = Path(shutil.copytree(tmp_path / "begun", tmp_path / f"killed-{at}"))
        with monkeypatch.context() as patch:
            drawn = {name: ledger.folder.trial_row("t0000")[name] for name in ("batch_size", "optimizer")}
            patch.setattr(optuna.samplers.RandomSampler, "sample_independent", _drawing_first(drawn, times=2))
            killed = Killer(patch, at)
            try:
                run_one(again(root, spec), [0.3])
                was_killed = False
            except Killed:
                assert killed.count == at
        resumed = again(root, spec)
        while resumed.remaining:
            run_one(resumed, [0.3])
        configs = resumed.folder.configs()
        assert list(configs) == ["t0000", "t0001", "t0002"]
        assert len({config.stable_hash() for config in configs.values()}) == 3, f"killed at write {at}"
    assert at > 12  # draws, the passing over of two, an id, an epoch, an end


def test_killed_between_the_new_study_and_the_new_sweep_file_the_old_file_goes_on(tmp_path: Path) -> None:
    """The study searches one space, the file says another: the study is made anew with every trial."""
    old = spec_of()
    ledger = begun(tmp_path / "run", old)
    run_one(ledger, [0.1, 0.2])
    changed = spec_of(parameters={**PARAMETERS, "batch_size": {"values": [8, 16, 32], "ordered": True}})
    again(tmp_path / "run", changed)  # killed here, before sweep.yaml was written
    back = again(tmp_path / "run", old)
    names = [run_one(back, [0.3]) for _ in range(4)]
    assert names == ["t0001", "t0002", "t0003", "t0004"]
    trials = trials_of(tmp_path / "run")
    assert [trial.user_attrs["trial_id"] for trial in trials] == ["t0000", *names]
    stored = [PARAMETERS["batch_size"]["values"][trial.params["batch_size_index"]] for trial in trials]
    assert stored == [back.folder.trial_row(name)["batch_size"] for name in ["t0000", *names]]
