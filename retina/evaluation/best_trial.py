"""The best trial, looked at once more: its predictions on validation and test, and what they prove, in `best/`.

With `together` the only room that touches the test split for a number that is reported, after the choice is made.
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
from retina.metrics.predictions import COLUMNS, PROBABILITIES
from retina.results import checksums, files
from retina.results.run_folder import RunFolder
from retina.training import model
from retina.training.inference import Evaluation, evaluate, outputs, validate
from retina.training.losses import output_decoder_of
from retina.training.trainer import default_device

FILES = ("model.pt", "config.json", "predictions.csv", "metrics.json")
"""What `best/` has of the winner; figures, ensemble and soup are added by those who make them."""


def evaluate_best_trial(folder: RunFolder, trial_id: str, photographs: FundusDataset, metric: str) -> dict[str, Any]:
    """Evaluate a trial's kept weights on validation and test and write `best/`; returns what metrics.json says.

    What an earlier winner left there is removed, and `SHA256SUMS` is written last: whoever is killed in between leaves
    a folder that is refused, and evaluated again by `--resume`.

    Raises:
        ResultsError: the trial's configuration or its weights are not there, or are damaged.
        ModelOutputError: the model's output on a photograph is not finite; `best/` stays as it was.
    """
    config, weights = load_trial(folder, trial_id)
    row = folder.trial_row(trial_id)
    judge = TrialEvaluator(config, weights, photographs, f"trial {trial_id}")
    seen = {"val": judge.validated(), "test": judge(photographs.part("test"))}
    predictions = predictions_of(photographs.frame, seen)
    told = summary.summarize(predictions)
    metrics: dict[str, Any] = {
        "verdict": told.pop("verdict"),
        "trial_id": trial_id,
        "epoch": int(row["best_epoch"]),
        "precision": "float32, as the model runs elsewhere; trials.csv has the precision it was trained in",
        "chosen_by": f"{metric} (validation; the test split chose nothing)",
        **told,
    }
    _remove_earlier(folder)
    files.copy_file(folder.trial(trial_id) / "model.pt", folder.best / "model.pt")
    files.write_json(folder.best / "config.json", model_config(config, photographs))
    files.write_frame(folder.best / "predictions.csv", predictions)
    files.write_json(folder.best / "metrics.json", metrics)
    checksums.write(folder.best, FILES)
    return metrics


def load_trial(folder: RunFolder, trial_id: str) -> tuple[TrialConfig, dict[str, torch.Tensor]]:
    """The configuration of a trial, and the weights that it kept.

    Raises:
        ResultsError: one of them is not there, or damaged.
    """
    source = folder.trial(trial_id)
    if not (source / "model.pt").is_file():
        raise ResultsError(f"{source / 'model.pt'}: is not there; the trial's weights are needed for {folder.best}")
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
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ResultsError(f"{source / 'model.pt'}: cannot be read as weights: {type(error).__name__}") from None
    return config, weights


class TrialEvaluator:
    """A model with the weights of a trial, or of several, in float32: what it sees on a split.

    Looking at one raises ModelOutputError, which begins with `name`, where its output on a photograph is not finite.
    """

    def __init__(
        self, config: TrialConfig, weights: dict[str, torch.Tensor], photographs: FundusDataset, name: str = "the model"
    ) -> None:
        """Raises ResultsError where the weights are not of such a model."""
        self._name = name
        self._device, self._flips, self._photographs = default_device(), config.flips, photographs
        net = model.build(config.model_copy(update={"pretrained": False}), photographs.config.image_size)
        try:
            net.load_state_dict(weights)
        except (RuntimeError, AttributeError, TypeError) as error:
            what = f"{config.arch} at {photographs.config.image_size} px as config.json has it"
            raise ResultsError(f"{name}: the weights do not fit {what}: {one_line(error, 160)}") from None
        if problem := output_decoder_of(net).problem:
            raise ResultsError(f"{name}: the weights are damaged: {problem}")
        self._net = net.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, part: SplitView) -> Evaluation:
        """What it says of the photographs of a split."""
        with self._named():
            return evaluate(self._net, part, device=self._device, flips=self._flips)

    def validated(self, *, refit: bool = False) -> Evaluation:
        """The validation split, as training judges it: by cut-points fitted on the other four fifths, if it has any.

        Args:
            refit: let the model have cut-points that are fitted on all of it, instead of those it came with.
        """
        part = self._photographs.part("val")
        raw = outputs(self._net, part, device=self._device, flips=self._flips)
        mine = output_decoder_of(self._net)
        with self._named():
            return validate(raw, part, mine if refit else copy.deepcopy(mine))

    def weights(self) -> dict[str, torch.Tensor]:
        """Its state dict, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self._net.state_dict().items()}

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ModelOutputError as error:
            raise ModelOutputError(f"{self._name}: {error}") from None


def predictions_of(manifest: pd.DataFrame, seen: dict[str, Evaluation]) -> pd.DataFrame:
    """A row a photograph of each split that was seen, `COLUMNS`: all that `numbers.of_predictions` asks for."""
    return pd.concat([_predictions(manifest, split, one) for split, one in seen.items()])


def model_config(config: TrialConfig, photographs: FundusDataset) -> dict[str, object]:
    """All that is needed beside the weights to use a model elsewhere: its settings, its input and its classes."""
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
    """Remove what is listed in `best/` beside the winner's own files: figures, say, of an earlier winner."""
    try:
        sums = checksums.listed(folder.best) or {}
    except ResultsError:  # a damaged list, which is written anew
        sums = {}
    for name in sums.keys() - set(FILES):
        (folder.best / name).unlink(missing_ok=True)


def _remedy(folder: RunFolder, trial_id: str) -> str:
    """What to do about a trial's damaged weights: `best/` may hold a copy of them."""
    try:
        mine, best = (checksums.listed(place) or {} for place in (folder.trial(trial_id), folder.best))
        is_copy = "model.pt" in mine and mine["model.pt"] == best.get("model.pt")
        if is_copy and not checksums.problem(folder.best, "model.pt", best):
            return f"{folder.best / 'model.pt'} is a copy of the weights as they were: put it in their place"
    except ResultsError:
        pass
    return "put a copy of the file back; the sweep cannot train this trial again, but --extend adds others"


def _predictions(manifest: pd.DataFrame, split: str, seen: Evaluation) -> pd.DataFrame:
    frame = manifest.loc[manifest["split"] == split, ["split", "image", "patient", "eye", "grade"]]
    frame = frame.reset_index(drop=True)
    frame["predicted"] = seen.predicted
    frame[PROBABILITIES] = seen.probabilities  # unrounded: who measures them again gets the same numbers
    frame["majority"] = baselines.majority_grade(manifest)
    frame["fellow_eye"] = baselines.fellow_grades(manifest, split)
    return frame[COLUMNS]
