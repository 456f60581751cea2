"""The report's comparison: which runs are one, its figures and numbers, and that nobody is evaluated twice."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.text import Text
from PIL import Image
from repository import ROOT
from sklearn.metrics import confusion_matrix
from tiny_dataset import DATA, config, photographs

from retina.config import TrialConfig
from retina.config import sweep as spec
from retina.config.sweep import SweepSpec
from retina.evaluation import comparison
from retina.evaluation.comparison import ComparisonRun
from retina.report import comparison_figures
from retina.results.files import write_json, write_text
from retina.results.run_folder import RunFolder
from retina.training import model

GRID = [(arch, pretrained) for arch in ("resnet18", "resnet50") for pretrained in (True, False)]
SLUGS = ["resnet18_scratch", "resnet18_pretrained", "resnet50_scratch", "resnet50_pretrained"]
FIGURES = [
    *(f"accuracy_{arch}.png" for arch in ("resnet18", "resnet50")),
    *(f"confusion_matrix_{slug}.png" for slug in SLUGS),
]


def record(folder: RunFolder, trial_id: str, *, tracked: bool = True, best: int = 2, **changed: Any) -> TrialConfig:
    """A trial of three epochs that has ended."""
    settings = config(**{"pretrained": True, "epochs": 3, **changed})
    folder.record_trial(trial_id, **settings.model_dump(mode="json"))
    for epoch in (1, 2, 3):
        up = 0.1 * epoch + 0.01 * int(trial_id[1:])
        test = {"test_accuracy": up} if tracked else {}
        folder.record_epoch(trial_id, epoch, train_accuracy=0.5 + up, val_accuracy=0.3, **test)
    folder.record_trial(trial_id, state="COMPLETE", best_epoch=best, val_accuracy=0.3)
    return settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a sweep of both networks with and without pretraining, each with the weights of its best epoch."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETINA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        torch.set_num_threads(1)
        folder = RunFolder.create(tmp_path_factory.mktemp("results") / "both")
        whole = SweepSpec(
            name="both", data=DATA, method="grid", parameters={"arch": {"values": ["resnet18", "resnet50"]}}
        )
        write_text(folder.root / "sweep.yaml", whole.to_yaml())
        folder.update_metadata(data=photographs().summary())
        for number, (arch, pretrained) in enumerate(GRID):
            settings = record(folder, f"t{number:04d}", arch=arch, pretrained=pretrained)
            torch.manual_seed(number)
            net = model.build(settings.model_copy(update={"pretrained": False}), DATA.image_size)
            for some in net.fc.modules():
                if isinstance(some, torch.nn.Linear):
                    some.weight.data *= 20  # so that not all grades look alike to it
            write_json(folder.trial(f"t{number:04d}") / "config.json", settings.model_dump(mode="json"))
            torch.save(net.state_dict(), folder.trial(f"t{number:04d}") / "model.pt")
        comparison_figures.draw(RunFolder.open(folder.root))
        return folder.root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained`, evaluated already, whose weights are gone."""
    shutil.copytree(trained, tmp_path / "both", ignore=shutil.ignore_patterns("model.pt", "*.png"))
    return tmp_path / "both"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="retina"):
        yield caplog


def names(files: list[Path]) -> list[str]:
    return sorted(file.name for file in files)


def test_a_figure_a_network_and_two_matrices_a_model(trained: Path) -> None:
    files = list((trained / "comparison").glob("*.png"))
    assert names(files) == sorted(FIGURES)
    titles = {}
    for file in files:
        with Image.open(file) as picture:
            picture.load()
            assert min(picture.size) >= 600
            titles[file.name] = picture.info["Title"]
    assert titles["accuracy_resnet50.png"] == "Result Comparison (ResNet50)"
    first = titles["confusion_matrix_resnet18_pretrained.png"].split("; ")
    assert first[0] == "Normalized Confusion Matrix (ResNet18 w/ pretraining)"
    assert re.fullmatch(r"test, n = 6, accuracy .*%, QWK .*, epoch 2 \(chosen on validation\)", first[1])
    assert "(ResNet50 w/o pretraining)" in titles["confusion_matrix_resnet50_scratch.png"]


@pytest.mark.parametrize(("slug", "trial_id"), list(zip(SLUGS, ["t0001", "t0000", "t0003", "t0002"], strict=True)))
def test_the_numbers_are_those_of_the_predictions_on_test(trained: Path, slug: str, trial_id: str) -> None:
    table = pd.read_csv(trained / "comparison" / f"{slug}.csv")
    said = json.loads((trained / "comparison" / f"{slug}.json").read_text())
    manifest = photographs().frame
    assert table["image"].tolist() == manifest.loc[manifest["split"] == "test", "image"].tolist()
    assert table["predicted"].tolist() == table[[f"p{grade}" for grade in range(5)]].to_numpy().argmax(1).tolist()
    counts = confusion_matrix(table["grade"], table["predicted"], labels=range(5))
    assert said["confusion_matrix"] == counts.tolist()
    assert said["accuracy"] == pytest.approx((table["grade"] == table["predicted"]).mean())
    assert (said["trial_id"], said["epoch"], said["split"], said["n"]) == (trial_id, 2, "test", len(table))


@pytest.mark.usefixtures("_stub_figures")
def test_drawing_again_needs_neither_weights_nor_photographs(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "elsewhere"))
    files = comparison_figures.draw(RunFolder.open(root))
    assert names(files) == sorted(FIGURES)
    assert all(file.is_file() for file in files)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.usefixtures("_stub_figures")
def test_what_was_judged_of_another_epoch_does_not_count(root: Path, logged: pytest.LogCaptureFixture) -> None:
    folder = RunFolder.open(root)
    folder.record_trial("t0002", state="COMPLETE", best_epoch=3)
    assert names(comparison_figures.draw(folder)) == sorted(set(FIGURES) - {"confusion_matrix_resnet50_pretrained.png"})
    assert "no confusion matrix of ResNet50 (w/ pretraining)" in logged.text
    assert "t0002/model.pt: is missing; keep.trials" in logged.text


@pytest.mark.usefixtures("_stub_figures")
def test_other_photographs_are_not_judged(trained: Path, tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    shutil.copytree(trained, tmp_path / "both", ignore=shutil.ignore_patterns("comparison"))
    folder = RunFolder.open(tmp_path / "both")
    folder.update_metadata(data={**folder.metadata()["data"], "fingerprint": "another"})
    assert names(comparison_figures.draw(folder)) == ["accuracy_resnet18.png", "accuracy_resnet50.png"]
    assert "photographs, grades or splits have changed since the run" in logged.text


@pytest.mark.usefixtures("_stub_figures")
def test_what_was_judged_on_other_photographs_does_not_count(root: Path, logged: pytest.LogCaptureFixture) -> None:
    folder = RunFolder.open(root)
    folder.update_metadata(data={**folder.metadata()["data"], "fingerprint": "another"})  # the sweep was forced on
    assert names(comparison_figures.draw(folder)) == ["accuracy_resnet18.png", "accuracy_resnet50.png"]
    assert "no confusion matrix of ResNet50 (w/ pretraining)" in logged.text


@pytest.mark.usefixtures("_stub_figures")
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("trials/t0002/model.pt", b"PK damaged"),
        ("trials/t0002/config.json", b'{"later": 1}'),
        ("sweep.yaml", b"{"),
        ("sweep.yaml", b"name: both"),
    ],
)
def test_damage_of_one_model_leaves_the_others(
    root: Path, trained: Path, file: str, content: bytes, logged: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(trained / "trials", root / "trials", dirs_exist_ok=True)
    (root / "comparison" / "resnet50_pretrained.json").unlink()
    (root / file).write_bytes(content)
    assert names(comparison_figures.draw(RunFolder.open(root))) == sorted(
        set(FIGURES) - {"confusion_matrix_resnet50_pretrained.png"}
    )
    assert f"no confusion matrix of ResNet50 (w/ pretraining): {root / file}" in logged.text


@pytest.mark.usefixtures("_stub_figures")
def test_while_it_runs_there_are_the_curves_and_the_models_that_have_ended(root: Path) -> None:
    folder = RunFolder.open(root)
    folder.record_trial("t0003", state="RUNNING")
    assert names(comparison_figures.draw(folder)) == sorted(set(FIGURES) - {"confusion_matrix_resnet50_scratch.png"})


@pytest.mark.parametrize("damage", ["[1, 2", '{"trial_id": "t0000", "epoch": 2}'])
def test_damage_is_named_and_the_model_judged_again(root: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    file = root / "comparison" / "resnet18_pretrained.json"
    file.write_text(damage)
    comparison_figures.draw(RunFolder.open(root))
    assert str(file) in caplog.text
    assert "it is made again" in caplog.text


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [{"arch": "resnet18"}],
        [{"arch": "resnet18"}, {"arch": "resnet18"}],
        [{"arch": "resnet18"}, {"arch": "resnet50", "learning_rate": 0.5}],
    ],
)
def test_other_sweeps_are_no_comparison(tmp_path: Path, trials: list[dict[str, Any]]) -> None:
    folder = RunFolder.create(tmp_path / "other")
    for number, changed in enumerate(trials):
        record(folder, f"t{number:04d}", **changed)
    folder.flush()
    assert comparison_figures.draw(folder) == []
    assert not (folder.root / "comparison").exists()


def some(*, pretrained: bool, tracked: bool = True, arch: str = "resnet50") -> ComparisonRun:
    curves = pd.DataFrame({"epoch": [1, 2, 3], "train_accuracy": [0.5, 0.75, 0.7], "test_accuracy": np.nan})
    if tracked:
        curves["test_accuracy"] = [0.40, 0.3125, 0.8117]
    return ComparisonRun("t0000", arch, pretrained, "COMPLETE", 2, curves)


@pytest.mark.parametrize("tracked", [True, False])
def test_the_curves_are_the_reports(tracked: bool) -> None:
    figure = comparison_figures.accuracy([some(pretrained=one, tracked=tracked) for one in (False, True)], (2, 0.73))
    (axes,) = figure.axes
    assert axes.get_title() == "Result Comparison (ResNet50)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "accuracy (%)")
    curves = {str(line.get_label()): line for line in axes.lines if "(w" in str(line.get_label())}
    splits = ["Train", "Test"] if tracked else ["Train"]
    assert list(curves) == [f"{split} ({how} pretraining)" for how in ("w/o", "w/") for split in splits]
    assert np.asarray(curves["Train (w/ pretraining)"].get_ydata()).tolist() == [50, 75, 70]
    assert {(str(line.get_color()), str(line.get_linestyle())) for line in curves.values()} == {
        (colour, style) for colour in ("#d55e00", "#0072b2") for style in ("--", "-")[: len(splits)]
    }
    assert len({line.get_marker() for line in curves.values()}) == len(curves)
    baselines = [np.asarray(line.get_ydata()).tolist() for line in axes.lines if line not in curves.values()]
    assert baselines == ([[73, 73]] if tracked else [])


counts = arrays.arrays(np.int64, (5, 5), elements=st.integers(0, 60)).filter(lambda matrix: bool(matrix.sum()))


@settings(max_examples=6, deadline=None)
@given(counts)
def test_the_matrices_are_normalised_as_scikit_learn_does(matrix: np.ndarray) -> None:
    logged = {"confusion_matrix": matrix.tolist(), "n": int(matrix.sum()), "accuracy": 0.5, "qwk": 0.25}
    figure = comparison_figures.confusion_matrices(some(pretrained=True), logged, Path("x.json"))
    true, predicted = np.repeat(np.indices((5, 5)).reshape(2, 25), matrix.ravel(), axis=1)
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "predicted grade"]
    for axes, how in zip(panels, ("all", "true"), strict=True):
        shares = confusion_matrix(true, predicted, labels=range(5), normalize=how)
        shown = [text for text in axes.texts if isinstance(text, Text) and text.get_text().endswith("%")]
        places = {(round(text.get_position()[1] + 0.1), round(text.get_position()[0])): text for text in shown}
        for place, text in places.items():
            assert text.get_text() == f"{shares[place]:.1%}"
        empty = 0 if how == "all" else 5 * int((matrix.sum(axis=1) == 0).sum())
        assert len(places) == 25 - empty
        assert axes.get_title().startswith("Normalized Confusion Matrix (ResNet50 w/ pretraining)\n")


def test_the_highest_accuracies_are_told_as_in_the_report_and_the_chosen_ones_beside() -> None:
    compared = [some(pretrained=False, arch="resnet18", tracked=False), some(pretrained=True)]
    assert comparison.highest_accuracies(compared) == [
        "ResNet18 (w/o pretraining)_train: 75.00 %",
        "ResNet50 (w/ pretraining)_train: 75.00 %",
        "ResNet50 (w/ pretraining)_test: 81.17 %",
    ]
    assert comparison.accuracies_at_best_epoch(compared) == ["ResNet50 (w/ pretraining): 31.25 % at epoch 2"]


def test_the_sweep_that_comes_along_is_a_comparison_and_keeps_all_its_models() -> None:
    sweep = spec.load(ROOT / "sweeps" / "comparison.yaml")
    assert sorted(sweep.possible("arch")) == ["resnet18", "resnet50"]
    assert sorted(sweep.possible("pretrained")) == [False, True]
    assert (sweep.method, sweep.planned_trials, sweep.track_test) == ("grid", 4, True)
    assert sweep.keep.trials == sweep.planned_trials
    assert sweep.early_stop.type == "none"
