"""MixUp and CutMix: what is mixed, in which shares, and that photographs and grades are mixed in the same ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_dataset import CPU, config, part

from retina.data import mixup
from retina.data.loader import BatchPlan, load, plan_batches
from retina.training.losses import summed_loss
from retina.training.trainer import start_training

TRAIN, VAL = part([0, 1, 2, 3, 4, 0, 1]), part([0, 1, 2, 3, 4], seed=1)
KINDS = ["mixup", "cutmix"]


def numbered(count: int, size: int) -> torch.Tensor:
    """Images whose every pixel is their number."""
    return torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, size, size).clone()


@given(st.sampled_from(KINDS), st.floats(0.05, 5), st.integers(0, 2**63 - 1), st.integers(1, 6), st.integers(1, 40))
def test_every_pixel_is_the_photographs_and_its_neighbours_by_the_share_that_is_told(
    kind: str, alpha: float, seed: int, count: int, size: int
) -> None:
    mix = mixup.draw_mix_plan(kind, alpha, seed)
    assert mix is not None
    images = numbered(count, size)
    neighbour = images.roll(1, 0)
    mixed, share = mix(images)
    assert 0 <= share <= 1
    torch.testing.assert_close(mixed.mean((1, 2, 3)), (share * images + (1 - share) * neighbour).mean((1, 2, 3)))
    if kind == "cutmix":
        assert bool(((mixed == images) | (mixed == neighbour)).all())
    else:
        assert share == mix.share
    torch.testing.assert_close(images, numbered(count, size), msg="the photographs themselves are left alone")


def test_shares_spread_as_alpha_says() -> None:
    def drawn(alpha: float) -> np.ndarray:
        mixes = (mixup.draw_mix_plan("mixup", alpha, seed) for seed in range(400))
        return np.array([mix.share for mix in mixes if mix])

    assert np.minimum(drawn(0.1), 1 - drawn(0.1)).mean() < 0.1
    assert drawn(1.0).std() == pytest.approx(np.sqrt(1 / 12), abs=0.03)
    assert drawn(50.0).std() < 0.1


def test_without_mixing_nothing_is_drawn() -> None:
    assert mixup.draw_mix_plan("none", 1.0, 0) is None
    assert all(one.mix is None for one in plan_batches(TRAIN, batch_size=2, augmentation="full", seed=0, epoch=1))


def test_each_batch_of_each_epoch_is_mixed_in_a_way_of_its_own() -> None:
    def shares(seed: int, epoch: int) -> list[float]:
        drawing = plan_batches(
            TRAIN, batch_size=2, augmentation="none", seed=seed, epoch=epoch, mix="cutmix", mix_alpha=1.0
        )
        return [one.mix.share for one in drawing if one.mix]

    result = [*shares(0, 1), *shares(0, 2), *shares(1, 1)]
    assert len(set(result)) == len(result) == 12
    assert shares(0, 1) == result[:4]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_of_both_grades_in_the_shares_of_the_photographs(kind: str) -> None:
    settings = config(mix=kind, mix_alpha=1.0, batch_size=7, epochs=1, augmentation="none")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 16 * 3, 5))  # read as five logits
    (drawn,) = plan_batches(TRAIN, batch_size=7, augmentation="none", seed=0, epoch=1, mix=kind, mix_alpha=1.0)
    images, grades = load(TRAIN, BatchPlan(drawn.indices), CPU)
    assert drawn.mix is not None
    mixed, share = drawn.mix(images)
    assert 0.01 < share < 0.99, "else this test shows nothing"
    raw = copy.deepcopy(net)(mixed).detach()
    ones = torch.ones(5)
    wanted = share * summed_loss("cross_entropy", raw, grades, ones)
    wanted = wanted + (1 - share) * summed_loss("cross_entropy", raw, grades.roll(1), ones)
    run = start_training(settings, TRAIN, VAL, net=net, device=CPU)
    assert next(run).train_loss == pytest.approx(wanted.item() / 7, rel=1e-5)
