"""What an export reads of a run beside the weights: checked as the reports check it, compared in full, errors said."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from exported_model import P, World, draw, update_checksums

from retina.errors import ResultsError
from retina.export import check
from retina.export.write import export
from retina.results import files
from retina.results.run_folder import RunFolder


def edit_metrics(run: Path, path: str, value: Any) -> Path:
    """Give a key of metrics.json, "test.n" say, another value, and enter the file into its checksums."""
    file = run / "best" / "metrics.json"
    result = json.loads(file.read_text())
    *above, last = path.split(".")
    place = result
    for key in above:
        place = place[key]
    place[last] = value
    files.write_json(file, result)
    update_checksums(file.parent)
    return file


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("test.n", True, "test.n: True: should be a valid integer"),
        ("test.n", None, "null for n"),
        ("val.qwk", None, "should hold val.qwk"),
        ("test.accuracy", "high", "test.accuracy: 'high': should be a valid number"),
        ("test.qwk", 3, "test.qwk: 3: should be less than or equal to 1"),
        ("test.intervals", 5, "test.intervals: 5: should hold keys and their values"),
        ("test.intervals", {"qwk": [0.1]}, "test.intervals.qwk"),
        ("test.recall", 3, "test.recall: 3: should be a valid list"),
        ("test.confusion_matrix", [[1, 2]], "test.confusion_matrix"),
        ("test.baselines", [1], "test.baselines"),
        ("test.baselines", {"majority": {"gain": {"qwk": 1}}}, "test.baselines.majority.gain.qwk"),
        ("trial_id", "../x", "trial_id: '../x': should be a trial's id"),
    ],
)
def test_metrics_are_checked_as_the_reports_check_them(run: Path, path: str, value: Any, named: str) -> None:
    file = edit_metrics(run, path, value)
    with pytest.raises(ResultsError) as caught:
        export(run)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert named in message
    assert message.endswith("--resume evaluates the best trial again")
    assert len(message.splitlines()) == 2
    assert not (run / "export").exists()


@pytest.mark.usefixtures("_stub_graphs")
@pytest.mark.parametrize("lacking", ["resamples", "intervals", "baselines", "confusion_matrix"])
def test_a_card_is_written_without_what_an_earlier_version_did_not_know(run: Path, lacking: str) -> None:
    file = run / "best" / "metrics.json"
    result = json.loads(file.read_text())
    del result["verdict"]
    for split in ("val", "test"):
        del result[split][lacking]
    files.write_json(file, result)
    update_checksums(file.parent)
    text = (export(run) / "MODEL_CARD.md").read_text()
    assert ("Without intervals" in text) == (lacking == "intervals")
    assert f"{result['test']['qwk']:.3f}" in text


def test_photographs_whose_names_a_spreadsheet_would_run_are_compared(run: Path, tmp_path: Path) -> None:
    names = ["=a.png", "+b.png", "plain.png", "'=c.png"]
    for seed, name in enumerate(names, 1):
        draw(tmp_path / "eyes" / name, seed)
    (tmp_path / "eyes" / "labels.csv").write_text("\n".join(["image,level", *(f"{name},0" for name in names)]) + "\n")
    files.write_json(run / "sweep.yaml", {"name": "demo", "data": {"path": str(tmp_path / "eyes")}})
    result = [{"split": "test", "image": name, "grade": 0, **dict.fromkeys(P, 0.2)} for name in names]
    files.write_frame(run / "best" / "predictions.csv", pd.DataFrame(result))
    assert "\ntest,'=a.png," in (run / "best" / "predictions.csv").read_text()
    seen = check.load_sample(RunFolder.open(run), 32)
    assert seen.recorded.shape == (4, 5)
    assert np.isfinite(seen.recorded).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace("p0", "p9", 1), "predictions.csv: lacks the columns p0"),
        (lambda text: text.replace("\ntest,", "\nall,", 1), "split: 'all': should be 'train', 'val' or 'test'"),
        (lambda text: text.rstrip() + "\n" + text.rstrip().rpartition("\n")[2] + "\n", "is already in line"),
        (lambda text: text[: len(text) * 2 // 3], "predictions.csv: line "),
    ],
    ids=["column", "split", "twice", "cut off"],
)
def test_predictions_are_checked_as_the_reports_check_them(run: Path, change: Any, named: str) -> None:
    file = run / "best" / "predictions.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(ResultsError) as caught:
        check.load_sample(RunFolder.open(run), 32)
    assert str(caught.value).startswith(f"{file}: ")
    assert named in str(caught.value)


def test_why_the_photographs_of_a_run_are_not_looked_at_is_said(
    run: Path, world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    caplog.set_level("INFO", "retina")
    monkeypatch.setattr(logging.getLogger("retina"), "propagate", True)
    (tmp_path / "eyes").mkdir()
    labels = tmp_path / "eyes" / "labels.csv"
    labels.write_text("image,level\na.png,7\n")
    reasons = {
        str(tmp_path / "nowhere"): f"{tmp_path / 'nowhere'}: ",
        str(labels.parent): f"{labels.parent}",
        world.data.config.path: "",
    }
    for path, reason in reasons.items():
        caplog.clear()
        files.write_json(run / "sweep.yaml", {"name": "demo", "data": {"path": path}})
        seen = check.load_sample(RunFolder.open(run), 32)
        said = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
        if reason:
            assert seen.origin == "drawn for this check: the photographs of the run could not be read"
            assert len(said) == 1
            assert said[0].startswith(f"note: the photographs of demo cannot be read: {reason}")
        else:
            assert (seen.origin, said) == ("of the run", [])
