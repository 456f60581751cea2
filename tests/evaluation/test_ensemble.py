"""Ensemble and soup of the kept trials: validation chooses, test is only measured."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_dataset
import torch
from tiny_dataset import config
from torch import nn

from retina.config import TrialConfig
from retina.data.dataset import FundusDataset
from retina.evaluation import best_trial, ensemble
from retina.results import checksums, files
from retina.results.run_folder import RunFolder
from retina.training import model
from retina.training.inference import compute_outputs, evaluate_cross_fitted
from retina.training.losses import N_OUTPUTS, OutputDecoder


class Bright(nn.Module):
    """Grades by brightness alone, so that a test can say how good it is."""

    def __init__(self, loss: str) -> None:
        super().__init__()
        self.fc = nn.Linear(1, N_OUTPUTS[loss])
        self.reading = OutputDecoder(loss)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raw: torch.Tensor = self.fc(images.mean(dim=(1, 2, 3))[:, None])
        return raw


@pytest.fixture(autouse=True)
def _bright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "build", lambda config, *_, **__: Bright(config.loss))


def photographs(**changed: object) -> FundusDataset:
    """Grey squares, the brighter the worse their grade."""
    data = tiny_dataset.photographs(**changed)
    pixels = np.zeros_like(data.pixels)
    pixels += (40 + 40 * data.frame["grade"].to_numpy()).astype(np.uint8)[:, None, None, None]
    data.__dict__["pixels"] = pixels
    return data


def weights(*, slope: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Right about all of them with a slope above 0, the more surely the larger; wrong below."""
    grade, noise = torch.arange(5.0), torch.randn(5, generator=torch.Generator().manual_seed(seed)) * 0.01
    return {
        "fc.weight": (slope * grade / 0.697 + noise)[:, None],
        "fc.bias": slope * (grade * 1.3 / 0.697 - grade**2 / 2),
    }


def sweep(root: Path, trials: list[tuple[float, dict[str, torch.Tensor], TrialConfig]]) -> RunFolder:
    """A sweep whose trials reached these QWK, and kept these weights."""
    folder = RunFolder.create(root)
    for number, (value, state, settings) in enumerate(trials):
        name = f"t{number:04d}"
        files.write_json(folder.trial(name) / "config.json", settings.model_dump(mode="json"))
        torch.save(state, folder.trial(name) / "model.pt")
        folder.record_trial(name, state="COMPLETE", best_epoch=1, val_qwk=value)
    return folder


def combine(folder: RunFolder, data: FundusDataset | None = None) -> dict[str, Any]:
    return ensemble.build_ensemble(folder, data or photographs(), "val_qwk", 1)


def test_the_ensemble_is_the_mean_of_all_kept_trials(tmp_path: Path) -> None:
    states = [weights(slope=slope, seed=seed) for seed, slope in enumerate((3.0, -1.0, 0.5))]
    folder = sweep(tmp_path / "x", [(0.5 - i / 10, state, config()) for i, state in enumerate(states)])
    data = photographs()
    said = combine(folder, data)
    assert said["ensemble"]["members"] == ["t0000", "t0001", "t0002"]
    assert said["single"]["members"] == ["t0000"]
    for split in ("val", "test"):
        seen = [best_trial.TrialEvaluator(config(), state, data)(data.split_view(split)) for state in states]
        mean = np.mean([one.probabilities for one in seen], axis=0)
        assert said["ensemble"][split]["accuracy"] == pytest.approx(float((mean.argmax(1) == seen[0].grades).mean()))
        assert said["single"][split]["qwk"] == pytest.approx(seen[0].metrics.qwk)
    assert json.loads((folder.best / "together.json").read_text()) == said


def test_a_soup_takes_in_what_does_no_harm_and_leaves_the_rest(tmp_path: Path) -> None:
    good = weights(slope=3.0)
    twin = {name: tensor.clone() for name, tensor in good.items()}
    backwards = {name: -20 * tensor for name, tensor in good.items()}
    folder = sweep(tmp_path / "x", [(0.5, good, config()), (0.4, backwards, config()), (0.3, twin, config())])
    said = combine(folder)
    assert said["soup"]["members"] == ["t0000", "t0002"]
    soup = torch.load(folder.best / "soup.pt", weights_only=True)
    assert all(torch.allclose(soup[name], tensor) for name, tensor in good.items())
    assert said["soup"]["val"]["qwk"] == said["single"]["val"]["qwk"] == 1


def test_three_in_a_soup_count_alike(tmp_path: Path) -> None:
    base = weights(slope=3.0)
    states = [{name: tensor + shift for name, tensor in base.items()} for shift in (0.0, 3e-3, 6e-3)]
    folder = sweep(tmp_path / "x", [(0.5 - i / 10, state, config()) for i, state in enumerate(states)])
    assert combine(folder)["soup"]["members"] == ["t0000", "t0001", "t0002"]  # too small a shift to move a grade
    soup = torch.load(folder.best / "soup.pt", weights_only=True)
    torch.testing.assert_close(soup["fc.weight"], base["fc.weight"] + 3e-3)


def test_other_networks_are_no_ingredients(tmp_path: Path) -> None:
    state = weights(slope=3.0)
    other = {"fc.weight": torch.ones(4, 1), "fc.bias": torch.zeros(4)}
    trials = [(0.5, state, config()), (0.4, other, config(loss="corn")), (0.3, state, config(arch="resnet50"))]
    folder = sweep(tmp_path / "x", trials)
    said = combine(folder)
    assert said["soup"]["members"] == ["t0000"]
    assert len(said["ensemble"]["members"]) == 3  # their probabilities can be averaged all the same
    assert not (folder.best / "soup.pt").exists()


def test_a_soup_that_overflows_is_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, huge = weights(slope=3.0), weights(slope=3.0)
    huge["fc.bias"] = huge["fc.bias"] + 3.4e38  # the same grades by itself: all logits are moved alike
    huge["fc.bias"][0] = 0
    far = {name: -tensor for name, tensor in huge.items()}
    folder = sweep(tmp_path / "x", [(0.5, good, config()), (0.4, far, config())])
    with caplog.at_level(logging.INFO, "retina"):
        said = ensemble.try_build_ensemble(folder, photographs(), "val_qwk", 1)
    assert said == {} or said["soup"]["members"] == ["t0000"]


def test_a_member_that_is_not_finite_or_damaged_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = weights(slope=3.0), weights(slope=2.0)
    bad["fc.weight"][2] = torch.inf
    folder = sweep(tmp_path / "x", [(0.5, good, config()), (0.4, bad, config())])
    with caplog.at_level(logging.INFO, "retina"):
        assert ensemble.try_build_ensemble(folder, photographs(), "val_qwk", 1) == {}
    assert "no soup: trial t0001: the model's output is not finite on" in caplog.text
    for name in ("t0000", "t0001"):
        torch.save(good, folder.trial(name) / "model.pt")
        checksums.write(folder.trial(name), ["model.pt", "config.json"])
    torch.save(bad, folder.trial("t0001") / "model.pt")
    with caplog.at_level(logging.INFO, "retina"):
        assert ensemble.try_build_ensemble(folder, photographs(), "val_qwk", 1) == {}
    assert "t0001/model.pt: was changed or damaged" in caplog.text
    assert not (folder.best / "together.json").exists()


def test_the_test_split_chooses_nothing(tmp_path: Path) -> None:
    states = [weights(slope=slope, seed=seed) for seed, slope in enumerate((3.0, 2.0, -1.0))]
    data = photographs()
    frame = data.frame.copy()
    rows = frame["split"] == "test"
    frame.loc[rows, "grade"] = 4 - frame.loc[rows, "grade"]
    turned = dataclasses.replace(data, manifest=dataclasses.replace(data.manifest, frame=frame))
    trials = [(0.5 - i / 10, state, config()) for i, state in enumerate(states)]
    plain, other = combine(sweep(tmp_path / "a", trials), data), combine(sweep(tmp_path / "b", trials), turned)
    assert plain["soup"]["members"] == other["soup"]["members"]
    assert plain["better"] == other["better"]
    assert plain["single"]["test"]["qwk"] != other["single"]["test"]["qwk"]
    best = max(("single", "ensemble", "soup"), key=lambda way: plain[way]["val"]["qwk"])
    assert plain[plain["better"]]["val"]["qwk"] == plain[best]["val"]["qwk"]


def test_one_trial_alone_is_no_ensemble(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "x", [(0.5, weights(slope=3.0), config())])
    assert combine(folder) == {}
    assert not (folder.best / "together.json").exists()
    assert "fewer than two" in ensemble.describe({})


@pytest.mark.parametrize("left", [1, 2])
def test_nothing_is_left_of_an_earlier_end(tmp_path: Path, left: int) -> None:
    """A sweep that was extended keeps other trials; what was made of those before must not pass for theirs."""
    good = weights(slope=3.0)
    folder = sweep(tmp_path / "x", [(0.5, good, config()), (0.4, weights(slope=2.0), config())])
    assert combine(folder)["soup"]["members"] == ["t0000", "t0001"]
    assert (folder.best / "soup.pt").exists()
    (folder.trial("t0001") / "model.pt").unlink()
    if left == 2:
        torch.save({name: -20 * tensor for name, tensor in good.items()}, folder.trial("t0001") / "model.pt")
    found = combine(folder)
    assert not (folder.best / "soup.pt").exists()
    assert (folder.best / "together.json").exists() == bool(found) == (left == 2)


def test_damaged_weights_fail_no_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = sweep(tmp_path / "x", [(0.5, weights(slope=3.0), config()), (0.4, weights(slope=1.0), config())])
    (folder.trial("t0001") / "config.json").write_text("{")
    assert ensemble.try_build_ensemble(folder, photographs(), "val_qwk", 1) == {}
    assert "no ensemble" in caplog.text


@pytest.mark.parametrize("damage", [b"{", b'{"arch": "resnet18", "later": 1}'])
def test_a_configuration_of_another_version_fails_no_sweep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    folder = sweep(tmp_path / "x", [(0.5, weights(slope=3.0), config()), (0.4, weights(slope=1.0), config())])
    (folder.trial("t0001") / "config.json").write_bytes(damage)
    assert ensemble.try_build_ensemble(folder, photographs(), "val_qwk", 1) == {}
    assert "config.json" in caplog.text


def test_weights_that_do_not_fit_fail_no_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = {"fc.weight": torch.ones(4, 1), "fc.bias": torch.zeros(4)}
    folder = sweep(tmp_path / "x", [(0.5, weights(slope=3.0), config()), (0.4, other, config())])
    assert ensemble.try_build_ensemble(folder, photographs(), "val_qwk", 1) == {}
    assert "do not fit resnet18 at 16 px" in caplog.text


def test_cut_points_are_not_judged_by_the_photographs_they_were_fitted_on(tmp_path: Path) -> None:
    data = photographs(validation=0.5)
    data.__dict__["pixels"] = np.random.default_rng(0).integers(0, 255, data.pixels.shape, dtype=np.uint8)  # luck
    val = data.split_view("val")
    trials = []
    for seed in range(2):
        net = Bright("mse")
        net.load_state_dict({"fc.weight": torch.full((1, 1), 40.0 + seed), "fc.bias": torch.zeros(1)}, strict=False)
        evaluate_cross_fitted(compute_outputs(net, val, device=tiny_dataset.CPU), val, net.reading)
        trials.append((0.5 - seed / 10, net.state_dict(), config(loss="mse")))
    folder = sweep(tmp_path / "x", trials)
    said = combine(folder, data)
    judge = best_trial.TrialEvaluator(config(loss="mse"), trials[0][1], data)
    assert said["single"]["val"]["qwk"] == pytest.approx(judge.evaluate_validation().metrics.qwk)
    assert said["single"]["val"]["qwk"] < judge(val).metrics.qwk, "what they were fitted on flatters"
    assert said["single"]["test"]["qwk"] == pytest.approx(judge(data.split_view("test")).metrics.qwk)
    evaluated = best_trial.evaluate_best_trial(folder, "t0000", data, "val_qwk")
    assert evaluated["val"]["qwk"] == said["single"]["val"]["qwk"]
