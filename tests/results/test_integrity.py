"""Damage of a run's or an exported model's files is refused by name; nothing that is not finite becomes a grade."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import safetensors.torch
import torch
from exported_model import TRIAL, World, copy, update_checksums, without_sums
from torch import nn

from retina import cli
from retina.errors import ModelOutputError, ResultsError
from retina.evaluation import best_trial, ensemble
from retina.export import folder, graphs
from retina.export.grader import build_grader
from retina.export.write import export
from retina.predict import predict
from retina.report import ensemble_results, figures
from retina.report.page import mistakes, run_data
from retina.report.terminal import best_model, list_sweeps
from retina.results import checksums, files
from retina.results.run_folder import RunFolder
from retina.sweep import train_plan

RUNTIMES = ["torch", "onnx"]
OF_RUNTIME = {"torch": "model.safetensors", "onnx": "model.onnx"}


def refusal(action: Any, *arguments: Any, kind: type[Exception] = ResultsError, **named: Any) -> str:
    with pytest.raises(kind) as caught:
        action(*arguments, **named)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def damage(file: Path, rng: np.random.Generator) -> None:
    """Change one byte, cut the file short, or take it away."""
    content = bytearray(file.read_bytes())
    at, way = int(rng.integers(len(content))), rng.integers(5)
    if way == 0:
        file.unlink()
        return
    if way == 1:
        del content[at:]
    else:
        content[at] ^= 1 << int(rng.integers(8))
    files.write_bytes(file, bytes(content))  # by another name: the original may be linked


def graded(folder: Path, paths: list[Path], runtime: Any) -> tuple[list[int], str]:
    """The grades, or what is said instead."""
    try:
        return predict(folder, paths, runtime=runtime, device="cpu")["grade"].tolist(), ""
    except ResultsError as error:
        return [], str(error)


def altered(state: dict[str, torch.Tensor], seed: int = 0) -> dict[str, torch.Tensor]:
    """200,000 bytes of the weights overwritten with finite values."""
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(seed))
    name = "layer3.0.conv2.weight"
    changed = state[name].flatten().clone()
    changed[:50_000] = values
    return {**state, name: changed.view_as(state[name])}


def huge(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Finite weights whose outputs are not."""
    return {**state, **{name: state[name] * 1e30 for name in ("fc.3.weight", "fc.6.weight")}}


def save(state: dict[str, torch.Tensor], file: Path) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    files.write_bytes(file, content.getvalue())


# --- the exported folder ---


def test_every_file_is_listed(world: World) -> None:
    for written in (world.exported, world.run / "best"):
        names = {file.name for file in written.iterdir()} - {checksums.SUMS}
        assert set(checksums.read_sums(written) or {}) == names
        assert checksums.verify(written, names, "")
    assert set(checksums.read_sums(world.exported) or {}) == set(folder.LISTED)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_damage_anywhere_is_an_error_or_changes_no_grade(world: World, tmp_path: Path, runtime: Any) -> None:
    rng = np.random.default_rng(1)
    paths = world.paths[1:3]
    grades = predict(world.exported, paths, runtime=runtime, device="cpu")["grade"].tolist()
    used = {"config.json", "preprocess.json", OF_RUNTIME[runtime], checksums.SUMS}
    for number, name in enumerate(sorted(folder.FILES) * 2):
        mine = copy(world.exported, tmp_path / f"m{number}")
        damage(mine / name, rng)
        found, said = graded(mine, paths, runtime)
        if name in used - {checksums.SUMS}:
            assert name in said
        elif said:  # a damaged list vouches for fewer files; lines of those that are not used are not looked at
            assert name == checksums.SUMS
            assert checksums.SUMS in said
        else:
            assert found == grades


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_list_that_is_gone_is_missed(exported: Path, world: World, runtime: Any) -> None:
    (exported / checksums.SUMS).unlink()
    message = refusal(predict, exported, world.paths[:1], runtime=runtime)
    assert "SHA256SUMS: is missing" in message
    assert "retina export RUN" in message


def test_who_changes_a_file_on_purpose_enters_it(exported: Path, world: World) -> None:
    result = json.loads((exported / "config.json").read_text())
    result["operating_point"]["threshold"] = 0.0
    files.write_json(exported / "config.json", result)
    message = refusal(predict, exported, world.paths[:1])
    assert "config.json: was changed or damaged" in message
    assert "sha256sum *.* > SHA256SUMS" in message
    update_checksums(exported)
    assert predict(exported, world.paths[:2])["referable"].tolist() == [True, True]


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("config.json", {"temperature": 2.5}, "was written for another temperature than config.json has now"),
        (
            "preprocess.json",
            {"std": [0.5, 0.5, 0.5]},
            "was written for another preprocess than preprocess.json has now",
        ),
    ],
)
def test_a_graph_goes_with_its_descriptions(
    exported: Path, world: World, name: str, changed: dict[str, Any], said: str
) -> None:
    files.write_json(exported / name, {**json.loads((exported / name).read_text()), **changed})
    update_checksums(exported)
    assert said in refusal(predict, exported, world.paths[:1], runtime="onnx")


def of_layout_2(exported: Path) -> None:
    """Make it an export of retina 0.1.0."""
    (exported / checksums.SUMS).unlink()
    result = json.loads((exported / "config.json").read_text())
    for name in ("recorded", "recorded_difference", "verified"):
        del result["check"][name]
    files.write_json(exported / "config.json", {**result, "export": 2})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_export_of_the_version_before_is_used_and_said_to_be_unverified(
    exported: Path, world: World, runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    of_layout_2(exported)
    arguments = ["predict", str(exported), str(world.paths[1]), "--runtime", runtime]
    assert cli.main(arguments) == 0
    assert f"note: {exported} has no SHA256SUMS" in capsys.readouterr().out


def test_a_graph_that_no_sum_vouches_for_has_finite_weights(exported: Path, world: World) -> None:
    of_layout_2(exported)
    graph = onnx.load(exported / "model.onnx")
    weights = next(one for one in graph.graph.initializer if "layer2.0.conv1.weight" in one.name)
    weights.raw_data = weights.raw_data[:400] + np.full(100, np.nan, np.float32).tobytes() + weights.raw_data[800:]
    files.write_bytes(exported / "model.onnx", graph.SerializeToString())
    message = refusal(predict, exported, world.paths[1:3], runtime="onnx")
    assert f"model.onnx: {weights.name} is not finite" in message


# --- outputs that are not finite ---


@pytest.fixture
def overflowing(world: World, exported: Path) -> Path:
    """An export of the version before, whose weights are finite and overflow on every photograph."""
    of_layout_2(exported)
    state = huge(safetensors.torch.load_file(exported / "model.safetensors"))
    (exported / "model.safetensors").unlink()
    safetensors.torch.save_file(state, exported / "model.safetensors")
    return exported


def test_what_overflows_gets_no_grade_and_a_named_problem(
    world: World, overflowing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", str(overflowing), *map(str, world.paths[1:4]), "--runtime", "torch"]
    assert cli.main([*arguments, "--csv", str(tmp_path / "g.csv"), "--json", str(tmp_path / "g.json")]) == 1
    assert "3 of 3 photographs got no grade" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "g.csv")
    assert table["problem"].str.contains("no grade: the model's output is not finite").all()
    assert table[["grade", "name", "p0", "p4", "referable_score", "referable"]].isna().all(axis=None)
    result = json.loads((tmp_path / "g.json").read_text())
    assert [(one["grade"], one["referable"]) for one in result] == [(None, None)] * 3


def test_who_gets_a_grade_makes_the_run_worth_its_while(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retina.predict import runtime as runtimes

    opened = runtimes.open_runtime

    def some(*arguments: Any) -> runtimes.Runtime:
        ask = opened(*arguments)

        def run(images: runtimes.Images) -> runtimes.ModelOutputs:
            probabilities, grades, scores = ask(images)
            probabilities[1], scores[1] = np.nan, np.nan
            return probabilities, grades, scores

        return run

    monkeypatch.setattr("retina.predict.grade.open_runtime", some)
    assert cli.main(["predict", str(world.exported), *map(str, world.paths[1:4])]) == 0
    assert "1 of 3 photographs got no grade" in capsys.readouterr().out
    frame = predict(world.exported, world.paths[1:4])
    assert frame["grade"].isna().tolist() == frame["referable"].isna().tolist() == [False, True, False]


def test_photographs_of_which_none_can_be_read_are_a_failure(world: World, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photograph")
    assert cli.main(["predict", str(world.exported), str(tmp_path / "bad.jpg"), "--on-bad", "skip"]) == 1


def test_the_graph_gives_no_grade_either(world: World) -> None:
    class Broken(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.reading = net, net.reading

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raw: torch.Tensor = self.net(images)
            bad = images.mean(dim=(1, 2, 3)) > 0
            return torch.where(bad[:, None], torch.inf, raw)

    from onnxruntime import InferenceSession

    from retina.export.grader import Grader
    from retina.metrics.probabilities import find_problems
    from retina.training.losses import OutputDecoder

    class Mean(nn.Module):
        reading = OutputDecoder("mse")

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(1, 2, 3))[:, None]

    grader = Grader(Broken(Mean())).eval().requires_grad_(False)
    images = torch.stack([torch.full((3, 8, 8), value) for value in (-1.0, 1.0, -2.0)])
    session = InferenceSession(graphs.serialize_onnx(graphs.export_program(grader, 8), {}))
    found = session.run(None, {"images": images.numpy()})
    assert found[1].tolist() == [0, -1, 0]
    assert [bool(one) for one in find_problems(*found)] == [False, True, False]


# --- best/ ---


@pytest.mark.usefixtures("_stub_graphs")
def test_damage_anywhere_in_best_is_an_error_or_exports_the_same(world: World, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    names = sorted(file.name for file in (world.run / "best").iterdir())
    for number, name in enumerate(names * 2):
        run = copy(world.run, tmp_path / f"r{number}", "export")
        damage(run / "best" / name, rng)
        message = refusal(export, run)
        assert "best/" in message or "no finished sweep" in message
        assert name in message or checksums.SUMS in message or name == checksums.SUMS
        assert not (run / "export").exists()


def test_finite_values_in_the_weights_are_refused_also_without_sums(run: Path) -> None:
    file = run / "best" / "model.pt"
    save(altered(torch.load(file, weights_only=True)), file)
    assert "model.pt: was changed or damaged" in refusal(export, run)
    update_checksums(run / "best")
    for _ in range(2):  # with sums that somebody has made anew, and with none
        message = refusal(export, run)
        assert "best/model.pt: its probabilities are not those in" in message
        assert "--resume" in message
        if (run / "best" / checksums.SUMS).exists():
            without_sums(run / "best")
    assert not (run / "export").exists()


@pytest.mark.usefixtures("_stub_graphs")
def test_a_run_of_the_version_before_is_exported_and_said_to_be_unverified(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_sums(run / "best")
    assert cli.main(["export", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"note: {run / 'best'} has no SHA256SUMS" in said
    assert "the run's files have no checksums" in said
    assert "the run's files have no checksums" in (run / "export" / "MODEL_CARD.md").read_text()


def test_an_export_says_how_near_it_is_to_the_predictions(world: World) -> None:
    agreement = folder.read_export(world.exported).description.check
    assert agreement is not None
    assert agreement.verified
    assert agreement.recorded == len(world.paths) * 2 // 3 or agreement.recorded >= 8
    assert agreement.recorded_difference is not None
    assert agreement.recorded_difference < 1e-4
    assert f"on {agreement.recorded} photographs" in (world.exported / "MODEL_CARD.md").read_text()


def test_sums_that_are_gone_are_missed(run: Path) -> None:
    (run / "best" / checksums.SUMS).unlink()
    assert "SHA256SUMS: is missing" in refusal(export, run)


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv"])
def test_no_page_is_made_of_damaged_files(run: Path, name: str) -> None:
    files.write_json(run / "sweep.yaml", {**files.read_json(run / "sweep.yaml"), "metric": METRIC, "trials": 2})
    mine = RunFolder.open(run)
    assert run_data.read(mine).best is not None
    content = bytearray((run / "best" / name).read_bytes())
    content[-9] ^= 1
    files.write_bytes(run / "best" / name, bytes(content))
    assert f"{name}: was changed or damaged" in refusal(run_data.read, mine)
    (run / "best" / name).unlink()
    assert f"{name}: is missing" in refusal(run_data.read, mine)


METRIC = {"name": "val_qwk", "goal": "maximize"}


def test_no_table_and_no_figure_is_made_of_damaged_numbers(run: Path) -> None:
    result = (run / "best" / "metrics.json").read_text()
    files.write_text(run / "best" / "metrics.json", result.replace('"qwk": 0.', '"qwk": 0.9', 1))
    mine = RunFolder.open(run)
    for door in (best_model.render, figures.draw):
        assert "metrics.json: was changed or damaged" in refusal(door, mine)
    files.write_json(run / "sweep.yaml", {**files.read_json(run / "sweep.yaml"), "metric": METRIC, "trials": 2})
    mine.update_metadata(started="2026-01-01T00:00:00+00:00")
    (listed,) = list_sweeps.read_summaries(run.parent)
    assert listed.state.startswith("unreadable: best/metrics.json: was changed or damaged")


def test_figures_enter_themselves(run: Path) -> None:
    mine = RunFolder.open(run)
    for epoch in (1, 2):
        mine.record_epoch(TRIAL, epoch, val_accuracy=0.5, train_accuracy=0.5)
    mine.flush()
    drawn = {file.name for file in figures.draw(mine)}
    assert drawn < set(checksums.read_sums(mine.best) or {})
    assert checksums.verify(mine.best, drawn, "")


def test_an_ensemble_that_is_not_listed_or_gone_is_not_shown(run: Path) -> None:
    mine = RunFolder.open(run)
    files.write_json(mine.best / "together.json", {})
    assert "together.json: is not listed" in refusal(ensemble_results.read, mine, TRIAL)
    checksums.update(mine.best, ["together.json"])
    (mine.best / "together.json").unlink()
    assert "together.json: is missing" in refusal(ensemble_results.read, mine, TRIAL)


def test_no_pictures_are_made_of_damaged_weights(world: World, run: Path) -> None:
    file = run / "best" / "model.pt"
    save(altered(torch.load(file, weights_only=True)), file)
    files.write_json(run / "sweep.yaml", {**files.read_json(run / "sweep.yaml"), "metric": METRIC, "trials": 2})
    found = mistakes.find(run_data.read(RunFolder.open(run)))
    assert "model.pt: was changed or damaged" in found.problem


@pytest.mark.parametrize("name", [*best_trial.BEST_TRIAL_FILES, checksums.SUMS])
def test_a_run_whose_best_is_damaged_is_judged_again(run: Path, name: str) -> None:
    mine = RunFolder.open(run)
    assert train_plan.is_evaluated(mine, TRIAL)
    files.write_bytes(mine.best / name, (mine.best / name).read_bytes()[:-1] + b"x")
    assert not train_plan.is_evaluated(mine, TRIAL)


# --- trials' weights ---


def test_a_trial_whose_weights_are_damaged_is_not_crowned(world: World, run: Path) -> None:
    mine = RunFolder.open(run)
    own = mine.trial(TRIAL)
    checksums.write(own, ["model.pt", "config.json"])
    before = (mine.best / "metrics.json").read_bytes()
    save(altered(torch.load(own / "model.pt", weights_only=True)), own / "model.pt")
    for door in (best_trial.load_trial, lambda *given: best_trial.evaluate_best_trial(*given, world.data, "val_qwk")):
        message = refusal(door, mine, TRIAL)
        assert f"{TRIAL}/model.pt: was changed or damaged" in message
        assert f"{mine.best / 'model.pt'} is an undamaged copy of the weights: copy it there" in message
    assert (mine.best / "metrics.json").read_bytes() == before
    save(altered(torch.load(own / "model.pt", weights_only=True)), mine.best / "model.pt")
    assert "put a copy of the file back" in refusal(best_trial.load_trial, mine, TRIAL)


def test_a_winner_that_overflows_on_test_is_an_error_and_no_number(world: World, run: Path) -> None:
    mine = RunFolder.open(run)
    state = huge(torch.load(mine.trial(TRIAL) / "model.pt", weights_only=True))
    save(state, mine.trial(TRIAL) / "model.pt")
    before = sorted((mine.best / "SHA256SUMS").read_text())
    message = refusal(best_trial.evaluate_best_trial, mine, TRIAL, world.data, "val_qwk", kind=ModelOutputError)
    assert message.startswith(f"trial {TRIAL}: the model's output is not finite on ")
    assert ModelOutputError.exit_code == 1
    assert sorted((mine.best / "SHA256SUMS").read_text()) == before


def test_a_winner_takes_away_what_was_made_of_the_one_before(world: World, run: Path) -> None:
    mine = RunFolder.open(run)
    for name in (ensemble.ENSEMBLE_FILE, "accuracy.png"):
        (mine.best / name).write_text("{}")
    (mine.best / "notes.txt").write_text("mine")
    checksums.update(mine.best, [ensemble.ENSEMBLE_FILE, "accuracy.png"])
    (mine.trial(TRIAL) / "model.pt").replace(mine.root / "aside.pt")
    files.copy_file(mine.root / "aside.pt", mine.trial(TRIAL) / "model.pt")
    best_trial.evaluate_best_trial(mine, TRIAL, world.data, "val_qwk")
    assert {file.name for file in mine.best.iterdir()} == {*best_trial.BEST_TRIAL_FILES, checksums.SUMS, "notes.txt"}
    assert checksums.verify_best(mine.best, *best_trial.BEST_TRIAL_FILES)


def test_weights_whose_cut_points_are_damaged_are_refused(world: World) -> None:
    from exported_model import CONFIG

    from retina.training import model

    settings = CONFIG.model_copy(update={"loss": "mse"})
    state = model.build(settings, 64).state_dict()
    build_grader(settings, 64, dict(state), Path("model.pt"))
    state["reading.cutpoints"] = state["reading.cutpoints"].flip(0)
    assert "model.pt: its cut-points are" in refusal(build_grader, settings, 64, dict(state), Path("model.pt"))
