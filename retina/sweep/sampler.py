"""The samplers that propose trials: Optuna's, with a share of the trials drawn at random. Does not import Ray."""

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
    """Create the sampler of a sweep.

    Args:
        spec: gives method, seed and random share.
        trials_before: number of trials that the sweep has had. A resumed sweep gets another seed by it; with the same
            one, the first trials would be drawn again.
    """
    seed = spec.seed
    if trials_before:
        seed = int(np.random.SeedSequence([spec.seed, trials_before]).generate_state(1)[0])
    if spec.method in {"random", "grid"}:  # a grid is a list of start points, so nothing is left to draw
        return optuna.samplers.RandomSampler(seed=seed)
    kind = optuna.samplers.TPESampler if spec.method == "tpe" else optuna.samplers.GPSampler
    return RandomShareSampler(kind(seed=seed), spec.random_share, seed)


class RandomShareSampler(optuna.samplers.BaseSampler):
    """A sampler that draws a share of the trials at random, whatever the others have shown.

    With early stopping, a model-based search can become too narrow: it proposes what rises fast, the rungs promote what
    rises fastest, and the model learns nothing of the rest. A random share keeps it open, as in BOHB (Falkner et al.
    2018, arXiv 1807.01774). `python -m benchmarks.search.compare` measures what it gains.
    """

    def __init__(self, inner: optuna.samplers.BaseSampler, share: float, seed: int) -> None:
        """Create the sampler.

        Args:
            inner: proposes the other trials.
            share: share of the trials that are drawn at random, 0 to 1.
            seed: seeds the random draws and the choice of the trials.
        """
        self._inner, self._share = inner, share
        self._random = optuna.samplers.RandomSampler(seed=np.random.SeedSequence([seed, 1]).generate_state(1)[0])
        self._rng = np.random.default_rng([seed, 2])
        self._at_random: set[int] = set()
        self._explores_next = False

    def explore_next(self) -> None:
        """Draw the next trial at random: the model has proposed a trial that was tried before."""
        self._explores_next = True

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """Return the parameters that are sampled jointly: none for a random trial. Optuna calls this once per trial."""
        if self._explores_next or self._rng.random() < self._share:
            self._explores_next = False
            self._at_random.add(trial.number)
            return {}
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Sample parameters jointly."""
        if trial.number in self._at_random:
            return {}
        with _single_thread():
            return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Sample one parameter by itself."""
        sampler = self._random if trial.number in self._at_random else self._inner
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Prepare the inner sampler for a trial that begins."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Inform the inner sampler of a trial that has ended."""
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Reseed both samplers; Optuna calls this where processes share a study, which a sweep's do not."""
        self._inner.reseed_rng()
        self._random.reseed_rng()


@contextmanager
def _single_thread() -> Iterator[None]:
    """Let torch use one thread inside the block.

    More do not speed up a Gaussian process of a few hundred points, and the trials need the cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
