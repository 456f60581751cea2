"""An exported model: whole, self-contained, the same in torch and as graphs, refused where it is damaged."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
import torchvision
from exported_model import CONFIG, CPU, P, World, copy, draw, tuned, update_checksums, without_sums
from torch import nn

from retina import cli
from retina.config import GRADE_NAMES, TrialConfig
from retina.data import dataset
from retina.data.fundus import PREPROCESSING
from retina.errors import ResultsError
from retina.export import check, folder, graphs
from retina.export.grader import ExportedModel, load
from retina.export.write import export
from retina.metrics.calibration import apply_temperature
from retina.metrics.probabilities import referable_probability
from retina.predict import predict
from retina.results import files, run_folder
from retina.system import temporary_files
from retina.training.inference import evaluate

FILES = sorted(folder.FILES)
POINT = {"chosen_on": "val", "met": True}
SCORES = b'"val": {"n": 9, "accuracy": 0.5, "qwk": 0}, "test": {"n": 9, "accuracy": 0.5, "qwk": 0}'


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def edit(file: Path, **changed: Any) -> None:
    files.write_json(file, {**read(file), **changed})
    update_checksums(file.parent)


def save(state: dict[str, torch.Tensor], file: Path) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    files.write_bytes(file, content.getvalue())
    update_checksums(file.parent)


def rewrite(file: Path, content: bytes) -> None:
    files.write_bytes(file, content)
    update_checksums(file.parent)


def refusal(action: Any, *arguments: Any) -> str:
    with pytest.raises(ResultsError) as caught:
        action(*arguments)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


# --- the folder ---


def test_it_holds_all_that_is_needed(world: World) -> None:
    assert world.exported == world.run / "export"
    assert sorted(file.name for file in world.exported.iterdir()) == FILES
    metrics = read(world.run / "best" / "metrics.json")
    assert read(world.exported / "metrics.json") == metrics
    assert read(world.exported / "preprocess.json") == {
        "channels": "RGB",
        "crop": "fundus disc",
        "crop_version": PREPROCESSING,
        "image_size": 64,
        "scale": "0 to 1",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "graph_input": {"name": "images", "dtype": "float32", "shape": ["batch", 3, 64, 64]},
    }
    config = read(world.exported / "config.json")
    assert TrialConfig(**config["trial"]) == CONFIG
    assert config["grades"] == list(GRADE_NAMES)
    assert (config["sweep"], config["trial_id"]) == ("demo", "t0001")
    assert config["temperature"] == metrics["temperature"] != 1
    assert config["operating_point"] == metrics["operating_point"]
    assert config["cut_points"] is None


def test_it_names_no_place_of_this_machine(world: World) -> None:
    for name in FILES:
        content = (world.exported / name).read_bytes()
        if name == "model.pt2":
            with zipfile.ZipFile(io.BytesIO(content)) as parts:
                content = b"".join(parts.read(part) for part in parts.namelist())
        for place in (world.run.parent, Path(__file__).parents[2], Path.home()):
            assert str(place).encode() not in content, name


def test_the_weights_are_those_of_the_best_trial(world: World) -> None:
    best = torch.load(world.run / "best" / "model.pt", weights_only=True)
    written = safetensors.torch.load_file(world.exported / "model.safetensors")
    assert best.keys() == written.keys()
    assert all(torch.equal(best[name], written[name]) for name in best)


def test_the_network_can_be_built_without_this_package(world: World) -> None:
    result = read(world.exported / "config.json")["architecture"]
    net = torchvision.models.get_model(result["network"].rpartition(".")[2])
    layers: list[nn.Module] = []
    features = net.fc.in_features
    for width in result["fc_widths"]:
        layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(0.5)]
        features = width
    net.fc = nn.Sequential(*layers[:-2])
    net.load_state_dict(safetensors.torch.load_file(world.exported / "model.safetensors"))
    seen = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(seen), world.net(seen), rtol=1e-4, atol=1e-4)


def graded_by_onnx(exported: Path, pixels: np.ndarray) -> list[np.ndarray]:
    """As another program would: onnxruntime, and numpy as the files say."""
    result = read(exported / "preprocess.json")
    images = ((pixels / 255 - result["mean"]) / result["std"]).transpose(0, 3, 1, 2).astype(np.float32)
    return onnxruntime.InferenceSession(exported / "model.onnx").run(None, {result["graph_input"]["name"]: images})


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_graphs_give_what_training_evaluates_at_the_temperature(world: World, split: str) -> None:
    _, seen = world.evaluated(split)
    part = world.data.split_view(split)
    pixels = np.array(world.data.pixels[part.rows])
    temperature = read(world.exported / "config.json")["temperature"]
    module = graphs.load_pt2((world.exported / "model.pt2").read_bytes())
    images = folder.read_export(world.exported).preprocess.normalize(pixels)
    with torch.inference_mode():
        by_pt2 = [output.numpy() for output in module(torch.from_numpy(images))]
    assert seen.probabilities.std(axis=0).max() > 0.05, "a model that gives all the same would prove nothing"
    for probabilities, grade, referable_score in (graded_by_onnx(world.exported, pixels), by_pt2):
        np.testing.assert_allclose(probabilities, apply_temperature(seen.probabilities, temperature), atol=1e-4)
        np.testing.assert_allclose(referable_score, referable_probability(seen.probabilities), atol=1e-4)
        assert (grade.dtype, probabilities.dtype, referable_score.dtype) == (np.int64, np.float32, np.float32)
        assert grade.tolist() == seen.predicted.tolist()


def test_the_onnx_file_tells_what_it_takes_and_gives(world: World) -> None:
    graph = onnxruntime.InferenceSession(world.exported / "model.onnx")
    assert [(one.name, one.type, one.shape) for one in graph.get_inputs()] == [
        ("images", "tensor(float)", ["batch", 3, 64, 64])
    ]
    assert [(one.name, one.type, one.shape) for one in graph.get_outputs()] == [
        ("probabilities", "tensor(float)", ["batch", 5]),
        ("grade", "tensor(int64)", ["batch"]),
        ("referable_score", "tensor(float)", ["batch"]),
    ]
    result = graph.get_modelmeta().custom_metadata_map
    assert json.loads(result["preprocess"]) == read(world.exported / "preprocess.json")
    assert json.loads(result["grades"]) == list(GRADE_NAMES)
    onnx.checker.check_model(onnx.load(world.exported / "model.onnx"), full_check=True)


def test_what_is_loaded_is_what_was_written(world: World) -> None:
    before = torch.get_rng_state()
    loaded = load(world.exported)
    assert torch.equal(torch.get_rng_state(), before), "reading a model draws no random numbers"
    assert isinstance(loaded, ExportedModel)
    assert not loaded.grader.training
    assert loaded.folder.description.grades == GRADE_NAMES
    seen = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.grader.net(seen), world.net(seen), rtol=1e-4, atol=1e-4)


# --- the check ---


def test_it_was_checked_on_photographs_of_the_run(world: World) -> None:
    agreement = folder.read_export(world.exported).description.check
    assert agreement is not None
    assert (agreement.photographs, agreement.origin, agreement.other_grades) == (world.checked, "of the run", 0)
    assert 0 < agreement.onnx_difference < 1e-4
    assert agreement.pt2_difference < 1e-4
    assert agreement.versions == {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}


@pytest.mark.parametrize(
    "spec", ["name: demo\n", "[", "data: 3", "data: {path: /none/at/all, layout: folders}", "data: {}"]
)
def test_where_the_photographs_are_gone_it_is_checked_on_drawn_ones(run: Path, spec: str) -> None:
    (run / "sweep.yaml").write_text(spec)
    seen = check.load_sample(run_folder.RunFolder.open(run), 32)
    assert seen.origin.startswith("drawn for this check")
    assert seen.pixels.shape == (20, 32, 32, 3)
    assert seen.pixels.std(axis=(1, 2, 3)).min() > 10, "they show something"


def test_drawn_runs_say_that_their_photographs_are_drawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = run.parent / "drawn" / "trainLabels.csv"
    files = [draw(labels.parent / "train" / f"{seed}_left.jpeg", seed) for seed in (1, 2)]
    labels.write_text("image,level\n1_left,0\n2_left,3\n")
    monkeypatch.setattr(dataset, "synthetic_folder", lambda _: labels.parent)
    (run / "sweep.yaml").write_text("data: {path: synthetic}")
    seen = check.load_sample(run_folder.RunFolder.open(run), 32)
    assert (len(seen.pixels), seen.origin) == (len(files), "of the run (drawn)")


def test_a_graph_that_differs_is_not_written(world: World, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_sums(run / "best")
    (run / "best" / "predictions.csv").unlink()  # else the weights themselves would be refused
    state = torch.load(run / "best" / "model.pt", weights_only=True)
    state["fc.6.bias"][2] += 0.5
    torch.save(state, run / "other.pt")
    (run / "other.pt").replace(run / "best" / "model.pt")  # the graphs are of the model before
    for name in ("pt2", "onnx"):
        content = (world.exported / f"model.{name}").read_bytes()
        monkeypatch.setattr(graphs, f"serialize_{name}", lambda *_, content=content: content)
    message = refusal(export, run)
    assert "differs from the model by 0." in message
    assert f"{world.checked} photographs (of the run)" in message
    assert sorted(file.name for file in run.iterdir()) == sorted(
        file.name for file in world.run.iterdir() if file.name != "export"
    )


# --- writing it ---


@pytest.mark.usefixtures("_stub_graphs")
def test_an_earlier_export_is_replaced(run: Path) -> None:
    (run / "export").mkdir()  # empty: nothing to lose
    export(run)
    (run / "export" / "README.txt").write_text("of the layout before")
    edit(run / "best" / "metrics.json", trial_id="b2")
    before = sorted(file.name for file in run.iterdir())
    export(run)
    assert read(run / "export" / "config.json")["trial_id"] == "b2"
    assert sorted(file.name for file in (run / "export").iterdir()) == FILES
    assert sorted(file.name for file in run.iterdir()) == before


@pytest.mark.usefixtures("_stub_graphs")
def test_what_a_killed_export_has_left_is_removed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(run)
    machine, _, _ = temporary_files.unique_tag().split("-")
    for end in (".new", ".earlier.new"):
        copy(run / "export", run / f".export.{machine}-{2**22 + 1}-00000000{end}")  # a process that is gone
    before = sorted(file.name for file in run.iterdir() if "export." not in file.name)
    export(run)
    assert sorted(file.name for file in run.iterdir()) == before


@pytest.mark.parametrize("kept", ["notes.txt", "model.safetensors", "config.json"])
def test_what_is_no_export_is_not_overwritten(run: Path, tmp_path: Path, kept: str) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / kept).write_text("{}")
    message = refusal(export, run, target)
    assert str(target) in message
    assert kept in message
    assert [file.read_text() for file in target.iterdir()] == ["{}"]


def test_an_export_with_files_of_the_user_is_kept(run: Path, world: World) -> None:
    copy(world.exported, run / "export")
    (run / "export" / "grades.csv").write_text("mine")
    assert "grades.csv" in refusal(export, run)
    assert (run / "export" / "grades.csv").read_text() == "mine"


def test_a_file_is_no_target(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refusal(export, run, tmp_path / "file")


@pytest.mark.usefixtures("_stub_graphs")
def test_a_disk_that_is_full_leaves_the_earlier_export(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(run)
    before = sorted(file.name for file in run.iterdir())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retina.results.files.write_text", full)
    assert "No space left on device" in refusal(export, run)
    assert load(run / "export").folder.description.grades == GRADE_NAMES
    assert sorted(file.name for file in run.iterdir()) == before


def test_without_a_best_model_there_is_nothing_to_export(run: Path, tmp_path: Path) -> None:
    (run / "best" / "model.pt").unlink()
    message = refusal(export, run)
    assert "no finished sweep" in message
    assert "model.pt" in message
    assert "demo" in refusal(export, tmp_path / "none")
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("model.pt", b"PK not a zip", "model.pt"),
        ("config.json", b"{", "config.json"),
        ("config.json", b'{"trial": {"arch": "vgg"}}', "arch"),
        ("config.json", b'{"trial": {}}', "image_size"),
        ("config.json", b"[]", "config.json"),
        ("metrics.json", b'{"trial_id": "a1"}', "metrics.json"),
        ("metrics.json", b"[]", "metrics.json"),
        ("metrics.json", b'{"trial_id": "a1", "val": {"n": 1}, "test": {}}', "metrics.json"),
        ("metrics.json", b'{"trial_id": "a1", "temperature": "hot", %s}' % SCORES, "metrics.json: temperature: 'hot'"),
        (
            "metrics.json",
            b'{"trial_id": "a1", "operating_point": {}, %s}' % SCORES,
            "metrics.json: operating_point.thres",
        ),
    ],
)
def test_damage_in_best_is_named(run: Path, name: str, content: bytes, named: str) -> None:
    files.write_bytes(run / "best" / name, content)
    update_checksums(run / "best")
    assert named in refusal(export, run)
    assert not (run / "export").exists()


def test_a_model_of_other_crops_is_not_exported(run: Path) -> None:
    edit(run / "best" / "config.json", preprocessing="0")
    assert "preprocessing ('0'; this retina" in refusal(export, run)
    assert not (run / "export").exists()


def test_weights_that_are_not_finite_are_not_exported(run: Path) -> None:
    state = torch.load(run / "best" / "model.pt", weights_only=True)
    state["fc.0.weight"][3, 3] = float("nan")
    save(state, run / "best" / "model.pt")
    assert "fc.0.weight" in refusal(export, run)


@pytest.mark.usefixtures("_stub_graphs")
def test_a_run_of_an_early_version_is_exported(world: World, tmp_path: Path) -> None:
    """Without evidence: no temperature, no operating point, no intervals. Pretrained weights are its own by now."""
    config = CONFIG.model_copy(update={"pretrained": True, "head_layers": 2})
    seen = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    net = tuned(config.model_copy(update={"pretrained": False}), 32, seen)
    run = tmp_path / "demo"
    (run / "best").mkdir(parents=True)
    (run / "sweep.yaml").write_text("name: demo\n")
    torch.save(net.state_dict(), run / "best" / "model.pt")
    result = read(world.run / "best" / "config.json")
    del result["checksums"]
    files.write_json(
        run / "best" / "config.json", {**result, "trial": config.model_dump(mode="json"), "image_size": 32}
    )
    scores = {"n": 12, "accuracy": 0.5, "qwk": 0.25, "auc": None}
    files.write_json(
        run / "best" / "metrics.json", {"trial_id": "a1", "epoch": 2, "val": scores, "test": {**scores, "qwk": 0.125}}
    )
    target = export(run, tmp_path / "deep" / "model")
    described = folder.read_export(target).description
    assert (described.temperature, described.operating_point) == (1.0, None)
    with torch.inference_mode():
        probabilities = load(target).grader(seen)[0]
        np.testing.assert_allclose(probabilities, net(seen).softmax(dim=1), atol=1e-4)
    frame = predict(target, world.paths[:2], runtime="torch", device="cpu")
    assert frame["referable"].isna().all()
    text = (target / "MODEL_CARD.md").read_text()
    assert "Without intervals" in text
    assert "0.125" in text


@pytest.mark.usefixtures("_stub_graphs")
def test_the_command_says_how_well_the_graphs_agree(
    world: World, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(run), "--out", str(run.parent / "model")]) == 0
    said = capsys.readouterr().out
    assert f"checked: {world.checked} photographs of the run: probabilities differ from torch's by at most" in said


# --- reading it ---


@pytest.mark.parametrize(
    ("name", "damage", "named"),
    [
        ("model.safetensors", lambda file: rewrite(file, file.read_bytes()[:90_000]), "cannot be read"),
        ("model.safetensors", lambda file: file.unlink(), "is missing; SHA256SUMS lists it"),
        ("config.json", lambda file: file.unlink(), "config.json"),
        ("config.json", lambda file: rewrite(file, b"{"), "JSON"),
        ("config.json", lambda file: edit(file, trial={"arch": "resnet50"}), "does not fit"),
        ("config.json", lambda file: edit(file, export=4), "export is 4, a newer layout than this retina"),
        ("config.json", lambda file: edit(file, export="two"), "export"),
        ("config.json", lambda file: edit(file, grades=["none"]), "grades"),
        ("config.json", lambda file: edit(file, grades=list(GRADE_NAMES[::-1])), "grades"),
        ("config.json", lambda file: edit(file, temperature=0), "temperature"),
        ("config.json", lambda file: edit(file, temperature=1e-300), "temperature"),
        ("config.json", lambda file: edit(file, temperature=21), "temperature"),
        ("config.json", lambda file: edit(file, operating_point={**POINT, "threshold": 1.2}), "threshold"),
        ("config.json", lambda file: edit(file, operating_point={**POINT, "threshold": -0.1}), "threshold"),
        ("config.json", lambda file: edit(file, cut_points={"cuts": [0.5, 1.5, 2.5, 3.5], "spread": 1}), "cut_points"),
        ("config.json", lambda file: edit(file, cut_points={"cuts": [0.5, 2.5, 1.5, 3.5], "spread": 1}), "ascend"),
        ("preprocess.json", lambda file: file.unlink(), "is missing; SHA256SUMS lists it"),
        ("preprocess.json", lambda file: edit(file, std=[1e-38] * 3), "std"),
        ("preprocess.json", lambda file: edit(file, std=[58.0, 57.0, 57.0]), "std"),
        ("preprocess.json", lambda file: edit(file, mean=[123.7, 116.3, 103.5]), "mean"),
        ("preprocess.json", lambda file: edit(file, image_size=32), "graph_input.shape"),
        ("preprocess.json", lambda file: edit(file, crop_version="0"), "crop_version"),
        ("preprocess.json", lambda file: edit(file, channels="BGR"), "channels"),
        ("preprocess.json", lambda file: edit(file, std=[0, 1, 1]), "std"),
        ("preprocess.json", lambda file: rewrite(file, b"[]"), "preprocess.json"),
    ],
)
def test_damage_in_the_folder_is_named(exported: Path, name: str, damage: Any, named: str) -> None:
    damage(exported / name)
    message = refusal(load, exported)
    assert name in message
    assert named in message


def test_a_results_folder_is_told_how_to_become_an_export(run: Path, tmp_path: Path) -> None:
    for place in (run, run / "best"):
        assert refusal(load, place).endswith(f"run first: retina export {run}")
    assert "no such folder" in refusal(predict, tmp_path / "none", [])


def test_a_model_that_looks_at_mirror_images_does_so_elsewhere(world: World, exported: Path) -> None:
    edit(exported / "config.json", temperature=1, trial={**read(exported / "config.json")["trial"], "flips": True})
    wanted = evaluate(world.net, world.data.split_view("test"), device=CPU, flips=True).probabilities
    paths, alone = world.evaluated("test")
    assert np.abs(wanted - alone.probabilities).max() > 0.01
    found = predict(exported, paths, runtime="torch", device="cpu")[P]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
