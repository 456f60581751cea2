"""Text of others is no formula and no control character, and photographs have no reader but their owner."""

import io
import logging
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.table import Table

from retina import cli
from retina.cli.console import Lines, PrintableConsole
from retina.data.manifest import BadRow
from retina.errors import first_line, one_line
from retina.predict import write_csv, write_json
from retina.results import files, run_folder
from retina.results.run_folder import RunFolder
from retina.system import spreadsheet
from retina.system.file_modes import make_private_folder
from retina.system.printable import printable, truncate

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\r\n\x00x"
FORMULAS = ["=1+1", "+SUM(A1)", "-cmd|' /C calc'!A0", "@x", "\t=1", " =1", "'=1", '"=1', "\uff1d1", "\r=1", "=a\rb"]
TEXTS = st.text(alphabet=st.sampled_from(list("=+-@'\"\t\r\n ,;a1.e\uff1d")), max_size=8)


def safe(cell: str) -> bool:
    """Whether a spreadsheet takes a cell, as its reader gives it, for text or for a number."""
    try:
        float(cell)
    except ValueError:
        return cell.strip().strip("\"'\ufeff").strip()[:1] not in set("=+-@\uff1d") or cell.startswith("'")
    return True


@given(text=TEXTS)
@settings(deadline=None)
def test_no_text_is_a_formula_and_each_is_read_back(text: str) -> None:
    assert safe(spreadsheet.escape_formula(text))
    assert spreadsheet.unescape_formula(spreadsheet.escape_formula(text)) == text


@pytest.mark.parametrize("number", ["-0.5", "+1", "-1e-5", ".5", "12"])
def test_numbers_stay_numbers(number: str) -> None:
    assert spreadsheet.escape_formula(number) == number
    assert spreadsheet.escape_formula(float(number)) == float(number)


@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
@settings(deadline=None)
def test_a_table_is_read_back_as_it_was(texts: list[str]) -> None:
    frame = pd.DataFrame({"image": texts, "p0": -0.5})
    written = spreadsheet.to_csv(frame)
    again = pd.read_csv(io.StringIO(written, newline=""), keep_default_na=False, dtype={"image": str})
    assert all(safe(cell) for cell in again["image"])
    pd.testing.assert_frame_equal(spreadsheet.unescape_frame(again), frame, check_dtype=False)


def test_the_tables_of_a_results_folder_are_read_back(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    for place, formula in enumerate(FORMULAS):
        folder.record_trial(f"t{place:04d}", state="FAIL", reason=formula, val_qwk=-0.5, **CONFIG)
    result = pd.read_csv(folder.root / "trials.csv", dtype=str, keep_default_na=False)
    assert all(safe(cell) for cell in result["reason"])
    assert set(result["val_qwk"]) == {"-0.5"}
    files.write_text(folder.root / "sweep.yaml", "name: run\n")
    again = RunFolder.open(folder.root)
    for place, formula in enumerate(FORMULAS):
        # a carriage return is written as a line feed
        assert again.trial_row(f"t{place:04d}")["reason"] == formula.replace("\r", "\n")


CONFIG = run_folder.TrialConfig().model_dump(mode="json")


def test_the_grades_of_predict_hold_no_formula(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": FORMULAS, "grade": 1, "p0": -0.25})
    write_csv(frame, tmp_path / "grades.csv")
    result = pd.read_csv(tmp_path / "grades.csv", dtype=str, keep_default_na=False)
    assert all(safe(cell) for cell in result["image"])
    assert set(result["p0"]) == {"-0.25"}
    write_json(frame, tmp_path / "grades.json")
    assert [row["image"] for row in files.read_json(tmp_path / "grades.json")] == FORMULAS  # data stays exact


def raw(shown: str) -> set[str]:
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats, half characters, separators of lines
    return {one for one in shown if unicodedata.category(one) in kinds} - set("\n\u200c\u200d\u00ad")


@given(text=st.text())
@settings(deadline=None)
def test_what_is_printable_moves_and_hides_nothing(text: str) -> None:
    assert not raw(printable(text)) - {"\n"}
    assert "\n" not in printable(text)
    assert printable(printable(text)) == printable(text)


def test_words_and_signs_of_all_languages_stay() -> None:
    assert printable("Augenhintergrund Ø 眼底 عين 👁️ a b") == "Augenhintergrund Ø 眼底 عين 👁️ a b"


def test_no_control_character_is_printed_whatever_prints_it() -> None:
    shown = io.StringIO()
    console = PrintableConsole(file=shown, force_terminal=True, color_system=None, width=200, markup=False)
    table = Table(EVIL, title=EVIL, caption=EVIL)
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL)
    console.print(f"[red]{EVIL}")
    assert not raw(shown.getvalue())
    assert "\\x1b[2J" in shown.getvalue()


def test_a_log_line_stays_a_line_whatever_name_it_tells() -> None:
    shown = io.StringIO()
    handler = Lines(PrintableConsole(file=shown, width=400, soft_wrap=True, markup=False, highlight=False))
    for argument in (EVIL, Path(EVIL.replace("\0", ""))):
        handler.emit(logging.makeLogRecord({"msg": "%s: cannot be read", "args": (argument,)}))
    assert len(shown.getvalue().splitlines()) == 2
    assert not raw(shown.getvalue())


def test_errors_and_usage_are_printed_without_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = EVIL.replace("\0", "")
    assert cli.main(["list", f"{tmp_path}/{name}"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["list", "x", f"--{name}"])
    file = tmp_path / "x.yaml"
    file.write_text('"\\e[2J": 1\nparameters: {epochs: {value: "\\e[2J\\u202e"}}\n')
    assert cli.main(["sweep", "--space", str(file), "--dry-run"]) == 2
    result = capsys.readouterr()
    assert not raw(result.out + result.err)
    assert "\\x1b[2J" in result.err


def test_a_trial_log_holds_none(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.log("t0000", f"warning: {EVIL}")
    assert not raw((folder.root / "trials" / "t0000" / "log.txt").read_text(encoding="utf-8"))


@pytest.fixture(params=[0, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_a_results_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "results" / "run")
    folder.log("t0000", "a line")
    folder.update_metadata(name="a")
    files.write_text(folder.best / "predictions.csv", "x")
    files.write_text(folder.root / "report.html", "x", is_private=True)
    assert mode(folder.root) == mode(folder.best) == mode(folder.root / "trials") == 0o700
    assert mode(folder.root / "report.html") == mode(folder.best / "predictions.csv") == 0o600
    assert all(mode(path) & 0o077 == 0 for path in folder.root.rglob("*") if path.is_dir())


@pytest.mark.usefixtures("umask")
def test_grades_and_pages_are_private_wherever_they_are_written(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": ["a"], "grade": 1})
    write_csv(frame, tmp_path / "a.csv")
    write_json(frame, tmp_path / "a.json")
    assert mode(tmp_path / "a.csv") == mode(tmp_path / "a.json") == 0o600


def test_a_mode_that_somebody_chose_stays(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.root.chmod(0o750)
    before = os.umask(0o022)
    try:
        files.write_text(folder.root / "a.txt", "x")
        files.write_text(folder.root / "b" / "a.txt", "x")
        report = folder.root / "report.html"
        report.write_text("x")
        report.chmod(0o640)
        files.write_text(report, "y", is_private=True)
        make_private_folder(folder.root, exist_ok=True)
    finally:
        os.umask(before)
    assert [mode(path) for path in (folder.root / "a.txt", folder.root / "b", report, folder.root)] == [
        0o640,
        0o750,
        0o640,
        0o750,
    ]


@pytest.mark.usefixtures("umask")
def test_decoded_photographs_are_their_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retina.config import DataConfig
    from retina.data.dataset import prepare

    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "cache"))
    for grade in range(5):
        (tmp_path / "data" / str(grade)).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((32, 32, 3), 40 * grade + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / str(grade) / f"{number}.png")
    prepared = prepare(DataConfig(path=str(tmp_path / "data"), image_size=32))
    assert mode(tmp_path / "cache") == mode(prepared.pixels_file.parent) == 0o700


@given(name=st.text(min_size=1, max_size=20))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_argument_is_answered_printable(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit):
        cli.main(["predict", "a", "b", "--runtime", f"x{name}"])
    result = capsys.readouterr()
    assert not raw(result.err)


def test_what_a_library_says_is_cut_to_a_line_and_is_never_nothing() -> None:
    several = ValueError("\n  one\ttwo\n\nthree ")
    assert (one_line(several), one_line(several, 5), first_line(several)) == ("one two three", "one t", "one\ttwo")
    silent = [one_line(KeyError()), first_line(KeyError()), one_line(OSError("\n"))]
    assert silent == ["KeyError", "KeyError", "OSError"]
    assert (truncate("x" * 60, 60), truncate("x" * 61, 60)) == ("x" * 60, "x" * 57 + "...")


def test_an_error_about_a_photograph_keeps_to_its_line() -> None:
    assert str(BadRow("labels.csv:3", "a\nb\x1b[2J.png", "is not there")) == (
        "labels.csv:3: a\\nb\\x1b[2J.png: is not there"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "--space", ""],
        ["sweep", "--space", "x.yaml", "--results", " "],
        ["sweep", "--space", "x.yaml", "--weights", ""],
        ["train", "--results", ""],
        ["train", "--name", ""],
        ["train", "--name", "../x"],
        ["list", ""],
        ["report", ""],
        ["export", "x", "--out", ""],
        ["predict", "", "a.png"],
        ["predict", "x", "a.png", "--csv", ""],
        ["data", "audit", ""],
        ["data", "prepare", ""],
        ["train", "--data", ""],
    ],
)
def test_an_empty_argument_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 3
    assert not list(tmp_path.iterdir())
