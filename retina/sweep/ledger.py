"""What a sweep knows: its study and its results folder, kept in step. Knows nothing of Ray.

Everything is written in an order that survives `kill -9` at any moment: the folder's tables first, the study after
them, the weights last. Whoever opens the ledger again brings the three into step before anything goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from retina.config import TrialConfig, search_space
from retina.config.sweep import SweepSpec
from retina.results import checkpoints
from retina.results.files import write_json, write_text
from retina.results.run_folder import FINISHED, HISTORY_COLUMNS, RunFolder
from retina.sweep import curve, restore, study_file
from retina.sweep.limits import limit_reached
from retina.sweep.study import REASON, SweepStudy
from retina.sweep.study_file import STUDY_FILE
from retina.system.printable import as_reason, printable

log = logging.getLogger(__name__)

NOTES = "environment.json"
TICK_SECONDS = 10.0
QUIET_SECONDS = 15.0
"""After so long without a word, an epoch is told of too."""


class Ledger:
    """One sweep's trials: asked for, followed and ended; and whether the sweep has had enough."""

    def __init__(self, spec: SweepSpec, folder: RunFolder, study: SweepStudy, *, keep_failed: bool = False) -> None:
        self.spec, self.folder, self._study = spec, folder, study
        self.logs_trials, self._keep_failed = True, keep_failed
        self._untold: dict[str, tuple[str, str]] = {}  # ended trials that the study has not heard of: state and reason
        self._has_weights: dict[str, bool] = {}  # of the trials that have ended
        self._disk_is_full = False
        self._spoken = self._ticked = time.monotonic()
        self._started = self._spoken - float(folder.notes().get("seconds") or 0)

    @classmethod
    def create(cls, spec: SweepSpec, folder: RunFolder, *, keep_failed: bool = False) -> Ledger:
        """For a sweep that begins, or whose space has changed: with a new study that is told of the trials before."""
        tried = restore.recorded_configs(folder, spec.metric.name)
        database = folder.root / STUDY_FILE
        with study_file.storage_errors(database):
            ledger = cls(spec, folder, SweepStudy.create(spec, database, tried), keep_failed=keep_failed)
            for name, config in tried.items():
                if not ledger._hand_over(name, config):
                    log.info("%s  lies outside the changed space: the search does not learn from it", name)
            ledger._run_unsaved_again()
            folder.note(study=ledger._study.name)
            ledger._study.retire_others()
        ledger._settle_weights()
        return ledger

    @classmethod
    def open(cls, spec: SweepSpec, folder: RunFolder, *, keep_failed: bool = False) -> Ledger:
        """For a sweep that was begun before, brought into step; with a new study where its space has changed.

        Where the study is lost or damaged a new one is made from the tables, which hold all that it did; rows that
        trials.csv has lost are restored from the study and the trials' folders. Either is said in the log.

        Raises:
            ResultsError: what is lost cannot be restored, or a file of the folder is damaged.
        """
        restore.remove_partials(folder)
        database = folder.root / STUDY_FILE
        problem, name = study_file.damage(database), folder.notes().get("study")
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
            said = f"{problem or 'is not there'}{aside}; a new study is made from trials.csv and history.csv"
            is_new = name is None and not folder.trial_ids()  # killed while the study was made: nothing was in it
            log.log(logging.INFO if is_new else logging.WARNING, "note: %s: %s", database, said)
        return cls.create(spec, folder, keep_failed=keep_failed)

    @classmethod
    def _reopened(cls, spec: SweepSpec, folder: RunFolder, name: str, *, is_noted: bool, keep_failed: bool) -> Ledger:
        database = folder.root / STUDY_FILE
        if not is_noted:
            log.warning("note: %s does not name the study; %s holds %r, which goes on", NOTES, database, name)
            folder.note(study=name)
        with study_file.storage_errors(database):
            tried = restore.recorded_configs(folder, spec.metric.name)
            ledger = cls(spec, folder, SweepStudy.open(spec, database, name, tried), keep_failed=keep_failed)
            ledger._restore_rows()
            restore.refuse_lost_tables(folder, "")
            if ledger._study.fits:  # else a new one is made, which learns all
                ledger._hand_over_unknown(tried)
            ledger._bring_into_step()
            if not ledger._study.fits:
                return cls.create(spec, folder, keep_failed=keep_failed)
        return ledger

    @property
    def sign(self) -> int:
        """1 where more of the metric is better, -1 where less is."""
        return self.spec.metric.sign

    @property
    def remaining(self) -> int:
        """Trials that are yet to be finished, those that were begun included."""
        return max(0, self.spec.planned_trials - len(self.folder.trial_ids(*FINISHED)))

    @property
    def best(self) -> str | None:
        """The best trial that has ended; None before the first."""
        return next(iter(self.folder.ranking(self.spec.metric.name, self.sign)), None)

    @property
    def seconds(self) -> float:
        """How long the sweep has run, interruptions left out."""
        return time.monotonic() - self._started

    def values(self, name: str) -> dict[int, float]:
        """A trial's best value so far after each of its epochs."""
        return curve.best_so_far(self.spec.metric, self.folder.epochs(name), self.folder.recorded(name))

    def ask(self) -> tuple[str, TrialConfig]:
        """The next trial, entered in the tables: one that was left unfinished, else a new one."""
        name, config = self._study.ask()
        self.folder.record_trial(name, state="RUNNING", reason=None, **config.model_dump(mode="json"))
        return name, config

    def requeue(self, name: str) -> None:
        """Let a trial be asked for again: its worker was gone before it began."""
        self._study.requeue(name)

    def retry(self, name: str) -> None:
        """Let a trial that has failed be asked for again. It continues from its checkpoint if it has one."""
        if name not in self._study.trials:
            return
        if checkpoints.newest(self.folder.trial(name)) is None:
            self.folder.forget_epochs(name)
        self.folder.record_trial(name, state="RUNNING", reason=None)
        self._study.run_again(name, self.values(name))
        self._has_weights.pop(name, None)

    def restarted(self, name: str) -> None:
        """Forget the epochs, if any, of a trial that begins again because its checkpoint is lost or damaged."""
        if self.folder.epochs(name) or "epochs_run" in self.folder.recorded(name):
            self.folder.forget_epochs(name)
            self.folder.record_trial(name, state="RUNNING")

    def started(self, name: str, config: TrialConfig) -> None:
        """A trial has a worker now, or another one."""
        values = config.model_dump(mode="json")
        with self._side_file():
            write_json(self.folder.trial(name) / "config.json", values)
        varied = {key: value for key, value in values.items() if self._is_searched(key, values)}
        settings = ", ".join(f"{key} {_short(value)}" for key, value in varied.items())
        before = len(self.folder.epochs(name))
        what = f"goes on after epoch {before}" if before else "started"
        self._log(name, f"{what}: {settings}")
        self._say(name, what, settings, passing=True)

    def epoch(self, name: str, epoch: int, result: Mapping[str, Any]) -> None:
        """An epoch of a trial is over; one that is told again, by a trial that was resumed, takes the first's place."""
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
        told = "  ".join(f"{key} {_short(value)}" for key, value in measures.items() if value is not None)
        of = f"epoch {epoch} of {self.folder.recorded(name)['epochs']}"
        self._log(name, f"{of}: {told}")
        if time.monotonic() - self._spoken > QUIET_SECONDS:
            metric = self.spec.metric.name
            self._say(
                name,
                "running",
                f"{of}: {metric} {_short(result[metric])}, {result['images_per_second']:.0f} images/s",
                passing=True,
            )

    def taken_up(self, name: str, epoch: int) -> None:
        """A trial has gone on from the checkpoint of `epoch`, or begun anew with 1; that epoch is in the tables.

        Where an earlier life of the trial was better later on, those weights are lost, with the checkpoint that they
        were in: its epochs after `epoch` are forgotten, so that the best epoch stays the one whose weights are there.
        The study keeps the values that it has: the settings do reach them.
        """
        if int(self.folder.recorded(name).get("best_epoch", 0)) > epoch:
            self.folder.forget_epochs(name, after=epoch)
            self._summarise(name)
            self._log(name, f"the weights of a later epoch are lost: its epochs after {epoch} are forgotten")

    def end(self, name: str, state: str, reason: str, trace: str = "") -> None:
        """A trial has ended: COMPLETE, PRUNED or FAIL. Its weights are kept if it is among the best few.

        The tables, the study and the log hold the reason shortened; error.txt has all of it.
        """
        whole, reason = reason, as_reason(reason)
        if state == "FAIL":
            with self._side_file():
                text = printable(f"{whole}\n\n{trace}".rstrip(), keep="\n\t")
                write_text(self.folder.trial(name) / "error.txt", text + "\n")
        else:
            with self._side_file():
                (self.folder.trial(name) / "error.txt").unlink(missing_ok=True)  # of an earlier attempt
        self.folder.record_trial(name, state=state, reason=reason or None)
        self._untold[name] = (state, reason)
        self._tell_study()
        self._log(name, f"{state}{': ' + reason if reason else ''}")
        row = self.folder.recorded(name)
        metric = self.spec.metric.name
        score = f"{metric} {_short(row[metric])} at epoch {row['best_epoch']}" if metric in row else ""
        self._say(name, state, "; ".join(part for part in (score, reason) if part))

    def tick(self) -> None:
        """Now and then: write down how long the sweep has run, so that its hours count on after a `kill -9` too."""
        if time.monotonic() - self._ticked > TICK_SECONDS:
            self._ticked = time.monotonic()
            with self._side_file():
                self.folder.note(seconds=round(self.seconds, 1))
            if self._untold and self.folder.flush():
                self._tell_study()

    def close(self) -> str:
        """No trial runs any more. Those that a limit cut short end here; those that Ctrl-C did stay, for `--resume`.

        Returns:
            The limit that has ended the sweep, in words; empty where every trial was run, or it was interrupted.
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
            row = self.folder.recorded(best)
            with self._side_file():
                self._study.crown(best, int(row["best_epoch"]), float(row[self.spec.metric.name]))
        with self._side_file():
            self.folder.note(ended_by=limit, seconds=round(self.seconds, 1))
        if self.folder.flush():
            self._tell_study()
        restore.remove_partials(self.folder)
        return limit

    def ended_by(self) -> str:
        """Which of the spec's limits has been reached, in words; empty while none has."""
        return limit_reached(self.spec, self.folder, self.seconds)

    def _summarise(self, name: str) -> None:
        self.folder.record_trial(name, **curve.summary(self.spec.metric, self.folder.epochs(name)))

    def _tell_study(self) -> None:
        """Tell of the trials that have ended, once the tables that say so are on the disk; then settle the weights."""
        if not self.folder.is_flushed:
            return
        for name, (state, reason) in list(self._untold.items()):
            with self._side_file():
                self._study.tell(name, state, self.values(name), reason)
                del self._untold[name]
        self._settle_weights()

    def _bring_into_step(self) -> None:
        """The tables are written before the study is told, so the study may lack a trial's end."""
        self._study.retire_others()
        for name, trial in self._study.trials.items():
            row = self.folder.recorded(name)
            state = row.get("state")
            if state in FINISHED and not trial.state.is_finished():
                self._study.tell(name, str(state), self.values(name), str(row.get(REASON, "")))
            elif state not in FINISHED and trial.state.is_finished():  # a machine lost its power: the tables are older
                self._from_study(name, trial)
        lost = [name for name in self.folder.trial_ids(*FINISHED) if self._has_lost_epochs(name)]
        if lost:
            shown = ", ".join(lost[:8])
            log.warning("note: %s: lacks epochs of %s; their curves are lost", self.folder.root / "history.csv", shown)
        self._run_unsaved_again()
        self._settle_weights()

    def _run_unsaved_again(self) -> None:
        """Let the trials be asked for again that failed for want of disk."""
        for name in self.folder.trial_ids("FAIL"):
            if checkpoints.NOT_SAVED in str(self.folder.recorded(name).get(REASON)) and name in self._study.trials:
                log.info("%s  failed for want of disk and runs again", name)
                self.retry(name)

    def _has_lost_epochs(self, name: str) -> bool:
        return len(self.folder.epochs(name)) < int(self.folder.recorded(name).get("epochs_run", 0))

    def _restore_rows(self) -> None:
        """Enter the trials again that trials.csv has lost: their settings, their epochs, and what became of them.

        A trial that is RUNNING and has no epoch yet may have been killed before it was entered; it is asked for again.
        """
        restored: list[str] = []
        found: list[tuple[str, FrozenTrial, TrialConfig]] = []
        for name, trial in self._study.trials.items():
            is_begun = trial.state.is_finished() or trial.intermediate_values
            if is_begun and not self.folder.recorded(name):
                config = restore.recorded_config(self.folder, name) or self._study.config_of(trial)
                found.append((name, trial, config or restore.refuse_lost_settings(self.folder, name)))
        for name, trial, config in found:
            ended = trial.state.name if trial.state.is_finished() else "RUNNING"
            self.folder.record_trial(name, **config.model_dump(mode="json"))
            if self.folder.epochs(name):
                self._summarise(name)
                self.folder.record_trial(name, state=ended, reason=trial.user_attrs.get(REASON))
            else:
                self._from_study(name, trial)
                self.folder.record_trial(name, state=ended)
            restored.append(name)
        if restored:
            self.folder.sort_trials()
            self.folder.flush()
            log.warning(
                "note: %s: had lost %d trial(s) that %s and the trials' folders know, which are restored: %s",
                self.folder.root / "trials.csv", len(restored), STUDY_FILE, ", ".join(restored[:8]),
            )  # fmt: skip

    def _from_study(self, name: str, trial: FrozenTrial) -> None:
        found = curve.summary_of_values(self.spec.metric, trial.intermediate_values)
        reason = as_reason(str(trial.user_attrs.get(REASON) or ""))
        self.folder.record_trial(name, state=trial.state.name, reason=reason or None, **found)

    def _absorb(self, name: str) -> str:
        """Enter the epochs that a trial has saved and could not report any more, since the sweep had ended.

        Returns:
            Why the weights of its best epoch are not there, in a few words; empty where they are, or it has none.
        """
        checkpoint = checkpoints.newest(self.folder.trial(name))
        if checkpoint is None:
            return "its checkpoint is not there" if self.values(name) else ""
        saved = checkpoints.load_newest(self.folder.trial(name))
        if saved is None:
            return "its checkpoint cannot be read"
        known = [row["epoch"] for row in self.folder.epochs(name)]
        for result in saved.past if saved.epoch not in known else ():
            self.epoch(name, result["epoch"], result)
        self.taken_up(name, saved.epoch)
        best = self.folder.recorded(name).get("best_epoch")
        return "" if best == saved.epoch else f"its checkpoint is of epoch {saved.epoch}, the best one is {best}"

    def _hand_over_unknown(self, configs: Mapping[str, TrialConfig]) -> None:
        """Hand rows to the study that it does not know: study.db is an older copy, or somebody has added them.

        Those that have ended outside the space are no such rows: no study of this space can hold them.
        """
        known = self._study.trials
        unknown = [name for name in configs if name not in known]
        runs = set(self.folder.trial_ids("RUNNING"))
        found = [name for name in unknown if self._hand_over(name, configs[name]) or name in runs]
        if found:
            more = f" and {len(found) - 8} more" if len(found) > 8 else ""
            log.warning(
                "note: %s: did not know %d trial(s) of trials.csv, which it learns now: %s%s",
                self.folder.root / STUDY_FILE, len(found), ", ".join(found[:8]), more,
            )  # fmt: skip

    def _hand_over(self, name: str, config: TrialConfig) -> bool:
        """Hand a trial to the study that only the tables know; returns whether it lies in the space."""
        row = self.folder.recorded(name)
        inside = self._study.learn(name, config, str(row["state"]), self.values(name), str(row.get(REASON, "")))
        if not inside and row["state"] == "RUNNING":
            reason = "outside the space since it was changed"
            write_text(self.folder.trial(name) / "error.txt", reason + "\n")
            self.folder.record_trial(name, state="FAIL", reason=reason)
        return inside

    def _settle_weights(self) -> None:
        """Only the best few of the ended trials have weights on the disk; running ones have their checkpoint."""
        ranking = self.folder.ranking(self.spec.metric.name, self.sign)
        kept = set(ranking[: self.spec.keep.trials])
        for name in self.folder.trial_ids(*FINISHED):
            if name in self._untold or self._has_weights.get(name) == (name in kept):
                continue
            folder = self.folder.trial(name)
            if self._keep_failed and self.folder.recorded(name)["state"] == "FAIL":
                continue  # `retry` continues from its checkpoint
            try:
                if name not in kept:
                    checkpoints.drop(folder)
                elif not checkpoints.keep(folder, int(self.folder.recorded(name)["best_epoch"])):
                    continue  # nothing is settled: what there is may have to be dropped yet
            except OSError as error:  # must not turn what the trial has reached into a failure
                log.warning("%s  its weights could not be kept: %s", name, error)
            else:
                self._has_weights[name] = name in kept

    @contextmanager
    def _side_file(self) -> Iterator[None]:
        """What is written inside may fail: the sweep goes on, the tables know it, and it is said once."""
        try:
            yield
        except (OSError, optuna.exceptions.StorageInternalError) as error:
            if not self._disk_is_full:
                log.warning("%s: cannot be written to now; the sweep goes on: %s", self.folder.root, _first_line(error))
            self._disk_is_full = True
        else:
            self._disk_is_full = False

    def _log(self, name: str, line: str) -> None:
        with self._side_file():
            self.folder.log(name, line)

    def _say(self, name: str, what: str, more: str, *, passing: bool = False) -> None:
        """`passing` is what a live view shows by itself."""
        if self.logs_trials:
            log.info("%s  %-8s  %s", name, what, more, extra={"passing": passing})
        self._spoken = time.monotonic()

    def _is_searched(self, key: str, config: Mapping[str, Any]) -> bool:
        parameter = self.spec.parameters.get(key)
        varies = parameter is not None and (parameter.distribution is not None or len(parameter.choices()) > 1)
        return varies and search_space.active(self.spec.parameters, key, config)


def _first_line(error: BaseException) -> str:
    return (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0][:200]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
