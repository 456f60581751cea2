"""One training run: it learns, can be repeated and resumed to the bit, and says where it went wrong."""

import dataclasses
import io
import itertools
import math
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from tiny_dataset import CPU, config, part, photographs
from torch import nn

from retina.config import TrialConfig
from retina.data.loader import BatchPlan, load
from retina.errors import TrainError, WeightsError
from retina.metrics import grading
from retina.training import losses as loss_functions
from retina.training import model
from retina.training.epochs import EpochResult
from retina.training.inference import evaluate
from retina.training.trainer import GradingTask, TrainingRun, select_precision, start_training

TRAIN = part([0, 1, 2, 3, 4, 0, 1])
VAL = part([0, 1, 2, 3, 4], seed=1)
CLOCKED = {"seconds", "images_per_second"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of a few hundred weights, with batch normalisation and dropout, in the place of the ResNets."""

    def build(config: TrialConfig, image_size: int, weights: model.StateDict | None = None) -> nn.Module:
        body = [nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*body, nn.Dropout(0.3), nn.Linear(4, 5))

    monkeypatch.setattr(model, "build", build)


def start(of: TrialConfig, **more: Any) -> TrainingRun:
    return start_training(of, more.pop("train", TRAIN), more.pop("val", VAL), device=CPU, **more)


def outcome(results: list[EpochResult]) -> list[dict[str, Any]]:
    """All but what a clock says."""
    return [{k: v for k, v in dataclasses.asdict(one).items() if k not in CLOCKED} for one in results]


def through_a_file(value: Any) -> Any:
    """As the sweep's checkpoints keep it."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_grader_learns_what_is_easy() -> None:
    easy = part([0, 4] * 6)
    results = list(start(config(epochs=4, learning_rate=0.02, batch_size=6), train=easy, val=easy))
    assert results[-1].train_loss < 0.3 * results[0].train_loss
    assert results[-1].train_accuracy == 1
    assert results[-1].train_qwk == 1


@pytest.mark.parametrize("size", [16, 63, 64])
def test_a_photograph_alone_in_its_batch_can_be_trained_on(size: int) -> None:
    (result,) = start(config(epochs=1), train=part([0, 1, 2, 3, 4], size), val=part([2], size))
    assert math.isfinite(result.train_loss)


def test_an_epoch_says_what_it_came_to(small: None) -> None:
    first, second = start(config())
    assert (first.epoch, second.epoch) == (1, 2)
    for result in (first, second):
        assert result.train_loss > 0
        assert result.val_loss > 0
        assert all(0 <= value <= 1 for value in (result.train_accuracy, result.val_accuracy, result.val_auc))
        assert all(-1 <= value <= 1 for value in (result.train_qwk, result.val_qwk))
        assert result.images_per_second > 0
        assert result.seconds >= len(TRAIN) / result.images_per_second
        assert (result.test_loss, result.test_accuracy, result.test_qwk) == (None, None, None)


def test_an_epochs_validation_numbers_are_of_its_weights(small: None) -> None:
    run = start(config())
    result = next(run)
    seen = evaluate(run.model, VAL, device=CPU)
    assert (result.val_loss, result.val_qwk, result.val_accuracy, result.val_auc) == (
        seen.loss,
        seen.metrics.qwk,
        seen.metrics.accuracy,
        seen.metrics.auc,
    )


def test_the_test_split_is_followed_only_where_it_is_given(small: None) -> None:
    test = part([4, 3, 2, 1], seed=2)
    without, followed = outcome(list(start(config()))), outcome(list(start(config(), test=test)))
    for one, other in zip(without, followed, strict=True):
        assert [other.pop(f"test_{name}") is None for name in ("loss", "accuracy", "qwk")] == [False] * 3
        assert other.items() <= one.items()  # and changes nothing else


def test_a_run_ends_after_its_epochs(small: None) -> None:
    run = start(config(epochs=1))
    assert len(list(run)) == 1
    assert next(run, None) is None


def rates(schedule: str, epochs: int) -> list[float]:
    run = start(config(schedule=schedule, epochs=epochs, learning_rate=0.1))
    return [result.learning_rate for result in run]


def test_a_constant_learning_rate_stays(small: None) -> None:
    assert rates("constant", 8) == [0.1] * 8


@pytest.mark.parametrize("epochs", [2, 6])
def test_cosine_falls_to_nothing_by_the_runs_own_end(small: None, epochs: int) -> None:
    steps = 2 * epochs  # of 7 photographs, 4 in a batch
    last_steps = [2 * epoch - 1 for epoch in range(1, epochs + 1)]
    assert rates("cosine", epochs) == pytest.approx([0.05 * (1 + math.cos(math.pi * s / steps)) for s in last_steps])


@pytest.mark.parametrize("epochs", [6, 10])
def test_one_cycle_rises_to_its_learning_rate_and_falls_to_nothing(small: None, epochs: int) -> None:
    seen = rates("one_cycle", epochs)
    peak = seen.index(max(seen))
    assert seen == sorted(seen[: peak + 1]) + sorted(seen[peak + 1 :], reverse=True)
    assert 0 < peak < epochs / 2
    assert 0.08 < seen[peak] <= 0.1
    assert seen[0] < 0.06
    assert seen[-1] < 0.004


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_a_run_of_a_single_step_has_a_learning_rate(small: None, schedule: str) -> None:
    (result,) = start(config(schedule=schedule, epochs=1, batch_size=99, learning_rate=0.1))
    assert result.learning_rate == 0.1


def test_a_run_repeats_itself_and_another_seed_does_not(small: None) -> None:
    settings = config(augmentation="full")
    torch.manual_seed(1)
    first = outcome(list(start(settings)))
    torch.manual_seed(2)
    assert outcome(list(start(settings))) == first
    assert outcome(list(start(settings.model_copy(update={"seed": 1})))) != first


def test_somebody_elses_random_numbers_change_nothing(small: None) -> None:
    run = start(config())
    first = next(run)
    torch.rand(17)
    assert outcome([first, next(run)]) == outcome(list(start(config())))


RECIPES = list(itertools.product(["sgd", "adam", "adamw"], ["constant", "cosine", "one_cycle"]))


@pytest.mark.parametrize(("optimizer", "schedule"), RECIPES)
def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(small: None, optimizer: str, schedule: str) -> None:
    settings = config(optimizer=optimizer, schedule=schedule, epochs=5, augmentation="full", seed=3)
    whole = start(settings)
    expected = outcome(list(whole))
    stopped = start(settings)
    before = [next(stopped), next(stopped)]
    weights, state = through_a_file(stopped.model_state_dict()), through_a_file(stopped.state_dict())
    resumed = start(settings)
    resumed.load_state_dict(weights, state)
    assert outcome(before) + outcome(list(resumed)) == expected
    assert equal(resumed.model_state_dict(), whole.model_state_dict())


def test_a_resumed_resnet_goes_on_as_if_it_had_never_stopped() -> None:
    settings = config(dropout=0.5)
    run = start(settings)
    next(run)
    resumed = start(settings)
    resumed.load_state_dict(run.model_state_dict(), run.state_dict())
    assert outcome([next(resumed)]) == outcome([next(run)])
    assert equal(resumed.model_state_dict(), run.model_state_dict())


def test_what_was_saved_stays_as_it_was(small: None) -> None:
    settings = config(optimizer="adamw", epochs=3)
    run = start(settings)
    next(run)
    weights, state = run.model_state_dict(), run.state_dict()
    rest = outcome(list(run))
    for _ in range(2):  # also after a run that was restored from it has gone on
        again = start(settings)
        again.load_state_dict(weights, state)
        assert outcome(list(again)) == rest


def test_the_optimizers_differ(small: None) -> None:
    kinds: list[dict[str, Any]] = [{"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.0}]
    kinds += [{"optimizer": "adam"}, {"optimizer": "adamw"}]
    losses = {list(start(config(learning_rate=0.05, weight_decay=0.1, **kind)))[-1].val_loss for kind in kinds}
    assert len(losses) == 4


def test_momentum_is_left_alone_by_one_cycle(small: None) -> None:
    run = start(config(schedule="one_cycle", momentum=0.7, epochs=3))
    for _ in run:
        assert run.state_dict()["optimizer"]["param_groups"][0]["momentum"] == 0.7


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each step's loss is asked for."""
    asked: list[dict[str, Any]] = []
    truly = loss_functions.summed_loss

    def record(loss: str, raw: torch.Tensor, grades: torch.Tensor, weights: torch.Tensor, smoothing: float) -> Any:
        asked.append({"weights": weights, "smoothing": smoothing})
        return truly(loss, raw, grades, weights, smoothing)

    monkeypatch.setattr("retina.training.losses.summed_loss", record)
    return asked


def test_balanced_class_weights_are_scikit_learns(small: None, losses: list[dict[str, Any]]) -> None:
    grades = [0, 0, 0, 0, 1, 1, 2, 3, 4]
    next(start(config(class_weights="balanced"), train=part(grades)))
    wanted = compute_class_weight("balanced", classes=np.arange(5), y=grades)
    assert losses[0]["weights"].tolist() == pytest.approx(wanted.tolist())


def test_balanced_weights_stay_finite_where_a_grade_is_absent(small: None) -> None:
    (result,) = start(config(class_weights="balanced", label_smoothing=0.1, epochs=1), train=part([0, 0, 1, 4]))
    assert math.isfinite(result.train_loss)


def test_label_smoothing_is_of_training_alone(small: None, losses: list[dict[str, Any]]) -> None:
    next(start(config(label_smoothing=0.2)))
    assert losses[0]["smoothing"] == 0.2
    assert losses[0]["weights"].tolist() == [1] * 5
    assert len(losses) == 2  # of the epoch's batches: validation asks for none


def test_a_diverged_run_says_at_which_step() -> None:
    with pytest.raises(TrainError, match=r"^epoch 1, step 2: the training loss is (nan|inf)$"):
        list(start(config(learning_rate=1e30, optimizer="sgd")))


def test_a_diverged_run_says_in_which_epoch(small: None) -> None:
    run = start(config())
    next(run)
    with torch.no_grad():
        next(run.model.parameters()).fill_(math.nan)
    with pytest.raises(TrainError, match=r"^epoch 2, step 1: the training loss is nan$"):
        next(run)


def test_a_run_that_diverges_in_its_last_step_is_noticed() -> None:
    with pytest.raises(TrainError, match=r"^epoch 1: the validation loss is nan: .* on 5 of 5 photographs$"):
        list(start(config(learning_rate=1e30, batch_size=99)))


def test_evaluation_keeps_the_order_and_gives_probabilities(small: None) -> None:
    run = start(config())
    many = part([g % 5 for g in range(131)])  # more than one batch
    seen = evaluate(run.model, many, device=CPU)
    assert seen.grades.tolist() == many.grades.tolist()
    assert seen.probabilities.shape == (131, 5)
    assert seen.probabilities.dtype == np.float64
    np.testing.assert_allclose(seen.probabilities.sum(axis=1), 1)
    logits = torch.cat([run.model(load(many, BatchPlan(np.array([row])), CPU)[0]) for row in range(131)])
    np.testing.assert_allclose(seen.probabilities, logits.detach().softmax(1), atol=1e-5)
    own = seen.probabilities[np.arange(131), many.grades]
    assert seen.loss == pytest.approx(-np.log(own).mean(), rel=1e-5)
    assert seen.metrics.qwk == grading.compute_metrics(many.grades, seen.probabilities).qwk


def test_evaluation_changes_nothing(small: None) -> None:
    run = start(config())
    next(run)
    before, state = run.model_state_dict(), torch.get_rng_state()
    first, second = run.evaluate(VAL), run.evaluate(VAL)
    assert equal(run.model_state_dict(), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first.probabilities == second.probabilities).all()  # no dropout in it


def test_training_does_change_batch_norms_statistics(small: None) -> None:
    run = start(config())
    before = run.model_state_dict()["1.running_mean"]
    next(run)
    assert not torch.equal(run.model_state_dict()["1.running_mean"], before)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_and_resumes(small: None, precision: str) -> None:
    settings = config(precision=precision, epochs=3)
    expected = outcome(list(start(settings)))
    assert all(math.isfinite(one["train_loss"]) for one in expected)
    run = start(settings)
    next(run)
    resumed = start(settings)
    resumed.load_state_dict(through_a_file(run.model_state_dict()), through_a_file(run.state_dict()))
    assert outcome(list(resumed)) == expected[1:]
    assert {tensor.dtype for tensor in resumed.model_state_dict().values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((6, 1), torch.float32), ((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
)
def test_automatic_precision_is_the_gpus_best(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert select_precision("auto", torch.device("cuda")) is dtype
    assert select_precision("float32", torch.device("cuda")) is torch.float32


@pytest.mark.parametrize(
    ("avx512", "amx", "dtype"),
    [(True, False, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_automatic_precision_is_what_the_cpu_has(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert select_precision("auto", CPU) is dtype
    assert select_precision("float16", CPU) is torch.float16


def test_a_task_goes_to_the_workers_with_its_weights() -> None:
    torch.manual_seed(5)
    weights = dict(model.build(config(), 64).state_dict())
    task = GradingTask(photographs(), {"resnet18": weights}, track_test=True)
    content = pickle.dumps(task)
    run = pickle.loads(content)(config(pretrained=True))  # noqa: S301
    assert torch.equal(run.model_state_dict()["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])
    with pytest.raises(WeightsError, match="needs weights for resnet34"):
        task(config(pretrained=True, arch="resnet34"))


def test_a_task_trains_on_its_splits(small: None) -> None:
    data = photographs()
    assert next(GradingTask(data, {})(config())).test_loss is None
    run = GradingTask(data, {}, track_test=True)(config())
    result = next(run)
    assert result.test_loss == run.evaluate(data.split_view("test")).loss
    assert result.val_loss == run.evaluate(data.split_view("val")).loss
