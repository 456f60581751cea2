"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): which fields of a photograph speak for the grade it was given."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import nn

from retina.config import GRADES
from retina.training.losses import get_output_decoder, log_probabilities

FIELDS = 4
"""A side of a map that still says where: of photographs below 128 pixels the last stage has only 2 x 2 fields or 1."""
Hook = Callable[[nn.Module, tuple[object, ...], torch.Tensor], None]
STAGES = ("layer4", "layer3", "layer2", "layer1")


def heatmaps(net: nn.Module, images: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """Which fields speak for the grades, one map a photograph.

    The gradient of `score` at a stage's output is averaged over its fields; these are the weights at which its channels
    are added up. What is negative, speaking against the grade, becomes 0 (equations 1 and 2 of the paper). The stage is
    the last one that has at least `FIELDS` x `FIELDS` fields, else the one with most.

    Args:
        net: a grader with the stages of a ResNet, in evaluation mode, on the images' device.
        images: float (B, 3, S, S), normalised.
        grades: int64 (B,), whose evidence is looked for.

    Returns:
        float (B, H, W), on the same device: 0 to 1 in each photograph; all 0 where no field speaks for the grade.
    """
    outputs: dict[str, torch.Tensor] = {}
    stages = {name: net.get_submodule(name) for name in STAGES}
    hooks = [stage.register_forward_hook(_keep(outputs, name)) for name, stage in stages.items()]
    try:
        with torch.enable_grad():
            # so that there is a gradient to follow whether or not the weights ask for theirs
            scores = score(net, net(images.detach().requires_grad_()), grades)
            chosen = next((outputs[name] for name in STAGES if min(outputs[name].shape[2:]) >= FIELDS), None)
            looked_at = outputs[STAGES[-1]] if chosen is None else chosen
            (slopes,) = torch.autograd.grad(scores.sum(), looked_at)
    finally:
        for hook in hooks:
            hook.remove()
    weights = slopes.mean(dim=(2, 3), keepdim=True)
    maps = F.relu((weights * looked_at.detach()).sum(dim=1))
    most = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(most > 0, maps / most.clamp_min(torch.finfo(maps.dtype).tiny), torch.zeros_like(maps))


def score(net: nn.Module, raw: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
    """What a map explains, (B,): the grade's own logit as in the paper; of an ordinal network, its log-odds.

    Args:
        net: whose `reading` says what its raw output means.
        raw: float (B, K), its raw output.
        grades: int64 (B,).
    """
    if raw.shape[1] == GRADES:
        return raw.gather(1, grades[:, None])[:, 0]
    logs, _ = log_probabilities(get_output_decoder(net), raw)
    mine = F.one_hot(grades, GRADES).bool()
    # against all others, since of a probability near 1 the logarithm has no slope any more
    return logs[mine] - logs.masked_fill(mine, -torch.inf).logsumexp(dim=1)


def _keep(outputs: dict[str, torch.Tensor], name: str) -> Hook:
    def keep(_module: nn.Module, _inputs: tuple[object, ...], output: torch.Tensor) -> None:
        outputs[name] = output

    return keep
