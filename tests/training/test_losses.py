"""Ordinal losses and readings: grades and probabilities of one kind whatever the loss, cut-points that serve QWK."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import cohen_kappa_score
from tiny_dataset import part

from retina.training import losses
from retina.training.inference import decode_outputs, evaluate_cross_fitted
from retina.training.losses import N_OUTPUTS, OutputDecoder, fit_cutpoints, summed_loss

LOSSES = list(N_OUTPUTS)
ONES = torch.ones(5)


def raw_of(loss: str, count: int = 40, seed: int = 0) -> torch.Tensor:
    made = torch.randn(count, N_OUTPUTS[loss], generator=torch.Generator().manual_seed(seed))
    return made * 2 + 2 if N_OUTPUTS[loss] == 1 else made


def grades_of(count: int = 40, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 5, (count,), generator=torch.Generator().manual_seed(seed))


def each(loss: str, raw: torch.Tensor, grades: torch.Tensor) -> list[float]:
    return [float(summed_loss(loss, raw[i : i + 1], grades[i : i + 1], ONES)) for i in range(len(raw))]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sum_over_photographs_by_the_weight_of_their_grade(loss: str) -> None:
    """Micro-batches count on it: the parts add up to the whole."""
    raw, grades, weights = raw_of(loss), grades_of(), torch.tensor([0.5, 1.0, 2.0, 3.0, 0.25])
    wanted = sum(value * float(weights[grade]) for value, grade in zip(each(loss, raw, grades), grades, strict=True))
    assert float(summed_loss(loss, raw, grades, weights)) == pytest.approx(wanted, rel=1e-5)


def test_corn_is_the_library_s_but_for_its_divisor() -> None:
    """coral-pytorch and dlordinal divide by the number of conditional pairs; here each is written out, by its text."""
    raw, grades = raw_of("corn"), grades_of()
    total = 0.0
    for k in range(4):
        asked = grades >= k  # the subset S_k of the paper
        total += float(F.binary_cross_entropy_with_logits(raw[asked, k], (grades[asked] > k).float(), reduction="sum"))
    assert float(summed_loss("corn", raw, grades, ONES)) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("loss", "wanted"), [("mse", [0.25, 4.0]), ("huber", [0.125, 1.5])])
def test_the_loss_of_a_score(loss: str, wanted: list[float]) -> None:
    assert each(loss, torch.tensor([[1.5], [2.0]]), torch.tensor([1, 4])) == pytest.approx(wanted)


def test_emd_grows_with_the_distance_of_the_mistake() -> None:
    sure_of_none = torch.tensor([[20.0, 0, 0, 0, 0]]).repeat(5, 1)
    assert each("emd", sure_of_none, torch.arange(5)) == pytest.approx([0, 1, 2, 3, 4], abs=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_probabilities_are_some_and_the_grade_fits_them(loss: str, data: st.DataObject) -> None:
    numbers = st.floats(-30, 30, width=32)
    raw = torch.from_numpy(data.draw(arrays(np.float32, (6, N_OUTPUTS[loss]), elements=numbers)))
    probabilities, grade = OutputDecoder(loss)(raw.double())
    assert probabilities.shape == (6, 5)
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(6, dtype=torch.float64))
    for p, g in zip(probabilities, grade.tolist(), strict=True):
        if N_OUTPUTS[loss] == 5:
            assert p[g] == p.max()
        else:  # the median: not more than half lies beyond it, nor before it
            assert p[g + 1 :].sum() <= 0.5 + 1e-9
            assert p[:g].sum() <= 0.5 + 1e-9


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_learned_is_what_is_read(loss: str) -> None:
    """A raw output that was fitted to a grade is read as that grade."""
    grades = torch.arange(5)
    raw = torch.zeros(5, N_OUTPUTS[loss], requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.2)
    for _ in range(200):
        optimizer.zero_grad()
        summed_loss(loss, raw, grades, ONES).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert OutputDecoder(loss)(raw.detach())[1].tolist() == [0, 1, 2, 3, 4]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 60), scale=st.floats(0.1, 3), shift=st.floats(-3, 3))
def test_fitted_cutpoints_ascend_and_agree_at_least_as_well_as_halves(
    seed: int, count: int, scale: float, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 5, count)
    score = grades * scale + shift + rng.normal(0, 0.5, count)
    found = fit_cutpoints(score, grades)
    assert found.shape == (4,)
    assert (np.diff(found) > 0).all()

    def qwk(cutpoints: object) -> float:
        guess = (score[:, None] > np.asarray(cutpoints)).sum(axis=1)
        if len(set(grades) | set(guess)) == 1:
            return 0.0
        return float(cohen_kappa_score(grades, guess, weights="quadratic", labels=range(5)))

    assert qwk(found) >= qwk([0.5, 1.5, 2.5, 3.5]) - 1e-9


def test_cutpoints_make_up_for_scores_that_are_too_small() -> None:
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 5, 400)
    raw = torch.from_numpy(0.5 * grades + 0.3 + rng.normal(0, 0.05, 400))[:, None].float()
    reading = OutputDecoder("mse")
    before = float((reading(raw)[1].numpy() == grades).mean())
    reading.fit(raw, grades)
    probabilities, grade = reading(raw.double())
    assert before < 0.5
    assert float((grade.numpy() == grades).mean()) > 0.98
    assert float(probabilities.gather(1, torch.from_numpy(grades)[:, None]).mean()) > 0.9  # and it is sure of it


def test_cutpoints_travel_with_the_weights() -> None:
    fitted, fresh = OutputDecoder("huber"), OutputDecoder("huber")
    fitted.fit(torch.linspace(0, 1, 50)[:, None], np.repeat(np.arange(5), 10))
    fresh.load_state_dict(fitted.state_dict())
    raw = torch.linspace(-1, 2, 31)[:, None]
    assert torch.equal(fresh(raw)[1], fitted(raw)[1])
    assert torch.equal(fresh(raw)[0], fitted(raw)[0])
    assert OutputDecoder("corn").state_dict() == {} == OutputDecoder("cross_entropy").state_dict()


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_looks_at_the_device(loss: str) -> None:
    """A tensor of the meta device has no values: whoever asks for one gets an error."""
    meta = torch.device("meta")
    raw = torch.zeros(4, N_OUTPUTS[loss], device=meta, requires_grad=True)
    grades = torch.zeros(4, dtype=torch.int64, device=meta)
    summed_loss(loss, raw, grades, ONES.to(meta)).backward()  # type: ignore[no-untyped-call]
    assert OutputDecoder(loss).to(meta)(raw.detach())[1].shape == (4,)
    assert losses.get_output_decoder(torch.nn.Identity()).loss == "cross_entropy"


def test_cutpoints_are_not_judged_by_what_they_were_fitted_on() -> None:
    """Scores that say nothing of the grades must not look as if they did, however few photographs there are."""
    found: dict[str, list[float]] = {"fair": [], "fitted": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        of = part(rng.integers(0, 5, 40).tolist(), size=4)
        raw = torch.from_numpy(rng.normal(2, 1, (40, 1))).float()
        reading = OutputDecoder("mse")
        found["fair"].append(evaluate_cross_fitted(raw, of, reading).metrics.qwk)
        found["fitted"].append(decode_outputs(raw, of, reading).metrics.qwk)
    assert np.mean(found["fitted"]) > 0.15
    assert abs(np.mean(found["fair"])) < 0.1


def test_nor_by_what_their_fellow_eyes_were_fitted_on() -> None:
    """A score may know the patient and nothing of the grade: cut-points that have seen the other eye then flatter."""
    found: dict[str, list[float]] = {"by patient": [], "by photograph": []}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        of = part(np.repeat(rng.integers(0, 5, 30), 2).tolist(), size=4)
        raw = torch.from_numpy(np.repeat(rng.normal(2, 1, 30), 2)[:, None]).float()
        both = {"by patient": replace(of, patients=np.repeat(np.arange(30), 2)), "by photograph": of}
        for name, one in both.items():
            found[name].append(evaluate_cross_fitted(raw, one, OutputDecoder("huber")).metrics.qwk)
    assert np.mean(found["by photograph"]) > 0.08
    assert np.mean(found["by patient"]) < 0.02


def test_four_photographs_are_not_judged_by_themselves_either() -> None:
    found = []
    for seed in range(40):
        raw = torch.from_numpy(np.random.default_rng(seed).normal(2, 1, (4, 1))).float()
        found.append(evaluate_cross_fitted(raw, part([0, 1, 2, 3], size=4), OutputDecoder("huber")).metrics.qwk)
    assert np.mean(found) < 0.2


def test_probabilities_are_exact_where_a_sigmoid_is_saturated() -> None:
    """A temperature is fitted on their logarithms: 0 for one would count as the smallest number there is."""
    seen = decode_outputs(torch.tensor([[60.0], [-60.0]]), part([0, 4], size=4), OutputDecoder("mse"))
    assert np.log(seen.probabilities[0, 0]) == pytest.approx(-(60 - 0.5) / 0.25)
    assert np.log(seen.probabilities[1, 4]) == pytest.approx(-(60 + 3.5) / 0.25)
    assert seen.loss == pytest.approx((59.5 + 63.5) / 0.25 / 2)


def test_smoothing_is_of_the_labels_and_class_weights_of_the_photographs() -> None:
    """torch's own weights and smoothing together teach a healthy eye to be what is rare."""
    weights = torch.tensor([0.2, 2.0, 1.0, 8.0, 10.0])
    raw = torch.zeros(1, 5, requires_grad=True)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(summed_loss("cross_entropy", raw, torch.tensor([0]), weights, 0.1), raw)
        raw = (raw - 5 * gradient).detach().requires_grad_()
    torch.testing.assert_close(raw.softmax(dim=1)[0], torch.tensor([0.92, 0.02, 0.02, 0.02, 0.02]), rtol=0, atol=1e-3)


def test_a_reading_is_fitted_on_all_of_validation_in_the_end() -> None:
    of = part([0, 1, 2, 3, 4] * 8, size=4)
    raw = torch.from_numpy(of.grades * 0.5 + np.linspace(0, 0.1, 40))[:, None].float()
    judged, alone = OutputDecoder("huber"), OutputDecoder("huber")
    seen = evaluate_cross_fitted(raw, of, judged)
    alone.fit(raw, of.grades)
    assert torch.equal(judged.cutpoints, alone.cutpoints)
    assert seen.metrics.accuracy > 0.9  # the scores determine the grades
    assert seen.probabilities.sum(axis=1) == pytest.approx(1)
    assert seen.grades.tolist() == of.grades.tolist()
