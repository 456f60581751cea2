"""The most confident mistakes: photographs with Grad-CAM maps of the predicted grade."""

from __future__ import annotations

import base64
import io
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from matplotlib import colormaps
from PIL import Image
from torch import nn

from retina.config import GRADE_NAMES, TrialConfig
from retina.data import dataset, fundus, layouts
from retina.data.loader import to_float
from retina.errors import DataError, ResultsError
from retina.metrics.probabilities import NO_GRADE, PROBABILITY_COLUMNS
from retina.report.page import gradcam
from retina.report.page.run_data import RunData
from retina.results import checksums
from retina.results.files import read_json
from retina.training import model
from retina.training.losses import get_output_decoder
from retina.training.trainer import default_device

log = logging.getLogger(__name__)

MAX_MISTAKES = 12
SIDE = 240
"""Side of a picture on the page, in pixels. 24 pictures of this size take about half a megabyte."""
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Mistake:
    """A photograph with a wrong prediction.

    Attributes:
        image: name of the photograph.
        true: true grade, number and name.
        predicted: predicted grade, number and name.
        probability: probability of the predicted grade, 0 to 1.
        photograph: data URI of the photograph.
        heatmap: data URI of the photograph with its Grad-CAM map.
        has_evidence: whether any field of the map supports the predicted grade.
    """

    image: str
    true: str
    predicted: str
    probability: float
    photograph: str
    heatmap: str
    has_evidence: bool


@dataclass(frozen=True)
class Mistakes:
    """The section of mistakes.

    Attributes:
        pictured: the mistakes, the most confident first.
        description: text above the pictures.
        problem: why there are no pictures; empty if there are some.
    """

    pictured: list[Mistake] = field(default_factory=list)
    description: str = ""
    problem: str = ""


def find(run: RunData, device: torch.device | None = None) -> Mistakes:
    """Return the best model's most confident mistakes; an error becomes `Mistakes.problem` and is never raised."""
    if run.best is None or run.predictions is None:
        return Mistakes(problem="There are no predictions of a best model yet.")
    split, rows = worst(run.predictions)
    if rows.empty:
        return Mistakes(problem=f"The best model made no mistake on {split}.")
    try:
        return _picture(run, run.predictions, device or default_device())
    except (DataError, ResultsError) as error:
        return Mistakes(problem=f"The pictures cannot be shown: {error}")
    except Exception as error:  # a page without pictures is better than no page
        log.debug("no pictures of mistakes", exc_info=True)
        return Mistakes(problem=f"The pictures cannot be shown: {type(error).__name__}: {error}")


def worst(predictions: pd.DataFrame, max_rows: int = MAX_MISTAKES) -> tuple[str, pd.DataFrame]:
    """Return the wrong predictions on test, the most confident first; those on validation if there is no test split.

    Returns:
        The split's name, and at most `max_rows` rows of `predictions` with the additional column `confidence`, the
        probability of the predicted grade (0 to 1).
    """
    has_test = (predictions["split"] == "test").any()
    rows = predictions[predictions["split"] == ("test" if has_test else "val")]
    p = rows[PROBABILITY_COLUMNS].to_numpy(dtype=np.float64)
    confidence = p[np.arange(len(rows)), rows["predicted"].to_numpy(dtype=np.int64)]
    wrong = rows.assign(confidence=confidence)[rows["predicted"] != rows["grade"]]
    ranked = wrong.sort_values("confidence", ascending=False, kind="stable")
    return "test" if has_test else "validation", ranked.head(max_rows)


def overlay(photograph: Pixels, heatmap: npt.NDArray[np.float32]) -> Pixels:
    """Return a photograph, darkened and grey, overlaid with a map in blue (0) to yellow (1).

    Args:
        photograph: uint8 (H, W, 3).
        heatmap: float (H, W), 0 to 1.
    """
    grey = photograph.mean(axis=2, keepdims=True) * 0.8
    colours = colormaps["cividis"](heatmap)[..., :3] * 255
    share = 0.75 * heatmap[..., None]
    blended: Pixels = np.clip(grey * (1 - share) + colours * share, 0, 255).astype(np.uint8)
    return blended


def _picture(run: RunData, predictions: pd.DataFrame, device: torch.device) -> Mistakes:
    split, rows = worst(predictions)
    file = run.folder.best / "config.json"
    checksums.verify_best(run.folder.best, "config.json", "model.pt")
    config = read_json(file)
    try:
        trial, size = TrialConfig(**config["trial"]), int(config["image_size"])
        mean, std = (torch.tensor(config[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{file}: does not have the content that a sweep writes: {type(error).__name__}") from None
    if config.get("preprocessing") not in fundus.SAME_PIXELS:
        raise ResultsError(
            f"{file}: the photographs were prepared by version {config.get('preprocessing')} of the preprocessing"
        )
    net = _load_model(run.folder.best / "model.pt", trial, size, device)
    data = run.folder.data_config()
    manifest = layouts.read(dataset.resolve_synthetic(data)).frame
    indices = [_manifest_index(manifest, row) for row in rows.to_dict(orient="records")]
    rows = rows[[index is not None for index in indices]]
    if rows.empty:
        raise DataError(f"{data.path}: contains none of the photographs with mistakes")
    pixels = np.stack([_read_pixels(manifest.iloc[index], size) for index in indices if index is not None])
    images = (to_float(torch.from_numpy(pixels).to(device)) - mean) / std
    predicted = torch.tensor(rows["predicted"].tolist(), device=device)
    maps = torch.cat([gradcam.heatmaps(net, images[[i]], predicted[[i]]) for i in range(len(images))])
    with torch.inference_mode():
        _, predicted_now = get_output_decoder(net)(net(images))
    if bool((predicted_now == NO_GRADE).any()):
        raise ResultsError(f"{run.folder.best / 'model.pt'}: the model's output for a photograph is not finite")
    caveat = _caveat(int((predicted_now != predicted).sum()), flips=trial.flips)
    records = rows.to_dict(orient="records")
    pictured = [_mistake(*parts) for parts in zip(records, pixels, maps.cpu(), strict=True)]
    return Mistakes(pictured=pictured, description=_description(predictions, split, rows, maps) + caveat)


def _description(predictions: pd.DataFrame, split: str, rows: pd.DataFrame, maps: torch.Tensor) -> str:
    evaluated = predictions[predictions["split"] == rows["split"].iloc[0]]
    n_wrong = int((evaluated["predicted"] != evaluated["grade"]).sum())
    return (
        f"{len(rows)} of the {n_wrong:,} mistakes on {split} (n = {len(evaluated):,}), the most confident first. Left: "
        "the photograph as the model receives it. Right: its Grad-CAM map; the yellower a field, the more it supports "
        f"the predicted grade ({maps.shape[1]} x {maps.shape[2]} fields, smoothed). The map shows which regions the "
        "model used, not whether they are relevant."
    )


def _caveat(n_changed: int, *, flips: bool) -> str:
    """Return how the maps and predictions.csv differ; `n_changed` photographs have another predicted grade now."""
    if flips:
        return " The maps are of the photographs alone; the probabilities also average their three mirror images."
    if not n_changed:
        return ""
    return (
        f" {n_changed} of them get another grade now than in predictions.csv, because the photographs or the software "
        "have changed."
    )


def _load_model(file: Path, trial: TrialConfig, size: int, device: torch.device) -> nn.Module:
    if not file.is_file():
        raise ResultsError(f"{file}: does not exist")
    net = model.build(trial.model_copy(update={"pretrained": False}), size)
    net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return net.to(device).eval()


def _manifest_index(manifest: pd.DataFrame, prediction: dict[Any, Any]) -> int | None:
    """Return the position in the manifest of a predicted photograph; None if it is missing or ambiguous."""
    matches = (manifest["image"] == prediction["image"]) & (manifest["grade"] == prediction["grade"])
    if matches.sum() > 1:
        matches &= manifest["split"] == prediction["split"]
    return int(np.flatnonzero(matches)[0]) if matches.sum() == 1 else None


def _read_pixels(row: pd.Series[Any], size: int) -> Pixels:
    """Read a photograph as the model receives it, uint8 (size, size, 3)."""
    if not row["array"]:
        return fundus.read_square(Path(row["path"]), size)[0]
    with np.load(row["path"]) as arrays:
        photograph: Pixels = arrays[row["array"]][int(row["index"])]
    if photograph.ndim != 3:
        photograph = np.repeat(photograph[..., None], 3, axis=2)
    return fundus.to_square(photograph, size)[0]


def _mistake(prediction: dict[Any, Any], pixels: Pixels, heatmap: torch.Tensor) -> Mistake:
    photograph = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    enlarged = F.interpolate(heatmap[None, None], (SIDE, SIDE), mode="bicubic", align_corners=False)[0, 0].clamp(0, 1)
    return Mistake(
        image=str(prediction["image"]),
        true=_format_grade(prediction["grade"]),
        predicted=_format_grade(prediction["predicted"]),
        probability=float(prediction["confidence"]),
        photograph=_data_uri(photograph),
        heatmap=_data_uri(overlay(photograph, enlarged.numpy())),
        has_evidence=bool(heatmap.max() > 0),
    )


def _format_grade(grade: Any) -> str:
    return f"{int(grade)} {GRADE_NAMES[int(grade)]}"


def _data_uri(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
