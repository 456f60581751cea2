"""Configurations: checked on the way in, frozen after, the same hash everywhere, mistakes said in plain words."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from retina.config import DataConfig, SyntheticConfig, TrialConfig, parse
from retina.config.validation import suggest
from retina.errors import SpecError

KNOWN = ", ".join(TrialConfig.model_fields)


def refused(values: Any, model: type[BaseModel] = TrialConfig) -> str:
    with pytest.raises(SpecError) as caught:
        parse(model, values, "x.yaml")
    return str(caught.value)


def test_the_defaults_are_the_reports_settings() -> None:
    report = {"pretrained": True, "head_layers": 2, "dropout": 0.25, "batch_size": 12, "epochs": 10, "momentum": 0.9}
    result = TrialConfig().model_dump()
    assert {key: result[key] for key in report} == report
    assert (result["learning_rate"], result["weight_decay"], result["optimizer"]) == (1e-3, 5e-4, "sgd")


def test_the_hash_is_the_same_on_any_machine() -> None:
    assert TrialConfig().stable_hash() == "3eef35728d35"


def test_the_hash_does_not_follow_pythons_own_seed() -> None:
    code = "from retina.config import DataConfig; print(DataConfig(path='a').stable_hash())"
    result = subprocess.run(  # our own words
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == DataConfig(path="a").stable_hash()


def test_the_hash_follows_values_and_not_how_they_were_written() -> None:
    assert TrialConfig(learning_rate=1).stable_hash() == parse(TrialConfig, {"learning_rate": "1.0"}, "x").stable_hash()
    assert DataConfig(synthetic=SyntheticConfig(seed=1)).stable_hash() != DataConfig().stable_hash()


@given(st.integers(1, 99), st.integers(1, 99))
def test_equal_hashes_mean_equal_values(one: int, other: int) -> None:
    hashes = [TrialConfig(batch_size=size).stable_hash() for size in (one, other)]
    assert (hashes[0] == hashes[1]) == (one == other)


def test_numbers_may_be_written_as_yaml_reads_them() -> None:
    assert parse(TrialConfig, {"learning_rate": "1e-5", "epochs": 5.0}, "x") == TrialConfig(
        learning_rate=1e-5, epochs=5
    )


def test_nothing_can_be_changed_afterwards() -> None:
    config = DataConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.image_size = 64
    with pytest.raises(ValidationError, match="frozen"):
        config.synthetic.seed = 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learning_rte": 1}, "x.yaml: unknown key 'learning_rte'; did you mean 'learning_rate'?"),
        ({"zzz": 1}, f"x.yaml: unknown key 'zzz'; known: {KNOWN}"),
        ({"epochs": "ten"}, "x.yaml: epochs: 'ten': should be a valid integer, unable to parse string as an integer"),
        ({"epochs": 2.5}, "x.yaml: epochs: 2.5: should be a valid integer, got a number with a fractional part"),
        ({"epochs": 0}, "x.yaml: epochs: 0: should be greater than or equal to 1"),
        ({"epochs": True}, "x.yaml: epochs: True: should be a number"),
        ({"learning_rate": True}, "x.yaml: learning_rate: True: should be a number"),
        ({"learning_rate": -1}, "x.yaml: learning_rate: -1: should be greater than 0"),
        ({"learning_rate": float("nan")}, "x.yaml: learning_rate: nan: should be a finite number"),
        ({"dropout": 1}, "x.yaml: dropout: 1: should be less than 1"),
        ({"head_layers": 4}, "x.yaml: head_layers: 4: should be 2 or 3"),
        ({"arch": "vgg"}, "x.yaml: arch: 'vgg': should be 'resnet18', 'resnet34', 'resnet50' or 'resnet101'"),
        ({"arch": "a  b"}, "x.yaml: arch: 'a  b': should be 'resnet18', 'resnet34', 'resnet50' or 'resnet101'"),
        ({"pretrained": "may"}, "x.yaml: pretrained: 'may': should be a valid boolean, unable to interpret input"),
        ({"seed": 2**32}, "x.yaml: seed: 4294967296: should be less than 4294967296"),
        ([1], "x.yaml: [1]: should hold keys and their values"),
        (None, "x.yaml: None: should hold keys and their values"),
    ],
)
def test_a_mistake_is_told_word_for_word(values: Any, said: str) -> None:
    assert refused(values) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"synthetic": {"sise": 64}}, "x.yaml: unknown key 'synthetic.sise'; did you mean 'size'?"),
        ({"synthetic": {"size": 3}}, "x.yaml: synthetic.size: 3: should be greater than or equal to 64"),
        ({"synthetic": 3}, "x.yaml: synthetic: 3: should hold keys and their values"),
        (
            {"validation": 0.6, "test": 0.5},
            "x.yaml: validation + test is 1.1; they must leave photographs for training",
        ),
    ],
)
def test_a_mistake_in_a_nested_key_is_told_with_its_path(values: Any, said: str) -> None:
    assert refused(values, DataConfig) == said


def test_many_mistakes_are_told_in_three_lines() -> None:
    said = refused({"a": 1, "epochs": 0, "arch": 1, "dropout": 3}).splitlines()
    assert len(said) == 3
    assert said[2] == "x.yaml: and 2 more"


def test_a_long_value_is_shortened() -> None:
    said = refused({"arch": "x\n" * 3000})
    assert len(said) < 200
    assert "..." in said
    assert "\n" not in said


def test_a_refused_value_is_also_a_value_error() -> None:
    with pytest.raises(ValueError, match="unknown key"):
        parse(DataConfig, {"pth": "x"}, "x.yaml")


def test_the_nearest_word_is_a_hint_only_where_it_is_near() -> None:
    assert suggest("epoch", ["epochs", "seed"]) == "did you mean 'epochs'?"
    assert suggest("q", ["epochs", "seed"]) == "known: epochs, seed"
