"""The figures of the best model: what is written in them, that it can be read, and that nothing else is touched."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from retina.config import GRADE_NAMES
from retina.errors import ResultsError
from retina.report import figures
from retina.results.files import write_json
from retina.results.run_folder import RunFolder

MATRICES = [f"confusion_matrix_{split}{end}.png" for split in ("val", "test") for end in ("", "_rows")]
COUNTS = np.array([[30, 4, 1, 0, 0], [2, 6, 2, 0, 0], [1, 2, 12, 3, 2], [0, 0, 0, 0, 0], [0, 0, 5, 1, 4]])


def split_values(counts: npt.NDArray[np.int64], **changed: Any) -> dict[str, Any]:
    n = int(counts.sum())
    own = {"n": n, "accuracy": counts.trace() / n, "qwk": 0.61, "auc": None, "confusion_matrix": counts.tolist()}
    return {**own, **changed}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path / "demo")
    for epoch in (1, 2, 3):
        run.record_epoch("a1", epoch, train_accuracy=0.5 + epoch / 10, val_accuracy=0.6 + epoch / 20)
        run.record_epoch("b2", epoch, train_accuracy=0.1, val_accuracy=0.1, test_accuracy=0.1)
    run.flush()
    metrics = {"trial_id": "a1", "epoch": 2, "val": split_values(COUNTS), "test": split_values(COUNTS.T, qwk=0.25)}
    write_json(run.best / "metrics.json", metrics)
    return run


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def luminance(colour: Any) -> float:
    rgb = np.array(to_rgb(colour))
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))


def test_five_pictures_that_say_what_they_are(folder: RunFolder) -> None:
    files = figures.draw(folder)
    assert sorted(file.name for file in files) == sorted([*MATRICES, "accuracy.png"])
    assert sorted(folder.best.iterdir()) == sorted([*files, folder.best / "metrics.json"])
    for file in files:
        with Image.open(file) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) >= 600
            assert len(picture.convert("L").getcolors(256) or []) > 20, "is not blank"
            title = picture.info["Title"]
        if "confusion" in file.name:
            split, qwk = ("validation", "0.610") if "_val" in file.name else ("test", "0.250")
            assert title == f"demo, trial a1; {split}, n = 75, accuracy 0.693, QWK {qwk}"
        else:
            assert title == "demo, trial a1; accuracy by epoch, epoch 2 chosen"


def test_a_second_drawing_shows_the_new_numbers(folder: RunFolder) -> None:
    before = {file.name: file.read_bytes() for file in figures.draw(folder)}
    write_json(
        folder.best / "metrics.json",
        {"trial_id": "a1", "epoch": 3, "val": split_values(COUNTS), "test": split_values(COUNTS)},
    )
    after = {file.name: file.read_bytes() for file in figures.draw(folder)}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"confusion_matrix_test.png", "confusion_matrix_test_rows.png", "accuracy.png"}


def test_shares_of_all_photographs() -> None:
    shown = words(figures.confusion_matrix(COUNTS, "title"))
    assert {"40.0%", "30", "16.0%", "12", "title", "share of all photographs"} <= set(shown)
    assert shown.count("0.0%") >= int((COUNTS == 0).sum())
    assert {f"{grade}\n{name}" for grade, name in enumerate(GRADE_NAMES)} <= set(shown)
    assert {"0 none\nn = 35", "3 severe\nn = 0", "4 proliferative\nn = 10"} <= set(shown)


def test_shares_of_each_true_grade_and_an_empty_one() -> None:
    figure = figures.confusion_matrix(COUNTS, "title", by_row=True)
    assert {"85.7%", "60.0%", "50.0%", "no photographs", "share of the true grade's photographs"} <= set(words(figure))
    rows: dict[float, float] = {}
    for text in figure.axes[0].texts:
        if text.get_text().endswith("%"):
            y = round(text.get_position()[1] + 0.1)
            rows[y] = rows.get(y, 0) + float(text.get_text()[:-1])
    assert rows == {row: pytest.approx(100, abs=0.3) for row in (0, 1, 2, 4)}


counts = arrays.arrays(np.int64, (5, 5), elements=st.integers(0, 4000))


@settings(max_examples=20, deadline=None)
@given(counts, st.booleans())
def test_every_number_can_be_read_on_its_cell(matrix: npt.NDArray[np.int64], by_row: bool) -> None:
    axes = figures.confusion_matrix(matrix, "title", by_row=by_row).axes[0]
    assert len(axes.patches) == 25
    cells = {(round(c.get_x() + 0.5), round(c.get_y() + 0.5)): c for c in axes.patches if isinstance(c, Rectangle)}
    assert not any("nan" in text.get_text() for text in axes.texts)
    for text in axes.texts:
        x, y = text.get_position()
        light, dark = sorted((luminance(text.get_color()), luminance(cells[round(x), round(y)].get_facecolor()[:3])))
        assert (dark + 0.05) / (light + 0.05) >= 4.5, f"{text.get_text()} at {x}, {y}"


def test_the_colours_darken_in_equal_steps() -> None:
    y = np.array([luminance(figures.BLUES(share)) for share in np.linspace(0, 1, 11)])
    lightness = 116 * np.cbrt(y) - 16  # CIELAB's, all of these being brighter than its straight part
    steps = -np.diff(lightness)
    assert steps.sum() > 70
    assert steps.min() > 0.7 * steps.mean()
    assert steps.max() < 1.3 * steps.mean()


@pytest.mark.parametrize("tracked", [False, True])
def test_curves_of_train_validation_and_test_where_it_was_followed(tracked: bool) -> None:
    curves = pd.DataFrame({"epoch": [1, 2, 3], "train_accuracy": [0.3, 0.5, 0.9], "val_accuracy": [0.4, 0.7, 0.6]})
    curves["test_accuracy"] = [0.35, np.nan, 0.45] if tracked else np.nan
    result = figures.SplitResult("val", 75, 0.7, 0.5, COUNTS)
    axes = figures.accuracy(curves, 2, "title", result).axes[0]
    lines = {str(line.get_label()).split()[0]: np.asarray(line.get_ydata()).tolist() for line in axes.lines}
    assert lines["train"] == [0.3, 0.5, 0.9]
    assert lines["validation"] == [0.4, 0.7, 0.6]
    assert lines.get("test") == ([0.35, 0.45] if tracked else None)
    assert lines["always"] == [35 / 75] * 2
    assert "70.0%" in [text.get_text() for text in axes.texts], "the chosen epoch's validation accuracy"
    assert any(np.asarray(line.get_xdata()).tolist() == [2, 2] for line in axes.lines), "the chosen epoch's line"


def test_one_epoch_is_enough() -> None:
    curves = pd.DataFrame({"epoch": [1], "train_accuracy": [0.5], "val_accuracy": [0.4], "test_accuracy": [np.nan]})
    figure = figures.accuracy(curves, 1, "title", figures.SplitResult("val", 75, 0.7, 0.5, COUNTS))
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [1]


@pytest.mark.parametrize(
    ("metrics", "named"),
    [
        (None, "no finished sweep"),
        ({"epoch": 1, "val": split_values(COUNTS), "test": split_values(COUNTS)}, "trial_id"),
        ({"trial_id": "a1", "epoch": 2, "val": split_values(COUNTS)}, "test"),
        ({"trial_id": "a1", "epoch": 2, "val": split_values(COUNTS), "test": split_values(COUNTS, qwk="?")}, "test"),
        (
            {"trial_id": "a1", "epoch": 2, "val": split_values(COUNTS), "test": split_values(COUNTS[:4])},
            "at least 5 items",
        ),
        (
            {"trial_id": "zz", "epoch": 2, "val": split_values(COUNTS), "test": split_values(COUNTS)},
            "no epoch of trial zz",
        ),
        ([], "metrics.json"),
    ],
)
def test_damage_is_named(folder: RunFolder, metrics: Any, named: str) -> None:
    if metrics is None:
        (folder.best / "metrics.json").unlink()
    else:
        write_json(folder.best / "metrics.json", metrics)
    with pytest.raises(ResultsError) as caught:
        figures.draw(folder)
    assert named in str(caught.value)
    assert "metrics.json" in str(caught.value)
    assert not list(folder.best.glob("*.png"))


def test_nothing_global_is_touched(folder: RunFolder) -> None:
    code = f"""
import sys, matplotlib
from pathlib import Path
def settings():  # a look at "backend" would choose one, and import pyplot for it
    return {{key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}}
before = settings()
from retina.report import figures
from retina.results.run_folder import RunFolder
figures.draw(RunFolder(Path({str(folder.root)!r})))
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
