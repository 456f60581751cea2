"""What keeps a GPU busy: no look at it inside an epoch, photographs that stay on it. The "meta" device stands for one.

A tensor of the meta device has a shape and no values: whoever asks it for one, as a host that waits for its GPU does,
gets an error.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tiny_dataset
import torch
from tiny_dataset import AUGMENTATIONS, part

from retina.config import TrialConfig
from retina.data.loader import SplitView, load, plan_batches, upload_if_fits
from retina.training import microbatch, model
from retina.training.inference import compute_outputs, evaluate
from retina.training.trainer import start_training

META = torch.device("meta")


def gradients(
    config: TrialConfig, train: SplitView, device: torch.device
) -> tuple[torch.nn.Module, microbatch.GradientAccumulator]:
    net = model.build(config, image_size=16).to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    how = microbatch.GradientAccumulator(
        config, net, train, name="net", device=device, precision=torch.float32, scaler=scaler
    )
    return net, how


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("micro_batch", [4, 2])
def test_a_batch_is_learned_from_without_a_look_at_the_device(augmentation: str, micro_batch: int) -> None:
    config = TrialConfig(
        pretrained=False, batch_size=4, augmentation=augmentation, class_weights="balanced", label_smoothing=0.1
    )
    train = part([0, 1, 2, 3, 4, 0])
    net, how = gradients(config, train, META)
    how.micro_batch = micro_batch
    for drawn in plan_batches(train, batch_size=4, augmentation=augmentation, seed=0, epoch=1):
        loss, guesses = how(drawn, 0, "here")
        assert loss.device.type == "meta"
        assert sum(len(some) for some in guesses) == len(drawn)
    assert all(parameter.grad is not None for parameter in net.parameters())
    with pytest.raises(RuntimeError):
        loss.item()  # what such a look would come to


class Asking(torch.nn.Module):
    """A network that asks how a GPU would convolve in float32, and says nothing of a photograph."""

    def __init__(self) -> None:
        super().__init__()
        self.result: set[str] = set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.result.add(torch.backends.cudnn.conv.fp32_precision)  # type: ignore[attr-defined]
        return torch.zeros(len(images), 5)


def test_photographs_are_judged_in_float32_to_the_letter() -> None:
    net, before = Asking(), torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    evaluate(net, part([0, 1, 2]), device=torch.device("cpu"))
    assert net.result == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == before  # type: ignore[attr-defined]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_says_what_the_cpu_says() -> None:
    net = model.build(TrialConfig(pretrained=False), image_size=64).eval()
    of = part([0, 1, 2, 3, 4], 64)
    here = compute_outputs(net, of, device=torch.device("cpu"))
    there = compute_outputs(net.cuda(), of, device=torch.device("cuda"))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("stays", [False, True])
def test_an_epoch_halts_a_gpu_at_its_end_alone(*, stays: bool) -> None:
    device = torch.device("cuda")
    config = TrialConfig(pretrained=False, batch_size=4, epochs=3, augmentation="full")
    mapped = part([0, 1, 2, 3, 4, 0, 1, 2])
    train = SplitView(upload_if_fits(mapped.pixels, device, 10**9 if stays else 0), mapped.rows, mapped.grades)
    training = start_training(config, train, train, device=device)
    next(training)
    how = training._accumulator
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for drawn in plan_batches(train, batch_size=4, augmentation="full", seed=0, epoch=2):
            how(drawn, 0, "here")
            training._update("here")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_photographs_that_fit_stay_on_the_device() -> None:
    pixels = part([0, 1, 2]).pixels
    assert isinstance(pixels, np.ndarray)
    there = upload_if_fits(pixels, META, pixels.nbytes)
    assert isinstance(there, torch.Tensor)
    assert (there.shape, there.dtype, there.device) == (pixels.shape, torch.uint8, META)
    assert upload_if_fits(pixels, META, pixels.nbytes - 1) is pixels
    assert upload_if_fits(pixels, torch.device("cpu"), pixels.nbytes) is pixels


def test_they_are_sent_once_for_all_splits_and_trials() -> None:
    photographs = tiny_dataset.photographs()
    parts = [photographs.split_view(name, META, 10**9) for name in ("train", "val", "train")]
    assert all(one.pixels is parts[0].pixels for one in parts)
    assert isinstance(parts[0].pixels, torch.Tensor)
    assert parts[0].rows.tolist() == photographs.split_view("train").rows.tolist()
    drawn = next(iter(plan_batches(parts[0], batch_size=2, augmentation="full", seed=0, epoch=1)))
    images, grades = load(parts[0], drawn, META)
    assert (images.shape, grades.shape) == ((2, 3, *parts[0].pixels.shape[1:3]), (2,))


def test_photographs_on_the_device_are_left_behind_when_a_worker_is_given_them() -> None:
    photographs = tiny_dataset.photographs()
    photographs.split_view("train", META, 10**9)
    assert "_resident" not in pickle.loads(pickle.dumps(photographs)).__dict__  # noqa: S301
