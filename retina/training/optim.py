"""Optimizer, learning-rate scheduler, frozen backbone and the exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from retina.config import TrialConfig

EMA_WARM_UP_STEPS = 10
"""The decay of `ModelEma` after n steps is at most (1 + n) / (EMA_WARM_UP_STEPS + n)."""


def create_optimizer(config: TrialConfig, net: nn.Module) -> torch.optim.Optimizer:
    """Create SGD, Adam or AdamW; a backbone that learns otherwise than the head gets a parameter group of its own."""
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    groups: list[dict[str, Any]] = [{"params": list(net.parameters())}]
    modules = backbone_modules(net)
    # also for a backbone that is only frozen at first: torch's fused SGD refuses a group in which some parameters have
    # no momentum yet
    if (config.backbone_rate != 1 or config.freeze_epochs) and modules:
        backbone_ids = {id(parameter) for module in modules for parameter in module.parameters()}
        head = [parameter for parameter in net.parameters() if id(parameter) not in backbone_ids]
        backbone = [parameter for parameter in net.parameters() if id(parameter) in backbone_ids]
        groups = [{"params": head}, {"params": backbone, "lr": config.learning_rate * config.backbone_rate}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **common)
    optimizer = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return optimizer(groups, **common)


def create_scheduler(
    config: TrialConfig, optimizer: torch.optim.Optimizer, steps_an_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Create the learning-rate scheduler over the trial's own epochs; it is stepped after each batch."""
    steps = steps_an_epoch * config.epochs
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if config.schedule == "one_cycle" and steps > 1:
        # the momentum is a parameter of its own, so it is not cycled; one step more than torch counts, since the
        # scheduler is stepped after the last batch too
        rates = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=steps + 1, cycle_momentum=False)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def backbone_modules(net: nn.Module) -> list[nn.Module]:
    """Return all modules of a torchvision ResNet but its head `fc`; none for a network without such a head."""
    children = dict(net.named_children())
    return [child for name, child in children.items() if name != "fc"] if "fc" in children else []


def set_frozen(net: nn.Module, *, frozen: bool) -> None:
    """Freeze the backbone of a network in training mode, its batch statistics included, or let it learn."""
    for module in backbone_modules(net):
        module.requires_grad_(not frozen)
        if frozen:
            module.eval()


class ModelEma:
    """The exponential moving average of a network's weights, batch statistics included.

    The first steps count less, as in torch's and timm's: after n steps the decay is at most (1 + n) / (10 + n).
    `torch.optim.swa_utils.AveragedModel` is not used: it reads its number of steps from the device at each step, which
    makes the host wait.

    Attributes:
        net: the averaged network; it shares the output decoder `reading`, if there is one, with the trained network.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        """Begin with a copy of the weights of `net`."""
        self.net = copy.deepcopy(net).requires_grad_(requires_grad=False)
        if hasattr(net, "reading"):
            self.net.reading = net.reading
        self._decay = decay
        averaged, trained = self.net.state_dict(), net.state_dict()
        self._pairs = [(averaged[name], tensor) for name, tensor in trained.items() if not name.startswith("reading.")]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after the `step`-th step of training, 1 for the first."""
        decay = min(self._decay, (1 + step) / (EMA_WARM_UP_STEPS + step))
        for averaged, trained in self._pairs:
            if averaged.is_floating_point():
                averaged.lerp_(trained, 1 - decay)
            else:
                averaged.copy_(trained)
