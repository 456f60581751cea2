"""Export of the best model of a results folder."""

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
from retina.errors import ResultsError, SpecError, first_line, wrap_os_error
from retina.export import check, graphs
from retina.export.card import render_card
from retina.export.facts import CardData
from retina.export.folder import (
    CARD,
    CONFIG,
    FILES,
    FILES_OF_EARLIER_LAYOUTS,
    IMAGES,
    LAYOUT,
    LISTED,
    METRICS,
    ONNX,
    PREPROCESS,
    PROGRAM,
    WEIGHTS,
    Calibration,
    Description,
    Preprocess,
)
from retina.export.grader import Grader, build_grader
from retina.results import checksums, files, readers, run_folder, schemas
from retina.results.run_folder import RunFolder
from retina.system import temporary_files
from retina.training import model
from retina.training.losses import N_OUTPUTS

REQUIRED_METRICS = ("n", "accuracy", "qwk")
"""Keys that metrics.json must have for each split, whichever version wrote it."""


@dataclass(frozen=True)
class _Best:
    """The metrics and descriptions of the best model in best/."""

    metrics: Mapping[str, Any]
    description: Description
    preprocess: Preprocess


def export(run: Path, target: Path | None = None) -> Path:
    """Write the best model of a results folder to a folder of its own, completely or not at all.

    Args:
        run: a results folder.
        target: the exported folder; `run`/export if None. An earlier export is replaced.

    Returns:
        The exported folder.

    Raises:
        ResultsError: `run` is not a results folder or has no best model yet, one of its files is damaged, the
            probabilities of the weights differ from predictions.csv or those of a graph from torch's, or `target` holds
            something else than an earlier export or cannot be written.
    """
    folder = RunFolder.open(run)
    target = run / "export" if target is None else target
    _check_has_best(folder)
    _check_target(target)
    is_verified = checksums.verify_best(folder.best, "model.pt", CONFIG, METRICS, "predictions.csv")
    if not is_verified:
        checksums.log_unverified(folder.best)
    metrics = _read_metrics(folder.best / METRICS)
    card, best = CardData.of(folder, metrics), _describe(folder, metrics)
    size, source = best.preprocess.image_size, folder.best / "model.pt"
    weights = _read_weights(source)
    grader = build_grader(best.description.trial, size, weights, source, best.description.temperature)
    sample = check.load_sample(folder, size, is_fitted=grader.cut_points is not None)
    recorded = check.compare_with_recorded(grader, sample, best.preprocess, source)
    program, onnx = _create_graphs(grader, best)
    agreement = check.compare_graphs(grader, onnx, program, sample, best.preprocess)
    agreement = agreement.model_copy(update={**recorded, "verified": is_verified})
    description = best.description.model_copy(update={"cut_points": grader.cut_points, "check": agreement})
    text = render_card(card, description, best.preprocess)
    with _replace_folder(target) as partial:
        files.write_bytes(partial / ONNX, onnx)
        files.write_bytes(partial / PROGRAM, program)
        files.write_bytes(partial / WEIGHTS, safetensors.torch.save(weights, metadata={"format": "pt"}))
        files.write_json(partial / CONFIG, description.model_dump(mode="json"))
        files.write_json(partial / PREPROCESS, best.preprocess.model_dump(mode="json"))
        files.write_json(partial / METRICS, metrics)
        files.write_text(partial / CARD, text)
        checksums.write(partial, LISTED)
    return target


def _create_graphs(grader: Grader, best: _Best) -> tuple[bytes, bytes]:
    """Return the content of model.pt2 and model.onnx."""
    program = graphs.export_program(grader, best.preprocess.image_size)
    metadata = {
        "preprocess": best.preprocess.model_dump(mode="json"),
        "grades": best.description.grades,
        "temperature": best.description.temperature,
        "flips": best.description.trial.flips,
    }
    return graphs.serialize_pt2(program), graphs.serialize_onnx(program, metadata)


def _check_has_best(folder: RunFolder) -> None:
    missing = [name for name in ("model.pt", CONFIG, METRICS) if not (folder.best / name).is_file()]
    if missing:
        raise ResultsError(
            f"{folder.root}: no finished sweep, so there is no best model ({missing[0]} is not in best/)"
        )


def _check_target(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise ResultsError(f"{target}: is a file; name a folder")
    names = sorted(file.name for file in target.iterdir())
    unknown = [name for name in names if name not in (*FILES, *FILES_OF_EARLIER_LAYOUTS)]
    if unknown or (names and not _is_export(target)):
        shown = ", ".join((unknown or names)[:5])
        raise ResultsError(f"{target}: is not an earlier export and will not be overwritten; it holds {shown}")


def _is_export(folder: Path) -> bool:
    try:
        config = files.read_json(folder / CONFIG)
    except ResultsError:
        return False
    return isinstance(config, Mapping) and "export" in config


def _read_metrics(file: Path) -> Mapping[str, Any]:
    metrics = readers.read_object(file, schemas.Metrics, run_folder.METRICS_REMEDY)
    if metrics is None:  # removed since `_check_has_best`
        readers.raise_results_error(file, "does not exist", run_folder.METRICS_REMEDY)
    splits = {split: metrics.get(split, {}) for split in EVALUATED_SPLITS}
    missing = [
        f"{split}.{name}" for split in EVALUATED_SPLITS for name in REQUIRED_METRICS if splits[split].get(name) is None
    ]
    if missing:
        readers.raise_results_error(file, f"should hold {', '.join(missing)}", run_folder.METRICS_REMEDY)
    return metrics


def _calibration(file: Path, metrics: Mapping[str, Any]) -> Calibration:
    values = {name: metrics[name] for name in Calibration.model_fields if name in metrics}
    return parse(Calibration, values, str(file))


def _describe(folder: RunFolder, metrics: Mapping[str, Any]) -> _Best:
    file = folder.best / CONFIG
    config = files.read_json(file)
    crop = config.get("preprocessing", PREPROCESSING) if isinstance(config, Mapping) else None
    if crop not in SAME_PIXELS:
        raise ResultsError(
            f"{file}: its photographs were cropped by another preprocessing ({crop!r}; this retina, "
            f"{retina.__version__}, has {PREPROCESSING!r}); export with the version that trained it"
        )
    try:
        trial = parse(TrialConfig, config["trial"], f"{file}: trial")
        size = config["image_size"]
        preprocess = {
            "channels": "RGB",
            "crop": "fundus disc",
            "crop_version": config.get("preprocessing", PREPROCESSING),
            "image_size": size,
            "scale": "0 to 1",
            "mean": config["mean"],
            "std": config["std"],
            "graph_input": {"name": IMAGES, "dtype": "float32", "shape": ["batch", 3, size, size]},
        }
        description = {
            "export": LAYOUT,
            "retina": retina.__version__,
            "sweep": folder.name,
            "trial_id": metrics["trial_id"],
            "trial": trial,
            "architecture": _architecture(trial, size),
            "grades": config["grades"],
            **_calibration(folder.best / METRICS, metrics).model_dump(),
            "data_fingerprint": config.get("data_fingerprint", ""),
        }
        return _Best(metrics, parse(Description, description, str(file)), parse(Preprocess, preprocess, str(file)))
    except SpecError as error:
        raise ResultsError(str(error)) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged_error(file, error) from None


def _architecture(trial: TrialConfig, image_size: int) -> dict[str, Any]:
    is_small = image_size < model.SMALL_IMAGE
    return {
        "network": f"torchvision.models.{trial.arch}",
        "stem": "conv1 3x3 of stride 1, no maxpool" if is_small else "as torchvision's",
        "fc": "linear layers to these widths; ReLU and dropout after all but the last",
        "fc_widths": [*model.HEAD_WIDTHS[trial.head_layers], N_OUTPUTS[trial.loss]],
    }


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
        # training leaves them in channels-last layout, which safetensors does not store
        return {str(name): tensor.contiguous() for name, tensor in state.items()}
    except OSError as error:
        raise wrap_os_error(file, "cannot be read", error) from None
    except Exception as error:  # torch.load raises whatever its unpickler raises
        raise ResultsError(f"{file}: cannot be read as weights: {first_line(error)}") from None


@contextmanager
def _replace_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that replaces it when the block ends without an error.

    Temporary folders of exports that were killed are removed afterwards.
    """
    path = target.resolve()
    tag = temporary_files.unique_tag()
    partial, earlier = (path.with_name(f".{path.name}.{tag}{end}") for end in (".new", ".earlier.new"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            path.rename(earlier)
        partial.rename(path)
        shutil.rmtree(earlier, ignore_errors=True)
        temporary_files.remove_unfinished_folders(path)
    except OSError as error:
        raise wrap_os_error(target, "cannot be written", error) from None
    finally:
        if earlier.exists() and not path.exists():  # reached on Ctrl-C too
            earlier.rename(path)
        shutil.rmtree(partial, ignore_errors=True)


def _damaged_error(file: Path, error: Exception) -> ResultsError:
    return ResultsError(f"{file}: is not what a sweep writes: {type(error).__name__}: {error}")
