"""report.html: that it tells what the files tell, needs nothing but itself, and has something to say at any time."""

import base64
import hashlib
import itertools
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny_dataset
import torch
from report_pages import BEST, SPEC, STATES, Read, evaluate_best, folder, read, written
from repository import ROOT

from retina import cli
from retina.errors import ResultsError
from retina.report import page
from retina.results import checksums
from retina.results.files import read_json, write_json, write_text
from retina.results.run_folder import RunFolder
from retina.sweep.backend import SweepResult


@pytest.fixture(scope="module", autouse=True)
def _on_one_core() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """A sweep that has ended."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETINA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        run = folder(tmp_path_factory.mktemp("results"))
        evaluate_best(run, tiny_dataset.photographs())
        yield RunFolder.open(run.root)


@pytest.fixture(scope="module")
def text(finished: RunFolder) -> str:
    """Its page."""
    return page.write(finished, {"learning_rate": 0.75, "batch_size": 0.25}, device=tiny_dataset.CPU).read_text()


@pytest.fixture(scope="module")
def shown(text: str) -> Read:
    """Its page, read."""
    return read(text)


@pytest.fixture
def copied(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the sweep that may be changed."""
    shutil.copytree(finished.root, tmp_path / "demo")
    return RunFolder.open(tmp_path / "demo")


def test_the_verdict_stands_first(finished: RunFolder, shown: Read) -> None:
    (body,) = shown.find("body")
    verdict = read_json(finished.best / "metrics.json")["verdict"]
    assert body.words.startswith(verdict)
    assert [one.words for one in shown.find("h1")] == ["Sweep demo"]


def test_the_table_holds_every_trial_as_trials_csv_has_it(finished: RunFolder, shown: Read) -> None:
    rows = {row["trial_id"]: row for row in shown.trials()}
    outcome = pd.read_csv(finished.root / "trials.csv", dtype=str, keep_default_na=False)
    assert len(rows) == len(STATES) == len(outcome)
    for one in outcome.to_dict(orient="records"):
        row = rows[one["trial_id"]]
        assert row["state"] == one["state"]
        assert row["reason"] == one["reason"]
        assert row["optimizer"] == one["optimizer"]
        assert row["batch_size"] == one["batch_size"]
        assert float(row["learning_rate"]) == pytest.approx(float(one["learning_rate"]), rel=1e-3)
        assert row["val_qwk"] == (f"{float(one['val_qwk']):.4g}" if one["val_qwk"] else "")
        assert row["minutes"] == (f"{float(one['seconds']) / 60:.1f}" if one["seconds"] else "")
    assert "arch" not in next(iter(rows.values())), "what is the same in all trials stands beside"
    beside = shown.section("trials").find("dl")[0].find("div")
    assert "archresnet18" in [one.words for one in beside]


def test_the_best_trial_comes_first_and_those_without_a_value_last(shown: Read) -> None:
    rows = shown.trials()
    values = [float(row["val_qwk"]) for row in rows if row["val_qwk"]]
    assert rows[0]["trial_id"] == BEST
    assert values == sorted(values, reverse=True)
    assert [bool(row["val_qwk"]) for row in rows] == [True] * len(values) + [False] * STATES.count("FAIL")


def test_the_numbers_are_those_of_metrics_json(finished: RunFolder, shown: Read) -> None:
    outcome, rows = read_json(finished.best / "metrics.json"), shown.numbers()
    for name, key in {"QWK": "qwk", "accuracy": "accuracy", "macro F1": "macro_f1"}.items():
        assert rows[name] == [with_interval(outcome[split], key) for split in ("val", "test")]
    for grade in range(5):
        cells = next(cells for name, cells in rows.items() if name.startswith(f"recall of {grade}"))
        assert cells == [with_interval(outcome[split], "recall", grade) for split in ("val", "test")]
    majority = next(cells for name, cells in rows.items() if name.startswith("always grade"))
    known = [outcome[split]["baselines"]["majority"][key] for split in ("val", "test") for key in ("qwk", "accuracy")]
    assert majority == [f"{value:.3f}" for value in known]


def with_interval(split: dict[str, Any], key: str, grade: int | None = None) -> str:
    value, between = split[key], split["intervals"][key]
    if grade is not None:
        value, between = value[grade], between[grade]
    interval = f" {between[0]:.3f} to {between[1]:.3f}" if between else ""
    return ("-" if value is None else f"{value:.3f}") + interval


def test_ensemble_and_soup_stand_beside_the_best_model(copied: RunFolder) -> None:
    best = read_json(copied.best / "metrics.json")
    outcome: dict[str, Any] = {"metric": "val_qwk", "better": "soup"}
    for at, (way, members) in enumerate({"single": 1, "ensemble": 3, "soup": 2}.items()):
        splits = {split: {**best[split], "qwk": at / 10} for split in ("val", "test")}
        outcome[way] = {"members": [BEST, "t0009", "t0003"][:members], **splits}
    write_json(copied.best / "together.json", outcome)
    checksums.update(copied.best, ["together.json"])
    shown = written(copied)
    rows = shown.numbers()
    for at, name in enumerate(["best trial alone", "ensemble of 3", "soup of 2"]):
        assert [cell.split()[0] for cell in rows[name]] == [
            f"{value:.3f}"
            for split in ("val", "test")
            for value in (at / 10, best[split]["accuracy"], best[split]["auc"])
        ]
    assert f"Best by val_qwk: soup of 2. The ensemble: {BEST}, t0009, t0003." in shown.section("best").text


def test_the_confusion_matrices_count_every_photograph(finished: RunFolder, shown: Read) -> None:
    outcome = read_json(finished.best / "metrics.json")
    tables = shown.section("confusion").find("table")
    assert len(tables) == 4
    for number, table in enumerate(tables):
        counts = outcome[("val", "test")[number // 2]]["confusion_matrix"]
        (body,) = table.find("tbody")
        for row, expected in zip(body.find("tr"), counts, strict=True):
            cells = [cell.words for cell in row.find("td")]
            if not sum(expected) and number % 2:
                assert cells == ["no photographs"]
                continue
            whole = sum(expected) if number % 2 else sum(map(sum, counts))
            assert cells == [f"{n / whole:.1%}{n}" for n in expected]


def test_nothing_is_loaded_from_elsewhere(text: str, shown: Read) -> None:
    loading = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}
    for element in shown.root.everything():
        for name, value in element.attributes.items():
            if name in loading:
                assert value.startswith(("data:", "#")), f"<{element.tag} {name}={value[:60]}>"
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text
    (policy,) = shown.find("meta", **{"http-equiv": "Content-Security-Policy"})
    (script,) = shown.find("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy.attributes["content"]
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_every_id_is_there_once_and_every_reference_meets_one(text: str, shown: Read) -> None:
    ids = [one.attributes["id"] for one in shown.root.everything() if "id" in one.attributes]
    assert sorted(ids) == sorted(set(ids))
    wanted = {value[1:] for value in re.findall(r'href="(#[^"]+)"', text)} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert wanted <= set(ids)
    assert {f"#{one.attributes['id']}" for one in shown.find("section")} == {
        one.attributes["href"] for one in shown.find("a")
    }


def test_what_is_seen_can_be_heard(shown: Read) -> None:
    assert shown.find("html")[0].attributes["lang"] == "en"
    assert all(one.attributes.get("alt") for one in shown.find("img"))
    figures = shown.find("svg")
    assert len(figures) > 8
    assert all(one.attributes["role"] == "img" and one.attributes["aria-label"] for one in figures)
    assert all(label.find("input") for label in shown.find("label"))
    assert len(shown.find("label")) == len(shown.find("input"))
    levels = [int(one.tag[1]) for one in shown.root.everything() if re.fullmatch(r"h[1-6]", one.tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_each_figure_that_is_wanted_is_there(shown: Read) -> None:
    headings = [one.words for one in shown.find("h3")]
    for heading in (
        "Optimisation history",
        "Parallel coordinates",
        "val_qwk of every trial by epoch",
        "Reliability",
        "ROC of referable",
    ):
        assert heading in headings
    assert {"batch_size", "learning_rate", "optimizer"} <= set(headings), "the slices"
    drawn = {one.attributes["data-trial"] for one in shown.root.everything() if "data-trial" in one.attributes}
    assert drawn == {row["trial_id"] for row in shown.trials()}
    curves = shown.section("curves").find("svg")[0]
    assert {"rung 3", "rung 9"} <= {one.words for one in curves.find("text")}
    (bars,) = shown.section("search").find("table", **{"class": "bars"})
    assert [row.words for row in bars.find("tr")] == ["learning_rate75.0%", "batch_size25.0%"]


def test_it_says_how_to_repeat_it(finished: RunFolder, shown: Read) -> None:
    outcome = shown.section("repeat").words
    notes = finished.metadata()
    assert notes["command"] in outcome
    assert f"--space {finished.root / 'sweep.yaml'} --name demo-again" in outcome
    assert notes["packages"]["torch"] in outcome
    assert notes["cpu"] in outcome
    data = shown.section("data").words
    assert notes["data"]["fingerprint"] in data
    counts = shown.numbers("data")
    for split, name in {"train": "train", "val": "validation", "test": "test"}.items():
        one = notes["data"]["photographs"][split]
        assert counts[name] == [str(one["n"]), *map(str, one["by_grade"])]


def test_names_and_reasons_are_text_whatever_they_hold(tmp_path: Path) -> None:
    run = folder(tmp_path, ["FAIL", "COMPLETE"], name="<b>bold<br> &amp; more")
    evil = "</td><script>alert(1)</script><img src=http://example.org/x>"
    run.record_trial("t0000", reason=evil)
    run.update_metadata(command=evil, data={"path": evil, "warnings": [evil]})
    run.flush()
    shown = written(RunFolder.open(run.root))
    assert shown.find("h1")[0].words == "Sweep <b>bold<br> &amp; more"
    assert len(shown.find("script")) == 1
    assert not shown.find("img")
    assert {row["trial_id"]: row["reason"] for row in shown.trials()}["t0000"] == evil
    assert evil in shown.section("data").text
    assert evil in shown.section("repeat").text


def test_a_sweep_that_runs_shows_its_trials_and_says_that_there_is_no_best_model(tmp_path: Path) -> None:
    run = folder(tmp_path, ["COMPLETE", "PRUNED", "RUNNING", "RUNNING"])
    with run.lock():
        shown = written(run)
    (first,) = shown.find("p", **{"class": "verdict"})
    assert first.words == "No best model yet: 2 of 12 trials have ended, the best so far is t0003 with val_qwk 0.150."
    assert shown.find("title")[0].words == "demo: running"
    assert "There is no best model yet" in shown.section("best").words
    assert [row["state"] for row in shown.trials()].count("RUNNING") == 2
    assert not shown.find("section", id="confusion")
    assert not shown.find("section", id="chances")
    assert len(shown.section("curves").find("svg")) == 1
    assert "they need 10 or more trials" in shown.section("search").words


def test_a_sweep_whose_every_trial_failed_says_so_and_why(tmp_path: Path) -> None:
    shown = written(folder(tmp_path, ["FAIL", "FAIL"]))
    (first,) = shown.find("p", **{"class": "verdict"})
    assert first.words == "No result: all 2 trials that have ended failed."
    assert {row["reason"] for row in shown.trials()} == {"epoch 2, step 1: the training loss is nan"}
    assert "nothing to draw" in shown.section("search").words


def test_a_sweep_that_has_just_begun_has_a_page_too(tmp_path: Path) -> None:
    shown = written(folder(tmp_path, []))
    assert "No trial has been started yet." in shown.section("trials").words
    assert not shown.find("svg")
    assert shown.find("p", **{"class": "verdict"})[0].words == "No result yet: 0 of 12 trials have ended."


def test_what_an_earlier_version_did_not_measure_is_left_out(copied: RunFolder) -> None:
    file = copied.best / "metrics.json"
    outcome = read_json(file)
    known = ("n", "accuracy", "qwk", "auc", "referable_auc", "recall", "confusion_matrix", "loss")
    old = {key: outcome[key] for key in ("trial_id", "epoch", "precision", "chosen_by")}
    old |= {
        split: {"loss": 1.25} | {key: outcome[split][key] for key in known if key != "loss"}
        for split in ("val", "test")
    }
    write_json(file, old)
    frame = pd.read_csv(copied.best / "predictions.csv", keep_default_na=False)
    frame.drop(columns=["majority", "fellow_eye"]).to_csv(copied.best / "predictions.csv", index=False)
    checksums.update(copied.best, [file.name, "predictions.csv"])
    shown = written(copied)
    rows = shown.numbers()
    assert rows["QWK"] == [f"{outcome[split]['qwk']:.3f}" for split in ("val", "test")]
    assert rows["loss"] == ["1.250", "1.250"]
    assert not {"macro F1", "calibration error (ECE)"} & set(rows)
    assert not [name for name in rows if name.startswith(("always", "precision"))]
    assert shown.find("p", **{"class": "verdict"})[0].words.startswith(f"Best model: trial {BEST}, on test QWK ")
    assert "Hollow marks" in shown.section("chances").words


def test_photographs_that_are_gone_cost_their_pictures_only(
    copied: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "empty"))
    shown = written(copied)
    assert "The pictures cannot be shown" in shown.section("mistakes").words
    assert "no longer there" in shown.section("mistakes").words
    assert len(shown.trials()) == len(STATES)


def test_the_mistakes_are_those_of_the_predictions(finished: RunFolder, shown: Read) -> None:
    frame = pd.read_csv(finished.best / "predictions.csv", keep_default_na=False)
    wrong = frame[(frame["split"] == "test") & (frame["predicted"] != frame["grade"])]
    figures = shown.section("mistakes").find("figure")
    assert len(figures) == min(len(wrong), 12) > 0
    for figure in figures:
        called, sure, true, image = re.fullmatch(
            r"predicted (\d) \w+ \(([\d.]+)%\), true (\d) [a-z]+(\d+_\w+)(?:;.*)?", figure.words
        ).groups()  # type: ignore[union-attr]
        row = wrong[wrong["image"] == image].iloc[0]
        assert (int(called), int(true)) == (row["predicted"], row["grade"])
        assert float(sure) == pytest.approx(100 * float(row[f"p{called}"]), abs=0.051)
        assert [one.attributes["src"][:23] for one in figure.find("img")] == ["data:image/jpeg;base64,"] * 2


def test_the_page_is_small(text: str) -> None:
    assert len(text) < 2_000_000


def test_figures_of_a_comparison_are_taken_in(copied: RunFolder) -> None:
    shutil.rmtree(copied.best)  # it is not what is looked at
    (copied.root / "comparison").mkdir()
    shutil.copy(ROOT / "docs" / "images" / "demo.png", copied.root / "comparison" / "accuracy_resnet18.png")
    shown = written(copied)
    (picture,) = shown.section("comparison").find("img")
    png = (copied.root / "comparison" / "accuracy_resnet18.png").read_bytes()
    assert base64.b64decode(picture.attributes["src"].removeprefix("data:image/png;base64,")) == png
    assert picture.attributes["alt"] == "accuracy resnet18"


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("sweep.yaml", "- 1", "sweep.yaml"),
        ("sweep.yaml", SPEC.to_yaml().replace("val_qwk", "val_guess"), "should be 'val_qwk'"),
        ("best/metrics.json", "[]", "metrics.json"),
        ("best/predictions.csv", "split,image\n", "lacks the columns grade"),
        ("history.csv", "a\n", "history.csv"),
    ],
)
def test_a_damaged_file_is_named(copied: RunFolder, name: str, content: str, named: str) -> None:
    write_text(copied.root / name, content)
    if name.startswith("best/"):  # edited on purpose
        checksums.update(copied.best, [name.removeprefix("best/")])
    with pytest.raises(ResultsError, match=re.escape(named)):
        page.write(RunFolder(copied.root), {}, device=tiny_dataset.CPU)
    assert not (copied.root / "report.html.partial").exists()


def test_the_command_writes_it_wherever_it_is_wanted(
    copied: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copied.best)
    assert cli.main(["report", str(copied.root), "--out", str(tmp_path / "elsewhere.html")]) == 0
    assert "elsewhere.html" in capsys.readouterr().out
    assert read((tmp_path / "elsewhere.html").read_text()).find("h1")[0].words == "Sweep demo"
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is not the results folder of a sweep" in capsys.readouterr().err


@pytest.mark.parametrize("best", [BEST, None])
def test_a_page_that_cannot_be_made_is_said_and_fails_no_sweep(
    copied: RunFolder, best: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> Path:
        raise ZeroDivisionError("a defect\nof two lines")

    monkeypatch.setattr(page, "write", broken)
    result = SweepResult(best=best, ended_by="", interrupted=False)
    assert cli.commands._show_sweep(copied, result, "val_qwk") == (0 if best else 1)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text for text in warnings if "report.html" in text] == ["note: no report.html: a defect of two lines"]


def test_a_folder_is_no_page(copied: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(copied.root), "--out", "."]) == 2
    assert capsys.readouterr().err == ".: is a folder; --out takes a file\n"


def test_a_page_takes_the_place_of_nothing_but_a_page(copied: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {name: (copied.root / name).read_bytes() for name in ("trials.csv", "environment.json")}
    for name in tables:
        assert cli.main(["report", str(copied.root), "--out", str(copied.root / name)]) == 2
        assert f"{name}: exists and is not an earlier sweep's page, so it is not overwritten" in capsys.readouterr().err
    assert {name: (copied.root / name).read_bytes() for name in tables} == tables
    for _ in range(2):
        assert cli.main(["report", str(copied.root), "--out", str(copied.root / "mine.html")]) == 0


def test_the_templates_are_part_of_the_package() -> None:
    outcome = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    room = ROOT / "retina" / "report" / "page"
    listed = {file for pattern in outcome["retina.report.page"] for file in room.glob(pattern)}
    assert {file for file in room.rglob("*") if file.is_file() and file.suffix not in {".py", ".pyc"}} == listed
    assert json.dumps(sorted(file.name for file in listed)) == '["page.css", "page.html", "page.js"]'
