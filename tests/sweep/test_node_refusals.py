"""A worker whose node lacks what all trials need refuses its trial: it is put back, the sweep stops. No Ray."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from interrupted_sweep import begun, spec_of
from learning_curves import Replay, ReplayTask

from retina.config import TrialConfig
from retina.errors import DataError, DiskError
from retina.sweep.nodes import marked
from retina.sweep.requirements import NodeRequirements
from retina.sweep.trainable import GraderTrainable, TrainableSettings
from retina.sweep.trial_report import TrialReport, from_tune
from retina.sweep.tune_hooks import BudgetStopper, LedgerCallback


@dataclasses.dataclass(frozen=True)
class Elsewhere(ReplayTask):
    """The photographs cannot be had there."""

    error: Exception = dataclasses.field(default_factory=Exception)

    def __call__(self, config: TrialConfig) -> Replay:
        raise self.error


class Logging(ReplayTask):
    """Logs as the training code does."""

    def __call__(self, config: TrialConfig) -> Replay:
        logging.getLogger("retina.training.trainer").warning("a word")
        return super().__call__(config)


def report_in(result: dict[str, Any]) -> TrialReport:
    """The report in what a step gives Tune."""
    report = from_tune(result)
    assert report
    return report


def worker(root: Path, needs: NodeRequirements, task: ReplayTask) -> GraderTrainable:
    (root / "trials").mkdir(exist_ok=True)
    settings = TrainableSettings(
        root / "trials", "val_qwk", sign=1, threads=1, gpu=False, rungs=frozenset(), needs=needs
    )
    trial = GraderTrainable.__new__(GraderTrainable)  # Tune's own __init__ wants a session
    config = TrialConfig(pretrained=False, epochs=6).model_dump(mode="json")
    trial.setup({"trial": "t0000", "config": config}, task, settings)
    return trial


def test_a_worker_without_the_versions_refuses_its_first_epoch(tmp_path: Path) -> None:
    with marked(tmp_path) as needs:
        other = dataclasses.replace(needs, versions={**needs.versions, "torch": "1.0"})
        result = worker(tmp_path, other, ReplayTask()).step()
    report = report_in(result)
    assert report.refusal.startswith("node ")
    assert ", not 1.0 as the driver;" in report.refusal
    assert result["done"]
    assert not report.finished
    assert list((tmp_path / "trials").iterdir()) == []


def test_a_results_folder_that_goes_away_is_not_made_anew_for_a_checkpoint(tmp_path: Path) -> None:
    with marked(tmp_path / "results") as needs:
        trial = worker(tmp_path / "results", needs, ReplayTask())
        assert report_in(trial.step()).refusal == ""
        needs.marker.unlink()
        (tmp_path / "results").rename(tmp_path / "elsewhere")
        assert "is not the driver's results folder there" in report_in(trial.step()).refusal
        trial.cleanup()
    assert not (tmp_path / "results").exists()


def test_a_log_that_cannot_be_written_to_fails_no_trial(tmp_path: Path) -> None:
    with marked(tmp_path) as needs:
        log = tmp_path / "trials" / "t0000" / "log.txt"
        log.mkdir(parents=True)  # stands for a full disk: it cannot be opened
        trial = worker(tmp_path, needs, Logging())
        report = report_in(trial.step())
        trial.cleanup()
    assert report.failure == ""
    assert report.epoch == 1


def test_a_results_folder_that_goes_away_is_not_made_anew_for_a_log(tmp_path: Path) -> None:
    with marked(tmp_path / "results") as needs:
        trial = worker(tmp_path / "results", needs, Logging())
        needs.marker.unlink()
        (tmp_path / "results").rename(tmp_path / "elsewhere")
        assert "is not the driver's results folder there" in report_in(trial.step()).refusal
        trial.cleanup()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "error", [DataError("/data holds other photographs"), DiskError("/cache: photographs cannot be decoded into it")]
)
def test_photographs_that_cannot_be_had_are_refused_and_do_not_fail_the_trial(tmp_path: Path, error: Exception) -> None:
    with marked(tmp_path) as needs:
        report = report_in(worker(tmp_path, needs, Elsewhere(error=error)).step())
    assert report.refusal.endswith(f": {error}")


def test_a_refused_trial_is_put_back_and_the_sweep_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = begun(tmp_path / "x", spec_of())
    refusals: list[str] = []
    recorder, limits = LedgerCallback(ledger, refusals), BudgetStopper(ledger, refusals)
    name, config = ledger.ask()
    trial: Any = SimpleNamespace(config={"trial": name, "config": config.model_dump(mode="json")}, last_result={})
    assert not limits.stop_all()
    recorder.on_trial_start(0, [trial], trial)
    recorder.on_trial_result(0, [trial], trial, TrialReport(failure="no", refusal="node b: no").to_tune())
    recorder.on_trial_complete(0, [trial], trial)
    assert refusals == ["node b: no"]
    assert limits.stop_all()
    assert ledger.close() == ""
    assert ledger.folder.trial_row(name)["state"] == "RUNNING"  # it is left for --resume
    assert ledger.ask() == (name, config)
