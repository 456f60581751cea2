"""Tells the results folder what happens, as it happens, and knows when a sweep has had enough."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs
from ray.tune import Callback, Checkpoint, Stopper
from ray.tune.experiment import Trial

from retina.results import HISTORY_COLUMNS, MEASURES, RunFolder, write_json, write_text
from retina.sweep import space
from retina.sweep.search import BEST, EPOCH, settle_study, verdict
from retina.sweep.spec import SweepSpec
from retina.sweep.trial import WEIGHTS_FILE

log = logging.getLogger(__name__)

QUIET_SECONDS = 15.0
"""After so long without a word, an epoch is told of too."""


class Recorder(Callback):
    """Writes the tables, each trial's own files, and the weights of the few trials that are kept.

    Tune pickles it when a sweep starts and takes it up again on `--resume`; what it knows is in the results folder, so
    that is all it takes along.
    """

    _best: float | None

    def __init__(self, root: Path, spec: SweepSpec) -> None:
        self._root, self._spec = root, spec
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {"_root": self._root, "_spec": self._spec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial begins, or begins again."""
        name, config = trial.config["trial"], trial.config["config"]
        self._folder.record_trial(name, state="RUNNING", reason=None, **config)
        write_json(self._folder.trial(name) / "config.json", config)
        varied = {key: value for key, value in config.items() if self._is_searched(key, config)}
        settings = ", ".join(f"{key} {_short(value)}" for key, value in varied.items())
        self._folder.log(name, f"started: {settings}")
        self._say(name, "started", settings)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """An epoch is over, or the trial has failed."""
        name = trial.config["trial"]
        if result.get("failure") or "seconds" not in result:
            return  # no epoch was trained
        if result["should_checkpoint"]:
            self._saving.add(name)
        measures = {key: result.get(key) for key in HISTORY_COLUMNS if key in result and key not in {"trial_id", EPOCH}}
        self._folder.record_epoch(name, result[EPOCH], **measures)
        changed: dict[str, Any] = {"epochs_run": result[EPOCH], "best_epoch": result["best_epoch"]}
        epochs = self._folder.epochs(name)
        best = [one for one in epochs if one["epoch"] == result["best_epoch"]]
        changed.update({key: best[0].get(key) for key in MEASURES if best})
        changed["seconds"] = sum(one["seconds"] for one in epochs)
        changed["images_per_second"] = sum(one["images_per_second"] for one in epochs) / len(epochs)
        self._folder.record_trial(name, **changed)
        epoch = f"epoch {result[EPOCH]} of {trial.config['config']['epochs']}"
        told = "  ".join(f"{key} {_short(value)}" for key, value in measures.items() if value is not None)
        self._folder.log(name, f"{epoch}: {told}")
        if time.monotonic() - self._spoken > QUIET_SECONDS:
            metric = self._spec.metric.name
            speed = f"{result['images_per_second']:.0f} images/s"
            self._say(name, "running", f"{epoch}: {metric} {_short(result[metric])}, {speed}")

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Checkpoint, **_: Any
    ) -> None:
        """The weights of a trial's best epoch so far are saved."""
        self._saving.discard(trial.config["trial"])
        self._checkpoints[trial.config["trial"]] = checkpoint

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial's worker has died and another takes over."""
        self._saving.discard(trial.config["trial"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial has run its epochs, was stopped at a rung, or has failed in a way that needs no second try."""
        state, reason = verdict(trial.last_result)
        self._end(trial, state, reason, trace=str(trial.last_result.get("traceback") or ""))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial's worker has died too often."""
        self._end(trial, "FAIL", "the worker died", trace=_error_text(trial))

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        """No trial runs any more. Those that a limit cut short end here: Tune tells neither us nor the study of them.

        Without a limit it was Ctrl-C; then they stay RUNNING, for `--resume` to go on with.
        """
        limit = self.ended_by() or self._folder.notes().get("ended_by", "")  # resumed after its end, it has ended still
        self._folder.note(ended_by=limit)
        if limit:
            for trial in trials:
                if self._folder.recorded(trial.config["trial"]).get("state") == "RUNNING":
                    self._cut_short(trial, f"stopped by {limit}")
            settle_study(self._root / "study.db", f"stopped by {limit}")
        self._folder.flush()

    @property
    def saving(self) -> bool:
        """Whether a trial's best epoch is on its way to the disk; a sweep that ended now would lose it."""
        return bool(self._saving)

    def ended_by(self) -> str:
        """Which of the spec's limits has been reached, in words; empty while none has."""
        budget, metric = self._spec.budget, self._spec.metric
        if budget.hours is not None and time.monotonic() - self._started >= budget.hours * 3600:
            return f"budget.hours={budget.hours:g}"
        if budget.max_failed is not None and len(self._failed) >= budget.max_failed:
            return f"budget.max_failed={budget.max_failed}"
        if metric.target is not None and self._best is not None and metric.sign * (self._best - metric.target) >= 0:
            return f"metric.target={metric.target:g}"
        return ""

    def note(self, result: Mapping[str, Any]) -> None:
        """Take the best value so far from a trial's result."""
        value, sign = result.get(BEST), self._spec.metric.sign
        if value is not None and math.isfinite(value) and (self._best is None or sign * value > sign * self._best):
            self._best = value

    def _open(self) -> None:
        self._folder = RunFolder.open(self._root)
        self._checkpoints: dict[str, Checkpoint] = {}
        self._saving: set[str] = set()
        self._spoken = time.monotonic()
        self._started = self._spoken - float(self._folder.notes().get("seconds", 0))
        trials = self._folder.trials()
        self._failed = set(trials.loc[trials["state"] == "FAIL", "trial_id"])
        ranking = self._folder.ranking(self._spec.metric.name, self._spec.metric.sign)
        self._best = float(self._folder.recorded(ranking[0])[self._spec.metric.name]) if ranking else None

    def _cut_short(self, trial: Trial, reason: str) -> None:
        if self._folder.epochs(trial.config["trial"]):
            self._end(trial, "PRUNED", reason)
        else:
            self._end(trial, "FAIL", f"{reason} before its first epoch was over")

    def _end(self, trial: Trial, state: str, reason: str, trace: str = "") -> None:
        name = trial.config["trial"]
        self._saving.discard(name)
        self._folder.record_trial(name, state=state, reason=reason or None)
        self._folder.log(name, f"{state}{': ' + reason if reason else ''}")
        if state == "FAIL":
            self._failed.add(name)
            write_text(self._folder.trial(name) / "error.txt", f"{reason}\n\n{trace}".rstrip() + "\n")
        try:
            self._keep_weights(trial)
        except OSError as error:  # a full disk must not turn what the trial has reached into a failure
            log.warning("%s  its weights could not be kept: %s", name, error)
        row = self._folder.recorded(name)
        metric = self._spec.metric.name
        score = f"{metric} {_short(row[metric])} at epoch {row['best_epoch']}" if metric in row else ""
        self._say(name, state, "; ".join(part for part in (score, reason) if part))

    def _say(self, name: str, what: str, more: str) -> None:
        log.info("%s  %-8s  %s", name, what, more)
        self._spoken = time.monotonic()

    def _keep_weights(self, trial: Trial) -> None:
        """Take an ended trial's weights along if it is among the best few; drop what is no longer."""
        name = trial.config["trial"]
        kept = set(self._folder.ranking(self._spec.metric.name, self._spec.metric.sign)[: self._spec.keep.trials])
        checkpoint = self._checkpoints.pop(name, None) or trial.checkpoint
        if checkpoint:
            if name in kept:
                _fetch(checkpoint, self._folder.trial(name) / WEIGHTS_FILE)
            _delete(checkpoint)
        for weights in (self._root / "trials").glob(f"*/{WEIGHTS_FILE}"):
            if weights.parent.name not in kept:
                weights.unlink()

    def _is_searched(self, key: str, config: Mapping[str, Any]) -> bool:
        parameter = self._spec.parameters.get(key)
        varies = parameter is not None and (parameter.distribution is not None or len(parameter.choices()) > 1)
        return varies and space.active(self._spec.parameters, key, config)


class Limits(Stopper):
    """Ends the sweep when the recorder says that a limit was reached."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Look at a result; a single trial is never stopped here."""
        self._recorder.note(result)
        return False

    def stop_all(self) -> bool:
        """Whether the sweep has had enough."""
        return bool(self._recorder.ended_by()) and not self._recorder.saving


def _fetch(checkpoint: Checkpoint, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    pyarrow.fs.copy_files(
        f"{checkpoint.path}/{WEIGHTS_FILE}",
        str(partial),
        source_filesystem=checkpoint.filesystem,
        destination_filesystem=pyarrow.fs.LocalFileSystem(),
    )
    partial.replace(target)


def _delete(checkpoint: Checkpoint) -> None:
    try:
        checkpoint.filesystem.delete_dir(checkpoint.path)
    except FileNotFoundError:
        log.debug("%s is gone already", checkpoint.path)


def _error_text(trial: Trial) -> str:
    file = trial.error_file
    return Path(file).read_text(encoding="utf-8") if file and Path(file).is_file() else ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
