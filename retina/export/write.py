"""From the best model of a results folder to an exported folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import retina
from retina.config import TrialConfig, parse
from retina.config.splits import EVALUATED_SPLITS
from retina.data.fundus import PREPROCESSING, SAME_PIXELS
from retina.errors import ResultsError, SpecError, as_disk_error, first_line
from retina.export import check, graphs
from retina.export.card import card
from retina.export.facts import CardData
from retina.export.folder import (
    CARD,
    CONFIG,
    FILES,
    IMAGES,
    LAYOUT,
    LISTED,
    METRICS,
    OF_EARLIER_LAYOUTS,
    ONNX,
    PREPROCESS,
    PROGRAM,
    WEIGHTS,
    Calibration,
    Description,
    Preprocess,
)
from retina.export.grader import Grader, build
from retina.results import checksums, files, readers, run_folder, schemas
from retina.results.run_folder import RunFolder
from retina.system import temporary_files
from retina.training import model
from retina.training.losses import N_OUTPUTS

NEEDED = ("n", "accuracy", "qwk")
"""What metrics.json must say of each split for a model card, whichever version wrote it."""


@dataclass(frozen=True)
class _Best:
    """What best/ says of the model beside its weights."""

    metrics: Mapping[str, Any]
    description: Description
    preprocess: Preprocess


def export(run: Path, target: Path | None = None) -> Path:
    """Write the best model of a results folder as a folder of its own, whole or not at all.

    Args:
        run: a results folder.
        target: where to; `run`/export if None. An earlier export is replaced.

    Returns:
        The folder.

    Raises:
        ResultsError: `run` is no results folder or has no best model yet, one of its files is damaged, the weights or a
            graph give other probabilities than predictions.csv has or torch gives, `target` holds something else than
            an earlier export, or cannot be written.
    """
    folder = RunFolder.open(run)
    target = run / "export" if target is None else target
    _refuse_missing(folder)
    _refuse_taken(target)
    is_verified = checksums.verify_best(folder.best, "model.pt", CONFIG, METRICS, "predictions.csv")
    if not is_verified:
        checksums.tell_unverified(folder.best)
    metrics = _read_metrics(folder.best / METRICS)
    facts, best = CardData.of(folder, metrics), _describe(folder, metrics)
    size, source = best.preprocess.image_size, folder.best / "model.pt"
    weights = _read_best(source)
    grader = build(best.description.trial, size, weights, source, best.description.temperature)
    seen = check.sample(folder, size, is_fitted=grader.cut_points is not None)
    recorded = check.compare_recorded(grader, seen, best.preprocess, source)
    program, onnx = _graphs(grader, best)
    agreement = check.compare(grader, onnx, program, seen, best.preprocess)
    agreement = agreement.model_copy(update={**recorded, "verified": is_verified})
    description = best.description.model_copy(update={"cut_points": grader.cut_points, "check": agreement})
    text = card(facts, description, best.preprocess)
    with _replacing(target) as partial:
        files.write_bytes(partial / ONNX, onnx)
        files.write_bytes(partial / PROGRAM, program)
        files.write_bytes(partial / WEIGHTS, safetensors.torch.save(weights, metadata={"format": "pt"}))
        files.write_json(partial / CONFIG, description.model_dump(mode="json"))
        files.write_json(partial / PREPROCESS, best.preprocess.model_dump(mode="json"))
        files.write_json(partial / METRICS, metrics)
        files.write_text(partial / CARD, text)
        checksums.write(partial, LISTED)
    return target


def _graphs(grader: Grader, best: _Best) -> tuple[bytes, bytes]:
    """model.pt2 and model.onnx."""
    program = graphs.trace(grader, best.preprocess.image_size)
    told = {
        "preprocess": best.preprocess.model_dump(mode="json"),
        "grades": best.description.grades,
        "temperature": best.description.temperature,
        "flips": best.description.trial.flips,
    }
    return graphs.pt2(program), graphs.onnx(program, told)


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
    strange = [name for name in names if name not in (*FILES, *OF_EARLIER_LAYOUTS)]
    if strange or (names and not _is_export(target)):
        held = ", ".join((strange or names)[:5])
        raise ResultsError(f"{target}: is not an earlier export and will not be overwritten; it holds {held}")


def _is_export(folder: Path) -> bool:
    try:
        described = files.read_json(folder / CONFIG)
    except ResultsError:
        return False
    return isinstance(described, Mapping) and "export" in described


def _read_metrics(file: Path) -> Mapping[str, Any]:
    metrics = readers.read_object(file, schemas.Metrics, run_folder.METRICS_REMEDY)
    if metrics is None:  # _refuse_missing has seen it: it was taken away since
        readers.refuse(file, "is not there", run_folder.METRICS_REMEDY)
    known = {split: metrics.get(split, {}) for split in EVALUATED_SPLITS}
    lacking = [f"{split}.{name}" for split in EVALUATED_SPLITS for name in NEEDED if known[split].get(name) is None]
    if lacking:
        readers.refuse(file, f"should hold {', '.join(lacking)}", run_folder.METRICS_REMEDY)
    return metrics


def _calibration(file: Path, metrics: Mapping[str, Any]) -> Calibration:
    known = {name: metrics[name] for name in Calibration.model_fields if name in metrics}
    return parse(Calibration, known, str(file))


def _describe(folder: RunFolder, metrics: Mapping[str, Any]) -> _Best:
    file = folder.best / CONFIG
    told = files.read_json(file)
    if (crop := told.get("preprocessing", PREPROCESSING) if isinstance(told, Mapping) else None) not in SAME_PIXELS:
        raise ResultsError(
            f"{file}: its photographs were cropped in another way (preprocessing {crop!r}; this retina, "
            f"{retina.__version__}, has {PREPROCESSING!r}); export with the version that trained it"
        )
    try:
        trial = parse(TrialConfig, told["trial"], f"{file}: trial")
        size = told["image_size"]
        preprocess = {
            "channels": "RGB",
            "crop": "fundus disc",
            "crop_version": told.get("preprocessing", PREPROCESSING),
            "image_size": size,
            "scale": "0 to 1",
            "mean": told["mean"],
            "std": told["std"],
            "graph_input": {"name": IMAGES, "dtype": "float32", "shape": ["batch", 3, size, size]},
        }
        description = {
            "export": LAYOUT,
            "retina": retina.__version__,
            "sweep": folder.name,
            "trial_id": metrics["trial_id"],
            "trial": trial,
            "architecture": _architecture(trial, size),
            "grades": told["grades"],
            **_calibration(folder.best / METRICS, metrics).model_dump(),
            "data_fingerprint": told.get("data_fingerprint", ""),
        }
        return _Best(metrics, parse(Description, description, str(file)), parse(Preprocess, preprocess, str(file)))
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
        "fc_widths": [*model.HEAD_WIDTHS[trial.head_layers], N_OUTPUTS[trial.loss]],
    }


def _read_best(file: Path) -> dict[str, torch.Tensor]:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
        # training leaves them channels last, which safetensors does not store
        return {str(name): tensor.contiguous() for name, tensor in state.items()}
    except OSError as error:
        raise as_disk_error(file, "cannot be read", error) from None
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ResultsError(f"{file}: cannot be read as weights: {first_line(error)}") from None


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that takes its place once it is whole.

    What exports that were killed have left beside it is removed once it is there.
    """
    place = target.resolve()
    tag = temporary_files.tag()
    partial, earlier = (place.with_name(f".{place.name}.{tag}{end}") for end in (".new", ".earlier.new"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if place.exists():
            place.rename(earlier)
        partial.rename(place)
        shutil.rmtree(earlier, ignore_errors=True)
        temporary_files.remove_siblings(place)
    except OSError as error:
        raise as_disk_error(target, "cannot be written", error) from None
    finally:
        if earlier.exists() and not place.exists():  # Ctrl-C comes here too
            earlier.rename(place)
        shutil.rmtree(partial, ignore_errors=True)


def _damaged(file: Path, error: Exception) -> ResultsError:
    return ResultsError(f"{file}: is not what a sweep writes: {type(error).__name__}: {error}")
