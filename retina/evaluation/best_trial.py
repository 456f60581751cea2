"""The evaluation of the best trial: its predictions on validation and test and their metrics, written to `best/`.

The test split is evaluated after the trial is chosen.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch

from retina.config import GRADE_NAMES, TrialConfig, parse
from retina.data.dataset import FundusDataset
from retina.data.fundus import PREPROCESSING
from retina.data.loader import MEAN, STD, SplitView
from retina.errors import ModelOutputError, ResultsError, SpecError, as_disk_error, one_line
from retina.metrics import baselines, summary
from retina.metrics.predictions import PREDICTION_COLUMNS
from retina.metrics.probabilities import PROBABILITY_COLUMNS
from retina.results import checksums, files
from retina.results.run_folder import RunFolder
from retina.training import model
from retina.training.inference import Evaluation, compute_outputs, evaluate, evaluate_cross_fitted
from retina.training.losses import get_output_decoder
from retina.training.trainer import default_device

BEST_TRIAL_FILES = ("model.pt", "config.json", "predictions.csv", "metrics.json")
"""The files of the best trial in `best/`; figures, ensemble and soup are added by the modules that make them."""


def evaluate_best_trial(folder: RunFolder, trial_id: str, photographs: FundusDataset, metric: str) -> dict[str, Any]:
    """Evaluate a trial's weights on validation and test, and write `best/`.

    Files of an earlier best trial are removed, and `SHA256SUMS` is written last: a process that is killed in between
    leaves a folder that fails verification, and that `--resume` evaluates again.

    Args:
        folder: the sweep's folder.
        trial_id: the trial to evaluate.
        photographs: the sweep's photographs.
        metric: the metric by which the trial was chosen, for metrics.json.

    Returns:
        The content of metrics.json.

    Raises:
        ResultsError: the trial's configuration or weights are missing or damaged.
        ModelOutputError: the model's output on a photograph is not finite; `best/` stays as it was.
    """
    config, weights = load_trial(folder, trial_id)
    row = folder.trial_row(trial_id)
    evaluator = TrialEvaluator(config, weights, photographs, f"trial {trial_id}")
    evaluations = {"val": evaluator.evaluate_validation(), "test": evaluator(photographs.split_view("test"))}
    predictions = predictions_frame(photographs.frame, evaluations)
    summarized = summary.summarize(predictions)
    metrics: dict[str, Any] = {
        "verdict": summarized.pop("verdict"),
        "trial_id": trial_id,
        "epoch": int(row["best_epoch"]),
        "precision": "float32, as the model runs elsewhere; trials.csv has the precision it was trained in",
        "chosen_by": f"{metric} (validation; the test split chose nothing)",
        **summarized,
    }
    _remove_earlier(folder)
    files.copy_file(folder.trial(trial_id) / "model.pt", folder.best / "model.pt")
    files.write_json(folder.best / "config.json", model_config(config, photographs))
    files.write_frame(folder.best / "predictions.csv", predictions)
    files.write_json(folder.best / "metrics.json", metrics)
    checksums.write(folder.best, BEST_TRIAL_FILES)
    return metrics


def load_trial(folder: RunFolder, trial_id: str) -> tuple[TrialConfig, dict[str, torch.Tensor]]:
    """Load a trial's configuration and the weights that it kept.

    Raises:
        ResultsError: one of them is missing or damaged.
    """
    source = folder.trial(trial_id)
    if not (source / "model.pt").is_file():
        raise ResultsError(f"{source / 'model.pt'}: is missing; {folder.best} is written from the trial's weights")
    if not checksums.verify(source, ("model.pt", "config.json"), _remedy(folder, trial_id)):
        checksums.tell_unverified(source)
    try:
        config = parse(TrialConfig, files.read_json(source / "config.json"), str(source / "config.json"))
        weights: dict[str, torch.Tensor] = torch.load(source / "model.pt", map_location="cpu", weights_only=True)
    except SpecError as error:
        raise ResultsError(str(error)) from None
    except ResultsError:
        raise
    except OSError as error:
        raise as_disk_error(source / "model.pt", "cannot be read", error) from None
    except Exception as error:  # torch.load raises errors of any type
        raise ResultsError(f"{source / 'model.pt'}: cannot be read as weights: {type(error).__name__}") from None
    return config, weights


class TrialEvaluator:
    """Evaluates a model with the weights of a trial, or of the soup of several, in float32.

    An evaluation raises ModelOutputError if the model's output on a photograph is not finite; the message begins with
    the evaluator's name.
    """

    def __init__(
        self, config: TrialConfig, weights: dict[str, torch.Tensor], photographs: FundusDataset, name: str = "the model"
    ) -> None:
        """Build the model and load the weights.

        Args:
            config: the trial's configuration.
            weights: the state dict.
            photographs: the sweep's photographs.
            name: beginning of error messages, for example "trial a1b2".

        Raises:
            ResultsError: the weights do not fit the configuration, or their cut-points are damaged.
        """
        self._name = name
        self._device, self._flips, self._photographs = default_device(), config.flips, photographs
        net = model.build(config.model_copy(update={"pretrained": False}), photographs.config.image_size)
        try:
            net.load_state_dict(weights)
        except (RuntimeError, AttributeError, TypeError) as error:
            network = f"{config.arch} at {photographs.config.image_size} px as config.json has it"
            raise ResultsError(f"{name}: the weights do not fit {network}: {one_line(error, 160)}") from None
        if problem := get_output_decoder(net).problem:
            raise ResultsError(f"{name}: the weights are damaged: {problem}")
        self._net = net.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, split: SplitView) -> Evaluation:
        """Evaluate the model on a split."""
        with self._prefix_errors():
            return evaluate(self._net, split, device=self._device, flips=self._flips)

    def evaluate_validation(self, *, refit: bool = False) -> Evaluation:
        """Evaluate the model on the validation split as training does, with cross-fitted cut-points, if it has any.

        Args:
            refit: replace the model's cut-points with those fitted on the whole validation split.
        """
        val = self._photographs.split_view("val")
        raw = compute_outputs(self._net, val, device=self._device, flips=self._flips)
        decoder = get_output_decoder(self._net)
        with self._prefix_errors():
            return evaluate_cross_fitted(raw, val, decoder if refit else copy.deepcopy(decoder))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the model's state dict, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self._net.state_dict().items()}

    @contextmanager
    def _prefix_errors(self) -> Iterator[None]:
        try:
            yield
        except ModelOutputError as error:
            raise ModelOutputError(f"{self._name}: {error}") from None


def predictions_frame(manifest: pd.DataFrame, evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    """Return `PREDICTION_COLUMNS`, a row per photograph of each evaluated split, as `summary.summarize` reads them."""
    return pd.concat([_split_frame(manifest, split, evaluation) for split, evaluation in evaluations.items()])


def model_config(config: TrialConfig, photographs: FundusDataset) -> dict[str, object]:
    """Return what is needed besides the weights to use a model elsewhere: its settings, its input and its classes."""
    return {
        "trial": config.model_dump(mode="json"),
        "image_size": photographs.config.image_size,
        "mean": list(MEAN),
        "std": list(STD),
        "preprocessing": PREPROCESSING,
        "grades": list(GRADE_NAMES),
        "data_fingerprint": photographs.fingerprint,
        **checksums.MARK,
    }


def _remove_earlier(folder: RunFolder) -> None:
    """Remove the listed files of `best/` other than `BEST_TRIAL_FILES`, for example an earlier best trial's figures."""
    try:
        sums = checksums.listed(folder.best) or {}
    except ResultsError:  # a damaged list; it is written anew
        sums = {}
    for name in sums.keys() - set(BEST_TRIAL_FILES):
        (folder.best / name).unlink(missing_ok=True)


def _remedy(folder: RunFolder, trial_id: str) -> str:
    """Return the remedy for a trial's damaged weights: `best/` may hold a copy of them."""
    try:
        trial, best = (checksums.listed(path) or {} for path in (folder.trial(trial_id), folder.best))
        is_copy = "model.pt" in trial and trial["model.pt"] == best.get("model.pt")
        if is_copy and not checksums.problem(folder.best, "model.pt", best):
            return f"{folder.best / 'model.pt'} is an undamaged copy of the weights: copy it there"
    except ResultsError:
        pass
    return "put a copy of the file back; the sweep cannot train this trial again, but --extend adds others"


def _split_frame(manifest: pd.DataFrame, split: str, evaluation: Evaluation) -> pd.DataFrame:
    frame = manifest.loc[manifest["split"] == split, ["split", "image", "patient", "eye", "grade"]]
    frame = frame.reset_index(drop=True)
    frame["predicted"] = evaluation.predicted
    frame[PROBABILITY_COLUMNS] = evaluation.probabilities  # unrounded, so that metrics can be reproduced from them
    frame["majority"] = baselines.majority_grade(manifest)
    frame["fellow_eye"] = baselines.fellow_grades(manifest, split)
    return frame[PREDICTION_COLUMNS]
