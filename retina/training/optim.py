"""How a network's weights move: optimizer, schedule, the frozen backbone, the moving average."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from retina.config import TrialConfig

EMA_WARM_UP_STEPS = 10


def create_optimizer(config: TrialConfig, net: nn.Module) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW as `config` says; the backbone in a second group where it learns otherwise than the head."""
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    groups: list[dict[str, Any]] = [{"params": list(net.parameters())}]
    behind = backbone_modules(net)
    # also where it only begins later: torch's fused SGD takes no group in which some parameters have no momentum yet
    if (config.backbone_rate != 1 or config.freeze_epochs) and behind:
        mine = {id(parameter) for module in behind for parameter in module.parameters()}
        head = [parameter for parameter in net.parameters() if id(parameter) not in mine]
        rest = [parameter for parameter in net.parameters() if id(parameter) in mine]
        groups = [{"params": head}, {"params": rest, "lr": config.learning_rate * config.backbone_rate}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **common)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, **common)


def create_scheduler(
    config: TrialConfig, optimizer: torch.optim.Optimizer, steps_an_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate's way over the trial's own epochs, stepped after each batch."""
    steps = steps_an_epoch * config.epochs
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if config.schedule == "one_cycle" and steps > 1:
        # the momentum is searched on its own, so the cycle leaves it alone; one step more than torch counts, since
        # the schedule is stepped after the last batch too
        rates = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=steps + 1, cycle_momentum=False)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def backbone_modules(net: nn.Module) -> list[nn.Module]:
    """All of a torchvision ResNet but its head `fc`; empty for a network that has no such head."""
    children = dict(net.named_children())
    return [child for name, child in children.items() if name != "fc"] if "fc" in children else []


def set_frozen(net: nn.Module, *, frozen: bool) -> None:
    """Let the backbone of a network in training mode learn, or keep it as it is, batch statistics included."""
    for module in backbone_modules(net):
        module.requires_grad_(not frozen)
        if frozen:
            module.eval()


class ModelEma:
    """A network whose weights, batch statistics included, are the exponential moving average of another's.

    The first steps count less, as in torch's and timm's: after n steps the decay is at most (1 + n) / (10 + n).
    torch's own `AveragedModel` asks the device for the number of steps at each.

    Attributes:
        net: the averaged network; its `reading`, if there is one, is the other's own.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(requires_grad=False)
        if hasattr(net, "reading"):
            self.net.reading = net.reading
        self._decay = decay
        mine, theirs = self.net.state_dict(), net.state_dict()
        self._pairs = [(mine[name], tensor) for name, tensor in theirs.items() if not name.startswith("reading.")]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the other's weights after its `step`-th step, 1 for the first."""
        keep = min(self._decay, (1 + step) / (EMA_WARM_UP_STEPS + step))
        for mine, theirs in self._pairs:
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - keep)
            else:
                mine.copy_(theirs)
