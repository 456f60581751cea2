"""Sweeps that are planned and not run, and the disk that they would need."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

from retina.config.sweep import SweepSpec

GIB = 2**30
PARAMETERS: dict[str, Any] = {
    "pretrained": {"value": False},
    "batch_size": {"values": [4, 8, 16], "ordered": True},
    "learning_rate": {"distribution": "log_uniform", "min": 1e-5, "max": 1e-1},
    "optimizer": {"values": ["sgd", "adamw"]},
    "momentum": {"distribution": "uniform", "min": 0.8, "max": 0.99, "when": {"optimizer": "sgd"}},
}
Usage = namedtuple("Usage", "total used free")  # noqa: PYI024  # as shutil's own


def spec_of(**changes: Any) -> SweepSpec:
    return SweepSpec(**{"name": "planned", "trials": 12, "parameters": PARAMETERS, **changes})


def searched(arch: str = "resnet18", *optimizers: str, **changes: Any) -> SweepSpec:
    """A sweep of one architecture, or of several, separated by commas."""
    sizes = {"arch": {"values": arch.split(",")}, "optimizer": {"values": list(optimizers) or ["sgd"]}}
    return spec_of(parameters={**sizes, "pretrained": {"value": False}}, **changes)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
