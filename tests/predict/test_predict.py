"""Grades of photographs: the same in torch, onnxruntime and training; unfit photographs named; no torch unasked."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from exported_model import CPU, P, World, copy, update_checksums
from PIL import Image, ImageFilter

from retina import cli
from retina.config import GRADE_NAMES
from retina.data import dataset, quality
from retina.data.cache.pixel_cache import open_cache
from retina.errors import DataError, ResultsError
from retina.metrics.calibration import apply_temperature
from retina.metrics.probabilities import referable_probability
from retina.predict import find_images, predict, write_csv, write_json
from retina.predict import runtime as runtimes
from retina.results import files
from retina.training.inference import evaluate

COLUMNS = ["image", "grade", "name", *P, "referable_score", "referable", "problem"]
RUNTIMES = ["torch", "onnx"]


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def temperature(world: World) -> float:
    return float(read(world.exported / "config.json")["temperature"])


def refusal(action: Any, *arguments: Any, kind: type[Exception] = ResultsError, lines: int = 3, **named: Any) -> str:
    with pytest.raises(kind) as caught:
        action(*arguments, **named)
    assert len(str(caught.value).splitlines()) <= lines
    return str(caught.value)


# --- the same everywhere ---


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_grades_are_those_of_the_evaluation_in_training(world: World, split: str, runtime: Any) -> None:
    paths, seen = world.evaluated(split)
    frame = predict(world.exported, paths, batch_size=2, runtime=runtime, device="cpu")
    assert seen.probabilities.std(axis=0).max() > 0.05, "a model that gives all the same would prove nothing"
    assert frame["grade"].tolist() == seen.predicted.tolist()
    np.testing.assert_allclose(frame[P], apply_temperature(seen.probabilities, temperature(world)), atol=1e-4)
    np.testing.assert_allclose(frame["referable_score"], referable_probability(seen.probabilities), atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_real_photographs_are_graded_as_in_training(world: World, shared: Path, runtime: Any) -> None:
    idrid = shared / "data" / "idrid"
    paths = sorted((idrid / "images").iterdir())[::130] + sorted((idrid / "originals").glob("*.jpg"))[:2]
    manifest = world.data.manifest
    frame = manifest.frame.head(len(paths)).assign(path=[str(path) for path in paths])
    pixels = open_cache(type(manifest)(frame, "idrid", idrid), 64).pixels
    part = dataset.SplitView(pixels, np.arange(len(paths)), np.zeros(len(paths), np.int64))
    seen = evaluate(world.net, part, device=CPU)
    found = predict(world.exported, paths, runtime=runtime, device="cpu")
    assert found["grade"].tolist() == seen.predicted.tolist()
    np.testing.assert_allclose(found[P], apply_temperature(seen.probabilities, temperature(world)), atol=1e-4)
    assert found["problem"].tolist() == [""] * len(paths)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_who_is_referable_follows_from_the_operating_point(world: World, runtime: Any) -> None:
    point = read(world.exported / "config.json")["operating_point"]
    paths, seen = world.evaluated("val")
    frame = predict(world.exported, paths, runtime=runtime, device="cpu")
    refers = referable_probability(seen.probabilities) >= point["threshold"]
    assert frame["referable"].tolist() == refers.tolist()
    assert set(refers) == {True, False}
    result = read(world.run / "best" / "metrics.json")["val"]["operating"]
    positive = world.data.split_view("val").grades >= 2
    assert refers[positive].mean() == pytest.approx(result["sensitivity"])
    assert (~refers[~positive]).mean() == pytest.approx(result["specificity"])


def test_what_a_prediction_says(world: World) -> None:
    frame = predict(world.exported, world.paths)
    assert frame.columns.tolist() == COLUMNS
    assert frame["image"].tolist() == [str(path) for path in world.paths]
    assert [str(frame[name].dtype) for name in ("grade", "referable")] == ["Int64", "boolean"]
    assert set(frame[P].dtypes) == {np.dtype(np.float64)}
    np.testing.assert_allclose(frame[P].sum(axis=1), 1, atol=1e-6)
    assert frame["name"].tolist() == [GRADE_NAMES[grade] for grade in frame["grade"]]
    assert "no disc" in frame["problem"].iloc[0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_batch_at_a_time(world: World, runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    opened = runtimes.open_runtime

    def watched(*arguments: Any) -> runtimes.Runtime:
        run = opened(*arguments)

        def count(given: Any) -> runtimes.ModelOutputs:
            sizes.append(len(given))
            return run(given)

        return count

    monkeypatch.setattr("retina.predict.grade.open_runtime", watched)
    frame = predict(world.exported, world.paths, batch_size=7, runtime=runtime, device="cpu")
    assert sizes == [7, 7, 7, 3]
    whole = predict(world.exported, world.paths[::-1], batch_size=100, runtime=runtime, device="cpu")
    np.testing.assert_allclose(frame[P], whole[P][::-1], atol=1e-5)


# --- what it runs in ---


ALONE = """
import sys

for name in ("torch", "torchvision", "safetensors.torch"):
    sys.modules[name] = None  # importing it is an ImportError from here on
from retina import cli

code = cli.main(sys.argv[1:])
assert not any(name.startswith("torch.") for name in sys.modules), "torch was imported"
sys.exit(code)
"""


@pytest.mark.parametrize("runtime", ["onnx", "auto"])
def test_onnxruntime_is_enough(world: World, tmp_path: Path, runtime: str) -> None:
    alone = copy(world.exported, tmp_path / "model", "*.safetensors")
    arguments = ["predict", str(alone), *map(str, world.paths), "--json", "grades.json", "--runtime", runtime]
    command = [sys.executable, "-W", "error", "-c", ALONE, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = read(tmp_path / "grades.json")
    frame = predict(world.exported, world.paths, runtime="torch", device="cpu")
    assert [one["grade"] for one in result] == frame["grade"].tolist()
    assert [one["referable"] for one in result] == frame["referable"].tolist()


def of_layout_1(world: World, tmp_path: Path) -> Path:
    """As the version before wrote it."""
    old = copy(world.exported, tmp_path / "model", "model.onnx", "model.pt2", "MODEL_CARD.md", "SHA256SUMS")
    (old / "README.txt").write_text("how to use it")
    config = read(old / "config.json")
    for name in ("temperature", "cut_points", "operating_point", "check"):
        del config[name]
    files.write_json(old / "config.json", {**config, "export": 1})
    preprocess = read(old / "preprocess.json")
    del preprocess["graph_input"]
    files.write_json(old / "preprocess.json", preprocess)
    return old


def test_an_export_of_the_layout_before_is_read(world: World, tmp_path: Path) -> None:
    old = of_layout_1(world, tmp_path)
    paths, seen = world.evaluated("val")
    frame = predict(old, paths, device="cpu")
    assert frame["grade"].tolist() == seen.predicted.tolist()
    np.testing.assert_allclose(frame[P], seen.probabilities, atol=1e-4)
    assert frame["referable"].isna().all()
    assert "has no model.onnx" in refusal(predict, old, paths, runtime="onnx")


def test_what_a_runtime_lacks_is_named(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = copy(world.exported, tmp_path / "model", "model.safetensors")
    assert "model.safetensors: is missing; SHA256SUMS lists it" in refusal(predict, half, [], runtime="torch")
    for package, wish in (("torch", "torch"), ("onnxruntime", "onnx")):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            assert f"{package} is not installed" in refusal(predict, world.exported, [], runtime=wish)


def test_a_damaged_graph_is_named(world: World, tmp_path: Path) -> None:
    broken = copy(world.exported, tmp_path / "model")
    files.write_bytes(broken / "model.onnx", b"no graph")
    update_checksums(broken)
    assert "model.onnx: cannot be read as an ONNX graph" in refusal(predict, broken, [], runtime="onnx")


def test_a_graph_of_another_size_is_refused(world: World, tmp_path: Path) -> None:
    other = copy(world.exported, tmp_path / "model")
    result = read(other / "preprocess.json")
    graph_input = {**result["graph_input"], "shape": ["batch", 3, 32, 32]}
    files.write_json(other / "preprocess.json", {**result, "image_size": 32, "graph_input": graph_input})
    update_checksums(other)
    assert "takes images ['batch', 3, 64, 64]" in refusal(predict, other, [], runtime="onnx")


# --- photographs that cannot be graded ---


def test_photographs_that_look_unfit_are_named(world: World, shared: Path, tmp_path: Path) -> None:
    fit = min((shared / "data" / "idrid" / "images").iterdir())
    photograph = Image.open(fit)
    photograph.point(lambda value: value * 0.08).save(tmp_path / "dark.png")
    photograph.filter(ImageFilter.GaussianBlur(8)).save(tmp_path / "blurred.jpg")
    Image.new("RGB", (400, 300), (7, 7, 7)).save(tmp_path / "empty.jpg")
    frame = predict(world.exported, [fit, *sorted(tmp_path.iterdir())], runtime="onnx").set_index("image")
    said = {Path(path).stem: problem for path, problem in frame["problem"].items()}
    assert said.pop(fit.stem) == ""
    assert quality.BLURRED in said["blurred"]
    assert quality.VERY_DARK in said["dark"]
    assert "no disc" in said["empty"]
    assert frame["grade"].notna().all(), "they are graded all the same"


def test_no_photographs_no_rows(world: World) -> None:
    frame = predict(world.exported, [])
    assert frame.empty
    assert frame.columns.tolist() == COLUMNS


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
        frame = predict(world.exported, paths, batch_size=batch_size, on_bad="skip")
        for name in ("grade", "referable", "referable_score", "p0", "p4"):
            assert frame[name].isna().tolist() == [True, False, True]
        assert frame["name"].iloc[0] == ""
        assert ["not an image" in frame["problem"].iloc[0], "no such file" in frame["problem"].iloc[2]] == [True, True]
        alone = predict(world.exported, paths[1:2])
        np.testing.assert_allclose(frame.loc[[1], P], alone[P], atol=1e-6)


# --- tables ---


def test_grades_as_csv_and_json(world: World, tmp_path: Path) -> None:
    frame = predict(world.exported, [*world.paths[:4], tmp_path / "none.jpg"], on_bad="skip")
    write_csv(frame, tmp_path / "new" / "grades.csv")
    write_json(frame, tmp_path / "new" / "grades.json")
    types: Any = {"grade": "Int64", "referable": "boolean"}
    table = pd.read_csv(tmp_path / "new" / "grades.csv", dtype=types, keep_default_na=False, na_values="")
    assert table["grade"].equals(frame["grade"])
    assert table["referable"].equals(frame["referable"])
    np.testing.assert_allclose(table[P], frame[P], atol=1e-6)
    result = read(tmp_path / "new" / "grades.json")
    assert [one["grade"] for one in result] == [*frame["grade"].iloc[:4].tolist(), None]
    assert [one["referable"] for one in result] == [*frame["referable"].iloc[:4].tolist(), None]
    assert [one["image"] for one in result] == frame["image"].tolist()
    assert result[4]["p0"] is None
    assert result[0]["p4"] == pytest.approx(frame["p4"].iloc[0], abs=1e-6)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["grades.csv", "grades.json"]
    for write in (write_csv, write_json):
        assert "cannot be written" in refusal(write, frame, tmp_path / "new" / "grades.csv" / "x")


def test_grades_take_the_place_of_nothing_but_grades(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph, labels, pipe = (tmp_path / name for name in ("a.jpg", "labels.csv", "pipe"))
    photograph.write_bytes(world.paths[1].read_bytes())
    labels.write_text("image,level\na,3\n")
    os.mkfifo(pipe)
    (tmp_path / "empty.csv").touch()  # as mktemp makes one
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout is
    before = {file: file.read_bytes() for file in (photograph, labels)}
    graded = str(world.paths[2])
    for option in ("--csv", "--json"):
        for name in ("a.jpg", "labels.csv", "pipe", ".", "a.jpg/x.csv", "stdout", "/proc/x"):
            with monkeypatch.context() as patch:
                patch.setattr("retina.predict.predict", lambda *_, **__: pytest.fail("the work began"))
                assert cli.main(["predict", str(world.exported), graded, option, name]) == 2
            said = capsys.readouterr().err
            assert said.startswith(f"{name}: ")
            assert said.count("\n") == 1
        for _ in range(2):  # its own of the time before is replaced
            name = f"empty{option.replace('--', '.')}"
            assert cli.main(["predict", str(world.exported), graded, option, name]) == 0
            assert graded in (tmp_path / name).read_text()
    (tmp_path / "here").symlink_to(".")
    for other in ("x", "q/../x", str(tmp_path / "x"), "here/x"):
        assert cli.main(["predict", str(world.exported), graded, "--csv", other, "--json", "x"]) == 2
        assert capsys.readouterr().err == f"--csv {other} and --json x: one file cannot hold both; name two files\n"
    assert {file: file.read_bytes() for file in before} == before
    assert pipe.is_fifo()
    assert not (tmp_path / "x").exists()


def test_the_command_prints_a_table(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", str(world.exported), *map(str, world.paths[:2]), "--runtime", "onnx"]) == 0
    said = capsys.readouterr().out
    assert "referable" in said
    assert "no disc" in said


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
    assert find_images(arguments) == [Path("eyes") / name for name in expected]
    absolute = [str(eyes.parent / argument) for argument in arguments]
    assert find_images(absolute) == [eyes / name for name in expected]


@pytest.mark.parametrize("argument", ["eyes", "eyes/*", "eyes/**"])
def test_what_links_lead_to_is_graded_once_and_what_is_left_is_said(
    eyes: Path, tmp_path: Path, argument: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "disk2"
    (elsewhere / "inner").mkdir(parents=True)
    for name in ("f.jpg", "inner/g.png", "scan.dcm"):
        (elsewhere / name).touch()
    (eyes / "linked").symlink_to(elsewhere)
    (elsewhere / "inner" / "round").symlink_to(eyes)  # leads in a circle
    (eyes / "gone.jpg").symlink_to("nowhere")  # predict names it
    caplog.set_level("INFO", "retina")
    monkeypatch.setattr(logging.getLogger("retina"), "propagate", True)
    own = ["a.png", "b.JPG", "deep/d.webp", "deep/er/c.tiff", "gone.jpg", "linked/f.jpg", "linked/inner/g.png"]
    assert sorted(find_images([argument])) == [Path("eyes") / name for name in [*own, "odd[1].jpg"]]
    left = "files that are not graded, because their endings are not those of images: 2 (.csv, .dcm)"
    assert [record.getMessage() for record in caplog.records] == [f"note: {argument}: {left}"]


@pytest.mark.parametrize("argument", ["eyes", "eyes/*.jpg"])
def test_a_pipe_among_photographs_is_named_and_not_waited_for(eyes: Path, argument: str) -> None:
    os.mkfifo(eyes / "pipe.jpg")
    message = refusal(find_images, [argument], kind=DataError, lines=1)
    assert message == "eyes/pipe.jpg: is a device, a pipe or a socket, not a photograph"


@pytest.mark.parametrize("argument", ["eyes/none.jpg", "eyes/*.gif", "eyes/*.csv", "eyes/empty", "none/*.jpg", ""])
def test_what_matches_nothing_is_refused(eyes: Path, argument: str) -> None:
    message = refusal(find_images, ["eyes/a.png", argument], kind=DataError, lines=1)
    assert message.startswith(f"{argument}:" if argument else "'':")
