"""Losses that know that grades are ordered, and how a network's raw output becomes five probabilities and a grade.

| loss            | raw output                        | predicted grade                                   |
|-----------------|-----------------------------------|---------------------------------------------------|
| `cross_entropy` | (B, 5) logits                     | the most probable one                             |
| `emd`           | (B, 5) logits                     | the most probable one                             |
| `corn`          | (B, 4) logits of "worse, if here" | how many of P(worse than k) exceed one half       |
| `mse`, `huber`  | (B, 1) score, 0 to 4 or so        | how many of the four cut-points the score exceeds |

A photograph with a raw output that is not finite has neither: its probabilities are NaN and its grade is `NO_GRADE`.
Otherwise argmax would give it grade 0, and an infinite score would give it grade 4 with certainty.

After the raw output, everything is the same for all losses: five probabilities and a grade. Nothing here waits for the
device.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from scipy import optimize
from torch import nn

from retina.config import GRADES
from retina.metrics.probabilities import NO_GRADE

N_OUTPUTS = {"cross_entropy": GRADES, "emd": GRADES, "corn": GRADES - 1, "mse": 1, "huber": 1}
"""Number of raw outputs of a network, by the loss with which it is trained."""

CUTPOINT_CANDIDATES = 64
MAX_CUTPOINT_ROUNDS = 4


def summed_loss(
    loss: str, raw: torch.Tensor, grades: torch.Tensor, weights: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the sum of the photographs' losses, each times the weight of its grade; a scalar.

    - `cross_entropy`: torch's.
    - `mse`, `huber`: of score and grade (Huber 1964, with delta 1).
    - `emd`: the squared earth mover's distance between the distributions, also known as ranked probability score (Hou
      et al. 2016, arXiv 1611.05916).
    - `corn`: the sum of the binary cross entropies of "worse than k" over the photographs that are k or worse (Shi et
      al. 2023, arXiv 2111.08851). dlordinal and coral-pytorch divide the sum by the number of such pairs, and select
      the pairs with masks, which makes the host wait for the GPU.

    Args:
        loss: `TrialConfig.loss`.
        raw: raw outputs, float (B, `N_OUTPUTS[loss]`).
        grades: true grades, int64 (B,), 0 to 4.
        weights: weights of the five grades, float (5,).
        smoothing: label smoothing, used by `cross_entropy` alone.

    Example:
        >>> scores, grades = torch.tensor([[1.0], [3.0]]), torch.tensor([0, 3])
        >>> summed_loss("mse", scores, grades, weights=torch.ones(5))
        tensor(1.)
        >>> summed_loss("mse", scores, grades, weights=torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0]))
        tensor(2.)
    """
    if loss == "cross_entropy":
        # torch's own `weight` is not used: with smoothing, it multiplies the share that every other grade gets by that
        # grade's weight, so where few eyes are proliferative, a healthy eye would get a third of that label
        each = F.cross_entropy(raw, grades, label_smoothing=smoothing, reduction="none")
    elif loss in {"mse", "huber"}:
        criterion = F.mse_loss if loss == "mse" else F.huber_loss
        each = criterion(raw[:, 0], grades.to(raw.dtype), reduction="none")
    elif loss == "emd":
        true = F.one_hot(grades, GRADES).to(raw.dtype).cumsum(dim=1)
        each = (raw.softmax(dim=1).cumsum(dim=1) - true).square().sum(dim=1)
    else:
        steps = torch.arange(GRADES - 1, device=raw.device)
        is_worse = (grades[:, None] > steps).to(raw.dtype)
        is_reached = (grades[:, None] >= steps).to(raw.dtype)
        each = (F.binary_cross_entropy_with_logits(raw, is_worse, reduction="none") * is_reached).sum(dim=1)
    return (each * weights[grades]).sum()


class OutputDecoder(nn.Module):
    """Decodes raw outputs (B, `N_OUTPUTS[loss]`) to probabilities float (B, 5), rows sum to 1, and grades int64 (B,).

    Rows that are not finite become NaN and `NO_GRADE`.

    The cut-points and the spread of `mse` and `huber` are fitted on validation (`fit`) and saved with the weights. The
    probability of "worse than k" is that of a logistic variable around the score with the scale `spread`.

    A network's decoder is its attribute `reading`: checkpoints hold cut-points under that name.

    Example:
        >>> decoder = OutputDecoder("mse")
        >>> probabilities, grades = decoder(torch.tensor([[0.1], [2.7], [math.inf]]))
        >>> grades.tolist()
        [0, 3, -1]
        >>> probabilities[:2].argmax(dim=1).tolist()
        [0, 3]
    """

    cutpoints: torch.Tensor
    spread: torch.Tensor

    def __init__(self, loss: str = "cross_entropy") -> None:
        """Create the decoder of a network that was, or will be, trained with `loss`."""
        super().__init__()
        self.loss = loss
        if self.is_fitted:
            self.register_buffer("cutpoints", torch.arange(GRADES - 1, dtype=torch.float32) + 0.5)
            self.register_buffer("spread", torch.tensor(0.25))

    @property
    def is_fitted(self) -> bool:
        """Whether the decoder has cut-points."""
        return N_OUTPUTS[self.loss] == 1

    @property
    def problem(self) -> str:
        """The problem of the cut-points and the spread, as damaged weights have them; empty if there is none."""
        if not self.is_fitted:
            return ""
        cutpoints, spread = self.cutpoints.double(), float(self.spread)
        if not bool(cutpoints.isfinite().all()) or bool((cutpoints.diff() < 0).any()):
            return f"its cut-points are {cutpoints.tolist()}, allowed: finite and ascending"
        return "" if 0 < spread < math.inf else f"its spread is {spread}, allowed: finite and above 0"

    def forward(self, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode a batch, in the precision of `raw`."""
        raw = _nan_unless_finite(raw)
        if N_OUTPUTS[self.loss] == GRADES:
            probabilities = raw.softmax(dim=1)
            return probabilities, no_grade_unless_valid(raw.argmax(dim=1), probabilities)
        if self.is_fitted:
            worse = ((raw - self.cutpoints.to(raw.dtype)) / self.spread.to(raw.dtype)).sigmoid()
        else:
            worse = raw.sigmoid().cumprod(dim=1)
        edges = F.pad(F.pad(worse, (1, 0), value=1.0), (0, 1), value=0.0)
        probabilities = edges[:, :-1] - edges[:, 1:]
        return probabilities, no_grade_unless_valid((worse > 0.5).sum(dim=1), probabilities)

    def fit(self, raw: torch.Tensor, grades: npt.NDArray[np.int64]) -> None:
        """Fit the cut-points, for the best QWK, and the spread, for the best likelihood; do nothing without cut-points.

        Args:
            raw: scores of the validation split, float (N, 1), finite.
            grades: true grades, int64 (N,).

        Raises:
            ValueError: a score is not finite.
        """
        if self.is_fitted:
            score = raw[:, 0].double().cpu().numpy()
            if not np.isfinite(score).all():
                raise ValueError("the scores are not finite, so no cut-points can be fitted to them")
            cutpoints = fit_cutpoints(score, grades)
            self.cutpoints.copy_(torch.from_numpy(cutpoints))
            self.spread.fill_(_fit_spread(score, grades, cutpoints))


def get_output_decoder(net: nn.Module) -> OutputDecoder:
    """Return the decoder that belongs to a network; that of five logits for a network without `reading`."""
    decoder = getattr(net, "reading", None)
    return decoder if isinstance(decoder, OutputDecoder) else OutputDecoder()


def log_probabilities(decoder: OutputDecoder, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode a batch as `decoder(raw)` does, but to the logarithms of the probabilities.

    Temperature scaling divides logarithms. The logarithms of probabilities that are differences of float32 values, as
    exported graphs compute them, have an error of 0.01 at a temperature of 4, and their gradient is 0 where a sigmoid
    is saturated; these are exact. Besides, ONNX lacks the cumulative product that corn needs.

    Returns:
        Logarithms (B, 5), dtype of `raw`, and grades int64 (B,).

    Example:
        >>> decoder = OutputDecoder("corn")
        >>> raw = torch.tensor([[2.0, -1.0, 0.5, 0.0]])
        >>> logs, grades = log_probabilities(decoder, raw)
        >>> torch.allclose(logs.exp(), decoder(raw)[0]), grades.tolist()
        (True, [1])
    """
    raw = _nan_unless_finite(raw)
    if N_OUTPUTS[decoder.loss] == GRADES:
        logs = raw.log_softmax(dim=1)
        return logs, no_grade_unless_valid(raw.argmax(dim=1), logs.exp())
    if decoder.is_fitted:
        beyond = (raw - decoder.cutpoints.to(raw.dtype)) / decoder.spread.to(raw.dtype)
        # the logarithm of sigmoid(a) - sigmoid(b), where a - b is the distance of two cut-points
        between = _log_sigmoid(beyond[:, :-1]) + _log_sigmoid(-beyond[:, 1:])
        between = between + (-torch.expm1(beyond[:, 1:] - beyond[:, :-1])).log()
        logs = torch.cat([_log_sigmoid(-beyond[:, :1]), between, _log_sigmoid(beyond[:, -1:])], dim=1)
        return logs, no_grade_unless_valid((beyond > 0).sum(dim=1), logs.exp())
    worse = _log_sigmoid(raw).cumsum(dim=1)
    not_worse = _log_sigmoid(-raw)
    logs = torch.cat([not_worse[:, :1], worse[:, :-1] + not_worse[:, 1:], worse[:, -1:]], dim=1)
    return logs, no_grade_unless_valid((worse > -math.log(2)).sum(dim=1), logs.exp())


def no_grade_unless_valid(grades: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Return the grades int64 (B,), `NO_GRADE` where one of the probabilities (B, 5) is NaN or negative."""
    return torch.where((probabilities >= 0).all(dim=1), grades, NO_GRADE)


def _nan_unless_finite(raw: torch.Tensor) -> torch.Tensor:
    """Return raw outputs (B, K), a whole row NaN if one of its values is not finite: sigmoid(inf) would be certain."""
    return torch.where(raw.isfinite().all(dim=1, keepdim=True), raw, math.nan)


def _log_sigmoid(values: torch.Tensor) -> torch.Tensor:
    """Return log(sigmoid(x)), by exponentials: onnxruntime's sigmoid is exact to 1e-7, so log(1e-7) would be lost."""
    return values.clamp(max=0) - (-values.abs()).exp().log1p()


def fit_cutpoints(score: npt.NDArray[np.float64], grades: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the four ascending cut-points, (4,), at which the cut scores (N,) agree best with the grades by QWK.

    The search begins half-way between the grades. It moves one cut-point at a time to the best of
    `CUTPOINT_CANDIDATES` quantiles of the scores, if that is better than its position. With few scores, or without
    scores of a grade, cut-points keep their position.

    Example:
        >>> scores = np.array([0.1, 0.2, 0.9, 1.0, 1.1, 1.2])
        >>> fit_cutpoints(scores, np.array([0, 0, 0, 1, 1, 1])).round(2).tolist()
        [0.91, 1.5, 2.5, 3.5]
    """
    cutpoints = np.arange(GRADES - 1, dtype=np.float64) + 0.5
    quantiles = np.unique(np.quantile(score, np.linspace(0, 1, CUTPOINT_CANDIDATES)))
    candidates = (quantiles[1:] + quantiles[:-1]) / 2
    best = _qwk_of_cutpoints(score, grades, cutpoints)
    for _ in range(MAX_CUTPOINT_ROUNDS):
        before = best
        for index in range(GRADES - 1):
            low = cutpoints[index - 1] if index else -np.inf
            high = cutpoints[index + 1] if index < GRADES - 2 else np.inf
            for candidate in candidates[(candidates > low) & (candidates < high)]:
                tried = np.where(np.arange(GRADES - 1) == index, candidate, cutpoints).astype(np.float64)
                if (qwk := _qwk_of_cutpoints(score, grades, tried)) > best + 1e-9:
                    best, cutpoints = qwk, tried
        if best == before:
            break
    return cutpoints


def _qwk_of_cutpoints(
    score: npt.NDArray[np.float64], grades: npt.NDArray[np.int64], cutpoints: npt.NDArray[np.float64]
) -> float:
    """Return the QWK from moments: scikit-learn's takes a hundred times as long, and a fit needs a thousand of them."""
    predicted = np.searchsorted(cutpoints, score, side="left")
    observed = np.square(grades - predicted).mean()
    by_chance = grades.var() + predicted.var() + np.square(grades.mean() - predicted.mean())
    return float(1 - observed / by_chance) if by_chance else 0.0


def _fit_spread(
    score: npt.NDArray[np.float64], grades: npt.NDArray[np.int64], cutpoints: npt.NDArray[np.float64]
) -> float:
    edges = np.concatenate([[-np.inf], cutpoints, [np.inf]])

    def negative_log_likelihood(log_spread: float) -> float:
        spread = np.exp(log_spread)
        worse = 1 / (1 + np.exp(-np.clip((score[:, None] - edges) / spread, -40, 40)))
        p = worse[np.arange(len(score)), grades] - worse[np.arange(len(score)), grades + 1]
        return float(-np.log(np.maximum(p, 1e-12)).mean())

    bounds = (np.log(0.02), np.log(4.0))
    return float(np.exp(optimize.minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x))
