"""An exported model: whole, self-contained, refused where it is damaged; and its grades, the same as in training."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image, ImageFilter
from torch import nn

from retina import model, results
from retina.config import GRADE_NAMES, DataConfig, TrialConfig
from retina.data import photographs
from retina.data.cache import open_cache
from retina.data.photographs import Photographs
from retina.errors import DataError, ResultsError
from retina.export import export, load
from retina.predict import images, predict, write_csv, write_json
from retina.train import Evaluation, evaluate
from retina.winner import model_config

FILES = ["README.txt", "config.json", "metrics.json", "model.safetensors", "preprocess.json"]
CPU = torch.device("cpu")
P = [f"p{grade}" for grade in range(5)]


def draw(file: Path, seed: int) -> Path:
    """A disc of blurred colours on black, larger than the model sees it, off centre; seed 0 has no disc."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((420, 300))
    colours = np.array(noise.filter(ImageFilter.GaussianBlur(4))) * (0.4 + 0.6 * rng.random(3)) + 30
    rows, columns = np.mgrid[:300, :420]
    disc = np.hypot(rows - 150, columns - 200 - seed) < 120 + seed
    pixels = np.where(disc[..., None], colours, 2) if seed else np.full((300, 420, 3), 7)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return file


def tuned(config: TrialConfig, size: int, seen: torch.Tensor) -> nn.Module:
    """A random grader whose statistics fit `seen` and whose grades differ, as those of one that was trained."""
    torch.manual_seed(3)
    net: Any = model.build(config, size).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for _ in range(12):
            net.train()(seen)
        net.fc[-1].weight *= 40
    return net.eval()  # type: ignore[no-any-return]


def write_run(root: Path, config: TrialConfig, data: Photographs, net: nn.Module) -> Path:
    """A results folder as a finished sweep leaves it, as far as its best model goes."""
    (root / "best").mkdir(parents=True)
    (root / "sweep.yaml").write_text("name: demo\n")
    torch.save(net.state_dict(), root / "best" / "model.pt")
    results.write_json(root / "best" / "config.json", model_config(config, data))
    scores = {"n": 12, "accuracy": 0.5, "qwk": 0.25, "auc": None}
    results.write_json(
        root / "best" / "metrics.json", {"trial_id": "a1", "epoch": 2, "val": scores, "test": {**scores, "qwk": 0.125}}
    )
    return root


@dataclass
class World:
    """Photographs, prepared as for training; a model; its results folder and exported folder, which no test changes."""

    data: Photographs
    net: nn.Module
    run: Path
    exported: Path

    def evaluated(self, split: str) -> tuple[list[Path], Evaluation]:
        frame = self.data.frame
        paths = [Path(path) for path in frame.loc[frame["split"] == split, "path"]]
        return paths, evaluate(self.net, self.data.part(split), device=CPU)

    @property
    def paths(self) -> list[Path]:
        return [Path(path) for path in self.data.frame["path"]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("world")
    seed = 0
    for split, grades in (("train", 4), ("val", 3), ("test", 5)):
        for grade in range(grades):
            draw(root / "eyes" / split / str(grade) / f"{seed:02}.{'png' if seed % 4 == 3 else 'jpg'}", seed)
            seed += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETINA_CACHE", str(root / "cache"))
        data = photographs.prepare(DataConfig(path=str(root / "eyes"), layout="folders", image_size=64))
    config = TrialConfig(pretrained=False, head_layers=3)
    scaled = torch.from_numpy(np.array(data.pixels)).permute(0, 3, 1, 2) / 255
    net = tuned(config, 64, (scaled - 0.45) / 0.225)
    run = write_run(root / "results" / "demo", config, data, net)
    return World(data, net, run, export(run))


@pytest.fixture
def run(world: World, tmp_path: Path) -> Path:
    """A results folder of one's own, with no export yet."""
    return Path(shutil.copytree(world.run, tmp_path / "demo", ignore=shutil.ignore_patterns("export")))


@pytest.fixture
def exported(world: World, tmp_path: Path) -> Path:
    """An exported folder of one's own."""
    return Path(shutil.copytree(world.exported, tmp_path / "model"))


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def refusal(action: Any, *arguments: Any, kind: type[Exception] = ResultsError, lines: int = 3) -> str:
    with pytest.raises(kind) as caught:
        action(*arguments)
    assert len(str(caught.value).splitlines()) <= lines
    return str(caught.value)


# --- the folder ---


def test_it_holds_all_that_is_needed_and_no_place_of_this_machine(world: World) -> None:
    folder = world.exported
    assert folder == world.run / "export"
    assert sorted(file.name for file in folder.iterdir()) == FILES
    assert read(folder / "metrics.json") == read(world.run / "best" / "metrics.json")
    assert read(folder / "preprocess.json") == {
        "channels": "RGB",
        "crop": "fundus disc",
        "crop_version": "1",
        "image_size": 64,
        "scale": "0 to 1",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    config = read(folder / "config.json")
    assert TrialConfig(**config["trial"]) == TrialConfig(pretrained=False, head_layers=3)
    assert config["grades"] == list(GRADE_NAMES)
    assert (config["sweep"], config["trial_id"]) == ("demo", "a1")
    readme = (folder / "README.txt").read_text()
    assert "retina predict FOLDER IMAGE..." in readme
    assert "test: QWK 0.125, accuracy 0.500, 12 photographs" in readme
    for name in set(FILES) - {"model.safetensors"}:
        assert str(world.run.parent) not in (folder / name).read_text()


def test_the_weights_are_those_of_the_best_trial(world: World) -> None:
    best = torch.load(world.run / "best" / "model.pt", weights_only=True)
    written = safetensors.torch.load_file(world.exported / "model.safetensors")
    assert best.keys() == written.keys()
    assert all(torch.equal(best[name], written[name]) for name in best)


def test_the_network_can_be_built_without_this_package(world: World) -> None:
    told = read(world.exported / "config.json")["architecture"]
    net = torchvision.models.get_model(told["network"].rpartition(".")[2])
    layers: list[nn.Module] = []
    features = net.fc.in_features
    for width in told["fc_widths"]:
        layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(0.5)]
        features = width
    net.fc = nn.Sequential(*layers[:-2])
    net.load_state_dict(safetensors.torch.load_file(world.exported / "model.safetensors"))
    seen = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(seen), world.net(seen), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "head_layers"), [(32, 2), (64, 3)])
def test_what_is_loaded_is_what_was_written(world: World, tmp_path: Path, size: int, head_layers: int) -> None:
    config = TrialConfig(pretrained=True, head_layers=head_layers)  # its weights are its own by now
    seen = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    net = tuned(config.model_copy(update={"pretrained": False}), size, seen)
    run = write_run(tmp_path / "demo", config, world.data, net)
    described = read(run / "best" / "config.json")
    results.write_json(run / "best" / "config.json", {**described, "image_size": size})
    before = torch.get_rng_state()
    loaded = load(export(run, tmp_path / "deep" / "model"))
    assert torch.equal(torch.get_rng_state(), before), "reading a model draws no random numbers"
    assert not loaded.model.training
    assert loaded.grades == GRADE_NAMES
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(seen), net(seen), rtol=1e-4, atol=1e-4)


def test_an_earlier_export_is_replaced(run: Path) -> None:
    (run / "export").mkdir()  # empty: nothing to lose
    export(run)
    metrics = read(run / "best" / "metrics.json")
    results.write_json(run / "best" / "metrics.json", {**metrics, "trial_id": "b2"})
    export(run)
    assert read(run / "export" / "config.json")["trial_id"] == "b2"
    assert sorted(file.name for file in (run / "export").iterdir()) == FILES
    assert sorted(file.name for file in run.iterdir()) == ["best", "export", "sweep.yaml"]


@pytest.mark.parametrize("kept", ["notes.txt", "model.safetensors", "config.json"])
def test_what_is_no_export_is_not_overwritten(run: Path, tmp_path: Path, kept: str) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / kept).write_text("{}")
    message = refusal(export, run, target)
    assert str(target) in message
    assert kept in message
    assert [file.read_text() for file in target.iterdir()] == ["{}"]


def test_an_export_with_files_of_the_user_is_kept(run: Path) -> None:
    export(run)
    (run / "export" / "grades.csv").write_text("mine")
    assert "grades.csv" in refusal(export, run)
    assert (run / "export" / "grades.csv").read_text() == "mine"


def test_a_file_is_no_target(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refusal(export, run, tmp_path / "file")


def test_a_disk_that_is_full_leaves_the_earlier_export(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(run)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_text", full)
    assert "No space left on device" in refusal(export, run)
    assert load(run / "export").grades == GRADE_NAMES
    assert sorted(file.name for file in run.iterdir()) == ["best", "export", "sweep.yaml"]


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
        ("metrics.json", b"[]", "config.json"),
    ],
)
def test_damage_in_best_is_named(run: Path, name: str, content: bytes, named: str) -> None:
    (run / "best" / name).write_bytes(content)
    assert named in refusal(export, run)
    assert not (run / "export").exists()


def test_weights_that_are_not_finite_are_not_exported(run: Path) -> None:
    state = torch.load(run / "best" / "model.pt", weights_only=True)
    state["fc.0.weight"][3, 3] = float("nan")
    torch.save(state, run / "best" / "model.pt")
    assert "fc.0.weight" in refusal(export, run)


def edit(file: Path, **changed: Any) -> None:
    results.write_json(file, {**read(file), **changed})


@pytest.mark.parametrize(
    ("name", "damage", "named"),
    [
        ("model.safetensors", lambda file: file.write_bytes(file.read_bytes()[:90_000]), "cannot be read"),
        ("model.safetensors", lambda file: file.unlink(), "model.safetensors"),
        ("config.json", lambda file: file.unlink(), "config.json"),
        ("config.json", lambda file: file.write_text("{"), "JSON"),
        ("config.json", lambda file: edit(file, trial={"arch": "resnet50"}), "does not fit"),
        ("config.json", lambda file: edit(file, export=2), "export"),
        ("config.json", lambda file: edit(file, grades=["none"]), "grades"),
        ("preprocess.json", lambda file: file.unlink(), "No such file"),
        ("preprocess.json", lambda file: edit(file, crop_version="0"), "crop_version"),
        ("preprocess.json", lambda file: edit(file, channels="BGR"), "channels"),
        ("preprocess.json", lambda file: edit(file, std=[0, 1, 1]), "std"),
        ("preprocess.json", lambda file: file.write_text("[]"), "preprocess.json"),
    ],
)
def test_damage_in_the_folder_is_named(exported: Path, name: str, damage: Any, named: str) -> None:
    damage(exported / name)
    message = refusal(load, exported)
    assert name in message
    assert named in message


def test_a_results_folder_is_told_how_to_become_an_export(run: Path, tmp_path: Path) -> None:
    for folder in (run, run / "best"):
        assert f"retina export {run}" in refusal(load, folder, lines=1)
    assert "no such folder" in refusal(predict, tmp_path / "none", [], lines=1)


# --- grades ---


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_grades_are_those_of_the_evaluation_in_training(world: World, split: str) -> None:
    paths, seen = world.evaluated(split)
    frame = predict(world.exported, paths, batch_size=2, device=CPU)
    assert seen.probabilities.std(axis=0).max() > 0.05, "a model that gives all the same would prove nothing"
    np.testing.assert_allclose(frame[P], seen.probabilities, atol=1e-4)
    assert frame["grade"].tolist() == seen.probabilities.argmax(axis=1).tolist()


def test_real_photographs_are_graded_as_in_training(world: World, shared: Path) -> None:
    idrid = shared / "data" / "idrid"
    paths = sorted((idrid / "images").iterdir())[::130] + sorted((idrid / "originals").glob("*.jpg"))[:2]
    manifest = world.data.manifest
    frame = manifest.frame.head(len(paths)).assign(path=[str(path) for path in paths])
    pixels = open_cache(type(manifest)(frame, "idrid", idrid), 64).pixels
    part = photographs.Part(pixels, np.arange(len(paths)), np.zeros(len(paths), np.int64))
    found = predict(world.exported, paths, device=CPU)
    np.testing.assert_allclose(found[P], evaluate(world.net, part, device=CPU).probabilities, atol=1e-4)
    assert found["problem"].tolist() == [""] * len(paths)


def test_what_a_prediction_says(world: World) -> None:
    frame = predict(world.exported, world.paths, device=CPU)
    assert frame.columns.tolist() == ["image", "grade", "name", *P, "problem"]
    assert frame["image"].tolist() == [str(path) for path in world.paths]
    assert str(frame["grade"].dtype) == "Int64"
    assert set(frame[P].dtypes) == {np.dtype(np.float64)}
    np.testing.assert_allclose(frame[P].sum(axis=1), 1, atol=1e-12)
    assert frame["name"].tolist() == [GRADE_NAMES[grade] for grade in frame["grade"]]
    assert frame["problem"].tolist() == ["no fundus disc found"] + [""] * (len(frame) - 1)


def test_a_batch_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def remember(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, torchvision.models.ResNet):
            sizes.append(len(given[0]))

    hook = nn.modules.module.register_module_forward_pre_hook(remember)
    try:
        frame = predict(world.exported, world.paths, batch_size=5, device=CPU)
    finally:
        hook.remove()
    assert sizes == [5, 5, 2]
    whole = predict(world.exported, world.paths[::-1], batch_size=100, device=CPU)
    np.testing.assert_allclose(frame[P], whole[P][::-1], atol=1e-5)


def test_no_photographs_no_rows(world: World) -> None:
    frame = predict(world.exported, [], device=CPU)
    assert frame.empty
    assert frame.columns.tolist() == ["image", "grade", "name", *P, "problem"]


def test_photographs_that_cannot_be_read_are_all_named(world: World, tmp_path: Path) -> None:
    bad = [tmp_path / f"bad{i:02}.jpg" for i in range(12)]
    for file in bad[1:]:
        file.write_bytes(world.paths[1].read_bytes()[:500])
    several = [*bad[:6], *world.paths[:3], *bad[6:]]
    message = refusal(predict, world.exported, several, kind=DataError, lines=12)
    assert "12 of 15 photographs" in message
    assert all(str(file) in message for file in bad[:10])
    assert str(bad[10]) not in message
    assert "2 more" in message


def test_photographs_that_cannot_be_read_can_be_skipped(world: World, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photograph")
    paths = [tmp_path / "bad.jpg", world.paths[4], tmp_path / "none.jpg"]
    for batch_size in (1, 8):
        frame = predict(world.exported, paths, batch_size=batch_size, device=CPU, on_bad="skip")
        assert frame["grade"].isna().tolist() == [True, False, True]
        assert frame[P].isna().all(axis=1).tolist() == [True, False, True]
        assert frame["name"].iloc[0] == ""
        assert ["not an image" in frame["problem"].iloc[0], "no such file" in frame["problem"].iloc[2]] == [True, True]
        alone = predict(world.exported, paths[1:2], device=CPU)
        np.testing.assert_allclose(frame.loc[[1], P], alone[P], atol=1e-6)


def test_grades_as_csv_and_json(world: World, tmp_path: Path) -> None:
    frame = predict(world.exported, [*world.paths[:2], tmp_path / "none.jpg"], device=CPU, on_bad="skip")
    write_csv(frame, tmp_path / "new" / "grades.csv")
    write_json(frame, tmp_path / "new" / "grades.json")
    table = pd.read_csv(tmp_path / "new" / "grades.csv", dtype={"grade": "Int64"}, keep_default_na=False, na_values="")
    assert table["grade"].equals(frame["grade"])
    np.testing.assert_allclose(table[P], frame[P], atol=1e-6)
    told = read(tmp_path / "new" / "grades.json")
    assert [one["grade"] for one in told] == [*frame["grade"].iloc[:2].tolist(), None]
    assert [one["image"] for one in told] == frame["image"].tolist()
    assert told[2]["p0"] is None
    assert told[0]["p4"] == pytest.approx(frame["p4"].iloc[0], abs=1e-6)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["grades.csv", "grades.json"]
    for write in (write_csv, write_json):
        assert "cannot be written" in refusal(write, frame, tmp_path / "new" / "grades.csv" / "x")


# --- which photographs ---


@pytest.fixture
def eyes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "eyes"
    for name in ("b.JPG", "a.png", "deep/er/c.tiff", "deep/d.webp", ".hidden.jpg", ".thumbs/e.jpg", "labels.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "empty").mkdir()
    (root / "odd[1].jpg").touch()
    monkeypatch.chdir(tmp_path)
    return root


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["eyes"], ["a.png", "b.JPG", "deep/d.webp", "deep/er/c.tiff", "odd[1].jpg"]),
        (["eyes/deep/"], ["deep/d.webp", "deep/er/c.tiff"]),
        (["eyes/labels.csv"], ["labels.csv"]),  # named by the user, so it is tried
        (["eyes/*"], ["a.png", "b.JPG", "deep/d.webp", "deep/er/c.tiff", "odd[1].jpg"]),
        (["eyes/**/*.tiff", "eyes/?.png"], ["deep/er/c.tiff", "a.png"]),
        (["eyes/odd[1].jpg"], ["odd[1].jpg"]),
        (["eyes/deep", "eyes/a.png", "eyes/*.png", "eyes/deep/d.webp"], ["deep/d.webp", "deep/er/c.tiff", "a.png"]),
        ([], []),
    ],
)
def test_files_folders_and_patterns(eyes: Path, arguments: list[str], expected: list[str]) -> None:
    assert images(arguments) == [Path("eyes") / name for name in expected]
    absolute = [str(eyes.parent / argument) for argument in arguments]
    assert images(absolute) == [eyes / name for name in expected]


@pytest.mark.parametrize("argument", ["eyes/none.jpg", "eyes/*.gif", "eyes/*.csv", "eyes/empty", "none/*.jpg", ""])
def test_what_matches_nothing_is_refused(eyes: Path, argument: str) -> None:
    message = refusal(images, ["eyes/a.png", argument], kind=DataError, lines=1)
    assert message.startswith(f"{argument}:" if argument else "'':")
