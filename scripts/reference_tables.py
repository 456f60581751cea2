"""Parts of the documentation that are generated from the code, in Markdown: settings, commands, modules."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import types
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "retina"
LARGE = frozenset({"onnxruntime", "optuna", "ray", "torch"})
"""Libraries that the table of modules lists as imports."""
MEANINGS = {
    "name": "name of the sweep and of its folder `results/<name>/`; default: the sweep file's name",
    "data.path": "a folder, a label file, an npz file, or `synthetic`, which draws photographs",
    "data.layout": "layout of the data (see Data layouts); `auto` recognises it",
    "data.split": "`official`: keep the splits of the data set; `by_patient`: ignore them and split by patient",
    "data.on_bad": "`stop`: refuse unusable labels and photographs; `skip`: leave them out and list them",
    "data.synthetic.proportions": "shares of the grades: as in EyePACS, or the same number of each grade",
    "data.synthetic.seed": "seed of the drawn photographs",
    "metric.name": "the metric that is maximised or minimised, always on the validation split",
    "metric.goal": "follows from the name: `minimize` for `val_loss`, else `maximize`",
    "metric.target": "the sweep ends once a trial has reached this value",
    "method": "the searcher: a Gaussian process, TPE, random search, or every point of a grid",
    "seed": "seed of the search, and of the trials unless `seed` is searched",
    "budget.hours": "the sweep ends after this time, summed over all its runs",
    "early_stop.type": "`asha` stops trials that are behind; `none` trains every trial to its end",
    "early_stop.grace_epochs": "epoch of the first rung",
    "early_stop.eta": "at each rung the best 1/eta of the trials continue; the next rung is at eta times the epochs",
    "parameters": "the search space: a mapping of parameter names to their values; see below",
    "start": "configurations that are tried first; each maps parameters to values",
    "arch": "the torchvision network",
    "pretrained": "start from ImageNet weights, which are downloaded once (or `--weights FILE|DIR`)",
    "head_layers": "2: Linear(in, 50), ReLU, Dropout, Linear(50, 5); 3: one more layer of 256 units before it",
    "dropout": "share of units dropped in the head",
    "batch_size": "photographs per step; what exceeds the memory runs as micro-batches with accumulated gradients",
    "epochs": "passes over the training photographs; the schedule spans them",
    "learning_rate": "the highest learning rate of the schedule",
    "optimizer": "the optimizer",
    "weight_decay": "L2 penalty of sgd and adam; decoupled decay of adamw",
    "schedule": "schedule of the learning rate over the trial's own epochs",
    "class_weights": "`balanced` weights each grade by the inverse of its share of the training photographs",
    "augmentation": "`flip`: mirror images; `rotate`: flips, any angle, zoom and shift; `full`: colour too",
    "precision": "precision of training; `auto`: bfloat16 if supported, float16 on older tensor cores, else float32",
    "value": "the only value",
    "values": "the values to choose from, each once",
    "ordered": "search `values` as a scale, in the order in which they are written",
    "distribution": "search from `min` to `max`, numbers or (`int_`) whole numbers, evenly or (`log_`) by magnitude",
    "min": "lower end of the range, included",
    "max": "upper end of the range, included",
    "step": "divides a range that is not logarithmic into equal steps, which must reach `max`",
    "when": "search this parameter only where other parameters have these values: `{optimizer: sgd}`",
}
"""Meanings of keys whose field has no description; a dotted key, or the last part of one."""
TYPES = {str: "text", int: "integer", float: "number", bool: "true, false", Any: "any value"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}


def settings(path: str, prefix: str = "") -> str:
    """Return a table of a settings model: key, type or allowed values, default, meaning; nested keys are dotted.

    Args:
        path: dotted path of the model, such as "retina.config.SweepSpec".
        prefix: prefix of each key, such as "data.".
    """
    module, _, name = path.rpartition(".")
    rows = _rows(getattr(importlib.import_module(module), name), prefix)
    return _table(("key", "allowed", "default", "meaning"), rows)


def command(*words: str) -> str:
    """Return the output of `retina WORDS --help` as a code block."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(PROJECT)}
    call = [sys.executable, "-m", "retina", *words, "--help"]
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=environment, cwd=PROJECT)  # noqa: S603
    return f"```text\n{done.stdout.strip()}\n```"


def modules(package: str) -> str:
    """Return a table of a package's modules: the first paragraph of the docstring and the imported large libraries.

    Args:
        package: path below `retina`, such as "data/cache"; modules of its subpackages are included.
    """
    files = sorted((PACKAGE / package).rglob("*.py"), key=lambda file: (file.parent, file.stem))
    rows = []
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        text = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
        name = file.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")
        rows.append((f"`{name}`", _escaped(text), ", ".join(sorted(_imported(tree) & LARGE))))
    return _table(("module", "content", "imports"), rows)


def _imported(tree: ast.Module) -> set[str]:
    """Return the top-level packages that a module imports anywhere."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return {name.partition(".")[0] for name in names}


def _rows(model: type[BaseModel], prefix: str) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            rows += _rows(field.annotation, f"{key}.")
        else:
            meaning = field.description or MEANINGS.get(key) or MEANINGS.get(name, "")
            rows.append((f"`{key}`", _allowed(field), _default(field), _escaped(meaning)))
    return rows


def _allowed(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(part, key)}"
        for part in field.metadata
        for key, sign in BOUNDS.items()
        if getattr(part, key, None) is not None
    ]
    patterns = [f"`{part.pattern}`" for part in field.metadata if getattr(part, "pattern", None)]
    return " ".join(filter(None, [_type(field.annotation), ", ".join([*bounds, *patterns])]))


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        text = ", ".join(f"`{value}`" for value in parts)
    elif origin in {Union, types.UnionType}:
        text = " or ".join(_type(part) for part in parts if part is not types.NoneType)
    elif origin is list:
        text = f"list of {_type(parts[0])}"
    elif origin is dict:
        text = f"mapping to {_type(parts[1])}"
    elif parts:  # Annotated
        text = _type(parts[0])
    else:
        text = TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return text


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Enum):
        return f"`{value.value}`"
    return f"`{value}`" if value not in ("", [], {}) else "empty"


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
