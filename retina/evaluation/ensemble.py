"""The ensemble of a sweep's kept trials, and their greedy weight soup.

Both are made of the trials that kept their weights, and evaluated as the best single trial is: only validation chooses,
and test is evaluated once. The soup (Wortsman et al. 2022, arXiv 2203.05482) averages weights: it begins with the best
trial and adds each further trial that does not make validation worse. Only trials of one architecture, head and loss
can be averaged, and averaging helps if they began at the same pretrained weights; from scratch, the soup mostly is the
best trial alone.
"""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from retina.config.splits import EVALUATED_SPLITS
from retina.data.dataset import FundusDataset
from retina.errors import ModelOutputError, RetinaError
from retina.evaluation import best_trial
from retina.metrics import summary
from retina.results import checksums, files
from retina.results.run_folder import RunFolder
from retina.training.inference import Evaluation

log = logging.getLogger(__name__)

ENSEMBLE_FILE, SOUP_FILE = "together.json", "soup.pt"
SOUP_SETTINGS = ("arch", "head_layers", "loss")
"""Settings that must be the same in all trials of a soup."""
StateDict = dict[str, torch.Tensor]


def build_ensemble(folder: RunFolder, photographs: FundusDataset, metric: str, sign: int) -> dict[str, Any]:
    """Evaluate ensemble and soup, write `best/together.json`, and `best/soup.pt` for a soup of several trials.

    Args:
        folder: folder of a sweep whose best trial is in `best/`.
        photographs: the sweep's photographs.
        metric: the sweep's validation metric: val_qwk, val_accuracy, val_auc or val_loss.
        sign: 1 if more of it is better, -1 if less is.

    Returns:
        The content of together.json: "metric"; "single", "ensemble" and "soup", each with "members", and with "val" and
        "test" as in metrics.json; and "better", the best of the three by validation. Empty if fewer than two trials
        kept their weights.

    Raises:
        ResultsError: the weights of a trial are damaged.
        ModelOutputError: a trial's output on a photograph is not finite. A soup with such an output is skipped.
    """
    for name in (ENSEMBLE_FILE, SOUP_FILE):  # of the sweep before it was extended, from fewer trials
        (folder.best / name).unlink(missing_ok=True)
    checksums.update(folder.best, (ENSEMBLE_FILE, SOUP_FILE))
    kept_trials = [name for name in folder.ranking(metric, sign) if (folder.trial(name) / "model.pt").is_file()]
    if len(kept_trials) < 2:
        return {}
    best = kept_trials[0]
    val = {name: _evaluator(folder, name, photographs).evaluate_validation() for name in kept_trials}
    members, soup_val, state = _cook_soup(folder, kept_trials, photographs, val, (metric, sign))
    test = photographs.split_view("test")  # everything is chosen now
    by_trial = {name: {"val": val[name], "test": _evaluator(folder, name, photographs)(test)} for name in kept_trials}
    ensemble = {split: _mean([by_trial[name][split] for name in kept_trials]) for split in EVALUATED_SPLITS}
    soup = by_trial[best]
    if len(members) > 1:
        config, _ = best_trial.load_trial(folder, best)
        soup = {"val": soup_val, "test": best_trial.TrialEvaluator(config, state, photographs, "the soup")(test)}
    models = {
        "single": ([best], by_trial[best]),
        "ensemble": (kept_trials, ensemble),
        "soup": (members, soup),
    }
    result: dict[str, Any] = {"metric": metric}
    for kind, (names, evaluations) in models.items():
        result[kind] = {"members": names, **_summarize(evaluations, photographs)}
    # of equal ones the first
    result["better"] = max(models, key=lambda kind: sign * _metric_value(models[kind][1]["val"], metric))
    if len(members) > 1:
        content = io.BytesIO()
        torch.save(state, content)
        files.write_bytes(folder.best / SOUP_FILE, content.getvalue())
    files.write_json(folder.best / ENSEMBLE_FILE, result)
    checksums.update(folder.best, (ENSEMBLE_FILE, SOUP_FILE))
    return result


def try_build_ensemble(folder: RunFolder, photographs: FundusDataset, metric: str, sign: int) -> dict[str, Any]:
    """Run `build_ensemble`, but log its errors and return an empty result: a by-product must not fail a sweep."""
    try:
        return build_ensemble(folder, photographs, metric, sign)
    except (RetinaError, OSError) as error:
        log.warning("note: no ensemble and no soup: %s", error)
        return {}


def describe(result: dict[str, Any]) -> str:
    """Return one line about the result of `build_ensemble`."""
    if not result:
        return "no ensemble: fewer than two trials kept their weights"
    parts = [
        f"{kind} ({len(result[kind]['members'])}) {result[kind]['val']['qwk']:.3f}/{result[kind]['test']['qwk']:.3f}"
        for kind in ("single", "ensemble", "soup")
    ]
    return f"QWK validation/test: {', '.join(parts)}; best on validation: {result['better']}"


def _evaluator(folder: RunFolder, trial_id: str, photographs: FundusDataset) -> best_trial.TrialEvaluator:
    config, weights = best_trial.load_trial(folder, trial_id)
    return best_trial.TrialEvaluator(config, weights, photographs, f"trial {trial_id}")


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the ensemble's evaluation: the mean of the members' probabilities, and the most probable grade of it."""
    probabilities = np.mean([evaluation.probabilities for evaluation in evaluations], axis=0)
    of_true_grade = probabilities[np.arange(len(probabilities)), evaluations[0].grades]
    return dataclasses.replace(
        evaluations[0],
        loss=float(-np.log(np.maximum(of_true_grade, 1e-12)).mean()),
        probabilities=probabilities,
        predicted=probabilities.argmax(axis=1),
    )


def _cook_soup(
    folder: RunFolder,
    kept_trials: list[str],
    photographs: FundusDataset,
    val: dict[str, Evaluation],
    by: tuple[str, int],
) -> tuple[list[str], Evaluation, StateDict]:
    """Build the greedy soup.

    Args:
        folder: the sweep's folder.
        kept_trials: trials with weights, the best first.
        photographs: the sweep's photographs.
        val: each trial's evaluation on validation.
        by: metric and sign, as for `build_ensemble`.

    Returns:
        The soup's members, its evaluation on validation, and its weights.
    """
    metric, sign = by
    config, state = best_trial.load_trial(folder, kept_trials[0])
    members, best = [kept_trials[0]], val[kept_trials[0]]
    for name in kept_trials[1:]:
        other_config, other_state = best_trial.load_trial(folder, name)
        if any(getattr(other_config, key) != getattr(config, key) for key in SOUP_SETTINGS):
            continue
        share = 1 / (len(members) + 1)
        mixed = {key: _interpolate(value, other_state[key], share) for key, value in state.items()}
        try:
            evaluator = best_trial.TrialEvaluator(config, mixed, photographs, f"the soup with {name}")
            # cut-points, if any, belong to the scores that they cut, so they are fitted again
            evaluation = evaluator.evaluate_validation(refit=True)
        except ModelOutputError as error:
            log.info("note: %s", error)
            continue
        if sign * _metric_value(evaluation, metric) >= sign * _metric_value(best, metric):
            members, best, state = [*members, name], evaluation, evaluator.state_dict()
    return members, best, state


def _interpolate(value: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    return torch.lerp(value, other, share) if value.is_floating_point() else value


def _metric_value(evaluation: Evaluation, metric: str) -> float:
    name = metric.removeprefix("val_")
    return evaluation.loss if name == "loss" else float(getattr(evaluation.metrics, name))


def _summarize(evaluations: dict[str, Evaluation], photographs: FundusDataset) -> dict[str, Any]:
    summarized = summary.summarize(best_trial.predictions_frame(photographs.frame, evaluations))
    return {split: summarized[split] for split in EVALUATED_SPLITS}
