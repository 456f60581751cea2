"""Grades are ordered: losses that know it, and how a network's raw output is read as five probabilities and a grade.

| loss            | raw output                        | grade                                             |
|-----------------|-----------------------------------|---------------------------------------------------|
| `cross_entropy` | (B, 5) logits                     | the most probable one                             |
| `emd`           | (B, 5) logits                     | the most probable one                             |
| `corn`          | (B, 4) logits of "worse, if here" | how many of P(worse than k) exceed one half       |
| `mse`, `huber`  | (B, 1) score, 0 to 4 or so        | how many of the four cut-points the score exceeds |

A photograph of which a raw output is not finite has neither: its probabilities are NaN and its grade is `NO_GRADE`.
Else argmax would give it grade 0, and a score of infinity grade 4 with certainty.

Everything after the raw output is the same for all: five probabilities and a grade. Nothing here looks at the device.
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
"""Raw outputs of a network, by the loss that it is trained with."""

CANDIDATES = 64
ROUNDS = 4


def summed_loss(
    loss: str, raw: torch.Tensor, grades: torch.Tensor, weights: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """The sum of the photographs' losses, each times the weight of its grade; a scalar.

    `cross_entropy`: as torch's. `mse`, `huber`: of score and grade (Huber 1964, with delta 1). `emd`: the squared earth
    mover's distance between the distributions, also known as ranked probability score (Hou et al. 2016,
    arXiv 1611.05916). `corn`: the binary cross entropies of "worse than k" among the photographs that are k or worse
    (Shi et al. 2023, arXiv 2111.08851), summed; dlordinal's and coral-pytorch's divide their sum by the number of such
    pairs, and choose the pairs by masks, for which a GPU would have to be waited for.

    Args:
        loss: of `TrialConfig`.
        raw: float (B, `OUTPUTS[loss]`).
        grades: int64 (B,), 0 to 4.
        weights: float (5,), of the grades.
        smoothing: of the labels; of cross_entropy alone.
    """
    if loss == "cross_entropy":
        # not by torch's own `weight`: with smoothing it gives every other grade its share times that grade's weight, so
        # that where few are proliferative a healthy eye would be taught to be so by a third
        each = F.cross_entropy(raw, grades, label_smoothing=smoothing, reduction="none")
    elif loss in {"mse", "huber"}:
        measure = F.mse_loss if loss == "mse" else F.huber_loss
        each = measure(raw[:, 0], grades.to(raw.dtype), reduction="none")
    elif loss == "emd":
        true = F.one_hot(grades, GRADES).to(raw.dtype).cumsum(dim=1)
        each = (raw.softmax(dim=1).cumsum(dim=1) - true).square().sum(dim=1)
    else:
        steps = torch.arange(GRADES - 1, device=raw.device)
        worse = (grades[:, None] > steps).to(raw.dtype)
        asked = (grades[:, None] >= steps).to(raw.dtype)
        each = (F.binary_cross_entropy_with_logits(raw, worse, reduction="none") * asked).sum(dim=1)
    return (each * weights[grades]).sum()


class OutputDecoder(nn.Module):
    """Reads raw outputs: (B, `OUTPUTS[loss]`) -> probabilities float (B, 5), rows sum to 1, and grades int64 (B,).

    Rows that are not finite become NaN and `NO_GRADE`.

    Of `mse` and `huber` its cut-points and spread are fitted on validation (`fit`) and saved with the weights. The
    probability of "worse than k" is then that of a logistic variable around the score, `spread` wide.
    """

    cutpoints: torch.Tensor
    spread: torch.Tensor

    def __init__(self, loss: str = "cross_entropy") -> None:
        """For a network that was, or is to be, trained with `loss`."""
        super().__init__()
        self.loss = loss
        if self.is_fitted:
            self.register_buffer("cutpoints", torch.arange(GRADES - 1, dtype=torch.float32) + 0.5)
            self.register_buffer("spread", torch.tensor(0.25))

    @property
    def is_fitted(self) -> bool:
        """Whether it has cut-points."""
        return N_OUTPUTS[self.loss] == 1

    @property
    def problem(self) -> str:
        """What is wrong with its cut-points and spread, as those of damaged weights; empty where nothing is."""
        if not self.is_fitted:
            return ""
        cuts, spread = self.cutpoints.double(), float(self.spread)
        if not bool(cuts.isfinite().all()) or bool((cuts.diff() < 0).any()):
            return f"its cut-points are {cuts.tolist()}, allowed: finite and ascending"
        return "" if 0 < spread < math.inf else f"its spread is {spread}, allowed: finite and above 0"

    def forward(self, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a batch; in `raw`'s precision."""
        raw = _nan_unless_finite(raw)
        if N_OUTPUTS[self.loss] == GRADES:
            probabilities = raw.softmax(dim=1)
            return probabilities, no_grade_unless_valid(raw.argmax(dim=1), probabilities)
        if self.is_fitted:
            beyond = (raw - self.cutpoints.to(raw.dtype)) / self.spread.to(raw.dtype)
            worse = beyond.sigmoid()
        else:
            worse = raw.sigmoid().cumprod(dim=1)
        edges = F.pad(F.pad(worse, (1, 0), value=1.0), (0, 1), value=0.0)
        probabilities = edges[:, :-1] - edges[:, 1:]
        return probabilities, no_grade_unless_valid((worse > 0.5).sum(dim=1), probabilities)

    def fit(self, raw: torch.Tensor, grades: npt.NDArray[np.int64]) -> None:
        """Fit cut-points, for the best QWK, and spread, for the best likelihood; nothing where there are none.

        Args:
            raw: float (N, 1), finite: the scores of the validation split.
            grades: int64 (N,).

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
    """The reading that belongs to a network; of one that brings none, that of five logits."""
    reading = getattr(net, "reading", None)
    return reading if isinstance(reading, OutputDecoder) else OutputDecoder()


def log_probabilities(reading: OutputDecoder, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `reading(raw)`, but the probabilities' logarithms: (B, 5) like `raw`, and grades int64 (B,).

    A temperature divides logarithms. Those of probabilities that were computed as differences in float32, as exported
    graphs compute, would be off by a hundredth where it is 4, and their gradient is 0 where a sigmoid is saturated;
    these are exact. Nor has ONNX the products that corn asks for.
    """
    raw = _nan_unless_finite(raw)
    if N_OUTPUTS[reading.loss] == GRADES:
        logs = raw.log_softmax(dim=1)
        return logs, no_grade_unless_valid(raw.argmax(dim=1), logs.exp())
    if reading.is_fitted:
        beyond = (raw - reading.cutpoints.to(raw.dtype)) / reading.spread.to(raw.dtype)
        # of sigmoid(a) - sigmoid(b), where a - b is the distance of two cut-points
        between = _log_sigmoid(beyond[:, :-1]) + _log_sigmoid(-beyond[:, 1:])
        between = between + (-torch.expm1(beyond[:, 1:] - beyond[:, :-1])).log()
        logs = torch.cat([_log_sigmoid(-beyond[:, :1]), between, _log_sigmoid(beyond[:, -1:])], dim=1)
        return logs, no_grade_unless_valid((beyond > 0).sum(dim=1), logs.exp())
    worse = _log_sigmoid(raw).cumsum(dim=1)
    better = _log_sigmoid(-raw)
    logs = torch.cat([better[:, :1], worse[:, :-1] + better[:, 1:], worse[:, -1:]], dim=1)
    return logs, no_grade_unless_valid((worse > -math.log(2)).sum(dim=1), logs.exp())


def no_grade_unless_valid(grades: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Grades int64 (B,), `NO_GRADE` where a probability, of (B, 5), is NaN or negative."""
    return torch.where((probabilities >= 0).all(dim=1), grades, NO_GRADE)


def _nan_unless_finite(raw: torch.Tensor) -> torch.Tensor:
    """Raw outputs (B, K), all of a row NaN where one of it is not finite: of infinity a sigmoid knows no doubt."""
    return torch.where(raw.isfinite().all(dim=1, keepdim=True), raw, math.nan)


def _log_sigmoid(values: torch.Tensor) -> torch.Tensor:
    """By exponentials: onnxruntime's sigmoid is exact to 1e-7, which leaves nothing of the logarithm of 1e-7."""
    return values.clamp(max=0) - (-values.abs()).exp().log1p()


def fit_cutpoints(score: npt.NDArray[np.float64], grades: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Four ascending cut-points, (4,), at which cutting the scores (N,) agrees best with the grades by QWK.

    Begins with one half between the grades and moves a cut-point at a time to the best of `CANDIDATES` quantiles of
    the scores, where that is better than staying; so few scores, or none of a grade, leave it where it was.
    """
    cutpoints = np.arange(GRADES - 1, dtype=np.float64) + 0.5
    quantiles = np.unique(np.quantile(score, np.linspace(0, 1, CANDIDATES)))
    candidates = (quantiles[1:] + quantiles[:-1]) / 2
    best = _agreement(score, grades, cutpoints)
    for _ in range(ROUNDS):
        before = best
        for place in range(GRADES - 1):
            low = cutpoints[place - 1] if place else -np.inf
            high = cutpoints[place + 1] if place < GRADES - 2 else np.inf
            for candidate in candidates[(candidates > low) & (candidates < high)]:
                tried = np.where(np.arange(GRADES - 1) == place, candidate, cutpoints).astype(np.float64)
                if (agreement := _agreement(score, grades, tried)) > best + 1e-9:
                    best, cutpoints = agreement, tried
        if best == before:
            break
    return cutpoints


def _agreement(
    score: npt.NDArray[np.float64], grades: npt.NDArray[np.int64], cutpoints: npt.NDArray[np.float64]
) -> float:
    """QWK by its moments: scikit-learn's takes a hundred times as long, and this is asked for a thousand times."""
    guess = np.searchsorted(cutpoints, score, side="left")
    apart = np.square(grades - guess).mean()
    by_chance = grades.var() + guess.var() + np.square(grades.mean() - guess.mean())
    return float(1 - apart / by_chance) if by_chance else 0.0


def _fit_spread(
    score: npt.NDArray[np.float64], grades: npt.NDArray[np.int64], cutpoints: npt.NDArray[np.float64]
) -> float:
    edges = np.concatenate([[-np.inf], cutpoints, [np.inf]])

    def surprise(log_spread: float) -> float:
        spread = np.exp(log_spread)
        worse = 1 / (1 + np.exp(-np.clip((score[:, None] - edges) / spread, -40, 40)))
        p = worse[np.arange(len(score)), grades] - worse[np.arange(len(score)), grades + 1]
        return float(-np.log(np.maximum(p, 1e-12)).mean())

    return float(np.exp(optimize.minimize_scalar(surprise, bounds=(np.log(0.02), np.log(4.0)), method="bounded").x))
