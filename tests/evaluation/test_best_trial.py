"""The best trial's evaluation: its numbers are those of its predictions, and nothing in them chose anything."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_dataset import CPU, config, photographs

from retina.config import GRADE_NAMES, TrialConfig
from retina.data.dataset import FundusDataset
from retina.data.loader import MEAN, STD
from retina.errors import ResultsError
from retina.evaluation import best_trial
from retina.metrics import baselines, summary
from retina.metrics.grading import compute_metrics
from retina.results import files
from retina.results.run_folder import RunFolder
from retina.training import model
from retina.training.inference import Evaluation, evaluate

TRIAL = "t0003"
Evaluated = tuple[RunFolder, FundusDataset, dict[str, Any]]


@pytest.fixture(scope="module")
def settings() -> TrialConfig:
    return config(pretrained=True, head_layers=3)  # the weights are the trial's: no ImageNet is asked for


@pytest.fixture(scope="module", autouse=True)
def _on_one_core() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def evaluated(settings: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """A sweep whose best trial is `TRIAL`, and what was said of it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETINA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        data = photographs()
        folder = RunFolder.create(tmp_path_factory.mktemp("sweep") / "mine")
        torch.manual_seed(1)
        net = model.build(settings.model_copy(update={"pretrained": False}), 16)
        for some in net.fc.modules():
            if isinstance(some, torch.nn.Linear):
                some.weight.data *= 5  # so that not all grades look alike to it
        files.write_json(folder.trial(TRIAL) / "config.json", settings.model_dump(mode="json"))
        torch.save(net.state_dict(), folder.trial(TRIAL) / "model.pt")
        folder.record_trial("t0001", state="COMPLETE", best_epoch=9, val_qwk=0.1)
        folder.record_trial(TRIAL, state="PRUNED", best_epoch=2, epochs_run=5, val_qwk=0.9)
        return folder, data, best_trial.evaluate_best_trial(folder, TRIAL, data, "val_qwk")


def predictions(folder: RunFolder) -> pd.DataFrame:
    table = pd.read_csv(folder.best / "predictions.csv", dtype=str, keep_default_na=False)
    # Python reads the very number that was written, older pandas its neighbour
    exact = {f"p{grade}": [float(text) for text in table[f"p{grade}"]] for grade in range(5)}
    return table.assign(**exact).astype({"grade": int, "predicted": int, "majority": int})


def test_the_metrics_say_which_trial_and_epoch_they_are_of(evaluated: Evaluated) -> None:
    folder, _, said = evaluated
    assert json.loads((folder.best / "metrics.json").read_text()) == said
    assert (said["trial_id"], said["epoch"]) == (TRIAL, 2)
    assert said["chosen_by"] == "val_qwk (validation; the test split chose nothing)"
    judged = ["temperature", "operating_point", "val", "test"]
    assert list(said) == ["verdict", "trial_id", "epoch", "precision", "chosen_by", *judged]


def test_the_predictions_are_of_validation_and_test_in_their_order(evaluated: Evaluated) -> None:
    folder, data, _ = evaluated
    table = predictions(folder)
    columns = ["split", "image", "patient", "eye", "grade"]
    assert list(table.columns) == [*columns, "predicted", "p0", "p1", "p2", "p3", "p4", "majority", "fellow_eye"]
    wanted = pd.concat([data.frame[data.frame["split"] == name] for name in ("val", "test")])
    assert table[columns].astype(str).to_numpy().tolist() == wanted[columns].astype(str).to_numpy().tolist()


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_metrics_are_those_of_the_predictions(evaluated: Evaluated, split: str) -> None:
    folder, _, said = evaluated
    table = predictions(folder)
    mine = table[table["split"] == split]
    p = mine[[f"p{grade}" for grade in range(5)]].to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert mine["predicted"].tolist() == p.argmax(axis=1).tolist()
    result = said[split]
    assert isinstance(result, dict)
    plain = compute_metrics(mine["grade"].to_numpy(), p).as_json()
    assert {name: result[name] for name in plain} == plain
    assert result["nll"] == pytest.approx(-np.log(p[np.arange(len(p)), mine["grade"]]).mean())
    assert result["patients"] == mine["patient"].nunique()


def test_all_that_is_claimed_can_be_found_again_in_the_predictions(evaluated: Evaluated) -> None:
    folder, _, said = evaluated
    again = pd.read_csv(folder.best / "predictions.csv", converters={f"p{grade}": float for grade in range(5)})
    found = summary.summarize(again)
    assert found == {name: said[name] for name in found}


def test_the_baselines_are_those_of_the_manifest(evaluated: Evaluated) -> None:
    folder, data, said = evaluated
    always = baselines.majority_baseline(data.frame, "test")
    result = said["test"]["baselines"]["majority"]
    assert (result["accuracy"], result["qwk"], result["n"]) == (always.accuracy, always.qwk, always.n)
    assert predictions(folder)["majority"].unique().tolist() == [baselines.majority_grade(data.frame)]
    assert predictions(folder)["fellow_eye"].unique().tolist() == [""]  # split by patient: nothing leaks


def test_fellow_eyes_that_leak_are_told(evaluated: Evaluated, settings: TrialConfig, tmp_path: Path) -> None:
    folder, data, _ = evaluated
    frame = data.frame.copy()
    test = frame.index[frame["split"] == "test"]
    frame.loc[test[:3], "patient"] = frame.loc[frame["split"] == "train", "patient"].iloc[0]
    leaking = replace(data, manifest=replace(data.manifest, frame=frame))
    other = RunFolder.create(tmp_path / "mine")
    other.record_trial(TRIAL, state="COMPLETE", best_epoch=1)
    for name in ("config.json", "model.pt"):
        files.copy_file(folder.trial(TRIAL) / name, other.trial(TRIAL) / name)
    result = best_trial.evaluate_best_trial(other, TRIAL, leaking, "val_qwk")["test"]["baselines"]["fellow_eye"]
    wanted = baselines.fellow_eye_baseline(frame, "test")
    assert result["with_fellow"] == wanted.with_fellow == 3
    assert (result["accuracy"], result["qwk"]) == (wanted.accuracy, wanted.qwk)
    assert (predictions(other)["fellow_eye"] != "").sum() == 3


def test_the_grade_of_an_ordinal_model_is_its_own_and_not_the_most_probable_one(evaluated: Evaluated) -> None:
    _, data, _ = evaluated
    true = data.split_view("test").grades
    seen = Evaluation(1.0, true, np.full((len(true), 5), 0.2), predicted=true)
    assert best_trial.predictions_frame(data.frame, {"test": seen})["predicted"].tolist() == true.tolist()
    assert max(true) > 0


def test_the_winner_can_be_built_from_its_folder(evaluated: Evaluated, settings: TrialConfig) -> None:
    folder, data, _ = evaluated
    described = json.loads((folder.best / "config.json").read_text())
    assert described["trial"] == settings.model_dump(mode="json")
    assert (described["image_size"], described["mean"], described["std"]) == (16, list(MEAN), list(STD))
    assert (described["grades"], described["data_fingerprint"]) == (list(GRADE_NAMES), data.fingerprint)
    net = model.build(TrialConfig(**described["trial"]).model_copy(update={"pretrained": False}), 16)
    net.load_state_dict(torch.load(folder.best / "model.pt", weights_only=True))
    p = predictions(folder).query("split == 'test'")[[f"p{grade}" for grade in range(5)]].to_numpy()
    np.testing.assert_allclose(evaluate(net, data.split_view("test"), device=CPU).probabilities, p, atol=1e-4)


def test_a_winner_without_weights_or_configuration_is_told_by_file(evaluated: Evaluated, tmp_path: Path) -> None:
    _, data, _ = evaluated
    folder = RunFolder.create(tmp_path / "mine")
    folder.record_trial(TRIAL, best_epoch=1)
    with pytest.raises(ResultsError, match=r"t0003/model\.pt: is missing"):
        best_trial.evaluate_best_trial(folder, TRIAL, data, "val_qwk")
    files.write_bytes(folder.trial(TRIAL) / "model.pt", b"")
    with pytest.raises(ResultsError, match=r"t0003/config\.json: No such file"):
        best_trial.evaluate_best_trial(folder, TRIAL, data, "val_qwk")
    assert not folder.best.exists()
