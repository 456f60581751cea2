"""The choices of fine-tuning: a frozen backbone, a slower one, averaged weights, mirror images, ordinal losses."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_dataset import CPU, config, part
from torch import nn

from retina.config import TrialConfig
from retina.training import model, optim
from retina.training.epochs import EpochResult
from retina.training.inference import evaluate, with_flip_tta
from retina.training.losses import N_OUTPUTS, OutputDecoder
from retina.training.trainer import TrainingRun, start_training

TRAIN = part([0, 1, 2, 3, 4, 0, 1])
VAL = part([0, 1, 2, 3, 4], seed=1)


class Small(nn.Module):
    """As a ResNet: a backbone with batch normalisation, a head `fc`, and how its output is read."""

    def __init__(self, loss: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, N_OUTPUTS[loss])
        self.reading = OutputDecoder(loss)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raw: torch.Tensor = self.fc(self.bn1(self.conv1(images)).relu().mean(dim=(2, 3)))
        return raw


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(model, "build", lambda config, *_, **__: Small(config.loss))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(**changes: Any) -> TrainingRun:
    return start_training(config(**changes), TRAIN, VAL, device=CPU)


def copied(run: TrainingRun) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in run.model.state_dict().items()}


def values(result: EpochResult) -> dict[str, Any]:
    return {k: v for k, v in vars(result).items() if k not in {"seconds", "images_per_second"}}


def test_a_frozen_backbone_stays_to_the_bit_and_then_learns() -> None:
    run = start(freeze_epochs=1, epochs=2, learning_rate=0.05, weight_decay=0.1)
    begun = copied(run)
    next(run)
    frozen = copied(run)
    moved = {name for name in begun if not torch.equal(begun[name], frozen[name])}
    assert moved == {"fc.weight", "fc.bias"}  # not even the batch statistics
    next(run)
    assert not torch.equal(copied(run)["conv1.weight"], frozen["conv1.weight"])
    assert not torch.equal(copied(run)["bn1.running_mean"], frozen["bn1.running_mean"])


def test_a_backbone_with_a_smaller_rate_moves_less() -> None:
    def movement(rate: float) -> tuple[float, float]:
        run = start(backbone_rate=rate, epochs=1, momentum=0.0, weight_decay=0.0, batch_size=7)
        begun = copied(run)
        next(run)
        now = copied(run)
        return tuple(float((now[name] - begun[name]).norm()) for name in ("conv1.weight", "fc.weight"))  # type: ignore[return-value]

    whole, tenth = movement(1.0), movement(0.1)
    assert tenth[0] == pytest.approx(whole[0] / 10, rel=1e-3)  # one plain step of SGD is as long as its rate
    assert tenth[1] == pytest.approx(whole[1], rel=1e-3)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_the_rate_that_is_told_is_the_head_s_and_both_follow_the_schedule(schedule: str) -> None:
    run, plain = (start(schedule=schedule, backbone_rate=rate, epochs=3) for rate in (0.1, 1.0))
    for mine, other in zip(run, plain, strict=True):
        assert mine.learning_rate == pytest.approx(other.learning_rate)
    head, backbone = (group["lr"] for group in run.state_dict()["optimizer"]["param_groups"])
    assert backbone == pytest.approx(head / 10)


def test_averaged_weights_are_the_moving_average_of_the_trained_ones() -> None:
    run = start(ema=0.9, epochs=1, batch_size=2, learning_rate=0.1)
    wanted = copied(run)["conv1.weight"]
    step, update = 0, run._ema.update if run._ema else None

    def watched(at: int) -> None:
        nonlocal step, wanted
        step += 1
        assert at == step
        keep = min(0.9, (1 + step) / (10 + step))
        wanted = keep * wanted + (1 - keep) * run.model.state_dict()["conv1.weight"]
        assert update is not None
        update(at)

    assert run._ema is not None
    run._ema.update = watched  # type: ignore[method-assign]
    next(run)
    assert step == 4
    torch.testing.assert_close(run.model_state_dict()["conv1.weight"], wanted)
    assert not torch.equal(run.model_state_dict()["conv1.weight"], run.model.state_dict()["conv1.weight"])


def test_what_is_judged_and_saved_is_the_average() -> None:
    run = start(ema=0.9, epochs=1, learning_rate=0.1)
    result = next(run)
    saved = Small("cross_entropy")
    saved.load_state_dict(run.model_state_dict())
    assert evaluate(saved, VAL, device=CPU).loss == pytest.approx(result.val_loss, rel=1e-2)  # bfloat16 in the run
    assert evaluate(run.model, VAL, device=CPU).loss != pytest.approx(result.val_loss, rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9},
        {"loss": "mse"},
        {"loss": "corn"},
        {"freeze_epochs": 2},
        {"backbone_rate": 0.1},
        {"mix": "mixup"},
        {"loss": "emd", "mix": "cutmix"},
    ],
)
def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(changes: dict[str, Any]) -> None:
    expected = [values(one) for one in start(epochs=3, **changes)]
    run = start(epochs=3, **changes)
    next(run)
    file = io.BytesIO()
    torch.save({"weights": run.model_state_dict(), "state": run.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = start(epochs=3, **changes)
    resumed.load_state_dict(saved["weights"], saved["state"])
    assert [values(one) for one in resumed] == expected[1:]


def test_mirror_images_are_judged_together() -> None:
    images = torch.rand(3, 3, 12, 12)
    net = Small("cross_entropy").eval()
    wanted = sum(net(torch.flip(images, axes)) for axes in ([], [2], [3], [2, 3])) / 4
    torch.testing.assert_close(with_flip_tta(net, images, flips=True), wanted)
    torch.testing.assert_close(with_flip_tta(net, images, flips=False), net(images))
    upside_down = images.flip(2)
    torch.testing.assert_close(with_flip_tta(net, upside_down, flips=True), wanted)  # so the way up no longer matters


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize("loss", N_OUTPUTS)
def test_every_loss_learns_what_can_be_learned(loss: str, mix: str) -> None:
    grades = [0, 1, 2, 3, 4] * 6
    train, val = part(grades), part(grades, seed=1)
    settings = TrialConfig(
        pretrained=False,
        loss=loss,
        mix=mix,
        epochs=12,
        batch_size=5,
        learning_rate=0.03,
        optimizer="adam",
        augmentation="none",
    )
    run = start_training(settings, train, val, device=CPU)
    results = list(run)
    assert max(one.val_qwk for one in results) > 0.8
    assert results[-1].train_loss < results[0].train_loss
    judged = run.evaluate(val)
    assert judged.probabilities.sum(axis=1) == pytest.approx(1)
    if N_OUTPUTS[loss] > 1:  # a score's cut-points are not judged by the photographs that they were fitted on
        assert judged.metrics.qwk == results[-1].val_qwk


def test_a_network_without_a_head_of_its_own_is_all_head() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 5))
    assert optim.backbone_modules(net) == []
    assert len(optim.create_optimizer(config(backbone_rate=0.1), net).param_groups) == 1
