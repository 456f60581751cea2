"""The best trial, looked at once more: its predictions on validation and test, written to `best/`.

The only room that touches the test split for a number that is reported, and it does so once, after the choice is made.
"""

from __future__ import annotations

import pandas as pd
import torch

from retina import model, results
from retina.config import GRADE_NAMES, GRADES, TrialConfig
from retina.data.batches import MEAN, STD
from retina.data.fundus import PREPROCESSING
from retina.data.photographs import Photographs
from retina.errors import ResultsError
from retina.results import RunFolder
from retina.train import Evaluation, default_device, evaluate


def crown(folder: RunFolder, trial_id: str, photographs: Photographs, metric: str) -> dict[str, object]:
    """Evaluate a trial's kept weights on validation and test and write `best/`; returns what metrics.json says.

    Raises:
        ResultsError: the trial's configuration or its weights are not there.
    """
    source = folder.trial(trial_id)
    if not (source / "model.pt").is_file():
        raise ResultsError(f"{source / 'model.pt'}: is not there; the trial's weights are needed for {folder.best}")
    config = TrialConfig(**results.read_json(source / "config.json"))
    row = folder.recorded(trial_id)
    weights = torch.load(source / "model.pt", map_location="cpu", weights_only=True)
    device = default_device()
    grader = model.build(config.model_copy(update={"pretrained": False}), photographs.config.image_size)
    grader.load_state_dict(weights)
    grader.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    metrics: dict[str, object] = {
        "trial_id": trial_id,
        "epoch": int(row["best_epoch"]),
        "precision": "float32, as the model runs elsewhere; trials.csv has the precision it was trained in",
        "chosen_by": f"{metric} (validation; the test split chose nothing)",
    }
    predictions = []
    for name in ("val", "test"):
        seen = evaluate(grader, photographs.part(name), device=device)
        metrics[name] = {**seen.metrics.as_json(), "loss": seen.loss}
        predictions.append(_predictions(photographs, name, seen))
    results.copy_file(source / "model.pt", folder.best / "model.pt")
    results.write_json(folder.best / "config.json", model_config(config, photographs))
    results.write_frame(folder.best / "predictions.csv", pd.concat(predictions))
    results.write_json(folder.best / "metrics.json", metrics)
    return metrics


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


def _predictions(photographs: Photographs, name: str, seen: Evaluation) -> pd.DataFrame:
    frame = photographs.frame.loc[photographs.frame["split"] == name, ["split", "image", "patient", "eye", "grade"]]
    frame = frame.reset_index(drop=True)
    frame["predicted"] = seen.probabilities.argmax(axis=1)
    for grade in range(GRADES):
        frame[f"p{grade}"] = seen.probabilities[:, grade]  # unrounded: who measures them again gets the same numbers
    return frame
