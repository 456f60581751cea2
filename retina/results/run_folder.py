"""The results folder: the one place that writes it and reads it.

    results/<name>/
      sweep.yaml, environment.json, trials.csv, history.csv, study.db, tune/; skipped.csv, unused.csv (if any)
      trials/<id>/   config.json, log.txt, error.txt if it failed, model.pt of the few that are kept (see `checkpoints`)
      best/          model.pt, config.json, metrics.json, predictions.csv and the figures

Plain files that a person and pandas can read. Every file is written under a temporary name and then renamed, so that a
reader, or a machine that loses its power, never meets half a file.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from retina.config import DataConfig, SweepSpec, TrialConfig
from retina.config.sweep import parse_recorded
from retina.errors import ResultsError, SpecError, as_disk_error
from retina.results import files, readers, schemas, table_reader
from retina.system import file_modes, locks, temporary_files
from retina.system.locks import LOCK_FILE, SOFT_LOCK_FILE
from retina.system.printable import printable

log = logging.getLogger(__name__)

PARAMETERS = list(TrialConfig.model_fields)
METRIC_COLUMNS = ["val_qwk", "val_accuracy", "val_auc", "val_loss"]
"""Validation metrics of a trial's best epoch, as they stand in trials.csv."""
TRIAL_COLUMNS = [
    "trial_id",
    "state",  # COMPLETE, PRUNED, FAIL or RUNNING
    *PARAMETERS,
    "epochs_run",
    "best_epoch",
    *METRIC_COLUMNS,
    "seconds",
    "images_per_second",
    "reason",  # why it was stopped or failed
]
HISTORY_COLUMNS = [
    "trial_id",
    "epoch",
    "learning_rate",
    *(f"{part}_{measure}" for part in ("train", "val") for measure in ("loss", "accuracy", "qwk")),
    "val_auc",
    *(f"test_{measure}" for measure in ("loss", "accuracy", "qwk")),
    "images_per_second",
    "seconds",
    "micro_batch",  # photographs at once on the device; fewer than batch_size where memory was short
]
SUMMARY_COLUMNS = ["epochs_run", "best_epoch", *METRIC_COLUMNS, "seconds", "images_per_second"]
"""What trials.csv says of a trial's epochs."""
MAX_FLUSH_SHARE = 0.05
"""Of the time, at most, that goes into writing the tables for epochs alone; a trial's new state is written at once."""
FINISHED = ("COMPLETE", "PRUNED", "FAIL")
TRIALS_REMEDY = "correct it, or move it away: a sweep restores it from study.db when it goes on with --resume"
HISTORY_REMEDY = "correct it, or put a copy of it back"
METADATA_REMEDY = "correct it, or move it away and go on with --resume --force"
SPEC_REMEDY = "correct it, or put a copy of it back"
METRICS_REMEDY = "correct it, or remove best/: --resume evaluates the best trial again"


class RunFolder:
    """One sweep's folder, `results/<name>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trials: dict[str, dict[str, Any]] = {}
        self._history: dict[str, dict[int, dict[str, Any]]] = {}
        self._history_lines: dict[str, str] = {}  # of each trial, as they were last written
        self._trial_columns, self._history_columns = TRIAL_COLUMNS, HISTORY_COLUMNS  # and those that somebody added
        self._rest_until = 0.0
        self.is_flushed = True

    @classmethod
    def create(cls, root: Path) -> RunFolder:
        """A new folder.

        Raises:
            ResultsError: when it is there already, or cannot be made.
        """
        cls.ensure_free(root)
        try:
            file_modes.make_folder(root, exist_ok=True)
            file_modes.make_folder(root / "trials")
        except OSError as error:
            raise as_disk_error(root, "cannot be made", error) from None
        return cls(root)

    @staticmethod
    def ensure_free(root: Path, going_on: str = "go on with it (--resume)") -> None:
        """Stop where a new folder would overwrite something, or has no place. What a killed process left is nothing.

        Args:
            root: the folder. Where it is a link, its target is looked at; an empty one may lie below a folder that may
                not be written to, if only it may be written to itself, as a mounted volume.
            going_on: how one goes on with what is there, for the message.

        Raises:
            ResultsError: when `root` is there already and not empty, or lies below what is no folder, or below one that
                may not be written to.
        """
        try:
            if root.is_symlink():
                with suppress(FileNotFoundError):
                    root.stat()  # of a link that leads in circles the system says so; `exists` is False
            place = root.resolve() if root.is_symlink() else root.absolute()
            is_taken = place.exists() and not (place.is_dir() and temporary_files.is_empty(place))
            above = next(one for one in (place, *place.parents) if os.path.lexists(one))
        except OSError as error:
            raise as_disk_error(root, "cannot be read", error) from None
        if is_taken:
            raise ResultsError(
                f"{root} is there already and will not be overwritten;\n"
                f"{going_on}, choose another --name, or remove that folder"
            )
        where = place.parent if above == place and not os.access(place, os.W_OK) else above
        if not (where.is_dir() and os.access(where, os.W_OK)):
            problem = "may not be written to" if where.is_dir() else "is no folder"
            raise ResultsError(f"{root}: cannot be made: {where} {problem}; choose another --results")

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """A folder that a sweep has written.

        Raises:
            ResultsError: when it is none, saying which ones stand beside it.
        """
        try:
            is_sweep = (root / "sweep.yaml").is_file()
        except OSError as error:
            raise as_disk_error(root, "cannot be read", error) from None
        if not is_sweep:
            near = sorted(file.parent.name for file in root.parent.glob("[!.]*/sweep.yaml"))
            beside = f"sweeps in {root.parent}: {', '.join(near[:8])}" if near else f"{root.parent} holds no sweep"
            raise ResultsError(f"{root}: is not the results folder of a sweep (it has no sweep.yaml); {beside}")
        folder = cls(root)
        history = folder._read_history()  # first: it is written first, so that an ended trial has all its epochs
        rows, added = folder._read_trials()
        folder._trials = {row["trial_id"]: row for row in rows}
        folder._trial_columns = [*TRIAL_COLUMNS, *added]
        rows, added = history
        folder._history_columns = [*HISTORY_COLUMNS, *added]
        for row in rows:
            folder._history.setdefault(row["trial_id"], {})[row["epoch"]] = row
        return folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process from running this sweep meanwhile; the lock goes with the process, however it ends.

        Raises:
            ResultsError: another process runs it, or the lock file cannot be written.
        """
        lock = locks.acquire(self.root, locks.SECONDS)
        if lock is None:
            self._raise_running()
        try:
            yield
        finally:
            lock.release()

    def ensure_not_running(self) -> None:
        """Stop where another process runs the sweep just now.

        Raises:
            ResultsError: one does.
        """
        if self.is_running:
            self._raise_running()

    def _raise_running(self) -> NoReturn:
        raise ResultsError(f"{self.root}: this sweep is being run by another process; wait for it or end it")

    @property
    def is_running(self) -> bool:
        """Whether a process runs the sweep just now: on this machine, or on another one if the file system tells."""
        if not any((self.root / name).is_file() for name in (LOCK_FILE, SOFT_LOCK_FILE)):
            return False
        try:
            lock = locks.acquire(self.root, 0)
        except ResultsError:  # somebody else's folder, which we may read only
            return False
        if lock is None:
            return True
        lock.release()
        return False

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.root.resolve().name

    @property
    def best(self) -> Path:
        """The folder of the winner."""
        return self.root / "best"

    def trial(self, trial_id: str) -> Path:
        """The folder of one trial.

        Raises:
            ResultsError: no trial may have this id; it could lead out of the results folder.
        """
        try:
            return self.root / "trials" / schemas.check_trial_id(trial_id)
        except ValueError as error:
            raise ResultsError(f"{self.root}: {trial_id!r}: {error}") from None

    def record_trial(self, trial_id: str, **values: Any) -> None:
        """Add or change what trials.csv says of a trial; a new `state` is written at once, the rest at times.

        Raises:
            KeyError: a value that is not one of `TRIAL_COLUMNS`.
        """
        row = {_known(key, TRIAL_COLUMNS): value for key, value in values.items()}
        self._trials.setdefault(trial_id, {"trial_id": trial_id}).update(row)
        if "state" in values or time.monotonic() > self._rest_until:
            self.flush()

    def record_epoch(self, trial_id: str, epoch: int, **values: Any) -> None:
        """Add one epoch to history.csv; one that is there already is replaced (a trial that was resumed repeats it).

        It is written with the next `record_trial`.

        Raises:
            KeyError: a value that is not one of `HISTORY_COLUMNS`.
        """
        row = {_known(key, HISTORY_COLUMNS): value for key, value in values.items()}
        self._history.setdefault(trial_id, {})[epoch] = {"trial_id": trial_id, "epoch": epoch, **row}
        self._history_lines.pop(trial_id, None)

    def drop_epochs(self, trial_id: str, *, after: int = 0) -> None:
        """Take a trial's epochs after one out of history.csv, and `SUMMARY_COLUMNS`, to be made anew, out of its row.

        It is written with the next `record_trial`.
        """
        left = {epoch: row for epoch, row in self._history.get(trial_id, {}).items() if epoch <= after}
        self._history[trial_id] = left
        self._history_lines.pop(trial_id, None)
        for key in SUMMARY_COLUMNS:
            self._trials.get(trial_id, {}).pop(key, None)

    def flush(self) -> bool:
        """Write history.csv and trials.csv as they stand, in this order: a trial that has ended has all its epochs.

        A disk that is full is said, and both stay as they were; what is to be written is known still, and is written
        with the next change.

        Returns:
            Whether they were written: `is_flushed`.
        """
        started = time.monotonic()
        for trial_id in self._history.keys() - self._history_lines.keys():
            self._history_lines[trial_id] = files.csv_lines(self.epochs(trial_id), self._history_columns)
        history = "".join(self._history_lines[trial_id] for trial_id in sorted(self._history_lines))
        try:
            files.write_text(self.root / "history.csv", files.csv_header(self._history_columns) + history)
            files.write_csv(self.root / "trials.csv", self._trials.values(), self._trial_columns)
            self.is_flushed = True
        except OSError as error:
            if self.is_flushed:
                log.warning("%s: the tables cannot be written now: %s", self.root, error.strerror)
            self.is_flushed = False
        now = time.monotonic()
        self._rest_until = now + (now - started) / MAX_FLUSH_SHARE
        return self.is_flushed

    def trial_row(self, trial_id: str) -> dict[str, Any]:
        """What is known of a trial; empty where it is unknown."""
        return dict(self._trials.get(trial_id, {}))

    def trial_ids(self, *states: str) -> list[str]:
        """The trials in one of `states`, or all of them, in the order in which they were started."""
        return [trial_id for trial_id, row in self._trials.items() if not states or row.get("state") in states]

    def sort_trials(self) -> None:
        """Put the trials in the order of their ids, which is the one in which they were started."""
        self._trials = dict(sorted(self._trials.items()))

    def configs(self) -> dict[str, TrialConfig]:
        """The settings of all trials by their ids, for a sweep that goes on.

        Raises:
            ResultsError: a row of trials.csv lacks a setting, or its best epoch though it has a value: what is not
                there is not guessed.
        """
        found = {}
        for trial_id, row in self._trials.items():
            missing = [name for name in PARAMETERS if name not in row]
            if any(name in row for name in METRIC_COLUMNS) and "best_epoch" not in row:
                missing.append("best_epoch")
            if missing or "state" not in row:
                shown = ", ".join((missing or ["state"])[:4])
                readers.refuse(self.root / "trials.csv", f"{trial_id}: {shown}: should not be empty", TRIALS_REMEDY)
            found[trial_id] = TrialConfig(**{name: row[name] for name in PARAMETERS})
        return found

    def epochs(self, trial_id: str) -> list[dict[str, Any]]:
        """What is known of a trial's epochs, in their order."""
        return [row for _, row in sorted(self._history.get(trial_id, {}).items())]

    def trials(self) -> pd.DataFrame:
        """trials.csv: a row a trial, `TRIAL_COLUMNS`; empty before the first."""
        return table_reader.frame(self._read_trials()[0], TRIAL_COLUMNS)

    def history(self) -> pd.DataFrame:
        """history.csv: a row an epoch of a trial, `HISTORY_COLUMNS`; empty before the first."""
        return table_reader.frame(self._read_history()[0], HISTORY_COLUMNS)

    def ranking(self, metric: str, sign: int) -> list[str]:
        """Trials that finished or were stopped early, best first by `metric` (`sign` 1: more is better).

        Equal ones stand in the order in which they were started.
        """
        scored = [
            (sign * float(row[metric]), trial_id)
            for trial_id, row in self._trials.items()
            if row.get("state") in {"COMPLETE", "PRUNED"} and pd.notna(row.get(metric))
        ]
        return [trial_id for _, trial_id in sorted(scored, key=lambda pair: -pair[0])]

    def spec(self, *, allow_no_parameters: bool = False) -> SweepSpec:
        """Read sweep.yaml, also as an earlier version wrote it: see `retina.config.sweep.parse_recorded`.

        Args:
            allow_no_parameters: whether the file may lack `parameters`, as for a reader that only lists them.

        Raises:
            ResultsError: the file is missing or damaged; names the line, the key, its value and what is allowed.
        """
        file = self.root / "sweep.yaml"
        document = readers.read_yaml(file, SPEC_REMEDY)

        def position(key: tuple[Hashable, ...]) -> str:
            line = document.line_of(key)
            return str(file) if line is None else f"{file}: line {line}"

        try:
            return parse_recorded(document.content, position, allow_no_parameters=allow_no_parameters)
        except SpecError as error:
            raise readers.refusal(error, SPEC_REMEDY) from None

    def data_config(self) -> DataConfig:
        """Return the data section of sweep.yaml: which photographs the sweep was run on.

        Raises:
            ResultsError: as `spec`; or there is no data section, for which no default is assumed.
        """
        spec = self.spec(allow_no_parameters=True)
        if "data" not in spec.model_fields_set:
            readers.refuse(self.root / "sweep.yaml", "data: is required to find the photographs", SPEC_REMEDY)
        return spec.data

    def update_metadata(self, **values: Any) -> None:
        """Add to environment.json, or change there, what is known of the sweep as a whole."""
        files.write_json(self.root / "environment.json", {**self.metadata(), **values})

    def metadata(self) -> dict[str, Any]:
        """What environment.json says; empty before anything was noted.

        Raises:
            ResultsError: it is damaged.
        """
        return readers.read_object(self.root / "environment.json", schemas.Notes, METADATA_REMEDY) or {}

    def log(self, trial_id: str, line: str) -> None:
        """Add a line to a trial's log.txt."""
        folder = self.trial(trial_id)
        file_modes.make_inside(folder)
        with (folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(printable(line.rstrip("\n"), keep="\n\t") + "\n")

    def _read_trials(self) -> tuple[list[dict[str, Any]], list[str]]:
        file = self.root / "trials.csv"
        return table_reader.read_table(file, schemas.TrialRow, TRIAL_COLUMNS, ["trial_id"], TRIALS_REMEDY) or ([], [])

    def _read_history(self) -> tuple[list[dict[str, Any]], list[str]]:
        file, key = self.root / "history.csv", ["trial_id", "epoch"]
        return table_reader.read_table(file, schemas.HistoryRow, HISTORY_COLUMNS, key, HISTORY_REMEDY) or ([], [])


def _known(key: str, columns: list[str]) -> str:
    if key not in columns:
        raise KeyError(key)
    return key
