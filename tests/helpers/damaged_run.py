"""A results folder with a finished sweep, a copy of it and a finished `retina train`; functions that damage files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import interrupted_sweep
import prediction_tables
import pytest
import tiny_dataset

from retina import cli
from retina.config import TrialConfig
from retina.evaluation import best_trial
from retina.metrics import summary
from retina.results import checksums, environment, files
from retina.results.run_folder import RunFolder
from retina.sweep import train_plan

SPEC = interrupted_sweep.spec_of(name="demo", data=tiny_dataset.DATA.model_copy(update={"layout": "synthetic"}))
LISTED = ["metrics.json", "predictions.csv", "config.json", "together.json"]
TRAIN = ["--data", "synthetic", "--image-size", "16", "-e", "1", "--name", "train"]


@dataclass
class CommandOutput:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def make(home: Path) -> Path:
    """Create `home`/results with "demo", "train" and "good", and the sweep file `home`/demo.yaml."""
    where = home / "results"
    folder = interrupted_sweep.ran(where / "demo", SPEC, number=None)
    best = folder.ranking("val_qwk", 1)[0]
    config = TrialConfig(**{name: folder.trial_row(best)[name] for name in TrialConfig.model_fields})
    write_best(folder, best, config)
    folder.update_metadata(interrupted=False, best=best)
    (home / "demo.yaml").write_text(SPEC.to_yaml())
    shutil.copytree(where / "demo", where / "good")
    plan = train_plan.create_plan(
        where / "train",
        {"epochs": 1, "batch_size": 4},
        {"path": "synthetic", "image_size": 16},
        pretrained=(True, False),
    )
    environment.create_run_folder(plan.root, tiny_dataset.photographs(), plan.spec().to_yaml())
    _, folder, ledger = train_plan.open_ledger(plan, plan.spec(), tiny_dataset.photographs())
    measures = dict.fromkeys(("val_qwk", "val_accuracy", "train_accuracy", "test_accuracy"), 0.5)
    for _ in plan.configs:
        name, _config = ledger.ask()
        ledger.epoch(name, 1, {**measures, "seconds": 1.0, "images_per_second": 9.0})
        ledger.end(name, "COMPLETE", "")
    ledger.close()
    write_best(folder, "t0000", plan.configs[0])
    folder.update_metadata(interrupted=False, best="t0000")
    return where


def write_best(folder: RunFolder, trial_id: str, config: TrialConfig) -> None:
    frame = prediction_tables.predictions(patients=8)
    splits = summary.summarize(frame, resamples=10)
    metrics = {"trial_id": trial_id, "epoch": 1, "chosen_by": "val_qwk", **splits}
    single = {"members": [trial_id], "val": splits["val"], "test": splits["test"]}
    files.write_json(folder.best / "metrics.json", metrics)
    files.write_frame(folder.best / "predictions.csv", frame)
    files.write_json(folder.best / "config.json", best_trial.model_config(config, tiny_dataset.photographs()))
    ensemble = {**single, "members": [trial_id, "t0001"]}
    comparison = {"metric": "val_qwk", "single": single, "ensemble": ensemble, "soup": single, "better": "single"}
    files.write_json(folder.best / "together.json", comparison)
    checksums.write(folder.best, LISTED)


def update_checksums(best: Path) -> None:
    """Write the checksums of the current files of best/, as after a deliberate edit."""
    checksums.write(best, [name for name in LISTED if (best / name).is_file()])


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "list": lambda where: ["list", str(where)],
    "report": lambda where: ["report", str(where / "demo")],
    "resume": lambda where: [
        "sweep", "--space", str(where.parent / "demo.yaml"), "--results", str(where), "--resume",
    ],
    "extend": lambda where: [
        "sweep", "--space", str(where.parent / "demo.yaml"), "--results", str(where), "--extend", "1",
    ],
    "load": lambda where: ["train", "-l", "1", *TRAIN, "--results", str(where)],
    "show": lambda where: ["train", "-s", "1", *TRAIN, "--results", str(where)],
}  # fmt: skip


def run_command(command: str, where: Path, capsys: pytest.CaptureFixture[str]) -> CommandOutput:
    """Run a command in this process; it must not raise."""
    capsys.readouterr()
    code = cli.main(COMMANDS[command](where))
    return CommandOutput(code, *capsys.readouterr())


def changed(file: Path, change: Callable[[str], str]) -> None:
    """Edit a text file with a function that must change it."""
    before = file.read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    file.write_text(after, encoding="utf-8")


def _cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda file: file.write_bytes(b"") and None,
    "cut off": _cut,
    "NUL bytes": lambda file: file.write_bytes(file.read_bytes()[:200] + b"\0" * 300) and None,
    "not text": lambda file: file.write_bytes(b"\xff\xfe\x00\x80" * 40) and None,
    "other text": lambda file: file.write_text("dear diary,\n1,2,3\n\n[") and None,
    "a list": lambda file: file.write_text("[1, [2, 3]]\n") and None,
    "deep": lambda file: file.write_text("[" * 50_000) and None,
    "gone": lambda file: file.unlink(),
    "a directory": _directory,
    "a link to nothing": _dangling,
}
