"""What chooses the next trial: Optuna's samplers, a share of the trials at random. Knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from retina.config.sweep import SweepSpec


def create_sampler(spec: SweepSpec, trials_before: int = 0) -> optuna.samplers.BaseSampler:
    """What chooses the next trial, for a sweep that has had `trials_before` trials already."""
    seed = spec.seed
    if trials_before:
        seed = int(np.random.SeedSequence([spec.seed, trials_before]).generate_state(1)[0])
    if spec.method in {"random", "grid"}:  # a grid is a list of start points, so nothing is left to draw
        return optuna.samplers.RandomSampler(seed=seed)
    kind = optuna.samplers.TPESampler if spec.method == "tpe" else optuna.samplers.GPSampler
    return RandomShareSampler(kind(seed=seed), spec.random_share, seed)


class RandomShareSampler(optuna.samplers.BaseSampler):
    """A sampler that draws a share of the trials at random, whatever it has learned.

    With early stopping a model-based search can shut itself in: it proposes what rises fast, the rungs let through what
    rises fastest, and nothing tells it of the rest. A random share keeps it open, as in BOHB (Falkner et al. 2018,
    arXiv 1807.01774). `python -m benchmarks.search.compare` shows what it is worth.
    """

    def __init__(self, inner: optuna.samplers.BaseSampler, share: float, seed: int) -> None:
        """Ask `inner`, but for a `share` of the trials, 0 to 1."""
        self._inner, self._share = inner, share
        self._random = optuna.samplers.RandomSampler(seed=np.random.SeedSequence([seed, 1]).generate_state(1)[0])
        self._chance = np.random.default_rng([seed, 2])
        self._at_random: set[int] = set()
        self._explores_next = False

    def explore_next(self) -> None:
        """Draw the next trial at random: what was learned has led to a trial that there was before."""
        self._explores_next = True

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """The parameters that are chosen together: none of a random trial. Optuna asks once, at a trial's start."""
        if self._explores_next or self._chance.random() < self._share:
            self._explores_next = False
            self._at_random.add(trial.number)
            return {}
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Choose them."""
        if trial.number in self._at_random:
            return {}
        with _one_thread():
            return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Choose one alone."""
        chosen = self._random if trial.number in self._at_random else self._inner
        return chosen.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """A trial begins."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """A trial has ended."""
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """New random numbers, for a study that is shared by processes; ours is not."""
        self._inner.reseed_rng()
        self._random.reseed_rng()


@contextmanager
def _one_thread() -> Iterator[None]:
    """A gaussian process of a few hundred points gains nothing from threads, and the trials want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
