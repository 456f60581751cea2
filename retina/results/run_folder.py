"""`RunFolder`: the only code that reads and writes a results folder.

    results/<name>/
      sweep.yaml, environment.json, trials.csv, history.csv, study.db, tune/; skipped.csv, unused.csv (if any)
      trials/<id>/   config.json, log.txt, error.txt if it failed, model.pt of the few that are kept (see `checkpoints`)
      best/          model.pt, config.json, metrics.json, predictions.csv and the figures

The files are plain and can be read by a person and by pandas. Each is written under a temporary name and then renamed,
so that no reader ever finds a partial file, not even after a power failure.
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
"""Columns of trials.csv with the validation metrics of a trial's best epoch."""
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
    "micro_batch",  # photographs at once on the device; fewer than batch_size if memory was short
]
SUMMARY_COLUMNS = ["epochs_run", "best_epoch", *METRIC_COLUMNS, "seconds", "images_per_second"]
"""Columns of trials.csv that summarise a trial's epochs."""
MAX_FLUSH_SHARE = 0.05
"""The largest share of the time that is spent on writing the tables after epochs. New states are written at once."""
FINISHED = ("COMPLETE", "PRUNED", "FAIL")
TRIALS_REMEDY = "correct it, or move it away: a sweep restores it from study.db when it goes on with --resume"
HISTORY_REMEDY = "correct it, or put a copy of it back"
METADATA_REMEDY = "correct it, or move it away and go on with --resume --force"
SPEC_REMEDY = "correct it, or put a copy of it back"
METRICS_REMEDY = "correct it, or remove best/: --resume evaluates the best trial again"


class RunFolder:
    """The folder of one sweep, `results/<name>/`.

    Attributes:
        root: its path.
        is_flushed: whether the last attempt to write the tables succeeded.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trials: dict[str, dict[str, Any]] = {}
        self._history: dict[str, dict[int, dict[str, Any]]] = {}
        self._history_lines: dict[str, str] = {}  # by trial, as they were last written
        self._trial_columns, self._history_columns = TRIAL_COLUMNS, HISTORY_COLUMNS  # and columns that a user added
        self._next_flush = 0.0  # monotonic seconds
        self.is_flushed = True

    @classmethod
    def create(cls, root: Path) -> RunFolder:
        """Create a new folder.

        Raises:
            ResultsError: it already exists, or cannot be made.
        """
        cls.ensure_free(root)
        try:
            file_modes.make_folder(root, exist_ok=True)
            file_modes.make_folder(root / "trials")
        except OSError as error:
            raise as_disk_error(root, "cannot be made", error) from None
        return cls(root)

    @staticmethod
    def ensure_free(root: Path, resume_hint: str = "resume it (--resume)") -> None:
        """Raise if a new folder cannot be made at `root` without overwriting something.

        Temporary files that a killed process has left do not count.

        Args:
            root: the folder. If it is a link, its target is checked. A folder that exists and is empty only has to be
                writable itself, for example a mounted volume; its parent need not be.
            resume_hint: for the message: how to continue the sweep or the runs that are there.

        Raises:
            ResultsError: `root` exists and is not empty, its parent is not a folder, or it may not be written to.
        """
        try:
            if root.is_symlink():
                with suppress(FileNotFoundError):
                    root.stat()  # raises for a link to itself, for which `exists` is False
            path = root.resolve() if root.is_symlink() else root.absolute()
            is_taken = path.exists() and not (path.is_dir() and temporary_files.is_empty(path))
            nearest = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
        except OSError as error:
            raise as_disk_error(root, "cannot be read", error) from None
        if is_taken:
            raise ResultsError(
                f"{root} already exists and will not be overwritten;\n"
                f"{resume_hint}, choose another --name, or remove that folder"
            )
        folder = path.parent if nearest == path and not os.access(path, os.W_OK) else nearest
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            problem = "may not be written to" if folder.is_dir() else "is not a folder"
            raise ResultsError(f"{root}: cannot be made: {folder} {problem}; choose another --results")

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """Open the folder of a sweep and read its tables.

        Raises:
            ResultsError: it is not the folder of a sweep, for which the sweeps beside it are named; or a table is
                damaged.
        """
        try:
            is_sweep = (root / "sweep.yaml").is_file()
        except OSError as error:
            raise as_disk_error(root, "cannot be read", error) from None
        if not is_sweep:
            near = sorted(file.parent.name for file in root.parent.glob("[!.]*/sweep.yaml"))
            others = f"sweeps in {root.parent}: {', '.join(near[:8])}" if near else f"{root.parent} holds no sweep"
            raise ResultsError(f"{root}: is not the results folder of a sweep (it has no sweep.yaml); {others}")
        folder = cls(root)
        history = folder._read_history()  # first, as it is written first: then an ended trial has all its epochs
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
        """Hold the folder's lock, which keeps other processes from running this sweep.

        The lock is released when the process ends, however it ends.

        Raises:
            ResultsError: another process runs the sweep, or the lock file cannot be written.
        """
        lock = locks.acquire(self.root, locks.SECONDS)
        if lock is None:
            self._raise_running()
        try:
            yield
        finally:
            lock.release()

    def ensure_not_running(self) -> None:
        """Raise if another process is running the sweep.

        Raises:
            ResultsError: another process is running it.
        """
        if self.is_running:
            self._raise_running()

    def _raise_running(self) -> NoReturn:
        raise ResultsError(f"{self.root}: this sweep is being run by another process; wait for it or end it")

    @property
    def is_running(self) -> bool:
        """Whether a process is running the sweep, on this machine or, if the file system has locks, on another one."""
        if not any((self.root / name).is_file() for name in (LOCK_FILE, SOFT_LOCK_FILE)):
            return False
        try:
            lock = locks.acquire(self.root, 0)
        except ResultsError:  # a folder of another user that is read-only here
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
        """The folder of the best model."""
        return self.root / "best"

    def trial(self, trial_id: str) -> Path:
        """Return the folder of a trial.

        Raises:
            ResultsError: the id is not one that a trial may have, so its path could lead out of the results folder.
        """
        try:
            return self.root / "trials" / schemas.check_trial_id(trial_id)
        except ValueError as error:
            raise ResultsError(f"{self.root}: {trial_id!r}: {error}") from None

    def record_trial(self, trial_id: str, **values: Any) -> None:
        """Add a trial to trials.csv or change its row. A new `state` is written at once, other values with a delay.

        Raises:
            KeyError: a name that is not one of `TRIAL_COLUMNS`.
        """
        row = {_known(key, TRIAL_COLUMNS): value for key, value in values.items()}
        self._trials.setdefault(trial_id, {"trial_id": trial_id}).update(row)
        if "state" in values or time.monotonic() > self._next_flush:
            self.flush()

    def record_epoch(self, trial_id: str, epoch: int, **values: Any) -> None:
        """Add an epoch to history.csv, or replace it: a resumed trial may repeat an epoch.

        The next `record_trial` writes it.

        Raises:
            KeyError: a name that is not one of `HISTORY_COLUMNS`.
        """
        row = {_known(key, HISTORY_COLUMNS): value for key, value in values.items()}
        self._history.setdefault(trial_id, {})[epoch] = {"trial_id": trial_id, "epoch": epoch, **row}
        self._history_lines.pop(trial_id, None)

    def drop_epochs(self, trial_id: str, *, after: int = 0) -> None:
        """Remove a trial's epochs after `after` from history.csv and its `SUMMARY_COLUMNS` from trials.csv.

        The next `record_trial` writes it.
        """
        epochs = self._history.get(trial_id, {})
        self._history[trial_id] = {epoch: row for epoch, row in epochs.items() if epoch <= after}
        self._history_lines.pop(trial_id, None)
        for key in SUMMARY_COLUMNS:
            self._trials.get(trial_id, {}).pop(key, None)

    def flush(self) -> bool:
        """Write history.csv and trials.csv, in this order, so that a trial that has ended has all its epochs.

        If the disk is full, a warning is logged and the files stay as they were. The rows stay in memory and are
        written with the next change.

        Returns:
            Whether the files were written: `is_flushed`.
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
        self._next_flush = now + (now - started) / MAX_FLUSH_SHARE
        return self.is_flushed

    def trial_row(self, trial_id: str) -> dict[str, Any]:
        """Return a trial's row of trials.csv without its empty cells; empty if the trial is unknown."""
        return dict(self._trials.get(trial_id, {}))

    def trial_ids(self, *states: str) -> list[str]:
        """Return the ids of the trials in one of `states`, or of all, in the order in which they were started."""
        return [trial_id for trial_id, row in self._trials.items() if not states or row.get("state") in states]

    def sort_trials(self) -> None:
        """Sort the trials by id, which is the order in which they were started."""
        self._trials = dict(sorted(self._trials.items()))

    def configs(self) -> dict[str, TrialConfig]:
        """Return the settings of all trials by id, for a sweep that is resumed.

        Raises:
            ResultsError: a row of trials.csv lacks a setting, its state, or its best epoch although it has a metric.
                Missing values are not guessed.
        """
        configs = {}
        for trial_id, row in self._trials.items():
            missing = [name for name in PARAMETERS if name not in row]
            if any(name in row for name in METRIC_COLUMNS) and "best_epoch" not in row:
                missing.append("best_epoch")
            if missing or "state" not in row:
                shown = ", ".join((missing or ["state"])[:4])
                readers.refuse(self.root / "trials.csv", f"{trial_id}: {shown}: should not be empty", TRIALS_REMEDY)
            configs[trial_id] = TrialConfig(**{name: row[name] for name in PARAMETERS})
        return configs

    def epochs(self, trial_id: str) -> list[dict[str, Any]]:
        """Return a trial's rows of history.csv in the order of the epochs."""
        return [row for _, row in sorted(self._history.get(trial_id, {}).items())]

    def trials(self) -> pd.DataFrame:
        """Read trials.csv: one row for each trial, with the columns `TRIAL_COLUMNS`; empty before the first trial."""
        return table_reader.frame(self._read_trials()[0], TRIAL_COLUMNS)

    def history(self) -> pd.DataFrame:
        """Read history.csv: one row for each epoch of a trial, with the columns `HISTORY_COLUMNS`."""
        return table_reader.frame(self._read_history()[0], HISTORY_COLUMNS)

    def ranking(self, metric: str, sign: int) -> list[str]:
        """Return the ids of the COMPLETE and PRUNED trials that have a value, the best first.

        Equal trials are in the order in which they were started.

        Args:
            metric: one of `METRIC_COLUMNS`.
            sign: 1 if more is better, -1 if less is.
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
        """Add values to environment.json, or replace them."""
        files.write_json(self.root / "environment.json", {**self.metadata(), **values})

    def metadata(self) -> dict[str, Any]:
        """Read environment.json; empty if there is none yet.

        Raises:
            ResultsError: the file is damaged.
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
