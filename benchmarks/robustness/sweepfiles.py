"""Changed sweep files, for `sweep --dry-run`, which prints the sweep that it has read.

Each change sets the expected result: the file must be refused, or be read like the intact one, or a key must have a
certain value.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.robustness import damage
from benchmarks.robustness.case import Check, Command, CommandResult, Input, Rng, must_be_refused, pick
from benchmarks.robustness.oracle import Prediction
from benchmarks.robustness.sweepvalues import REFUSED, SCALARS, YAML_TEXTS
from benchmarks.robustness.world import World

WHOLE = """\
name: x
data: {path: eyes, image_size: 64, validation: 0.3, test: 0.3}
metric: {name: val_qwk}
method: gp
random_share: 0.3
seed: 7
trials: 8
budget: {hours: 2.5, max_failed: 3}
early_stop: {type: asha, grace_epochs: 2, eta: 3}
keep: {trials: 2}
track_test: true
parameters:
  arch: {values: [resnet18, resnet34]}
  pretrained: {value: false}
  head_layers: {values: [2, 3]}
  batch_size: {values: [4, 8, 16], ordered: true}
  learning_rate: {distribution: log_uniform, min: 1e-4, max: 1e-2}
  epochs: {distribution: int_uniform, min: 4, max: 12, step: 2}
  optimizer: {values: [sgd, adamw]}
  momentum: {distribution: uniform, min: 0.8, max: 0.99, when: {optimizer: sgd}}
start:
  - {head_layers: 2, batch_size: 8, learning_rate: 1e-3, epochs: 4, optimizer: adamw}
"""
NUMBERS = (
    ("trials",), ("seed",), ("random_share",), ("budget", "max_failed"), ("budget", "hours"),
    ("early_stop", "grace_epochs"), ("data", "image_size"), ("keep", "trials"), ("early_stop", "eta"),
    ("parameters", "epochs", "max"), ("parameters", "batch_size", "values", 1), ("start", 0, "epochs"),
)  # fmt: skip
"""Paths of numbers in the sweep file."""


def make(whole: World, _: Mapping[str, Mapping[str, Prediction]], folder: Path, rng: Rng, number: int) -> Input:
    """Create a changed sweep file."""
    shutil.copytree(whole.photographs, folder / "eyes")
    changes = (
        _scalar, _refused, _key_twice, _unknown_key, _scalar, _same, _text, _bytes, _refused, _replaced, _characters,
        _lines,
    )  # fmt: skip
    data, what, check = changes[number % len(changes)](rng, number // len(changes))
    (folder / "x.yaml").write_bytes(data)
    return Input(what, (Command(("sweep", "--space", "x.yaml", "--dry-run"), check=check, names=("x.yaml", "eyes")),))


Changed = tuple[bytes, str, Check]


def _values() -> Any:
    return yaml.safe_load(WHOLE.replace("1e-4", "1.0e-4").replace("1e-2", "1.0e-2").replace("1e-3", "1.0e-3"))


def resolved(out: str) -> Any:
    """Parse the sweep that a dry run prints as YAML; return None if it prints none."""
    lines = out.splitlines()
    end = next((at for at, line in enumerate(lines) if line.startswith("Would start first")), len(lines))
    try:
        return yaml.safe_load("\n".join(lines[:end]))
    except yaml.YAMLError:
        return None


def _is_the_whole_one(result: CommandResult) -> str:
    sweep = resolved(result.out)
    if not isinstance(sweep, dict):
        return "the dry run prints no sweep"
    return _difference(_values(), sweep, "")


def _difference(right: Any, printed: Any, path: str) -> str:
    """Return where the printed values differ from the written ones; printed defaults do not count."""
    if isinstance(right, dict) and isinstance(printed, dict):
        for key, value in right.items():
            if path == ".data" and key == "path":
                continue
            if key not in printed:
                return f"{path}.{key} is lost"
            if different := _difference(value, printed[key], f"{path}.{key}"):
                return different
        return ""
    if isinstance(right, list) and isinstance(printed, list) and len(right) == len(printed):
        pairs = enumerate(zip(right, printed, strict=True))
        differences = (_difference(*pair, f"{path}.{index}") for index, pair in pairs)
        return next(filter(None, differences), "")
    return "" if right == printed else f"{path} is read as {printed!r}, right is {right!r}"


def _at(values: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        values = values[part]
    return values


def _with_text(path: tuple[Any, ...], text: str) -> bytes:
    """Return the intact file with `text` as one of its values."""
    values = _values()
    holder = _at(values, path[:-1])
    holder[path[-1]] = "PLACEHOLDER"
    return yaml.safe_dump(values, sort_keys=False).replace("PLACEHOLDER", text).encode()


def _scalar(rng: Rng, number: int) -> Changed:
    """Write a number in another spelling, which YAML 1.1 may read differently."""
    text, right = SCALARS[number % len(SCALARS)]
    path = NUMBERS[int(rng.integers(len(NUMBERS)))]
    name = ".".join(map(str, path))

    def check(result: CommandResult) -> str:
        sweep = resolved(result.out)
        if not isinstance(sweep, dict):
            return "the dry run prints no sweep"
        try:
            value = _at(sweep, path)
        except (KeyError, IndexError, TypeError):
            return f"a value written {text!r} is lost"
        if right is None:
            return f"a value written {text!r} is read as {value!r}"
        return "" if value == right else f"a value written {text!r} is read as {value!r}, right is {right!r}"

    return _with_text(path, text), f"{name}: {text}", check


def _refused(rng: Rng, number: int) -> Changed:
    """Set a value that is not allowed."""
    path, value = REFUSED[(2 * number + int(rng.integers(2))) % len(REFUSED)]
    values = _values()
    holder = _at(values, path[:-1])
    holder[path[-1]] = value
    what = f"{'.'.join(map(str, path))}: {value!r}"
    return yaml.safe_dump(values, sort_keys=False).encode(), what[:200], must_be_refused(f"{what[:80]}")


def _key_twice(rng: Rng, number: int) -> Changed:
    """Give a key twice with two values, which is ambiguous."""
    lines = ("trials: 5", "seed: 1", "method: random", "parameters: {epochs: {value: 3}}", "data: {path: eyes}")
    inner = (
        ("data: {path: eyes,", "data: {path: eyes, image_size: 32,"), ("min: 1e-4,", "min: 1e-4, min: 1e-3,"),
        ("  head_layers:", "  optimizer: {value: sgd}\n  head_layers:"), ("{type: asha,", "{type: none, type: asha,"),
        ("{head_layers: 2,", "{head_layers: 3, head_layers: 2,"),
        ("{optimizer: sgd}", "{optimizer: adamw, optimizer: sgd}"),
    )  # fmt: skip
    if number % 2:
        line = pick(rng, lines)
        data = f"{line}\n{WHOLE}" if rng.random() < 0.5 else f"{WHOLE}{line}\n"
        what = f"{line.partition(':')[0]} twice"
    else:
        old, new = pick(rng, inner)
        data, what = WHOLE.replace(old, new), f"{new.strip()} with a key twice"
    return data.encode(), what, must_be_refused("a key twice")


def _unknown_key(rng: Rng, _: int) -> Changed:
    values = _values()
    dicts = [path for path in _dicts(values) if path[:1] != ("start",)]
    path = dicts[int(rng.integers(len(dicts)))]
    key = pick(rng, ("trails", "lr", "x", "", "1", "Trials", "trials ", "a" * 300, "\x1b[2J", "é", "<<"))
    _at(values, path)[key] = 1
    what = f"{'.'.join(map(str, path)) or 'top'}: the key {key[:20]!r}"
    return yaml.safe_dump(values, sort_keys=False).encode(), what, must_be_refused("an unknown key")


def _dicts(values: Any, path: tuple[Any, ...] = ()) -> Any:
    if isinstance(values, dict):
        yield path
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, inner in items:
        yield from _dicts(inner, (*path, key))


def _same(rng: Rng, number: int) -> Changed:
    """Write the same sweep in another form."""
    values = _values()
    form = number % 8
    if form == 0:
        keys = [list(values)[at] for at in rng.permutation(len(values))]
        data = yaml.safe_dump({key: values[key] for key in keys}, sort_keys=False).encode()
    elif form == 1:
        data = yaml.safe_dump(values, default_flow_style=True).encode()
    elif form == 2:
        data = yaml.safe_dump(values, indent=int(rng.integers(2, 9))).encode()
    elif form == 3:
        data = WHOLE.replace("\n", "\r\n").encode()
    elif form == 4:
        data = b"\xef\xbb\xbf" + WHOLE.encode()
    elif form == 5:
        data = WHOLE.replace(
            "{values: [4, 8, 16], ordered: true}", "&b {values: [4, 8, 16], ordered: true} # a comment"
        ).encode()
    elif form == 6:
        out = io.StringIO()
        yaml.safe_dump(values, out, explicit_start=True, explicit_end=True, sort_keys=True)
        data = out.getvalue().encode()
    else:
        data = WHOLE.replace("1e-4", "0.0001").replace("1e-2", "1.0E-2").encode()
    return data, f"the same sweep, written in form {form}", _is_the_whole_one


def _text(rng: Rng, number: int) -> Changed:
    """Write text that is not a sweep file, or that is dangerous to read."""
    what, text, is_refused = YAML_TEXTS[number % len(YAML_TEXTS)]
    data = text(WHOLE) if callable(text) else text
    return (
        data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"),
        what,
        (must_be_refused(what) if is_refused else lambda _: ""),
    )


def _bytes(rng: Rng, number: int) -> Changed:
    change = damage.BYTES[number % len(damage.BYTES)]
    data, what = change(WHOLE.encode(), rng)
    return data, what, lambda _: ""


def _replaced(rng: Rng, _: int) -> Changed:
    """Replace a random value by one of another type."""
    values = _values()
    paths = list(damage.leaves(values))
    path = paths[int(rng.integers(len(paths)))]
    holder = _at(values, path[:-1])
    holder[path[-1]] = pick(rng, damage.VALUES)
    what = f"{'.'.join(map(str, path))}: {holder[path[-1]]!r}"
    return yaml.safe_dump(values, sort_keys=False).encode(), what[:200], lambda _: ""


def _characters(rng: Rng, _: int) -> Changed:
    """Insert, delete or replace a character."""
    at, form = int(rng.integers(len(WHOLE))), int(rng.integers(3))
    letter = pick(rng, list("{}[]:,-#&*!|>'\"%@`?\t 0e.~\x00\x1b\u2028é"))
    text = WHOLE[:at] + ("" if form == 0 else letter) + WHOLE[at + (form != 1) :]
    return (
        text.encode(),
        f"{('without character', 'before character', 'for character')[form]} {at}: {letter!r}",
        lambda _: "",
    )


def _lines(rng: Rng, _: int) -> Changed:
    """Delete, move or indent a line."""
    lines = WHOLE.splitlines(keepends=True)
    at, form = int(rng.integers(len(lines))), int(rng.integers(3))
    if form == 0:
        what = f"without line {at + 1}"
        del lines[at]
    elif form == 1:
        what = f"line {at + 1} indented"
        lines[at] = pick(rng, (" ", "   ", "\t")) + lines[at]
    else:
        what = f"line {at + 1} moved"
        lines.insert(int(rng.integers(len(lines))), lines.pop(at))
    return "".join(lines).encode(), what, lambda _: ""
