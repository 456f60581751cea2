"""Files of ours that were damaged or edited: each command names the file and what helps, or does without it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import interrupted_sweep
import pytest
import tiny_dataset
from damaged_run import DAMAGES, SPEC, changed, make, run_command, update_checksums

from retina.errors import ResultsError
from retina.evaluation import best_trial, comparison, ensemble
from retina.report import figures, page
from retina.results import environment
from retina.results.run_folder import RunFolder
from retina.sweep import api, ray_session
from retina.sweep import ray_backend as sweep_run
from retina.sweep.cluster import TrialResources

pytestmark = pytest.mark.usefixtures("_without_ray")
OF_A_SWEEP = [
    "sweep.yaml", "environment.json", "trials.csv", "history.csv", "study.db", "best/metrics.json",
    "best/predictions.csv", "best/together.json", "best/config.json", "trials/t0000/config.json",
]  # fmt: skip
OF_A_RUN = ["sweep.yaml", "environment.json", "trials.csv", "history.csv", "best/metrics.json", "best/predictions.csv"]
CASES = [("demo", name) for name in OF_A_SWEEP] + [("train", name) for name in OF_A_RUN]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all sweeps, made once: copy it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETINA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return make(tmp_path_factory.mktemp("damaged"))


@pytest.fixture
def where(made: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    shutil.copy(made.parent / "demo.yaml", tmp_path)
    return Path(shutil.copytree(made, tmp_path / "results"))


@pytest.fixture
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command reads is what is tested: it starts no Ray, trains, evaluates and paints nothing."""
    code = environment.code_version()

    @contextlib.contextmanager
    def connected(*_: Any, **__: Any) -> Iterator[None]:
        yield

    class Nothing:
        def fit(self) -> None:
            pass

    monkeypatch.setattr(environment, "code_version", lambda: code)
    monkeypatch.setattr(ray_session, "connected", connected)
    monkeypatch.setattr(ray_session, "trial_resources", lambda *_: TrialResources(1, 0))
    monkeypatch.setattr(ray_session, "slots", lambda *_: 1)
    monkeypatch.setattr(ray_session, "try_workers", lambda *_: None)
    monkeypatch.setattr(ray_session, "Nodes", interrupted_sweep.NoNodes)
    monkeypatch.setattr(ray_session, "run_on_node", lambda function, *_: function())
    monkeypatch.setattr(api, "read_manifest", lambda *_: None)
    monkeypatch.setattr(api, "prepare", lambda *_: tiny_dataset.photographs())
    monkeypatch.setattr(comparison, "prepare", lambda *_: tiny_dataset.photographs())
    monkeypatch.setattr(sweep_run, "_tuner", lambda *_, **__: Nothing())
    monkeypatch.setattr(best_trial, "evaluate_best_trial", lambda *_, **__: {})
    monkeypatch.setattr(ensemble, "try_build_ensemble", lambda *_, **__: {})
    monkeypatch.setattr(page, "render", lambda *_, **__: "")
    monkeypatch.setattr(figures, "draw_confusion_matrix", lambda *_, **__: None)
    monkeypatch.setattr(figures, "write", lambda _, file: file)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("sweep", "name"), CASES, ids=[f"{sweep}-{name}" for sweep, name in CASES])
def test_whatever_a_file_holds_a_command_answers(
    where: Path, capsys: pytest.CaptureFixture[str], sweep: str, name: str, damage: str
) -> None:
    DAMAGES[damage](where / sweep / name)
    for command in ("list", "report", "resume") if sweep == "demo" else ("show", "load"):
        before = interrupted_sweep.contents(where)
        result = run_command(command, where, capsys)
        assert result.code in {0, 1, 2}, result
        assert "Traceback" not in result.out + result.err
        assert 0 <= len(result.err.splitlines()) <= 3
        if command == "list":
            assert result.code == 0
            assert "good" in result.out
            assert "demo" in result.out
        if result.code == 2:
            # lost notes: it goes on by force; lost tables: all is trained anew, for which weights are absent here
            assert any(one in result.err for one in (name.rpartition("/")[2], "--force", "--weights"))
        after = interrupted_sweep.contents(where)
        assert before.keys() <= after.keys()  # nothing is lost
        assert not [path for path in after if "partial" in path]
        if command in {"list", "show"} or (command == "report" and result.code):
            assert {path: after[path] for path in before} == before


def test_what_is_whole_is_taken(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, code in {"list": 0, "report": 0, "resume": 0, "show": 0, "load": 0, "extend": 130}.items():
        assert run_command(command, where, capsys).code == code, command


def _line(number: int, change: Callable[[str], str]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        lines = text.splitlines(keepends=True)
        lines[number] = change(lines[number])
        return "".join(lines)

    return edit


def _json(**values: object) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **values})


def _cell(number: int, column: str, value: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        lines = [line.split(",") for line in text.splitlines()]
        lines[number][lines[0].index(column)] = value
        return "\n".join(map(",".join, lines)) + "\n"

    return edit


EDITS = [
    ("history.csv", _cell(2, "val_qwk", "x"), "line 3: val_qwk: 'x': should be a valid number"),
    ("history.csv", _cell(1, "epoch", "0"), "line 2: epoch: '0': should be greater than or equal to 1"),
    ("history.csv", _cell(1, "trial_id", "../../../evil"), "line 2: trial_id: '../../../evil': should be a trial's id"),
    ("history.csv", _line(1, lambda line: 2 * line), "line 3: trial_id t0000, epoch 1 is already in line 2"),
    ("history.csv", _line(3, lambda line: line[:20]), "line 4: has "),
    ("history.csv", _line(0, lambda line: line.replace("epoch", "epoche")), "lacks the columns epoch"),
    ("history.csv", _line(0, lambda line: line.replace(",train_qwk", ",epoch")), "lacks the columns train_qwk"),
    ("trials.csv", _cell(1, "trial_id", "../../../evil"), "line 2: trial_id: '../../../evil': should be a trial's id"),
    ("trials.csv", _cell(2, "trial_id", "t0000"), "line 3: trial_id t0000 is already in line 2"),
    ("trials.csv", _cell(2, "state", "DONE"), "line 3: state: 'DONE': should be 'COMPLETE'"),
    ("trials.csv", _cell(2, "arch", "resnet1001"), "line 3: arch: 'resnet1001': should be 'resnet18'"),
    ("trials.csv", _cell(2, "learning_rate", "-1"), "line 3: learning_rate: '-1': should be greater than 0"),
    ("trials.csv", _cell(2, "val_qwk", "7"), "line 3: val_qwk: '7': should be less than or equal to 1"),
    ("trials.csv", _cell(2, "best_epoch", "9"), "best_epoch 9 should be one of the 1 of epochs_run"),
    ("trials.csv", lambda text: text.replace(",", ";"), "lacks the columns trial_id"),
    ("environment.json", _json(seconds="long"), "seconds: 'long': should be a valid number"),
    ("environment.json", _json(started="yesterday"), "started: 'yesterday': "),
    ("environment.json", _json(data=[1]), "data: [1]: should hold keys and their values"),
    ("environment.json", _json(best="../x"), "best: '../x': should be a trial's id"),
    (
        "environment.json",
        lambda text: text.replace('"seconds":', '"seconds": NaN, "more":'),
        "NaN is not a JSON number",
    ),
    ("environment.json", lambda text: text.replace("{", '{"best": "t9999", ', 1), "the key 'best' is given twice"),
    ("environment.json", lambda text: text.replace("{", '{"more": 1e999, ', 1), "1e999 is not a JSON number"),
    (
        "sweep.yaml",
        lambda text: text.replace("eta: 3.0", "eta: 1.0000000001"),
        "early_stop.eta: 1.0000000001; allowed: 1.0001 and more",
    ),
    ("sweep.yaml", lambda text: text.replace("min: 0.0001", "min: 0"), "learning_rate: 0 should be greater than 0"),
    ("sweep.yaml", lambda text: text.replace("max: 0.01", "max: 0.0001"), "min 0.0001 is not below max 0.0001"),
    (
        "sweep.yaml",
        lambda text: text.replace("name: val_qwk", "name: loss"),
        "metric.name: 'loss': should be 'val_qwk'",
    ),
]


@pytest.mark.parametrize(
    ("name", "edit", "problem"), EDITS, ids=[f"{name}-{problem[:40]}" for name, _, problem in EDITS]
)
def test_an_edited_file_is_refused_by_line_and_column(
    where: Path, capsys: pytest.CaptureFixture[str], name: str, edit: Callable[[str], str], problem: str
) -> None:
    file = where / "demo" / name
    changed(file, edit)
    before = interrupted_sweep.contents(where)
    for command in ("report", "resume", "extend"):
        result = run_command(command, where, capsys)
        assert result.code == 2, result
        if not (name == "sweep.yaml" and command != "report"):  # there it is named with --space, and differs
            assert result.err.startswith(f"{file}: ")
            assert problem in result.err
        assert 1 <= len(result.err.splitlines()) <= 3
        assert interrupted_sweep.contents(where) == before
    listed = run_command("list", where, capsys)
    assert "unreadable: " in listed.out
    assert listed.code == 0
    assert not list(where.parent.parent.glob("evil*"))


METRICS = [
    ("metrics.json", _json(trial_id="../../x"), "trial_id: '../../x': should be a trial's id"),
    ("metrics.json", _json(test={"qwk": 3}), "test.qwk: 3: should be less than or equal to 1"),
    ("metrics.json", _json(test={"recall": [1]}), "test.recall: [1]: List should have at least 5 items"),
    ("metrics.json", _json(temperature=0), "temperature: 0: should be greater than 0"),
    ("metrics.json", _json(operating_point=3), "operating_point: 3: should hold keys and their values"),
    ("together.json", _json(better="all"), "better: 'all': should be 'single', 'ensemble' or 'soup'"),
    ("together.json", _json(single={"members": []}), "single.members: []: List should have at least 1 item"),
    ("predictions.csv", _cell(2, "grade", "5"), "line 3: grade: '5': should be less than 5"),
    ("predictions.csv", _cell(2, "p0", "nan"), "line 3: p0: 'nan': should be"),
    ("predictions.csv", _cell(2, "p0", "0.99999"), "line 3: p0 to p4 add up to "),
    ("predictions.csv", _cell(2, "split", "all"), "line 3: split: 'all': should be 'train', 'val' or 'test'"),
    ("predictions.csv", _line(1, lambda line: 2 * line), "line 3: split val, image val0 is already in line 2"),
]


@pytest.mark.parametrize(
    ("name", "edit", "problem"), METRICS, ids=[f"{name}-{problem[:30]}" for name, _, problem in METRICS]
)
def test_what_is_said_of_the_best_model_is_checked(
    where: Path, capsys: pytest.CaptureFixture[str], name: str, edit: Callable[[str], str], problem: str
) -> None:
    file = where / "demo" / "best" / name
    changed(file, edit)
    update_checksums(file.parent)
    result = run_command("report", where, capsys)
    assert result.code == 2
    assert result.err.startswith(f"{file}: ")
    assert problem in result.err
    assert "--resume evaluates the best trial again" in result.err
    shutil.rmtree(file.parent)
    assert run_command("resume", where, capsys).code in {
        0,
        2,
    }  # `evaluate_best_trial` is left out here: it has no figures to draw


def test_columns_that_somebody_added_are_kept(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = where / "demo" / "trials.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([f"{lines[0]},my notes", *(f'{line},"fine, I think"' for line in lines[1:])]) + "\n")
    before = file.read_text()
    assert run_command("report", where, capsys).code == 0
    folder = RunFolder.open(where / "demo")
    assert folder.flush()
    assert file.read_text() == before
    assert "my notes" not in folder.trials()


def test_a_row_that_lacks_a_setting_does_not_get_its_default(where: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(where / "demo" / "trials.csv", _cell(2, "dropout", ""))
    assert run_command("report", where, capsys).code == 0
    result = run_command("resume", where, capsys)
    assert result.code == 2
    assert "trials.csv: t0001: dropout: should not be empty" in result.err


@pytest.mark.parametrize("name", ["../../../evil", "/etc/passwd", "", ".", "..", "a/b", "a\\b", "t\n", "t" * 65, "t\0"])
def test_no_trial_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResultsError, match="should be a trial's id"):
        RunFolder(tmp_path).trial(name)


def test_an_extension_is_counted_from_what_the_sweep_has_when_its_turn_comes(
    where: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process extends the sweep while this one prepares the photographs."""
    root = where / "demo"

    def meanwhile(*_: object) -> None:
        interrupted_sweep.run(interrupted_sweep.go_on(root, SPEC, extend=2))

    monkeypatch.setattr(ray_session, "refuse_full_disk", meanwhile)
    assert run_command("extend", where, capsys).code == 130  # nothing is run here
    folder = RunFolder.open(root)
    assert len(folder.trial_ids()) == 6
    assert "trials: 7\n" in (root / "sweep.yaml").read_text()
