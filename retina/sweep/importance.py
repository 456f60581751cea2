"""Which parameters mattered for being among a sweep's best trials, told by Optuna's PED-ANOVA."""

from __future__ import annotations

import logging
import math
import warnings

import optuna
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from retina.errors import one_line
from retina.results.run_folder import RunFolder
from retina.results.status import MIN_TRIALS_FOR_IMPORTANCE
from retina.sweep import study_file
from retina.sweep.study import INDEX
from retina.sweep.study_file import STUDY_FILE

log = logging.getLogger(__name__)

TOP = 5
"""Trials at least that count as the best; PED-ANOVA is not stable with fewer, Optuna says."""
TOP_SHARE = 0.1
"""Of all trials; what the best are where that is more."""


def importances(folder: RunFolder) -> dict[str, float]:
    """How much each parameter mattered in a sweep, also while it runs; its study is only read.

    PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255; with conditional parameters as Optuna 5 has it) compares where
    the best trials lie with where all lie. Optuna itself looks at COMPLETE trials alone, which under early stopping are
    the good ones only: here a PRUNED one counts too, with the best value that it had reached.

    Returns:
        Shares by parameter, adding up to 1, the largest first. Empty where fewer than
        `retina.results.status.MIN_TRIALS_FOR_IMPORTANCE` trials have a value, no parameter differs between them, all
        came to the same value, or there is no readable study.
    """
    file, name = folder.root / STUDY_FILE, folder.metadata().get("study")
    if name is None or not file.is_file():
        return {}
    try:
        study = optuna.load_study(study_name=str(name), storage=study_file.url(file, read_only=True))
        return of_study(study)
    except Exception as error:  # damaged, locked, or of another Optuna: then the page lacks its importances, no more
        problem = one_line(error.__cause__ or error, 120)
        log.warning("note: %s: cannot be read, so the report tells no importances: %s", file, problem)
        return {}


def of_study(study: optuna.Study) -> dict[str, float]:
    """As `importances`, of a study that is open."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if _value(trial) is not None]
    varied = _varied(trials)
    if len(trials) < MIN_TRIALS_FOR_IMPORTANCE or not varied or len({_value(trial) for trial in trials}) == 1:
        return {}
    copy = optuna.create_study(direction=study.direction)  # in memory
    for trial in trials:
        distributions: dict[str, BaseDistribution] = {key: trial.distributions[key] for key in varied & {*trial.params}}
        params = {key: trial.params[key] for key in distributions}
        copy.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=_value(trial)))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(TOP_SHARE, TOP / len(trials)))
    with warnings.catch_warnings():  # that a parameter was used too seldom to tell
        warnings.simplefilter("ignore")
        found = get_param_importances(copy, evaluator=evaluator)
    return {key.removesuffix(INDEX): float(value) for key, value in sorted(found.items(), key=lambda pair: -pair[1])}


def _value(trial: FrozenTrial) -> float | None:
    """What a trial came to: of one that was stopped early the best that it was told of, which is the last."""
    if trial.state not in {TrialState.COMPLETE, TrialState.PRUNED}:
        return None
    told = trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step or 0)
    return told if told is not None and math.isfinite(told) else None


def _varied(trials: list[FrozenTrial]) -> set[str]:
    """The parameters that differ between trials."""
    seen: dict[str, set[object]] = {}
    for trial in trials:
        for key, value in trial.params.items():
            seen.setdefault(key, set()).add(value)
    return {key for key, values in seen.items() if len(values) > 1}
