"""Sweep files in the spellings of W&B, Optuna and Ray Tune."""

from pathlib import Path

import pytest
from sweep_files import SMALL, loaded, refusal


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        ("method: bayes", "method: gp"),
        ("run_cap: 7", "trials: 7"),
        ("parameters: {dropout: {distribution: constant, value: 0.1}}", "parameters: {dropout: {value: 0.1}}"),
        (
            "parameters: {dropout: {distribution: categorical, values: [0, 0.1]}}",
            "parameters: {dropout: {values: [0, 0.1]}}",
        ),
        (
            "parameters: {learning_rate: {distribution: log_uniform_values, min: 0.001, max: 0.1}}",
            "parameters: {learning_rate: {distribution: log_uniform, min: 0.001, max: 0.1}}",
        ),
        (
            "parameters: {batch_size: {distribution: loguniform, min: 4, max: 64}}",
            "parameters: {batch_size: {distribution: int_log_uniform, min: 4, max: 64}}",
        ),
    ],
)
def test_a_foreign_spelling_of_the_same_is_read(tmp_path: Path, foreign: str, ours: str) -> None:
    rest = "" if "parameters" in foreign else "\nparameters: {epochs: {value: 1}}"
    assert loaded(tmp_path, foreign + rest) == loaded(tmp_path, ours + rest)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("early_terminate: {type: hyperband, min_iter: 3}", "here: early_stop: {type: asha, grace_epochs: <min_iter>"),
        ("project: retina", "unknown key 'project'; leave it out"),
        ("num_samples: 5", "unknown key 'num_samples'; here: trials"),
        ("image_size: 64", "unknown key 'image_size'; here: data: {image_size: ...}"),
        ("epochs: 5", "unknown key 'epochs'; here: parameters: {epochs: {value: ...}}"),
        ("  lr: {value: 0.1}", "unknown parameter 'lr'; did you mean 'learning_rate'?"),
        ("  dropout: {min: 0.1, max: 0.2}", "min and max go with distribution: uniform"),
        ("  dropout: {distribution: q_uniform, min: 0, max: 0.5, q: 0.1}", "unknown key 'q'; here: step"),
        ("  dropout: {distribution: quniform, min: 0, max: 0.5}", "nearest here: uniform with a step"),
        ("  dropout: {distribution: normal}", "'normal' is not known; nearest here: uniform or log_uniform"),
        ("  batch_size: {distribution: randint, min: 4, max: 64}", "nearest here: int_uniform, which includes max"),
        ("  dropout: {parameters: {a: {value: 1}}}", "parameters are not nested here"),
        ("  learning_rate: {distribution: log_uniform, min: -9, max: -2}", "x.yaml:5: parameters.learning_rate: -9"),
    ],
)
def test_a_foreign_spelling_of_something_else_is_answered_with_ours(tmp_path: Path, line: str, message: str) -> None:
    result = refusal(tmp_path, SMALL + line + "\n")
    assert message in result
    assert result.startswith("x.yaml:5: ")
