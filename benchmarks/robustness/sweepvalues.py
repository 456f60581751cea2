"""Values for sweep files: spellings of numbers, values that are not allowed, texts that are not a sweep."""

from __future__ import annotations

from typing import Any

SCALARS: tuple[tuple[str, Any], ...] = (
    ("010", 10), ("1:30", None), ("1_0", 10), ("0x10", 16), ("0o10", 8), ("1e1", 10), ("1.0e+1", 10), ("10.", 10),
    ("+10", 10), ("10.0", 10), ("'10'", 10), ('"10"', 10), ("!!int 10", 10), ("!!str 10", 10), ("!!float 10", 10),
    ("&n 10", 10), ("*n", None), ("yes", None), ("on", None), ("true", None), (".nan", None), (".inf", None),
    ("-.inf", None), ("inf", None), ("NaN", None), ("10 # ten", 10), ("١٠", 10), ("１０", 10), ("10,5", None),
    ("10.5.1", None), ("2026-11-25", None), ("!!binary MTA=", None), ("[10]", None), ("{a: 10}", None),
    ("10 000", None), ("1e400", None), ("-10", None), ("!!python/object/apply:os.getcwd []", None), ("0b1010", 10),
    ("08", 8), ("1e1.5", None), ("10e", None), ("--10", None), ("10%", None), ("ten", None), ("1:00", None),
    ("!!bool yes", None), ("!unknown 10", None), ("99999999999999999999999", None), ("0010", 10), ("00", None),
    ("|\n    10", 10),
)  # fmt: skip
"""A spelling of a number, and the only value that it may be read as; None if it must be refused."""

REFUSED: tuple[tuple[tuple[Any, ...], Any], ...] = (
    (("trials",), 0), (("trials",), -1), (("trials",), 1.5), (("trials",), True), (("seed",), -1),
    (("random_share",), 1.01), (("random_share",), -0.1), (("method",), "banana"), (("name",), ""),
    (("name",), "../x"), (("name",), "a/b"), (("name",), "x" * 200), (("name",), "\x1b[2J"), (("name",), ".."),
    (("metric", "name"), "test_qwk"), (("metric", "goal"), "minimize"), (("metric", "target"), 80),
    (("metric", "target"), float("nan")), (("metric", "target"), -5), (("budget", "hours"), 0),
    (("budget", "hours"), -1), (("budget", "hours"), float("inf")), (("budget", "max_failed"), 0),
    (("early_stop", "eta"), 1), (("early_stop", "eta"), 0), (("early_stop", "grace_epochs"), 0),
    (("early_stop", "type"), "asha "), (("keep", "trials"), 0), (("resources",), {"gpu": 1.5}),
    (("resources",), {"cpu": 0}), (("data", "image_size"), 3), (("data", "image_size"), 10**6),
    (("data", "validation"), 0), (("data", "validation"), 0.8), (("data", "test"), 1), (("data", "layout"), "kaggle"),
    (("data", "path"), ""), (("data", "path"), None), (("data", "path"), ["eyes"]), (("data", "on_bad"), "ignore"),
    (("parameters",), {}), (("parameters",), None), (("parameters",), []),
    (("parameters", "batch_size", "values"), []), (("parameters", "batch_size", "values"), [4, 4]),
    (("parameters", "batch_size", "values"), [0, 4]), (("parameters", "batch_size", "values"), ["four"]),
    (("parameters", "batch_size", "values"), [4, 1.5]), (("parameters", "learning_rate", "min"), 0),
    (("parameters", "learning_rate", "min"), -1), (("parameters", "learning_rate", "min"), 1),
    (("parameters", "learning_rate", "max"), float("inf")), (("parameters", "learning_rate", "distribution"), "log"),
    (("parameters", "learning_rate", "step"), 1e-3), (("parameters", "epochs", "step"), 3),
    (("parameters", "epochs", "step"), 0), (("parameters", "epochs", "step"), 100),
    (("parameters", "epochs", "min"), 0), (("parameters", "epochs", "min"), 4.5),
    (("parameters", "momentum", "max"), 1.5), (("parameters", "momentum", "when"), {"optimizer": "lion"}),
    (("parameters", "momentum", "when"), {"momentum": 0.9}), (("parameters", "momentum", "when"), {"nothing": 1}),
    (("parameters", "momentum", "when"), "sgd"), (("parameters", "optimizer", "when"), {"momentum": 0.9}),
    (("parameters", "arch", "values"), ["resnet18", "vgg16"]), (("parameters", "arch", "value"), "resnet18"),
    (("parameters", "dropout"), {"value": 1}), (("parameters", "dropout"), 0.5), (("parameters", "dropout"), None),
    (("parameters", "lr"), {"value": 0.1}), (("parameters", "pretrained", "value"), "maybe"),
    (("parameters", "seed"), {"value": -1}), (("start", 0, "epochs"), 5), (("start", 0, "epochs"), 99),
    (("start", 0, "batch_size"), 5), (("start", 0, "momentum"), 0.9), (("start", 0, "nothing"), 1),
    (("start",), {"epochs": 4}), (("start",), [1]), (("start",), [{"epochs": 4}] * 9),
    (("parameters", "epochs", "ordered"), True), (("trials",), 10**30),
    (("parameters", "batch_size", "values"), [10**30, 4]), (("parameters", "epochs", "max"), 10**400),
    (("parameters", "learning_rate", "min"), "1e-4x"),
)  # fmt: skip
"""A path in the intact sweep file, and a value that must be refused there."""


def _nested(depth: int) -> str:
    return "parameters: " + "[" * depth + "]" * depth + "\n"


def _laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]" for at in range(1, levels)]
    return "\n".join([*lines, f"parameters: *a{levels - 1}", ""])


_WANDB = """\
program: train.py
method: bayes
metric: {name: val_qwk, goal: maximize}
parameters: {learning_rate: {distribution: log_uniform_values, min: 0.0001, max: 0.1}}
"""
_OF_ITSELF = "data: &a {path: *a}\nparameters: {epochs: {value: 1}}\n"

YAML_TEXTS: tuple[tuple[str, Any, bool], ...] = (
    ("empty", "", True),
    ("comments alone", "# nothing\n", True),
    ("a word", "x\n", True),
    ("a list", "- a\n- b\n", True),
    ("a number", "5\n", True),
    ("two documents", lambda whole: f"{whole}---\n{whole}", True),
    ("UTF-16", lambda whole: whole.encode("utf-16"), False),
    ("UTF-32", lambda whole: whole.encode("utf-32"), False),
    ("latin-1", lambda whole: f"# é\n{whole}".encode("latin-1"), False),
    ("a NUL", lambda whole: whole + "\x00", True),
    ("an escape", lambda whole: whole + "# \x1b[2J\n", False),
    ("nested 30 deep", _nested(30), True),
    ("nested 5,000 deep", _nested(5000), True),
    ("nested 100,000 deep", _nested(100_000), True),
    ("braces 3,000 deep", "{a: " * 3000, True),
    ("a million laughs", _laughs(7), True),
    ("a billion laughs", _laughs(10), True),
    ("an alias of itself", lambda whole: whole + "data2: &a [*a]\n", True),
    ("an alias of itself as data", _OF_ITSELF, True),
    ("parameters that hold themselves", "parameters: &p {epochs: {value: 1}, dropout: *p}\n", True),
    ("a merge key", lambda whole: whole.replace("  head_layers: {", "  head_layers: {<<: {ordered: true}, "), False),
    ("a merge of nothing", lambda whole: whole + "<<: 5\n", True),
    ("a Python tag", "!!python/object/apply:os.system ['touch ran']\n", True),
    ("a Python tag inside", lambda whole: whole.replace("seed: 7", "seed: !!python/object/apply:os.getpid []"), True),
    ("an unknown tag", lambda whole: whole.replace("seed: 7", "seed: !seed 7"), True),
    ("tabs", lambda whole: whole.replace("  ", "\t"), True),
    ("a set", lambda whole: whole.replace("{values: [sgd, adamw]}", "!!set {sgd, adamw}"), True),
    ("keys that are numbers", lambda whole: whole + "5: 6\n", True),
    ("a key that is a list", lambda whole: whole + "[a, b]: 6\n", True),
    ("a key that is null", lambda whole: whole + "~: 6\n", True),
    ("a line of a megabyte", lambda whole: whole + "# " + "x" * 10**6 + "\n", False),
    ("a name of a megabyte", lambda whole: whole.replace("name: x", "name: " + "x" * 10**6), True),
    ("JSON", '{"parameters": {"epochs": {"value": 3}}, "data": {"path": "eyes", "image_size": 64}}', False),
    ("half of it", lambda whole: whole[: len(whole) // 2], False),
    ("HTML", "<!DOCTYPE html><html></html>\n", True),
    ("a pickle", b"\x80\x04\x95\x00", True),
    ("a surrogate", lambda whole: whole.replace("name: x", "name: \ud800"), True),
    ("W&B", _WANDB, False),
    (
        "words in order",
        lambda whole: whole.replace("[resnet18, resnet34]}", "[resnet34, resnet18], ordered: true}"),
        False,
    ),
    ("an integer of 5,000 digits", lambda whole: whole.replace("seed: 7", "seed: " + "9" * 5000), True),
)
"""A name, the text (or a function of the intact file's text), and whether it must be refused."""
