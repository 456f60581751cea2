"""The record of a sweep: its Optuna study and its results folder, kept consistent. Imports no Ray.

Everything is written in an order that survives `kill -9` at any moment: the folder's tables first, the study second,
the weights last. `Ledger.open` makes the three consistent again before the sweep continues.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import optuna

from retina.config import TrialConfig, search_space
from retina.config.sweep import SweepSpec
from retina.errors import first_line
from retina.results import checkpoints
from retina.results.files import write_json, write_text
from retina.results.run_folder import FINISHED, HISTORY_COLUMNS, RunFolder
from retina.sweep import curve, restore, study_file
from retina.sweep.limits import limit_reached
from retina.sweep.reconcile import Reconciler
from retina.sweep.study import SweepStudy
from retina.sweep.study_file import STUDY_FILE
from retina.system.printable import failure_reason, printable

log = logging.getLogger(__name__)

NOTES = "environment.json"
TICK_SECONDS = 10.0
QUIET_SECONDS = 15.0
"""After so many seconds without a line in the log, the next epoch is logged too."""


class Ledger:
    """Hands out a sweep's trials, records their epochs and ends, and knows whether a limit of the sweep is reached.

    Attributes:
        spec: the sweep.
        folder: its results folder.
        logs_trials: log a line when a trial starts and ends, and an epoch now and then.
    """

    def __init__(self, spec: SweepSpec, folder: RunFolder, study: SweepStudy, *, keep_failed: bool = False) -> None:
        self.spec, self.folder, self._study = spec, folder, study
        self.logs_trials, self._keep_failed = True, keep_failed
        self._reconciler = Reconciler(spec, folder, study)
        self._pending_ends: dict[
            str, tuple[str, str]
        ] = {}  # ended trials that the study still has to record: state, reason
        self._has_weights: dict[str, bool] = {}  # of ended trials: whether model.pt is on the disk
        self._disk_is_full = False
        self._logged = self._noted = time.monotonic()
        self._started = self._logged - float(folder.metadata().get("seconds") or 0)

    @classmethod
    def create(cls, spec: SweepSpec, folder: RunFolder, *, keep_failed: bool = False) -> Ledger:
        """Open a sweep that begins or whose search space has changed: make a study and add the recorded trials to it.

        Args:
            spec: the sweep.
            folder: its results folder.
            keep_failed: keep the checkpoints of failed trials, so that `retry` continues from them.
        """
        tried = restore.recorded_configs(folder, spec.metric.name)
        database = folder.root / STUDY_FILE
        with study_file.storage_errors(database):
            ledger = cls(spec, folder, SweepStudy.create(spec, database, tried), keep_failed=keep_failed)
            for name, config in tried.items():
                if not ledger._reconciler.add_to_study(name, config):
                    log.info("%s  is outside the changed search space: the search does not learn from it", name)
            ledger._reconciler.retry_unsaved()
            folder.update_metadata(study=ledger._study.name)
            ledger._study.retire_others()
        ledger._settle_weights()
        return ledger

    @classmethod
    def open(cls, spec: SweepSpec, folder: RunFolder, *, keep_failed: bool = False) -> Ledger:
        """Open a sweep that was begun before; make a new study if its search space has changed.

        If the study is lost or damaged, a new one is made from the tables, which hold everything that it held. Rows
        that trials.csv has lost are restored from the study and the trials' folders. Both are logged.

        Args:
            spec: the sweep.
            folder: its results folder.
            keep_failed: keep the checkpoints of failed trials, so that `retry` continues from them.

        Raises:
            ResultsError: what is lost cannot be restored, or a file of the folder is damaged.
        """
        restore.remove_partials(folder)
        database = folder.root / STUDY_FILE
        problem, name = study_file.find_damage(database), folder.metadata().get("study")
        if not problem and database.exists():
            found = restore.study_with_trials(database) if name is None else name
            if found is None:  # killed before its first trial
                database.unlink()
                return cls.create(spec, folder, keep_failed=keep_failed)
            if found in SweepStudy.names(database):
                return cls._reopened(spec, folder, found, is_noted=name is not None, keep_failed=keep_failed)
            problem = f"holds no study {found!r}"
        restore.refuse_lost_tables(folder, problem)
        if problem or name is not None:
            aside = f", and is kept as {study_file.set_aside(database).name}" if problem else ""
            message = f"{problem or 'is missing'}{aside}; a new study is made from trials.csv and history.csv"
            is_new = name is None and not folder.trial_ids()  # killed while the study was made: it was empty
            log.log(logging.INFO if is_new else logging.WARNING, "note: %s: %s", database, message)
        return cls.create(spec, folder, keep_failed=keep_failed)

    @classmethod
    def _reopened(cls, spec: SweepSpec, folder: RunFolder, name: str, *, is_noted: bool, keep_failed: bool) -> Ledger:
        database = folder.root / STUDY_FILE
        if not is_noted:
            log.warning("note: %s does not name the study; %s holds %r, which is continued", NOTES, database, name)
            folder.update_metadata(study=name)
        with study_file.storage_errors(database):
            tried = restore.recorded_configs(folder, spec.metric.name)
            ledger = cls(spec, folder, SweepStudy.open(spec, database, name, tried), keep_failed=keep_failed)
            ledger._reconciler.restore_rows()
            restore.refuse_lost_tables(folder, "")
            if ledger._study.fits:  # else a new study is made, which gets all trials
                ledger._reconciler.add_unknown(tried)
            ledger._reconciler.compare_states()
            ledger._settle_weights()
            if not ledger._study.fits:
                return cls.create(spec, folder, keep_failed=keep_failed)
        return ledger

    @property
    def sign(self) -> int:
        """1 if the metric is maximized, -1 if it is minimized."""
        return self.spec.metric.sign

    @property
    def remaining(self) -> int:
        """Number of trials that have not ended, running ones included."""
        return max(0, self.spec.planned_trials - len(self.folder.trial_ids(*FINISHED)))

    @property
    def best(self) -> str | None:
        """Id of the best trial that has ended; None before the first has."""
        return next(iter(self.folder.ranking(self.spec.metric.name, self.sign)), None)

    @property
    def seconds(self) -> float:
        """Seconds that the sweep has run, without interruptions."""
        return time.monotonic() - self._started

    def values(self, name: str) -> dict[int, float]:
        """Return a trial's best value so far after each of its epochs, by epoch."""
        return curve.best_so_far(self.spec.metric, self.folder.epochs(name), self.folder.trial_row(name))

    def ask(self) -> tuple[str, TrialConfig]:
        """Return the id and the configuration of the next trial: an unfinished one first, else a new one.

        It is RUNNING in the tables from now on.
        """
        name, config = self._study.ask()
        self.folder.record_trial(name, state="RUNNING", reason=None, **config.model_dump(mode="json"))
        return name, config

    def requeue(self, name: str) -> None:
        """Make `ask` return a trial again whose worker died before the trial began."""
        self._study.requeue(name)

    def retry(self, name: str) -> None:
        """Make `ask` return a failed trial again. It continues from its checkpoint if it has one."""
        self._reconciler.retry(name)
        self._has_weights.pop(name, None)

    def restarted(self, name: str) -> None:
        """Forget the epochs, if any, of a trial that begins again because its checkpoint is lost or damaged."""
        if self.folder.epochs(name) or "epochs_run" in self.folder.trial_row(name):
            self.folder.drop_epochs(name)
            self.folder.record_trial(name, state="RUNNING")

    def started(self, name: str, config: TrialConfig) -> None:
        """Record that a trial has a worker, or another one than before, and write its config.json."""
        values = config.model_dump(mode="json")
        with self._side_file():
            write_json(self.folder.trial(name) / "config.json", values)
        varied = {key: value for key, value in values.items() if self._is_searched(key, values)}
        settings = ", ".join(f"{key} {_short(value)}" for key, value in varied.items())
        before = len(self.folder.epochs(name))
        what = f"goes on after epoch {before}" if before else "started"
        self._log(name, f"{what}: {settings}")
        self._log_line(name, what, settings, passing=True)

    def epoch(self, name: str, epoch: int, result: Mapping[str, Any]) -> None:
        """Record an epoch of a trial; one that a resumed trial reports again replaces the first report.

        Args:
            name: id of the trial.
            epoch: 1 for the first epoch.
            result: the fields of `EpochResult`; others are ignored.
        """
        known = any(row["epoch"] == epoch for row in self.folder.epochs(name))
        measures = {
            key: result.get(key) for key in HISTORY_COLUMNS if key in result and key not in {"trial_id", "epoch"}
        }
        self.folder.record_epoch(name, epoch, **measures)
        self._summarise(name)
        values = self.values(name)
        if epoch in values:
            with self._side_file():
                self._study.report(name, epoch, values[epoch])
        if known:
            return
        metrics = "  ".join(f"{key} {_short(value)}" for key, value in measures.items() if value is not None)
        of = f"epoch {epoch} of {self.folder.trial_row(name)['epochs']}"
        self._log(name, f"{of}: {metrics}")
        if time.monotonic() - self._logged > QUIET_SECONDS:
            metric = self.spec.metric.name
            self._log_line(
                name,
                "running",
                f"{of}: {metric} {_short(result[metric])}, {result['images_per_second']:.0f} images/s",
                passing=True,
            )

    def taken_up(self, name: str, epoch: int) -> None:
        """Record that a trial continues from the checkpoint of `epoch`, or begins again, with epoch 1.

        `epoch` must be in the tables. If the trial was better in a later epoch before, those weights are lost together
        with their checkpoint: the epochs after `epoch` are removed from the tables, so that the best epoch is the one
        whose weights exist. The study keeps their values, since the configuration does reach them.
        """
        if int(self.folder.trial_row(name).get("best_epoch", 0)) > epoch:
            self.folder.drop_epochs(name, after=epoch)
            self._summarise(name)
            self._log(name, f"the weights of a later epoch are lost: its epochs after {epoch} are removed")

    def end(self, name: str, state: str, reason: str, trace: str = "") -> None:
        """Record that a trial has ended; keep its weights if it is among the best `spec.keep.trials`.

        Args:
            name: id of the trial.
            state: COMPLETE, PRUNED or FAIL.
            reason: why the trial was stopped or failed. The tables, the study and the log hold it shortened; error.txt
                of a failed trial holds all of it.
            trace: the traceback of an unexpected error, for error.txt.
        """
        whole, reason = reason, failure_reason(reason)
        if state == "FAIL":
            with self._side_file():
                text = printable(f"{whole}\n\n{trace}".rstrip(), keep="\n\t")
                write_text(self.folder.trial(name) / "error.txt", text + "\n")
        else:
            with suppress(OSError):  # not a side file: on a full disk it succeeds
                (self.folder.trial(name) / "error.txt").unlink(missing_ok=True)  # of an earlier attempt
        self.folder.record_trial(name, state=state, reason=reason or None)
        self._pending_ends[name] = (state, reason)
        self._record_ends()
        self._log(name, f"{state}{': ' + reason if reason else ''}")
        row = self.folder.trial_row(name)
        metric = self.spec.metric.name
        score = f"{metric} {_short(row[metric])} at epoch {row['best_epoch']}" if metric in row else ""
        self._log_line(name, state, "; ".join(part for part in (score, reason) if part))

    def tick(self) -> None:
        """Write how long the sweep has run, every `TICK_SECONDS`, so that `budget.hours` survives `kill -9`."""
        if time.monotonic() - self._noted > TICK_SECONDS:
            self._noted = time.monotonic()
            with self._side_file():
                self.folder.update_metadata(seconds=round(self.seconds, 1))
            if self._pending_ends and self.folder.flush():
                self._record_ends()

    def close(self) -> str:
        """End the trials that a limit has cut short; those that Ctrl-C has stopped stay RUNNING, for `--resume`.

        Called when no trial runs any more.

        Returns:
            The limit that has ended the sweep, for example `budget.hours=2`; empty if every trial was run or the sweep
            was interrupted.
        """
        limit = self.ended_by() if self.remaining else ""
        if limit or not self.remaining:
            stopped = f"stopped by {limit or f'trials={self.spec.planned_trials}'}"
            for name in self.folder.trial_ids("RUNNING"):
                if lost := self._absorb(name):
                    self.end(name, "FAIL", f"{stopped}; {lost}, so its weights are lost")
                    continue
                early = "" if self.values(name) else " before its first epoch was over"
                self.end(name, "PRUNED", f"{stopped}{early}")
        best = self.best
        if best:
            row = self.folder.trial_row(best)
            with self._side_file():
                self._study.record_best(best, int(row["best_epoch"]), float(row[self.spec.metric.name]))
        with self._side_file():
            self.folder.update_metadata(ended_by=limit, seconds=round(self.seconds, 1))
        if self.folder.flush():
            self._record_ends()
        restore.remove_partials(self.folder)
        return limit

    def ended_by(self) -> str:
        """Return the limit that has been reached, for example `budget.hours=2`; empty if none has."""
        return limit_reached(self.spec, self.folder, self.seconds)

    def _summarise(self, name: str) -> None:
        self.folder.record_trial(name, **curve.summary(self.spec.metric, self.folder.epochs(name)))

    def _record_ends(self) -> None:
        """Record ended trials in the study once the tables are on the disk, then keep or drop their weights."""
        if not self.folder.is_flushed:
            return
        for name, (state, reason) in list(self._pending_ends.items()):
            with self._side_file():
                self._study.tell(name, state, self.values(name), reason)
                del self._pending_ends[name]
        self._settle_weights()

    def _absorb(self, name: str) -> str:
        """Record the epochs that a trial has saved but could not report, because the sweep had ended.

        Returns:
            Why the weights of its best epoch are missing; empty if they are not, or if no epoch has a finite value.
        """
        checkpoint = checkpoints.newest(self.folder.trial(name))
        if checkpoint is None:
            return "its checkpoint is missing" if self.values(name) else ""
        saved = checkpoints.load_newest(self.folder.trial(name))
        if saved is None:
            return "its checkpoint cannot be read"
        known = [row["epoch"] for row in self.folder.epochs(name)]
        for result in saved.past if saved.epoch not in known else ():
            self.epoch(name, result["epoch"], result)
        self.taken_up(name, saved.epoch)
        best = self.folder.trial_row(name).get("best_epoch")
        return "" if best == saved.epoch else f"its checkpoint is of epoch {saved.epoch}, the best one is {best}"

    def _settle_weights(self) -> None:
        """Keep the weights of the best `spec.keep.trials` ended trials and drop those of the others."""
        ranking = self.folder.ranking(self.spec.metric.name, self.sign)
        kept = set(ranking[: self.spec.keep.trials])
        for name in self.folder.trial_ids(*FINISHED):
            if name in self._pending_ends or self._has_weights.get(name) == (name in kept):
                continue
            folder = self.folder.trial(name)
            if self._keep_failed and self.folder.trial_row(name)["state"] == "FAIL":
                continue  # `retry` continues from its checkpoint
            try:
                if name not in kept:
                    checkpoints.drop(folder)
                elif not checkpoints.keep(folder, int(self.folder.trial_row(name)["best_epoch"])):
                    continue  # undecided: other weights that exist may have to be dropped later
            except OSError as error:  # must not turn the trial's result into a failure
                log.warning("%s  its weights could not be kept: %s", name, error)
            else:
                self._has_weights[name] = name in kept

    @contextmanager
    def _side_file(self) -> Iterator[None]:
        """Log a warning, once, if a write inside fails; the sweep continues, since the tables hold the same."""
        try:
            yield
        except (OSError, optuna.exceptions.StorageInternalError) as error:
            if not self._disk_is_full:
                log.warning(
                    "%s: cannot be written to now; the sweep continues: %s",
                    self.folder.root,
                    first_line(error.__cause__ or error),
                )
            self._disk_is_full = True
        else:
            self._disk_is_full = False

    def _log(self, name: str, line: str) -> None:
        with self._side_file():
            self.folder.log(name, line)

    def _log_line(self, name: str, what: str, more: str, *, passing: bool = False) -> None:
        """Log a line about a trial; `passing` marks what a live view shows by itself."""
        if self.logs_trials:
            log.info("%s  %-8s  %s", name, what, more, extra={"passing": passing})
        self._logged = time.monotonic()

    def _is_searched(self, key: str, config: Mapping[str, Any]) -> bool:
        parameter = self.spec.parameters.get(key)
        varies = parameter is not None and (parameter.distribution is not None or len(parameter.choices()) > 1)
        return varies and search_space.is_active(self.spec.parameters, key, config)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
