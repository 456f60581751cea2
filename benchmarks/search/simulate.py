"""Simulate searches over the table of learning curves in virtual time, with the project's own study and ASHA rungs."""

from __future__ import annotations

import heapq
import json
import math
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.neighbors import KNeighborsRegressor, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retina.config import TrialConfig
from retina.config.sweep import SweepSpec
from retina.sweep.backend import SweepResult, TrainingFactory
from retina.sweep.ledger import Ledger
from retina.sweep.scheduler import ResumableASHAScheduler
from retina.sweep.study import SweepStudy, suggest
from retina.sweep.trial_report import METRIC, TIME_ATTR
from retina.training.epochs import EpochResult

WORKERS = 4
"""Number of concurrent trials. Every epoch takes the same virtual time."""


class Table:
    """Learning curves of validation QWK by configuration, interpolated between the configurations that were trained.

    "forest": the mean of extremely randomised trees (Geurts et al. 2006) over the smoothed curves, plus the residuals
    of one of the five most similar trained curves. The choice is a hash of the configuration, so that equal
    configurations have equal curves and neighbouring ones have independent noise, as in training. "nearest": the
    unchanged curve of the nearest trained configuration.
    """

    SMOOTH = 2  # epochs on either side that a curve is averaged over, to separate its trend from its noise
    NEIGHBORS = 5

    def __init__(self, file: Path, between: str = "forest") -> None:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        self.epochs = max(len(line["val_qwk"]) for line in lines)
        # after a run has diverged its QWK is 0, like that of a grader that calls every eye healthy
        self.curves = np.array([line["val_qwk"] + [0.0] * (self.epochs - len(line["val_qwk"])) for line in lines])
        self.best = float(self.curves.max())
        features = pd.DataFrame([_features(line["config"]) for line in lines]).fillna(0.0)
        self._columns = {name: index for index, name in enumerate(features.columns)}
        self._between = between
        if between == "nearest":
            model = make_pipeline(StandardScaler(), KNeighborsRegressor(n_neighbors=1))
            self._model = model.fit(features.to_numpy(), self.curves)
        else:
            trends = _smoothed(self.curves, self.SMOOTH)
            forest = ExtraTreesRegressor(n_estimators=100, min_samples_leaf=3, random_state=0)
            self._model = forest.fit(features.to_numpy(), trends)
            self._noise = self.curves - trends
            self._neighbors = NearestNeighbors(n_neighbors=self.NEIGHBORS).fit(trends)

    def curve(self, config: TrialConfig) -> npt.NDArray[np.float64]:
        """Return the validation QWK after each epoch, (epochs,)."""
        row = np.zeros((1, len(self._columns)))
        for name, value in _features(config.model_dump(mode="json")).items():
            row[0, self._columns[name]] = value
        mean = np.asarray(self._model.predict(row), dtype=np.float64)
        if self._between == "nearest":
            return mean[0]
        neighbors = self._neighbors.kneighbors(mean, return_distance=False)[0]
        chosen = neighbors[int(config.stable_hash(), 16) % self.NEIGHBORS]
        return np.asarray(mean[0] + self._noise[chosen], dtype=np.float64)


def _smoothed(curves: npt.NDArray[np.float64], epochs: int) -> npt.NDArray[np.float64]:
    """Return the mean of each value and up to `epochs` neighbours on either side, the same number on both."""
    count = curves.shape[1]
    reach = [min(epochs, at, count - 1 - at) for at in range(count)]
    return np.stack([curves[:, at - r : at + r + 1].mean(axis=1) for at, r in enumerate(reach)], axis=1)


def _features(config: dict[str, Any]) -> dict[str, float]:
    """Return numeric features: logarithms of rates and sizes, one-hot choices, momentum only where it is used."""
    row: dict[str, float] = {}
    for name in ("learning_rate", "weight_decay", "batch_size"):
        row[name] = math.log10(config[name])
    row["dropout"], row["label_smoothing"] = config["dropout"], config["label_smoothing"]
    row["momentum"] = config["momentum"] if config["optimizer"] == "sgd" else 0.0
    for name in ("optimizer", "schedule", "augmentation", "class_weights", "head_layers"):
        row[f"{name}={config[name]}"] = 1.0
    return row


class Search(Protocol):
    """A searcher and scheduler that the simulation drives."""

    def ask(self) -> tuple[str, TrialConfig]:
        """Return the name and configuration of the next trial."""
        ...

    def epoch(self, name: str, epoch: int, value: float, best: float, *, last: bool) -> bool:
        """Record an epoch, its value and the best value so far; return whether the trial continues."""
        ...


class RetinaSearch:
    """The project's study and rungs, driven as by the ledger and the recorder."""

    def __init__(self, spec: SweepSpec) -> None:
        self._study, self._rungs = SweepStudy.create(spec), ResumableASHAScheduler(spec)

    def ask(self) -> tuple[str, TrialConfig]:
        """See `Search`."""
        name, config = self._study.ask()
        self._rungs.on_trial_add(None, _trial(name))
        return name, config

    def epoch(self, name: str, epoch: int, value: float, best: float, *, last: bool) -> bool:  # noqa: ARG002
        """See `Search`."""
        result = {TIME_ATTR: epoch, METRIC: best}
        continues = self._rungs.on_trial_result(None, _trial(name), result) == "CONTINUE" and not last
        self._study.report(name, epoch, best)
        if not continues:
            self._rungs.on_trial_complete(None, _trial(name), result)
            self._study.tell(name, "COMPLETE" if last else "PRUNED", {epoch: best}, "")
        return continues


class RayWiring:
    """OptunaSearch and ASHA as in Ray's documentation: they get the value of each epoch, not the best so far."""

    def __init__(self, spec: SweepSpec) -> None:
        self._spec, self._count = spec, 0
        self._search = OptunaSearch(
            space=lambda trial: {"config": suggest(trial, spec).model_dump(mode="json")},
            metric="val_qwk",
            mode="max",
            sampler=optuna.samplers.TPESampler(seed=spec.seed),
        )
        self._asha = ASHAScheduler(
            time_attr="training_iteration",
            metric="val_qwk",
            mode="max",
            max_t=spec.max_epochs,
            grace_period=spec.early_stop.grace_epochs,
            reduction_factor=spec.early_stop.eta,
        )

    def ask(self) -> tuple[str, TrialConfig]:
        """See `Search`."""
        name = f"{self._count:05d}"
        self._count += 1
        suggested = self._search.suggest(name) or {}
        self._asha.on_trial_add(None, SimpleNamespace(trial_id=name))
        return name, TrialConfig(**suggested["config"])

    def epoch(self, name: str, epoch: int, value: float, best: float, *, last: bool) -> bool:  # noqa: ARG002
        """See `Search`; calls scheduler and searcher in the order of Tune's controller."""
        result = {"training_iteration": epoch, "val_qwk": value}
        trial = SimpleNamespace(trial_id=name)
        continues = not last and self._asha.on_trial_result(None, trial, result) == "CONTINUE"
        if continues:
            self._search.on_trial_result(name, result)
        else:
            self._asha.on_trial_complete(None, trial, result)
            self._search.on_trial_complete(name, result)
        return continues


@dataclass(frozen=True)
class Run:
    """The result of a simulated search.

    Attributes:
        epochs: number of epochs until the target was reached; None if it was not.
        trials: number of trials begun until then.
        trace: (epochs so far, best QWK so far) at each improvement.
    """

    epochs: int | None
    trials: int
    trace: list[tuple[int, float]]


def simulate(search: Search, table: Table, *, target: float, most_epochs: int, most_trials: int) -> Run:
    """Run `search` until a trial reaches `target` QWK, or until the limit of epochs or trials."""
    queue: list[tuple[int, int, str]] = []  # (virtual time, tie-breaker, trial)
    curves: dict[str, npt.NDArray[np.float64]] = {}
    reached: dict[str, tuple[int, float]] = {}
    epochs, order, overall_best, trace = 0, 0, -math.inf, []

    def begin(now: int) -> None:
        nonlocal order
        if len(curves) < most_trials:
            name, config = search.ask()
            curves[name], reached[name] = table.curve(config), (0, -math.inf)
            heapq.heappush(queue, (now + 1, order, name))
            order += 1

    for _ in range(WORKERS):
        begin(0)
    while queue and epochs < most_epochs:
        now, _, name = heapq.heappop(queue)
        epochs += 1
        epoch, value = reached[name][0] + 1, float(curves[name][reached[name][0]])
        best = max(reached[name][1], value)
        reached[name] = (epoch, best)
        if best > overall_best:
            overall_best = best
            trace.append((epochs, best))
        if best >= target:
            return Run(epochs, len(curves), trace)
        if search.epoch(name, epoch, value, best, last=epoch == table.epochs):
            heapq.heappush(queue, (now + 1, order, name))
            order += 1
        else:
            begin(now)
    return Run(None, len(curves), trace)


class SimulatedBackend:
    """Runs the trials of a complete sweep, with tables and study, in virtual time. No checkpoints are written.

    Implements `retina.sweep.backend.Backend`, as Ray's and the local backend do.
    """

    def __init__(self, workers: int = WORKERS) -> None:
        """Set the number of concurrent trials; every epoch takes the same virtual time."""
        self._workers = workers

    def run(self, spec: SweepSpec, ledger: Ledger, task: TrainingFactory) -> SweepResult:
        """Run the sweep to its end; trials stop early at the rungs of ASHA."""
        rungs = ResumableASHAScheduler(spec)
        queue: deque[tuple[str, Iterator[EpochResult]]] = deque()  # ordered by the end of the current epoch
        while not ledger.ended_by():
            while len(queue) < min(self._workers, ledger.remaining):
                name, config = ledger.ask()
                ledger.started(name, config)
                rungs.on_trial_add(None, _trial(name))
                queue.append((name, task(config)))
            if not queue:
                break
            name, training = queue.popleft()
            epoch = asdict(next(training))
            ledger.epoch(name, epoch[TIME_ATTR], epoch)
            result = {TIME_ATTR: epoch[TIME_ATTR], METRIC: ledger.values(name)[epoch[TIME_ATTR]]}
            is_last = epoch[TIME_ATTR] >= ledger.folder.trial_row(name)["epochs"]
            if is_last or rungs.on_trial_result(None, _trial(name), result) != "CONTINUE":
                rungs.on_trial_complete(None, _trial(name), result)
                reason = "" if is_last else f"stopped at the rung of epoch {epoch[TIME_ATTR]}"
                ledger.end(name, "COMPLETE" if is_last else "PRUNED", reason)
            else:
                queue.append((name, training))
        limit = ledger.close()
        return SweepResult(best=ledger.best, ended_by=limit, interrupted=bool(ledger.remaining) and not limit)


def _trial(name: str) -> SimpleNamespace:
    return SimpleNamespace(trial_id=name, config={"trial": name})


def quiet() -> None:
    """Silence Optuna's log and its experimental warnings."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
