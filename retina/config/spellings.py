"""Spellings of W&B, Optuna and Ray Tune: accepted where they have exactly one equivalent here, else explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retina.config.data import DataConfig
from retina.config.trial import TrialConfig
from retina.config.validation import SettingError, suggest

METHODS = {"bayes": "gp"}
"""W&B's `bayes` is a search by Gaussian process (https://docs.wandb.ai/guides/sweeps/sweep-config-keys)."""
DISTRIBUTIONS = {"log_uniform_values": "log_uniform", "loguniform": "log_uniform"}
"""W&B's log_uniform_values and Ray Tune's loguniform: min and max are the values themselves, as in `log_uniform`."""
VALUE_KEYS = {"constant": "value", "categorical": "values", "choice": "values"}
"""Distributions that only state that there is a value or a list of values, with the key that holds it."""

_NORMAL = "uniform or log_uniform from min to max; there is no normal or beta distribution here"
_INT = "int_uniform, which includes max"
_STEPS = "uniform with a step, counted from min"
_LOG_STEPS = "log_uniform, or {values: [...], ordered: true}"
_EQUIVALENTS = {
    **dict.fromkeys(("normal", "q_normal", "log_normal", "q_log_normal", "beta", "q_beta", "randn", "qrandn"), _NORMAL),
    **dict.fromkeys(("q_uniform", "quniform", "discrete_uniform"), _STEPS),
    **dict.fromkeys(("q_log_uniform", "q_log_uniform_values", "qloguniform"), _LOG_STEPS),
    **dict.fromkeys(("inv_log_uniform", "inv_log_uniform_values"), "log_uniform"),
    **dict.fromkeys(("int", "integer", "randint", "qrandint", "q_int_uniform"), _INT),
    **dict.fromkeys(("logint", "lograndint", "qlograndint"), "int_log_uniform, which includes max"),
    **dict.fromkeys(("float", "double"), "uniform"),
    **dict.fromkeys(("log", "logfloat"), "log_uniform"),
    **dict.fromkeys(("grid", "grid_search", "categorical_w_probabilities"), "{values: [...]}, all equally likely"),
}
_LEAVE_OUT = "leave it out: results are written to results/<name>, and the command that reads this file is what runs"
_SWEEP_KEYS = {
    **dict.fromkeys(("program", "command", "project", "entity"), _LEAVE_OUT),
    "description": "write it as a comment: # ...",
    "early_terminate": "here: early_stop: {type: asha, grace_epochs: <min_iter>, eta: <eta>}",
    **dict.fromkeys(("pruner", "scheduler", "early_stopping"), "here: early_stop"),
    **dict.fromkeys(("num_samples", "n_trials", "max_trials", "num_trials", "count", "run_cap"), "here: trials"),
    **dict.fromkeys(("timeout", "hours", "max_hours", "time_budget_s"), "here: budget: {hours: ...}"),
    **dict.fromkeys(("sampler", "search_alg", "algorithm"), "here: method"),
    **dict.fromkeys(("objective", "direction", "mode", "goal"), "here: metric: {name: ..., goal: ...}"),
    **dict.fromkeys(("space", "search_space", "config", "params", "hyperparameters"), "here: parameters"),
    **dict.fromkeys(("dataset", "path"), "here: data: {path: ...}"),
    **{name: f"here: data: {{{name}: ...}}" for name in DataConfig.model_fields if name != "seed"},
    **{name: f"here: parameters: {{{name}: {{value: ...}}}}" for name in TrialConfig.model_fields if name != "seed"},
}
_PARAMETER_KEYS = {
    "q": "here: step",
    **dict.fromkeys(("low", "lower", "minimum"), "here: min"),
    **dict.fromkeys(("high", "upper", "maximum"), "here: max"),
    **dict.fromkeys(("choices", "categories", "options", "grid_search", "categorical", "list"), "here: values"),
    **dict.fromkeys(("default", "constant"), "here: value"),
    **dict.fromkeys(("type", "dist"), "here: distribution"),
    "log": "here: distribution: log_uniform",
    "probabilities": "leave it out: all values are equally likely",
    **dict.fromkeys(("mu", "sigma", "mean", "std"), _NORMAL),
    "parameters": "parameters are not nested here: name the setting itself, such as learning_rate",
    "condition": "here: when",
}
_SETTINGS = {
    **dict.fromkeys(("lr", "rate", "eta0", "base_lr", "init_lr"), "learning_rate"),
    **dict.fromkeys(("bs", "batch", "batchsize", "train_batch_size"), "batch_size"),
    **dict.fromkeys(("wd", "decay", "l2"), "weight_decay"),
    **dict.fromkeys(("model", "architecture", "network", "backbone", "net", "encoder"), "arch"),
    **dict.fromkeys(("opt", "optim"), "optimizer"),
    **dict.fromkeys(("n_epochs", "num_epochs", "max_epochs", "epoch", "num_train_epochs"), "epochs"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedule"), "schedule"),
    **dict.fromkeys(("criterion", "loss_fn", "objective"), "loss"),
    **dict.fromkeys(("aug", "augment", "augmentations", "transforms"), "augmentation"),
    **dict.fromkeys(("pretrain", "weights", "imagenet"), "pretrained"),
    **dict.fromkeys(("dropout_rate", "p_dropout", "drop_rate"), "dropout"),
    "random_seed": "seed",
}


def normalize_sweep(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sweep file's top level with its method as this package spells it.

    Raises:
        SettingError: a key of another library that is not known here; names the equivalent.
    """
    for name in values:
        if isinstance(name, str) and name in _SWEEP_KEYS and name not in {"data", "parameters"}:
            raise SettingError(f"unknown key {name!r}; {_SWEEP_KEYS[name]}", name)
    method = values.get("method")
    return {**values, "method": METHODS[method]} if isinstance(method, str) and method in METHODS else {**values}


def normalize_parameter(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one parameter with its distribution as this package spells it.

    Raises:
        SettingError: a key or distribution of another library that has another or no meaning here; names the
            equivalent.
    """
    path = ("parameters", name)
    for key in values:
        if isinstance(key, str) and key in _PARAMETER_KEYS:
            raise SettingError(f"parameters.{name}: unknown key {key!r}; {_PARAMETER_KEYS[key]}", *path, key)
    known = dict(values)
    distribution = known.get("distribution")
    if not isinstance(distribution, str):
        return known
    if distribution in _EQUIVALENTS:
        equivalent = _EQUIVALENTS[distribution]
        problem = f"parameters.{name}: distribution: {distribution!r} is not known; nearest here: {equivalent}"
        raise SettingError(problem, *path, "distribution")
    if VALUE_KEYS.get(distribution) in known:
        del known["distribution"]
    elif distribution in VALUE_KEYS:
        problem = f"parameters.{name}: distribution: {distribution!r} needs {VALUE_KEYS[distribution]}"
        raise SettingError(problem, *path, "distribution")
    else:
        known["distribution"] = DISTRIBUTIONS.get(distribution, distribution)
    return known


def suggest_setting(word: str) -> str:
    """Return a hint that names the setting of a trial that `word` probably means; otherwise all settings."""
    setting = _SETTINGS.get(word.lower().replace("-", "_"))
    return f"did you mean {setting!r}?" if setting else suggest(word, list(TrialConfig.model_fields))
