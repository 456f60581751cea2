"""The evaluation that follows the trials of a sweep: best trial, ensemble and soup, written to `best/`."""

from __future__ import annotations

import logging

from retina.config.sweep import Metric
from retina.data.dataset import FundusDataset
from retina.evaluation import best_trial, ensemble
from retina.results.run_folder import RunFolder

log = logging.getLogger(__name__)


def evaluate_sweep(folder: RunFolder, trial_id: str, dataset: FundusDataset, metric: Metric) -> None:
    """Evaluate the best trial, then the kept trials as an ensemble and as a soup, and write `best/`.

    An ensemble or a soup that cannot be built is logged and left out.

    Args:
        folder: the results folder of a sweep whose trials have ended.
        trial_id: the best trial by `metric`.
        dataset: the photographs that the sweep was trained on.
        metric: what the sweep optimizes, always on validation.

    Raises:
        ResultsError: the trial's configuration or weights are absent or damaged.
        ModelOutputError: the model's output for a photograph is not finite.
    """
    log.info("evaluating the best trial, %s, on validation and test", trial_id)
    best_trial.evaluate_best_trial(folder, trial_id, dataset, metric.name)
    log.info("%s", ensemble.describe(ensemble.try_build_ensemble(folder, dataset, metric.name, metric.sign)))
