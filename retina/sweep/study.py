"""The Optuna study behind a sweep: it proposes trials and records how they ended. Does not import Ray.

A trial that was stopped early is PRUNED and has all its values, that of the step at which it was stopped included. A
trial that ran all its epochs is COMPLETE and has its best value. A trial that diverged or crashed is FAIL and has a
reason. The value reported after an epoch is the best one so far, never the epoch's own.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from retina.config import TrialConfig, search_space
from retina.config.sweep import SweepSpec
from retina.errors import ResultsError
from retina.sweep import private_api, study_file
from retina.sweep.sampler import RandomShareSampler, create_sampler

Storage = optuna.storages.RDBStorage | optuna.storages.InMemoryStorage

INDEX = "_index"
"""Suffix in the study of an ordered parameter, which is searched as the index of its value among its choices."""
NAME = "trial_id"
"""User attribute of a trial: its readable id."""
_NAME = re.compile(r"t\d{4,9}", re.ASCII)
REASON = "reason"
"""User attribute of a trial: why it was stopped or failed."""
POINT = "point"
"""User attribute of a trial whose parameters were given: the start point or point of the grid, as JSON."""
SHAPE = "shape"
"""User attribute of the study: a hash of what it searches, and how. A sweep with another shape needs another study."""
SHAPED_BY = ("parameters", "method", "random_share", "seed")
"""The keys of a sweep file that the shape depends on."""
REDRAWS = 20
"""How often a configuration that was tried before is drawn again; a small space may have no other."""


def trial_name(number: int) -> str:
    """Return the readable id of the sweep's trial `number`, which is used everywhere: t0007."""
    return f"t{number:04d}"


def trial_number(name: str) -> int:
    """Return the number of the trial `name`.

    Raises:
        ResultsError: `name` is not the id of a sweep's trial.
    """
    if not _NAME.fullmatch(name):
        raise ResultsError(f"{name!r} is no id of a sweep's trial; allowed: t and four digits or more, such as t0007")
    return int(name[1:])


def suggest(trial: optuna.trial.BaseTrial, spec: SweepSpec) -> TrialConfig:
    """Let `trial` suggest every parameter that is active under the values suggested before it."""
    values: dict[str, Any] = {}
    for name in search_space.search_order(spec.parameters):
        if search_space.active(spec.parameters, name, values):
            values[name] = _suggest_parameter(trial, name, spec.parameters[name])
    return TrialConfig(**{"seed": spec.seed, **values})


def stored_params(spec: SweepSpec, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point of the search space as the parameters that the study stores; fixed ones are left out."""
    params: dict[str, Any] = {}
    for name, value in point.items():
        parameter = spec.parameters[name]
        if parameter.ordered:
            params[name + INDEX] = parameter.choices().index(value)
        elif "value" not in parameter.model_fields_set:
            params[name] = value
    return params


class SweepStudy:
    """The study of one sweep: in `study.db`, or in memory for a dry run or a simulation."""

    def __init__(
        self, spec: SweepSpec, study: optuna.Study, storage: Storage, tried: Mapping[str, TrialConfig]
    ) -> None:
        """Wrap an Optuna study.

        Args:
            spec: the sweep.
            study: the study, with the sweep's sampler.
            storage: the storage that holds `study`.
            tried: configurations of all trials of the sweep so far by their ids, whether the study holds them or not.
        """
        self._spec, self._study, self._storage = spec, study, storage
        self._asked: dict[str, optuna.Trial] = {}
        self._reported: dict[str, set[int]] = {}
        trials = study.get_trials(deepcopy=False)
        self._unfinished = [trial for trial in trials if trial.state is TrialState.RUNNING]
        self._tried = {_key(config) for config in tried.values()}
        numbers = [trial_number(name) for name in (*tried, *_names(trials))]
        self._next = max(numbers, default=-1) + 1
        enqueued = {trial.user_attrs.get(POINT) for trial in trials}
        points = search_space.grid(spec.parameters) if spec.method == "grid" else spec.start
        self._points = [
            point for point in points if _as_json(point) not in enqueued and not _is_tried(point, spec, tried)
        ]

    @classmethod
    def create(
        cls, spec: SweepSpec, database: Path | None = None, tried: Mapping[str, TrialConfig] | None = None
    ) -> SweepStudy:
        """Create a study in `database`, or in memory; start points or the grid come first, without those tried."""
        storage: Storage = study_file.open_storage(database) if database else optuna.storages.InMemoryStorage()
        # the search space is in the name: two sweeps that search different spaces never share a study
        name = f"{spec.name}-{spec.stable_hash()}"
        existing = optuna.get_all_study_names(storage)
        study = optuna.create_study(
            storage=storage,
            sampler=create_sampler(spec, len(tried or {})),
            direction="maximize" if spec.metric.sign > 0 else "minimize",
            study_name=f"{name}-{len(existing)}" if name in existing else name,  # a space that was changed back
        )
        study.set_user_attr(SHAPE, _shape(spec))
        return cls(spec, study, storage, tried or {})

    @classmethod
    def open(cls, spec: SweepSpec, database: Path, name: str, tried: Mapping[str, TrialConfig]) -> SweepStudy:
        """Open the study `name` in `database` as the last process has left it.

        Raises:
            ResultsError: the database holds no such study.
        """
        storage = study_file.open_storage(database)
        with study_file.storage_errors(database):
            try:
                study = optuna.load_study(study_name=name, storage=storage)
            except KeyError:
                raise ResultsError(f"{database}: holds no study {name!r}; the sweep cannot go on") from None
            study.get_trials(deepcopy=False)
        # seeded by the number of trials: the seed alone would draw the first trials again
        study.sampler = create_sampler(spec, len(study.get_trials(deepcopy=False)))
        return cls(spec, study, storage, tried)

    @staticmethod
    def names(database: Path, *, with_trials: bool = False) -> list[str]:
        """Return the names of the studies in `database` in the order of their creation.

        Args:
            database: the file.
            with_trials: leave out studies without a trial.
        """
        with study_file.storage_errors(database):
            storage = study_file.open_storage(database)
            names = optuna.get_all_study_names(storage)
            return [
                name for name in names if not with_trials or storage.get_n_trials(storage.get_study_id_from_name(name))
            ]

    @property
    def fits(self) -> bool:
        """Whether the study searches what the sweep file says now, and in the same way."""
        return bool(self._study.user_attrs.get(SHAPE) == _shape(self._spec))

    @property
    def name(self) -> str:
        """The study's name in the database."""
        return str(self._study.study_name)

    @property
    def trials(self) -> dict[str, FrozenTrial]:
        """The study's trials by their readable ids, in their order."""
        return {t.user_attrs[NAME]: t for t in self._study.get_trials(deepcopy=False) if NAME in t.user_attrs}

    def ask(self) -> tuple[str, TrialConfig]:
        """Return the next trial: an unfinished one, else a given point, else what the sampler proposes.

        Returns:
            The trial's readable id and its configuration.
        """
        name = self._resume_unfinished()
        if name is not None:
            config = suggest(self._asked[name], self._spec)
        elif self._points:
            point = self._points.pop(0)
            self._study.enqueue_trial(stored_params(self._spec, point), user_attrs={POINT: _as_json(point)})
            trial = self._study.ask()
            config = suggest(trial, self._spec)
            name = self._register(trial)
        else:
            trial, config = self._propose()
            name = self._register(trial)
        self._tried.add(_key(config))
        return name, config

    def _resume_unfinished(self) -> str | None:
        """Resume the first unfinished trial and return its id; None where there is none.

        A trial gets its id once its configuration is complete and known to be new. A trial without an id was being
        proposed when the process was killed: the parameters that it has stay, the others are suggested now. If that
        gives a configuration that was tried before, the trial is discarded, as it would have been then.
        """
        while self._unfinished:
            unfinished = self._unfinished[0]
            if NAME in unfinished.user_attrs or POINT in unfinished.user_attrs:
                return self._resume(unfinished)
            trial = private_api.resume_trial(self._study, self._storage, unfinished.number)
            name = None
            if _key(suggest(trial, self._spec)) not in self._tried:
                name = self._register(trial, unfinished.intermediate_values)
            else:
                self._discard(trial)
            self._unfinished.remove(unfinished)  # last, here and below: a trial whose writing fails stays unfinished
            if name is not None:
                return name
        return None

    def requeue(self, name: str) -> None:
        """Make `ask` return a trial again that it has returned before."""
        trial = self._study.get_trials(deepcopy=False)[self._asked[name].number]
        self._unfinished.append(trial)
        del self._asked[name]

    def report(self, name: str, epoch: int, value: float) -> None:
        """Report a trial's best value after `epoch`; a repeated or non-finite one is ignored."""
        self._adopt(name)
        if math.isfinite(value) and epoch not in self._reported[name]:
            self._asked[name].report(value, epoch)
            self._reported[name].add(epoch)

    def tell(self, name: str, state: str, values: Mapping[int, float], reason: str) -> None:
        """Record how a trial has ended.

        If study.db cannot be written now, the trial stays RUNNING, and this method can be called again.

        Args:
            name: the trial's readable id.
            state: COMPLETE, PRUNED or FAIL.
            values: its best value so far, by epoch; those that could not be reported before are reported now.
            reason: why it was stopped or failed; empty for none.

        Raises:
            ResultsError: the study holds no such trial, or it has ended already.
        """
        for epoch, value in values.items():
            self.report(name, epoch, value)
        self._adopt(name)
        if reason:
            self._asked[name].set_user_attr(REASON, reason)
        best_value = values[max(values)] if values and state == "COMPLETE" else None
        self._study.tell(self._asked[name], best_value, state=TrialState[state])
        del self._asked[name]

    def run_again(self, name: str, values: Mapping[int, float]) -> None:
        """Make `ask` return a trial that has ended in FAIL; it keeps its id, and `values` of its epochs."""
        ended = self.trials[name]
        attributes = {key: value for key, value in ended.user_attrs.items() if key != REASON}
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=ended.params,
            distributions=ended.distributions,
            intermediate_values=dict(values),
            user_attrs={**attributes, NAME: name},
        )
        self._study.add_trial(trial)
        self._unfinished.append(self._study.get_trials(deepcopy=False)[-1])

    def config_of(self, trial: FrozenTrial) -> TrialConfig | None:
        """Return the configuration of one of the study's trials.

        Returns:
            None where the trial's parameters are not those of the search space, or the study searches another space:
            the index of an ordered value means another value there, or none.
        """
        try:
            return suggest(optuna.trial.FixedTrial(trial.params), self._spec) if self.fits else None
        except ValueError:
            return None

    def record_best(self, name: str, epoch: int, value: float) -> None:
        """Store which trial is the sweep's best: Optuna's own `best_trial` ignores trials that were stopped early."""
        self._study.set_user_attr("best", {NAME: name, "epoch": epoch, "value": value})

    def retire_others(self) -> None:
        """End the RUNNING trials of the other studies, which this one has replaced when the space was changed."""
        for name in optuna.get_all_study_names(self._storage):
            if name != self.name:
                other = optuna.load_study(study_name=name, storage=self._storage)
                for trial in other.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    other.tell(trial.number, state=TrialState.FAIL)

    def learn(self, name: str, config: TrialConfig, state: str, values: Mapping[int, float], reason: str) -> bool:
        """Add a trial of this sweep that the study does not hold, for example from before its space was changed.

        Args:
            name: the trial's readable id.
            config: its configuration.
            state: COMPLETE, PRUNED, FAIL or RUNNING.
            values: its best value so far, by epoch.
            reason: why it was stopped or failed; empty for none.

        Returns:
            Whether the configuration lies in the search space; the study cannot hold it otherwise.
        """
        point = search_space.point_of(self._spec.parameters, config.model_dump())
        if point is None or TrialConfig(**{"seed": config.seed, **point}) != config:
            return False
        if state == "RUNNING" and TrialConfig(**{"seed": self._spec.seed, **point}) != config:
            return False  # it cannot go on with another seed
        probe = optuna.create_study(sampler=optuna.samplers.RandomSampler())  # gives the distributions
        probe.enqueue_trial(stored_params(self._spec, point))
        suggested = probe.ask()
        suggest(suggested, self._spec)
        trial = optuna.trial.create_trial(
            state=TrialState[state],
            params=suggested.params,
            distributions=suggested.distributions,
            value=values[max(values)] if values and state in {"COMPLETE", "PRUNED"} else None,
            intermediate_values=dict(values),
            user_attrs={NAME: name, **({REASON: reason} if reason else {})},
        )
        self._study.add_trial(trial)
        if state == "RUNNING":
            self._unfinished.append(self._study.get_trials(deepcopy=False)[-1])
        return True

    def _propose(self) -> tuple[optuna.Trial, TrialConfig]:
        """Return what the sampler proposes, drawn again where it was tried before: it would give the same result."""
        trial = self._study.ask()
        config = suggest(trial, self._spec)
        for _ in range(REDRAWS):
            if _key(config) not in self._tried:
                break
            self._discard(trial)
            if isinstance(self._study.sampler, RandomShareSampler):
                self._study.sampler.explore_next()
            trial = self._study.ask()
            config = suggest(trial, self._spec)
        return trial, config

    def _discard(self, trial: optuna.Trial) -> None:
        trial.set_user_attr(REASON, "tried before")
        self._study.tell(trial, state=TrialState.FAIL)

    def _register(self, trial: optuna.Trial, reported: Iterable[int] = ()) -> str:
        name = trial.user_attrs.get(NAME)
        if name is None:
            name = trial_name(self._next)
            self._next += 1
            trial.set_user_attr(NAME, name)
        self._asked[name], self._reported[name] = trial, set(reported)
        return str(name)

    def _adopt(self, name: str) -> None:
        """Resume a trial that was not asked for in this process, since it is reported to or ends.

        Raises:
            ResultsError: the study holds no such trial, or it has ended.
        """
        if name in self._asked:
            return
        unfinished = next((trial for trial in self._unfinished if trial.user_attrs.get(NAME) == name), None)
        if unfinished is None:
            raise ResultsError(
                f"{study_file.STUDY_FILE}: the study {self.name!r} holds no running trial {name}, trials.csv does;\n"
                "go on with --resume, which makes the two agree"
            )
        self._resume(unfinished)

    def _resume(self, unfinished: FrozenTrial) -> str:
        trial = private_api.resume_trial(self._study, self._storage, unfinished.number)
        if NAME not in unfinished.user_attrs:
            suggest(trial, self._spec)  # a given point, too, gets its id once its configuration is complete
        name = self._register(trial, unfinished.intermediate_values)
        self._unfinished.remove(unfinished)
        return name


def _key(config: TrialConfig) -> str:
    return config.stable_hash()


def _shape(spec: SweepSpec) -> str:
    shape = spec.model_dump_json(include=set(SHAPED_BY))
    if any(parameter.ordered and not _is_ascending(parameter.choices()) for parameter in spec.parameters.values()):
        shape += "ordered as written"  # 0.1.0 numbered them in ascending order: its studies hold other indices
    return hashlib.sha256(shape.encode()).hexdigest()[:16]


def _is_ascending(values: Sequence[Any]) -> bool:
    return list(values) == sorted(values)


def _as_json(point: Mapping[str, Any]) -> str:
    return json.dumps(dict(point), sort_keys=True)


def _is_tried(point: Mapping[str, Any], spec: SweepSpec, tried: Mapping[str, TrialConfig]) -> bool:
    """Return whether a point that leaves no parameter open is a tried configuration, apart from its seed."""
    values: dict[str, Any] = {}
    for name in search_space.search_order(spec.parameters):
        if search_space.active(spec.parameters, name, values):
            parameter = spec.parameters[name]
            if name not in point and (parameter.distribution is not None or len(parameter.choices()) > 1):
                return False
            values[name] = point[name] if name in point else parameter.choices()[0]
    config = TrialConfig(**values)
    return any(config == other.model_copy(update={"seed": config.seed}) for other in tried.values())


def _names(trials: Iterable[FrozenTrial]) -> list[str]:
    return [str(trial.user_attrs[NAME]) for trial in trials if NAME in trial.user_attrs]


def _suggest_parameter(trial: optuna.trial.BaseTrial, name: str, parameter: search_space.Parameter) -> Any:
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
    return parameter.on_step(trial.suggest_float(name, low, high, step=parameter.step, log=parameter.is_log))
