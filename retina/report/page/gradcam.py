"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): which regions of a photograph support the predicted grade."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import nn

from retina.config import GRADES
from retina.training.losses import get_output_decoder, log_probabilities

MIN_SIDE = 4
"""Smallest side of a useful map. For photographs below 128 pixels the last stage has only 2 x 2 fields or 1."""
Hook = Callable[[nn.Module, tuple[object, ...], torch.Tensor], None]
STAGES = ("layer4", "layer3", "layer2", "layer1")


def heatmaps(net: nn.Module, images: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """Return a map for each photograph of how much each field supports the grade.

    A stage's channels are summed with weights: the gradient of `score` at the stage's output, averaged over the fields.
    Negative values, which are evidence against the grade, become 0 (equations 1 and 2 of the paper). The stage is the
    last one with at least `MIN_SIDE` x `MIN_SIDE` fields, else the one with most fields.

    Args:
        net: grader with the stages of a ResNet, in evaluation mode, on the images' device.
        images: float (B, 3, S, S), normalised.
        grades: int64 (B,), the grades to explain.

    Returns:
        float (B, H, W), on the images' device: 0 to 1 in each photograph; all 0 if no field supports the grade.
    """
    outputs: dict[str, torch.Tensor] = {}
    stages = {name: net.get_submodule(name) for name in STAGES}
    hooks = [stage.register_forward_hook(_recorder(outputs, name)) for name, stage in stages.items()]
    try:
        with torch.enable_grad():
            # requires_grad_ makes the graph exist even if the weights are frozen
            scores = score(net, net(images.detach().requires_grad_()), grades)
            large = [outputs[name] for name in STAGES if min(outputs[name].shape[2:]) >= MIN_SIDE]
            features = large[0] if large else outputs[STAGES[-1]]
            (gradients,) = torch.autograd.grad(scores.sum(), features)
    finally:
        for hook in hooks:
            hook.remove()
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    maps = F.relu((weights * features.detach()).sum(dim=1))
    maxima = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(maxima > 0, maps / maxima.clamp_min(torch.finfo(maps.dtype).tiny), torch.zeros_like(maps))


def score(net: nn.Module, raw: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """Return the score that a map explains, (B,): the grade's logit as in the paper; for ordinal networks its log-odds.

    Args:
        net: network whose output decoder decodes `raw`.
        raw: float (B, K), raw output of the network.
        grades: int64 (B,).
    """
    if raw.shape[1] == GRADES:
        return raw.gather(1, grades[:, None])[:, 0]
    logs, _ = log_probabilities(get_output_decoder(net), raw)
    is_grade = F.one_hot(grades, GRADES).bool()
    # log-odds, because the logarithm of a probability near 1 has a gradient of 0
    return logs[is_grade] - logs.masked_fill(is_grade, -torch.inf).logsumexp(dim=1)


def _recorder(outputs: dict[str, torch.Tensor], name: str) -> Hook:
    """Return a forward hook that stores a module's output as `outputs[name]`."""

    def record(_module: nn.Module, _inputs: tuple[object, ...], output: torch.Tensor) -> None:
        outputs[name] = output

    return record
