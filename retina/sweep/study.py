"""The Optuna study behind a sweep: what to try next, and what became of it. Knows nothing of Ray.

A trial that was stopped early is PRUNED with all its values, the stopping step's included; one that ran its epochs is
COMPLETE with its best value; a diverged or crashed one is FAIL with its reason. What the study is told of an epoch is
the best value so far, never the last.
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
"""Suffix in the study of an ordered parameter, which is searched as the whole number of its place among its values."""
NAME = "trial_id"
_NAME = re.compile(r"t\d{4,9}", re.ASCII)
REASON = "reason"
POINT = "point"
"""Of a trial that was given: which start point, or which point of the grid, it is."""
SHAPE = "shape"
"""Of the study: what it searches, and how. A sweep that searches otherwise needs another study."""
SHAPED_BY = ("parameters", "method", "random_share", "seed")
REDRAWS = 20
"""How often a configuration that was tried before is drawn anew; a small space may have no other."""


def trial_name(number: int) -> str:
    """The readable id of the sweep's trial `number`, used everywhere: t0007."""
    return f"t{number:04d}"


def trial_number(name: str) -> int:
    """The number of the trial `name`.

    Raises:
        ResultsError: no trial of a sweep is called so.
    """
    if not _NAME.fullmatch(name):
        raise ResultsError(f"{name!r} is no id of a sweep's trial; allowed: t and four digits or more, such as t0007")
    return int(name[1:])


def suggest(trial: optuna.trial.BaseTrial, spec: SweepSpec) -> TrialConfig:
    """Let `trial` choose every parameter that is searched under the choices before it."""
    chosen: dict[str, Any] = {}
    for name in search_space.search_order(spec.parameters):
        if search_space.active(spec.parameters, name, chosen):
            chosen[name] = _suggest_one(trial, name, spec.parameters[name])
    return TrialConfig(**{"seed": spec.seed, **chosen})


def stored_params(spec: SweepSpec, point: Mapping[str, Any]) -> dict[str, Any]:
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

    def __init__(
        self, spec: SweepSpec, study: optuna.Study, storage: Storage, tried: Mapping[str, TrialConfig]
    ) -> None:
        """Take up `study` of `storage`; `tried` are all trials of the sweep so far, whether it holds them or not."""
        self._spec, self._study, self._storage = spec, study, storage
        self._asked: dict[str, optuna.Trial] = {}
        self._reported: dict[str, set[int]] = {}
        trials = study.get_trials(deepcopy=False)
        self._unfinished = [trial for trial in trials if trial.state is TrialState.RUNNING]
        self._tried = {_key(config) for config in tried.values()}
        numbers = [trial_number(name) for name in (*tried, *_names(trials))]
        self._next = max(numbers, default=-1) + 1
        given = {trial.user_attrs.get(POINT) for trial in trials}
        points = search_space.grid(spec.parameters) if spec.method == "grid" else spec.start
        self._points = [point for point in points if _told(point) not in given and not _is_tried(point, spec, tried)]

    @classmethod
    def create(
        cls, spec: SweepSpec, database: Path | None = None, tried: Mapping[str, TrialConfig] | None = None
    ) -> SweepStudy:
        """A new study; start points, or the points of a grid, come first, but for those that were tried before."""
        storage: Storage = study_file.open_storage(database) if database else optuna.storages.InMemoryStorage()
        # the space is in the name: two sweeps that search different spaces never share a study
        name = f"{spec.name}-{spec.stable_hash()}"
        there = optuna.get_all_study_names(storage)
        study = optuna.create_study(
            storage=storage,
            sampler=create_sampler(spec, len(tried or {})),
            direction="maximize" if spec.metric.sign > 0 else "minimize",
            study_name=f"{name}-{len(there)}" if name in there else name,  # a space that was changed, and changed back
        )
        study.set_user_attr(SHAPE, _shape(spec))
        return cls(spec, study, storage, tried or {})

    @classmethod
    def open(cls, spec: SweepSpec, database: Path, name: str, tried: Mapping[str, TrialConfig]) -> SweepStudy:
        """The study `name` in `database`, as it was left.

        Raises:
            ResultsError: it is not there.
        """
        storage = study_file.open_storage(database)
        with study_file.storage_errors(database):
            try:
                study = optuna.load_study(study_name=name, storage=storage)
            except KeyError:
                raise ResultsError(f"{database}: holds no study {name!r}; the sweep cannot go on") from None
            study.get_trials(deepcopy=False)
        # else its random numbers would begin anew, and the first trials come again
        study.sampler = create_sampler(spec, len(study.get_trials(deepcopy=False)))
        return cls(spec, study, storage, tried)

    @staticmethod
    def names(database: Path, *, with_trials: bool = False) -> list[str]:
        """The studies in `database`, in the order in which they were made; only those that have trials, if asked."""
        with study_file.storage_errors(database):
            storage = study_file.open_storage(database)
            names = optuna.get_all_study_names(storage)
            return [
                name for name in names if not with_trials or storage.get_n_trials(storage.get_study_id_from_name(name))
            ]

    @property
    def fits(self) -> bool:
        """Whether it searches what its sweep says now, as it says."""
        return bool(self._study.user_attrs.get(SHAPE) == _shape(self._spec))

    @property
    def name(self) -> str:
        """The study's own name."""
        return str(self._study.study_name)

    @property
    def trials(self) -> dict[str, FrozenTrial]:
        """What the study knows, by the trials' readable ids, in their order."""
        return {t.user_attrs[NAME]: t for t in self._study.get_trials(deepcopy=False) if NAME in t.user_attrs}

    def ask(self) -> tuple[str, TrialConfig]:
        """The next trial: one that was left unfinished, else a given point, else what the sampler chooses.

        Returns:
            Its readable id and its configuration.
        """
        name = self._taken_up_again()
        if name is not None:
            config = suggest(self._asked[name], self._spec)
        elif self._points:
            point = self._points.pop(0)
            self._study.enqueue_trial(stored_params(self._spec, point), user_attrs={POINT: _told(point)})
            trial = self._study.ask()
            config = suggest(trial, self._spec)
            name = self._register(trial)
        else:
            trial, config = self._new()
            name = self._register(trial)
        self._tried.add(_key(config))
        return name, config

    def _taken_up_again(self) -> str | None:
        """The id of a trial that was left unfinished; None where there is none.

        A trial gets its id when its configuration is whole and known to be new. One without an id was being chosen when
        the process was killed: what was chosen before stays chosen, what was not is chosen now, and where that comes to
        a configuration that was tried before, it is passed over, as it would have been.
        """
        while self._unfinished:
            left = self._unfinished[0]
            if NAME in left.user_attrs or POINT in left.user_attrs:
                return self._take_up(left)
            trial = private_api.resume_trial(self._study, self._storage, left.number)
            name = None
            if _key(suggest(trial, self._spec)) not in self._tried:
                name = self._register(trial, left.intermediate_values)
            else:
                self._pass_over(trial)
            self._unfinished.remove(left)  # last, here and below: what cannot be written now is known still
            if name is not None:
                return name
        return None

    def requeue(self, name: str) -> None:
        """Let a trial that was asked for be asked for again."""
        left = self._study.get_trials(deepcopy=False)[self._asked[name].number]
        self._unfinished.append(left)
        del self._asked[name]

    def report(self, name: str, epoch: int, value: float) -> None:
        """Tell the best value after `epoch`; one that was told before, or is not finite, is passed over."""
        self._adopt(name)
        if math.isfinite(value) and epoch not in self._reported[name]:
            self._asked[name].report(value, epoch)
            self._reported[name].add(epoch)

    def tell(self, name: str, state: str, values: Mapping[int, float], reason: str) -> None:
        """Tell how a trial has ended: COMPLETE, PRUNED or FAIL; `values` are its best ones so far by epoch.

        Where study.db cannot be written to now, the trial stays one that runs, and may end once more.

        Raises:
            ResultsError: the study holds no such trial, or it has ended already.
        """
        for epoch, value in values.items():  # those that could not be told when they came, in particular
            self.report(name, epoch, value)
        self._adopt(name)
        if reason:
            self._asked[name].set_user_attr(REASON, reason)
        best_value = values[max(values)] if values and state == "COMPLETE" else None
        self._study.tell(self._asked[name], best_value, state=TrialState[state])
        del self._asked[name]

    def run_again(self, name: str, values: Mapping[int, float]) -> None:
        """Let a trial that has ended in FAIL be asked for once more; it keeps its id, and of its epochs `values`."""
        ended = self.trials[name]
        told = {key: value for key, value in ended.user_attrs.items() if key != REASON}
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=ended.params,
            distributions=ended.distributions,
            intermediate_values=dict(values),
            user_attrs={**told, NAME: name},
        )
        self._study.add_trial(trial)
        self._unfinished.append(self._study.get_trials(deepcopy=False)[-1])

    def config_of(self, trial: FrozenTrial) -> TrialConfig | None:
        """The configuration of a trial of the study; None where its parameters are not those of the space.

        In a study that searches another space, the place of an ordered value stands for another one, or for none.
        """
        try:
            return suggest(optuna.trial.FixedTrial(trial.params), self._spec) if self.fits else None
        except ValueError:
            return None

    def record_best(self, name: str, epoch: int, value: float) -> None:
        """Write down the sweep's best trial: Optuna's own `best_trial` passes over those that were stopped early."""
        self._study.set_user_attr("best", {NAME: name, "epoch": epoch, "value": value})

    def retire_others(self) -> None:
        """End what is RUNNING in studies that this one has taken the place of, when the space was changed."""
        for name in optuna.get_all_study_names(self._storage):
            if name != self.name:
                other = optuna.load_study(study_name=name, storage=self._storage)
                for trial in other.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    other.tell(trial.number, state=TrialState.FAIL)

    def learn(self, name: str, config: TrialConfig, state: str, values: Mapping[int, float], reason: str) -> bool:
        """Add a trial that ended, or runs, elsewhere: of this sweep before its space was changed.

        Returns:
            Whether it lies in the space; the study cannot hold it otherwise.
        """
        point = search_space.point_of(self._spec.parameters, config.model_dump())
        if point is None or TrialConfig(**{"seed": config.seed, **point}) != config:
            return False
        if state == "RUNNING" and TrialConfig(**{"seed": self._spec.seed, **point}) != config:
            return False  # it cannot go on with another seed
        probe = optuna.create_study(sampler=optuna.samplers.RandomSampler())  # tells us the distributions
        probe.enqueue_trial(stored_params(self._spec, point))
        asked = probe.ask()
        suggest(asked, self._spec)
        trial = optuna.trial.create_trial(
            state=TrialState[state],
            params=asked.params,
            distributions=asked.distributions,
            value=values[max(values)] if values and state in {"COMPLETE", "PRUNED"} else None,
            intermediate_values=dict(values),
            user_attrs={NAME: name, **({REASON: reason} if reason else {})},
        )
        self._study.add_trial(trial)
        if state == "RUNNING":
            self._unfinished.append(self._study.get_trials(deepcopy=False)[-1])
        return True

    def _new(self) -> tuple[optuna.Trial, TrialConfig]:
        """What the sampler chooses; not what was tried already, which would train to the same end once more."""
        trial = self._study.ask()
        config = suggest(trial, self._spec)
        for _ in range(REDRAWS):
            if _key(config) not in self._tried:
                break
            self._pass_over(trial)
            if isinstance(self._study.sampler, RandomShareSampler):
                self._study.sampler.explore_next()
            trial = self._study.ask()
            config = suggest(trial, self._spec)
        return trial, config

    def _pass_over(self, trial: optuna.Trial) -> None:
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
        """Take up a trial that was not asked for in this process, since it is to end at once.

        Raises:
            ResultsError: the study holds no such trial, or it has ended.
        """
        if name in self._asked:
            return
        left = next((trial for trial in self._unfinished if trial.user_attrs.get(NAME) == name), None)
        if left is None:
            raise ResultsError(
                f"{study_file.STUDY_FILE}: the study {self.name!r} holds no trial {name} that runs, trials.csv does;\n"
                "go on with --resume, which brings the two into step"
            )
        self._take_up(left)

    def _take_up(self, left: FrozenTrial) -> str:
        live = private_api.resume_trial(self._study, self._storage, left.number)
        if NAME not in left.user_attrs:
            suggest(live, self._spec)  # a given point gets its id when its configuration is whole, too
        name = self._register(live, left.intermediate_values)
        self._unfinished.remove(left)
        return name


def _key(config: TrialConfig) -> str:
    return config.stable_hash()


def _shape(spec: SweepSpec) -> str:
    shape = spec.model_dump_json(include=set(SHAPED_BY))
    if any(parameter.ordered and not _is_ascending(parameter.choices()) for parameter in spec.parameters.values()):
        shape += "ordered as written"  # 0.1.0 numbered them in ascending order: its study holds other places
    return hashlib.sha256(shape.encode()).hexdigest()[:16]


def _is_ascending(values: Sequence[Any]) -> bool:
    return list(values) == sorted(values)


def _told(point: Mapping[str, Any]) -> str:
    return json.dumps(dict(point), sort_keys=True)


def _is_tried(point: Mapping[str, Any], spec: SweepSpec, tried: Mapping[str, TrialConfig]) -> bool:
    """Whether a point that leaves nothing open is a trial's configuration, its seed set aside."""
    whole: dict[str, Any] = {}
    for name in search_space.search_order(spec.parameters):
        if search_space.active(spec.parameters, name, whole):
            parameter = spec.parameters[name]
            if name not in point and (parameter.distribution is not None or len(parameter.choices()) > 1):
                return False
            whole[name] = point[name] if name in point else parameter.choices()[0]
    config = TrialConfig(**whole)
    return any(config == one.model_copy(update={"seed": config.seed}) for one in tried.values())


def _names(trials: Iterable[FrozenTrial]) -> list[str]:
    return [str(trial.user_attrs[NAME]) for trial in trials if NAME in trial.user_attrs]


def _suggest_one(trial: optuna.trial.BaseTrial, name: str, parameter: search_space.Parameter) -> Any:
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
