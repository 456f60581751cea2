"""Frozen, validated settings of one training run, of its photographs, and of a whole sweep.

`TrialConfig` holds the settings of one training run, `DataConfig` those of its photographs, and `SweepSpec` those of a
sweep file. Nothing here imports torch, Ray or Optuna.
"""

from retina.config.data import DataConfig, SyntheticConfig
from retina.config.grades import GRADE_NAMES, GRADES, UNGRADABLE
from retina.config.sweep import SweepSpec
from retina.config.trial import TrialConfig
from retina.config.validation import Frozen, SettingError, parse

__all__ = [
    "GRADES",
    "GRADE_NAMES",
    "UNGRADABLE",
    "DataConfig",
    "Frozen",
    "SettingError",
    "SweepSpec",
    "SyntheticConfig",
    "TrialConfig",
    "parse",
]
