"""What a terminal says of the best model: the verdict first, calm and narrow."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prediction_tables import predictions
from rich.console import Console

from retina.errors import ResultsError
from retina.metrics.summary import summarize
from retina.report.terminal.best_model import render
from retina.results.files import write_json
from retina.results.run_folder import RunFolder

HEAD = {"trial_id": "t0007", "epoch": 12, "chosen_by": "val_qwk (validation; the test split chose nothing)"}


def shown(tmp_path: Path, result: dict[str, Any]) -> list[str]:
    folder = RunFolder(tmp_path / "mine")
    write_json(folder.best / "metrics.json", {**HEAD, **result})
    console = Console(width=100, highlight=False, markup=False, record=True)
    with console.capture() as captured:
        console.print(render(folder))
    return captured.get().splitlines()


def refused(tmp_path: Path, result: dict[str, Any]) -> str:
    with pytest.raises(ResultsError) as caught:
        shown(tmp_path, result)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'mine' / 'best' / 'metrics.json'}: ")
    assert len(message.splitlines()) == 2
    return message


def without(result: dict[str, Any], path: str) -> dict[str, Any]:
    """A copy that lacks one key: "test.n", say."""
    copied = json.loads(json.dumps(result))
    *above, last = path.split(".")
    place = copied
    for key in above:
        place = place[key]
    del place[last]
    return copied


def row(lines: list[str], label: str) -> list[str]:
    (line,) = [line for line in lines if line.strip().startswith(f"{label} ")]
    return [cell for cell in line.strip().removeprefix(label).split("   ") if cell.strip()]


def test_the_verdict_stands_first_and_everything_fits_a_hundred_columns(tmp_path: Path) -> None:
    result = summarize(predictions(fellows=9), resamples=100)
    for split in ("val", "test"):
        result[split] |= {"n": 35_126, "patients": 17_563, "confusion_matrix": [[35_126, 0, 0, 0, 0], *[[0] * 5] * 4]}
    lines = shown(tmp_path, result)
    assert max(map(len, lines)) <= 100
    said = [line for line in lines if line.strip()]
    assert result["verdict"].startswith(said[0].strip())
    assert not any("…" in line for line in lines)
    assert any(line.rstrip().endswith("n=35,126, 17,563 patients") for line in lines)
    assert len(row(lines, "sensitivity at 90% specificity")) == 2
    assert any("Best: trial t0007, epoch 12, chosen by val_qwk" in line for line in lines)


def test_each_number_has_its_interval_and_the_baselines_beneath(tmp_path: Path) -> None:
    result = summarize(predictions(fellows=9), resamples=100)
    lines = shown(tmp_path, result)
    test = result["test"]
    for key, label in {"qwk": "QWK", "accuracy": "accuracy", "referable_auc": "referable AUC", "ece": "ECE"}.items():
        low, high = test["intervals"][key]
        assert row(lines, label)[-1].strip() == f"{test[key]:.3f} [{low:.3f}, {high:.3f}]"
        if key in {"qwk", "accuracy"}:
            at = next(at for at, line in enumerate(lines) if line.strip().startswith(f"{label} "))
            assert lines[at + 1].split()[:3] == ["always", "grade", "0"]
            assert lines[at + 2].split()[-1] == f"{test['baselines']['fellow_eye'][key]:.3f}"
    low, high = test["intervals"]["recall"][3]
    assert row(lines, "recall of 3 severe")[-1].strip() == f"{test['recall'][3]:.3f} [{low:.3f}, {high:.3f}]"
    text = " ".join(" ".join(lines).split())
    assert "95% intervals, from 100 resamples of the patients" in text
    assert "9 of 120 test photographs have a fellow eye in train or validation" in text


def test_photographs_of_nobody_are_not_counted_as_patients(tmp_path: Path) -> None:
    frame = predictions()
    result = summarize(frame.assign(patient=[f"eye {i}" for i in range(len(frame))]), resamples=50)
    lines = shown(tmp_path, result)
    assert max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    assert "n=120 " in text
    assert "120 patients" not in text
    assert "50 resamples of the photographs, no two of which are known to be of one patient." in text


@pytest.mark.parametrize(("noise", "said"), [(0.05, "validation meets 87%"), (3.0, "No threshold meets 87%")])
def test_it_says_whether_the_operating_point_was_found(tmp_path: Path, noise: float, said: str) -> None:
    lines = shown(tmp_path, summarize(predictions(noise=noise), resamples=50))
    assert said in " ".join(" ".join(lines).split())


def test_what_is_not_defined_is_a_dash(tmp_path: Path) -> None:
    frame: pd.DataFrame = predictions()
    lines = shown(tmp_path, summarize(frame.assign(grade=0), resamples=50))
    assert [cell.strip() for cell in row(lines, "referable AUC")] == ["-", "-"]
    assert not any("nan" in line.lower() or "None" in line for line in lines)


def test_a_sweep_that_was_judged_before_there_were_intervals_is_shown_too(tmp_path: Path) -> None:
    old = {
        "n": 160,
        "accuracy": 0.431,
        "qwk": 0.654,
        "auc": 0.789,
        "referable_auc": None,
        "recall": [0.281, 0.545, 0.355, None, 0.419],
        "confusion_matrix": [[8, 6, 6, 6, 6]] * 5,
        "loss": 1.2,
    }
    lines = shown(tmp_path, {"precision": "float32", "val": old, "test": {**old, "qwk": 0.5}})
    assert [cell.strip() for cell in row(lines, "QWK")] == ["0.654", "0.500"]
    assert [cell.strip() for cell in row(lines, "recall of 3 severe")] == ["-", "-"]
    assert not any("ECE" in line or "precision" in line for line in lines)


@pytest.mark.parametrize(
    "lacking",
    [
        *("val.n", "test.n", "test.resamples", "test.baselines", "operating_point"),
        *("operating_point.met", "operating_point.target", "operating_point.threshold"),
    ],
)
def test_what_the_table_cannot_do_without_is_missed_by_name(tmp_path: Path, lacking: str) -> None:
    result = summarize(predictions(noise=0.05), resamples=10)
    assert result["operating_point"]["met"]
    message = refused(tmp_path, without(result, lacking))
    assert f"should hold {'the threshold' if 'threshold' in lacking else ''}" in message
    assert lacking.rpartition(".")[2] in message
    assert "KeyError" not in message


@pytest.mark.parametrize(
    ("split", "named"),
    [
        ({"intervals": {"qwk": [None, None]}}, "test.intervals.qwk.0: None: should be a valid number"),
        ({"intervals": {"qwk": [[0.1, 0.2]] * 5}}, "test.intervals.qwk"),
        ({"intervals": {"recall": [0.1, 0.2]}}, "test.intervals.recall"),
        ({"intervals": {"recall": [[0.1, 0.2]] * 4}}, "test.intervals.recall"),
        ({"intervals": 5}, "test.intervals: 5: should hold keys and their values"),
        ({"intervals": None}, "should not hold null for intervals"),
        ({"recall": None}, "should not hold null for recall"),
        ({"baselines": {"majority": {"grade": None}}}, "should not hold null for grade"),
        ({"baselines": [1]}, "test.baselines"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_refused_by_name(tmp_path: Path, split: dict[str, Any], named: str) -> None:
    result = summarize(predictions(), resamples=10)
    result["test"] |= split
    assert named in refused(tmp_path, result)


@pytest.mark.parametrize(
    "lacking",
    [
        *("test.operating", "test.intervals", "val.intervals", "val.baselines", "test.baselines.majority.grade"),
        *("val.baselines.majority.grade", "test.baselines.fellow_eye.n", "test.baselines.fellow_eye.with_fellow"),
        *("test.baselines.majority.qwk", "test.intervals.operating_sensitivity", "verdict", "temperature"),
    ],
)
def test_without_what_an_earlier_version_did_not_know_the_rest_is_shown(tmp_path: Path, lacking: str) -> None:
    result = without(summarize(predictions(fellows=9), resamples=10), lacking)
    lines = shown(tmp_path, result)
    assert row(lines, "QWK")[-1].strip().startswith(f"{result['test']['qwk']:.3f}")
    if lacking.endswith("grade"):
        assert any(line.strip().startswith(("majority ", "always grade 0 ")) for line in lines)
