"""Photographs so small that a grader trains on them in seconds."""

from typing import get_args

import numpy as np
import pandas as pd
import torch

from retina.config import GRADES, DataConfig, SyntheticConfig, TrialConfig
from retina.data.dataset import FundusDataset, prepare
from retina.data.loader import SplitView

CPU = torch.device("cpu")
AUGMENTATIONS = get_args(TrialConfig.model_fields["augmentation"].annotation)
DATA = DataConfig(
    image_size=16, synthetic=SyntheticConfig(photographs=24, size=64, proportions="balanced"), validation=0.2, test=0.25
)


def part(grades: list[int], size: int = 16, *, seed: int = 0, beside: int = 0) -> SplitView:
    """Build noise that is brighter for higher grades, in every second row of an array after `beside` other rows."""
    rng = np.random.default_rng(seed)
    rows = beside + 2 * np.arange(len(grades))
    pixels = np.full((beside + 2 * len(grades), size, size, 3), 255, dtype=np.uint8)
    for row, grade in zip(rows, grades, strict=True):
        pixels[row] = rng.integers(50 * grade, 50 * grade + 20, (size, size, 3))
    pixels.setflags(write=False)
    return SplitView(pixels, rows, np.array(grades, dtype=np.int64))


def config(**changed: object) -> TrialConfig:
    """Return the configuration of a run of two epochs on the CPU, from scratch."""
    small = {"pretrained": False, "epochs": 2, "batch_size": 4, "precision": "float32", "dropout": 0.0}
    return TrialConfig.model_validate({**small, **changed})


def photographs(**changed: object) -> FundusDataset:
    """Prepare 24 drawn photographs with 16-pixel model input; they are drawn and decoded once per session."""
    return prepare(DATA.model_copy(update=changed))


def counts(frame: pd.DataFrame) -> list[int]:
    """Return the number of photographs per grade."""
    return np.bincount(frame["grade"], minlength=GRADES).tolist()
