"""Which parameters mattered: those that decide come first, stopped trials count, the study stays as it was."""

import hashlib
from pathlib import Path

import numpy as np
import optuna
import pytest
from report_pages import SPEC

from retina.results.files import write_text
from retina.results.run_folder import RunFolder
from retina.sweep.importance import importances, of_study
from retina.sweep.study import SweepStudy


def searched(trials: int, database: Path | None = None, pruned: bool = True) -> SweepStudy:
    """A random search in which the learning rate decides nearly all; the worse half is stopped early."""
    spec = SPEC.model_copy(update={"method": "random", "trials": trials})
    study = SweepStudy.create(spec, database)
    rng = np.random.default_rng(0)
    for _ in range(trials):
        name, config = study.ask()
        value = 0.9 - 0.3 * abs(np.log10(config.learning_rate) + 3) + 0.01 * rng.random()
        state = "PRUNED" if pruned and value < 0.6 else "COMPLETE"
        study.tell(name, state, {1: value / 2, 2: value}, "")
    return study


@pytest.mark.parametrize("pruned", [False, True])
def test_what_decides_comes_first(pruned: bool) -> None:
    found = of_study(searched(40, pruned=pruned)._study)
    assert list(found) == sorted(found, key=lambda name: -found[name])
    assert next(iter(found)) == "learning_rate"
    assert found["learning_rate"] > 0.5
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == {"learning_rate", "batch_size", "optimizer", "momentum"}, "by their own names"


@pytest.mark.parametrize("trials", [0, 9])
def test_too_few_trials_tell_nothing(trials: int) -> None:
    assert of_study(searched(trials)._study) == {}


def test_where_nothing_differs_nothing_is_told() -> None:
    study = optuna.create_study()
    for _ in range(20):
        study.add_trial(optuna.create_trial(params={}, distributions={}, value=0.5))
    assert of_study(study) == {}


def test_the_study_of_a_folder_is_only_read(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a b")
    write_text(run.root / "sweep.yaml", SPEC.to_yaml())
    file = run.root / "study.db"
    assert importances(run) == {}
    study = searched(12, file)
    run.update_metadata(study=study.name)
    study._study._storage.remove_session()
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    assert importances(run) == of_study(study._study) != {}
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
    run.update_metadata(study="another")
    assert importances(run) == {}


def test_a_study_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "demo")
    run.update_metadata(study="demo")
    (run.root / "study.db").write_bytes(b"no database" * 100)
    assert importances(run) == {}
    assert (run.root / "study.db").read_bytes() == b"no database" * 100
