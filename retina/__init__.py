"""Find the best diabetic-retinopathy grader that a set of fundus photographs and a number of GPU-hours can buy.

The Python API does what the command line does, and returns tables as pandas frames:

    spec = retina.load_sweep("sweeps/demo.yaml", trials=2, overrides=["parameters.epochs.value=1"])
    run = retina.run_sweep(spec, results="results")
    run.trials, run.best

Each name is imported when it is used: `import retina` imports neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retina.api import (
        audit,
        export,
        load_sweep,
        open_run,
        predict,
        prepare,
        run_sweep,
        train,
    )
    from retina.config import DataConfig, SweepSpec, SyntheticConfig, TrialConfig
    from retina.errors import (
        ClusterError,
        DataError,
        DiskError,
        ModelOutputError,
        NodeError,
        ResultsError,
        RetinaError,
        SpecError,
        TrainError,
        WeightsError,
    )
    from retina.run import BestTrial, Run

__version__ = "0.2.0.dev0"

__all__ = [
    "BestTrial",
    "ClusterError",
    "DataConfig",
    "DataError",
    "DiskError",
    "ModelOutputError",
    "NodeError",
    "ResultsError",
    "RetinaError",
    "Run",
    "SpecError",
    "SweepSpec",
    "SyntheticConfig",
    "TrainError",
    "TrialConfig",
    "WeightsError",
    "audit",
    "export",
    "load_sweep",
    "open_run",
    "predict",
    "prepare",
    "run_sweep",
    "train",
]

_PACKAGES = {"audit", "export", "predict"}
"""Packages that are called like the function of their name, see `retina.callable_package`."""
_MODULES = {
    **dict.fromkeys(("BestTrial", "Run"), "retina.run"),
    **dict.fromkeys(("DataConfig", "SweepSpec", "SyntheticConfig", "TrialConfig"), "retina.config"),
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "retina.errors"),
}


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is used first (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_MODULES.get(name, "retina.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
