"""Sweep files: what is read, what is refused, and in which words."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from retina.config import DataConfig, search_space
from retina.config.sweep import SweepSpec, load, parse_recorded
from retina.errors import SpecError

FILE = """
name: small
data: {path: synthetic, image_size: 64}
trials: 5
parameters:
  pretrained:    {value: false}
  batch_size:    {values: [8, 4, 16], ordered: true}
  learning_rate: {distribution: log_uniform, min: 1e-5, max: 1e-1}
  epochs:        {values: [2, 4]}
  optimizer:     {values: [sgd, adamw]}
  momentum:      {distribution: uniform, min: 0.8, max: 0.99, when: {optimizer: sgd}}
start:
  - {batch_size: 8, learning_rate: 1e-3, optimizer: sgd, momentum: 0.9}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(FILE)
    return path


def test_numbers_with_an_exponent_are_numbers(file: Path) -> None:
    rate = load(file).parameters["learning_rate"]
    assert (rate.min, rate.max) == (1e-5, 1e-1)
    assert load(file).start[0]["learning_rate"] == 1e-3


def test_values_keep_the_order_in_which_they_are_written_also_ordered_ones(file: Path) -> None:
    spec = load(file)
    assert spec.parameters["batch_size"].choices() == [8, 4, 16]
    assert spec.parameters["optimizer"].choices() == ["sgd", "adamw"]


def test_defaults_are_filled_in(file: Path) -> None:
    spec = load(file)
    assert (spec.method, spec.metric.name, spec.metric.goal, spec.early_stop.type) == (
        "gp",
        "val_qwk",
        "maximize",
        "asha",
    )
    assert (spec.planned_trials, spec.max_epochs, spec.keep.trials) == (5, 4, 3)


def test_a_loss_is_minimised_without_being_told(file: Path) -> None:
    spec = load(file, overrides=["metric={name: val_loss}"])
    assert spec.metric.goal == "minimize"
    assert spec.metric.sign == -1


def test_a_path_can_stand_in_for_what_is_no_mapping(file: Path) -> None:
    assert load(file, overrides=["data=text"], data="elsewhere").data.path == "elsewhere"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("\n  - image_size: 512", "[{'image_size': 512}] (x.yaml:2)"),
        (" [/photos]", "['/photos'] (x.yaml:2)"),
        (" 5", "5 (x.yaml:2)"),
        (" false", "False (x.yaml:2)"),
    ],
)
def test_a_path_drops_nothing_that_stands_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("x.yaml")
    file.write_text(f"parameters: {{epochs: {{value: 2}}}}\ndata:{data}\n")
    with pytest.raises(SpecError) as error:
        load(file, data="/photos")
    assert str(error.value) == f"--data /photos: data is {shown}, not a mapping of keys"
    for empty in ("data:\n", ""):
        file.write_text(f"parameters: {{epochs: {{value: 2}}}}\n{empty}")
        assert load(file, data="/photos").data.path == "/photos"


def test_aliases_that_nest_too_deeply_are_refused(tmp_path: Path) -> None:
    file, deep = tmp_path / "x.yaml", 37
    links = [f"x{n}: &x{n} {'[' * deep}{f'*x{n - 1}' if n else 1}{']' * deep}" for n in range(40)]
    file.write_text("\n".join(["parameters: {epochs: {value: 2}}", *links]))
    with pytest.raises(SpecError) as error:
        load(file)
    assert str(error.value) == f"{file}:2: is nested more than 40 levels deep after its aliases are expanded"
    file.write_text(f"parameters: {{epochs: {{value: 2}}}}\na: &a {'[' * 20}{']' * 20}\nb: {'[' * 19}*a{']' * 19}\n")
    with pytest.raises(SpecError, match="unknown key 'a'"):  # 40 deep it is read
        load(file)


def test_the_written_sweep_can_be_read_again(file: Path, tmp_path: Path) -> None:
    spec = load(file)
    again = tmp_path / "again.yaml"
    again.write_text(spec.to_yaml())
    assert load(again) == spec
    assert load(again).to_yaml() == spec.to_yaml()
    assert load(again).stable_hash() == spec.stable_hash()


def test_the_name_is_the_files_where_none_is_given(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("parameters: {epochs: {value: 2}}")
    assert load(file).name == "mine"


def test_options_replace_what_the_file_says(file: Path) -> None:
    spec = load(file, data="elsewhere", name="other", trials=9)
    assert (spec.data.path, spec.data.layout, spec.name, spec.planned_trials) == ("elsewhere", "auto", "other", 9)
    assert spec.data.image_size == 64  # the rest of data stays


@pytest.mark.parametrize(
    ("override", "check"),
    [
        ("data.image_size=96", lambda spec: spec.data.image_size == 96),
        ("parameters.batch_size.values=[4, 8]", lambda spec: spec.parameters["batch_size"].choices() == [4, 8]),
        ("parameters.epochs={value: 3}", lambda spec: spec.max_epochs == 3),
        ("parameters.epochs.value=7", lambda spec: spec.max_epochs == 7),
        ("parameters.dropout={values: [0, 0.5]}", lambda spec: spec.parameters["dropout"].choices() == [0.0, 0.5]),
        ("budget.hours=1e-2", lambda spec: spec.budget.hours == 0.01),
        ("start=[]", lambda spec: spec.start == []),
        ("data.synthetic.photographs=40", lambda spec: spec.data.synthetic.photographs == 40),
    ],
)
def test_set_changes_anything(file: Path, override: str, check) -> None:
    assert check(load(file, overrides=[override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.imge_size=64", "unknown key 'data.imge_size'; did you mean 'image_size'?"),
        ("budgt.hours=1", "unknown key 'budgt'; did you mean 'budget'?"),
        ("data.synthetic.foto=1", "unknown key 'data.synthetic.foto'; known: photographs, size, proportions, seed"),
        (
            "parameters.lerning_rate.value=1",
            "parameters: unknown parameter 'lerning_rate'; did you mean 'learning_rate'?",
        ),
        ("parameters.epochs.value=ten", "parameters.epochs: 'ten' should be a valid integer"),
        ("parameters.batch_size.values=[0, 8]", "parameters.batch_size: 0 should be greater than or equal to 1"),
        ("parameters.batch_size.values=[]", "parameters.batch_size: values: an empty list leaves nothing to try"),
        ("parameters.batch_size.values=[8, 8]", "parameters.batch_size: values: [8, 8] has one value twice"),
        ("parameters.optimizer.values=[sgd, lion]", "parameters.optimizer: 'lion' should be 'sgd', 'adam' or 'adamw'"),
        ("parameters.learning_rate.min=0", "parameters.learning_rate: 0 should be greater than 0"),
        ("parameters.learning_rate.min=1", "parameters.learning_rate: min 1 is not below max 0.1"),
        ("parameters.learning_rate.step=1e-5", "parameters.learning_rate: log_uniform has no steps"),
        ("parameters.learning_rate={distribution: log_uniform, min: 1e-3}", "log_uniform needs min and max"),
        ("parameters.epochs={}", "parameters.epochs: needs one of value, values, distribution; has none of them"),
        ("parameters.epochs={value: 2, values: [2]}", "needs one of value, values, distribution; has value, values"),
        ("parameters.epochs={value: 2, min: 1}", "parameters.epochs: min goes with distribution only"),
        ("parameters.epochs={value: 2, ordered: true}", "parameters.epochs: ordered goes with values only"),
        ("parameters.momentum.when={optimiser: sgd}", "no parameter 'optimiser'; did you mean 'optimizer'?"),
        ("parameters.momentum.when={optimizer: adam}", "optimizer is never 'adam'; allowed: one of ['sgd', 'adamw']"),
        ("parameters.optimizer.when={momentum: 0.9}", "the when conditions of optimizer, momentum form a cycle"),
        ("start=[{batch_size: 12}]", "start: point 1: batch_size: 12 is outside the space; allowed: one of [8, 4, 16]"),
        (
            "start=[{learning_rate: 1}]",
            "start: point 1: learning_rate: 1.0 is outside the space; allowed: 1e-05 to 0.1",
        ),
        ("start=[{dropout: 0.5}]", "start: point 1: dropout is not among the parameters"),
        ("start=[{optimizer: adamw, momentum: 0.9}]", "momentum is searched only when {'optimizer': 'sgd'}"),
        ("parameters.pretrained={distribution: uniform, min: 0, max: 1}", "parameters.pretrained: is not a number, so"),
        ("parameters={1: {value: 2}}", "parameters: unknown parameter 1; known: arch"),
        ("parameters.dropout={distribution: uniform, min: '-1', max: 0.5}", "parameters.dropout: '-1' should be"),
        ("metric={name: [val_qwk]}", "metric.name"),
        ("seed=4294967296", "seed: 4294967296: should be less than 4294967296"),
        ("data=5", "data: 5:"),
        ("method=grid", "a range has no grid; give values, or choose another method"),
        ("method=bohb", "method: 'bohb': should be 'tpe', 'gp', 'random' or 'grid'"),
        ("metric={name: val_loss, goal: maximize}", "goal: 'maximize' does not go with val_loss; allowed: minimize"),
        ("resources.gpu=1.5", "gpu: 1.5 is more than one and not a whole number"),
        ("resources.gpu=1e-310", "gpu: 1e-310 is less than Ray can allocate; allowed: 0, or 0.0001 and more"),
        ("resources.gpu=0.00009", "gpu: 9e-05 is less than Ray can allocate; allowed: 0, or 0.0001 and more"),
        ("name=../up", "name: '../up'"),
        ("trials=0", "trials: 0: should be greater than or equal to 1"),
        ("data.validation=0.9", "data: validation + test is 1.05"),
        ("parameters.epochs=3", "a parameter is written as a mapping, such as parameters.epochs={value: 3}"),
        ("epochs", "--set epochs: allowed: KEY=VALUE, such as data.image_size=64"),
        ("data.path=[", "--set data.path=[: not valid YAML"),
    ],
)
def test_mistakes_are_named(file: Path, override: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        load(file, overrides=[override])
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("text", ["- 1", "just words", "a: [", "parameters: {}", "name: x"])
def test_what_is_no_sweep_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(SpecError, match=r"x\.yaml"):
        load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yaml: No such file"):
        load(tmp_path / "nowhere.yaml")


def test_a_grid_leaves_out_what_its_conditions_rule_out() -> None:
    spec = SweepSpec(
        name="g",
        method="grid",
        parameters={
            "momentum": {"values": [0.8, 0.9], "when": {"optimizer": "sgd"}},
            "optimizer": {"values": ["sgd", "adamw"]},
        },
    )
    assert search_space.grid_points(spec.parameters) == [
        {"optimizer": "sgd", "momentum": 0.8},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adamw"},
    ]
    assert spec.planned_trials == 3


def test_conditions_nest() -> None:
    spec = SweepSpec(
        name="n",
        parameters={
            "dropout": {"values": [0.1, 0.2], "when": {"head_layers": 3}},
            "head_layers": {"values": [2, 3], "when": {"arch": ["resnet50"]}},
            "arch": {"values": ["resnet18", "resnet50"]},
        },
    )
    assert search_space.search_order(spec.parameters) == ["arch", "head_layers", "dropout"]
    assert not search_space.is_active(spec.parameters, "head_layers", {"arch": "resnet18"})
    assert not search_space.is_active(spec.parameters, "dropout", {"arch": "resnet18"})
    assert search_space.is_active(spec.parameters, "dropout", {"arch": "resnet50", "head_layers": 3})


@given(
    low=st.integers(1, 50),
    width=st.integers(1, 50),
    step=st.integers(1, 10),
    value=st.integers(0, 120),
)
def test_a_range_admits_its_steps_and_nothing_else(low: int, width: int, step: int, value: int) -> None:
    high = low + width * step
    parameter = search_space.Parameter(distribution="int_uniform", min=low, max=high, step=step)
    assert parameter.contains(value) == (value in range(low, high + 1, step))
    assert not parameter.contains(value + 0.5)
    assert not parameter.contains(True)


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml")), ids=lambda f: f.name)
def test_the_sweeps_that_we_ship_are_right(file: Path) -> None:
    spec = load(file)
    assert spec.name == file.stem
    head = file.read_text().splitlines()[0]
    assert head.startswith(f"# python tune_main.py --space sweeps/{file.name}")
    assert yaml.safe_load(spec.to_yaml())["parameters"]
    assert _hash_at_0_1_0(spec) == AT_0_1_0[file.stem]


ADDED_SINCE = {
    "image_folder",
    "image_column",
    "grade_column",
    "patient_column",
    "eye_column",
    "grade_mapping",
    "join_duplicates",
}


def _hash_at_0_1_0(spec: SweepSpec) -> str:
    """What `stable_hash` gave before these keys were there; their defaults are all that the file has."""
    values = spec.model_dump(mode="json")
    default = DataConfig().model_dump(mode="json")
    for name in ADDED_SINCE:
        assert values["data"].pop(name) == default[name]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


AT_0_1_0 = {
    "comparison": "3e7b251c3b93",
    "demo": "321cf7edf26d",
    "idrid": "fd8cedd94faf",
    "resnet18": "658829166ed5",
    "resnet50": "3f0e5a1d4960",
    "retinamnist": "8d4f08ba498c",
}
"""What version 0.1.0 made of the same files."""


@pytest.mark.parametrize("stop", ["asha", "none"])
def test_a_reduction_that_the_readers_of_our_own_file_refuse_is_refused(file: Path, stop: str) -> None:
    said = "early_stop.eta: 1.00005; allowed: 1.0001 and more"
    with pytest.raises(SpecError, match=re.escape(said)):
        load(file, overrides=["early_stop.eta=1.00005", "early_stop.grace_epochs=3", f"early_stop.type={stop}"])
    least = load(file, overrides=["early_stop.eta=1.0001", f"early_stop.type={stop}"])
    assert parse_recorded(yaml.safe_load(least.to_yaml()), "") == least


def test_more_trials_than_can_be_kept_are_refused_where_they_stand(file: Path) -> None:
    with pytest.raises(SpecError, match=r"trials: 1000001: should be less than or equal to 1000000"):
        load(file, trials=1_000_001)
