"""The importance of parameters for being among the best trials of a sweep, by Optuna's PED-ANOVA."""

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
"""Least number of trials that count as the best: PED-ANOVA is not stable with fewer, according to Optuna."""
TOP_SHARE = 0.1
"""Share of all trials that count as the best, if that is more than `TOP`."""


def importances(folder: RunFolder) -> dict[str, float]:
    """Return the importance of each parameter of a sweep, also while it runs. The study is only read.

    PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255; with conditional parameters as Optuna 5 has it) compares the
    distribution of the best trials with that of all trials. Optuna itself uses COMPLETE trials alone, which under early
    stopping are the good ones only: here a PRUNED trial counts too, with the best value that it reached.

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
    except Exception as error:  # damaged, locked, or of another Optuna: only the importances are left out
        problem = one_line(error.__cause__ or error, 120)
        log.warning("note: %s: cannot be read, so the report has no importances: %s", file, problem)
        return {}


def of_study(study: optuna.Study) -> dict[str, float]:
    """Return the importance of each parameter of an open study, as `importances` does."""
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
    with warnings.catch_warnings():  # a parameter was used too rarely
        warnings.simplefilter("ignore")
        shares = get_param_importances(copy, evaluator=evaluator)
    return {key.removesuffix(INDEX): float(share) for key, share in sorted(shares.items(), key=lambda pair: -pair[1])}


def _value(trial: FrozenTrial) -> float | None:
    """Return the value of a trial: if it was stopped early, the best reported value, which is the last one."""
    if trial.state not in {TrialState.COMPLETE, TrialState.PRUNED}:
        return None
    value = trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step or 0)
    return value if value is not None and math.isfinite(value) else None


def _varied(trials: list[FrozenTrial]) -> set[str]:
    """Return the parameters that differ between trials."""
    values_by_key: dict[str, set[object]] = {}
    for trial in trials:
        for key, value in trial.params.items():
            values_by_key.setdefault(key, set()).add(value)
    return {key for key, values in values_by_key.items() if len(values) > 1}
