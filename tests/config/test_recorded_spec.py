"""The sweep.yaml of a results folder: read as any version wrote it, refused where it is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retina.config import DataConfig, SweepSpec, TrialConfig
from retina.config.sweep import EarlyStop
from retina.errors import ResultsError
from retina.results.run_folder import SPEC_REMEDY, RunFolder
from retina.sweep.scheduler import ResumableASHAScheduler

SPEC = SweepSpec.model_validate(
    {
        "name": "demo",
        "data": {"path": "eyes", "layout": "folders", "image_size": 64},
        "metric": {"name": "val_loss"},
        "method": "tpe",
        "trials": 7,
        "early_stop": {"grace_epochs": 2, "eta": 2},
        "parameters": {
            "optimizer": {"values": ["sgd", "adamw"]},
            "momentum": {"distribution": "uniform", "min": 0.8, "max": 0.99, "when": {"optimizer": "sgd"}},
            "epochs": {"distribution": "int_uniform", "min": 4, "max": 9},
        },
    }
)


def folder(root: Path, values: Any) -> RunFolder:
    (root / "sweep.yaml").write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    return RunFolder(root)


def values() -> dict[str, Any]:
    """The content of the sweep.yaml of `SPEC`."""
    content: dict[str, Any] = yaml.safe_load(SPEC.to_yaml())
    return content


def refused(root: Path, content: Any) -> str:
    with pytest.raises(ResultsError) as caught:
        folder(root, content).spec()
    message = str(caught.value)
    assert message.startswith(f"{root / 'sweep.yaml'}: ")
    assert message.endswith(f";\n{SPEC_REMEDY}")
    assert len(message.splitlines()) <= 3
    return message


def test_a_metric_that_is_missing_is_not_guessed(tmp_path: Path) -> None:
    """By a default, a sweep that minimizes its loss would be ranked by another metric in the other direction."""
    content = values()
    content["metrik"] = content.pop("metric")
    assert "metric: is required" in refused(tmp_path, content)


def test_what_a_sweep_writes_is_read_back(tmp_path: Path) -> None:
    spec = folder(tmp_path, SPEC.to_yaml()).spec()
    assert spec == SPEC
    assert (spec.metric.sign, spec.max_epochs, spec.rungs()) == (-1, 9, [2, 4, 8])
    assert folder(tmp_path, SPEC.to_yaml()).data_config() == DataConfig(path="eyes", layout="folders", image_size=64)


def test_keys_that_this_version_does_not_know_are_ignored(tmp_path: Path) -> None:
    other = values()
    other["pruner"] = {"type": "other"}
    other["data"]["rotate"] = 90
    other["data"]["synthetic"]["hue"] = 1
    other["early_stop"]["patience"] = 3
    other["parameters"]["momentum"]["prior"] = "flat"
    other["parameters"]["momentum"]["when"]["trunk"] = "large"
    other["parameters"]["trunk"] = {"values": ["small", "large"]}
    assert folder(tmp_path, other).spec() == SPEC


def test_keys_that_are_missing_get_their_defaults(tmp_path: Path) -> None:
    content = {"metric": {"name": "val_loss"}, "parameters": {"dropout": {"values": [0, 0.5]}}}
    spec = folder(tmp_path, content).spec()
    assert (spec.metric.goal, spec.metric.sign) == ("minimize", -1)
    assert (spec.trials, spec.max_epochs) == (None, TrialConfig().epochs)
    assert spec.early_stop == EarlyStop()
    assert "data" not in spec.model_fields_set


def test_what_only_a_new_sweep_must_not_ask_for_is_read(tmp_path: Path) -> None:
    old = values()
    old["trials"] = 2_000_000
    old["metric"]["target"] = -3
    old["start"] = [{"momentum": 0.1, "optimizer": "adamw"}]
    old["parameters"]["momentum"]["step"] = 0.04
    spec = folder(tmp_path, old).spec()
    assert (spec.trials, spec.metric.target, spec.start) == (2_000_000, -3, old["start"])


def test_parameters_are_required_unless_a_reader_can_do_without(tmp_path: Path) -> None:
    for content in ("metric: {name: val_qwk}\n", "metric: {name: val_qwk}\nparameters: {}\n"):
        assert "parameters: " in refused(tmp_path, content)
        assert folder(tmp_path, content).spec(allow_no_parameters=True).parameters == {}


def test_photographs_that_are_not_named_are_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"sweep\.yaml: data: is required"):
        folder(tmp_path, "name: demo\n").data_config()
    assert folder(tmp_path, "data: {path: eyes}\n").data_config().path == "eyes"


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        (("metric", "name"), "loss", ": metric.name: 'loss': should be 'val_qwk'"),
        (("metric", "goal"), "maximize", "goal: 'maximize' does not go with val_loss; allowed: minimize"),
        (("trials",), 0, ": trials: 0: should be greater than or equal to 1"),
        (("trials",), True, ": trials: True: should be a number"),
        (("early_stop", "eta"), 1.00001, "early_stop.eta: 1.00001; allowed: 1.0001 and more"),
        (("early_stop", "grace_epochs"), "x", ": early_stop.grace_epochs: 'x': should be a valid integer"),
        (("data", "image_size"), 3, ": data.image_size: 3: should be greater than or equal to 16"),
        (("data",), [1], ": data: [1]: should hold keys and their values"),
        (("parameters", "epochs"), {"values": [3, 0]}, "parameters.epochs: 0 should be greater than or equal to 1"),
        (("parameters", "epochs"), {"values": []}, "values: an empty list leaves nothing to try"),
        (("parameters", "momentum", "min"), 0.995, "min 0.995 is not below max 0.99"),
        (("parameters", "momentum", "when"), {"optimizer": "adam"}, "optimizer is never 'adam'"),
    ],
)
def test_a_damaged_value_is_refused_by_line_and_key(
    tmp_path: Path, key: tuple[str, ...], value: Any, problem: str
) -> None:
    content = values()
    holder = content
    for part in key[:-1]:
        holder = holder[part]
    holder[key[-1]] = value
    message = refused(tmp_path, content)
    assert problem in message
    assert message.startswith(f"{tmp_path / 'sweep.yaml'}: line ")


@settings(max_examples=60, deadline=None)
@example(1, 1.001, 3, "asha")
@example(1, 3.0, 27, "asha")
@example(1, 3.0, 28, "asha")
@example(5, 3.0, 5, "asha")
@example(1, 2.0, 9, "none")
@given(
    st.integers(1, 9),
    st.sampled_from([1.05, 1.1, 1.5, 2.0, 2.5, 3.0, 4.0, 10.0]),
    st.integers(1, 250),
    st.sampled_from(["asha", "none"]),
)
def test_the_rungs_are_those_of_the_scheduler(grace: int, eta: float, longest: int, stop: str) -> None:
    spec = SweepSpec.model_validate(
        {
            "name": "demo",
            "parameters": {"epochs": {"value": longest}},
            "early_stop": {"type": stop, "grace_epochs": grace, "eta": eta},
        }
    )
    assert spec.rungs() == [rung.epoch for rung in ResumableASHAScheduler(spec).current_rungs()]
    assert spec.rungs() == sorted(spec.rungs())
    assert all(grace <= epoch <= longest for epoch in spec.rungs())
