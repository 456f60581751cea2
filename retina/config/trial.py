"""The settings of one training run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retina.config.validation import Frozen


class TrialConfig(Frozen):
    """The settings of one training run. Every field can be searched; the defaults are those of the original report."""

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet18"
    pretrained: bool = True
    head_layers: Literal[2, 3] = 2
    dropout: float = Field(0.25, ge=0, lt=1)
    batch_size: int = Field(12, ge=1)
    epochs: int = Field(10, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd; adam and adamw do not use it")
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    loss: Literal["cross_entropy", "emd", "corn", "mse", "huber"] = Field(
        "cross_entropy", description="see training/losses.py"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of cross_entropy; others ignore it")
    class_weights: Literal["none", "balanced"] = "none"
    augmentation: Literal["none", "flip", "rotate", "full"] = "flip"
    mix: Literal["none", "mixup", "cutmix"] = Field("none", description="mixing of photographs and grades in a batch")
    mix_alpha: float = Field(0.2, gt=0, description="mixing shares are drawn from Beta(alpha, alpha)")
    freeze_epochs: int = Field(0, ge=0, description="first epochs in which only the head is trained")
    backbone_rate: float = Field(1.0, gt=0, description="the backbone's learning rate, as a multiple of the head's")
    ema: float = Field(0.0, ge=0, lt=1, description="decay per step of the weights' moving average (EMA); 0: no EMA")
    flips: bool = Field(False, description="evaluate a photograph as the mean of itself and its three mirror images")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = Field(0, ge=0, lt=2**32)
