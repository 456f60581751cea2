"""The Optuna study behind a sweep: what to try next, and what became of it. Knows nothing of Ray.

A trial that was stopped early is PRUNED with all its values, the stopping step's included; one that ran its epochs is
COMPLETE with its best value; a diverged or crashed one is FAIL with its reason. What the study is told of an epoch is
the best value so far, never the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from retina.config import TrialConfig
from retina.errors import ResultsError
from retina.sweep import space
from retina.sweep.spec import SweepSpec

INDEX = "_index"
"""Suffix in the study of an ordered parameter, which is searched as the whole number of its place among its values."""
NAME = "trial_id"
REASON = "reason"


def trial_name(number: int) -> str:
    """The readable id of the sweep's trial `number`, used everywhere: t0007."""
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


class SweepStudy:
    """The study of one sweep, in `study.db` or, for a look ahead or a simulation, in memory."""

    def __init__(self, spec: SweepSpec, study: optuna.Study, taken: Sequence[str] = ()) -> None:
        """Take up `study`; `taken` are names of trials that it does not hold."""
        self._spec, self._study = spec, study
        self._asked: dict[str, optuna.Trial] = {}
        self._reported: dict[str, set[int]] = {}
        trials = study.get_trials(deepcopy=False)
        self._unfinished = [trial for trial in trials if trial.state is TrialState.RUNNING]
        numbers = [int(name[1:]) for name in (*taken, *(trial.user_attrs.get(NAME, "t-1") for trial in trials))]
        self._next = max(numbers, default=-1) + 1

    @classmethod
    def create(cls, spec: SweepSpec, database: Path | None = None, taken: Sequence[str] = ()) -> SweepStudy:
        """A new study, with the start points, or every point of a grid, at its head."""
        storage = _storage(database)
        # the space is in the name: two sweeps that search different spaces never share a study
        name = f"{spec.name}-{spec.stable_hash()}"
        there = optuna.get_all_study_names(storage)
        study = optuna.create_study(
            storage=storage,
            sampler=sampler(spec, len(taken)),
            direction="maximize" if spec.metric.sign > 0 else "minimize",
            study_name=f"{name}-{len(there)}" if name in there else name,  # a space that was changed, and changed back
        )
        for point in space.grid(spec.parameters) if spec.method == "grid" else spec.start:
            study.enqueue_trial(to_study(spec, point))
        return cls(spec, study, taken)

    @classmethod
    def open(cls, spec: SweepSpec, database: Path, name: str, taken: Sequence[str] = ()) -> SweepStudy:
        """The study `name` in `database`, as it was left.

        Raises:
            ResultsError: it is not there.
        """
        storage = _storage(database)
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            raise ResultsError(f"{database}: holds no study {name!r}; the sweep cannot go on") from None
        # else its random numbers would begin anew, and the first trials come again
        study.sampler = sampler(spec, len(study.get_trials(deepcopy=False)))
        return cls(spec, study, taken)

    @property
    def name(self) -> str:
        """The study's own name."""
        return str(self._study.study_name)

    @property
    def trials(self) -> dict[str, FrozenTrial]:
        """What the study knows, by the trials' readable ids, in their order."""
        return {t.user_attrs[NAME]: t for t in self._study.get_trials(deepcopy=False) if NAME in t.user_attrs}

    def ask(self) -> tuple[str, TrialConfig]:
        """The next trial: one that was left unfinished, else a new one. Its readable id and its configuration."""
        name = self._take_up(self._unfinished[0]) if self._unfinished else self._register(self._study.ask())
        # what was chosen before stays chosen; what was not yet, when the process was killed, is chosen now
        return name, suggest(self._asked[name], self._spec)

    def report(self, name: str, epoch: int, value: float) -> None:
        """Tell the best value after `epoch`; one that was told before, or is not finite, is passed over."""
        if math.isfinite(value) and epoch not in self._reported[name]:
            self._asked[name].report(value, epoch)
            self._reported[name].add(epoch)

    def tell(self, name: str, state: str, value: float | None, reason: str) -> None:
        """Tell how a trial that was asked for has ended: COMPLETE with its value, PRUNED or FAIL."""
        trial = self._asked.pop(name)
        if reason:
            trial.set_user_attr(REASON, reason)
        if state == "PRUNED" and not self._reported[name]:
            state = "FAIL"  # Optuna has no place for one that was stopped before its first value
        self._study.tell(trial, value if state == "COMPLETE" else None, state=TrialState[state])

    def settle(self, name: str, state: str, values: Mapping[int, float], reason: str) -> None:
        """Tell of a trial that had ended before the study heard of it; `values` are its best ones by epoch."""
        self._take_up(next(trial for trial in self._unfinished if trial.user_attrs.get(NAME) == name))
        for epoch, value in values.items():
            self.report(name, epoch, value)
        self.tell(name, state, values[max(values)] if values else None, reason)

    def learn(self, name: str, config: TrialConfig, state: str, values: Mapping[int, float], reason: str) -> bool:
        """Add a trial that ended, or runs, elsewhere: of this sweep before its space was changed.

        Returns:
            Whether it lies in the space; the study cannot hold it otherwise.
        """
        point = space.point_of(self._spec.parameters, config.model_dump())
        if point is None or TrialConfig(**{"seed": config.seed, **point}) != config:
            return False
        finished = state == "COMPLETE" and bool(values)
        probe = optuna.create_study(sampler=optuna.samplers.RandomSampler())  # tells us the distributions
        probe.enqueue_trial(to_study(self._spec, point))
        asked = probe.ask()
        suggest(asked, self._spec)
        trial = optuna.trial.create_trial(
            state=TrialState[state],
            params=asked.params,
            distributions=asked.distributions,
            value=values[max(values)] if finished else None,
            intermediate_values=dict(values),
            user_attrs={NAME: name, **({REASON: reason} if reason else {})},
        )
        self._study.add_trial(trial)
        if state == "RUNNING":
            self._unfinished.append(self._study.get_trials(deepcopy=False)[-1])
        return True

    def _register(self, trial: optuna.Trial, reported: Iterable[int] = ()) -> str:
        name = trial.user_attrs.get(NAME)
        if name is None:
            name = trial_name(self._next)
            self._next += 1
            trial.set_user_attr(NAME, name)
        self._asked[name], self._reported[name] = trial, set(reported)
        return str(name)

    def _take_up(self, left: FrozenTrial) -> str:
        self._unfinished.remove(left)
        live = optuna.trial.Trial(self._study, left._trial_id)  # noqa: SLF001  # the only way in, also for Optuna
        return self._register(live, left.intermediate_values)


def _storage(database: Path | None) -> optuna.storages.BaseStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{database}") if database else optuna.storages.InMemoryStorage()


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


def sampler(spec: SweepSpec, trials_before: int = 0) -> optuna.samplers.BaseSampler:
    """What chooses the next trial, for a sweep that has had `trials_before` trials already."""
    seed = spec.seed
    if trials_before:
        seed = int(np.random.SeedSequence([spec.seed, trials_before]).generate_state(1)[0])
    if spec.method == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if spec.method == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)  # a grid is a list of start points, so nothing is left to draw
