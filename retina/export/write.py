"""From the best model of a results folder to an exported folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import retina
from retina import model, results
from retina.config import GRADES, TrialConfig, parse
from retina.data.fundus import PREPROCESSING
from retina.errors import ResultsError, SpecError
from retina.export.folder import (
    CONFIG,
    FILES,
    METRICS,
    PREPROCESS,
    README,
    WEIGHTS,
    Description,
    Preprocess,
    build,
    first_line,
)
from retina.results import RunFolder

_README = """\
A grader of fundus photographs for diabetic retinopathy

The best of the sweep {sweep}: trial {trial_id}, {arch}, {size} x {size} pixels.
{scores}
Grades: {grades}.

To grade photographs, with retina-sweeps {retina} installed (FOLDER is the one that holds this file):

  retina predict FOLDER IMAGE... [--csv FILE] [--json FILE]

IMAGE is a photograph, a folder of them, or a pattern such as 'photographs/*.jpg'. In Python:

  from pathlib import Path
  from retina.predict import images, predict
  grades = predict(Path("FOLDER"), images(["photographs"]))

Without this package: build the network as config.json says, read model.safetensors with the safetensors package, and
prepare photographs as preprocess.json says.

For research. This is not a medical device: no eye is healthy because this model says so.
"""


def export(run: Path, target: Path | None = None) -> Path:
    """Write the best model of a results folder as a folder of its own, whole or not at all.

    Args:
        run: a results folder.
        target: where to; `run`/export if None. An earlier export is replaced.

    Returns:
        The folder.

    Raises:
        ResultsError: `run` is no results folder or has no best model yet, one of its files is damaged, or `target`
            holds something else than an earlier export or cannot be written.
    """
    folder = RunFolder.open(run)
    target = run / "export" if target is None else target
    _refuse_missing(folder)
    _refuse_taken(target)
    metrics = results.read_json(folder.best / METRICS)
    description, preprocess = _describe(folder, metrics)
    weights = _read_best(folder.best / "model.pt")
    build(description.trial, preprocess.image_size, weights, folder.best / "model.pt")
    readme = _readme(description, preprocess, metrics, folder.best / METRICS)
    with _replacing(target) as partial:
        results.write_bytes(partial / WEIGHTS, safetensors.torch.save(weights, metadata={"format": "pt"}))
        results.write_json(partial / CONFIG, description.model_dump(mode="json"))
        results.write_json(partial / PREPROCESS, preprocess.model_dump(mode="json"))
        results.write_json(partial / METRICS, metrics)
        results.write_text(partial / README, readme)
    return target


def _refuse_missing(folder: RunFolder) -> None:
    missing = [name for name in ("model.pt", CONFIG, METRICS) if not (folder.best / name).is_file()]
    if missing:
        raise ResultsError(
            f"{folder.root}: no finished sweep, so there is no best model ({missing[0]} is not in best/)"
        )


def _refuse_taken(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ResultsError(f"{target}: is a file; name a folder")
    names = sorted(file.name for file in target.iterdir())
    strange = [name for name in names if name not in FILES]
    if strange or (names and not _is_export(target)):
        held = ", ".join((strange or names)[:5])
        raise ResultsError(f"{target}: is not an earlier export and will not be overwritten; it holds {held}")


def _is_export(folder: Path) -> bool:
    try:
        described = results.read_json(folder / CONFIG)
    except ResultsError:
        return False
    return isinstance(described, Mapping) and "export" in described


def _describe(folder: RunFolder, metrics: Any) -> tuple[Description, Preprocess]:
    file = folder.best / CONFIG
    told = results.read_json(file)
    try:
        trial = parse(TrialConfig, told["trial"], f"{file}: trial")
        preprocess = {
            "channels": "RGB",
            "crop": "fundus disc",
            "crop_version": told.get("preprocessing", PREPROCESSING),
            "image_size": told["image_size"],
            "scale": "0 to 1",
            "mean": told["mean"],
            "std": told["std"],
        }
        description = {
            "export": 1,
            "retina": retina.__version__,
            "sweep": folder.name,
            "trial_id": metrics["trial_id"],
            "trial": trial,
            "architecture": _architecture(trial, told["image_size"]),
            "grades": told["grades"],
            "data_fingerprint": told.get("data_fingerprint", ""),
        }
        return parse(Description, description, str(file)), parse(Preprocess, preprocess, str(file))
    except SpecError as error:
        raise ResultsError(str(error)) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from None


def _architecture(trial: TrialConfig, image_size: int) -> dict[str, Any]:
    small = image_size < model.SMALL_IMAGE
    return {
        "network": f"torchvision.models.{trial.arch}",
        "stem": "conv1 3x3 of stride 1, no maxpool" if small else "as torchvision's",
        "fc": "linear layers to these widths; ReLU and dropout after all but the last",
        "fc_widths": [*model.HEAD_WIDTHS[trial.head_layers], GRADES],
    }


def _read_best(file: Path) -> dict[str, torch.Tensor]:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
        # training leaves them channels last, which safetensors does not store
        return {str(name): tensor.contiguous() for name, tensor in state.items()}
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ResultsError(f"{file}: cannot be read as weights: {first_line(error)}") from None


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place once it is whole."""
    place = target.resolve()
    partial, earlier = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("partial", "earlier"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if place.exists():
            place.rename(earlier)
        partial.rename(place)
        shutil.rmtree(earlier, ignore_errors=True)
    except OSError as error:
        if earlier.exists() and not place.exists():
            earlier.rename(place)
        raise ResultsError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _readme(description: Description, preprocess: Preprocess, metrics: Any, file: Path) -> str:
    try:
        scores = [
            f"  {name}: QWK {metrics[split]['qwk']:.3f}, accuracy {metrics[split]['accuracy']:.3f}, "
            f"{metrics[split]['n']} photographs"
            for split, name in (("val", "validation"), ("test", "test"))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file, error) from None
    return _README.format(
        **{name: getattr(description, name) for name in ("sweep", "trial_id", "retina")},
        arch=description.trial.arch,
        size=preprocess.image_size,
        scores="\n".join(scores),
        grades=", ".join(f"{grade} {name}" for grade, name in enumerate(description.grades)),
    )


def _damaged(file: Path, error: Exception) -> ResultsError:
    return ResultsError(f"{file}: is not what a sweep writes: {type(error).__name__}: {error}")
