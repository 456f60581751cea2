"""Makes a sweep's study and tables consistent after its process was killed, or after one of its files was lost."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from optuna.trial import FrozenTrial

from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.results import checkpoints
from retina.results.files import write_text
from retina.results.run_folder import FINISHED, RunFolder
from retina.sweep import curve, restore
from retina.sweep.study import REASON, SweepStudy
from retina.sweep.study_file import STUDY_FILE
from retina.system.printable import failure_reason

log = logging.getLogger(__name__)


class Reconciler:
    """Copies between the study and the tables what one of them lacks."""

    def __init__(self, spec: SweepSpec, folder: RunFolder, study: SweepStudy) -> None:
        self._spec, self._folder, self._study = spec, folder, study

    def compare_states(self) -> None:
        """Give each trial the same state in study and tables; retry the trials that failed because the disk was full.

        The tables are written first, so the study may lack the end of a trial.
        """
        self._study.retire_others()
        for name, trial in self._study.trials.items():
            row = self._folder.trial_row(name)
            state = row.get("state")
            if state in FINISHED and not trial.state.is_finished():
                self._study.tell(name, str(state), self._values(name), str(row.get(REASON, "")))
            elif state not in FINISHED and trial.state.is_finished():  # after a power failure the tables may be older
                self._from_study(name, trial)
        lost = [name for name in self._folder.trial_ids(*FINISHED) if self._has_lost_epochs(name)]
        if lost:
            shown = ", ".join(lost[:8])
            log.warning("note: %s: lacks epochs of %s; their curves are lost", self._folder.root / "history.csv", shown)
        self.retry_unsaved()

    def retry_unsaved(self) -> None:
        """Retry the trials that failed because the disk was full."""
        for name in self._folder.trial_ids("FAIL"):
            if checkpoints.NOT_SAVED in str(self._folder.trial_row(name).get(REASON)) and name in self._study.trials:
                log.info("%s  failed because the disk was full and runs again", name)
                self.retry(name)

    def _has_lost_epochs(self, name: str) -> bool:
        return len(self._folder.epochs(name)) < int(self._folder.trial_row(name).get("epochs_run", 0))

    def restore_rows(self) -> None:
        """Restore the rows that trials.csv has lost: their configurations, epochs and ends.

        A trial that is RUNNING and has no epoch may have been killed before its row was written; it is asked for again.
        """
        restored: list[str] = []
        lost: list[tuple[str, FrozenTrial, TrialConfig]] = []
        for name, trial in self._study.trials.items():
            is_begun = trial.state.is_finished() or trial.intermediate_values
            if is_begun and not self._folder.trial_row(name):
                config = restore.recorded_config(self._folder, name) or self._study.config_of(trial)
                lost.append((name, trial, config or restore.refuse_lost_settings(self._folder, name)))
        for name, trial, config in lost:
            ended = trial.state.name if trial.state.is_finished() else "RUNNING"
            self._folder.record_trial(name, **config.model_dump(mode="json"))
            if self._folder.epochs(name):
                self._folder.record_trial(name, **curve.summary(self._spec.metric, self._folder.epochs(name)))
                self._folder.record_trial(name, state=ended, reason=trial.user_attrs.get(REASON))
            else:
                self._from_study(name, trial)
                self._folder.record_trial(name, state=ended)
            restored.append(name)
        if restored:
            self._folder.sort_trials()
            self._folder.flush()
            log.warning(
                "note: %s: had lost %d trial(s), which are restored from %s and the trials' folders: %s",
                self._folder.root / "trials.csv", len(restored), STUDY_FILE, ", ".join(restored[:8]),
            )  # fmt: skip

    def _from_study(self, name: str, trial: FrozenTrial) -> None:
        summary = curve.summary_of_values(self._spec.metric, trial.intermediate_values)
        reason = failure_reason(str(trial.user_attrs.get(REASON) or ""))
        self._folder.record_trial(name, state=trial.state.name, reason=reason or None, **summary)

    def add_unknown(self, configs: Mapping[str, TrialConfig]) -> None:
        """Add the rows to the study that it lacks: study.db is an older copy, or the rows were added by hand.

        Ended trials outside the search space are left out: a study of this space cannot hold them.
        """
        known = self._study.trials
        unknown = [name for name in configs if name not in known]
        runs = set(self._folder.trial_ids("RUNNING"))
        added = [name for name in unknown if self.add_to_study(name, configs[name]) or name in runs]
        if added:
            more = f" and {len(added) - 8} more" if len(added) > 8 else ""
            log.warning(
                "note: %s: lacked %d trial(s) of trials.csv, which are added to it: %s%s",
                self._folder.root / STUDY_FILE, len(added), ", ".join(added[:8]), more,
            )  # fmt: skip

    def add_to_study(self, name: str, config: TrialConfig) -> bool:
        """Add a trial of the tables to the study; return whether it is inside the search space."""
        row = self._folder.trial_row(name)
        inside = self._study.learn(name, config, str(row["state"]), self._values(name), str(row.get(REASON, "")))
        if not inside and row["state"] == "RUNNING":
            reason = "outside the space since it was changed"
            write_text(self._folder.trial(name) / "error.txt", reason + "\n")
            self._folder.record_trial(name, state="FAIL", reason=reason)
        return inside

    def retry(self, name: str) -> None:
        """Make `ask` return a failed trial again. It continues from its checkpoint if it has one."""
        if name not in self._study.trials:
            return
        if checkpoints.newest(self._folder.trial(name)) is None:
            self._folder.drop_epochs(name)
        self._folder.record_trial(name, state="RUNNING", reason=None)
        self._study.run_again(name, self._values(name))

    def _values(self, name: str) -> dict[int, float]:
        return curve.best_so_far(self._spec.metric, self._folder.epochs(name), self._folder.trial_row(name))
