"""The results folder: the one place that writes it and reads it.

    results/<name>/
      sweep.yaml, environment.json, trials.csv, history.csv, skipped.csv (if any), study.db, tune/
      trials/<id>/   config.json, log.txt, error.txt if it failed, model.pt of the few that are kept
      best/          model.pt, config.json, metrics.json, predictions.csv and the figures

Plain files that a person and pandas can read. Every file is written under a temporary name and then renamed, so that a
reader, or a machine that loses its power, never meets half a file.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from retina.config import TrialConfig
from retina.errors import ResultsError

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
]
WHOLE = ["epochs_run", "best_epoch", "epoch"]
FLUSH_SECONDS = 1.0
"""How often at most the two tables are written for epochs alone; a trial's new state is written at once."""


class RunFolder:
    """One sweep's folder, `results/<name>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trials: dict[str, dict[str, Any]] = {}
        self._history: dict[tuple[str, int], dict[str, Any]] = {}
        self._written = 0.0

    @classmethod
    def create(cls, root: Path) -> RunFolder:
        """A new folder.

        Raises:
            ResultsError: when it is there already, or cannot be made.
        """
        cls.refuse_taken(root)
        try:
            (root / "trials").mkdir(parents=True)
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
            near = sorted(file.parent.name for file in root.parent.glob("*/sweep.yaml"))
            beside = f"sweeps in {root.parent}: {', '.join(near[:8])}" if near else f"{root.parent} holds no sweep"
            raise ResultsError(f"{root}: is not the results folder of a sweep (it has no sweep.yaml); {beside}")
        folder = cls(root)
        for row in _rows(folder.trials()):
            folder._trials[row["trial_id"]] = row
        for row in _rows(folder.history()):
            folder._history[row["trial_id"], int(row["epoch"])] = row
        return folder

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
        if "state" in values or time.monotonic() - self._written > FLUSH_SECONDS:
            self.flush()

    def record_epoch(self, trial_id: str, epoch: int, **values: Any) -> None:
        """Add one epoch to history.csv; one that is there already is replaced (a trial that was resumed repeats it).

        It is written with the next `record_trial`.

        Raises:
            KeyError: a value that is not one of `HISTORY_COLUMNS`.
        """
        row = {_known(key, HISTORY_COLUMNS): value for key, value in values.items()}
        self._history[trial_id, epoch] = {"trial_id": trial_id, "epoch": epoch, **row}

    def flush(self) -> None:
        """Write trials.csv and history.csv as they stand."""
        write_csv(self.root / "trials.csv", self._trials.values(), TRIAL_COLUMNS)
        history = sorted(self._history.values(), key=lambda row: (row["trial_id"], row["epoch"]))
        write_csv(self.root / "history.csv", history, HISTORY_COLUMNS)
        self._written = time.monotonic()

    def recorded(self, trial_id: str) -> dict[str, Any]:
        """What is known of a trial; empty where it is unknown."""
        return dict(self._trials.get(trial_id, {}))

    def epochs(self, trial_id: str) -> list[dict[str, Any]]:
        """What is known of a trial's epochs, in their order."""
        rows = [row for (trial, _), row in self._history.items() if trial == trial_id]
        return sorted(rows, key=lambda row: int(row["epoch"]))

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
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line.rstrip("\n") + "\n")


def write_text(file: Path, text: str) -> None:
    """Write `file` whole or not at all."""
    write_bytes(file, text.encode(errors="backslashreplace"))  # file names need not be text


def write_bytes(file: Path, content: bytes) -> None:
    """Write `file` whole or not at all."""
    with _whole(file) as partial:
        partial.write(content)


def write_json(file: Path, values: Any) -> None:
    """Write `file` as indented JSON, whole or not at all."""
    write_text(file, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(file: Path, rows: Iterable[Mapping[str, Any]], columns: list[str]) -> None:
    """Write `file` as CSV with `columns`, whole or not at all; what a row lacks stays empty."""
    # of objects: a column of whole numbers with a gap in it would become one of 3.0, 5.0
    told = [{key: _with_one_line_end(value) for key, value in row.items()} for row in rows]
    write_frame(file, pd.DataFrame(told, columns=columns, dtype=object))


def write_frame(file: Path, frame: pd.DataFrame) -> None:
    """Write `file` as CSV without the index, whole or not at all."""
    text = io.StringIO()
    frame.to_csv(text, index=False)
    write_text(file, text.getvalue())


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
def _whole(file: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `file` when it is written and on the disk; else it leaves no trace."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _with_one_line_end(value: Any) -> Any:
    """A text's carriage returns as line feeds: Python's csv does not quote the former, and they would end the row."""
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value


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
    if missing := [column for column in columns if column not in table]:
        raise ResultsError(f"{file}: lacks the columns {', '.join(missing)}")
    return table


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    # whole numbers with a gap among them are read as 3.0, 5.0
    frame = frame.astype({key: "Int64" for key in WHOLE if key in frame})
    return [
        {str(key): value for key, value in row.items() if pd.notna(value)} for row in frame.to_dict(orient="records")
    ]
