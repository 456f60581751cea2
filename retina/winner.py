"""The best trial, looked at once more: its predictions on validation and test, and what they prove, in `best/`.

The only room that touches the test split for a number that is reported, and it does so once, after the choice is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch

from retina import model, results
from retina.config import GRADE_NAMES, TrialConfig, parse
from retina.data.batches import MEAN, STD, Part
from retina.data.fundus import PREPROCESSING
from retina.data.photographs import Photographs
from retina.errors import ResultsError, SpecError
from retina.evaluation import Evaluation, evaluate
from retina.evidence import baselines, numbers
from retina.evidence.seen import COLUMNS, PROBABILITIES
from retina.ordinal import OUTPUTS
from retina.results import RunFolder
from retina.train import default_device

FITTED = "The cut-points were fitted on validation, so its numbers here flatter; trials.csv has cross-fitted ones."
"""Said of a model that was trained with `mse` or `huber`."""


def crown(folder: RunFolder, trial_id: str, photographs: Photographs, metric: str) -> dict[str, Any]:
    """Evaluate a trial's kept weights on validation and test and write `best/`; returns what metrics.json says.

    Raises:
        ResultsError: the trial's configuration or its weights are not there.
    """
    config, weights = kept(folder, trial_id)
    row = folder.recorded(trial_id)
    judge = judge_of(config, weights, photographs)
    predictions = predictions_of(photographs.frame, {name: judge(photographs.part(name)) for name in ("val", "test")})
    told = numbers.of_predictions(predictions)
    metrics: dict[str, Any] = {
        "verdict": told.pop("verdict"),
        "trial_id": trial_id,
        "epoch": int(row["best_epoch"]),
        "precision": "float32, as the model runs elsewhere; trials.csv has the precision it was trained in",
        "chosen_by": f"{metric} (validation; the test split chose nothing)",
        **({"note": FITTED} if OUTPUTS[config.loss] == 1 else {}),
        **told,
    }
    results.copy_file(folder.trial(trial_id) / "model.pt", folder.best / "model.pt")
    results.write_json(folder.best / "config.json", model_config(config, photographs))
    results.write_frame(folder.best / "predictions.csv", predictions)
    results.write_json(folder.best / "metrics.json", metrics)
    return metrics


def kept(folder: RunFolder, trial_id: str) -> tuple[TrialConfig, dict[str, torch.Tensor]]:
    """The configuration of a trial, and the weights that it kept.

    Raises:
        ResultsError: one of them is not there, or damaged.
    """
    source = folder.trial(trial_id)
    if not (source / "model.pt").is_file():
        raise ResultsError(f"{source / 'model.pt'}: is not there; the trial's weights are needed for {folder.best}")
    try:
        config = parse(TrialConfig, results.read_json(source / "config.json"), str(source / "config.json"))
        weights: dict[str, torch.Tensor] = torch.load(source / "model.pt", map_location="cpu", weights_only=True)
    except SpecError as error:
        raise ResultsError(str(error)) from None
    except ResultsError:
        raise
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ResultsError(f"{source / 'model.pt'}: cannot be read as weights: {type(error).__name__}") from None
    return config, weights


def judge_of(
    config: TrialConfig, weights: dict[str, torch.Tensor], photographs: Photographs
) -> Callable[[Part], Evaluation]:
    """What evaluates the model with these weights on a split, in float32.

    Raises:
        ResultsError: the weights are not of such a model.
    """
    device = default_device()
    grader = model.build(config.model_copy(update={"pretrained": False}), photographs.config.image_size)
    try:
        grader.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        problem = " ".join(str(error).split())[:160]
        raise ResultsError(
            f"weights of a trial do not fit {config.arch} as its config.json has it: {problem}"
        ) from None
    grader.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return partial(evaluate, grader, device=device, flips=config.flips)


def predictions_of(manifest: pd.DataFrame, seen: dict[str, Evaluation]) -> pd.DataFrame:
    """A row a photograph of each split that was seen, `COLUMNS`: all that `numbers.of_predictions` asks for."""
    return pd.concat([_predictions(manifest, split, one) for split, one in seen.items()])


def model_config(config: TrialConfig, photographs: Photographs) -> dict[str, object]:
    """All that is needed beside the weights to use a model elsewhere: its settings, its input and its classes."""
    return {
        "trial": config.model_dump(mode="json"),
        "image_size": photographs.config.image_size,
        "mean": list(MEAN),
        "std": list(STD),
        "preprocessing": PREPROCESSING,
        "grades": list(GRADE_NAMES),
        "data_fingerprint": photographs.fingerprint,
    }


def _predictions(manifest: pd.DataFrame, split: str, seen: Evaluation) -> pd.DataFrame:
    frame = manifest.loc[manifest["split"] == split, ["split", "image", "patient", "eye", "grade"]]
    frame = frame.reset_index(drop=True)
    frame["predicted"] = seen.predicted
    frame[PROBABILITIES] = seen.probabilities  # unrounded: who measures them again gets the same numbers
    frame["majority"] = baselines.majority_grade(manifest)
    frame["fellow_eye"] = baselines.fellow_grades(manifest, split)
    return frame[COLUMNS]
