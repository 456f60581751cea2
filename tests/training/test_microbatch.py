"""Short of memory: a batch goes on in micro-batches that learn the same; one photograph too large ends the run."""

import dataclasses
import logging
import math
import os
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from repository import HELPERS, ROOT
from tiny_dataset import CPU, config, part
from torch import nn

from retina.config import TrialConfig
from retina.data.loader import load, plan_batches
from retina.errors import TrainError
from retina.training import model
from retina.training.epochs import EpochResult
from retina.training.inference import evaluate
from retina.training.microbatch import is_out_of_memory, split_into_chunks
from retina.training.trainer import TrainingRun, start_training

TRAIN = part([0, 1, 2, 3, 4, 0, 1, 0, 0, 2, 0])
VAL = part([0, 1, 2, 3, 4], seed=1)
PLENTY = 10**9


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_sweeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector takes 0.3 s an attempt, and what our networks hold must be free without it."""
    monkeypatch.setattr("gc.collect", lambda: 0)


def refuse(count: int, room: int) -> None:
    if count > room:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {count} photographs.\nand more lines")


class InBackward(torch.autograd.Function):
    """Nothing but its memory: that is short where the gradients of more than `room` photographs pass."""

    @staticmethod
    def forward(context: Any, features: torch.Tensor, room: int) -> torch.Tensor:
        context.room = room
        return features.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:
        refuse(len(gradient), context.room)
        return gradient, None


class Short(nn.Module):
    """A small network without batch normalisation or dropout, on a device that holds only so many photographs.

    Attributes:
        tried: photographs in each call in training.
        judged: the same in evaluation.
        draws: a random number of each call in training.
        alive: images and features of earlier calls that were still there at the beginning of a call.
    """

    def __init__(self, *, room: int = PLENTY, backward: int = PLENTY, judging: int = PLENTY) -> None:
        super().__init__()
        torch.manual_seed(0)  # the same weights for all
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(16, 5)
        self.room, self.backward_room, self.judging = room, backward, judging
        self.tried: list[int] = []
        self.judged: list[int] = []
        self.draws: list[float] = []
        self.alive: list[int] = []
        self._seen: list[weakref.ref[torch.Tensor]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            self.judged.append(len(images))
            refuse(len(images), self.judging)
            return self.head(self.features(images))
        self.tried.append(len(images))
        self.draws.append(float(torch.rand(())))
        self.alive.append(sum(one() is not None for one in self._seen))
        features = self.features(images)
        self._seen += [weakref.ref(images), weakref.ref(features)]
        refuse(len(images), self.room)
        return self.head(InBackward.apply(features, self.backward_room))


def start(net: nn.Module | None, of: TrialConfig | None = None, **more: Any) -> TrainingRun:
    return start_training(of or config(batch_size=11), more.pop("train", TRAIN), VAL, net=net, device=CPU, **more)


def values(results: list[EpochResult]) -> list[dict[str, float]]:
    """All numbers but what a clock says and the micro-batch."""
    apart = {"seconds", "images_per_second", "micro_batch"}
    rows = [dataclasses.asdict(one) for one in results]
    return [{key: value for key, value in row.items() if value is not None and key not in apart} for row in rows]


def assert_close(one: TrainingRun, other: TrainingRun) -> None:
    torch.testing.assert_close(one.model_state_dict(), other.model_state_dict(), rtol=1e-5, atol=1e-7)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_pieces_cover_a_batch_evenly(count: int, at_most: int) -> None:
    cut = split_into_chunks(count, at_most)
    edges = [0, *(piece.stop for piece in cut)]
    assert [piece.start for piece in cut] == edges[:-1]
    assert edges[-1] == count
    sizes = [piece.stop - piece.start for piece in cut]
    assert 1 <= min(sizes) <= max(sizes) <= min(at_most, min(sizes) + 1)
    assert len(cut) == math.ceil(count / at_most)


WEIGHTED = [(weights, smoothing) for weights in ("none", "balanced") for smoothing in (0.0, 0.1)]


@pytest.mark.parametrize("room", [PLENTY, 4, 1])
@pytest.mark.parametrize(("class_weights", "smoothing"), WEIGHTED)
def test_the_gradients_are_those_of_the_whole_batchs_mean_loss(class_weights: str, smoothing: float, room: int) -> None:
    weighting = {"class_weights": class_weights, "label_smoothing": smoothing, "augmentation": "none"}
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.5, "schedule": "constant"}
    run = start(Short(room=room), config(epochs=1, batch_size=6, **plain, **weighting))
    (result,) = run
    balanced = torch.tensor(11 / (5 * np.bincount(TRAIN.grades)), dtype=torch.float32)
    net, losses = Short(), []
    descent = torch.optim.SGD(net.parameters(), lr=0.5)
    for drawn in plan_batches(TRAIN, batch_size=6, augmentation="none", seed=0, epoch=1):
        images, grades = load(TRAIN, drawn, CPU)
        weight = balanced[grades] if class_weights == "balanced" else torch.ones(len(grades))
        each = F.cross_entropy(net(images), grades, label_smoothing=smoothing, reduction="none")
        loss = (weight * each).sum() / weight.sum()
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(loss.item() * len(grades))
    assert result.train_loss == pytest.approx(sum(losses) / 11, rel=1e-5)
    torch.testing.assert_close(run.model_state_dict(), dict(net.state_dict()), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("short", [{"room": 3}, {"backward": 3}])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_batch_too_large_is_learned_from_in_micro_batches(short: dict[str, int], optimizer: str) -> None:
    settings = config(batch_size=6, epochs=2, optimizer=optimizer, schedule="cosine", augmentation="full")
    net = Short(**short)
    run, whole = start(net, settings), start(Short(), settings)
    results, expected = list(run), list(whole)
    assert [one.micro_batch for one in results] == [3, 3]
    assert [one.micro_batch for one in expected] == [6, 6]
    assert net.tried == [6, 3, 3, 2, 3, 3, 3, 2, 3]  # tried in vain once: what fits is kept
    assert_close(run, whole)  # nothing is left of the gradients of the attempt in vain
    for one, other in zip(values(results), values(expected), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_pieces_are_halved_until_they_fit() -> None:
    net = Short(room=3)
    next(start(net))
    assert net.tried == [11, 5, 2, 3, 3, 3]


def test_a_batch_larger_than_the_split_is_not_tried_the_same_again() -> None:
    net = Short(room=6)
    assert next(start(net, config(batch_size=4096))).micro_batch == 6
    assert net.tried == [11, 5, 6]


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    list(start(Short(room=3)))
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (
            logging.WARNING,
            "a batch of 11 does not fit into memory: run as micro-batches of 3, gradients accumulated",
        )
    ]


def test_nothing_is_said_where_memory_suffices(caplog: pytest.LogCaptureFixture) -> None:
    net = Short()
    assert next(start(net)).micro_batch == 11
    assert net.tried == [11]
    assert caplog.records == []


@pytest.mark.parametrize("short", [{"room": 3}, {"backward": 3}])
def test_a_further_attempt_finds_the_memory_of_the_one_before_free(short: dict[str, int]) -> None:
    net = Short(**short)
    next(start(net))
    assert net.alive == [0] * len(net.tried)


def test_a_further_attempt_draws_the_same_random_numbers() -> None:
    net = Short(room=4)
    next(start(net, config(batch_size=7)))
    assert net.tried == [7, 3, 4, 4]
    assert net.draws[0] == net.draws[1]
    assert len(set(net.draws)) == 3  # neither a piece nor a step draws what another has drawn


def test_a_resumed_run_keeps_its_micro_batch() -> None:
    settings = config(batch_size=6, epochs=3, augmentation="full")
    run = start(Short(room=2), settings)
    first = next(run)
    net = Short(room=2)
    resumed = start(net, settings)
    resumed.load_state_dict(run.model_state_dict(), run.state_dict())
    rest = list(resumed)
    assert (first.micro_batch, rest[0].micro_batch) == (2, 2)
    assert max(net.tried) == 2
    assert values(rest) == values(list(run))
    assert all(torch.equal(resumed.model_state_dict()[name], tensor) for name, tensor in run.model_state_dict().items())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_schedule_and_scaler_step_once_a_batch(precision: str) -> None:
    settings = config(batch_size=6, epochs=2, precision=precision, schedule="cosine", learning_rate=1e-4)
    run, whole = start(Short(room=2), settings), start(Short(), settings)
    results, expected = list(run), list(whole)
    assert [one.learning_rate for one in results] == [one.learning_rate for one in expected]
    assert run.state_dict()["scaler"] == whole.state_dict()["scaler"]
    assert [one.train_loss for one in results] == pytest.approx([one.train_loss for one in expected], rel=0.02)


def test_a_resnet_with_batch_normalisation_goes_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    normalise = F.batch_norm

    def short(images: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        refuse(len(images), 2)
        return normalise(images, *more, **named)

    monkeypatch.setattr("torch.nn.functional.batch_norm", short)
    (result,) = start(None, config(epochs=1, batch_size=4, dropout=0.3), train=part([0, 1, 2, 3, 4]))
    assert result.micro_batch == 2
    assert math.isfinite(result.train_loss + result.val_loss)


@pytest.mark.parametrize("short", [{"room": 0}, {"backward": 0}])
def test_one_photograph_too_large_ends_the_run_with_the_reason(short: dict[str, int]) -> None:
    net = Short(**short)
    with pytest.raises(TrainError) as failure:
        next(start(net))
    assert str(failure.value) == (
        "epoch 1, step 1: out of memory with a single photograph of 16 px in Short "
        "(CUDA out of memory. Tried to allocate 1 photographs.); a smaller data.image_size or arch, or a larger share "
        "of the GPU (resources.gpu), needs less"
    )
    assert net.tried == [11, 5, 2, 1, 1]  # in pieces of at most 11, 6, 3, 2 and 1


def test_the_architecture_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "build", lambda *_, **__: Short(room=0))
    with pytest.raises(TrainError, match="single photograph of 16 px in resnet34 "):
        next(start(None, config(arch="resnet34")))


def test_an_update_that_runs_out_of_memory_is_not_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def step(*_: Any) -> None:
        calls.append(1)
        refuse(1, 0)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    run = start(Short(), config(optimizer="sgd"))
    with pytest.raises(
        TrainError, match=r"^epoch 1, step 1: out of memory in the optimizer's step \(CUDA out of .*\);"
    ):
        next(run)
    assert calls == [1]


def test_other_errors_are_passed_on_at_once() -> None:
    net = Short()
    net.head = nn.Linear(7, 5)
    with pytest.raises(RuntimeError, match="shape") as failure:
        next(start(net))
    assert not isinstance(failure.value, TrainError)
    assert net.tried == [11]


ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (torch.OutOfMemoryError(), True),
        (MemoryError(), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (RuntimeError(ALLOCATOR), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_counts_as_out_of_memory(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


def test_torchs_own_refusal_counts() -> None:
    with pytest.raises(RuntimeError) as failure:
        torch.empty(1 << 50)
    assert is_out_of_memory(failure.value)
    with pytest.raises(MemoryError):
        np.empty(1 << 55)


MANY = part([grade % 5 for grade in range(200)])


def test_evaluation_goes_on_in_smaller_batches_to_the_same_result() -> None:
    net = Short(judging=50)
    seen, whole = evaluate(net, MANY, device=CPU), evaluate(Short(), MANY, device=CPU)
    assert net.judged == [128, 64, 32, 32, 32, 32, 24, 24, 24]  # what fits is kept
    assert seen.loss == pytest.approx(whole.loss, rel=1e-6)
    assert (seen.grades == MANY.grades).all()
    np.testing.assert_allclose(seen.probabilities, whole.probabilities, rtol=1e-6)


def test_evaluation_of_one_photograph_too_large_says_so() -> None:
    net = Short(judging=0)
    with pytest.raises(
        TrainError, match=r"^evaluation: out of memory with a single photograph of 16 px in Short \(.*\); "
    ):
        evaluate(net, VAL, device=CPU)
    assert net.judged == [5, 2, 1, 1]


def test_a_runs_evaluation_may_be_short_where_its_training_is_not() -> None:
    (result,) = start(Short(judging=2), config(epochs=1, batch_size=11))
    assert result.micro_batch == 11
    assert math.isfinite(result.val_loss)


class Wide(nn.Module):
    """Some 3 MiB of activations a photograph of 16 pixels, made by torch's own allocator alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(3, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        wide = images.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        for _ in range(10):
            wide = (wide * self.scale).tanh()
        return self.head(wide.mean(dim=(2, 3)))


def limited(device: torch.device) -> TrainingRun:
    """A run to be limited, of one batch of 200 photographs; what a run must have besides has been loaded before."""
    small = config(epochs=1, batch_size=2, optimizer="sgd")
    next(start_training(small, VAL, VAL, net=Wide(), device=device))
    wanted = small.model_copy(update={"batch_size": 200})
    return start_training(wanted, part([grade % 5 for grade in range(200)]), VAL, net=Wide(), device=device)


def limited_here() -> None:
    """Runs in a process of its own, since address space that was once limited stays so."""
    torch.set_num_threads(1)
    run, whole = limited(CPU), limited(CPU)
    (expected,) = whole
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize")) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]))
    (result,) = run
    assert expected.micro_batch == 200
    assert result.micro_batch in range(1, 101), result
    assert_close(run, whole)
    print(result.micro_batch)  # noqa: T201


@pytest.mark.skipif(sys.platform != "linux", reason="the address space of a process can only be limited on Linux")
def test_a_real_allocators_refusal_is_survived() -> None:
    code = "import test_microbatch; test_microbatch.limited_here()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HELPERS), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdigit()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_too_small_is_survived() -> None:
    cuda = torch.device("cuda", torch.cuda.current_device())
    run, whole = limited(cuda), limited(cuda)
    (expected,) = whole
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(cuda) + 150 * 2**20) / total, cuda)
    try:
        (result,) = run
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)
    assert expected.micro_batch == 200
    assert result.micro_batch is not None
    assert 1 <= result.micro_batch <= 100
    assert_close(run, whole)
