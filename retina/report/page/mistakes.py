"""The most confident mistakes as pictures, with what the model looked at."""

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

SHOWN = 12
SIDE = 240
"""Pixels a side of a picture in the page; 24 of them are then about half a megabyte."""
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Mistake:
    """One photograph: what it is, what the model called it and how surely, and two pictures as data URIs."""

    image: str
    true: str
    called: str
    probability: float
    photograph: str
    looked_at: str
    speaks: bool
    """Whether any field speaks for the grade it was given."""


@dataclass(frozen=True)
class Mistakes:
    """The section: `shown`, what it says above (`about`), and why nothing is shown where nothing is (`problem`)."""

    shown: list[Mistake] = field(default_factory=list)
    about: str = ""
    problem: str = ""


def find(facts: RunData, device: torch.device | None = None) -> Mistakes:
    """Look for the best model's most confident mistakes; whatever stands in the way is said, never raised."""
    if facts.best is None or facts.predictions is None:
        return Mistakes(problem="There are no predictions of a best model yet.")
    split, rows = worst(facts.predictions)
    if rows.empty:
        return Mistakes(problem=f"The best model made no mistake on {split}.")
    try:
        return _shown(facts, facts.predictions, device or default_device())
    except (DataError, ResultsError) as error:
        return Mistakes(problem=f"The pictures cannot be shown: {error}")
    except Exception as error:  # a page without them is worth more than none
        log.debug("no pictures of mistakes", exc_info=True)
        return Mistakes(problem=f"The pictures cannot be shown: {type(error).__name__}: {error}")


def worst(predictions: pd.DataFrame, shown: int = SHOWN) -> tuple[str, pd.DataFrame]:
    """The wrong predictions on test (on validation where there is no test), the surest of its own grade first.

    Returns:
        What the split is called, and at most `shown` rows of `predictions` with the column `sure` (0 to 1) beside.
    """
    tested = (predictions["split"] == "test").any()
    rows = predictions[predictions["split"] == ("test" if tested else "val")]
    p = rows[PROBABILITY_COLUMNS].to_numpy(dtype=np.float64)
    sure = p[np.arange(len(rows)), rows["predicted"].to_numpy(dtype=np.int64)]
    wrong = rows.assign(sure=sure)[rows["predicted"] != rows["grade"]]
    return "test" if tested else "validation", wrong.sort_values("sure", ascending=False, kind="stable").head(shown)


def overlaid(photograph: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """A photograph uint8 (H, W, 3), darkened, and brightened in blue to yellow by `heat`, float (H, W), 0 to 1."""
    grey = photograph.mean(axis=2, keepdims=True) * 0.8
    colours = colormaps["cividis"](heat)[..., :3] * 255
    share = 0.75 * heat[..., None]
    blended: Pixels = np.clip(grey * (1 - share) + colours * share, 0, 255).astype(np.uint8)
    return blended


def _shown(facts: RunData, predictions: pd.DataFrame, device: torch.device) -> Mistakes:
    split, rows = worst(predictions)
    file = facts.folder.best / "config.json"
    checksums.verify_best(facts.folder.best, "config.json", "model.pt")
    config = read_json(file)
    try:
        trial, size = TrialConfig(**config["trial"]), int(config["image_size"])
        mean, std = (torch.tensor(config[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{file}: is not what a sweep writes: {type(error).__name__}") from None
    if config.get("preprocessing") not in fundus.SAME_PIXELS:
        raise ResultsError(
            f"{file}: the photographs were prepared by version {config.get('preprocessing')} of the crop"
        )
    net = _net(facts.folder.best / "model.pt", trial, size, device)
    data = facts.folder.data_config()
    manifest = layouts.read(dataset.resolve_synthetic(data)).frame
    places = [_row_of(manifest, row) for row in rows.to_dict(orient="records")]
    rows = rows[[place is not None for place in places]]
    if rows.empty:
        raise DataError(f"none of them is among the photographs in {data.path}")
    pixels = np.stack([_pixels(manifest.iloc[place], size) for place in places if place is not None])
    images = (to_float(torch.from_numpy(pixels).to(device)) - mean) / std
    called = torch.tensor(rows["predicted"].tolist(), device=device)
    maps = torch.cat([gradcam.heatmaps(net, images[[i]], called[[i]]) for i in range(len(images))])
    with torch.inference_mode():
        _, again = get_output_decoder(net)(net(images))
    if bool((again == NO_GRADE).any()):
        raise ResultsError(f"{facts.folder.best / 'model.pt'}: the model's output on some of them is not finite")
    about = _about(predictions, split, rows, maps) + _caveat(int((again != called).sum()), flips=trial.flips)
    shown = [_mistake(*one) for one in zip(rows.to_dict(orient="records"), pixels, maps.cpu(), strict=True)]
    return Mistakes(shown=shown, about=about)


def _about(predictions: pd.DataFrame, split: str, rows: pd.DataFrame, maps: torch.Tensor) -> str:
    of = predictions[predictions["split"] == rows["split"].iloc[0]]
    wrong = int((of["predicted"] != of["grade"]).sum())
    return (
        f"{len(rows)} of the {wrong:,} mistakes on {split} (n = {len(of):,}), the surest first. Beside each "
        "photograph, as the model sees it, Grad-CAM: the yellower a field, the more it speaks for the grade that was "
        f"given ({maps.shape[1]} x {maps.shape[2]} fields, smoothed). It says where the model looked, not that it was "
        "right to."
    )


def _caveat(other: int, *, flips: bool) -> str:
    """What does not quite fit: `other` of the photographs get another grade now."""
    if flips:
        return " The maps are of the photographs alone, the probabilities of them and their three mirror images."
    if not other:
        return ""
    return (
        f" {other} of them get another grade now than in predictions.csv: the photographs, or the software, are no "
        "longer the same."
    )


def _net(file: Path, trial: TrialConfig, size: int, device: torch.device) -> nn.Module:
    if not file.is_file():
        raise ResultsError(f"{file}: is not there")
    net = model.build(trial.model_copy(update={"pretrained": False}), size)
    net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return net.to(device).eval()


def _row_of(manifest: pd.DataFrame, told: dict[Any, Any]) -> int | None:
    """Where in the manifest a predicted photograph is; None where that is not clear."""
    same = (manifest["image"] == told["image"]) & (manifest["grade"] == told["grade"])
    if same.sum() > 1:
        same &= manifest["split"] == told["split"]
    return int(np.flatnonzero(same)[0]) if same.sum() == 1 else None


def _pixels(row: pd.Series[Any], size: int) -> Pixels:
    """A photograph as the model saw it, uint8 (size, size, 3)."""
    if not row["array"]:
        return fundus.read_square(Path(row["path"]), size)[0]
    with np.load(row["path"]) as arrays:
        photograph: Pixels = arrays[row["array"]][int(row["index"])]
    return fundus.to_square(photograph if photograph.ndim == 3 else np.repeat(photograph[..., None], 3, axis=2), size)[
        0
    ]


def _mistake(told: dict[Any, Any], pixels: Pixels, heat: torch.Tensor) -> Mistake:
    shown = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    wide = F.interpolate(heat[None, None], (SIDE, SIDE), mode="bicubic", align_corners=False)[0, 0].clamp(0, 1)
    return Mistake(
        image=str(told["image"]),
        true=_named(told["grade"]),
        called=_named(told["predicted"]),
        probability=float(told["sure"]),
        photograph=_uri(shown),
        looked_at=_uri(overlaid(shown, wide.numpy())),
        speaks=bool(heat.max() > 0),
    )


def _named(grade: Any) -> str:
    return f"{int(grade)} {GRADE_NAMES[int(grade)]}"


def _uri(pixels: Pixels) -> str:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
