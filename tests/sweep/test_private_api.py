"""What the project relies on in Optuna and Ray beyond their public API. No Ray runs.

A failure here after an update of Optuna or Ray names the function of `retina.sweep.private_api` to change.
"""

from __future__ import annotations

import inspect
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from ray._private import ray_constants, worker
from ray.runtime_context import RuntimeContext
from ray.tune.schedulers import AsyncHyperBandScheduler

from retina.sweep import private_api, ray_start, study_file

CONSTANTS = {
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": True,
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": False,
    "ENABLE_RAY_CLUSTER": False,
}


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_running_trial_is_resumed_with_its_parameters_and_values(kind: str, tmp_path: Path) -> None:
    storage: optuna.storages.BaseStorage = (
        optuna.storages.InMemoryStorage() if kind == "memory" else study_file.open_storage(tmp_path / "study.db")
    )
    optuna.create_study(storage=storage, study_name="other").ask()
    study = optuna.create_study(storage=storage, study_name="this", direction="maximize")
    study.tell(study.ask(), 0.1)
    trial = study.ask()
    rate = trial.suggest_float("rate", 0, 1)
    trial.report(0.5, step=1)
    again = optuna.load_study(study_name="this", storage=storage)  # as another process opens it
    (left,) = again.get_trials(states=(TrialState.RUNNING,))
    resumed = private_api.resume_trial(again, storage, left.number)
    assert resumed.number == trial.number == 1
    assert resumed.suggest_float("rate", 0, 1) == rate
    resumed.suggest_float("momentum", 0, 1)  # what was not chosen before is chosen now
    resumed.report(0.7, step=2)
    again.tell(resumed, 0.7)
    trials = again.get_trials()
    assert [one.state for one in trials] == [TrialState.COMPLETE, TrialState.COMPLETE]
    assert trials[1].intermediate_values == {1: 0.5, 2: 0.7}
    assert set(trials[1].params) == {"rate", "momentum"}
    with pytest.raises(KeyError):
        private_api.resume_trial(again, storage, 7)


def test_a_trial_is_made_of_a_study_and_an_id() -> None:
    assert list(inspect.signature(optuna.trial.Trial).parameters) == ["study", "trial_id"]


def test_ask_has_still_no_way_to_continue_a_running_trial() -> None:
    study = optuna.create_study()
    assert study.ask().number == 0
    assert study.ask().number == 1


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_rungs_of_asha_are_read_with_their_trials_and_cutoffs(mode: str) -> None:
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="best",
        mode=mode,
        max_t=27,
        grace_period=2,
        reduction_factor=3,
        stop_last_trials=False,
    )
    assert private_api.asha_rungs(scheduler) == [private_api.ASHARung(at, 0, None) for at in (18.0, 6.0, 2.0)]
    sign = 1 if mode == "max" else -1
    for name, value in (("a", 0.1), ("b", 0.4), ("c", 0.7)):
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)
        scheduler.on_trial_result(None, trial, {"epoch": 2, "best": sign * value})
    high, middle, low = private_api.asha_rungs(scheduler)
    assert (high.trials, middle.trials, low.trials) == (0, 0, 3)
    assert low.cutoff == pytest.approx(0.5), "two thirds of the trials are below"
    assert scheduler.debug_string().count("Iter ") == 3


def test_ray_s_constants_are_those_that_are_set() -> None:
    before = {name: getattr(ray_constants, name) for name in CONSTANTS}
    with private_api.ray_constants_set({**CONSTANTS, "NO_SUCH_CONSTANT": 1}):
        assert {name: getattr(ray_constants, name) for name in CONSTANTS} == CONSTANTS
        assert not hasattr(ray_constants, "NO_SUCH_CONSTANT")
    assert {name: getattr(ray_constants, name) for name in CONSTANTS} == before
    with pytest.raises(KeyboardInterrupt), private_api.ray_constants_set(CONSTANTS):
        raise KeyboardInterrupt
    assert {name: getattr(ray_constants, name) for name in CONSTANTS} == before


def test_ray_s_messages_are_printed_only_where_they_are_enabled() -> None:
    data = {"lines": ["a state dump"], "pid": "raylet", "ip": "127.0.0.1", "is_err": True}

    def printed() -> str:
        file = io.StringIO()
        worker.print_worker_logs(data, file, ignore_prefix=True)
        return file.getvalue()

    with private_api.ray_messages(enabled=False):
        assert printed() == ""
        with private_api.ray_messages(enabled=True):
            assert printed() == "", "Ray's own setting stays"
    with private_api.ray_messages(enabled=True):
        assert "a state dump" in printed()
    assert "a state dump" in printed()


def test_the_folder_of_the_logs_is_where_ray_s_runtime_context_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_start.logs_folder() is None, "Ray is not started"
    for method in ("get_temp_dir", "get_session_name"):
        assert callable(getattr(RuntimeContext, method))
    context = SimpleNamespace(get_temp_dir=lambda: "/tmp/ray", get_session_name=lambda: "session_1")  # noqa: S108
    monkeypatch.setattr(ray_start.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_start.ray, "get_runtime_context", lambda: context)
    assert ray_start.logs_folder() == Path("/tmp/ray/session_1/logs")  # noqa: S108


def test_the_study_is_imported_without_ray() -> None:
    code = "import sys; import retina.sweep.study; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
