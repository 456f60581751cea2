"""The results folder: the one place that writes it and reads it.

    results/<name>/
      sweep.yaml, environment.json, trials.csv, history.csv, skipped.csv (if any), study.db, tune/
      trials/<id>/   config.json, log.txt, error.txt if it failed, model.pt of the few that are kept (see `checkpoints`)
      best/          model.pt, config.json, metrics.json, predictions.csv and the figures

Plain files that a person and pandas can read. Every file is written under a temporary name and then renamed, so that a
reader, or a machine that loses its power, never meets half a file.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import pandas as pd

from retina import private, spreadsheet
from retina.config import TrialConfig
from retina.errors import ResultsError
from retina.printable import printable

log = logging.getLogger(__name__)

PARAMETERS = list(TrialConfig.model_fields)
MEASURES = ["val_qwk", "val_accuracy", "val_auc", "val_loss"]
"""Validation metrics of a trial's best epoch, as they stand in trials.csv."""
TRIAL_COLUMNS = [
    "trial_id",
    "state",  # COMPLETE, PRUNED, FAIL or RUNNING
    *PARAMETERS,
    "epochs_run",
    "best_epoch",
    *MEASURES,
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
WHOLE = ["epochs_run", "best_epoch", "epoch", "micro_batch"]
FLUSH_SHARE = 0.05
"""Of the time, at most, that goes into writing the tables for epochs alone; a trial's new state is written at once."""
LOCK_FILE = ".lock"
FINISHED = ("COMPLETE", "PRUNED", "FAIL")


class RunFolder:
    """One sweep's folder, `results/<name>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trials: dict[str, dict[str, Any]] = {}
        self._history: dict[str, dict[int, dict[str, Any]]] = {}
        self._history_lines: dict[str, str] = {}  # of each trial, as they were last written
        self._rest_until = 0.0
        self.is_flushed = True

    @classmethod
    def create(cls, root: Path) -> RunFolder:
        """A new folder.

        Raises:
            ResultsError: when it is there already, or cannot be made.
        """
        cls.refuse_taken(root)
        try:
            private.make_folder(root)
            private.make_folder(root / "trials")
        except OSError as error:
            raise ResultsError(f"{root}: cannot be made: {error.strerror}") from None
        return cls(root)

    @staticmethod
    def refuse_taken(root: Path) -> None:
        """Stop where a new folder would overwrite something.

        Raises:
            ResultsError: when `root` is there already and not empty.
        """
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ResultsError(
                f"{root} is there already and will not be overwritten;\n"
                "go on with it (--resume), choose another --name, or remove that folder"
            )

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """A folder that a sweep has written.

        Raises:
            ResultsError: when it is none, saying which ones stand beside it.
        """
        if not (root / "sweep.yaml").is_file():
            near = sorted(file.parent.name for file in root.parent.glob("[!.]*/sweep.yaml"))
            beside = f"sweeps in {root.parent}: {', '.join(near[:8])}" if near else f"{root.parent} holds no sweep"
            raise ResultsError(f"{root}: is not the results folder of a sweep (it has no sweep.yaml); {beside}")
        folder = cls(root)
        for row in _rows(folder.trials()):
            folder._trials[row["trial_id"]] = row
        for row in _rows(folder.history()):
            folder._history.setdefault(row["trial_id"], {})[int(row["epoch"])] = row
        return folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other process from running this sweep meanwhile; the lock goes with the process, however it ends.

        Raises:
            ResultsError: another process runs it.
        """
        lock = filelock.FileLock(self.root / LOCK_FILE)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise ResultsError(
                f"{self.root}: this sweep is being run by another process; wait for it or end it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    @property
    def is_running(self) -> bool:
        """Whether a process on this machine runs the sweep just now."""
        if not (self.root / LOCK_FILE).is_file():
            return False
        try:
            filelock.FileLock(self.root / LOCK_FILE).acquire(blocking=False).lock.release()
        except filelock.Timeout:
            return True
        except OSError:  # somebody else's folder, which we may read only
            return False
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
        """The folder of one trial."""
        return self.root / "trials" / trial_id

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

    def flush(self) -> bool:
        """Write history.csv and trials.csv as they stand, in this order: a trial that has ended has all its epochs.

        A disk that is full is said, and both stay as they were; what is to be written is known still, and is written
        with the next change.

        Returns:
            Whether they were written: `is_flushed`.
        """
        started = time.monotonic()
        for trial_id in self._history.keys() - self._history_lines.keys():
            self._history_lines[trial_id] = _csv_lines(self.epochs(trial_id), HISTORY_COLUMNS)
        history = "".join(self._history_lines[trial_id] for trial_id in sorted(self._history_lines))
        try:
            write_text(self.root / "history.csv", ",".join(HISTORY_COLUMNS) + "\n" + history)
            write_csv(self.root / "trials.csv", self._trials.values(), TRIAL_COLUMNS)
            self.is_flushed = True
        except OSError as error:
            if self.is_flushed:
                log.warning("%s: the tables cannot be written now: %s", self.root, error.strerror)
            self.is_flushed = False
        now = time.monotonic()
        self._rest_until = now + (now - started) / FLUSH_SHARE
        return self.is_flushed

    def recorded(self, trial_id: str) -> dict[str, Any]:
        """What is known of a trial; empty where it is unknown."""
        return dict(self._trials.get(trial_id, {}))

    def trial_ids(self, *states: str) -> list[str]:
        """The trials in one of `states`, or all of them, in the order in which they were started."""
        return [trial_id for trial_id, row in self._trials.items() if not states or row.get("state") in states]

    def epochs(self, trial_id: str) -> list[dict[str, Any]]:
        """What is known of a trial's epochs, in their order."""
        return [row for _, row in sorted(self._history.get(trial_id, {}).items())]

    def trials(self) -> pd.DataFrame:
        """trials.csv: a row a trial, `TRIAL_COLUMNS`; empty before the first."""
        return _read_csv(self.root / "trials.csv", TRIAL_COLUMNS)

    def history(self) -> pd.DataFrame:
        """history.csv: a row an epoch of a trial, `HISTORY_COLUMNS`; empty before the first."""
        return _read_csv(self.root / "history.csv", HISTORY_COLUMNS)

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

    def note(self, **values: Any) -> None:
        """Add to environment.json, or change there, what is known of the sweep as a whole."""
        write_json(self.root / "environment.json", {**self.notes(), **values})

    def notes(self) -> dict[str, Any]:
        """What environment.json says; empty before anything was noted."""
        file = self.root / "environment.json"
        return dict(read_json(file)) if file.is_file() else {}

    def log(self, trial_id: str, line: str) -> None:
        """Add a line to a trial's log.txt."""
        folder = self.trial(trial_id)
        private.make_inside(folder)
        with (folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(printable(line.rstrip("\n"), keep="\n\t") + "\n")


def write_text(file: Path, text: str, *, is_private: bool = False) -> None:
    """Write `file` whole or not at all; a private one is new readable by its owner alone."""
    with _whole(file, is_private=is_private) as partial:
        partial.write(text.encode(errors="backslashreplace"))  # file names need not be text


def write_bytes(file: Path, content: bytes) -> None:
    """Write `file` whole or not at all."""
    with _whole(file) as partial:
        partial.write(content)


def write_json(file: Path, values: Any, *, is_private: bool = False) -> None:
    """Write `file` as indented JSON, whole or not at all."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(file, text + "\n", is_private=is_private)


def write_csv(file: Path, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
    """Write `file` as CSV with `columns`, whole or not at all; what a row lacks stays empty."""
    write_text(file, ",".join(columns) + "\n" + _csv_lines(rows, columns))


def write_frame(file: Path, frame: pd.DataFrame, *, is_private: bool = False) -> None:
    """Write `file` as CSV without the index, whole or not at all."""
    write_text(file, spreadsheet.to_csv(frame), is_private=is_private)


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ResultsError: no such file, or not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise ResultsError(f"{file}: is not JSON: {error}") from None


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all."""
    with source.open("rb") as original, _whole(target) as partial:
        shutil.copyfileobj(original, partial)


@contextmanager
def _whole(file: Path, *, is_private: bool = False) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `file` when it is written and on the disk; else it leaves no trace."""
    if not file.name:  # "." or "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    private.make_inside(file.parent)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        mode = private.mode_for(file, is_private=is_private)
        with open(partial, "wb", opener=private.opener(mode)) as opened:  # Path.open takes none
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _csv_lines(rows: Iterable[Mapping[str, Any]], columns: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """What stands in the table: NaN as nothing, a text's carriage returns (csv leaves them bare) as line feeds."""
    if isinstance(value, str):
        return spreadsheet.as_text(value.replace("\r\n", "\n").replace("\r", "\n"))
    return None if isinstance(value, float) and math.isnan(value) else value


def _known(key: str, columns: list[str]) -> str:
    if key not in columns:
        raise KeyError(key)
    return key


def _read_csv(file: Path, columns: list[str]) -> pd.DataFrame:
    if not file.is_file():
        return pd.DataFrame(columns=columns)
    try:
        # "none" is a kind of augmentation and of class weights, not a missing value
        table = pd.read_csv(file, dtype={"trial_id": str, "reason": str}, keep_default_na=False, na_values=[""])
    except ValueError as error:  # pandas' own are among them
        raise ResultsError(f"{file}: is not a table: {error}") from None
    table = spreadsheet.restored(table)
    missing = [column for column in columns if column not in table]
    # a setting that was added since: its default is what was done before there was one
    added = {name: getattr(TrialConfig(), name) for name in missing if name in PARAMETERS and "arch" in table}
    if missing := [column for column in missing if column not in added]:
        raise ResultsError(f"{file}: lacks the columns {', '.join(missing)}")
    return table.assign(**added)[columns] if added else table


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    # whole numbers with a gap among them are read as 3.0, 5.0
    frame = frame.astype({key: "Int64" for key in WHOLE if key in frame})
    return [
        {str(key): value for key, value in row.items() if pd.notna(value)} for row in frame.to_dict(orient="records")
    ]
