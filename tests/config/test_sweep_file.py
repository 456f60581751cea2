"""Sweep files as people write them: read as the words say, or refused by line or key."""

import codecs
import math
import warnings
from fractions import Fraction
from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweep_files import SMALL, loaded, refusal

from retina.config import DataConfig, TrialConfig, search_space, yaml_reader
from retina.config.sweep import SweepSpec, load
from retina.errors import SpecError
from retina.results import RunFolder
from retina.sweep import study

ENDS = "distribution: uniform, min: 0, max: 0.5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "trials: 500\n", "x.yaml:5: the key 'trials' is given twice, first in line 2"),
        (SMALL + "  epochs: {value: 2}\n", "x.yaml:5: the key 'parameters.epochs' is given twice, first in line 4"),
        (
            SMALL + "  dropout: {value: 0, value: 0.5}\n",
            "x.yaml:5: the key 'parameters.dropout.value' is given twice in",
        ),
        (SMALL + "'trials': 3\n", "x.yaml:5: the key 'trials' is given twice"),
        (SMALL + "start:\n- {epochs: 1}\n- epochs: 1\n  epochs: 2\n", "x.yaml:8: the key 'start.1.epochs'"),
        (SMALL + "data: {<<: {seed: 1}, <<: {seed: 2}}\n", "x.yaml:5: the key 'data.<<' is given twice"),
        ("", "x.yaml: is empty"),
        ("# nothing\n", "x.yaml: is empty"),
        ("- 1\n- 2\n", "x.yaml: is not a sweep file"),
        (SMALL + "---\n" + SMALL, "x.yaml:5: a second document begins (---)"),
        (SMALL + "data:\n\tpath: x\n", "x.yaml:6: not valid YAML: found character '\\t'"),
        (SMALL + 'data: {path: "\\0"}\n', "x.yaml:5: data.path: "),
        (SMALL + "data: &d {path: *d}\n", "x.yaml:5: an alias is inside its own anchor"),
        (SMALL + "data: !!python/object/apply:os.system [ls]\n", "x.yaml:5: the tag '!!python/object/apply:os.system'"),
        (SMALL + "seed: " + "9" * 5000, "x.yaml:5: the number '9999"),
        (SMALL + "budget: {hours: 1e999}", "x.yaml:5: the number '1e999' is too large or too small"),
        (SMALL + "data: " + "[" * 3000, "x.yaml:5: is nested more than 40 levels deep"),
        (SMALL + "1: x\n", "x.yaml:5: "),
        (SMALL + "? [a]\n: x\n", "x.yaml:5: a list or mapping cannot be a key"),
        (
            "name: 2026\n" + SMALL[12:],
            "x.yaml:1: name: 2026: should be text; write text that looks like something else",
        ),
        (SMALL + "budget: {hours: 1:30}\n", "x.yaml:5: budget.hours: '1:30'"),
        (SMALL + "budget: {hours: 2h}\n", "x.yaml:5: budget.hours: '2h'"),
        (SMALL + "budget: {hours: 0}\n", "x.yaml:5: budget.hours: 0: should be greater than 0"),
        (SMALL + "budget: {hours: .inf}\n", "x.yaml:5: budget.hours: inf"),
        (SMALL + "budget: {hours: true}\n", "x.yaml:5: budget.hours: True: should be a number"),
        (SMALL + "data: {path: ''}\n", "x.yaml:5: data.path: ''"),
        (SMALL + "  dropout: {value: .nan}\n", "x.yaml:5: parameters.dropout: nan"),
        (
            SMALL + "  dropout: {values: [0.1, 1e-1]}\n",
            "x.yaml:5: parameters.dropout: values: [0.1, 0.1] has one value",
        ),
        (SMALL + "  batch_size: {values: [12, 12.0]}\n", "x.yaml:5: parameters.batch_size: values: [12, 12] has one"),
        (SMALL + "  batch_size: {value: 1:30}\n", "x.yaml:5: parameters.batch_size: '1:30'"),
        (
            SMALL + "  batch_size: 8\n",
            "x.yaml:5: parameters.batch_size: a parameter is written as a mapping, such as {value: 8}",
        ),
        (SMALL + "metric: {target: 80}\n", "x.yaml:5: metric: target: 80 is outside val_qwk; allowed: -1 to 1"),
        (
            SMALL + "metric: {name: val_auc, target: -1}\n",
            "x.yaml:5: metric: target: -1 is outside val_auc; allowed: 0 to",
        ),
        (SMALL + "metric: {name: val_loss, target: -1}\n", "target: -1 is outside val_loss; allowed: 0 and more"),
        (SMALL + "start: [{epochs: 1}, {}]\n", "x.yaml:5: start: point 2 is the same as point 1"),
        (
            SMALL + "  dropout: {values: [0, 0.5]}\nstart: [{dropout: 0}, {dropout: 0.5}, {}]\n",
            "start: 3 points are more",
        ),
        (SMALL + "  optimizer: {values: }\n", "x.yaml:5: parameters.optimizer: values: is empty"),
        (SMALL + "  optimizer: {distribution: ~}\n", "x.yaml:5: parameters.optimizer: is not a number"),
        (SMALL + "  dropout: {distribution: ~}\n", "x.yaml:5: parameters.dropout: distribution: is empty"),
        (SMALL + f"  learning_rate: {{value: !!float 0x{'f' * 296}}}\n", "x.yaml:5: the number '0xfff"),
        (
            SMALL + 'data: {path: "\\UFFFFFFFF"}\n',
            "x.yaml:5: not valid YAML: an escape that is not a Unicode character",
        ),
        (
            SMALL + 'data: {path: "\\U00110000"}\n',
            "x.yaml:5: not valid YAML: an escape that is not a Unicode character",
        ),
        (
            SMALL + f"  dropout: {{{ENDS}, step: 1e-300}}\n",
            "x.yaml:5: parameters.dropout: step 1e-300 makes 5e+299 steps",
        ),
        (
            SMALL.replace("1}", "9}") + "early_stop: {eta: 1.0000001}\n",
            "x.yaml:5: early_stop.eta: 1.0000001 makes 1.1e+07 rungs; allowed: 10,000",
        ),
        (
            SMALL + f"  dropout: {{{ENDS}}}\n  ema: {{value: 0.9, when: {{dropout: 0.1}}}}\n",
            "x.yaml:6: parameters.ema.when: dropout is a",
        ),
        (SMALL + "  ema: {value: 0.9, when: {epochs: []}}\n", "x.yaml:5: parameters.ema.when: epochs: an empty list"),
    ],
)
def test_what_would_be_read_otherwise_than_it_is_written_is_refused_by_line(
    tmp_path: Path, text: str, message: str
) -> None:
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize("override", ["", "=1", "a..b=1", ".=1", "seed", "data={path: x, path: y}", "trials=0"])
def test_a_change_that_is_none_is_named(tmp_path: Path, override: str) -> None:
    assert refusal(tmp_path, SMALL, (override,)).startswith(f"--set {override}: ")


@pytest.mark.parametrize(
    ("line", "override", "message"),
    [
        ("data: /photos", "data.image_size=64", "data is '/photos' (x.yaml:5), not a mapping of keys"),
        ("metric: val_auc", "metric.target=0.9", "metric is 'val_auc' (x.yaml:5), not a mapping of keys"),
        ("start: [{epochs: 1}]", "start.0.epochs=1", "start is [{'epochs': 1}] (x.yaml:5), not a mapping of keys"),
        ("seed: 1", "name.x=1", "name is 'small' (x.yaml:1), not a mapping of keys"),
        ("seed: 1", "a.b.c=1", "unknown key 'a'; known: name, data"),
    ],
)
def test_a_change_below_what_holds_no_keys_drops_nothing(
    tmp_path: Path, line: str, override: str, message: str
) -> None:
    said = refusal(tmp_path, f"{SMALL}{line}\n", (override,))
    assert said.startswith(f"--set {override}: {message}")
    assert loaded(tmp_path, f"{SMALL}data:\n", ("data.image_size=64",)).data.image_size == 64


def test_options_are_named_where_they_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(SMALL)
    for option, message in (
        ({"trials": 0}, "--trials 0: trials: 0: should be greater"),
        ({"name": ""}, "--name : name: ''"),
        ({"data": ""}, "--data : data.path: ''"),
    ):
        with pytest.raises(SpecError, match=message):
            load(file, **option)  # type: ignore[arg-type]
    for empty in (Path(), tmp_path):
        with pytest.raises(SpecError, match=r"--space.*allowed: a sweep file"):
            load(empty)


@pytest.mark.parametrize(
    ("written", "value"),
    [("010", 10), ("1_000", 1000), ("0x10", 16), ("0o10", 8), ("1e1", 10), ("+5", 5), ("12.0", 12), ("'7'", 7)],
)
def test_whole_numbers_are_what_is_written(tmp_path: Path, written: str, value: int) -> None:
    spec = loaded(tmp_path, SMALL + f"  batch_size: {{value: {written}}}\n")
    assert spec.parameters["batch_size"].choices() == [value]


@pytest.mark.parametrize(("written", "value"), [(".5", 0.5), ("1e-1", 0.1), ("5E-1", 0.5), ("0", 0.0), ("0.25", 0.25)])
def test_decimal_numbers_are_what_is_written(tmp_path: Path, written: str, value: float) -> None:
    spec = loaded(tmp_path, SMALL + f"  dropout: {{value: {written}}}\n")
    assert spec.parameters["dropout"].choices() == [value]


def test_words_are_truths_only_where_a_truth_is_asked_for(tmp_path: Path) -> None:
    spec = loaded(
        tmp_path,
        "name: no\nparameters:\n  pretrained: {values: [yes, off]}\n"
        "  dropout: {values: [0, 0.5], when: {pretrained: y}}",
    )
    assert spec.name == "no"
    assert spec.parameters["pretrained"].choices() == [True, False]
    assert spec.parameters["dropout"].when == {"pretrained": True}
    assert loaded(tmp_path, "name: 2026-01-01\n" + SMALL[12:]).name == "2026-01-01"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_say_what_they_are_are_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes((SMALL + "data: {path: Fotos/Bär}\n").encode(encoding))
    assert load(file).data.path == "Fotos/Bär"


def test_others_are_refused_by_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes((SMALL + "data: {path: Bär}\n").encode("latin-1"))
    with pytest.raises(SpecError, match=r"x\.yaml:5: is not a text file in UTF-8 \(byte 0xe4\)"):
        load(file)
    file.write_bytes(codecs.BOM_UTF16_LE + b"a")
    with pytest.raises(SpecError, match="is not a text file"):
        load(file)
    file.write_bytes(SMALL.encode("utf-16-le"))
    with pytest.raises(SpecError, match=r"U\+0000 is not allowed"):
        load(file)
    file.write_bytes(b"#" * (yaml_reader.MAX_BYTES + 1))
    with pytest.raises(SpecError, match="is longer than 1 MiB"):
        load(file)


def test_anchors_and_merge_keys_mean_what_yaml_says(tmp_path: Path) -> None:
    spec = loaded(
        tmp_path,
        "data: &d {image_size: 64, seed: 3}\nname: x\nparameters:\n  epochs: &one {value: 1}\n  batch_size: *one\n"
        "  seed: {<<: *one, value: 5}\n",
    )
    assert [spec.parameters[name].value for name in ("epochs", "batch_size", "seed")] == [1, 1, 5]


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "after its aliases are expanded" in refusal(tmp_path, "\n".join(lines))


def test_ordered_words_are_searched_in_the_order_in_which_they_are_written(tmp_path: Path) -> None:
    order = ["resnet34", "resnet18", "resnet101", "resnet50"]
    spec = loaded(tmp_path, f"parameters:\n  arch: {{values: [{', '.join(order)}], ordered: true}}\n")
    assert spec.parameters["arch"].choices() == order
    assert search_space.grid_points(spec.parameters) == [{"arch": arch} for arch in order]
    for place, arch in enumerate(order):
        trial = optuna.trial.FixedTrial({"arch_index": place})
        assert study.suggest(trial, spec).arch == arch
        assert study.stored_params(spec, {"arch": arch}) == {"arch_index": place}


def test_a_study_that_numbered_unsorted_values_otherwise_is_not_gone_on_with(tmp_path: Path) -> None:
    ascending = loaded(tmp_path, "parameters:\n  batch_size: {values: [4, 8], ordered: true}\n")
    descending = loaded(tmp_path, "parameters:\n  batch_size: {values: [8, 4], ordered: true}\n")
    for spec, is_as_before in ((ascending, True), (descending, False)):
        begun = study.SweepStudy.create(spec)
        before = study.hashlib.sha256(spec.model_dump_json(include=set(study.SHAPED_BY)).encode()).hexdigest()[:16]
        begun._study.set_user_attr(study.SHAPE, before)  # as 0.1.0 wrote it
        assert begun.fits == is_as_before


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("uniform, min: 0.001, max: 0.01, step: 0.004", "step 0.004 from min 0.001 does not reach max 0.01; "),
        ("uniform, min: 0.001, max: 0.01, step: 0.004", "a max that fits: 0.009 or 0.013"),
        ("uniform, min: 0.1, max: 0.2, step: 0.5", "a max that fits: 0.6"),
    ],
)
def test_a_step_that_misses_the_end_is_refused_with_one_that_fits(tmp_path: Path, shape: str, message: str) -> None:
    text = f"parameters:\n  learning_rate: {{distribution: {shape}}}\n"
    assert message in refusal(tmp_path, text)
    assert refusal(tmp_path, text).startswith("x.yaml:2: parameters.learning_rate: ")


@given(low=st.integers(1, 99), width=st.integers(1, 40), steps=st.integers(1, 8), more=st.integers(0, 40))
@settings(deadline=None, max_examples=60)
def test_a_range_in_steps_of_hundredths_gives_them_as_written_or_is_refused(
    low: int, width: int, steps: int, more: int
) -> None:
    high = low + steps * width + more
    shape = {"distribution": "uniform", "min": low / 100, "max": high / 100, "step": width / 100}
    values = {"name": "x", "parameters": {"weight_decay": shape}}
    if more % width:
        with pytest.raises(ValueError, match="does not reach max"):
            SweepSpec.model_validate(values)
        return
    spec = SweepSpec.model_validate(values)
    written = {float(Fraction(hundredth, 100)) for hundredth in range(low, high + 1, width)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = optuna.samplers.RandomSampler(seed=0)
        drawn = optuna.create_study(sampler=sampler)
        found = {study.suggest(drawn.ask(), spec).weight_decay for _ in range(5)}
    assert found <= written
    assert all(spec.parameters["weight_decay"].contains(value) for value in written)


def test_what_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "name: old\ntrials: 1\nmetric: {target: 80}\nstart: [{}, {dropout: 0.1}]\nparameters:\n"
        "  dropout: {distribution: uniform, min: 0.1, max: 0.2, step: 0.03}\n"
    )
    assert RunFolder(tmp_path).spec().metric.target == 80
    with pytest.raises(SpecError):
        load(file)


@pytest.mark.parametrize(
    ("case", "result"),
    [
        ("dupkey_inner", ":8: the key 'parameters.learning_rate.max'"),
        ("dupkey_param", ":10: the key 'parameters.learning_rate'"),
        ("dupkey_top", ":10: the key 'trials'"),
        ("start_more_than_trials", ":10: start: 4 points are more than trials: 2"),
        ("step_uneven", ":8: parameters.learning_rate: step 0.004"),
        ("wandb_style", ":4: parameters: unknown parameter 'lr'; did you mean 'learning_rate'?"),
        ("octal", ""),
        ("ordered_arch", ""),
    ],
)
def test_the_cases_come_to_what_is_right(shared: Path, case: str, result: str) -> None:
    file = shared / "cases" / "yaml" / f"{case}.yaml"
    if result:
        with pytest.raises(SpecError) as error:
            load(file)
        assert f"{case}.yaml{result}" in str(error.value)
    else:
        parameters = load(file).parameters
        assert parameters["arch"].choices()[0] == "resnet18"
        assert "epochs" not in parameters or parameters["epochs"].value == 10


def test_a_grid_that_never_ends_is_refused(tmp_path: Path) -> None:
    names = ("dropout", "momentum", "weight_decay", "label_smoothing", "ema")
    lines = [f"  {name}: {{values: [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}}" for name in names]
    text = "\n".join(["method: grid", "parameters:", *lines])
    assert "x.yaml:1: method: a grid of 16,807 points; allowed: 10,000" in refusal(tmp_path, text)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["sgd", "resnet18", "uniform", "log_uniform", "constant", "val_qwk", "gp", "grid", "1e-3", "010"]),
    st.sampled_from([0, 1, 2, 0.1, 0.5, 10**290, 1e300, 5e-324]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), inner, max_size=3)
    ),
    max_leaves=4,
)
PARAMETER = st.one_of(
    VALUES,
    st.dictionaries(st.sampled_from([*search_space.Parameter.model_fields, "q"]), VALUES, max_size=4),
    st.fixed_dictionaries({"values": st.lists(SCALARS, min_size=1, max_size=4)}),
    st.fixed_dictionaries(
        {"distribution": st.sampled_from(["uniform", "log_uniform"]), "min": SCALARS, "max": SCALARS, "step": SCALARS}
    ),
)
SWEEPS = st.fixed_dictionaries(
    {
        "parameters": st.one_of(
            VALUES, st.dictionaries(st.sampled_from([*TrialConfig.model_fields]), PARAMETER, max_size=3)
        )
    },
    optional={
        **{name: VALUES for name in SweepSpec.model_fields if name not in {"parameters", "data"}},
        "data": st.one_of(VALUES, st.dictionaries(st.sampled_from([*DataConfig.model_fields]), VALUES, max_size=2)),
        "start": st.lists(
            st.dictionaries(st.sampled_from([*TrialConfig.model_fields]), SCALARS, max_size=2), max_size=3
        ),
    },
)


@given(values=SWEEPS)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_are_a_sweep_or_refused(tmp_path: Path, values: dict[str, object]) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(yaml_reader.dump(values).encode(errors="backslashreplace"))
    try:
        spec = load(file)
    except SpecError as error:
        refused = str(error)
    else:
        refused = ""
    assert len(refused.splitlines()) <= 3
    if refused:
        return
    assert spec.planned_trials >= 1
    file.write_text(spec.to_yaml())
    assert load(file) == spec


@given(text=st.text(alphabet=st.sampled_from(list("ab:{}[],-&*!|>'\"#\n\t 01.~<?%@=\x85\u2028é")), max_size=60))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_yaml_or_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(text.encode())
    try:
        content = yaml_reader.read(file).content
    except SpecError:
        return
    if content is not None:
        assert yaml_reader.parse(yaml_reader.dump(content), str).content == content or "nan" in text


@given(text=st.text(max_size=12))
def test_a_written_text_is_the_same_text_for_every_reader(text: str) -> None:
    try:
        written = yaml_reader.dump({"a": text})
        by_others = yaml.safe_load(written)
    except (yaml.YAMLError, UnicodeError):  # half a surrogate pair, which no file holds
        return
    assert by_others == {"a": text}
    assert yaml_reader.parse(written, str).content == {"a": text}
    assert all(math.isfinite(line) for line in yaml_reader.parse(written, str).lines.values())
