"""What a sweep gives besides its best model: its kept trials as an ensemble, and their greedy weight soup.

Both are made of the trials that kept their weights, and judged as the best single model is: validation alone chooses,
test is measured once. The soup (Wortsman et al. 2022, arXiv 2203.05482) averages weights: it begins with the best trial
and takes in each further one that does not make validation worse. Only trials of one architecture, head and loss can be
averaged, and averaging helps where they began at the same pretrained weights; from scratch the soup mostly is the best
trial alone.
"""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from retina.data.dataset import FundusDataset
from retina.errors import ModelOutputError, RetinaError
from retina.evaluation import best_trial
from retina.metrics import summary
from retina.results import checksums, files
from retina.results.run_folder import RunFolder
from retina.training.inference import Evaluation

log = logging.getLogger(__name__)

ENSEMBLE_FILE, SOUP_FILE = "together.json", "soup.pt"
SPLITS = ("val", "test")
SOUP_SETTINGS = ("arch", "head_layers", "loss")
"""Settings in which the trials of a soup must agree."""
Seen = dict[str, Evaluation]
State = dict[str, torch.Tensor]


def build_ensemble(folder: RunFolder, photographs: FundusDataset, metric: str, sign: int) -> dict[str, Any]:
    """Judge ensemble and soup, write `best/together.json`, and `best/soup.pt` where the soup is of several trials.

    Args:
        folder: of a sweep whose best model stands in `best/`.
        photographs: of the sweep.
        metric: of validation, as the sweep's: val_qwk, val_accuracy, val_auc or val_loss.
        sign: 1 where more of it is better, -1 where less is.

    Returns:
        "metric", "single", "ensemble" and "soup": each "members", "val" and "test" as in metrics.json, and "better":
        which of the three is the best by validation. Empty where fewer than two trials kept their weights.

    Raises:
        ResultsError: the weights of a trial are damaged.
        ModelOutputError: a trial's output on a photograph is not finite; a soup of which it is not is left aside.
    """
    for name in (ENSEMBLE_FILE, SOUP_FILE):  # of an earlier end, if any: of fewer trials
        (folder.best / name).unlink(missing_ok=True)
    checksums.update(folder.best, (ENSEMBLE_FILE, SOUP_FILE))
    kept = [name for name in folder.ranking(metric, sign) if (folder.trial(name) / "model.pt").is_file()]
    if len(kept) < 2:
        return {}
    val = {name: _judge(folder, name, photographs).evaluate_validation() for name in kept}
    members, of_soup, state = _soup(folder, kept, photographs, val, (metric, sign))
    test = photographs.part("test")  # all is chosen now
    seen = {name: {"val": val[name], "test": _judge(folder, name, photographs)(test)} for name in kept}
    everyone = {split: _mean([seen[name][split] for name in kept]) for split in SPLITS}
    soup = seen[kept[0]]
    if len(members) > 1:
        judge = best_trial.TrialEvaluator(best_trial.load_trial(folder, kept[0])[0], state, photographs, "the soup")
        soup = {"val": of_soup, "test": judge(test)}
    told: dict[str, Any] = {"metric": metric}
    ways = {"single": (kept[:1], seen[kept[0]]), "ensemble": (kept, everyone), "soup": (members, soup)}
    for way, (names, evaluations) in ways.items():
        told[way] = {"members": names, **_measured(evaluations, photographs)}
    told["better"] = max(ways, key=lambda way: sign * _value(ways[way][1]["val"], metric))  # the first of equal ones
    if len(members) > 1:
        content = io.BytesIO()
        torch.save(state, content)
        files.write_bytes(folder.best / SOUP_FILE, content.getvalue())
    files.write_json(folder.best / ENSEMBLE_FILE, told)
    checksums.update(folder.best, (ENSEMBLE_FILE, SOUP_FILE))
    return told


def _judge(folder: RunFolder, name: str, photographs: FundusDataset) -> best_trial.TrialEvaluator:
    config, weights = best_trial.load_trial(folder, name)
    return best_trial.TrialEvaluator(config, weights, photographs, f"trial {name}")


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The ensemble: the mean of its members' probabilities; its grade is the most probable one."""
    probabilities = np.mean([one.probabilities for one in evaluations], axis=0)
    true = probabilities[np.arange(len(probabilities)), evaluations[0].grades]
    return dataclasses.replace(
        evaluations[0],
        loss=float(-np.log(np.maximum(true, 1e-12)).mean()),
        probabilities=probabilities,
        predicted=probabilities.argmax(axis=1),
    )


def _soup(
    folder: RunFolder, kept: list[str], photographs: FundusDataset, val: dict[str, Evaluation], by: tuple[str, int]
) -> tuple[list[str], Evaluation, State]:
    """The members of the greedy soup, what it sees of validation, and its weights; `val` is what each trial sees."""
    metric, sign = by
    config, state = best_trial.load_trial(folder, kept[0])
    members, best = [kept[0]], val[kept[0]]
    for name in kept[1:]:
        other, weights = best_trial.load_trial(folder, name)
        if any(getattr(other, key) != getattr(config, key) for key in SOUP_SETTINGS):
            continue
        share = 1 / (len(members) + 1)
        tried = {key: _between(value, weights[key], share) for key, value in state.items()}
        try:
            judge = best_trial.TrialEvaluator(config, tried, photographs, f"the soup with {name}")
            mixed = judge.evaluate_validation(refit=True)  # cut-points, if any, belong to the scores that they cut
        except ModelOutputError as error:
            log.info("note: %s", error)
            continue
        if sign * _value(mixed, metric) >= sign * _value(best, metric):
            members, best, state = [*members, name], mixed, judge.weights()
    return members, best, state


def _between(mine: torch.Tensor, theirs: torch.Tensor, share: float) -> torch.Tensor:
    return torch.lerp(mine, theirs, share) if mine.is_floating_point() else mine


def _value(seen: Evaluation, metric: str) -> float:
    name = metric.removeprefix("val_")
    return seen.loss if name == "loss" else float(getattr(seen.metrics, name))


def _measured(seen: Seen, photographs: FundusDataset) -> dict[str, Any]:
    told = summary.summarize(best_trial.predictions_frame(photographs.frame, seen))
    return {split: told[split] for split in SPLITS}


def describe(found: dict[str, Any]) -> str:
    """One line of what `build_ensemble` found."""
    if not found:
        return "no ensemble: fewer than two trials kept their weights"
    parts = [
        f"{way} ({len(found[way]['members'])}) {found[way]['val']['qwk']:.3f}/{found[way]['test']['qwk']:.3f}"
        for way in ("single", "ensemble", "soup")
    ]
    return f"QWK validation/test: {', '.join(parts)}; best on validation: {found['better']}"


def try_build_ensemble(folder: RunFolder, photographs: FundusDataset, metric: str, sign: int) -> dict[str, Any]:
    """`build_ensemble`; a by-product that cannot be made fails no sweep, it is said in the log."""
    try:
        return build_ensemble(folder, photographs, metric, sign)
    except (RetinaError, OSError) as error:
        log.warning("note: no ensemble and no soup: %s", error)
        return {}
