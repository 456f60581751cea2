"""The Optuna study behind a sweep: what to try next, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from retina.config import TrialConfig
from retina.sweep import space
from retina.sweep.spec import SweepSpec

BEST = "best"
"""The key of a trial's best value so far: what the study optimises and the rungs compare. Never the last epoch's."""
EPOCH = "epoch"
INDEX = "_index"
"""Suffix in the study of an ordered parameter, which is searched as the whole number of its place among its values."""


def verdict(result: Mapping[str, Any] | None) -> tuple[str, str]:
    """What became of a trial that has ended, by its last result: COMPLETE, PRUNED or FAIL, and why in a few words."""
    if not result:
        return "FAIL", "ended without a result"
    if result.get("failure"):
        return "FAIL", str(result["failure"])
    if result.get("finished"):
        return "COMPLETE", ""
    return "PRUNED", f"stopped at the rung of epoch {result[EPOCH]}"


def trial_name(number: int) -> str:
    """The readable id of the study's trial `number`, used everywhere: t0007."""
    return f"t{number:04d}"


def suggest(trial: optuna.Trial, spec: SweepSpec) -> TrialConfig:
    """Let `trial` choose every parameter that is searched under the choices before it."""
    chosen: dict[str, Any] = {}
    for name in space.search_order(spec.parameters):
        if space.active(spec.parameters, name, chosen):
            chosen[name] = _suggest_one(trial, name, spec.parameters[name])
    return TrialConfig(**{"seed": spec.seed, **chosen})


def to_study(spec: SweepSpec, point: Mapping[str, Any]) -> dict[str, Any]:
    """A point of the space in the terms in which the study stores it."""
    stored: dict[str, Any] = {}
    for name, value in point.items():
        parameter = spec.parameters[name]
        if parameter.ordered:
            stored[name + INDEX] = parameter.choices().index(value)
        elif "value" not in parameter.model_fields_set:
            stored[name] = value
    return stored


class StudySearch(OptunaSearch):
    """OptunaSearch that tells the study the truth.

    Ray's own calls a trial that ASHA stopped COMPLETE with its early value, never reports the stopping step, and takes
    a diverged trial for a running one. Here a stopped trial is PRUNED with all its values, the last one included, and
    a diverged or crashed one is FAIL.
    """

    def __init__(self, spec: SweepSpec, database: Path) -> None:
        self._spec = spec
        points = space.grid(spec.parameters) if spec.method == "grid" else spec.start
        super().__init__(
            space=_never_called,
            metric=BEST,
            mode="max" if spec.metric.sign > 0 else "min",
            points_to_evaluate=[to_study(spec, point) for point in points],
            sampler=_sampler(spec),
            # the space is in the name: two sweeps that search different spaces never share a study
            study_name=f"{spec.name}-{spec.stable_hash()}",
            storage=optuna.storages.RDBStorage(f"sqlite:///{database}"),
        )

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial: its readable id and its whole `TrialConfig`."""
        trial = self._ot_trials.setdefault(trial_id, None) or self._ot_study.ask()
        self._ot_trials[trial_id] = trial
        config = suggest(trial, self._spec)
        trial.set_user_attr("trial_id", trial_name(trial.number))
        trial.set_user_attr("config", config.model_dump(mode="json"))
        return {"trial": trial_name(trial.number), "config": config.model_dump(mode="json")}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch's best value so far."""
        if math.isfinite(result[BEST]):
            self._ot_trials[trial_id].report(result[BEST], result[EPOCH])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how the trial ended."""
        if trial_id in self._completed_trials:
            return
        trial = self._ot_trials[trial_id]
        state, reason = verdict(None if error else result)
        if state != "FAIL" and result:
            trial.report(result[BEST], result[EPOCH])
        if reason:
            trial.set_user_attr("reason", reason)
        value = result[BEST] if result and state == "COMPLETE" else None
        self._ot_study.tell(trial, value, state=TrialState[state])
        self._completed_trials.add(trial_id)

    def restore(self, checkpoint_path: str) -> None:
        """Go on from a saved state; trials that began after it was saved are lost, and said so in the study."""
        super().restore(checkpoint_path)
        known = {trial.number for trial in self._ot_trials.values()}
        for trial in self._ot_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:
                self._ot_study.tell(trial.number, state=TrialState.FAIL)


def settle_study(database: Path, reason: str) -> None:
    """Tell what is still running in the study: the sweep has ended, so nothing is. PRUNED where there is a value.

    Ray does not tell its searcher of the trials that a budget ended.
    """
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    for name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            storage.set_trial_user_attr(trial._trial_id, "reason", reason)  # noqa: SLF001  # only way in, also for Optuna
            study.tell(trial.number, state=TrialState.PRUNED if trial.intermediate_values else TrialState.FAIL)


def _suggest_one(trial: optuna.Trial, name: str, parameter: space.Parameter) -> Any:
    if parameter.distribution is None:
        choices = parameter.choices()
        if len(choices) == 1:
            return choices[0]
        if parameter.ordered:
            return choices[trial.suggest_int(name + INDEX, 0, len(choices) - 1)]
        return trial.suggest_categorical(name, choices)
    low, high = parameter.bounds()
    if parameter.is_int:
        return trial.suggest_int(name, int(low), int(high), step=int(parameter.step or 1), log=parameter.is_log)
    return trial.suggest_float(name, low, high, step=parameter.step, log=parameter.is_log)


def _sampler(spec: SweepSpec) -> optuna.samplers.BaseSampler:
    if spec.method == "tpe":
        return optuna.samplers.TPESampler(seed=spec.seed)
    if spec.method == "gp":
        return optuna.samplers.GPSampler(seed=spec.seed)
    return optuna.samplers.RandomSampler(seed=spec.seed)  # a grid is a list of start points, so nothing is left to draw


def _never_called(_: Any) -> None:
    """Stands where OptunaSearch wants a search space; `StudySearch.suggest` asks the study itself."""
