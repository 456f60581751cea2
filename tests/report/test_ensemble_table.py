"""The table of the best trial alone, ensemble and soup, and when their results are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prediction_tables import predictions
from rich.console import Console

from retina.errors import ResultsError
from retina.metrics.summary import summarize
from retina.report import ensemble_results
from retina.results.files import write_json
from retina.results.run_folder import RunFolder

METRICS = summarize(predictions(), resamples=50)


def made(better: str = "ensemble", soup: tuple[str, ...] = ("t0001",)) -> dict[str, Any]:
    """Return a valid together.json in which each model has a QWK of its own."""
    members = {"single": ["t0001"], "ensemble": ["t0001", "t0004", "t0002"], "soup": list(soup)}
    content: dict[str, Any] = {"metric": "val_qwk", "better": better}
    for at, model in enumerate(members):
        splits = {split: {**METRICS[split], "qwk": 0.5 + at / 10} for split in ("val", "test")}
        content[model] = {"members": members[model], **splits}
    return content


def shown(folder: RunFolder) -> list[str]:
    console = Console(width=100, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(ensemble_results.table(ensemble_results.read(folder, "t0001")))
    return captured.get().splitlines()


def write(root: Path, content: Any) -> RunFolder:
    folder = RunFolder(root / "mine")
    write_json(folder.best / "together.json", content)
    return folder


def test_the_terminal_shows_each_with_the_intervals_of_test(tmp_path: Path) -> None:
    lines = shown(write(tmp_path, made(soup=("t0001", "t0002"), better="soup")))
    assert max(map(len, lines)) <= 100
    low, high = METRICS["test"]["intervals"]["qwk"]
    for name, qwk in {"best trial alone": 0.5, "ensemble of 3": 0.6, "soup of 2": 0.7}.items():
        (line,) = [line for line in lines if line.strip().startswith(name)]
        assert line.split(name)[1].split()[:4] == [f"{qwk:.3f}", f"{qwk:.3f}", f"[{low:.3f},", f"{high:.3f}]"]
    text = " ".join(" ".join(lines).split())
    assert "Best by val_qwk: soup of 2. The ensemble: t0001, t0004, t0002." in text
    assert "No soup" not in text


def test_a_soup_of_one_is_the_best_trial_and_no_row_of_its_own(tmp_path: Path) -> None:
    results = ensemble_results.read(write(tmp_path, made(better="single")), "t0001")
    assert [result.name for result in results] == ["best trial alone", "ensemble of 3"]
    assert [result.is_best for result in results] == [True, False]
    assert ensemble_results.note(results).endswith("when averaged with them.")


def test_what_was_made_of_another_best_model_does_not_count(tmp_path: Path) -> None:
    folder = write(tmp_path, made())
    assert ensemble_results.read(folder, "t0007") == []
    assert ensemble_results.read(RunFolder(tmp_path / "none"), "t0001") == []


def test_damage_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, made())
    file = folder.best / "together.json"
    file.write_text("{")
    with pytest.raises(ResultsError, match=str(file)):
        ensemble_results.read(folder, "t0001")
    write_json(file, {"single": {"members": ["t0001"]}, "better": "single"})
    with pytest.raises(ResultsError, match=str(file)):
        ensemble_results.read(folder, "t0001")
